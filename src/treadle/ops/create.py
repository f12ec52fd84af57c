"""Tensors from nothing but their description."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.bounds import Facts
from treadle.expr.dtype import DType, boolean, f16, f32, f64, i32, i64
from treadle.expr.scalar import (
    Const,
    Expr,
    ExprLike,
    Var,
    as_expr,
    cast,
    ceildiv,
    const,
    int_value,
    maximum,
    variables,
)
from treadle.expr.simplify import simplify
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import check_dims, check_dtype, check_field, dim, operands, tensor_type


def known_shape(shape: tuple[ExprLike, ...]) -> tuple[int, ...]:
    """A shape of constants as NumPy takes it; a field with symbols must be specialized before."""
    return tuple(int(d.value) if isinstance(d, Const) else int(d) for d in shape)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Full(Op):
    """Every element is ``value``.

    Shapes:  -> shape.
    """

    shape: tuple[ExprLike, ...]
    value: float
    dtype: DType

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """What the fields say."""
        operands(self, types, 0)
        check_dims(self, self.shape)
        return tensor_type(self.shape, self.dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.full."""
        return np.full(known_shape(self.shape), self.value, self.dtype.numpy)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One store per element."""
        f = LoopBuilder(self.op_name())
        f.compute(f.output(self.shape, self.dtype), lambda *i: Const(self.value, self.dtype))
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Ranks, dtypes, an empty and a symbolic shape."""
        yield cls((2, 3), 1.5, f32), ()
        yield cls((), 7, i64), ()
        yield cls((0, 4), 1.0, f16), ()
        yield cls((Var("n"), 4), True, boolean), ()


Step = Expr | int | float


@dataclass(frozen=True)
class Arange(Op):
    """``start``, ``start + step``, … up to but not including ``stop``.

    Shapes:  -> (max(0, ceil((stop - start) / step)),).
    Errors:  E0103 for bool; E0108 if ``step`` is zero, or if symbols stand beside floats or a
             symbolic step.
    """

    start: Step
    stop: Step
    step: Step
    dtype: DType

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """The number of steps, in the dtype of the field."""
        operands(self, types, 0)
        check_dtype(self, self.dtype, "number", "a range")
        return tensor_type((self._count(),), self.dtype)

    def _count(self) -> Expr:
        numbers = [
            x.value if isinstance(x, Const) else x for x in (self.start, self.stop, self.step)
        ]
        if not any(isinstance(x, Expr) for x in numbers):
            start, stop, step = (x for x in numbers if not isinstance(x, Expr))
            check_field(self, step != 0, "the step must not be zero")
            finite = all(np.isfinite(x) for x in (start, stop, step))
            check_field(self, finite, "start, stop and step must be finite")
            return const(max(0, int(np.ceil((stop - start) / step))))
        step = int_value(self.step) if isinstance(self.step, Expr | int) else None
        whole = not any(isinstance(x, float) for x in numbers)
        if step is None or not whole:
            check_field(self, False, "a range with symbols needs whole numbers and a constant step")
            raise AssertionError
        check_field(self, step != 0, "the step must not be zero")
        start, stop = as_expr(self.start), as_expr(self.stop)
        span = stop - start if step > 0 else start - stop
        count = maximum(dim(ceildiv(dim(span), abs(step))), 0)
        return simplify(count, Facts.of(v >= 0 for v in variables(count)))

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.arange, computed in the dtype."""
        start, stop, step = (
            x.value if isinstance(x, Const) else x for x in (self.start, self.stop, self.step)
        )
        count = int(np.ceil((stop - start) / step))  # type: ignore[operator]
        wide = np.float64 if self.dtype.is_float else np.int64
        return (np.arange(count).astype(wide) * wide(step) + wide(start)).astype(self.dtype.numpy)  # type: ignore[arg-type]

    def lower(self, *types: TensorType) -> TensorFunction:
        """start + i * step, in f64 for floats (as exact as the reference) and i64 for integers."""
        f = LoopBuilder(self.op_name())
        inner = f64 if self.dtype.is_float else i64

        def number(x: Step) -> Expr:
            return cast(x, inner) if isinstance(x, Expr) else Const(x, inner)

        y = f.output(self.infer(*types).dims, self.dtype)
        f.compute(
            y, lambda i: cast(cast(i, inner) * number(self.step) + number(self.start), self.dtype)
        )
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Both directions, floats, an empty and a symbolic range."""
        yield cls(0, 7, 1, i64), ()
        yield cls(10, -3, -4, i32), ()
        yield cls(0.5, 2.0, 0.25, f32), ()
        yield cls(3, 3, 1, i64), ()
        yield cls(1, Var("n"), 2, i64), ()
