"""What elementwise operations share: one formula per element, over operands that broadcast."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from treadle.expr.dtype import DType, bf16, boolean, f16, f32, f64, i32, i64, u8
from treadle.expr.scalar import Expr, apply, cast
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Example, Op, Samples, example
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import (
    Family,
    broadcast_types,
    check_dtype,
    check_same_dtype,
    element,
    is_in,
    operands,
    wide,
)
from treadle.ops.broadcast import unbroadcast


class Pointwise(Op):
    """An operation whose every element is a formula of the operands' elements there."""

    arity: ClassVar[int] = 1
    accepts: ClassVar[Family] = "float"
    widens: ClassVar[bool] = False

    def result_dtype(self, dtype: DType) -> DType:
        """The result's dtype from the operands'; their own unless an operation says otherwise."""
        return dtype

    @abstractmethod
    def formula(self, *xs: Expr) -> Expr:
        """One element from the operands' elements."""

    def infer(self, *types: TensorType) -> TensorType:
        """The broadcast shape; E0101, E0102 for unequal dtypes, E0103 for one not accepted, E0105
        for shapes that do not fit."""
        operands(self, types, self.arity)
        dtype = check_dtype(self, check_same_dtype(self, types), self.accepts)
        return broadcast_types(self, types, self.result_dtype(dtype))

    def lower(self, *types: TensorType) -> TensorFunction:
        """One block; where ``widens``, 16-bit floats are computed in f32."""
        result = self.infer(*types)
        f = LoopBuilder(self.op_name())
        inputs = [f.input(t) for t in types]

        def value(*indices: Expr) -> Expr:
            xs = [element(x, indices) for x in inputs]
            return cast(
                self.formula(*(cast(x, wide(x.dtype)) if self.widens else x for x in xs)),
                result.dtype,
            )

        f.compute(f.output(result.dims, result.dtype), value)
        return f.build()


Meaning = Callable[..., Any]


class Binary(Pointwise):
    """A scalar function of two operands that broadcast: ``scalar`` names it, ``meaning`` is
    NumPy's.

    ``left`` and ``right`` are where samples are drawn. The gradient follows from ``slopes``.
    """

    arity: ClassVar[int] = 2
    accepts: ClassVar[Family] = "number"
    scalar: ClassVar[str]
    meaning: ClassVar[Meaning]
    left: ClassVar[tuple[float, float]] = (-4.0, 4.0)
    right: ClassVar[tuple[float, float]] = (-4.0, 4.0)

    def formula(self, *xs: Expr) -> Expr:
        """The scalar function applied."""
        return apply(self.scalar, *xs)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """NumPy's function, in its own precision."""
        a, b = arrays
        dtype = np.dtype(bool) if self.result_dtype(f32) == boolean else a.dtype
        return np.asarray(type(self).meaning(a, b)).astype(dtype)

    @classmethod
    def samples(cls) -> Samples:
        """Equal and broadcast shapes, a scalar operand, empty and symbolic ones, and each kind of
        dtype."""
        shapes: tuple[tuple[DType, tuple[int | str, ...], tuple[int | str, ...]], ...] = (
            (f32, ("n", 7), ("n", 7)),
            (f32, (2, 1, 3), (5, 1)),
            (f32, ("n", 4), ()),
            (f64, (1,), (3, 5)),
            (f16, (7,), (7,)),
            (bf16, (5,), (1,)),
            (f32, (0, 3), (1, 3)),
            (i32, (4,), (4,)),
            (i64, (3, 1), (2,)),
            (u8, (5,), (5,)),
            (boolean, (8,), (8,)),
        )
        for dtype, a, b in shapes:
            if is_in(dtype, cls.accepts):
                yield cls(), (cls._example(dtype, a, cls.left), cls._example(dtype, b, cls.right))

    @classmethod
    def _example(
        cls, dtype: DType, dims: tuple[int | str, ...], interval: tuple[float, float]
    ) -> Example:
        low, high = interval
        if dtype.kind == "uint":
            low, high = max(low, 1.0), max(high, 4.0)
        return example(dtype, *dims, low=low, high=high)


def gradients(args: tuple[Traced, ...], *grads: Traced | None) -> tuple[Traced | None, ...]:
    """Gradients summed back to the operands' shapes; none for operands that hold no floats."""
    return tuple(
        None if g is None or not x.dtype.is_float else unbroadcast(g, x.shape)
        for x, g in zip(args, grads, strict=True)
    )


def number(x: Traced, value: float) -> Traced:
    """A number of the dtype of ``x``, as an operand."""
    return x.builder.literal(value, x.dtype)
