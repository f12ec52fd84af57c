"""The default schedule of blocks without reductions: loops fused as far as memory allows, lanes
along the innermost.
"""

from treadle.expr.scalar import Const, Expr, Var, int_value, substitute, variables
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import accesses, enclosing_loops, find_block, flat_index
from treadle.ir.tensor import Block, For, Load, Store, TensorFunction
from treadle.passes.kinds import only_store
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.blocks import block_of
from treadle.tune.parallel import spread

_SMALL = 4096
"""Points of a block below which threads do not pay."""
_SMALL_COPY = 1 << 15
"""Points of a copy, or of what is filled with a constant, below which threads do not pay."""


def schedule_spatial(s: Schedule, block: str, target: Target, threads: int) -> None:
    """Fuse, vectorize and parallelize the loops around a block of its own nest.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    order_loops(s, block)
    _once_outside(s, block)
    node = find_block(s.function, block)
    if node is None:
        return
    loops = list(enclosing_loops(s.function, node))
    if not loops:
        return
    while len(loops) > 1 and can_fuse(s.function, node, loops[-2], loops[-1]):
        s.fuse(loops[-2].var.name, loops[-1].var.name)
        node = find_block(s.function, block)
        if node is None:
            return
        loops = list(enclosing_loops(s.function, node))
    outer = [x.var.name for x in loops[:-1]]
    lanes = lanes_of(s.function, node, target)
    inner = vectorize_loop(s, loops[-1], lanes)
    if threads > 1 and _is_large(loops, _SMALL_COPY if _only_moves(node) else _SMALL):
        spread(s, outer or ([] if inner is None else [inner]))


def order_loops(s: Schedule, block: str) -> None:
    """Nest the loops over results as the results lie in memory, neighbours innermost.

    Raises:
        ScheduleError: E03xx if the loops depend on each other.
    """
    node = find_block(s.function, block)
    store = None if node is None else only_store(node)
    if node is None or store is None:
        return
    bindings: dict[Var, Expr] = {i.var: i.binding for i in node.iters}
    place = simplify(substitute(flat_index(store.buffer, store.indices), bindings))
    steps = {x.var.name: _stride(place, x.var) for x in enclosing_loops(s.function, node)}
    known = {k: v for k, e in steps.items() if (v := int_value(e) if e is not None else None)}
    names = list(known)
    ordered = sorted(names, key=lambda name: -known[name])
    if ordered != names:
        s.reorder(*ordered)


def _once_outside(s: Schedule, block: str) -> None:
    """Put the loops around a block that run once outside of the others."""
    loops = enclosing_loops(s.function, block_of(s, block))
    once = [x.var.name for x in loops if int_value(simplify(x.extent)) == 1]
    names = [x.var.name for x in loops]
    ordered = [*once, *(x for x in names if x not in once)]
    if ordered != names:
        s.reorder(*ordered)


def vectorize_loop(s: Schedule, loop: For, lanes: int) -> str | None:
    """Run a loop's iterations as lanes; the loop over vectors, if there is one."""
    extent = int_value(simplify(loop.extent))
    if extent is not None and extent <= lanes:
        if extent > 1:
            s.vectorize(loop.var.name)
        return None
    outer, inner = s.split(loop.var.name, (None, lanes))
    s.vectorize(inner)
    return outer


def lanes_of(function: TensorFunction, block: Block, target: Target) -> int:
    """Lanes for a block by the widest type that it stores or loads."""
    bits = max(a.buffer.dtype.bits for a in accesses((block,)))
    return max(4, target.lanes(max(bits, 8)))


def can_fuse(function: TensorFunction, block: Block, outer: For, inner: For) -> bool:
    """Whether every access of a block moves by the inner loop's extent times as far with the outer
    loop as with it.
    """
    bindings: dict[Var, Expr] = {i.var: i.binding for i in block.iters}
    for access in accesses((block,)):
        place = flat_index(access.buffer, access.indices)
        a = _stride(simplify(substitute(place, bindings)), outer.var)
        b = _stride(simplify(substitute(place, bindings)), inner.var)
        if a is None or b is None or int_value(simplify(a - b * inner.extent)) != 0:
            return False
    return not any(v in _others(block, bindings) for v in (outer.var, inner.var))


def _others(block: Block, bindings: dict[Var, Expr]) -> set[Var]:
    """The loops that a block's stored values depend on other than through indices; fusing these
    costs divisions.
    """
    found: set[Var] = set()

    def visit(x: Expr) -> None:
        if isinstance(x, Load):
            if x.mask is not None:
                found.update(
                    v
                    for w in variables(x.mask)
                    for e in (bindings.get(w, w),)
                    for v in variables(e)
                )
            return
        if isinstance(x, Var):
            found.update(variables(bindings.get(x, x)))
        for child in x.children:
            visit(child)

    for s in block.body:
        if isinstance(s, Store):
            visit(s.value)
    return found


def _stride(place: Expr, var: Var) -> Expr | None:
    linear = split_linear(place, var)
    return None if linear is None or var in variables(linear[1]) else linear[0]


def _only_moves(block: Block) -> bool:
    """Whether a block stores what it loads, or constants."""
    return all(isinstance(x, Store) and isinstance(x.value, Load | Const) for x in block.body)


def _is_large(loops: list[For], least: int) -> bool:
    points = 1
    for loop in loops:
        extent = int_value(simplify(loop.extent))
        if extent is None:
            return True
        points *= extent
    return points >= least
