"""The schedule of a contraction whose results lie along its rows, where its lanes are far apart, as
with channels in front: rows are computed side by side into a buffer that stays near, then stored by
transposing tiles in registers.
"""

from collections.abc import Sequence
from math import prod

from treadle.expr.dtype import f32
from treadle.expr.scalar import Expr, Var, int_value
from treadle.expr.simplify import simplify
from treadle.ir.analysis import enclosing_loops, loads
from treadle.ir.tensor import IterVar, Load
from treadle.schedule.block_layout import TransformBlockLayout
from treadle.schedule.index_map import IndexMap
from treadle.schedule.trace import Schedule
from treadle.tune.blocks import (
    block_of,
    follower_of,
    lanes_last,
    loop_of_axis,
    moved_last,
    place_of,
    store_of,
)
from treadle.tune.contraction import Contraction, Tile, destination, stride_of
from treadle.tune.packing import turn_lanes
from treadle.tune.register_tile import bind_tile, hold_sums

_MOST_ROWS = 128
"""Rows that stay near, with the columns of a panel, until all are stored."""


def is_turned(s: Schedule, block: str, found: Contraction, tile: Tile) -> bool:
    """Whether results lie along the rows of a tile, as many as fill a vector and stay near."""
    if (
        tile.row_axis is None
        or tile.rows == 1
        or tile.vector_axis in found.axes_of(1 - tile.vector)
    ):
        return False
    result = destination(found, s.function)
    if result.buffer.dtype != f32 or _column_of(s, block, found, tile) is None:
        return False
    phase = _phase(found, result, tile.row_axis)
    if stride_of(result, tile.row_axis) != 1 and (phase is None or not _is_copied(s, block)):
        return False
    axes = [i for i in found.spatial if i.var is tile.row_axis or i is phase]
    extents = [int_value(simplify(i.extent)) for i in axes]
    return None not in extents and tile.lanes <= prod(x for x in extents if x) <= _MOST_ROWS


def _phase(found: Contraction, result: Load, row: Var) -> IterVar | None:
    """The axis that results of neighbouring rows stand apart for, if there is one, as in a
    transposed convolution.
    """
    step = stride_of(result, row)
    near = (i for i in found.spatial if stride_of(result, i.var) == 1)
    return next((i for i in near if step != 1 and int_value(simplify(i.extent)) == step), None)


def _column_of(s: Schedule, block: str, found: Contraction, tile: Tile) -> int | None:
    """Which dimension of what is stored by transposing the columns are, if they are one: of the
    result's places, or of the sums if what follows only copies these.
    """
    places = found.result if _is_copied(s, block) else destination(found, s.function).indices
    return places.index(tile.vector_axis) if tile.vector_axis in places else None


def _is_copied(s: Schedule, block: str) -> bool:
    """Whether what follows a contraction only copies its results, one for each of its axes."""
    follower = follower_of(s, block)
    if follower is None:
        return False
    axes, value = [i.var for i in block_of(s, follower).iters], store_of(s, follower).value
    if not isinstance(value, Load) or value.mask is not None or len(value.indices) != len(axes):
        return False
    moved = [x for x in value.indices if int_value(x) != 0]
    return set(moved) <= set(axes) and len(set(moved)) == len(moved)


def tile_turned(
    s: Schedule, block: str, found: Contraction, tile: Tile, loops: dict[Var, str]
) -> list[str]:
    """Split, order and bind the loops; those outside of the rows.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    assert tile.row_axis is not None
    row, steps = loops[tile.row_axis], [loops[i.var] for i in found.reduce]
    phase = _phase(found, destination(found, s.function), tile.row_axis)
    near = [] if phase is None else [loops[phase.var]]
    panel, column = s.split(loops[tile.vector_axis], (None, tile.vectors * tile.lanes))
    tiled = (tile.vector_axis, tile.row_axis)
    others = [loops[i.var] for i in found.spatial if i.var not in tiled and i is not phase]
    outer = [panel, *others]
    s.reorder(*outer, *near, row, column, *steps)
    axis, follower = _column_of(s, block, found, tile), follower_of(s, block)
    assert axis is not None
    if follower is not None and _is_copied(s, block):
        store, follower = follower, None
    else:
        store = s.cache_write(follower or block, "global")
    s.reverse_compute_at(follower or s.cache_write(block, "register"), outer[-1])
    if phase is not None:
        axis = _join(
            s, store, found.result.index(tile.row_axis), found.result.index(phase.var), axis
        )
    fresh = s.reverse_compute_at(store, outer[-1])
    _store_rows(s, store, fresh if phase is None else _fuse_rows(s, store, fresh), axis, tile.lanes)
    lanes = s.split(column, (None, tile.lanes)) if tile.vectors > 1 else (column,)
    row, row_in = s.split(row, (None, tile.rows))
    inner = (row_in, *lanes)
    s.reorder(row, *steps, *inner)
    hold_sums(s, block, row, steps[0], len(inner))
    bind_tile(s, inner)
    lanes_last(s, block, tile.vector_axis)
    return outer


def _join(s: Schedule, store: str, row: int, phase: int, axis: int) -> int:
    """Make one dimension of the rows and the phase between them, in the buffer that is stored from
    and for the block that does; where dimension ``axis`` is then.
    """
    (source,) = loads(store_of(s, store).value)
    step = source.buffer.shape[phase]
    axes = [i.var for i in block_of(s, store).iters]
    own = [next(k for k, v in enumerate(axes) if v is source.indices[d]) for d in (row, phase)]
    s.apply(TransformBlockLayout(store, _joined(axes, own[0], own[1], step)))
    params = [Var(f"d{i}") for i in range(source.buffer.ndim)]
    s.transform_layout(source.buffer.name, _joined(params, row, phase, step))
    return axis - (axis > phase)


def _fuse_rows(s: Schedule, store: str, loops: tuple[str, ...]) -> tuple[str, ...]:
    """Make one loop of those that go along rows, the phase inside."""
    around = {x.var.name: x for x in enclosing_loops(s.function, block_of(s, store))}
    step = {x: stride_of(place_of(s, store), around[x].var) for x in loops}
    phase = next(x for x in loops if step[x] == 1)
    apart = int_value(around[phase].extent)
    row = next(x for x in loops if step[x] == apart)
    others = [x for x in loops if x not in (row, phase)]
    s.reorder(*others, row, phase)
    return (*others, s.fuse(row, phase))


def _joined(places: Sequence[Var], row: int, phase: int, step: Expr) -> IndexMap:
    whole = places[row] * step + places[phase]
    results = (whole if k == row else x for k, x in enumerate(places) if k != phase)
    return IndexMap(tuple(v.name for v in places), tuple(results))


def _store_rows(s: Schedule, store: str, loops: tuple[str, ...], axis: int, lanes: int) -> None:
    """Let the buffer that rows come from hold dimension ``axis`` side by side, and turn it."""
    around = {x.var.name: x.var for x in enclosing_loops(s.function, block_of(s, store))}
    place = place_of(s, store)
    row = next(x for x in loops if stride_of(place, around[x]) == 1)
    (source,) = loads(store_of(s, store).value)
    axes = [i.var for i in block_of(s, store).iters]
    own = next(k for k, v in enumerate(axes) if v is source.indices[axis])
    column = loop_of_axis(s, store, own, loops)
    assert column is not None
    s.transform_layout(source.buffer.name, moved_last(source.buffer.ndim, axis))
    turn_lanes(s, row, column, [x for x in loops if x not in (row, column)], lanes)
