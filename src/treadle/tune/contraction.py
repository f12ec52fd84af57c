"""Contractions: which axes play which part, and how large a register tile pays.

A contraction ``Y[...] += A[...] * B[...]`` has four kinds of axes by the operands that they occur
in (the characteristic vectors of TensorIR, arXiv 2207.04296, §4.2): batch axes in all three, reduce
axes in both operands only, and the axes of one operand and the result. Lanes run along an axis of
the *vector* operand; the other, *scalar* operand is broadcast to them, one value per row of the
tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod

from treadle.expr.scalar import Apply, Expr, Var, int_value, variables
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import flat_index
from treadle.ir.tensor import Block, Buffer, IterVar, Load, TensorFunction
from treadle.passes.kinds import contraction_operands, only_store
from treadle.target import Target

GUESSES = ((1, 4.0), (128, 1.0))
"""What symbolic extents are taken for, and with what weight: a tile must do for many rows, and well
for a single one.
"""

_MAX_VECTORS = 4
_MAX_ROWS = 14
_NEAR = 4
_GATHER_CYCLES = 1.5
_SCATTER_CYCLES = 2.5
_LATENCY = 4.0
_LOADS_PER_CYCLE = 2.0
_STREAM_CYCLES = 2.0
"""Cycles in which the second-level cache delivers a vector."""
_BROADCAST_CYCLES = 0.25
"""What a row adds to a step beside its products: a scalar is fetched and spread."""
_LINE_CYCLES = 0.35
"""The same where rows lie on cache lines of their own."""
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
        return frozenset(variables(*self.operands[operand].indices))

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

    ``vector_axis`` runs along the lanes and belongs to operand ``vector``; ``row_axis`` (of the
    other operand, or for want of one a second axis of the same) is unrolled. ``packed`` says that
    the vector operand is rearranged so that every vector lies in one piece.
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
    tiles = list(_tiles(found, function, constants, target))
    return min(tiles, key=lambda t: t.cycles, default=None)


def _tiles(
    found: Contraction, function: TensorFunction, constants: frozenset[Buffer], target: Target
) -> Iterator[Tile]:
    lanes = target.lanes(found.output.dtype.bits)
    registers = target.vector_registers - 1
    for operand in (0, 1):
        for axis in found.free(operand):
            stride = stride_of(found.operands[operand], axis.var)
            if stride is None:
                continue
            packable = can_pack(found, operand, axis.var)
            constant = found.operands[operand].buffer in constants and packable
            packed = constant or (stride != 1 and packable)
            others = [a.var for a in found.free(1 - operand)] or [
                a.var for a in found.free(operand) if a is not axis
            ]
            for row in (*others, None):
                own = row is not None and row in found.axes_of(operand)
                step = (
                    None
                    if row is None
                    else stride_of(found.operands[operand if own else 1 - operand], row)
                )
                apart = row is not None and (step is None or step > _NEAR)
                gathered = stride != 1 and not packed
                works = [
                    _Work.of(found, axis, row, guess, packed and not constant)
                    for guess, _ in GUESSES
                ]
                for vectors, rows in _sizes(registers, 1 if row is None else _MAX_ROWS):
                    shape = _Shape(vectors, lanes, rows, own, apart, gathered)
                    cycles = sum(
                        w * work.cycles(shape) for work, (_, w) in zip(works, GUESSES, strict=True)
                    )
                    yield Tile(operand, axis.var, row, vectors, lanes, rows, packed, cycles)


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
    the vector operand, ``apart`` that they lie on cache lines of their own, ``gathered`` that the
    lanes are fetched one by one.
    """

    vectors: int
    lanes: int
    rows: int
    own: bool
    apart: bool
    gathered: bool


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
    def of(found: Contraction, axis: IterVar, row: Var | None, guess: int, packs: bool) -> "_Work":
        """The work with symbolic extents taken for ``guess``."""
        extents = {i.var: extent_of(i, guess) for i in found.block.iters}
        steps = prod(extents[i.var] for i in found.reduce)
        rest = prod(extents[i.var] for i in found.spatial if i.var not in (axis.var, row))
        columns = extents[axis.var]
        both = found.axes_of(0) & found.axes_of(1)
        batch = prod(extents[i.var] for i in found.spatial if i.var in both)
        contiguous = stride_of(Load(found.output, found.result), axis.var) == 1
        packing = steps * columns * _GATHER_CYCLES * batch if packs else 0.0
        return _Work(columns, 1 if row is None else extents[row], rest, steps, contiguous, packing)

    def cycles(self, tile: _Shape) -> float:
        """Estimated cycles per product of vectors that is needed."""
        across = ceil(self.columns / (tile.vectors * tile.lanes))
        full, short = divmod(self.down, tile.rows)
        per_tile = _step(tile, tile.rows) * full + (_step(tile, short) if short else 0.0)
        compute = self.rest * across * per_tile * self.steps
        stores = self.rest * self.down * ceil(self.columns / tile.lanes)
        writing = stores * (1.0 if self.contiguous else _SCATTER_CYCLES * tile.lanes)
        needed = self.rest * self.down * self.columns / tile.lanes * self.steps
        return (compute + writing + self.packing) / max(needed, 1.0)


def _step(tile: _Shape, rows: int) -> float:
    """Cycles of one step of the reduction for a tile of so many rows."""
    products = tile.vectors * rows
    vectors = products if tile.own else tile.vectors
    loads = (
        vectors * (tile.lanes * _LOADS_PER_CYCLE * _GATHER_CYCLES if tile.gathered else 1) + rows
    )
    streamed = tile.vectors * _STREAM_CYCLES
    each = _LINE_CYCLES if tile.apart else _BROADCAST_CYCLES
    return (
        max(float(products), loads / _LOADS_PER_CYCLE, streamed, _LATENCY) + _OVERHEAD + rows * each
    )


def extent_of(axis: IterVar, guess: int) -> int:
    """The extent of an axis, or a guess at it."""
    value = int_value(simplify(axis.extent))
    return guess if value is None else value


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
