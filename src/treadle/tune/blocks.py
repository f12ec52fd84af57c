"""Blocks of a schedule on its way, by name: what they store, who takes that, and which loops they
are bound to.
"""

from treadle.expr.scalar import Var, substitute, variables
from treadle.ir.analysis import blocks, buffers_read, enclosing_loops, find_block
from treadle.ir.tensor import Block, Load, Store, TensorFunction
from treadle.passes.kinds import only_store
from treadle.schedule.index_map import IndexMap
from treadle.schedule.trace import Schedule
from treadle.tune.contraction import Contraction, as_contraction


def block_of(s: Schedule, name: str) -> Block:
    """The block called ``name``, which must be there."""
    found = find_block(s.function, name)
    assert found is not None
    return found


def contraction_of(s: Schedule, block: str) -> Contraction:
    """The contraction that a block must be."""
    found = as_contraction(block_of(s, block))
    assert found is not None
    return found


def store_of(s: Schedule, block: str) -> Store:
    """The one store of a block, which it must have."""
    store = only_store(block_of(s, block))
    assert store is not None
    return store


def follower_of(s: Schedule, block: str) -> str | None:
    """The block that takes what a block stores, if that is a temporary."""
    output = store_of(s, block).buffer
    if output in s.function.buffers:
        return None
    users = [b.name for b in blocks(s.function) if output in buffers_read((b,))]
    return next((name for name in users if name != block), None)


def place_of(s: Schedule, block: str) -> Load:
    """Where a block stores, over the loops around it."""
    store, axes = store_of(s, block), block_of(s, block).iters
    bindings = {a.var: a.binding for a in axes}
    return Load(store.buffer, tuple(substitute(i, bindings) for i in store.indices))


def loops_of_axes(function: TensorFunction, block: Block) -> dict[Var, str]:
    """The loop that each axis is bound to by itself."""
    around = {loop.var: loop.var.name for loop in enclosing_loops(function, block)}
    pairs = ((a.var, a.binding) for a in block.iters)
    return {var: around[b] for var, b in pairs if isinstance(b, Var) and b in around}


def loop_of_axis(s: Schedule, block: str, axis: int, names: tuple[str, ...]) -> str | None:
    """The loop, one of ``names``, that an axis of a block depends on."""
    used = variables(block_of(s, block).iters[axis].binding)
    return next((v.name for v in used if v.name in names), None)


def lanes_last(s: Schedule, block: str, lane: Var) -> None:
    """Let neighbours along an axis of a block be neighbours in what it stores: lanes of one vector.

    Raises:
        ScheduleError: E03xx if the layout does not apply.
    """
    store = store_of(s, block)
    place, rank = store.indices.index(lane), len(store.indices)
    if place != rank - 1:
        s.transform_layout(store.buffer.name, moved_last(rank, place))


def moved_last(rank: int, place: int) -> IndexMap:
    """The layout in which dimension ``place`` comes last."""
    params = tuple(f"d{i}" for i in range(rank))
    order = [Var(p) for i, p in enumerate(params) if i != place]
    return IndexMap(params, (*order, Var(params[place])))
