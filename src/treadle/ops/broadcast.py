"""Broadcasting and what undoes it in gradients, the sum."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treadle.expr.dtype import bf16, boolean, f16, f32, f64, i32, i64
from treadle.expr.scalar import Expr, ExprLike, Var
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example, fail
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._reduction import in_wide, infer_reduction, lower_reduction
from treadle.ops._shapes import (
    check_dims,
    check_dtype,
    element,
    is_one,
    normalize_axes,
    one,
    reduced_dims,
    same_dim,
    same_dims,
    tensor_type,
    text,
)
from treadle.ops.create import known_shape
from treadle.ops.reshape import reshaped


@dataclass(frozen=True)
class Expand(Op):
    """Repeat dimensions of one, and add leading ones, as NumPy's broadcast_to does.

    Shapes:  x: any -> shape.
    Errors:  E0105 if the operand does not broadcast to the shape.
    """

    shape: tuple[ExprLike, ...]

    def infer(self, *types: TensorType) -> TensorType:
        """The shape of the field."""
        x = one(self, types)
        check_dims(self, self.shape)
        result = tensor_type(self.shape, x.dtype)
        if x.shape is not None and not _expands(x.dims, result.dims):
            raise fail(
                self,
                "E0105",
                f"{text(x.dims)} does not expand to {text(result.dims)}",
                "only dimensions of 1 are stretched; reshape the operand first",
            )
        return result

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.broadcast_to."""
        return np.broadcast_to(arrays[0], known_shape(self.shape))

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy."""
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])
        f.compute(f.output(self.infer(*types).dims, x.dtype), lambda *i: element(x, i))
        return f.build()

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """Sum over what was repeated."""
        return (unbroadcast(douts[0], args[0].shape),)

    @classmethod
    def samples(cls) -> Samples:
        """Stretched and added dimensions, of rank zero, empty, symbolic."""
        yield cls((3, 4)), (example(f32, 1, 4),)
        yield cls((2, 5)), (example(f16),)
        yield cls((2, 3, 1, 7)), (example(f32, 3, 1, 1),)
        yield cls((0, 3)), (example(i64, 1, 3),)
        yield cls((5,)), (example(boolean, 1),)
        yield cls((Var("n"), 3)), (example(f32, 3),)
        yield cls((2, Var("n"))), (example(f32, 1, "n"),)


def _expands(before: Sequence[Expr], after: Sequence[Expr]) -> bool:
    aligned = after[len(after) - len(before) :]
    return len(before) <= len(after) and all(
        is_one(a) or same_dim(a, b) for a, b in zip(before, aligned, strict=True)
    )


@dataclass(frozen=True)
class Sum(Op):
    """Add up over ``axes``; 16-bit floats are added in f32.

    Shapes:  x: any -> less ``axes``, or with ones there if ``keepdims``.
    Errors:  E0103 for bool; E0104 for an axis out of range or named twice.
    """

    axes: tuple[int, ...]
    keepdims: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        """The operand's dtype."""
        dtype = check_dtype(self, one(self, types).dtype, "number")
        return infer_reduction(self, types, self.axes, self.keepdims, dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.sum, of floats in double precision."""
        (x,) = arrays
        return np.asarray(np.sum(in_wide(x), axis=self.axes, keepdims=self.keepdims)).astype(
            x.dtype
        )

    def lower(self, *types: TensorType) -> TensorFunction:
        """One reduction."""
        return lower_reduction(self, types, self.axes, self.keepdims, "add")

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """Repeat over what was summed."""
        return (spread(self, douts[0], args[0], self.axes),)

    @classmethod
    def samples(cls) -> Samples:
        """Axes of both signs, none, all; dtypes; empty and symbolic ones."""
        yield cls((-1,)), (example(f32, "n", 7),)
        yield cls((0,), True), (example(f32, "n", 3),)
        yield cls((0, 2)), (example(f64, 2, 3, 5),)
        yield cls((-3, 1), True), (example(f16, 3, 5, 2),)
        yield cls(()), (example(f32, 4),)
        yield cls((0, 1)), (example(i32, 3, 4, low=-9, high=9),)
        yield cls((1,)), (example(f32, 3, 0),)
        yield cls((0,)), (example(bf16, 11),)


def spread(op: Op, y: Traced, like: Traced, axes: Sequence[int]) -> Traced:
    """A result of a reduction over ``axes``, repeated to the shape of its operand ``like``."""
    found = normalize_axes(op, axes, like.ndim)
    return expanded(reshaped(y, reduced_dims(like.shape, found, keepdims=True)), like.shape)


def expanded(x: Traced, shape: Sequence[Expr]) -> Traced:
    """``x`` broadcast to a shape; itself when it has that one."""
    return x if same_dims(x.shape, shape) else Expand(tuple(shape))(x)


def unbroadcast(x: Traced, shape: Sequence[Expr]) -> Traced:
    """``x`` summed to ``shape``, which broadcasts to its own: the gradient of a broadcast
    operand."""
    added = x.ndim - len(shape)
    stretched = [
        k + added for k, d in enumerate(shape) if is_one(d) and not is_one(x.shape[k + added])
    ]
    axes = (*range(added), *stretched)
    return reshaped(Sum(axes)(x), shape) if axes else x
