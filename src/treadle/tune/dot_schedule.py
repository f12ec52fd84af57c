"""The default schedule of a contraction of narrow types, by the machine's dot products.

A dot product adds groups of neighbouring steps of the reduction at once: 2 of bf16, 4 of bytes. The
broadcast operand must hold these together already; the other one is packed so that a vector of
columns, each with its group, lies in one piece. Around that, the tile is that of any contraction.
"""

from dataclasses import dataclass

from treadle.expr.bounds import divisible
from treadle.expr.dtype import DType, bf16, f32, i8, i32, u8
from treadle.expr.scalar import Expr, Var, variables
from treadle.ir.analysis import enclosing_loops, facts_of, find_block
from treadle.ir.tensor import Buffer, IterVar, TensorFunction
from treadle.schedule.index_map import IndexMap
from treadle.schedule.intrinsics import find_intrinsic
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.blocks import follower_of, lanes_last, loops_of_axes
from treadle.tune.contraction import Contraction, as_contraction, can_pack, extent_of, stride_of
from treadle.tune.parallel import fills, spread
from treadle.tune.register_tile import hold_sums

# The types of the broadcast operand, the packed one and the sum; family and group.
_FAMILIES: dict[tuple[DType, DType, DType], tuple[str, int]] = {
    (bf16, bf16, f32): ("dot_bf16", 2),
    (u8, i8, i32): ("dot_u8i8", 4),
    (i8, i8, i32): ("dot_i8i8", 4),
}
_VECTORS = 4
_SPARE = 2
"""Registers that hold neither sums nor packed operands: a broadcast one, and one for the address of
the next or for a correction."""
_GUESS = 128
_WORTH_PACKING = 32
"""Rows from which on the packed operand may be packed while the program runs."""


@dataclass(frozen=True, slots=True)
class DotPlan:
    """How a contraction is done: which operand is packed, along which axes, and the tile."""

    family: str
    group: int
    packed: int
    column: IterVar
    step: IterVar
    row: IterVar | None
    rows: int
    vectors: int
    lanes: int

    @property
    def intrin(self) -> str:
        """The intrinsic of one row and one vector."""
        return f"{self.family}_1x{self.lanes}x{self.group}"


def dot_plan(
    found: Contraction, function: TensorFunction, constants: frozenset[Buffer], target: Target
) -> DotPlan | None:
    """The way to do a contraction by the target's own dot products; ``None`` if there is none."""
    for packed in (1, 0):
        left, right = found.operands[1 - packed], found.operands[packed]
        kinds = (left.buffer.dtype, right.buffer.dtype, found.output.dtype)
        family, group = _FAMILIES.get(kinds, ("", 0))
        lanes = target.lanes(32)
        known = find_intrinsic(f"{family}_1x{lanes}x{group}")
        if known is None or not known.is_native(target):
            continue
        column = next((a for a in found.free(packed) if can_pack(found, packed, a.var)), None)
        facts = facts_of(function)
        steps = (
            a
            for a in found.reduce
            if stride_of(left, a.var) == 1
            and can_pack(found, packed, a.var)
            and divisible(a.extent, group, facts)
        )
        step = next(steps, None)
        rows = found.free(1 - packed)
        if column is None or step is None or extent_of(column, _GUESS) < lanes:
            continue
        if not _worth(right.buffer, rows, constants):
            continue
        row = rows[-1] if rows else None
        vectors, height = tile_of(column, row, lanes, target)
        return DotPlan(family, group, packed, column, step, row, height, vectors, lanes)
    return None


def _worth(buffer: Buffer, rows: tuple[IterVar, ...], constants: frozenset[Buffer]) -> bool:
    count = 1
    for axis in rows:
        count *= extent_of(axis, _GUESS)
    return buffer in constants or count >= _WORTH_PACKING


def tile_of(column: IterVar, row: IterVar | None, lanes: int, target: Target) -> tuple[int, int]:
    """Vectors and rows: as many sums as fit in the registers beside the operands of a step, in
    rows of equal tiles.
    """
    # Fewer columns than a tile has would leave its layout without room for the whole tile.
    across = max(1, extent_of(column, _GUESS) // lanes)
    registers = target.vector_registers - _SPARE
    vectors = min(_VECTORS if registers > 16 else 2, across)
    most = max(1, (registers - vectors) // vectors)
    down = 1 if row is None else extent_of(row, _GUESS)
    tiles = -(-down // most)
    return vectors, max(1, -(-down // tiles))


def schedule_dot(
    s: Schedule,
    block: str,
    target: Target,
    threads: int,
    constants: frozenset[Buffer],
    *,
    strict: bool = False,
) -> bool:
    """Do a contraction of narrow types by dot products; whether it was done so.

    With ``strict``, floating-point sums keep their order, and are not done so.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    node = find_block(s.function, block)
    found = None if node is None else as_contraction(node)
    plan = None if found is None else dot_plan(found, s.function, constants, target)
    if found is None or plan is None or (strict and found.output.dtype.is_float):
        return False
    load = found.operands[plan.packed]
    loops = loops_of_axes(s.function, found.block)
    if len(loops) != len(found.block.iters):
        return False
    own_result(s, block)
    packed = load.buffer.name
    copied = load.buffer not in constants
    if copied:
        packed = s.cache_read(block, packed, "global")
    s.transform_layout(packed, panels(found, plan))
    outer, rows = tile_nest(s, block, found, plan, loops)
    if copied:
        pack(s, packed, found, plan, threads)
    if threads > 1:
        spread(s, outer if fills(s, outer, threads) else [*outer, *rows])
    return True


def own_result(s: Schedule, block: str) -> None:
    """Let a block store to a buffer of the function's own, so that its columns can be padded.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    if follower_of(s, block) is None:
        s.cache_write(block, "global")


def pack(s: Schedule, copy: str, found: Contraction, plan: DotPlan, threads: int) -> None:
    """Pack an operand by whole rows of lanes.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    node = find_block(s.function, copy)
    if node is None:
        return
    load = found.operands[plan.packed]
    around = {x.var: x.var.name for x in enclosing_loops(s.function, node)}
    names = [around.get(a.binding) if isinstance(a.binding, Var) else None for a in node.iters]
    column = names[load.indices.index(plan.column.var)]
    step = names[load.indices.index(plan.step.var)]
    if column is None or step is None:
        return
    kind, group, lanes = load.buffer.dtype, plan.group, plan.lanes
    turned = stride_of(load, plan.step.var) == 1
    outer, inner = s.split(step, (None, group * lanes if turned else group))
    panel, across = s.split(column, (None, lanes))
    rest = [n for n in names if n is not None and n not in (column, step)]
    if turned:
        s.reorder(*rest, panel, outer, across, inner)
        s.tensorize(across, f"transpose_{kind}_{group}x{lanes}x{lanes}")
    else:
        s.reorder(*rest, panel, outer, inner, across)
        s.tensorize(inner, f"interleave_{kind}_{group}x{lanes}")
    if threads > 1:
        spread(s, [*rest, panel])


def panels(found: Contraction, plan: DotPlan) -> IndexMap:
    """The packed operand: panels of columns, groups of steps, columns with their groups."""
    load = found.operands[plan.packed]
    width, group = plan.vectors * plan.lanes, plan.group
    params = tuple(f"d{i}" for i in range(load.buffer.ndim))
    reduced = {a.var for a in found.reduce}
    outer: list[Expr] = []
    steps: list[Expr] = []
    for param, index in zip(params, load.indices, strict=True):
        if index not in (plan.column.var, plan.step.var):
            (steps if reduced & set(variables(index)) else outer).append(Var(param))
    column = Var(params[load.indices.index(plan.column.var)])
    step = Var(params[load.indices.index(plan.step.var)])
    inner = column % width * group + step % group
    return IndexMap(params, (*outer, column // width, *steps, step // group, inner))


def tile_nest(
    s: Schedule, block: str, found: Contraction, plan: DotPlan, loops: dict[Var, str]
) -> tuple[list[str], list[str]]:
    """Split, order and bind the loops of a contraction whose packed operand is packed; those
    outside of the tile, and the one over tiles of rows inside of them, if any.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    factors = (None, plan.lanes) if plan.vectors == 1 else (None, plan.vectors, plan.lanes)
    panel, *vectors = s.split(loops[plan.column.var], factors, tail="pad")
    groups, inside = s.split(loops[plan.step.var], (None, plan.group))
    outer_row: list[str] = []
    inner: list[str] = []
    if plan.row is not None and plan.rows > 1:
        row, row_in = s.split(loops[plan.row.var], (None, plan.rows))
        outer_row, inner = [row], [row_in]
    elif plan.row is not None:
        outer_row = [loops[plan.row.var]]
    tiled = {a.var for a in (plan.column, plan.row) if a is not None}
    both = found.axes_of(0) & found.axes_of(1)
    spatial = [a for a in found.spatial if a.var not in tiled]
    batch = [loops[a.var] for a in spatial if a.var in both]
    rest = [loops[a.var] for a in spatial if a.var not in both]
    steps = [loops[a.var] for a in found.reduce if a.var is not plan.step.var] + [groups]
    outer = [*batch, panel, *rest]
    is_float = found.output.dtype.is_float
    s.reorder(*outer, *outer_row, *steps, *inner, *vectors, inside, reassociate=is_float)
    hold_sums(s, block, [*outer, *outer_row][-1], steps[0], len(inner) + len(vectors))
    lanes_last(s, block, plan.column.var)
    s.tensorize(vectors[-1], plan.intrin, reassociate=is_float)
    for name in (*inner, *vectors[:-1]):
        s.unroll(name)
    return outer, outer_row
