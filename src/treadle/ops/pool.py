"""Pooling over windows: maximum, average, p-norm, and the inverse of the maximum."""

from dataclasses import dataclass, replace
from math import inf

import numpy as np

from treadle.expr.dtype import DType, f16, f32, i64
from treadle.expr.scalar import (
    Const,
    Expr,
    Var,
    apply,
    as_expr,
    cast,
    ceildiv,
    eq,
    int_value,
    maximum,
    minimum,
    select,
)
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder, identity
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._compose import cropped
from treadle.ops._pointwise import number
from treadle.ops._shapes import (
    check_dtype,
    check_field,
    check_is,
    check_rank,
    check_same_dim,
    dim,
    one,
    operands,
    product,
    tensor_type,
    wide,
)
from treadle.ops._sums import summed
from treadle.ops._window import (
    Dims,
    Pads,
    all_of,
    bordered,
    check_counts,
    check_windows,
    inside,
    plus,
    scaled,
    window_counts,
    windows,
)
from treadle.ops.binary import Div, Mul
from treadle.ops.convolution import spread_windows
from treadle.ops.create import Full
from treadle.ops.elementwise import Abs, Sign
from treadle.ops.index import GatherElements, ScatterElements
from treadle.ops.power import Pow
from treadle.ops.reshape import reshaped


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of a pool over an operand's spatial axes."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]
    ceil_mode: bool

    def counts(self, op: Op, size: Dims) -> Dims:
        """How many there are along each axis; E0108 if there are none."""
        found = window_counts(
            size, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )
        check_counts(op, found)
        return found

    def infer(self, op: Op, x: TensorType) -> TensorType:
        """The type of a pool's result, which has the dtype of the operand."""
        rank = len(self.kernel)
        check_rank(op, x, 2 + rank, 2 + rank)
        check_windows(op, rank, self.stride, self.padding, self.dilation)
        if x.shape is None:
            return TensorType(None, x.ndim, x.dtype)
        return tensor_type((*x.dims[:2], *self.counts(op, x.dims[2:])), x.dtype)

    def extents(self, size: Dims, counts: Dims) -> list[Expr]:
        """The elements along each axis that all windows together reach, the padding included."""
        if not self.ceil_mode:
            return [plus(n, as_expr(p[0] + p[1])) for n, p in zip(size, self.padding, strict=True)]
        axes = zip(counts, self.kernel, self.stride, self.dilation, strict=True)
        return [dim((c - 1) * s + (d * (k - 1) + 1)) for c, k, s, d in axes]

    def place(self, p: tuple[Expr, ...], k: tuple[Expr, ...]) -> list[Expr]:
        """Where tap ``k`` of window ``p`` lies in the padded operand."""
        axes = zip(p, self.stride, k, self.dilation, strict=True)
        return [plus(scaled(i, s), scaled(j, d)) for i, s, j, d in axes]

    def view(self, x: np.ndarray, fill: float = 0) -> np.ndarray:
        """The windows of an array: (n, c, *counts, *kernel)."""
        counts = [int_value(c) or 0 for c in self._counts_of(x.shape[2:])]
        return windows(x, self.kernel, self.stride, self.padding, self.dilation, counts, fill)

    def _counts_of(self, size: tuple[int, ...]) -> Dims:
        return window_counts(
            size, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )


def flat_index(indices: list[Expr], shape: Dims) -> Expr:
    """The position in row-major order of an element of a tensor of ``shape``."""
    flat, *rest = indices
    for index, size in zip(rest, shape[1:], strict=True):
        flat = flat * size + index
    return flat


def is_largest(value: Expr, largest: Expr) -> Expr:
    """Whether a value is the one found to be the largest; NaN is the largest of all."""
    same = eq(value, largest)
    return (
        same | (apply("isnan", value) & apply("isnan", largest)) if value.dtype.is_float else same
    )


def scattered(x: Traced, indices: Traced, dy: Traced) -> Traced:
    """Zeros of the shape of ``x``, to which ``dy`` is added at flat indices of the spatial axes."""
    flat = (*x.shape[:2], product(x.shape[2:]))
    chosen = (*x.shape[:2], product(indices.shape[2:]))
    zeros = x.builder.emit(Full(flat, 0, x.dtype))
    found = ScatterElements(2, "add")(zeros, reshaped(indices, chosen), reshaped(dy, chosen))
    return reshaped(found, x.shape)


@dataclass(frozen=True)
class MaxPool(Op):
    """The largest element of each window; with ``indices`` also where it is, counted over the
    unpadded spatial axes.

    The first of several largest elements counts; NaN counts as larger than everything.
    ``ceil_mode`` adds a window that overhangs, if it starts inside.

    Shapes:  x: (n, c, *size) -> (n, c, *count) [, indices likewise, i64].
    Dtypes:  any numbers.
    Errors:  E0101, E0103, E0107; E0108 for fields that do not fit.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]
    ceil_mode: bool = False
    indices: bool = False

    @property
    def _windows(self) -> Windows:
        return Windows(self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)

    def infer(self, *types: TensorType) -> TensorType | tuple[TensorType, ...]:
        """See the class."""
        x = one(self, types)
        check_dtype(self, x.dtype, "number")
        found = self._windows.infer(self, x)
        return (found, TensorType(found.shape, found.ndim, i64)) if self.indices else found

    def reference(self, *arrays: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """See the class."""
        (x,) = arrays
        axes = tuple(range(x.ndim, x.ndim + len(self.kernel)))
        view = self._windows.view(x, _lowest(x.dtype))
        largest = view.max(axes)
        if not self.indices:
            return largest
        positions = np.arange(int(np.prod(x.shape[2:]))).reshape(1, 1, *x.shape[2:])
        places = self._windows.view(positions, -1)
        wanted = largest.reshape(*largest.shape, *[1] * len(axes))
        same = (view == wanted) | ((view != view) & (wanted != wanted))
        beyond = np.iinfo(np.int64).max
        return largest, np.where(same & (places >= 0), places, beyond).min(axes)

    def lower(self, *types: TensorType) -> TensorFunction:
        """The maximum over a copy with a border of the lowest number; then the first position that
        has it.
        """
        (x_type,) = types
        shape = self._windows.infer(self, x_type).dims
        b = LoopBuilder(self.op_name())
        x = b.input(x_type, "X")
        out = b.output(shape, x.dtype)
        extents = self._windows.extents(x.shape[2:], shape[2:])
        fill = identity("max", x.dtype).value
        padded = bordered(b, x, [p[0] for p in self.padding], extents, fill)
        rank = len(self.kernel)

        def element(n: Var, c: Var, *rest: Var) -> Expr:
            return padded[(n, c, *self._windows.place(rest[:rank], rest[rank:]))]

        if self.indices:
            positions = b.output(shape, i64)
            b.reduce(out, self.kernel, element, "max")
            b.reduce(
                positions, self.kernel, lambda *i: self._position(x, out, element(*i), i), "min"
            )
        else:
            b.reduce(out, self.kernel, element, "max")
        return b.build()

    def _position(self, x: Buffer, largest: Buffer, value: Expr, point: tuple[Var, ...]) -> Expr:
        rank = len(self.kernel)
        places = self._windows.place(point[2 : 2 + rank], point[2 + rank :])
        source = [
            p - before if before else p for p, (before, _) in zip(places, self.padding, strict=True)
        ]
        conditions = [is_largest(value, largest[point[: 2 + rank]])]
        if self.ceil_mode or any(map(any, self.padding)):
            for index, size in zip(source, x.shape[2:], strict=True):
                conditions += inside(index, size)
        return select(all_of(conditions), flat_index(source, x.shape[2:]), identity("min", i64))

    def unpadded(self, *types: TensorType) -> tuple[Pads, float, Op] | None:
        """The border of what is less than everything, where that is a number of every dtype."""
        if not any(map(any, self.padding)) or self.ceil_mode or self.indices:
            return None
        none = ((0, 0),) * len(self.padding)
        return ((0, 0), (0, 0), *self.padding), -inf, replace(self, padding=none)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """The gradient goes to the largest element of each window."""
        (x,) = args
        if self.indices:
            return (scattered(x, outs[1], douts[0]),)
        again = MaxPool(
            self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode, indices=True
        )
        _, indices = x.builder.emit_all(again, x)
        return (scattered(x, indices, douts[0]),)

    @classmethod
    def samples(cls) -> Samples:
        """One to three dimensions, overhanging windows, padding on one side, indices."""
        none, same = (0, 0), (1, 1)
        yield cls((2, 2), (2, 2), (none, none), (1, 1)), (example(f32, "n", 3, 5, 4),)
        yield cls((3, 3), (2, 2), (same, same), (1, 1)), (example(f32, 1, 2, 7, 5),)
        yield cls((3,), (2,), (same,), (1,), ceil_mode=True), (example(f32, "n", 2, 6),)
        yield cls((2, 3), (1, 2), ((0, 1), same), (2, 1), True, True), (example(f32, 2, 1, 6, 5),)
        yield (
            cls((2, 1, 2), (1, 1, 2), (none, none, none), (1, 1, 1)),
            (example(f32, 1, 2, 3, 2, 4),),
        )
        yield cls((2,), (2,), (none,), (1,), indices=True), (example(f32, 0, 2, 4),)
        yield cls((3,), (1,), (same,), (1,)), (example(f16, 1, 2, 5),)


def _lowest(dtype: np.dtype) -> float:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


@dataclass(frozen=True)
class AvgPool(Op):
    """The average of each window. Elements of the padding count as zeros, or with
    ``count_include_pad=False`` not at all.

    What overhangs beyond the padding (see ``ceil_mode`` of ``MaxPool``) never counts. ``divisor``,
    if given, divides the sums instead of the number of elements.

    Shapes:  x: (n, c, *size) -> (n, c, *count).
    Dtypes:  any float. f16 and bf16 are summed in f32.
    Errors:  E0101, E0103, E0107; E0108 for fields that do not fit.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    ceil_mode: bool = False
    count_include_pad: bool = True
    dilation: tuple[int, ...] | None = None
    divisor: int | None = None

    @property
    def _windows(self) -> Windows:
        return Windows(self.kernel, self.stride, self.padding, self._dilation, self.ceil_mode)

    @property
    def _dilation(self) -> tuple[int, ...]:
        return self.dilation or (1,) * len(self.kernel)

    @property
    def _is_uniform(self) -> bool:
        """Whether every window is divided by the same number."""
        counted = self.count_include_pad or not any(map(any, self.padding))
        return self.divisor is not None or (counted and not self.ceil_mode)

    @property
    def _whole(self) -> int:
        return self.divisor or int(np.prod(self.kernel))

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x = one(self, types)
        check_dtype(self, x.dtype, "float")
        return self._windows.infer(self, x)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        (x,) = arrays
        axes = tuple(range(x.ndim, x.ndim + len(self.kernel)))
        total = self._windows.view(summed(x)).sum(axes)
        if self._is_uniform:
            return (total / self._whole).astype(x.dtype)
        ones = np.ones((1, 1, *x.shape[2:]), total.dtype)
        inner = Windows(self.kernel, self.stride, self.padding, self._dilation, self.ceil_mode)
        if self.count_include_pad:
            ones = np.pad(ones, [(0, 0), (0, 0), *self.padding], constant_values=1)
            bare = ((0, 0),) * len(self.kernel)
            inner = Windows(self.kernel, self.stride, bare, self._dilation, self.ceil_mode)
        counts = inner.view(ones).sum(axes)[
            (slice(None), slice(None), *map(slice, total.shape[2:]))
        ]
        return (total / counts).astype(x.dtype)

    def lower(self, *types: TensorType) -> TensorFunction:
        """Sums over a copy with a border of zeros, then divided."""
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        x = b.input(types[0], "X")
        out = b.output(result.dims, result.dtype)
        total = b.temp(out.shape, wide(out.dtype), "total")
        extents = self._windows.extents(x.shape[2:], out.shape[2:])
        padded = bordered(b, x, [p[0] for p in self.padding], extents, 0)
        rank = len(self.kernel)

        def element(n: Var, c: Var, *rest: Var) -> Expr:
            return cast(padded[(n, c, *self._windows.place(rest[:rank], rest[rank:]))], total.dtype)

        def average(*i: Var) -> Expr:
            return cast(total[i] / self._divisor(i[2:], x.shape[2:], total.dtype), out.dtype)

        b.reduce(total, self.kernel, element)
        b.compute(out, average)
        return b.build()

    def _divisor(self, point: tuple[Expr, ...], size: Dims, dtype: DType) -> Expr:
        if self._is_uniform:
            return Const(self._whole, dtype)
        counted: Expr = as_expr(1)
        for axis, p in enumerate(point):
            before, after = self.padding[axis]
            dilation = self._dilation[axis]
            start = p * self.stride[axis] - before
            low, high = (-before, size[axis] + after) if self.count_include_pad else (0, size[axis])
            first = maximum(ceildiv(low - start, dilation), 0)
            counted = counted * (
                minimum(ceildiv(high - start, dilation), self.kernel[axis]) - first
            )
        return cast(counted, dtype)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """Every window's share goes back to each of its elements."""
        (x,) = args
        share = Div()(douts[0], self._counts(x, douts[0].shape))
        return (
            spread_windows(share, x.shape, self.kernel, self.stride, self.padding, self._dilation),
        )

    def _counts(self, x: Traced, shape: Dims) -> Traced:
        if self._is_uniform:
            return number(x, self._whole)
        size, padding = x.shape[2:], self.padding
        if self.count_include_pad:
            size = tuple(n + (p[0] + p[1]) for n, p in zip(size, padding, strict=True))
            padding = ((0, 0),) * len(size)
        ones = x.builder.emit(Full((as_expr(1), as_expr(1), *map(dim, size)), 1, x.dtype))
        summing = AvgPool(
            self.kernel, self.stride, padding, self.ceil_mode, dilation=self._dilation, divisor=1
        )
        return cropped(summing(ones), (as_expr(1), as_expr(1), *shape[2:]))

    @classmethod
    def samples(cls) -> Samples:
        """One to three dimensions, overhanging windows, both ways to count."""
        none, same = (0, 0), (1, 1)
        yield cls((2, 2), (2, 2), (none, none)), (example(f32, "n", 3, 5, 4),)
        yield cls((3, 3), (2, 2), (same, same)), (example(f32, 1, 2, 7, 5),)
        yield (
            cls((3, 2), (2, 1), (same, (0, 1)), count_include_pad=False),
            (example(f32, "n", 2, 6, 3),),
        )
        yield cls((3,), (2,), (same,), ceil_mode=True), (example(f32, 2, 2, 6),)
        yield cls((3,), (2,), (same,), True, False, (2,)), (example(f32, 2, 2, 8),)
        yield (
            cls((2, 1, 2), (1, 1, 2), (none, none, none), divisor=3),
            (example(f32, 1, 2, 3, 2, 4),),
        )
        yield cls((2,), (2,), (none,)), (example(f32, 0, 2, 4),)
        yield cls((3,), (1,), (same,)), (example(f16, 1, 2, 5),)


@dataclass(frozen=True)
class LpPool(Op):
    """The p-norm of each window.

    Shapes:  x: (n, c, *size) -> (n, c, *count).
    Dtypes:  any float.
    Errors:  E0101, E0103, E0107; E0108 for fields that do not fit.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    p: float = 2.0
    ceil_mode: bool = False
    dilation: tuple[int, ...] | None = None

    @property
    def _sum(self) -> AvgPool:
        return AvgPool(
            self.kernel,
            self.stride,
            self.padding,
            self.ceil_mode,
            dilation=self.dilation,
            divisor=1,
        )

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        check_dtype(self, one(self, types).dtype, "float")
        check_field(self, self.p > 0, f"a norm of order {self.p} does not exist")
        return self._sum.infer(*types)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        (x,) = arrays
        total = self._sum.reference(np.abs(summed(x)) ** self.p)
        return (total ** (1 / self.p)).astype(x.dtype)

    def decompose(self, *args: Traced) -> Traced:
        """Powers, summed, and their root."""
        (x,) = args
        powers = Pow()(Abs()(x), number(x, self.p))
        return Pow()(self._sum(powers), number(x, 1 / self.p))

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """``dx = sign(x) |x|^(p - 1) Σ dy y^(1 - p)`` over the windows that hold x."""
        (x,) = args
        weight = Mul()(douts[0], Pow()(outs[0], number(x, 1 - self.p)))
        dilation = self.dilation or (1,) * len(self.kernel)
        spread = spread_windows(weight, x.shape, self.kernel, self.stride, self.padding, dilation)
        slope = Mul()(Sign()(x), Pow()(Abs()(x), number(x, self.p - 1)))
        return (Mul()(slope, spread),)

    @classmethod
    def samples(cls) -> Samples:
        """Norms of two orders."""
        yield cls((2, 2), (2, 1), ((0, 0), (0, 0))), (example(f32, "n", 2, 4, 3),)
        yield cls((3,), (1,), ((1, 1),), 3.0), (example(f32, 1, 2, 5),)


@dataclass(frozen=True)
class MaxUnpool(Op):
    """Zeros of spatial dimensions ``size`` with elements put where ``MaxPool`` found them.

    Shapes:  x: (n, c, *count), indices: likewise, i64, flat over the spatial axes -> (n, c, *size).
    Dtypes:  any numbers.
    Errors:  E0101, E0103; E0106 if the shapes differ; E0107.
    """

    size: tuple[Expr | int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x, indices = operands(self, types, 2)
        check_rank(self, x, 2 + len(self.size), 2 + len(self.size))
        check_rank(self, indices, x.ndim, x.ndim, "the indices")
        check_dtype(self, x.dtype, "number")
        check_is(self, indices.dtype, i64, "the indices")
        if x.shape is None or indices.shape is None:
            return TensorType(None, x.ndim, x.dtype)
        for a, d in zip(x.dims, indices.dims, strict=True):
            check_same_dim(self, a, d, "dimensions of values and indices")
        return tensor_type((*x.dims[:2], *self.size), x.dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        x, indices = arrays
        size = [int_value(d) or 0 for d in self.size]
        y = np.zeros((*x.shape[:2], int(np.prod(size))), x.dtype)
        flat = (*x.shape[:2], int(np.prod(x.shape[2:])))
        np.put_along_axis(y, indices.reshape(flat), x.reshape(flat), 2)
        return y.reshape(*x.shape[:2], *size)

    def decompose(self, *args: Traced) -> Traced:
        """A scatter over the flattened spatial axes."""
        x, indices = args
        flat = (*x.shape[:2], product(x.shape[2:]))
        zeros = x.builder.emit(Full((*x.shape[:2], product(self.size)), 0, x.dtype))
        found = ScatterElements(2, "none")(zeros, reshaped(indices, flat), reshaped(x, flat))
        return reshaped(found, (*x.shape[:2], *map(as_expr, self.size)))

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """The gradient at the indices."""
        x, indices = args
        flat = reshaped(douts[0], (*x.shape[:2], product(self.size)))
        chosen = GatherElements(2)(flat, reshaped(indices, (*x.shape[:2], product(x.shape[2:]))))
        return (reshaped(chosen, x.shape), None)

    @classmethod
    def samples(cls) -> Samples:
        """One element for each channel, so that no two go to the same place."""
        yield cls((2, 3)), (example(f32, "n", 2, 1, 1), example(i64, "n", 2, 1, 1, low=0, high=6))
