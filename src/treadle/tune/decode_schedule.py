"""The default schedule of a product with a weight that is decoded from packed constants.

The packed parts are rearranged, before the program runs, into panels of columns in the order in
which they are read, so that a product streams them once. For a few rows every step decodes the
columns of a panel into registers, where all rows use them. For many rows a panel is decoded once
into a buffer that the caches hold, and is then an operand like any other.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from treadle.expr.bounds import interval
from treadle.expr.dtype import f32
from treadle.expr.scalar import Apply, Expr, Var, const, int_value, substitute, variables, walk
from treadle.expr.simplify import simplify
from treadle.ir.analysis import blocks, facts_of, find_block, loads
from treadle.ir.tensor import Block, Buffer, IterVar, TensorFunction
from treadle.passes.kinds import only_store
from treadle.schedule.index_map import IndexMap
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.blocks import (
    block_of,
    lanes_last,
    loop_of_axis,
    loops_of_axes,
)
from treadle.tune.contraction import Contraction, as_contraction
from treadle.tune.parallel import spread
from treadle.tune.register_tile import bind_tile, hold_sums

_VECTORS = 4
"""Vectors in a panel of columns."""
_SPARE = 4
"""Registers that decoding takes beside its results."""


@dataclass(frozen=True, slots=True)
class Digit:
    """A part of the number of a step, that runs to ``extent``; ``shared`` says that the packed
    constants are read at the same places whatever it is.
    """

    extent: int
    shared: bool


@dataclass(frozen=True, slots=True)
class Decoding:
    """A product and the block that decodes one of its operands.

    ``operand`` is that operand's number, ``column`` and ``step`` are the axes of the product that
    it is indexed by. ``parts`` are the constants that are read, each with the dimension that the
    column is; ``digits`` what the steps fall into below the first digit, by how the block reads.
    """

    found: Contraction
    operand: int
    maker: str
    column: IterVar
    step: IterVar
    parts: tuple[tuple[Buffer, int], ...]
    digits: tuple[Digit, ...]

    @property
    def buffer(self) -> Buffer:
        """What is decoded to."""
        return self.found.operands[self.operand].buffer

    @property
    def row(self) -> IterVar | None:
        """The axis of the other operand that the rows of a tile run along."""
        free = [i for i in self.found.free(1 - self.operand) if int_value(i.extent) != 1]
        return free[-1] if free else None


def decoding_of(
    function: TensorFunction, block: str, constants: frozenset[Buffer]
) -> Decoding | None:
    """What a product decodes, if it does: a matrix that a block of its own makes from constants
    alone.
    """
    node = find_block(function, block)
    found = None if node is None else as_contraction(node)
    if found is None or len(found.reduce) != 1:
        return None
    for operand, load in enumerate(found.operands):
        maker = maker_of(function, load.buffer)
        column = next((a for a in found.free(operand) if a.var in load.indices), None)
        if maker is None or column is None or load.buffer.ndim != 2:
            continue
        decoding = _read(found, operand, maker, column, constants)
        if decoding is not None:
            return decoding
    return None


def maker_of(function: TensorFunction, buffer: Buffer) -> Block | None:
    """The one block that stores to a buffer of the function's own, at its axes."""
    pairs = [(b, only_store(b)) for b in blocks(function)]
    makers = [(b, x) for b, x in pairs if x is not None and x.buffer is buffer]
    if len(makers) != 1 or buffer in function.buffers:
        return None
    block, store = makers[0]
    plain = store.indices == tuple(i.var for i in block.iters)
    return block if plain and block.where is None and not block.init else None


def _read(
    found: Contraction, operand: int, maker: Block, column: IterVar, constants: frozenset[Buffer]
) -> Decoding | None:
    """How a block decodes, if it reads constants by its column and digits of its step only."""
    store, step, indices = only_store(maker), found.reduce[0], found.operands[operand].indices
    if store is None or set(indices) != {step.var, column.var}:
        return None
    n, k = (maker.iters[indices.index(x.var)].var for x in (column, step))
    parts: dict[Buffer, int] = {}
    reads = loads(store.value)
    for x in reads:
        places = [d for d, i in enumerate(x.indices) if n in variables(i)]
        if x.buffer not in constants or x.mask is not None or len(places) != 1:
            return None
        if x.indices[places[0]] is not n or parts.setdefault(x.buffer, places[0]) != places[0]:
            return None
    radices = radices_of(store.value, k)
    if radices is None or not parts:
        return None
    packed = max(reads, key=lambda x: _size(x.buffer))
    digits = _digits_of(tuple(i for i in packed.indices if k in variables(i)), k, radices)
    return Decoding(found, operand, maker.name, column, step, tuple(parts.items()), digits)


def _size(buffer: Buffer) -> int:
    return prod(int_value(d) or 1 for d in buffer.shape)


def radices_of(value: Expr, k: Var) -> tuple[int, ...] | None:
    """The numbers that the steps are divided by, the largest first, each a multiple of the next."""
    known = [_radix(x, k) for x in walk(value)]
    ordered = sorted({r for r in known if r is not None and r > 1}, reverse=True)
    return tuple(ordered) if all(a % b == 0 for a, b in pairwise(ordered)) else None


def _radix(x: Expr, k: Var) -> int | None:
    """What an expression divides ``k``, or a digit of it, by."""
    if not isinstance(x, Apply) or x.fn not in ("floordiv", "mod"):
        return None
    of, divisor = x.args[0], int_value(x.args[1])
    if of is k or divisor is None:
        return divisor
    if not isinstance(of, Apply) or of.fn not in ("floordiv", "mod") or of.args[0] is not k:
        return None
    unit = int_value(of.args[1])
    return divisor if unit is None or of.fn == "mod" else unit * divisor


def _digits_of(indices: tuple[Expr, ...], k: Var, radices: tuple[int, ...]) -> tuple[Digit, ...]:
    """The digits of the steps below the first; a digit is shared if one more of it leads to the
    same place.
    """

    def place(value: int) -> tuple[int | None, ...]:
        return tuple(int_value(simplify(substitute(x, {k: const(value)}))) for x in indices)

    units = (*radices[1:], 1)
    return tuple(
        Digit(whole // unit, place(unit) == place(0))
        for whole, unit in zip(radices, units, strict=False)
    )


def schedule_decoded(
    s: Schedule, block: str, target: Target, threads: int, constants: frozenset[Buffer]
) -> bool:
    """Decode an operand of a product where it is used; whether there was one to decode.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    plan = decoding_of(s.function, block, constants)
    columns = None if plan is None else int_value(simplify(plan.column.extent))
    if plan is None or columns is None or plan.found.output.dtype != f32:
        return False
    lanes = target.lanes(f32.bits)
    vectors = min(_VECTORS, -(-columns // lanes))
    for buffer, place in plan.parts:
        s.transform_layout(buffer.name, panels_of(buffer.ndim, place, vectors * lanes))
    rows = _most_rows(s.function, plan)
    width = _width(vectors, rows, target.vector_registers - _SPARE)
    tile = _Tile(s, block, plan, lanes, vectors)
    if rows is not None and width:
        outer = tile.in_registers(width, rows)
    else:
        outer = tile.in_memory(*_shape(plan, vectors, lanes, rows, target))
    if threads > 1:
        spread(s, outer)
    return True


def _shape(
    plan: Decoding, vectors: int, lanes: int, rows: int | None, target: Target
) -> tuple[int, int]:
    """The vectors of a tile, as many as let what is decoded stay in the cache, and its rows."""
    steps = int_value(simplify(plan.step.extent)) or 1
    near = target.l2_bytes * 3 // 4
    widths = [v for v in range(1, vectors + 1) if vectors % v == 0]
    fitting = [v for v in widths if v * lanes * steps * f32.bytes <= near]
    width = max(fitting, default=1)
    most = max(1, (target.vector_registers - 2) // width - 1)
    if rows is None:
        return width, most
    return width, -(-rows // -(-rows // most))


def few_rows(function: TensorFunction, target: Target, constants: frozenset[Buffer]) -> Expr | None:
    """When the rows of a product with a decoded operand, of any number so far, are few enough to be
    decoded for in registers; by the symbols.
    """
    registers = target.vector_registers - _SPARE
    for block in blocks(function):
        plan = decoding_of(function, block.name, constants)
        if plan is None or plan.row is None or _most_rows(function, plan) is not None:
            continue
        widest = min(_VECTORS, registers // 3)
        most = max(r for r in range(1, registers) if _width(widest, r, registers) == widest)
        return simplify(plan.row.extent <= most, facts_of(function))
    return None


def _most_rows(function: TensorFunction, plan: Decoding) -> int | None:
    """The largest number of rows that there may be, if that is known."""
    if plan.row is None:
        return 1
    return interval(plan.row.extent, facts_of(function)).high


def _width(vectors: int, rows: int | None, registers: int) -> int:
    """The most vectors of a panel that fit into the registers for all rows; zero if none do."""
    if rows is None:
        return 0
    widths = [v for v in range(1, vectors + 1) if vectors % v == 0 and (rows + 1) * v < registers]
    return max(widths, default=0)


def panels_of(rank: int, place: int, width: int) -> IndexMap:
    """Panels of ``width`` columns, those of a panel side by side."""
    params = tuple(f"d{i}" for i in range(rank))
    column = Var(params[place])
    rest = [Var(p) for d, p in enumerate(params) if d != place]
    return IndexMap(params, (column // width, *rest, column % width))


@dataclass(frozen=True, slots=True)
class _Tile:
    """A product on its way: panels are of ``vectors`` vectors of ``lanes`` columns."""

    s: Schedule
    block: str
    plan: Decoding
    lanes: int
    vectors: int

    def in_registers(self, width: int, rows: int) -> list[str]:
        """Decode ``width`` vectors at every step, for all rows; the loops outside of the tile."""
        s, plan = self.s, self.plan
        found = plan.found
        loops = loops_of_axes(s.function, found.block)
        row = plan.row
        tiled = {plan.column.var, *(() if row is None else (row.var,))}
        rest = [loops[i.var] for i in found.spatial if i.var in loops and i.var not in tiled]
        factors = (None, self.vectors // width, width, self.lanes)
        panel, part, *tile = s.split(loops[plan.column.var], factors)
        steps, shared = self.digits(loops[plan.step.var])
        inner, home = list[str](), part
        if row is not None:
            # One group of rows, whose end is known when the program runs.
            home, *inner = s.split(loops[row.var], (1, rows))
        around = [] if row is None else [home]
        s.reorder(
            *rest, panel, part, *around, *steps, *shared, *inner, *tile, reassociate=bool(shared)
        )
        self.follow(home, steps[0], [*inner, *tile])
        self.decode_at([*steps, *shared][-1], width)
        for name in shared:
            s.unroll(name)
        return [*rest, panel, part]

    def in_memory(self, width: int, rows: int) -> list[str]:
        """Decode ``width`` vectors of columns at every step, then tile the product; the loops
        outside of the panels.
        """
        s, plan = self.s, self.plan
        found, row = plan.found, plan.row
        loops = loops_of_axes(s.function, found.block)
        tiled = {plan.column.var, *(() if row is None else (row.var,))}
        rest = [loops[i.var] for i in found.spatial if i.var in loops and i.var not in tiled]
        factors = (None, self.vectors // width, width, self.lanes)
        panel, part, *tile = s.split(loops[plan.column.var], factors)
        step, home, inner = loops[plan.step.var], [part, *rest][-1], list[str]()
        if row is not None:
            home, *inner = s.split(loops[row.var], (None, rows))
        outer_row = [] if row is None else [home]
        s.reorder(panel, part, *rest, *outer_row, step, *inner, *tile)
        self.follow(home, step, [*inner, *tile])
        self.decode_panel(part, width)
        return [panel, part]

    def decode_panel(self, part: str, width: int) -> None:
        """Decode the columns of a part of a panel, for all steps, in the order in which they are
        read.
        """
        s, plan = self.s, self.plan
        maker = block_of(s, plan.maker)
        indices = plan.found.operands[plan.operand].indices
        fresh = s.compute_at(plan.maker, part)
        s.transform_layout(
            plan.buffer.name, panels_of(2, indices.index(plan.column.var), width * self.lanes)
        )
        step = loop_of_axis(s, maker.name, indices.index(plan.step.var), fresh)
        column = loop_of_axis(s, maker.name, indices.index(plan.column.var), fresh)
        if step is None or column is None:
            return
        vector, lane = s.split(column, (width, self.lanes))
        steps, shared = self.digits(step)
        s.reorder(*steps, vector, *shared, lane)
        for name in (vector, *shared):
            s.unroll(name)
        s.vectorize(lane)

    def digits(self, step: str) -> tuple[list[str], list[str]]:
        """The loop over steps as loops over their digits: those that read on, and those that share
        what is read.
        """
        digits = self.plan.digits
        if not digits:
            return [step], []
        first, *rest = self.s.split(step, (None, *(d.extent for d in digits)))
        pairs = list(zip(rest, digits, strict=True))
        return [first, *(n for n, d in pairs if not d.shared)], [n for n, d in pairs if d.shared]

    def follow(self, home: str, step: str, tile: list[str]) -> None:
        """Hold the sums of a tile in registers, and let the block that takes them do so there."""
        hold_sums(self.s, self.block, home, step, len(tile))
        bind_tile(self.s, tile)
        lanes_last(self.s, self.block, self.plan.column.var)

    def decode_at(self, step: str, width: int) -> None:
        """Decode what one step needs, right there."""
        s, plan = self.s, self.plan
        fresh = s.compute_at(plan.maker, step)
        s.set_scope(plan.buffer.name, "register")
        vector, lane = s.split(fresh[-1], (width, self.lanes))
        s.unroll(vector)
        s.vectorize(lane)
