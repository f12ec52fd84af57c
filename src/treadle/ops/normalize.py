"""Softmax and the normalizations: programs of rows, each several passes that a schedule fuses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from treadle.expr.dtype import DType, bf16, f16, f32
from treadle.expr.scalar import Const, Expr, Var, apply, cast, eq, select
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._compose import converted, widened
from treadle.ops._pointwise import number
from treadle.ops._shapes import (
    check_dtype,
    check_rank,
    check_same_dim,
    check_same_dtype,
    normalize_axis,
    one,
    operands,
    product,
    wide,
)
from treadle.ops._sums import summed
from treadle.ops.binary import Add, Mul, Sub
from treadle.ops.broadcast import Sum
from treadle.ops.elementwise import Exp, Rsqrt, Square
from treadle.ops.reduce import Mean

Dims = Sequence[Expr]


@dataclass(frozen=True, slots=True)
class _Rows:
    """A function under construction over rows along one axis of its operand."""

    b: LoopBuilder
    x: Buffer
    out: Buffer
    axis: int
    dtype: DType

    @staticmethod
    def of(op: Op, t: TensorType, axis: int) -> "_Rows":
        b = LoopBuilder(op.op_name())
        x = b.input(t, "X")
        return _Rows(
            b, x, b.output(t.dims, t.dtype), normalize_axis(op, axis, t.ndim), wide(t.dtype)
        )

    def row(self, indices: Dims) -> tuple[Expr, ...]:
        """The indices of an element's row."""
        return (*indices[: self.axis], *indices[self.axis + 1 :])

    def reduce(
        self, name: str, value: Callable[[tuple[Expr, ...]], Expr], combine: str = "add"
    ) -> Buffer:
        """Combine ``value`` of the indices of every element along each row."""

        def term(*i: Var) -> Expr:
            return value((*i[: self.axis], i[-1], *i[self.axis : -1]))

        rows = self.b.temp(self.row(self.x.shape), self.dtype, name)
        return self.b.reduce(
            rows, (self.x.shape[self.axis],), term, "max" if combine == "max" else "add"
        )

    def element(self, indices: Dims) -> Expr:
        """An element of the operand, in the dtype of sums."""
        return cast(self.x[tuple(indices)], self.dtype)


def _infer_rows(op: Op, axis: int, types: tuple[TensorType, ...]) -> TensorType:
    x = one(op, types)
    check_dtype(op, x.dtype, "float")
    normalize_axis(op, axis, x.ndim)
    return x


@dataclass(frozen=True)
class Softmax(Op):
    """Exponentiate and normalize along ``axis``, so that it sums to one.

    A row of nothing but -inf gives NaN; with ``blind_rows``, zeros, as attention wants where
    everything is masked.

    Shapes:  x: any -> the same.
    Dtypes:  any float. Computed in f32 for 16-bit floats.
    Errors:  E0101, E0103; E0104 if ``axis`` is out of range.
    """

    axis: int = -1
    blind_rows: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        return _infer_rows(self, self.axis, types)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        x = summed(arrays[0])
        largest = x.max(self.axis, keepdims=True, initial=-np.inf)
        if self.blind_rows:
            largest = np.where(largest == -np.inf, 0, largest).astype(x.dtype)
        e = np.exp(x - largest)
        total = e.sum(self.axis, keepdims=True)
        if self.blind_rows:
            total = np.where(total == 0, 1, total).astype(x.dtype)
        return (e / total).astype(arrays[0].dtype)

    def lower(self, *types: TensorType) -> TensorFunction:
        """The largest of each row, exponentials relative to it, their sum, the shares: products
        with the sum's reciprocal, for a sum is at least one.
        """
        r = _Rows.of(self, types[0], self.axis)
        largest = r.reduce("largest", r.element, "max")
        powers = r.b.temp(r.x.shape, r.dtype, "powers")
        never = Const(-inf, r.dtype)

        def power(*i: Expr) -> Expr:
            top: Expr = largest[r.row(i)]
            return apply("exp", r.element(i) - self._seen(top, never, 0))

        def share(*i: Expr) -> Expr:
            whole = self._seen(total[r.row(i)], Const(0, r.dtype), 1)
            return cast(powers[i] * (Const(1, r.dtype) / whole), r.out.dtype)

        r.b.compute(powers, power)
        total = r.reduce("total", lambda i: powers[i])
        r.b.compute(r.out, share)
        return r.b.build()

    def _seen(self, x: Expr, blind: Const, other: float) -> Expr:
        """A value of a row, exchanged where it says that the row is blind."""
        return select(eq(x, blind), other, x) if self.blind_rows else x

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """``dx = (dy - Σ dy y) y``."""
        (y,), (dy,) = outs, douts
        dot = Sum((self.axis,), keepdims=True)(Mul()(dy, y))
        return (Mul()(Sub()(dy, dot), y),)

    @classmethod
    def samples(cls) -> Samples:
        """Every position of the axis; one element; no rows."""
        yield cls(), (example(f32, "n", 7),)
        yield cls(0), (example(f32, 3, 1, 5),)
        yield cls(1), (example(f32, 2, 13, "n"),)
        yield cls(), (example(f32, 4, 1),)
        yield cls(), (example(f32, 0, 3),)
        yield cls(), (example(f16, 2, 9),)
        yield cls(), (example(bf16, 2, 9),)
        yield cls(blind_rows=True), (example(f32, "n", 5),)


@dataclass(frozen=True)
class LogSoftmax(Op):
    """The logarithm of ``Softmax``, without the loss of digits.

    Shapes:  x: any -> the same.
    Dtypes:  any float. Computed in f32 for 16-bit floats.
    Errors:  E0101, E0103; E0104 if ``axis`` is out of range.
    """

    axis: int = -1

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        return _infer_rows(self, self.axis, types)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        x = summed(arrays[0])
        shifted = x - x.max(self.axis, keepdims=True, initial=-np.inf)
        return (shifted - np.log(np.exp(shifted).sum(self.axis, keepdims=True))).astype(
            arrays[0].dtype
        )

    def lower(self, *types: TensorType) -> TensorFunction:
        """The largest of each row, the sum of exponentials relative to it, the differences."""
        r = _Rows.of(self, types[0], self.axis)
        largest = r.reduce("largest", r.element, "max")
        total = r.reduce("total", lambda i: apply("exp", r.element(i) - largest[r.row(i)]))

        def value(*i: Var) -> Expr:
            shifted = r.element(i) - largest[r.row(i)]
            return cast(shifted - apply("log", total[r.row(i)]), r.out.dtype)

        r.b.compute(r.out, value)
        return r.b.build()

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """``dx = dy - exp(y) Σ dy``."""
        (y,), (dy,) = outs, douts
        return (Sub()(dy, Mul()(Exp()(y), Sum((self.axis,), keepdims=True)(dy))),)

    @classmethod
    def samples(cls) -> Samples:
        """Every position of the axis."""
        yield cls(), (example(f32, "n", 7),)
        yield cls(0), (example(f32, 3, 1, 5),)
        yield cls(1), (example(f32, 2, 13, "n"),)
        yield cls(), (example(f16, 2, 9),)


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and reciprocal deviation of each row of a normalization."""

    mean: Buffer
    scale: Buffer


def mean_of(
    b: LoopBuilder,
    rows: Dims,
    over: Dims,
    dtype: DType,
    name: str,
    value: Callable[..., Expr],
    eps: float | None = None,
) -> Buffer:
    """The mean of ``value`` over ``over`` for every row; with ``eps`` one over the root of its sum
    with that.
    """
    total = b.temp(tuple(rows), dtype, f"{name}_sum")
    b.reduce(total, tuple(over), value)
    count = cast(product(over), dtype)

    def mean(*i: Var) -> Expr:
        found = total[i] / count
        return found if eps is None else apply("rsqrt", found + eps)

    return b.compute(b.temp(tuple(rows), dtype, name), mean)


def moments(
    b: LoopBuilder, rows: Dims, over: Dims, dtype: DType, eps: float, element: Callable[..., Expr]
) -> Moments:
    """The two passes of a stable variance: the mean, then the mean of squared deviations."""
    mean = mean_of(b, rows, over, dtype, "mean", element)

    def squared(*i: Var) -> Expr:
        deviation = element(*i) - mean[i[: len(rows)]]
        return deviation * deviation

    return Moments(mean, mean_of(b, rows, over, dtype, "scale", squared, eps))


def normalized(
    x: Traced, axes: tuple[int, ...], eps: float, centered: bool
) -> tuple[Traced, Traced]:
    """The normalized values of ``x`` over ``axes`` and the scale that made them so, in the dtype
    of sums.
    """
    if centered:
        x = Sub()(x, Mean(axes, keepdims=True)(x))
    scale = Rsqrt()(Add()(Mean(axes, keepdims=True)(Square()(x)), number(x, eps)))
    return Mul()(x, scale), scale


def normalized_gradient(
    values: Traced, scale: Traced, g: Traced, axes: tuple[int, ...], centered: bool
) -> Traced:
    """``scale (g - mean g - values mean(g values))``; without the mean of g where nothing was
    centered.
    """
    slope = Mul()(values, Mean(axes, keepdims=True)(Mul()(g, values)))
    if centered:
        g = Sub()(g, Mean(axes, keepdims=True)(g))
    return Mul()(scale, Sub()(g, slope))


def affine(value: Expr, weight: Expr | None, bias: Expr | None) -> Expr:
    """A value times the weight plus the bias, where there are such."""
    if weight is not None:
        value = value * cast(weight, value.dtype)
    return value if bias is None else value + cast(bias, value.dtype)


def affine_array(
    y: np.ndarray, rest: Sequence[np.ndarray], shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """An array times the first of ``rest`` plus the second, in ``shape``, where there are such."""
    if rest:
        y = y * rest[0].astype(y.dtype).reshape(shape)
    if len(rest) > 1:
        y = y + rest[1].astype(y.dtype).reshape(shape)
    return y.astype(dtype)


def normal_array(
    x: np.ndarray, axes: tuple[int, ...], eps: float, centered: bool = True
) -> np.ndarray:
    """An array less its mean (if ``centered``) over its deviation, over ``axes``."""
    if centered:
        x = x - x.mean(axes, keepdims=True)
    return x / np.sqrt((x * x).mean(axes, keepdims=True) + np.asarray(eps, x.dtype))


class _TrailingNorm(Op):
    """What normalizations over the last axes share; ``centered`` ones take away the mean."""

    axes_from: int
    eps: float

    def _infer(self, types: tuple[TensorType, ...], most: int) -> TensorType:
        x, *rest = operands(self, types, 1, most)
        check_dtype(self, check_same_dtype(self, types), "float")
        start = normalize_axis(self, self.axes_from, x.ndim)
        for t in rest:
            check_rank(self, t, x.ndim - start, x.ndim - start, "weight and bias")
            if t.shape is not None and x.shape is not None:
                for a, d in zip(t.dims, x.dims[start:], strict=True):
                    check_same_dim(
                        self, a, d, "dimensions of the weight and of the normalized axes"
                    )
        return x

    def _reference(self, arrays: tuple[np.ndarray, ...], centered: bool) -> np.ndarray:
        x, *rest = arrays
        start = normalize_axis(self, self.axes_from, x.ndim)
        y = normal_array(summed(x), tuple(range(start, x.ndim)), self.eps, centered)
        return affine_array(y, rest, x.shape[start:], x.dtype)

    def _lower(self, types: tuple[TensorType, ...], centered: bool) -> TensorFunction:
        b = LoopBuilder(self.op_name())
        x, *rest = (
            b.input(t, name) for t, name in zip(types, ("X", "weight", "bias"), strict=False)
        )
        out = b.output(x.shape, x.dtype)
        start = normalize_axis(self, self.axes_from, x.ndim)
        dtype = wide(x.dtype)
        rows, over = x.shape[:start], x.shape[start:]

        def element(*i: Var) -> Expr:
            return cast(x[i], dtype)

        mean: Buffer | None = None
        if centered:
            found = moments(b, rows, over, dtype, self.eps, element)
            mean, scale = found.mean, found.scale
        else:
            scale = mean_of(
                b, rows, over, dtype, "scale", lambda *i: element(*i) * element(*i), self.eps
            )

        def value(*i: Var) -> Expr:
            row = i[:start]
            deviation = element(*i) if mean is None else element(*i) - mean[row]
            parameters = [p[i[start:]] for p in rest]
            weight = parameters[0] if parameters else None
            bias = parameters[1] if len(parameters) > 1 else None
            return cast(affine(deviation * scale[row], weight, bias), out.dtype)

        b.compute(out, value)
        return b.build()

    def _vjp(
        self, args: tuple[Traced, ...], dy: Traced, centered: bool
    ) -> tuple[Traced | None, ...]:
        x, *rest = args
        start = normalize_axis(self, self.axes_from, x.ndim)
        leading, axes = tuple(range(start)), tuple(range(start, x.ndim))
        values, scale = normalized(widened(x), axes, self.eps, centered)
        g = widened(dy)
        inner = Mul()(g, widened(rest[0])) if rest else g
        dx = normalized_gradient(values, scale, inner, axes, centered)
        sums = (Mul()(g, values), g)
        found = (dx, *(Sum(leading)(s) for s, _ in zip(sums, rest, strict=False)))
        return tuple(converted(d, x.dtype) for d in found)


@dataclass(frozen=True)
class LayerNorm(_TrailingNorm):
    """Take away the mean over the axes from ``axes_from`` on and divide by the standard deviation.

    Shapes:  x: (*rows, *normal) [, weight: normal [, bias: normal]] -> that of x.
    Dtypes:  any float, all the same. Computed in f32 for 16-bit floats.
    Errors:  E0101, E0102, E0103, E0104; E0106 and E0107 if the weight does not fit.
    """

    axes_from: int = -1
    eps: float = 1e-5

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        return self._infer(types, 3)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        return self._reference(arrays, True)

    def lower(self, *types: TensorType) -> TensorFunction:
        """The mean, the mean of squared deviations, then every element."""
        return self._lower(types, True)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """The gradient less what moves the mean or the deviation."""
        return self._vjp(args, douts[0], True)

    @classmethod
    def samples(cls) -> Samples:
        """With and without parameters, over one and several axes."""
        yield cls(), (example(f32, "n", 7), example(f32, 7), example(f32, 7))
        yield cls(-2), (example(f32, 2, 3, 5), example(f32, 3, 5))
        yield cls(1, 1e-3), (example(f32, 3, 2, 4),)
        yield cls(0), (example(f32, 11),)
        yield cls(), (example(f32, 0, 3), example(f32, 3), example(f32, 3))
        yield cls(), (example(f16, 2, 9), example(f16, 9), example(f16, 9))


@dataclass(frozen=True)
class RmsNorm(_TrailingNorm):
    """Divide by the root of the mean of squares over the axes from ``axes_from`` on.

    Shapes:  x: (*rows, *normal) [, weight: normal] -> that of x.
    Dtypes:  any float, all the same. Computed in f32 for 16-bit floats.
    Errors:  E0101, E0102, E0103, E0104; E0106 and E0107 if the weight does not fit.
    """

    axes_from: int = -1
    eps: float = 1e-6

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        return self._infer(types, 2)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        return self._reference(arrays, False)

    def lower(self, *types: TensorType) -> TensorFunction:
        """The mean of squares, then every element."""
        return self._lower(types, False)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """The gradient less what moves the mean of squares."""
        return self._vjp(args, douts[0], False)

    @classmethod
    def samples(cls) -> Samples:
        """With and without a weight."""
        yield cls(), (example(f32, "n", 7), example(f32, 7))
        yield cls(1), (example(f32, 3, 2, 4),)
        yield cls(), (example(bf16, 2, 9), example(bf16, 9))
