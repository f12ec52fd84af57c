"""How much a scheduled loop program computes and moves, for the profile."""

from functools import lru_cache

from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Apply, Expr, Var, const, variables, walk
from treadle.expr.simplify import simplify
from treadle.ir.analysis import element_count, expressions, loads, symbols
from treadle.ir.tensor import Block, For, If, Stmt, Store, TensorFunction

_COUNTED = frozenset({"arithmetic", "math"})


@lru_cache(maxsize=1024)
def work_of(function: TensorFunction) -> tuple[Expr, Expr]:
    """Floating-point operations and bytes of the parameters of one call, as expressions over the
    function's symbols.

    Tiles that are not full count as if they were. A parameter counts as read or written once. A
    loop whose length is data counts as long as it can be known to be at most.
    """
    flops = _flops(function.body, frozenset(symbols(function)))
    moved: Expr = const(0)
    for buffer in function.buffers:
        moved = moved + element_count(buffer) * buffer.dtype.bytes
    return simplify(flops), simplify(moved)


def _flops(body: tuple[Stmt, ...], known: frozenset[Var]) -> Expr:
    total: Expr = const(0)
    for s in body:
        if isinstance(s, For):
            total = total + _length(s.extent, known) * _flops(s.body, known)
        elif isinstance(s, If | Block):
            total = total + _flops(s.body, known)
        elif isinstance(s, Store):
            total = total + _operations(s)
    return total


def _length(extent: Expr, known: frozenset[Var]) -> Expr:
    """An extent over symbols: itself, the limit that it has, or 1."""
    if known.issuperset(variables(extent)) and not loads(extent):
        return extent
    limits = extent.args if isinstance(extent, Apply) and extent.fn == "min" else ()
    found = [x for x in limits if known.issuperset(variables(x)) and not loads(x)]
    return found[0] if found else const(1)


def _operations(s: Store) -> int:
    return sum(
        (2 if x.fn == "fmuladd" else 1) * x.dtype.lanes
        for x in walk(*expressions(s))
        if isinstance(x, Apply) and x.dtype.is_float and FUNCTIONS[x.fn].family in _COUNTED
    )
