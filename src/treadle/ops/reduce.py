"""Reductions over axes, besides the sum."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import bf16, boolean, f16, f32, f64, i32, i64
from treadle.expr.scalar import Expr, apply, cast, eq, int_value, maximum, select
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import Combine, LoopBuilder
from treadle.ir.op import Op, Samples, example, fail
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._pointwise import number
from treadle.ops._reduction import in_wide, infer_reduction, lower_reduction, merge_indices
from treadle.ops._shapes import (
    Family,
    check_dtype,
    dim,
    normalize_axes,
    normalize_axis,
    one,
    product,
    reduced_dims,
    wide,
)
from treadle.ops.binary import Add, Div, Mul, Sub
from treadle.ops.broadcast import Sum, spread
from treadle.ops.compare import Equal, Where
from treadle.ops.elementwise import Cast, Exp, Log, Square
from treadle.ops.reshape import reshaped
from treadle.ops.scan import CumProd
from treadle.ops.shape import Permute

Values = tuple[Traced, ...]
Gradients = tuple[Traced | None, ...]


@dataclass(frozen=True)
class Reduction(Op):
    """What reductions share: ``axes`` and whether they stay as ones."""

    axes: tuple[int, ...]
    keepdims: bool = False

    accepts: ClassVar[Family] = "number"
    nonempty: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """The operand's dtype; E0103, E0104, and E0106 for the extreme of nothing."""
        x = one(self, types)
        dtype = check_dtype(self, x.dtype, self.accepts)
        result = infer_reduction(self, types, self.axes, self.keepdims, dtype)
        if self.nonempty and x.shape is not None:
            for a in self.axes:
                _check_not_empty(self, x, a)
        return result

    @classmethod
    def samples(cls) -> Samples:
        """Axes of both signs, none, all; dtypes; symbolic and empty shapes."""
        if cls.accepts == "bool":
            yield cls((-1,)), (example(boolean, "n", 3),)
            yield cls((0, 1), True), (example(boolean, 2, 2),)
            yield cls((0,)), (example(boolean, 0, 2),)
            yield cls(()), (example(boolean, 3),)
            return
        yield cls((-1,)), (example(f32, "n", 7),)
        yield cls((0,), True), (example(f32, "n", 3),)
        yield cls((0, 2)), (example(f64, 2, 3, 5),)
        yield cls((1, -3), True), (example(f16, 3, 5, 2),)
        yield cls((0,)), (example(bf16, 11),)
        yield cls((1,)), (example(f32, 0, 3),)
        yield cls((0, 1)), (example(f32, 1, 1),)
        if cls.accepts == "number":
            yield cls(()), (example(f32, 4),)
            yield cls((1,)), (example(i32, 3, 4, low=-4, high=5),)
            yield cls((0, 1)), (example(i64, 2, 3, low=-4, high=5),)


def _check_not_empty(op: Op, x: TensorType, axis: int) -> None:
    if int_value(x.dims[axis]) == 0:
        raise fail(op, "E0106", f"dimension {axis} is empty, so there is nothing to choose from")


@dataclass(frozen=True)
class Prod(Reduction):
    """Multiply over ``axes``; 16-bit floats in f32.

    Shapes:  x: any -> less ``axes``, or with ones there if ``keepdims``.
    Errors:  E0103 for bool; E0104.
    """

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.prod, of floats in double precision."""
        (x,) = arrays
        return np.asarray(np.prod(in_wide(x), axis=self.axes, keepdims=self.keepdims)).astype(
            x.dtype
        )

    def lower(self, *types: TensorType) -> TensorFunction:
        """One reduction."""
        return lower_reduction(self, types, self.axes, self.keepdims, "mul")

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy times the product of all others: those before and those after along the joined axes;
        exact for zeros."""
        x = args[0]
        axes = normalize_axes(self, self.axes, x.ndim)
        kept = tuple(k for k in range(x.ndim) if k not in axes)
        order = (*kept, *axes)
        moved = Permute(order)(x)
        flat = reshaped(moved, (*(x.shape[k] for k in kept), product([x.shape[a] for a in axes])))
        before, after = CumProd(len(kept), True)(flat), CumProd(len(kept), True, True)(flat)
        others = Permute(tuple(order.index(k) for k in range(x.ndim)))(
            reshaped(Mul()(before, after), moved.shape)
        )
        return (Mul()(spread(self, douts[0], x, axes), others),)


class Extreme(Reduction):
    """A largest or smallest element."""

    nonempty: ClassVar[bool] = True
    combine: ClassVar[Combine]

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.max or np.min."""
        function = np.max if self.combine == "max" else np.min
        return np.asarray(function(arrays[0], axis=self.axes, keepdims=self.keepdims))

    def lower(self, *types: TensorType) -> TensorFunction:
        """One reduction."""
        return lower_reduction(self, types, self.axes, self.keepdims, self.combine)

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy in equal parts to all elements that equal the result."""
        (x,), (y,), (dy,) = args, outs, douts
        hit = Cast(x.dtype)(Equal()(x, spread(self, y, x, self.axes)))
        ties = spread(self, Sum(self.axes, self.keepdims)(hit), x, self.axes)
        return (Mul()(spread(self, dy, x, self.axes), Div()(hit, ties)),)


@dataclass(frozen=True)
class Max(Extreme):
    """The largest over ``axes``; NaN if one is.

    Shapes:  x: any -> less ``axes``, or with ones there if ``keepdims``.
    Errors:  E0103 for bool; E0104; E0106 over an empty axis.
    """

    combine: ClassVar[Combine] = "max"


@dataclass(frozen=True)
class Min(Extreme):
    """The smallest over ``axes``; NaN if one is.

    Shapes:  x: any -> less ``axes``, or with ones there if ``keepdims``.
    Errors:  E0103 for bool; E0104; E0106 over an empty axis.
    """

    combine: ClassVar[Combine] = "min"


def count_of(x: Traced, axes: tuple[int, ...], less: int = 0) -> Traced:
    """How many elements stand along normalized ``axes``, less a number but not below zero, as a
    number of x's dtype."""
    size = product([x.shape[a] for a in axes])
    return x.builder.literal(cast(maximum(dim(size - less), 0) if less else size, x.dtype), x.dtype)


def widened(x: Traced) -> Traced:
    """``x`` in the dtype that its sums are computed in."""
    return x if wide(x.dtype) == x.dtype else Cast(wide(x.dtype))(x)


def narrowed(x: Traced, like: Traced) -> Traced:
    """``x`` in the dtype of ``like``."""
    return x if x.dtype == like.dtype else Cast(like.dtype)(x)


@dataclass(frozen=True)
class Mean(Reduction):
    """The average over ``axes``; 16-bit floats in f32; NaN of nothing.

    Shapes:  x: any -> less ``axes``, or with ones there if ``keepdims``.
    Errors:  E0103 unless floats; E0104.
    """

    accepts: ClassVar[Family] = "float"

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.mean in double precision."""
        (x,) = arrays
        return np.asarray(np.mean(in_wide(x), axis=self.axes, keepdims=self.keepdims)).astype(
            x.dtype
        )

    def decompose(self, *args: Traced) -> Traced:
        """The sum over the count."""
        x = widened(args[0])
        total = Sum(self.axes, self.keepdims)(x)
        return narrowed(Div()(total, count_of(x, normalize_axes(self, self.axes, x.ndim))), args[0])

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy over the count, everywhere."""
        x = args[0]
        part = Div()(douts[0], count_of(x, normalize_axes(self, self.axes, x.ndim)))
        return (spread(self, part, x, self.axes),)


@dataclass(frozen=True)
class Variance(Reduction):
    """The mean squared distance from the mean over ``axes``, with ``correction`` taken off the
    count.

    Two passes; 16-bit floats in f32.

    Shapes:  x: any -> less ``axes``, or with ones there if ``keepdims``.
    Errors:  E0103 unless floats; E0104.
    """

    correction: int = 1

    accepts: ClassVar[Family] = "float"

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """The definition in double precision."""
        (x,) = arrays
        w = in_wide(x)
        squares = np.abs(w - w.mean(axis=self.axes, keepdims=True)) ** 2
        count = int(np.prod([x.shape[a] for a in self.axes]))
        total = np.sum(squares, axis=self.axes, keepdims=self.keepdims)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.divide(total, max(0, count - self.correction))).astype(x.dtype)

    def decompose(self, *args: Traced) -> Traced:
        """The mean, then the sum of squares."""
        x = widened(args[0])
        squares = Square()(Sub()(x, Mean(self.axes, True)(x)))
        count = count_of(x, normalize_axes(self, self.axes, x.ndim), self.correction)
        return narrowed(Div()(Sum(self.axes, self.keepdims)(squares), count), args[0])

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """2 (x - mean) dy / count."""
        x = args[0]
        count = count_of(x, normalize_axes(self, self.axes, x.ndim), self.correction)
        part = Div()(Mul()(douts[0], number(x, 2)), count)
        distance = Sub()(x, Mean(self.axes, True)(x))
        return (Mul()(distance, spread(self, part, x, self.axes)),)

    @classmethod
    def samples(cls) -> Samples:
        """As of all reductions, with each correction."""
        yield cls((-1,)), (example(f32, "n", 7),)
        yield cls((0,), True, 0), (example(f32, "n", 3),)
        yield cls((0, -1)), (example(f64, 2, 3, 5),)
        yield cls((1,), False, 2), (example(f16, 3, 5, 2),)
        yield cls((0,)), (example(bf16, 11),)
        yield cls((1,), False, 0), (example(f32, 0, 3),)


@dataclass(frozen=True)
class LogSumExp(Reduction):
    """The logarithm of the sum of exponentials over ``axes``, without overflow; 16-bit floats in
    f32.

    Shapes:  x: any -> less ``axes``, or with ones there if ``keepdims``.
    Errors:  E0103 unless floats; E0104; E0106 over an empty axis.
    """

    accepts: ClassVar[Family] = "float"
    nonempty: ClassVar[bool] = True

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.logaddexp in double precision."""
        (x,) = arrays
        found = in_wide(x)
        for axis in sorted((a % x.ndim for a in self.axes), reverse=True):
            found = np.logaddexp.reduce(found, axis=axis, keepdims=self.keepdims)
        return np.asarray(found).astype(x.dtype)

    def decompose(self, *args: Traced) -> Traced:
        """With the maximum, where it is finite, taken out of the exponentials."""
        x = widened(args[0])
        top = Max(self.axes, True)(x)
        finite = Equal()(Sub()(top, top), number(x, 0))
        shift = Where()(finite, top, number(x, 0))
        total = Sum(self.axes, self.keepdims)(Exp()(Sub()(x, shift)))
        return narrowed(Add()(Log()(total), reshaped(shift, total.shape)), args[0])

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy times the softmax."""
        x = args[0]
        part = Exp()(Sub()(x, spread(self, outs[0], x, self.axes)))
        return (Mul()(spread(self, douts[0], x, self.axes), part),)


class Truth(Reduction):
    """A reduction of truths."""

    differentiable: ClassVar[bool] = False
    accepts: ClassVar[Family] = "bool"
    combine: ClassVar[Combine]

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.any or np.all."""
        function = np.any if self.combine == "or" else np.all
        return np.asarray(function(arrays[0], axis=self.axes, keepdims=self.keepdims))

    def lower(self, *types: TensorType) -> TensorFunction:
        """One reduction."""
        return lower_reduction(self, types, self.axes, self.keepdims, self.combine)


@dataclass(frozen=True)
class Any(Truth):
    """Whether one holds; not of nothing.

    Shapes:  x: any, bool -> less ``axes``, or with ones there if ``keepdims``.
    Errors:  E0103; E0104.
    """

    combine: ClassVar[Combine] = "or"


@dataclass(frozen=True)
class All(Truth):
    """Whether all hold; so of nothing.

    Shapes:  x: any, bool -> less ``axes``, or with ones there if ``keepdims``.
    Errors:  E0103; E0104.
    """

    combine: ClassVar[Combine] = "and"


@dataclass(frozen=True)
class ArgExtreme(Op):
    """What the positions of extremes share."""

    axis: int
    keepdims: bool = False
    last: bool = False

    differentiable: ClassVar[bool] = False
    combine: ClassVar[Combine]

    def infer(self, *types: TensorType) -> TensorType:
        """Positions, i64."""
        x = one(self, types)
        check_dtype(self, x.dtype, "number")
        result = infer_reduction(self, types, (self.axis,), self.keepdims, i64)
        if x.shape is not None:
            _check_not_empty(self, x, self.axis)
        return result

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.argmax or np.argmin, of the array from its end for the last."""
        (x,) = arrays
        function = np.argmax if self.combine == "max" else np.argmin
        if self.last:
            found = (
                x.shape[self.axis]
                - 1
                - function(np.flip(x, self.axis), axis=self.axis, keepdims=self.keepdims)
            )
        else:
            found = function(x, axis=self.axis, keepdims=self.keepdims)
        return np.asarray(found, np.int64)

    def lower(self, *types: TensorType) -> TensorFunction:
        """The extreme, then the first (or last) position of it; a NaN is the extreme."""
        x_type = types[0]
        axis = normalize_axis(self, self.axis, x_type.ndim)
        f = LoopBuilder(self.op_name())
        x = f.input(x_type)
        dims = reduced_dims(x.shape, (axis,), self.keepdims)
        y = f.output(dims, i64)
        extreme = f.temp(dims, x.dtype)
        extent = x.shape[axis]

        def at(indices: tuple[Expr, ...]) -> Expr:
            return x[merge_indices(indices[:-1], indices[-1:], (axis,), self.keepdims)]

        def position(*indices: Expr) -> Expr:
            hit = eq(at(indices), extreme[indices[:-1]])
            if x.dtype.is_float:
                hit = hit | apply("isnan", at(indices))
            return select(hit, indices[-1], -1 if self.last else extent)

        f.reduce(extreme, (extent,), lambda *i: at(i), self.combine)
        f.reduce(
            y, (extent,), position, "max" if self.last else "min", init=-1 if self.last else extent
        )
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Axes of both signs, ties from both ends, dtypes, a size of one."""
        yield cls(-1), (example(f32, "n", 7),)
        yield cls(0, True), (example(f32, 5, "n"),)
        yield cls(1, False, True), (example(i32, 2, 9, low=0, high=3),)
        yield cls(1), (example(i64, 3, 9, 2, low=0, high=3),)
        yield cls(0), (example(f16, 1),)
        yield cls(-2, True, True), (example(f64, 3, 2),)


@dataclass(frozen=True)
class ArgMax(ArgExtreme):
    """Where along ``axis`` the largest element stands, the first (or ``last``) of several; a NaN is
    the largest.

    Shapes:  x: any -> less ``axis``, or with a one there if ``keepdims``, of i64.
    Errors:  E0103 for bool; E0104; E0106 along an empty axis.
    """

    combine: ClassVar[Combine] = "max"


@dataclass(frozen=True)
class ArgMin(ArgExtreme):
    """Where along ``axis`` the smallest element stands, the first (or ``last``) of several; a NaN
    is the smallest.

    Shapes:  x: any -> less ``axis``, or with a one there if ``keepdims``, of i64.
    Errors:  E0103 for bool; E0104; E0106 along an empty axis.
    """

    combine: ClassVar[Combine] = "min"


__all__ = [
    "All",
    "Any",
    "ArgMax",
    "ArgMin",
    "LogSumExp",
    "Max",
    "Mean",
    "Min",
    "Prod",
    "Sum",
    "Variance",
    "count_of",
    "narrowed",
    "widened",
]
