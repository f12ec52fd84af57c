"""Movement of elements by index arithmetic: permutation, slices, concatenation, repetition,
triangles."""

from dataclasses import dataclass

import numpy as np

from treadle.expr.dtype import boolean, f16, f32, f64, i32, i64
from treadle.expr.scalar import Const, Expr, ExprLike, Var, as_expr, int_value, select
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example, fail
from treadle.ir.tensor import ONE, ZERO, Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import (
    check_field,
    check_rank,
    check_same_dim,
    check_same_dtype,
    dim,
    is_one,
    normalize_axes,
    normalize_axis,
    one,
    operands,
    replaced,
    tensor_type,
)
from treadle.ops.broadcast import Expand, Sum
from treadle.ops.pad import Pad, one_axis
from treadle.ops.reshape import Reshape, reshaped

Values = tuple[Traced, ...]
Gradients = tuple[Traced | None, ...]


@dataclass(frozen=True)
class Permute(Op):
    """Dimension k of the result is dimension ``axes[k]`` of the operand.

    Shapes:  x: any -> its dimensions in another order.
    Errors:  E0104 unless ``axes`` names every axis once.
    """

    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        """The permuted shape."""
        x = one(self, types)
        axes = self._axes(x.ndim)
        return (
            TensorType(None, x.ndim, x.dtype)
            if x.shape is None
            else tensor_type([x.dims[a] for a in axes], x.dtype)
        )

    def _axes(self, ndim: int) -> tuple[int, ...]:
        if len(normalize_axes(self, self.axes, ndim)) != ndim:
            raise fail(self, "E0104", f"axes {self.axes} do not name each of {ndim} axes once")
        return tuple(a % ndim for a in self.axes)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.transpose."""
        return np.transpose(arrays[0], self.axes)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy."""
        axes = self._axes(types[0].ndim)
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])
        f.compute(
            f.output(self.infer(*types).dims, x.dtype),
            lambda *i: x[tuple(i[axes.index(k)] for k in range(x.ndim))],
        )
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """The inverse permutation."""
        axes = self._axes(args[0].ndim)
        return (Permute(tuple(axes.index(k) for k in range(len(axes))))(douts[0]),)

    @classmethod
    def samples(cls) -> Samples:
        """Ranks zero to four, negative axes, empty and symbolic shapes."""
        yield cls((1, 0)), (example(f32, "n", 5),)
        yield cls((2, 0, 1)), (example(f32, 2, 3, 5),)
        yield cls((0, -1, 1, -2)), (example(f16, 2, 3, 1, 4),)
        yield cls(()), (example(i64),)
        yield cls((1, 0)), (example(boolean, 0, 3),)


@dataclass(frozen=True)
class Slice(Op):
    """Elements ``start``, ``start + step``, … before ``stop`` along ``axis``.

    Shapes:  x: (…, d, …) -> (…, ceil((stop - start) / step), …), where 0 <= start <= stop <= d.
    Errors:  E0104; E0108 if ``step`` < 1 or constant bounds are out of order or out of range.
    """

    axis: int
    start: ExprLike
    stop: ExprLike
    step: int = 1

    def infer(self, *types: TensorType) -> TensorType:
        """The operand's shape, shorter along the axis."""
        x = one(self, types)
        axis = normalize_axis(self, self.axis, x.ndim)
        check_field(
            self,
            self.step >= 1,
            f"the step must be positive, not {self.step}",
            help="reverse with flip",
        )
        start, stop = int_value(self.start), int_value(self.stop)
        if x.shape is None:
            return TensorType(None, x.ndim, x.dtype)
        limit = int_value(x.dims[axis])
        ordered = (start is None or start >= 0) and (start is None or stop is None or start <= stop)
        inside = stop is None or limit is None or stop <= limit
        check_field(
            self,
            ordered and inside,
            f"[{self.start}, {self.stop}) is no part of [0, {x.dims[axis]})",
        )
        count = dim((as_expr(self.stop) - self.start + (self.step - 1)) // self.step)
        return tensor_type(replaced(x.dims, axis, count), x.dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """NumPy's slice."""
        (x,) = arrays
        index = [slice(None)] * x.ndim
        index[self.axis] = slice(int_value(self.start), int_value(self.stop), self.step)
        return x[tuple(index)]

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy."""
        axis = normalize_axis(self, self.axis, types[0].ndim)
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])
        y = f.output(self.infer(*types).dims, x.dtype)
        f.compute(y, lambda *i: x[replaced(i, axis, i[axis] * self.step + self.start)])
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Zeros around, and between the elements if ``step`` > 1."""
        x, dy = args[0], douts[0]
        axis = normalize_axis(self, self.axis, x.ndim)
        covered = dim(dy.shape[axis] * self.step)
        if self.step > 1:
            column = reshaped(dy, (*dy.shape[: axis + 1], ONE, *dy.shape[axis + 1 :]))
            spaced = Pad(one_axis(column.ndim, axis + 1, (0, self.step - 1)))(column)
            dy = reshaped(spaced, replaced(x.shape, axis, covered))
        # The zeros behind the last element may reach past the end: the pad is negative, and crops.
        after = dim(x.shape[axis] - covered - self.start)
        return (Pad(one_axis(x.ndim, axis, (self.start, after)))(dy),)

    @classmethod
    def samples(cls) -> Samples:
        """Inner and whole ranges, steps, empty results, symbolic bounds."""
        n = Var("n")
        yield cls(0, 1, 4), (example(f32, 5, 3),)
        yield cls(-1, 0, 7), (example(f32, "n", 7),)
        yield cls(1, 1, 7, 2), (example(f32, 2, 7),)
        yield cls(1, 0, 5, 3), (example(f64, 2, 7, 2),)
        yield cls(0, 2, 2), (example(f16, 5),)
        yield cls(0, 1, n), (example(f32, "n", 3),)
        yield cls(0, 0, n - 1), (example(i32, "n"),)
        yield cls(0, 4, 5, 7), (example(boolean, 5),)


@dataclass(frozen=True)
class Concat(Op):
    """The operands one after another along ``axis``.

    Shapes:  xs: equal but at ``axis`` -> the sum there.
    Errors:  E0101 without operands; E0102; E0104; E0106 if other dimensions differ; E0107 if ranks
             do.
    """

    axis: int

    def infer(self, *types: TensorType) -> TensorType:
        """The sum along the axis."""
        operands(self, types, 1, max(1, len(types)))
        dtype = check_same_dtype(self, types)
        first = types[0]
        axis = normalize_axis(self, self.axis, first.ndim)
        for t in types[1:]:
            check_rank(self, t, first.ndim, first.ndim, "every operand")
        if any(t.shape is None for t in types):
            return TensorType(None, first.ndim, dtype)
        for t in types[1:]:
            for k, (a, b) in enumerate(zip(first.dims, t.dims, strict=True)):
                if k != axis:
                    check_same_dim(self, a, b, f"dimensions {k}")
        total = dim(sum((t.dims[axis] for t in types[1:]), first.dims[axis]))
        return tensor_type(replaced(first.dims, axis, total), dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.concatenate."""
        return np.concatenate(arrays, axis=self.axis)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy per operand, each to its part."""
        result = self.infer(*types)
        axis = normalize_axis(self, self.axis, result.ndim)
        f = LoopBuilder(self.op_name())
        inputs = [f.input(t) for t in types]
        y = f.output(result.dims, result.dtype)
        offset: Expr = ZERO
        for x in inputs:

            def store(
                *i: Expr, x: Buffer = x, offset: Expr = offset
            ) -> tuple[tuple[Expr, ...], Expr]:
                return replaced(i, axis, i[axis] + offset), x[i]

            f.place(y, x.shape, store)
            offset = dim(offset + x.shape[axis])
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Each its part."""
        axis = normalize_axis(self, self.axis, outs[0].ndim)
        parts: list[Traced] = []
        offset: Expr = ZERO
        for x in args:
            end = dim(offset + x.shape[axis])
            parts.append(Slice(axis, offset, end)(douts[0]))
            offset = end
        return tuple(parts)

    @classmethod
    def samples(cls) -> Samples:
        """One to three operands, empty and symbolic ones."""
        yield cls(0), (example(f32, 2, 3), example(f32, 4, 3))
        yield cls(-1), (example(f32, "n", 3), example(f32, "n", 1), example(f32, "n", 5))
        yield cls(0), (example(f16, 7),)
        yield cls(1), (example(i64, 2, 0, 3), example(i64, 2, 5, 3))
        yield cls(0), (example(f32, "n"), example(f32, "m"), example(f32, 2))
        yield cls(1), (example(boolean, 3, 2), example(boolean, 3, 1))


@dataclass(frozen=True)
class Tile(Op):
    """The operand repeated ``repeats[k]`` times along dimension k.

    Shapes:  x: (d, …) -> (d · repeats[0], …).
    Errors:  E0107 unless there is one count per dimension; E0108 for a negative one.
    """

    repeats: tuple[ExprLike, ...]

    def infer(self, *types: TensorType) -> TensorType:
        """The multiplied shape."""
        x = one(self, types)
        if len(self.repeats) != x.ndim:
            raise fail(
                self,
                "E0107",
                f"{len(self.repeats)} counts for rank {x.ndim}",
                "give one count for each dimension",
            )
        check_field(
            self, all((int_value(r) or 0) >= 0 for r in self.repeats), "counts must not be negative"
        )
        if x.shape is None:
            return TensorType(None, x.ndim, x.dtype)
        return tensor_type([dim(d * r) for d, r in zip(x.dims, self.repeats, strict=True)], x.dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.tile."""
        return np.tile(arrays[0], [int_value(r) or 0 for r in self.repeats])

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy, indices modulo the operand's dimensions."""
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])

        def source(*indices: Expr) -> tuple[Expr, ...]:
            triples = zip(indices, x.shape, self.repeats, strict=True)
            return tuple(ZERO if is_one(d) else i if is_one(r) else i % d for i, d, r in triples)

        f.compute(f.output(self.infer(*types).dims, x.dtype), lambda *i: x[source(*i)])
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """The sum over the repeats."""
        x = args[0]
        split = [
            part for r, d in zip(self.repeats, x.shape, strict=True) for part in (as_expr(r), d)
        ]
        return (Sum(tuple(range(0, 2 * x.ndim, 2)))(reshaped(douts[0], tuple(split))),)

    @classmethod
    def samples(cls) -> Samples:
        """Counts of zero, one and more; symbolic dimensions."""
        yield cls((2, 3)), (example(f32, 3, 2),)
        yield cls((1, 4)), (example(f32, "n", 1),)
        yield cls((2,)), (example(f16, 5),)
        yield cls((3, 0)), (example(i64, 2, 2),)
        yield cls(()), (example(f32),)
        yield cls((3, 1)), (example(f32, "n", 2),)


@dataclass(frozen=True)
class Flip(Op):
    """Reverse the order along ``axes``.

    Shapes:  x: any -> same.
    Errors:  E0104.
    """

    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        """The operand's type."""
        x = one(self, types)
        normalize_axes(self, self.axes, x.ndim)
        return x

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.flip."""
        return np.flip(arrays[0], self.axes)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy."""
        axes = normalize_axes(self, self.axes, types[0].ndim)
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])

        def source(*indices: Expr) -> tuple[Expr, ...]:
            return tuple(x.shape[k] - 1 - i if k in axes else i for k, i in enumerate(indices))

        f.compute(f.output(x.shape, x.dtype), lambda *i: x[source(*i)])
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """The same again."""
        return (self(douts[0]),)

    @classmethod
    def samples(cls) -> Samples:
        """No, one and several axes; empty and symbolic ones."""
        yield cls((0,)), (example(f32, "n", 3),)
        yield cls((-1, 0)), (example(f32, 2, 3, 5),)
        yield cls(()), (example(f16, 3),)
        yield cls((1,)), (example(i64, 2, 0),)
        yield cls((0,)), (example(boolean, 1),)


@dataclass(frozen=True)
class Roll(Op):
    """Move elements by ``shifts[k]`` along ``axes[k]``; those that leave at one end enter at the
    other.

    Shapes:  x: any -> same.
    Errors:  E0104; E0108 unless there is one shift per axis.
    """

    shifts: tuple[int, ...]
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        """The operand's type."""
        x = one(self, types)
        check_field(
            self,
            len(self.shifts) == len(self.axes),
            f"{len(self.shifts)} shifts for {len(self.axes)} axes",
        )
        normalize_axes(self, self.axes, x.ndim)
        return x

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.roll."""
        return np.roll(arrays[0], self.shifts, self.axes)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy, indices modulo the dimensions."""
        by_axis = {
            a % max(1, types[0].ndim): s for a, s in zip(self.axes, self.shifts, strict=True)
        }
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])

        def source(*indices: Expr) -> tuple[Expr, ...]:
            return tuple(
                (i - by_axis[k]) % x.shape[k] if k in by_axis else i for k, i in enumerate(indices)
            )

        f.compute(f.output(x.shape, x.dtype), lambda *i: x[source(*i)])
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """The shifts the other way."""
        return (Roll(tuple(-s for s in self.shifts), self.axes)(douts[0]),)

    @classmethod
    def samples(cls) -> Samples:
        """Both directions, more than the size, several axes."""
        yield cls((1,), (0,)), (example(f32, "n", 3),)
        yield cls((-2, 9), (-1, 0)), (example(f32, 4, 5),)
        yield cls((3,), (0,)), (example(i32, 1),)
        yield cls((1,), (1,)), (example(f16, 2, 0),)
        yield cls((), ()), (example(f32, 2),)


@dataclass(frozen=True)
class Triangular(Op):
    """Keep the elements of each matrix on and above (``upper``) or below a diagonal; zero
    elsewhere.

    Shapes:  x: (…, rows, columns) -> same.
    Errors:  E0107 below rank 2.
    """

    upper: bool
    diagonal: ExprLike = 0

    def infer(self, *types: TensorType) -> TensorType:
        """The operand's type."""
        x = one(self, types)
        check_rank(self, x, 2)
        return x

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.triu or np.tril."""
        return (np.triu if self.upper else np.tril)(arrays[0], int_value(self.diagonal) or 0)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One selection."""
        f = LoopBuilder(self.op_name())
        x = f.input(self.infer(*types))

        def value(*indices: Expr) -> Expr:
            across = indices[-1] - indices[-2]
            kept = across >= self.diagonal if self.upper else across <= self.diagonal
            return select(kept, x[indices], Const(0, x.dtype))

        f.compute(f.output(x.shape, x.dtype), value)
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """The same of dy."""
        return (self(douts[0]),)

    @classmethod
    def samples(cls) -> Samples:
        """Both sides, diagonals of both signs, batches, symbolic and empty shapes."""
        yield cls(True), (example(f32, "n", 4),)
        yield cls(False, -1), (example(f32, 5, 3),)
        yield cls(True, 2), (example(f16, 2, 3, 5),)
        yield cls(False), (example(boolean, 3, 3),)
        yield cls(False), (example(i64, 0, 3),)


__all__ = ["Concat", "Expand", "Flip", "Permute", "Reshape", "Roll", "Slice", "Tile", "Triangular"]
