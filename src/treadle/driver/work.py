"""How much a scheduled loop program computes and moves, for the profile."""

from functools import lru_cache

from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Apply, Expr, const, walk
from treadle.expr.simplify import simplify
from treadle.ir.analysis import element_count, expressions
from treadle.ir.tensor import Block, For, If, Stmt, Store, TensorFunction

_COUNTED = frozenset({"arithmetic", "math"})


@lru_cache(maxsize=1024)
def work_of(function: TensorFunction) -> tuple[Expr, Expr]:
    """Floating-point operations and bytes of the parameters of one call, as expressions over the
    function's symbols.

    Tiles that are not full count as if they were. A parameter counts as read or written once.
    """
    flops = _flops(function.body)
    moved: Expr = const(0)
    for buffer in function.buffers:
        moved = moved + element_count(buffer) * buffer.dtype.bytes
    return simplify(flops), simplify(moved)


def _flops(body: tuple[Stmt, ...]) -> Expr:
    total: Expr = const(0)
    for s in body:
        if isinstance(s, For):
            total = total + s.extent * _flops(s.body)
        elif isinstance(s, If):
            total = total + _flops(s.body)
        elif isinstance(s, Block):
            total = total + _flops(s.body)
        elif isinstance(s, Store):
            total = total + _operations(s)
    return total


def _operations(s: Store) -> int:
    return sum(
        (2 if x.fn == "fmuladd" else 1) * x.dtype.lanes
        for x in walk(*expressions(s))
        if isinstance(x, Apply) and x.dtype.is_float and FUNCTIONS[x.fn].family in _COUNTED
    )
