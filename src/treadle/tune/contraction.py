"""Contractions: which axes play which part, and how large a register tile pays.

A contraction ``Y[...] += A[...] * B[...]`` has four kinds of axes by the operands that they occur
in (the characteristic vectors of TensorIR, arXiv 2207.04296, §4.2): batch axes in all three, reduce
axes in both operands only, and the axes of one operand and the result. Lanes run along an axis of
the *vector* operand; the other, *scalar* operand is broadcast to them, one value per row of the
tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod

from treadle.expr.scalar import Apply, Expr, Var, int_value, substitute, variables
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import blocks, flat_index, loads
from treadle.ir.tensor import Block, Buffer, IterVar, Load, TensorFunction
from treadle.passes.kinds import contraction_operands, only_store
from treadle.target import Target

GUESSES = ((1, 4.0), (128, 1.0))
"""What symbolic extents are taken for, and with what weight: a tile must do for many rows, and well
for a single one.
"""

_MAX_VECTORS = 4
_MAX_ROWS = 14
NEAR = 4
"""Elements apart up to which lanes are picked from whole vectors."""
_GATHER_CYCLES = 1.5
SCATTER_CYCLES = 2.5
_LATENCY = 4.0
_LOADS_PER_CYCLE = 2.0
_STREAM_CYCLES = 2.0
"""Cycles in which the second-level cache delivers a vector."""
_BROADCAST_CYCLES = 0.25
"""What a row adds to a step beside its products: a scalar is fetched and spread."""
_WAY = 4096
"""Bytes of a first-level cache that one address each falls into: a page, since caches are looked up
before addresses are translated."""
_LINE = 64
_OVERHEAD = 1.0
"""Cycles of counting and branching at every step of a reduction."""


@dataclass(frozen=True, slots=True)
class Contraction:
    """A contraction block taken apart."""

    block: Block
    output: Buffer
    result: tuple[Expr, ...]
    operands: tuple[Load, Load]

    def axes_of(self, operand: int) -> frozenset[Var]:
        """The axes that an operand is indexed by."""
        return _indexed_by(self.operands[operand])

    def free(self, operand: int) -> tuple[IterVar, ...]:
        """The axes of the result that only this operand has."""
        mine, other = self.axes_of(operand), self.axes_of(1 - operand)
        return tuple(i for i in self.spatial if i.var in mine and i.var not in other)

    @property
    def spatial(self) -> tuple[IterVar, ...]:
        """The axes of the result."""
        return tuple(i for i in self.block.iters if i.kind == "spatial")

    @property
    def reduce(self) -> tuple[IterVar, ...]:
        """The axes that are summed over."""
        return tuple(i for i in self.block.iters if i.kind == "reduce")


@lru_cache(maxsize=1 << 12)
def _indexed_by(load: Load) -> frozenset[Var]:
    return frozenset(variables(*load.indices))


def as_contraction(block: Block) -> Contraction | None:
    """The contraction that a block is, if it is one."""
    factors = contraction_operands(block)
    store = only_store(block)
    if factors is None or store is None:
        return None
    loads = tuple(x.args[0] if isinstance(x, Apply) else x for x in factors)
    a, b = loads
    if not isinstance(a, Load) or not isinstance(b, Load):
        return None
    return Contraction(block, store.buffer, store.indices, (a, b))


@dataclass(frozen=True, slots=True)
class Tile:
    """A register tile: ``rows`` of ``vectors`` vectors of ``lanes``.

    ``vector_axis`` runs along the lanes and belongs to operand ``vector``, or to both operands;
    ``row_axis`` (of the other operand, or for want of one a second axis of the same) is unrolled.
    ``packed`` says that the vector operand is rearranged so that every vector lies in one piece.
    """

    vector: int
    vector_axis: Var
    row_axis: Var | None
    vectors: int
    lanes: int
    rows: int
    packed: bool
    cycles: float


def choose_tile(
    found: Contraction, function: TensorFunction, constants: frozenset[Buffer], target: Target
) -> Tile | None:
    """The tile of least estimated time; ``None`` if no axis can run along lanes."""
    candidates = tiles(found, function, constants, target)
    return min(candidates, key=lambda t: t.cycles, default=None)


def destination(found: Contraction, function: TensorFunction) -> Load:
    """Where the results end up: the element that the block which takes them stores, if there is
    one, over the contraction's axes.
    """
    target = Load(found.output, found.result)
    if found.output in function.buffers:
        return target
    for user in blocks(function):
        store = only_store(user)
        if user.name == found.block.name or store is None:
            continue
        taken = [x for x in loads(store.value) if x.buffer is found.output]
        if len(taken) == 1 and all(
            isinstance(i, Var) or int_value(i) is not None for i in taken[0].indices
        ):
            pairs = zip(taken[0].indices, found.result, strict=True)
            values = {i: r for i, r in pairs if isinstance(i, Var)}
            indices = tuple(simplify(substitute(i, values)) for i in store.indices)
            return Load(store.buffer, indices)
    return target


def tiles(
    found: Contraction,
    function: TensorFunction,
    constants: frozenset[Buffer],
    target: Target,
    guesses: tuple[tuple[int, float], ...] = GUESSES,
) -> Iterator[Tile]:
    """Every tile that fits into the registers, with its estimated time; symbolic extents are taken
    for ``guesses``.
    """
    lanes = target.lanes(found.output.dtype.bits)
    registers = target.vector_registers - 1
    result = destination(found, function)
    for side in _sides(found, constants, lanes):
        works: dict[Var | None, list[_Work]] = {}
        other = found.operands[1 - side.operand]
        most = {row: _apart(other, row, target) for row in (*side.rows, None)}
        # Picking lanes takes the vectors that they are picked from, and their numbers.
        for vectors, rows in _sizes(registers - (3 if side.fetch > 1 else 0), _MAX_ROWS):
            for row in side.rows if rows > 1 else (*side.rows, None):
                if rows > most[row]:
                    continue
                if row not in works:
                    works[row] = [_Work.of(found, result, side, row, guess) for guess, _ in guesses]
                shape = _Shape(vectors, lanes, rows, side.owns(found, row), side.shared, side.fetch)
                cycles = sum(
                    w * work.cycles(shape) for work, (_, w) in zip(works[row], guesses, strict=True)
                )
                yield Tile(
                    side.operand, side.axis.var, row, vectors, lanes, rows, side.packed, cycles
                )


def _apart(load: Load, row: Var | None, target: Target) -> int:
    """How many rows of an operand the first-level cache holds at once, beside a line of the other
    one: rows that lie a power of two apart compete for the same places.
    """
    step = None if row is None else stride_of(load, row)
    if step is None:
        return _MAX_ROWS
    return _held(step * load.buffer.dtype.bytes, max(target.l1_bytes // _WAY, 2))


@lru_cache(maxsize=1 << 10)
def _held(step: int, ways: int) -> int:
    """How many lines that lie ``step`` bytes apart a cache holds that has ``ways`` places for each,
    less one.
    """
    lines = [row * step // _LINE for row in range(_MAX_ROWS)]

    def crowded(rows: int) -> bool:
        places = [line % (_WAY // _LINE) for line in {*lines[:rows]}]
        return max(map(places.count, places)) >= ways

    return next((rows for rows in range(1, _MAX_ROWS) if crowded(rows + 1)), _MAX_ROWS)


@dataclass(frozen=True, slots=True)
class _Side:
    """An axis that may run along lanes, the operand that it comes from, and how that is read.

    ``shared`` says that the axis belongs to both operands, as the channels of a depthwise
    convolution do; ``packed``, that the operand is rearranged, ``constant``, before the program
    runs.
    """

    operand: int
    axis: IterVar
    rows: tuple[Var, ...]
    shared: bool
    packed: bool
    constant: bool
    fetch: float
    """Loads that a vector of the operand takes."""

    def owns(self, found: Contraction, row: Var | None) -> bool:
        """Whether a row of a tile has vectors of its own, not scalars."""
        return row is not None and not self.shared and row in found.axes_of(self.operand)


def _sides(found: Contraction, constants: frozenset[Buffer], lanes: int) -> Iterator[_Side]:
    """Every axis of the result with each operand that it may be read from."""
    for operand in (0, 1):
        load, other = found.operands[operand], found.operands[1 - operand]
        for axis in found.spatial:
            stride = stride_of(load, axis.var)
            shared = axis.var in found.axes_of(1 - operand)
            if stride is None or axis.var not in found.axes_of(operand):
                continue
            if shared and (stride_of(other, axis.var) != 1 or load.buffer not in constants):
                continue
            packable = can_pack(found, operand, axis.var)
            constant = load.buffer in constants and packable
            packed = constant or (stride != 1 and packable)
            rows = _rows(found, 1 - operand) or _rows(found, operand, axis.var)
            fetch = 1.0 if packed else vector_loads(stride, lanes)
            yield _Side(operand, axis, rows, shared, packed, constant, fetch)


def _rows(found: Contraction, operand: int, without: Var | None = None) -> tuple[Var, ...]:
    """The axes that only one operand has, neighbours in memory first."""
    load = found.operands[operand]
    axes = [a.var for a in found.free(operand) if a.var is not without]
    far = 1 << 62
    return tuple(sorted(axes, key=lambda v: stride_of(load, v) or far))


def _sizes(registers: int, most: int) -> Iterator[tuple[int, int]]:
    """Vectors and rows of the tiles that fit into the registers: accumulators, a row of operands,
    one more.
    """
    for vectors in range(1, _MAX_VECTORS + 1):
        for rows in range(1, most + 1):
            if rows * vectors + vectors + 1 <= registers:
                yield vectors, rows


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the time of a tile depends on beside the extents: ``own`` says that the rows belong to
    the vector operand, ``shared`` that the lanes run along both operands, ``fetch`` how many loads
    a vector takes.
    """

    vectors: int
    lanes: int
    rows: int
    own: bool
    shared: bool
    fetch: float


@dataclass(frozen=True, slots=True)
class _Work:
    """What a contraction amounts to with given axes along lanes and rows: extents, and whether it
    stores in one piece.
    """

    columns: int
    down: int
    rest: int
    steps: int
    contiguous: bool
    packing: float

    @staticmethod
    def of(found: Contraction, result: Load, side: _Side, row: Var | None, guess: int) -> "_Work":
        """The work with symbolic extents taken for ``guess``."""
        axis = side.axis
        extents = {i.var: extent_of(i, guess) for i in found.block.iters}
        steps = prod(extents[i.var] for i in found.reduce)
        rest = prod(extents[i.var] for i in found.spatial if i.var not in (axis.var, row))
        columns = extents[axis.var]
        both = found.axes_of(0) & found.axes_of(1)
        batch = prod(extents[i.var] for i in found.spatial if i.var in both)
        contiguous = stride_of(result, axis.var) == 1
        packs = side.packed and not side.constant
        packing = steps * columns * _GATHER_CYCLES * batch if packs else 0.0
        return _Work(columns, 1 if row is None else extents[row], rest, steps, contiguous, packing)

    def cycles(self, tile: _Shape) -> float:
        """Estimated cycles per product of vectors that is needed."""
        across = ceil(self.columns / (tile.vectors * tile.lanes))
        full, short = divmod(self.down, tile.rows)
        per_tile = _step(tile, tile.rows) * full + (_step(tile, short) if short else 0.0)
        compute = self.rest * across * per_tile * self.steps
        stores = self.rest * self.down * ceil(self.columns / tile.lanes)
        writing = stores * (1.0 if self.contiguous else SCATTER_CYCLES * tile.lanes)
        needed = self.rest * self.down * self.columns / tile.lanes * self.steps
        return (compute + writing + self.packing) / max(needed, 1.0)


def _step(tile: _Shape, rows: int) -> float:
    """Cycles of one step of the reduction for a tile of so many rows."""
    products = tile.vectors * rows
    if tile.shared:
        loads = products + tile.vectors
        return max(float(products), loads / _LOADS_PER_CYCLE, _LATENCY) + _OVERHEAD
    vectors = products if tile.own else tile.vectors
    loads = vectors * tile.fetch + rows
    streamed = tile.vectors * _STREAM_CYCLES
    spread = rows * _BROADCAST_CYCLES + vectors * (tile.fetch - 1)
    return max(float(products), loads / _LOADS_PER_CYCLE, streamed, _LATENCY) + _OVERHEAD + spread


def vector_loads(stride: int | None, lanes: int) -> float:
    """How many loads it takes to fetch lanes that lie ``stride`` elements apart; ``None`` is any
    distance.
    """
    if stride in (0, 1):
        return 1.0
    if stride is not None and 1 < stride <= NEAR:
        return 2.0 * stride  # vectors that lie side by side, and what picks lanes from them
    return lanes * _LOADS_PER_CYCLE * _GATHER_CYCLES


@lru_cache(maxsize=1 << 14)
def extent_of(axis: IterVar, guess: int) -> int:
    """The extent of an axis, or a guess at it."""
    value = int_value(simplify(axis.extent))
    return guess if value is None else value


@lru_cache(maxsize=1 << 14)
def stride_of(load: Load, axis: Var) -> int | None:
    """How many elements apart neighbours along ``axis`` lie; ``None`` if that is not one number."""
    linear = split_linear(simplify(flat_index(load.buffer, load.indices)), axis)
    if linear is None or axis in variables(linear[1]):
        return None
    return int_value(linear[0])


def can_pack(found: Contraction, operand: int, axis: Var) -> bool:
    """Whether ``axis`` is one dimension of an operand by itself, so that the operand can be
    rearranged along it.
    """
    load = found.operands[operand]
    using = [i for i in load.indices if axis in variables(i)]
    return using == [axis]
