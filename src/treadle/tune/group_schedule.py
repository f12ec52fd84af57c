"""The default schedule of products in integers that are scaled group by group.

A sum of products of bytes, over the few steps of a group, is taken by another sum over groups. The
bytes of one operand are decoded from packed constants. Panels of columns go through all groups: for
each, the bytes are decoded into registers, the machine's dot products add them up for some rows,
and what takes the sums follows on the hot tile.
"""

from dataclasses import dataclass

from treadle.expr.bounds import interval
from treadle.expr.dtype import f32, i8, i32, u8
from treadle.expr.scalar import Var, int_value
from treadle.expr.simplify import simplify
from treadle.ir.analysis import blocks, buffers_read, facts_of, find_block, find_loop, loads
from treadle.ir.tensor import Block, Buffer, IterVar, TensorFunction
from treadle.passes.kinds import only_store
from treadle.schedule.index_map import IndexMap
from treadle.schedule.intrinsics import find_intrinsic
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.attempt import attempt
from treadle.tune.blocks import block_of, loop_of_axis, loops_of_axes
from treadle.tune.contraction import Contraction, as_contraction
from treadle.tune.decode_schedule import maker_of, panels_of, radices_of
from treadle.tune.parallel import spread
from treadle.tune.register_tile import bind_tile, hold_sums, start_sums

_QUAD = 4
"""Steps that a dot product of bytes adds at once."""
_VECTORS = 4
_SPARE = 5
"""Registers that hold no sums."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """A sum of products of bytes, the block that decodes its right operand, and the one that takes
    the sums.

    ``column`` and ``group`` are its axes of the right operand beside the ``step``, ``rest`` those
    of the left operand alone. ``codes`` are the constants that are decoded, ``scales`` those that
    the taker reads, by name with the dimension that the column is; ``unit`` steps lie side by side
    in the codes.
    """

    found: Contraction
    maker: str
    taker: str
    column: Var
    group: Var
    step: Var
    rest: tuple[Var, ...]
    codes: dict[str, int]
    scales: dict[str, int]
    unit: int


def grouped_of(
    function: TensorFunction, block: str, constants: frozenset[Buffer]
) -> Grouped | None:
    """A block as such a sum, if it is one."""
    node = find_block(function, block)
    found = None if node is None else as_contraction(node)
    if found is None or found.output.dtype is not i32 or len(found.reduce) != 1:
        return None
    kinds = tuple(x.buffer.dtype for x in found.operands)
    maker, taker = maker_of(function, found.operands[1].buffer), _taker(function, found)
    if kinds != (i8, u8) or maker is None or taker is None:
        return None
    step = found.reduce[0].var
    both = (found.axes_of(0) & found.axes_of(1)) - {step}
    columns, rest = found.free(1), found.free(0)
    if len(both) != 1 or len(columns) != 1 or found.result[-1] is not columns[0].var:
        return None
    column, group = columns[0].var, next(iter(both))
    if found.operands[1].indices != (column, group, step):
        return None
    codes = _constants_of(maker, maker.iters[0].var, constants)
    unit = _unit(maker, maker.iters[-1].var)
    scales = _constants_of(taker, _column_of(taker, found.output), constants)
    if not codes or codes.keys() & scales.keys() or unit is None or unit % _QUAD:
        return None
    others = tuple(i.var for i in rest)
    return Grouped(found, maker.name, taker.name, column, group, step, others, codes, scales, unit)


def _taker(function: TensorFunction, found: Contraction) -> Block | None:
    """The one other block that reads the sums, if that adds up f32."""
    users = [b for b in blocks(function) if found.output in buffers_read((b,))]
    users = [b for b in users if b.name != found.block.name]
    store = only_store(users[0]) if len(users) == 1 else None
    if store is None or store.buffer.dtype is not f32 or found.output in function.buffers:
        return None
    return users[0] if users[0].init else None


def _column_of(taker: Block, sums: Buffer) -> Var | None:
    """The axis of a block that the last dimension of what it takes is."""
    store = only_store(taker)
    found = {x.indices[-1] for x in loads(store.value) if x.buffer is sums} if store else set()
    return next((x for x in found if isinstance(x, Var)), None) if len(found) == 1 else None


def _constants_of(block: Block, column: Var | None, constants: frozenset[Buffer]) -> dict[str, int]:
    """The constants that a block reads by a column, with the dimension that this is."""
    store, places = only_store(block), dict[str, int]()
    for x in () if store is None or column is None else loads(store.value):
        if x.buffer in constants and column in x.indices:
            places[x.buffer.name] = x.indices.index(column)
    return places


def _unit(maker: Block, step: Var) -> int | None:
    """How many steps lie side by side in what is decoded."""
    store = only_store(maker)
    radices = None if store is None else radices_of(store.value, step)
    extent = int_value(next(i.extent for i in maker.iters if i.var is step))
    if radices is None or extent is None:
        return None
    unit = radices[-1] if radices else extent
    return unit if extent % unit == 0 else None


def schedule_grouped(
    s: Schedule, block: str, target: Target, threads: int, constants: frozenset[Buffer]
) -> bool:
    """Do a sum of products of bytes, and what takes it, panel by panel; whether it was done so.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    plan = grouped_of(s.function, block, constants)
    lanes = target.lanes(32)
    intrinsic = f"dot_i8u8_1x{lanes}x{_QUAD}"
    known = find_intrinsic(intrinsic)
    if plan is None or known is None or not known.is_native(target):
        return False
    columns = next(i.extent for i in plan.found.spatial if i.var is plan.column)
    count = int_value(simplify(columns))
    if count is None:
        return False
    _Plan(s, plan, lanes, min(_VECTORS, -(-count // lanes)), intrinsic, target, threads).run()
    return True


@dataclass(frozen=True, slots=True)
class _Plan:
    """A product on its way: panels are of ``vectors`` vectors of ``lanes`` columns."""

    s: Schedule
    plan: Grouped
    lanes: int
    vectors: int
    intrinsic: str
    target: Target
    threads: int

    def run(self) -> None:
        """Lay out the constants, tile what takes the sums, and compute these where it does."""
        s, plan = self.s, self.plan
        width = self.vectors * self.lanes
        ranks = {b.name: b.ndim for b in s.function.input_buffers}
        for name, place in plan.codes.items():
            s.transform_layout(name, _quads(ranks[name], place, width))
        for name, place in plan.scales.items():
            s.transform_layout(name, panels_of(ranks[name], place, width))
        outer, group, rows, wide = self.place_taker()
        self.place_sums(group, rows, wide)
        if self.threads > 1:
            # A single panel may leave only rows, which are not always shown to be apart.
            attempt(s, lambda trial: spread(trial, outer))

    def shape(self, row: IterVar | None) -> tuple[int, int]:
        """Vectors and rows of a tile: sums of all digits of the rows, and totals, in registers."""
        digits = 1
        for i in self.plan.found.spatial:
            known = int_value(i.extent)
            if i.var in self.plan.rest and known is not None and known <= 2:
                digits = known if self.is_digit(i) else digits
        room = self.target.vector_registers - _SPARE
        high = 1 if row is None else self.most(row)
        best = (1, 1)
        for wide in (v for v in range(1, self.vectors + 1) if self.vectors % v == 0):
            most = max(1, room // (wide * (digits + 1)))
            rows = most if high is None else min(most, high)
            # A tile as wide as the panel reads the codes once, from end to end.
            if min(rows, 2) >= min(best[1], 2):
                best = (wide, max(rows, 1))
        return best

    def most(self, axis: IterVar) -> int | None:
        """The largest extent that an axis may have, if that is known."""
        return interval(axis.extent, facts_of(self.s.function)).high

    def is_digit(self, axis: IterVar) -> bool:
        """Whether what takes the sums does not go along an axis of theirs."""
        found = self.plan.found
        place = found.result.index(axis.var)
        store = only_store(block_of(self.s, self.plan.taker))
        assert store is not None
        taken = [x.indices[place] for x in loads(store.value) if x.buffer is found.output]
        return all(int_value(i) is not None for i in taken)

    def place_taker(self) -> tuple[list[str], str, int, int]:
        """Tile the sum over groups; the loops outside of the tile, that over groups, and the rows
        and vectors of the tile.
        """
        s, plan = self.s, self.plan
        node = block_of(s, plan.taker)
        store = only_store(node)
        assert store is not None
        loops = loops_of_axes(s.function, node)
        column = _column_of(node, plan.found.output)
        spatial = [i for i in node.iters if i.kind == "spatial" and i.var in loops]
        rows = [i for i in spatial if i.var is not column]
        row = rows[-1] if rows else None
        wide, height = self.shape(row)
        assert column is not None
        factors = (None, self.vectors // wide, wide, self.lanes)
        panel, part, vector, lane = s.split(loops[column], factors)
        group = next(loops[i.var] for i in node.iters if i.kind == "reduce")
        inner, home = list[str](), part
        if row is not None:
            high = self.most(row)
            # One group of rows, if they are few: its end is known when the program runs.
            count = 1 if high is not None and high <= height else None
            home, *inner = s.split(loops[row.var], (count, height))
        rest = [loops[i.var] for i in rows[:-1]]
        around = [] if row is None else [home]
        s.reorder(*rest, panel, part, *around, group, *inner, vector, lane)
        hold_sums(s, plan.taker, home, group, len(inner) + 2)
        bind_tile(s, [*inner, vector, lane])
        return [*rest, panel, part, *around], group, height, wide

    def place_sums(self, group: str, rows: int, wide: int) -> None:
        """Add up the products of one group where they are taken."""
        s, plan = self.s, self.plan
        block = plan.found.block.name
        fresh = s.compute_at(block, group)
        axes = [i.var for i in plan.found.block.iters]

        def loop(axis: Var) -> str | None:
            return loop_of_axis(s, block, axes.index(axis), fresh)

        column, step = loop(plan.column), loop(plan.step)
        assert column is not None
        assert step is not None
        others = [self.bounded(x, rows) for x in map(loop, plan.rest) if x is not None]
        vector, lane = s.split(column, (wide, self.lanes))
        part, quad, inside = s.split(step, (None, plan.unit // _QUAD, _QUAD))
        s.reorder(quad, part, *others, vector, lane, inside)
        s.set_scope(plan.found.output.name, "register")
        start_sums(s, block, quad, len(others) + 2)
        self.place_codes(part, wide)
        s.tensorize(lane, self.intrinsic)
        for name in (part, *others, vector):
            s.unroll(name)

    def bounded(self, name: str, rows: int) -> str:
        """A loop, or the part of it that has a constant number of iterations: a group of rows that
        is the only one has as many as there are.
        """
        node = find_loop(self.s.function, name)
        if node is None or int_value(simplify(node.extent)) is not None:
            return name
        return self.s.split(name, (1, rows))[1]

    def place_codes(self, part: str, wide: int) -> None:
        """Decode the quads of all columns of a tile at once."""
        s, plan = self.s, self.plan
        buffer = plan.found.operands[1].buffer
        width = wide * self.lanes
        fresh = s.compute_at(plan.maker, part)
        s.set_scope(buffer.name, "register")
        n, g, k = (Var(x) for x in ("n", "g", "k"))
        place = (n // width, g, k // _QUAD, n % width * _QUAD + k % _QUAD)
        s.transform_layout(buffer.name, IndexMap(("n", "g", "k"), place))
        column = loop_of_axis(s, plan.maker, 0, fresh)
        step = loop_of_axis(s, plan.maker, 2, fresh)
        assert column is not None
        assert step is not None
        vector, lane = s.split(column, (wide, self.lanes))
        s.unroll(vector)
        s.vectorize(s.fuse(lane, step))


def _quads(rank: int, place: int, width: int) -> IndexMap:
    """Panels of ``width`` columns; of each, quads of neighbours along the last of the other
    dimensions lie together.
    """
    params = tuple(f"d{i}" for i in range(rank))
    column = Var(params[place])
    *rest, last = [Var(p) for d, p in enumerate(params) if d != place]
    inner = column % width * _QUAD + last % _QUAD
    return IndexMap(params, (column // width, *rest, last // _QUAD, inner))
