"""The default schedule of windows over one image: the convolution of each channel by a kernel of
its own.

Every element of the operand is used as often as the kernel has taps, and nothing else is shared.
So lanes run along the rows of the image, and a tile is high: a row of the operand that is loaded
once serves the taps of all rows of the result that it is part of. The border is added for one
image at a time, which then is near.
"""

from dataclasses import dataclass
from math import prod

from treadle.expr.scalar import Expr, Var, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import blocks, enclosing_loops, loads
from treadle.ir.tensor import IterVar
from treadle.passes.kinds import only_store
from treadle.schedule.index_map import IndexMap
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.blocks import block_of, lanes_last, loops_of_axes, store_of
from treadle.tune.contraction import NEAR, Contraction, as_contraction, destination, stride_of
from treadle.tune.parallel import spread
from treadle.tune.register_tile import bind_tile, hold_sums
from treadle.tune.spatial_schedule import lanes_of, vectorize_loop

_ROWS = 14
_PRODUCTS = 256
"""Products of vectors of an image up to which they are spelled out."""
_TAPS = 7
"""Taps along an axis up to which they are unrolled."""


@dataclass(frozen=True, slots=True)
class _Windows:
    """The axes of a contraction of windows of one operand with weights that all of them share."""

    lane: IterVar
    row: IterVar
    tap: IterVar
    """The axis of the reduction that moves along with the rows."""
    steps: tuple[IterVar, ...]
    """The others of the reduction."""
    outer: tuple[IterVar, ...]


def _windows(s: Schedule, found: Contraction) -> _Windows | None:
    """The axes, if this is such a contraction."""
    image = next((k for k in (0, 1) if not found.free(1 - k)), None)
    if image is None or any(_extent(i) is None for i in found.reduce):
        return None
    load, result = found.operands[image], destination(found, s.function)
    free = found.free(image)
    lane = next((i for i in free if stride_of(result, i.var) == 1), None)
    if lane is None or stride_of(load, lane.var) not in range(1, NEAR + 1):
        return None
    moved = {i.var: _moving_with(found, load.indices, i) for i in free if i is not lane}
    row = next((i for i in reversed(free) if i is not lane and moved[i.var] is not None), None)
    tap = None if row is None else moved[row.var]
    if row is None or tap is None or prod(_extent(i) or 1 for i in found.reduce) > _TAPS**2:
        return None
    steps = tuple(i for i in found.reduce if i is not tap)
    outer = tuple(i for i in found.spatial if i not in (lane, row))
    return _Windows(lane, row, tap, steps, outer)


def _moving_with(found: Contraction, indices: tuple[Expr, ...], axis: IterVar) -> IterVar | None:
    """The axis of the reduction that an index is the sum of ``axis`` and, if it is short."""
    used = [{*variables(i)} for i in indices if axis.var in variables(i)]
    if len(used) != 1:
        return None
    taps = [i for i in found.reduce if i.var in used[0]]
    return taps[0] if len(taps) == 1 and (_extent(taps[0]) or _TAPS + 1) <= _TAPS else None


def _extent(axis: IterVar) -> int | None:
    return int_value(simplify(axis.extent))


def schedule_windows(s: Schedule, block: str, target: Target, threads: int) -> bool:
    """Tile windows over images and put the block that follows them onto the tile; whether they are
    such windows.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    found = as_contraction(block_of(s, block))
    axes = None if found is None else _windows(s, found)
    if found is None or axes is None or found.output.dtype.bits != 32:
        return False
    loops = loops_of_axes(s.function, found.block)
    if len(loops) != len(found.block.iters):
        return False
    outer = [loops[i.var] for i in axes.outer]
    panel, lane = s.split(loops[axes.lane.var], (None, target.lanes(found.output.dtype.bits)))
    group, row = s.split(loops[axes.row.var], (None, _height(axes.row)))
    steps, tap = [loops[i.var] for i in axes.steps], loops[axes.tap.var]
    s.reorder(*outer, group, panel, *steps, row, tap, lane, reassociate=True)
    _in_registers(s, block, found, axes.lane, panel, (row, tap, lane), [*steps, row][0])
    lanes = target.lanes(found.output.dtype.bits)
    if _is_small(found, axes, lanes):
        for name in steps:
            s.unroll(name)
        for name in _borders(s, found):
            s.compute_inline(name)
    elif outer:
        _place_borders(s, found, axes.lane, outer[-1], target)
    if outer and threads > 1:
        spread(s, outer)
    return True


def _is_small(found: Contraction, axes: _Windows, lanes: int) -> bool:
    """Whether one tile holds an image, so that it is known for each tap what lies in the border."""
    width, height = _extent(axes.lane), _extent(axes.row)
    if width is None or height is None or width > lanes or height > _ROWS:
        return False
    return height * prod(_extent(i) or 1 for i in found.reduce) <= _PRODUCTS


def _height(row: IterVar) -> int:
    """Rows of a tile: equal tiles, none of more than the registers hold."""
    extent = _extent(row)
    return _ROWS // 2 if extent is None else -(-extent // -(-extent // _ROWS))


def _in_registers(
    s: Schedule,
    block: str,
    found: Contraction,
    lane: IterVar,
    home: str,
    tile: tuple[str, str, str],
    first: str,
) -> None:
    """Sum in registers, and let what follows take the sums from there."""
    hold_sums(s, block, home, first, 2)
    bind_tile(s, tile)
    if lane.var in found.result:
        lanes_last(s, block, lane.var)


def _place_borders(
    s: Schedule, found: Contraction, lane: IterVar, home: str, target: Target
) -> None:
    """Add the border of each image where it is used, filled apart from the copy of its inside.
    Where windows move by several elements, those that make up a vector lie side by side in there.
    """
    for name in _borders(s, found):
        pieces = [name, *s.decompose_padding(name, s.compute_at(name, home)[0])]
        buffer = store_of(s, name).buffer
        load = next(x for x in found.operands if x.buffer is buffer)
        step = stride_of(load, lane.var) or 1
        if lane.var not in variables(load.indices[-1]) or int_value(buffer.shape[-1]) is None:
            step = 1
        if step > 1:
            *params, last = [Var(f"d{i}") for i in range(buffer.ndim)]
            layout = IndexMap(
                tuple(v.name for v in (*params, last)), (*params, last % step, last // step)
            )
            s.transform_layout(buffer.name, layout)
        for piece in pieces:
            _fill(s, piece, step, target)


def _fill(s: Schedule, block: str, step: int, target: Target) -> None:
    """Run a copy, or what fills a border, in vectors of elements ``step`` apart."""
    lanes = lanes_of(s.function, block_of(s, block), target)
    inner = enclosing_loops(s.function, block_of(s, block))[-1]
    if step > 1 and int_value(simplify(inner.extent)) != 1:
        name, part = s.split(inner.var.name, (None, step))
        s.reorder(part, name)
        s.unroll(part)
        inner = enclosing_loops(s.function, block_of(s, block))[-1]
        whole, rest = divmod(int_value(simplify(inner.extent)) or 0, lanes)
        if whole and rest and lanes % rest == 0:
            # Masks of lanes that are picked cost more than a shorter vector.
            s.vectorize(s.loop_partition(name, (whole * lanes,))[-1])
            inner = enclosing_loops(s.function, block_of(s, block))[-1]
    vectorize_loop(s, inner, lanes)


def _borders(s: Schedule, found: Contraction) -> list[str]:
    """The blocks that copy an operand into a border."""
    read = {x.buffer for x in found.operands}
    stores = {b.name: only_store(b) for b in blocks(s.function)}
    return [
        name
        for name, x in stores.items()
        if x is not None and x.buffer in read and any(y.mask is not None for y in loads(x.value))
    ]
