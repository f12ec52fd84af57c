"""Running reductions along an axis."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import f16, f32, f64, i32, i64
from treadle.expr.scalar import Expr, apply, cast, select
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import Combine, LoopBuilder, combined, guarded, identity
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import ZERO, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._pointwise import gradients
from treadle.ops._reduction import in_wide
from treadle.ops._shapes import (
    broadcast_types,
    check_dtype,
    check_same_dtype,
    element,
    normalize_axis,
    one,
    operands,
    replaced,
    wide,
)
from treadle.ops.binary import Mul
from treadle.ops.broadcast import expanded
from treadle.ops.create import Full
from treadle.ops.index import ScatterElements
from treadle.ops.pad import Pad

Values = tuple[Traced, ...]
Gradients = tuple[Traced | None, ...]


@dataclass(frozen=True)
class Running(Op):
    """What a running sum and a running product share."""

    axis: int
    exclusive: bool = False
    reverse: bool = False

    combine: ClassVar[Combine]

    def infer(self, *types: TensorType) -> TensorType:
        """The operand's type; E0103 for bool, E0104 for the axis."""
        x = one(self, types)
        check_dtype(self, x.dtype, "number")
        normalize_axis(self, self.axis, x.ndim)
        return x

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.cumsum or np.cumprod of the array in order, shifted by one if exclusive; of floats in
        double precision."""
        (x,) = arrays
        moved = np.moveaxis(in_wide(x), self.axis, 0)
        moved = moved[::-1] if self.reverse else moved
        function, unit = (np.cumsum, 0) if self.combine == "add" else (np.cumprod, 1)
        if self.exclusive:
            moved = np.concatenate([np.full_like(moved[:1], unit), moved[:-1]])
        found = function(moved, axis=0)
        found = found[::-1] if self.reverse else found
        return np.moveaxis(found, 0, self.axis).astype(x.dtype)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One block, run in order along the axis; 16-bit floats in f32."""
        x_type = self.infer(*types)
        axis = normalize_axis(self, self.axis, x_type.ndim)
        f = LoopBuilder(self.op_name())
        x = f.input(x_type)
        y = f.output(x.shape, x.dtype)
        inner = wide(x.dtype)
        total = y if inner == x.dtype else f.temp(x.shape, inner)
        extent, unit = x.shape[axis], identity(self.combine, inner)

        def store(*point: Expr) -> tuple[tuple[Expr, ...], Expr]:
            step = point[axis]
            here = extent - 1 - step if self.reverse else step
            back = here + 1 if self.reverse else here - 1
            at, before = replaced(point, axis, here), replaced(point, axis, back)
            term = cast(x[before if self.exclusive else at], inner)
            return at, guarded(
                step > 0,
                combined(self.combine, total[before], term),
                unit if self.exclusive else term,
            )

        f.place(total, x.shape, store, ordered=(axis,))
        if total is not y:
            f.compute(y, lambda *i: cast(total[i], y.dtype))
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Axes of both signs, all four directions, sizes of one and zero, dtypes."""
        yield cls(0), (example(f32, "n", 3),)
        yield cls(-1), (example(f32, 2, 5),)
        yield cls(1, True), (example(f64, 2, 5, 2),)
        yield cls(0, False, True), (example(f32, 7),)
        yield cls(-2, True, True), (example(f32, 5, "n"),)
        yield cls(0), (example(f16, 5),)
        yield cls(0), (example(i32, 5, low=-4, high=5),)
        yield cls(0, True), (example(f32, 1),)
        yield cls(1), (example(i64, 3, 0),)


@dataclass(frozen=True)
class CumSum(Running):
    """The sum of the elements up to each (before each if ``exclusive``), from the other end if
    ``reverse``.

    Shapes:  x: any -> same.
    Errors:  E0103 for bool; E0104.
    """

    combine: ClassVar[Combine] = "add"

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """The sum the other way."""
        return (CumSum(self.axis, self.exclusive, not self.reverse)(douts[0]),)


@dataclass(frozen=True)
class LinearScan(Op):
    """y[t] = a[t] · y[t - 1] + b[t] along ``axis``, starting from zero; from the other end if
    ``reverse``.

    Shapes:  a, b: of one shape and dtype -> same.
    Errors:  E0102; E0103 unless floats; E0104; E0105 if the shapes do not broadcast.
    """

    axis: int
    reverse: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        """The broadcast type."""
        operands(self, types, 2)
        result = broadcast_types(
            self, types, check_dtype(self, check_same_dtype(self, types), "float")
        )
        normalize_axis(self, self.axis, result.ndim)
        return result

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Step by step, in double precision."""
        a, b = (np.moveaxis(in_wide(x), self.axis, 0) for x in np.broadcast_arrays(*arrays))
        y = np.zeros_like(b)
        state = np.zeros(b.shape[1:])
        for t in reversed(range(len(b))) if self.reverse else range(len(b)):
            state = a[t] * state + b[t]
            y[t] = state
        return np.moveaxis(y, 0, self.axis).astype(arrays[0].dtype)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One block, run in order along the axis; 16-bit floats in f32."""
        result = self.infer(*types)
        axis = normalize_axis(self, self.axis, result.ndim)
        f = LoopBuilder(self.op_name())
        a, b = (f.input(t) for t in types)
        y = f.output(result.dims, result.dtype)
        inner = wide(y.dtype)
        state = y if inner == y.dtype else f.temp(y.shape, inner)

        def store(*point: Expr) -> tuple[tuple[Expr, ...], Expr]:
            step = point[axis]
            here = y.shape[axis] - 1 - step if self.reverse else step
            at = replaced(point, axis, here)
            before = replaced(point, axis, here + 1 if self.reverse else here - 1)
            carried = guarded(step > 0, cast(element(a, at), inner) * state[before], 0.0)
            return at, carried + cast(element(b, at), inner)

        f.place(state, y.shape, store, ordered=(axis,))
        if state is not y:
            f.compute(y, lambda *i: cast(state[i], y.dtype))
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """The scan the other way: g[t] = dy[t] + a[t + 1] g[t + 1], to b; to a, g[t] y[t - 1]."""
        (a, _), (y,), (dy,) = args, outs, douts
        axis = normalize_axis(self, self.axis, y.ndim)
        whole = expanded(a, y.shape)
        g = LinearScan(axis, not self.reverse)(shifted(whole, axis, not self.reverse, 0.0), dy)
        return gradients(args, Mul()(g, shifted(y, axis, self.reverse, 0.0)), g)

    @classmethod
    def samples(cls) -> Samples:
        """Both directions, broadcasting, sizes of one and zero."""
        yield cls(-1), (example(f32, 2, "n"), example(f32, 2, "n"))
        yield cls(0, True), (example(f32, 5, 3), example(f32, 5, 3))
        yield cls(0), (example(f64, 1, 3), example(f64, 4, 1))
        yield cls(0), (example(f16, 5), example(f16, 5))
        yield cls(1), (example(f32, 3, 1), example(f32, 3, 1))
        yield cls(0), (example(f32, 0), example(f32, 0))


def shifted(x: Traced, axis: int, reverse: bool, fill: float) -> Traced:
    """Each element's predecessor along ``axis`` (its successor if ``reverse``); ``fill`` for the
    first."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (-1, 1) if reverse else (1, -1)
    return Pad(tuple(pads), "constant", fill)(x)


@dataclass(frozen=True)
class CumProd(Running):
    """The product of the elements up to each (before each if ``exclusive``), from the other end if
    ``reverse``.

    Shapes:  x: any -> same.
    Errors:  E0103 for bool; E0104.
    """

    combine: ClassVar[Combine] = "mul"

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """With p the exclusive product: p[t] · r[t], where r[t] = dy[t] + x[t + 1] · r[t + 1];
        exact for zeros in x.

        An exclusive product is that of the operand moved by one, so its r is moved back by one.
        """
        (x,), (dy,) = args, douts
        axis = normalize_axis(self, self.axis, x.ndim)
        before = CumProd(axis, True, self.reverse)(x)
        if self.exclusive:
            dy = shifted(dy, axis, not self.reverse, 0.0)
        r = LinearScan(axis, not self.reverse)(shifted(x, axis, not self.reverse, 0.0), dy)
        return (Mul()(before, r),)


@dataclass(frozen=True)
class RunningExtreme(Op):
    """What a running maximum and a running minimum share."""

    axis: int

    combine: ClassVar[Combine]

    def infer(self, *types: TensorType) -> tuple[TensorType, TensorType]:
        """The operand's type, and indices of its shape."""
        x = one(self, types)
        check_dtype(self, x.dtype, "number")
        normalize_axis(self, self.axis, x.ndim)
        return x, TensorType(x.shape, x.ndim, i64)

    def reference(self, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """NumPy's accumulate; the index is the last position that changed or equalled it."""
        (x,) = arrays
        function = np.maximum if self.combine == "max" else np.minimum
        values = function.accumulate(x, axis=self.axis)
        steps = np.arange(x.shape[self.axis]).reshape(
            [-1 if k == self.axis % x.ndim else 1 for k in range(x.ndim)]
        )
        hits = np.where((x == values) | (x != x), steps, 0)
        return values, np.maximum.accumulate(hits, axis=self.axis).astype(np.int64)

    def lower(self, *types: TensorType) -> TensorFunction:
        """Two blocks, run in order along the axis: values, then indices."""
        x_type, _ = self.infer(*types)
        axis = normalize_axis(self, self.axis, x_type.ndim)
        f = LoopBuilder(self.op_name())
        x = f.input(x_type)
        values, indices = f.output(x.shape, x.dtype), f.output(x.shape, i64)

        def value(*point: Expr) -> tuple[tuple[Expr, ...], Expr]:
            before = replaced(point, axis, point[axis] - 1)
            return point, guarded(
                point[axis] > 0, combined(self.combine, values[before], x[point]), x[point]
            )

        def index(*point: Expr) -> tuple[tuple[Expr, ...], Expr]:
            step = point[axis]
            before = replaced(point, axis, step - 1)
            hit = apply("eq", x[point], values[point])
            if x.dtype.is_float:
                hit = hit | apply("isnan", x[point])
            return point, select(hit, step, guarded(step > 0, indices[before], ZERO))

        f.place(values, x.shape, value, ordered=(axis,))
        f.place(indices, x.shape, index, ordered=(axis,))
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """To the elements that the indices name."""
        x, dy = args[0], douts[0]
        zeros = x.builder.emit(Full(x.shape, 0, x.dtype))
        return (ScatterElements(self.axis, "add")(zeros, outs[1], dy),)

    @classmethod
    def samples(cls) -> Samples:
        """Axes of both signs, dtypes, ties, sizes of one and zero."""
        yield cls(0), (example(f32, "n", 3),)
        yield cls(-1), (example(f32, 3, 7),)
        yield cls(1), (example(f64, 2, 5, 2),)
        yield cls(0), (example(i32, 11, low=0, high=4),)
        yield cls(0), (example(f16, 1),)
        yield cls(0), (example(i64, 0),)


@dataclass(frozen=True)
class CumMax(RunningExtreme):
    """The largest element up to each, and where it last stood; from a NaN on, NaN.

    Shapes:  x: any -> same, and i64 of the same shape.
    Errors:  E0103 for bool; E0104.
    """

    combine: ClassVar[Combine] = "max"


@dataclass(frozen=True)
class CumMin(RunningExtreme):
    """The smallest element up to each, and where it last stood; from a NaN on, NaN.

    Shapes:  x: any -> same, and i64 of the same shape.
    Errors:  E0103 for bool; E0104.
    """

    combine: ClassVar[Combine] = "min"
