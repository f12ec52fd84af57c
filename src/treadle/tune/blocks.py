"""Blocks of a schedule on its way, by name: what they store, who takes that, and which loops they
are bound to.
"""

from treadle.expr.scalar import Var, variables
from treadle.ir.analysis import blocks, buffers_read, enclosing_loops, find_block
from treadle.ir.tensor import Block, TensorFunction
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


def follower_of(s: Schedule, block: str) -> str | None:
    """The block that takes a contraction's result, if that is a temporary."""
    output = contraction_of(s, block).output
    if output in s.function.buffers:
        return None
    users = [b.name for b in blocks(s.function) if output in buffers_read((b,))]
    return next((name for name in users if name != block), None)


def loops_of_axes(function: TensorFunction, block: Block) -> dict[Var, str]:
    """The loop that each axis is bound to by itself."""
    around = {loop.var: loop.var.name for loop in enclosing_loops(function, block)}
    pairs = ((a.var, a.binding) for a in block.iters)
    return {var: around[b] for var, b in pairs if isinstance(b, Var) and b in around}


def loop_of_axis(s: Schedule, block: str, axis: int, names: tuple[str, ...]) -> str | None:
    """The loop, one of ``names``, that an axis of a block depends on."""
    used = variables(block_of(s, block).iters[axis].binding)
    return next((v.name for v in used if v.name in names), None)


def lanes_last(s: Schedule, register: str, found: Contraction, lane: Var) -> None:
    """Let neighbours along an axis of a contraction's result be neighbours in a register tile, so
    that they are lanes of one vector.

    Raises:
        ScheduleError: E03xx if the layout does not apply.
    """
    place = found.result.index(lane)
    if place == len(found.result) - 1:
        return
    params = tuple(f"d{i}" for i in range(len(found.result)))
    order = [Var(p) for i, p in enumerate(params) if i != place]
    s.transform_layout(register, IndexMap(params, (*order, Var(params[place]))))
