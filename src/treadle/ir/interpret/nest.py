"""Which points of a loop nest may run at once: decided from the text of the nest alone.

Two points of a nest are independent when they touch disjoint parts of every buffer that the nest
writes. That holds when all accesses to such a buffer share some index expressions, and those differ
between the points.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from treadle.expr.scalar import Apply, Expr, Var, apply, variables
from treadle.ir.analysis import Access, accesses, loads, statements
from treadle.ir.tensor import Block, Buffer, For, If, Let, Load, Store

_ACCUMULATIONS = frozenset({"add", "mul", "min", "max", "and", "or"})
_COMMUTING = frozenset({"add", "mul"})


@dataclass(frozen=True, eq=False)
class Accumulation:
    """A body of the form ``Y[s] = combine(Y[s], term)``."""

    store: Store
    combine: str
    term: Expr


@dataclass(frozen=True, eq=False)
class Nest:
    """Loops around one block. Points of ``free`` loops are independent; those of ``ordered`` ones
    run in order.

    ``keys`` are, for each buffer written, index expressions that must differ between points of the
    free loops; ``distinct`` says that they plainly do.
    """

    block: Block
    free: tuple[For, ...]
    ordered: tuple[For, ...]
    keys: tuple[tuple[Expr, ...], ...]
    distinct: bool
    accumulation: Accumulation | None


def find_nest(outer: For) -> Nest | None:
    """The nest that starts at ``outer``, or ``None`` where no two points may run at once."""
    loops, block = _perfect_nest(outer)
    if block is None:
        return None
    loop_vars = {loop.var for loop in loops}
    if any(loop_vars & set(variables(loop.extent)) for loop in loops):
        return None
    if not all(_supported(s, loop_vars, block) for s in statements((block,)) if s is not block):
        return None
    feeds = {axis.var: loop_vars & set(variables(axis.binding)) for axis in block.iters}
    free_vars = _free_loops(loops, block, feeds)
    inside = {axis.var for axis in block.iters if not feeds[axis.var] <= free_vars}
    inside |= loop_vars - free_vars
    inside |= {s.var for s in statements(block.body + block.init) if isinstance(s, For | Let)}
    found = _keys(block, inside)
    if found is None:
        return None
    free = tuple(loop for loop in loops if loop.var in free_vars)
    ordered = tuple(loop for loop in loops if loop.var not in free_vars)
    accumulation = _accumulation(block)
    if not free and accumulation is None:
        return None
    distinct = _plainly_distinct(block, free, found)
    return Nest(block, free, ordered, found, distinct, accumulation)


def _perfect_nest(outer: For) -> tuple[list[For], Block | None]:
    loops = [outer]
    while len(loops[-1].body) == 1:
        (inner,) = loops[-1].body
        if isinstance(inner, Block):
            return loops, inner
        if not isinstance(inner, For):
            break
        loops.append(inner)
    return loops, None


def _supported(stmt: object, loop_vars: set[Var], block: Block) -> bool:
    if isinstance(stmt, For):
        # Every point must take the same number of steps.
        axes = {axis.var for axis in block.iters}
        used = set(variables(stmt.extent))
        return not used & (axes | loop_vars) and not loads(stmt.extent)
    return isinstance(stmt, Store | Let | If)


def _free_loops(loops: list[For], block: Block, feeds: dict[Var, set[Var]]) -> set[Var]:
    """The loops that step through spatial axes only, and are seen by the body through them only."""
    spatial: set[Var] = set()
    ordered: set[Var] = set()
    for axis in block.iters:
        (spatial if axis.kind == "spatial" else ordered).update(feeds[axis.var])
    for access in accesses(block.body + block.init, lanes=False):
        ordered.update(_variables_of(access))
    for stmt in statements(block.body + block.init):
        if isinstance(stmt, Store):
            ordered.update(variables(stmt.value, *stmt.indices))
        elif isinstance(stmt, Let):
            ordered.update(variables(stmt.value))
        elif isinstance(stmt, If):
            ordered.update(variables(stmt.condition))
    return {loop.var for loop in loops if loop.var in spatial and loop.var not in ordered}


def _variables_of(access: Access) -> Iterable[Var]:
    return variables(*access.indices, *(() if access.mask is None else (access.mask,)))


def _keys(block: Block, inside: set[Var]) -> tuple[tuple[Expr, ...], ...] | None:
    """For each buffer written, the indices that all accesses share and that depend on free loops
    alone.
    """
    within = accesses(block.body + block.init, lanes=False)
    written = {a.buffer for a in within if a.kind == "store"}
    outside = (*(axis.binding for axis in block.iters), *_optional(block.where))
    if any(load.buffer in written for load in loads(*outside)):
        return None
    result: list[tuple[Expr, ...]] = []
    for buffer in written:
        uses = [a.indices for a in within if a.buffer is buffer]
        result.append(tuple(_shared(buffer, uses, inside, written)))
    return tuple(result)


def _shared(
    buffer: Buffer, uses: list[tuple[Expr, ...]], inside: set[Var], written: set[Buffer]
) -> Iterable[Expr]:
    for dim in range(buffer.ndim):
        first = uses[0][dim]
        if any(indices[dim] is not first for indices in uses) or first.dtype.lanes > 1:
            continue
        if inside & set(variables(first)) or any(x.buffer in written for x in loads(first)):
            continue
        yield first


def _optional(x: Expr | None) -> tuple[Expr, ...]:
    return () if x is None else (x,)


def _plainly_distinct(
    block: Block, free: tuple[For, ...], keys: tuple[tuple[Expr, ...], ...]
) -> bool:
    """Whether every free loop is an axis of its own, and all of these index every buffer."""
    direct = {axis.binding: axis.var for axis in block.iters if isinstance(axis.binding, Var)}
    return all(direct.get(loop.var) in key for loop in free for key in keys)


def _accumulation(block: Block) -> Accumulation | None:
    if block.where is not None or len(block.body) != 1:
        return None
    (store,) = block.body
    if not isinstance(store, Store) or store.mask is not None or not isinstance(store.value, Apply):
        return None
    if any(i.dtype.lanes > 1 for i in store.indices) or store.buffer.dtype.lanes > 1:
        return None
    target = Load(store.buffer, store.indices)
    split = _split(store.value, target)
    if split is None or any(x.buffer is store.buffer for x in loads(split[1], *store.indices)):
        return None
    reduced = {axis.var for axis in block.iters if axis.kind == "reduce"}
    if reduced & set(variables(*store.indices)):
        return None
    return Accumulation(store, *split)


def _split(value: Apply, target: Load) -> tuple[str, Expr] | None:
    if value.fn == "fmuladd" and value.args[2] is target:
        return "add", apply("mul", value.args[0], value.args[1])
    if value.fn not in _ACCUMULATIONS:
        return None
    first, second = value.args
    if first is target:
        return value.fn, second
    if second is target and value.fn in _COMMUTING:
        return value.fn, first
    return None
