"""About how long a function's blocks take once they are scheduled, from where their operands lie.

Only what depends on the order of elements in memory is looked at: which axis can run along lanes,
and what the others cost then. The numbers compare layouts of one function with each other.
"""

from dataclasses import dataclass
from math import ceil, prod

from treadle.expr.scalar import Var
from treadle.ir.analysis import accesses, blocks
from treadle.ir.tensor import Block, Buffer, Load, TensorFunction
from treadle.target import Target
from treadle.tune.contraction import (
    GUESSES,
    SCATTER_CYCLES,
    as_contraction,
    choose_tile,
    extent_of,
    stride_of,
    vector_loads,
)

_GUESS = max(guess for guess, _ in GUESSES)


def estimated_cycles(
    function: TensorFunction, constants: frozenset[Buffer], target: Target
) -> float:
    """Cycles of all blocks, one after the other, on one core; ``constants`` are packed as suits
    them.
    """
    return sum(_block_cycles(function, b, constants, target) for b in blocks(function))


def _block_cycles(
    function: TensorFunction, block: Block, constants: frozenset[Buffer], target: Target
) -> float:
    found = as_contraction(block)
    tile = None if found is None else choose_tile(found, function, constants, target)
    if found is None or tile is None:
        return _walk_cycles(block, target)
    points = prod(extent_of(i, _GUESS) for i in block.iters)
    return points / tile.lanes * tile.cycles / sum(weight for _, weight in GUESSES)


def _walk_cycles(block: Block, target: Target) -> float:
    """Cycles of a block whose lanes run along the axis that suits its accesses best."""
    found = accesses((block,))
    if not found or not block.iters:
        return 0.0
    lanes = target.lanes(max(8, *(a.buffer.dtype.bits for a in found)))
    extents = {i.var: extent_of(i, _GUESS) for i in block.iters}
    # What a reduction gathers stays in a register until its last step.
    kept = {a.buffer for a in found if a.kind == "store"} if block.init else set[Buffer]()
    steps = prod(extents[i.var] for i in block.iters if i.kind == "reduce")
    moves: list[_Move] = []
    for a in found:
        place = Load(a.buffer, a.indices)
        share = 1 / max(steps, 1) if a.buffer in kept else 1.0
        moves.append(_Move({v: stride_of(place, v) for v in extents}, a.kind == "store", share))
    points = prod(extents.values())
    return points / lanes * min(_lane_cycles(v, extents, moves, lanes) for v in extents)


@dataclass(frozen=True, slots=True)
class _Move:
    """An access: how far apart neighbours along each axis lie, whether it writes, and at what share
    of the points it happens.
    """

    steps: dict[Var, int | None]
    writes: bool
    share: float

    def cost(self, axis: Var, lanes: int) -> float:
        """Cycles of a vector along an axis."""
        step = self.steps[axis]
        if step == 0:
            return 0.0
        scattered = self.writes and step != 1
        return self.share * (lanes * SCATTER_CYCLES if scattered else vector_loads(step, lanes))

    def extends(self, outer: Var, axis: Var, along: int) -> bool:
        """Whether ``outer`` goes on where ``axis`` ends."""
        inner, step = self.steps[axis], self.steps[outer]
        return inner is not None and step == inner * along


def _lane_cycles(axis: Var, extents: dict[Var, int], moves: list[_Move], lanes: int) -> float:
    """Cycles of one vector of a block with ``axis`` along lanes, those that are left empty
    counted.
    """
    along, left = extents[axis], [v for v in extents if v is not axis]
    further: Var | None = axis
    while further is not None:
        further = next((v for v in left if all(m.extends(v, axis, along) for m in moves)), None)
        if further is not None:
            along *= extents[further]
            left.remove(further)
    cycles = sum(m.cost(axis, lanes) for m in moves)
    return max(cycles, 1.0) * ceil(along / lanes) * lanes / max(along, 1)
