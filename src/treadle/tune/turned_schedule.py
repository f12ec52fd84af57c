"""The schedule of a contraction whose results lie along its rows, where its lanes are far apart, as
with channels in front: rows are computed side by side into a buffer that stays near, then stored by
transposing tiles in registers.
"""

from treadle.expr.dtype import f32
from treadle.expr.scalar import Var, int_value
from treadle.expr.simplify import simplify
from treadle.ir.analysis import enclosing_loops, loads
from treadle.ir.tensor import Load
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
    if stride_of(result, tile.row_axis) != 1:
        return False
    axis = next(i for i in found.spatial if i.var is tile.row_axis)
    extent = int_value(simplify(axis.extent))
    return extent is not None and tile.lanes <= extent <= _MOST_ROWS


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
    pairs = zip(value.indices, axes, strict=True)
    return all(index is axis or int_value(index) == 0 for index, axis in pairs)


def tile_turned(
    s: Schedule, block: str, found: Contraction, tile: Tile, loops: dict[Var, str]
) -> list[str]:
    """Split, order and bind the loops; those outside of the rows.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    assert tile.row_axis is not None
    row, steps = loops[tile.row_axis], [loops[i.var] for i in found.reduce]
    panel, column = s.split(loops[tile.vector_axis], (None, tile.vectors * tile.lanes))
    others = [loops[i.var] for i in found.spatial if i.var not in (tile.vector_axis, tile.row_axis)]
    outer = [panel, *others]
    s.reorder(*outer, row, column, *steps)
    axis, follower = _column_of(s, block, found, tile), follower_of(s, block)
    assert axis is not None
    if follower is not None and _is_copied(s, block):
        store, follower = follower, None
    else:
        store = s.cache_write(follower or block, "global")
    if follower is not None:
        s.reverse_compute_at(follower, outer[-1])
    _store_rows(s, store, s.reverse_compute_at(store, outer[-1]), axis, tile.lanes)
    lanes = s.split(column, (None, tile.lanes)) if tile.vectors > 1 else (column,)
    row, row_in = s.split(row, (None, tile.rows))
    inner = (row_in, *lanes)
    s.reorder(row, *steps, *inner)
    if follower is None:
        s.cache_write(block, "register")
    hold_sums(s, block, row, steps[0], len(inner))
    bind_tile(s, inner)
    lanes_last(s, block, tile.vector_axis)
    return outer


def _store_rows(s: Schedule, store: str, loops: tuple[str, ...], axis: int, lanes: int) -> None:
    """Let the buffer that rows come from hold dimension ``axis`` side by side, and turn it."""
    around = {x.var.name: x.var for x in enclosing_loops(s.function, block_of(s, store))}
    place = place_of(s, store)
    row = next(x for x in loops if stride_of(place, around[x]) == 1)
    column = loop_of_axis(s, store, axis, loops)
    assert column is not None
    (source,) = loads(store_of(s, store).value)
    s.transform_layout(source.buffer.name, moved_last(source.buffer.ndim, axis))
    turn_lanes(s, row, column, [x for x in loops if x not in (row, column)], lanes)
