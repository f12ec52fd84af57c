"""Where elements are not zero: counted in chunks, then listed, each chunk by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import boolean, f32, i32, i64
from treadle.expr.scalar import Expr, ExprLike, as_expr, cast, ceildiv, const, maximum, minimum
from treadle.expr.simplify import simplify
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder, guarded
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import ONE, ZERO, Allocate, Buffer, For, Let, Stmt, Store, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import (
    check_dims,
    check_dtype,
    check_is,
    check_rank,
    dim,
    one,
    operands,
    product,
    tensor_type,
)
from treadle.ops._sizes import POSITIONS, DataSized, bind_size
from treadle.ops.compare import NotEqual
from treadle.ops.create import known_shape
from treadle.ops.reduce import Sum
from treadle.ops.reshape import reshaped
from treadle.ops.scan import CumSum

CHUNK = 1024
"""Elements that are listed one after another."""


def chunks_of(count: ExprLike) -> Expr:
    """How many chunks so many elements are."""
    return dim(ceildiv(as_expr(count), CHUNK))


@dataclass(frozen=True)
class CountTrue(Op):
    """How many of each 1024 neighbouring elements are true.

    Shapes:  flags: (n,) -> ((n + 1023) // 1024,) of i64.
    Errors:  E0103 unless bool; E0107.
    """

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """One number per chunk."""
        flags = one(self, types)
        check_dtype(self, flags.dtype, "bool")
        check_rank(self, flags, 1, 1)
        if flags.shape is None:
            return POSITIONS
        return tensor_type((chunks_of(flags.dims[0]),), i64)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Sums of padded rows."""
        (flags,) = arrays
        rows = np.pad(flags, (0, -len(flags) % CHUNK)).reshape(-1, CHUNK)
        return rows.sum(1, dtype=np.int64)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One reduction."""
        f = LoopBuilder(self.op_name())
        flags = f.input(types[0])
        count = flags.shape[0]

        def value(chunk: Expr, k: Expr) -> Expr:
            place = chunk * CHUNK + k
            return guarded(place < count, cast(flags[place], i64), ZERO)

        f.reduce(f.output(self.infer(*types).dims, i64), (CHUNK,), value)
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Less than a chunk, more than one, none, a symbolic size."""
        yield cls(), (example(boolean, 7),)
        yield cls(), (example(boolean, 1031),)
        yield cls(), (example(boolean, 0),)
        yield cls(), (example(boolean, "n"),)


@dataclass(frozen=True)
class Compact(Op):
    """The positions of the ``size`` true elements, in order; ``starts`` says how many of them stand
    before each chunk of 1024.

    Shapes:  flags: (n,), starts: ((n + 1023) // 1024,) of i64 -> (size,) of i64.
    Errors:  E0103; E0107.
    """

    size: ExprLike

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """As many positions as the field says."""
        flags, starts = operands(self, types, 2)
        check_dtype(self, flags.dtype, "bool", "the flags")
        check_is(self, starts.dtype, i64, "the starts")
        check_rank(self, flags, 1, 1, "the flags")
        check_rank(self, starts, 1, 1, "the starts")
        check_dims(self, (self.size,))
        return tensor_type((self.size,), i64)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.flatnonzero."""
        return np.flatnonzero(arrays[0]).astype(np.int64)[: known_shape((self.size,))[0]]

    def lower(self, *types: TensorType) -> TensorFunction:
        """Per chunk, without branches: each position is written into a buffer, and is overwritten
        by the next one unless its element is true; then the buffer is copied.
        """
        f = LoopBuilder(self.op_name())
        flags, starts = (f.input(t) for t in types)
        found = f.output((self.size,), i64)
        count, size = flags.shape[0], found.shape[0]
        local, cursor = (Buffer(n, (k,), i64, "stack") for n, k in (("L0", CHUNK + 1), ("C0", 1)))
        k, j, place, at, base, here = (f.variable() for _ in range(6))

        def body(chunk: Expr) -> tuple[Stmt, ...]:
            flag = guarded(place < count, cast(flags[place], i64), ZERO)
            look = (
                Let(place, chunk * CHUNK + k),
                Let(at, cursor[0]),
                Store(local, (at,), place),
                Store(cursor, (ZERO,), at + flag),
            )
            copy = Store(found, (base + j,), local[j])
            return (
                Allocate(local),
                Allocate(cursor),
                Store(cursor, (ZERO,), ZERO),
                For(k, const(CHUNK), look),
                Let(base, maximum(starts[chunk], ZERO)),
                Let(here, minimum(cursor[0], size - base)),
                For(j, here, (copy,)),
            )

        f.block("compact", (starts.shape[0],), body)
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Of one chunk, those that are surely there."""
        yield cls(0), (example(boolean, 5), example(i64, 1, low=0, high=1))


def positions_where(flags: Traced, name: str = "size") -> Traced:
    """The positions of true elements of a tensor in row-major order, as many as there are."""
    count = product(flags.shape)
    flat = reshaped(flags, (count,))
    counts = CountTrue()(flat)
    starts = CumSum(0, exclusive=True)(counts)
    size = bind_size(Sum((0,))(counts), name, count)
    return Compact(size)(flat, starts)


def not_zero(x: Traced) -> Traced:
    """Whether elements are not zero; NaN is not."""
    return x if x.dtype.is_bool else NotEqual()(x, x.builder.literal(0, x.dtype))


@dataclass(frozen=True)
class FlatNonzero(DataSized):
    """The positions, counted in row-major order, of the elements that are not zero, as
    numpy.flatnonzero.

    Shapes:  x: any -> (u,) of i64, where u depends on the values.
    """

    def infer(self, *types: TensorType) -> TensorType:
        """Only the rank is known."""
        one(self, types)
        return POSITIONS

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.flatnonzero."""
        return np.flatnonzero(arrays[0]).astype(np.int64)

    def decompose(self, *args: Traced) -> Traced:
        """Chunks are counted, then listed."""
        return positions_where(not_zero(args[0]))

    @classmethod
    def samples(cls) -> Samples:
        """Ranks, dtypes, prime and empty sizes, more than one chunk."""
        yield cls(), (example(f32, 7),)
        yield cls(), (example(boolean, 2, 1031),)
        yield cls(), (example(i32, "n", 3, low=-1, high=2),)
        yield cls(), (example(f32, 0, 3),)
        yield cls(), (example(boolean),)


@dataclass(frozen=True)
class Unravel(Op):
    """Coordinates in a tensor of ``shape`` of positions that count its elements in row-major order.

    Shapes:  positions: (n,) of i64 -> (n, r) of i64, where r is the rank of ``shape``.
    Errors:  E0103; E0107.
    """

    shape: tuple[ExprLike, ...]

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """One row per position."""
        positions = one(self, types)
        check_is(self, positions.dtype, i64, "the positions")
        check_rank(self, positions, 1, 1)
        check_dims(self, self.shape)
        if positions.shape is None:
            return TensorType(None, 2, i64)
        return tensor_type((positions.dims[0], len(self.shape)), i64)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.unravel_index."""
        shape = known_shape(self.shape)
        if not shape or not arrays[0].size:
            return np.zeros((len(arrays[0]), len(shape)), np.int64)
        return np.stack(np.unravel_index(arrays[0], shape), 1).astype(np.int64)

    def lower(self, *types: TensorType) -> TensorFunction:
        """A block for each column."""
        f = LoopBuilder(self.op_name())
        positions = f.input(types[0])
        count = positions.shape[0]
        found = f.output((count, len(self.shape)), i64)
        for k in range(len(self.shape)):
            f.place(found, (count,), lambda i, k=k: ((i, k), self._column(positions[i], k)))
        return f.build()

    def _column(self, position: Expr, k: int) -> Expr:
        """One coordinate; no divisor is zero even if there are no elements."""
        after = product([as_expr(d) for d in self.shape[k + 1 :]])
        whole = position // maximum(after, ONE)
        return whole % maximum(as_expr(self.shape[k]), ONE) if k else whole

    @classmethod
    def samples(cls) -> Samples:
        """Ranks from one to three, no positions, symbolic sizes."""
        yield cls((3, 5)), (example(i64, 7, low=0, high=15),)
        yield cls((2, 3, 5)), (example(i64, 4, low=0, high=30),)
        yield cls((9,)), (example(i64, "n", low=0, high=9),)
        yield cls((0, 3)), (example(i64, 0, low=0, high=1),)


def unraveled(positions: Traced, shape: Sequence[Expr]) -> Traced:
    """The coordinates of positions in a shape."""
    return Unravel(tuple(simplify(d) for d in shape))(positions)


@dataclass(frozen=True)
class Nonzero(DataSized):
    """The coordinates of the elements that are not zero, in row-major order, as numpy.argwhere.

    Shapes:  x: any, of rank r -> (u, r) of i64, where u depends on the values.
    """

    def infer(self, *types: TensorType) -> TensorType:
        """Only the rank is known."""
        one(self, types)
        return TensorType(None, 2, i64)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.argwhere."""
        return np.argwhere(arrays[0]).astype(np.int64)

    def decompose(self, *args: Traced) -> Traced:
        """Positions, then coordinates."""
        (x,) = args
        return unraveled(positions_where(not_zero(x)), x.shape)

    @classmethod
    def samples(cls) -> Samples:
        """Ranks from none to three, dtypes, prime, empty and symbolic sizes."""
        yield cls(), (example(f32, 3, 5),)
        yield cls(), (example(boolean, 13),)
        yield cls(), (example(i32, "n", 3, low=-1, high=2),)
        yield cls(), (example(i64, 2, 3, 5, low=0, high=2),)
        yield cls(), (example(boolean, 0, 3),)
        yield cls(), (example(boolean),)
