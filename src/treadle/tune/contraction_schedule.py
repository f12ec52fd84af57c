"""The default schedule of a contraction: a register tile, its operand packed, what follows done on
the hot tile.
"""

from treadle.expr.scalar import Expr, Var, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import find_block
from treadle.ir.tensor import Buffer
from treadle.passes.kinds import zero_condition
from treadle.passes.lower_blocks import conjuncts
from treadle.schedule.index_map import IndexMap
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.blocks import contraction_of, follower_of, lanes_last, loop_of_axis, loops_of_axes
from treadle.tune.contraction import Contraction, Tile, as_contraction, choose_tile
from treadle.tune.digits import separate_digits
from treadle.tune.packing import pack_lanes
from treadle.tune.parallel import spread

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
    outer, panel = _tile(s, block, found, tile, loops)
    if threads > 1:
        # A panel that is packed where it is used stays a loop of its own.
        spread(s, outer if copy is None else outer[: max(outer.index(panel), 1)])
    if copy is not None:
        fresh = s.compute_at(copy, panel)
        s.transform_layout(copy, panels(found, tile))
        column = loop_of_axis(s, copy, load.indices.index(tile.vector_axis), fresh)
        if column is not None:
            others = [x for x in fresh if x != column]
            pack_lanes(s, column, others, tile.lanes, load.buffer.dtype)
    return True


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


def _tile(
    s: Schedule, block: str, found: Contraction, tile: Tile, loops: dict[Var, str]
) -> tuple[list[str], str]:
    """Split, order and bind the loops; those outside of the tile, and the one over panels."""
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
    rest = [loops[i.var] for i in found.spatial if i.var not in both and i.var not in tiled]
    steps = [loops[i.var] for i in found.reduce]
    # Panels are read again for every tile; those that both operands have are small.
    outer = [*batch, *rest, panel] if tile.vector_axis in both else [*batch, panel, *rest]
    s.reorder(*outer, *outer_row, *steps, *inner, *vectors)
    home = [*outer, *outer_row][-1]
    follower = follower_of(s, block)
    kinds = ["unroll"] * (len(inner) + len(vectors) - 1) + ["vectorize"]
    if follower is None:
        follower = s.cache_write(block, "register")
    else:
        s.set_scope(found.output.name, "register")
    register = contraction_of(s, block).output.name
    fresh = s.reverse_compute_at(follower, home)
    before = frozenset(s.loops())
    s.decompose_reduction(block, steps[0])
    started = [name for name in s.loops() if name not in before]
    for names in (started, [*inner, *vectors], fresh):
        for name, kind in zip(names[-len(kinds) :], kinds, strict=True):
            getattr(s, kind)(name)
    lanes_last(s, register, found, tile.vector_axis)
    last = found.reduce[-1]
    extent = int_value(simplify(last.extent))
    decided = _decided_with(found, tile)
    if decided:
        for name in (*outer_row, *(loops[v] for v in decided)):
            s.unroll(name)
        return outer, panel
    small = tile.rows * tile.vectors <= _SMALL_TILE
    if small and len(steps) > 1 and extent is not None and extent <= _UNROLLED_STEPS:
        s.unroll(steps[-1])
    return outer, panel


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
