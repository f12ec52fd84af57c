"""The schedule of a contraction whose results lie along its rows, where its lanes are far apart, as
with channels in front: rows are computed side by side into a buffer that stays near, then stored by
transposing tiles in registers.
"""

from treadle.expr.dtype import f32
from treadle.expr.scalar import Var, int_value, substitute
from treadle.expr.simplify import simplify
from treadle.ir.analysis import enclosing_loops, loads
from treadle.ir.tensor import Load, TensorFunction
from treadle.passes.kinds import only_store
from treadle.schedule.index_map import IndexMap
from treadle.schedule.trace import Schedule
from treadle.tune.blocks import block_of, follower_of, lanes_last, loop_of_axis
from treadle.tune.contraction import Contraction, Tile, destination, stride_of
from treadle.tune.packing import turn_lanes

_MOST_ROWS = 128
"""Rows that stay near, with the columns of a panel, until all are stored."""


def is_turned(found: Contraction, function: TensorFunction, tile: Tile) -> bool:
    """Whether results lie along the rows of a tile, as many as fill a vector and stay near."""
    if (
        tile.row_axis is None
        or tile.rows == 1
        or tile.vector_axis in found.axes_of(1 - tile.vector)
    ):
        return False
    result = destination(found, function)
    if result.buffer.dtype != f32 or tile.vector_axis not in result.indices:
        return False
    if stride_of(result, tile.row_axis) != 1:
        return False
    axis = next(i for i in found.spatial if i.var is tile.row_axis)
    extent = int_value(simplify(axis.extent))
    return extent is not None and tile.lanes <= extent <= _MOST_ROWS


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
    axis = destination(found, s.function).indices.index(tile.vector_axis)
    follower = follower_of(s, block)
    store = s.cache_write(follower or block, "global")
    if follower is not None:
        s.reverse_compute_at(follower, outer[-1])
    _store_rows(s, store, s.reverse_compute_at(store, outer[-1]), axis, tile.lanes)
    lanes = s.split(column, (None, tile.lanes)) if tile.vectors > 1 else (column,)
    row, row_in = s.split(row, (None, tile.rows))
    inner = (row_in, *lanes)
    s.reorder(row, *steps, *inner)
    if follower is None:
        follower = s.cache_write(block, "register")
    else:
        s.set_scope(found.output.name, "register")
    fresh = s.reverse_compute_at(follower, row)
    before = frozenset(s.loops())
    s.decompose_reduction(block, steps[0])
    started = [name for name in s.loops() if name not in before]
    for names in (started, inner, fresh):
        for name in names[-len(inner) : -1]:
            s.unroll(name)
        s.vectorize(names[-1])
    register = only_store(block_of(s, block))
    assert register is not None
    if register.indices[-1] is not tile.vector_axis:  # without a follower, it is laid out already
        lanes_last(s, register.buffer.name, found, tile.vector_axis)
    return outer


def _store_rows(s: Schedule, store: str, loops: tuple[str, ...], axis: int, lanes: int) -> None:
    """Let the buffer that rows come from hold dimension ``axis`` side by side, and turn it."""
    block = block_of(s, store)
    stored = only_store(block)
    assert stored is not None
    around = {x.var.name: x.var for x in enclosing_loops(s.function, block)}
    bindings = {i.var: i.binding for i in block.iters}
    place = Load(stored.buffer, tuple(substitute(i, bindings) for i in stored.indices))
    row = next(x for x in loops if stride_of(place, around[x]) == 1)
    column = loop_of_axis(s, store, axis, loops)
    assert column is not None
    (source,) = loads(stored.value)
    params = tuple(f"d{i}" for i in range(source.buffer.ndim))
    order = [Var(p) for i, p in enumerate(params) if i != axis]
    s.transform_layout(source.buffer.name, IndexMap(params, (*order, Var(params[axis]))))
    turn_lanes(s, row, column, [x for x in loops if x not in (row, column)], lanes)
