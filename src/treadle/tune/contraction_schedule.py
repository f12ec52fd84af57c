"""The default schedule of a contraction: a register tile, its operand packed, what follows done on
the hot tile.
"""

from typing import NamedTuple

from treadle.expr.scalar import Expr, Var, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import enclosing_loops, find_block
from treadle.ir.tensor import Buffer
from treadle.passes.kinds import zero_condition
from treadle.passes.lower_blocks import conjuncts
from treadle.schedule.index_map import IndexMap
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.attempt import attempt
from treadle.tune.blocking import chunk_steps, part_bytes, prefetch_panels
from treadle.tune.blocks import (
    block_of,
    follower_of,
    lanes_last,
    loop_of_axis,
    loops_of_axes,
    place_of,
)
from treadle.tune.contraction import (
    Contraction,
    Tile,
    as_contraction,
    choose_tile,
    stride_of,
)
from treadle.tune.digits import separate_digits
from treadle.tune.packing import pack_lanes
from treadle.tune.parallel import fills, spread
from treadle.tune.register_tile import bind_tile, hold_sums
from treadle.tune.spatial_schedule import vectorize_loop
from treadle.tune.turned_schedule import is_turned, tile_turned

_UNROLLED_STEPS = 7
_SMALL_TILE = 8
"""Tiles of more vectors than this leave no registers for several steps at a time."""


def schedule_contraction(
    s: Schedule, block: str, target: Target, threads: int, constants: frozenset[Buffer]
) -> bool:
    """Tile a contraction and put the block that follows it onto the tile; whether there was
    something to tile.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    names = frozenset(b.name for b in constants)
    separate_digits(s, block, names)
    constants = frozenset(b for b in s.function.buffers if b.name in names)
    node = find_block(s.function, block)
    found = None if node is None else as_contraction(node)
    tile = None if found is None else choose_tile(found, s.function, constants, target)
    if found is None or tile is None:
        return False
    loops = loops_of_axes(s.function, found.block)
    load = found.operands[tile.vector]
    copy = None
    if tile.packed and load.buffer in constants:
        s.transform_layout(load.buffer.name, panels(found, tile))
    elif tile.packed:
        copy = s.cache_read(block, load.buffer.name, "global")
    turned = copy is None and is_turned(s, block, found, tile) and not _decided_with(found, tile)
    if turned and attempt(s, lambda t: _turned(t, block, found, tile, loops, threads)):
        return True
    chunk = chunk_steps(found, s.function, tile, target) if copy is None and tile.packed else None
    outer, panel, rows, parts, ahead = _tile(s, block, found, tile, loops, chunk)
    size = part_bytes(found, tile, chunk) if copy is None and tile.packed else None
    if size is not None:
        prefetch_panels(s, load.buffer.name, size, target, parts, ahead)
    if threads > 1:
        # A panel that is packed where it is used stays a loop of its own.
        shared = outer if copy is None else outer[: max(outer.index(panel), 1)]
        spread(s, shared if copy is not None or fills(s, shared, threads) else [*shared, *rows])
    if copy is not None:
        fresh = s.compute_at(copy, panel)
        s.transform_layout(copy, panels(found, tile))
        column = loop_of_axis(s, copy, load.indices.index(tile.vector_axis), fresh)
        if column is not None:
            others = [x for x in fresh if x != column]
            pack_lanes(s, column, others, tile.lanes, load.buffer.dtype)
    return True


def _turned(
    s: Schedule, block: str, found: Contraction, tile: Tile, loops: dict[Var, str], threads: int
) -> None:
    """Tile a contraction whose results lie along its rows.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    outer = tile_turned(s, block, found, tile, loops)
    if threads > 1:
        spread(s, outer)


def panels(found: Contraction, tile: Tile) -> IndexMap:
    """The vector operand as panels: for each step of the reduction, the lanes of a tile in one
    piece.
    """
    load = found.operands[tile.vector]
    width = tile.vectors * tile.lanes
    params = tuple(f"d{i}" for i in range(load.buffer.ndim))
    reduced = {i.var for i in found.reduce}
    outer: list[Expr] = []
    steps: list[Expr] = []
    column: Expr = Var(params[load.indices.index(tile.vector_axis)])
    for param, index in zip(params, load.indices, strict=True):
        if index is not tile.vector_axis:
            (steps if reduced & set(variables(index)) else outer).append(Var(param))
    results = (*outer, column // width, *steps, column % width)
    return IndexMap(params, results)


class _Nest(NamedTuple):
    """The loops ``outer`` that stand outside of a tile, among them the one over panels; inside of
    them those over tiles of rows that threads may share; those that go from part to part of the
    packed operand, and those inside that use a part.
    """

    outer: list[str]
    panel: str
    rows: list[str]
    parts: list[str]
    ahead: list[str]


def _tile(
    s: Schedule,
    block: str,
    found: Contraction,
    tile: Tile,
    loops: dict[Var, str],
    chunk: int | None,
) -> _Nest:
    """Split, order and bind the loops."""
    column = loops[tile.vector_axis]
    panel, *vectors = _split(s, column, tile.vectors, tile.lanes)
    inner: list[str] = []
    outer_row: list[str] = []
    if tile.row_axis is not None and tile.rows > 1:
        row, row_in = s.split(loops[tile.row_axis], (None, tile.rows))
        outer_row, inner = [row], [row_in]
    elif tile.row_axis is not None:
        outer_row = [loops[tile.row_axis]]
    tiled = (tile.vector_axis, tile.row_axis)
    both = found.axes_of(0) & found.axes_of(1)
    batch = [loops[i.var] for i in found.spatial if i.var in both and i.var not in tiled]
    rest = [i for i in found.spatial if i.var not in both and i.var not in tiled]
    steps = [loops[i.var] for i in found.reduce]
    # Panels are read again for every tile; those that both operands have are small.
    names = [loops[i.var] for i in rest]
    outer = [*batch, *names, panel] if tile.vector_axis in both else [*batch, panel, *names]
    near: list[str] = []
    if chunk is not None:
        # Every chunk of the reduction is used for all rows whose number is known.
        rows = [loops[i.var] for i in rest if int_value(simplify(i.extent)) is not None]
        outer = [x for x in outer if x not in rows]
        first, steps[0] = s.split(steps[0], (None, chunk))
        near = [first, *rows]
    s.reorder(*outer, *near, *outer_row, *steps, *inner, *vectors)
    home = [*outer, *near, *outer_row][-1]
    tail = (*inner, *vectors)
    if chunk is None:
        hold_sums(s, block, home, steps[0], len(tail))
    else:
        _in_chunks(s, block, tile, outer[-1], home, len(tail))
    bind_tile(s, tail)
    lanes_last(s, block, tile.vector_axis)
    decided = _decided_with(found, tile)
    if decided:
        for name in (*outer_row, *(loops[v] for v in decided)):
            s.unroll(name)
    last = int_value(simplify(found.reduce[-1].extent))
    small = tile.rows * tile.vectors <= _SMALL_TILE
    if not decided and small and len(steps) > 1 and last is not None and last <= _UNROLLED_STEPS:
        s.unroll(steps[-1])
    between = [] if tile.vector_axis in both else outer[outer.index(panel) + 1 :]
    ahead = near[1:] if near else between
    part = [*outer, *near[:1]] if near else outer[: outer.index(panel) + 1]
    rows = [] if decided or near else outer_row
    return _Nest(outer, panel, rows, part, [*ahead, *outer_row, steps[0]])


def _in_chunks(s: Schedule, block: str, tile: Tile, panel: str, home: str, depth: int) -> None:
    """Hold the sums of a tile in registers during a chunk of the reduction; between chunks those of
    all tiles lie in memory, and what follows takes them from there.
    """
    follower = follower_of(s, block)
    if follower is not None:
        lanes_last(s, block, tile.vector_axis)
        _vectorize_rows(s, follower, s.reverse_compute_at(follower, panel), tile.lanes)
    before = frozenset(s.loops())
    s.cache_inplace(block, home, "register")
    moved = [name for name in s.loops() if name not in before]
    for start in range(0, len(moved), depth):
        bind_tile(s, moved[start : start + depth])


def _vectorize_rows(s: Schedule, block: str, loops: tuple[str, ...], lanes: int) -> None:
    """Run the loop along which a block's results are neighbours as lanes, inside of the others."""
    around = {x.var.name: x for x in enclosing_loops(s.function, block_of(s, block))}
    place = place_of(s, block)
    lane = next((x for x in loops if stride_of(place, around[x].var) == 1), None)
    if lane is not None:
        s.reorder(*(x for x in loops if x != lane), lane)
        vectorize_loop(s, around[lane], lanes)


def _decided_with(found: Contraction, tile: Tile) -> tuple[Var, ...]:
    """The reduced axes that decide together with the rows which terms are zero: unrolled with the
    rows, they leave no condition.
    """
    condition = zero_condition(found.block)
    claims = [] if condition is None else conjuncts(condition)
    used = {v for c in claims if tile.row_axis in variables(c) for v in variables(c)}
    return tuple(i.var for i in found.reduce if i.var in used)


def _split(s: Schedule, column: str, vectors: int, lanes: int) -> tuple[str, ...]:
    """A loop split into panels, vectors of a panel, and lanes."""
    if vectors == 1:
        return s.split(column, (None, lanes))
    return s.split(column, (None, vectors, lanes))
