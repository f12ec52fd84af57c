"""Comparisons, logic on truths and bits, and the choice by them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import DType, boolean, f16, f32, i64
from treadle.expr.scalar import Expr, select
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Samples, example
from treadle.ir.types import TensorType
from treadle.ops._pointwise import Binary, Pointwise, gradients, number
from treadle.ops._shapes import Family, broadcast_types, check_is, check_same_dtype, operands


class Comparison(Binary):
    """A relation of two operands of one dtype. Shapes: a, b: broadcast -> bool."""

    differentiable: ClassVar[bool] = False
    accepts: ClassVar[Family] = "any"
    left: ClassVar[tuple[float, float]] = (-2.0, 3.0)
    right: ClassVar[tuple[float, float]] = (-2.0, 3.0)

    def result_dtype(self, dtype: DType) -> DType:
        """Truths."""
        return boolean


@dataclass(frozen=True)
class Equal(Comparison):
    """a == b; never of a NaN."""

    scalar, meaning = "eq", np.equal


@dataclass(frozen=True)
class NotEqual(Comparison):
    """a != b; always of a NaN."""

    scalar, meaning = "ne", np.not_equal


@dataclass(frozen=True)
class Less(Comparison):
    """a < b."""

    scalar, meaning = "lt", np.less


@dataclass(frozen=True)
class LessEqual(Comparison):
    """a <= b."""

    scalar, meaning = "le", np.less_equal


@dataclass(frozen=True)
class Greater(Comparison):
    """a > b."""

    scalar, meaning = "gt", np.greater


@dataclass(frozen=True)
class GreaterEqual(Comparison):
    """a >= b."""

    scalar, meaning = "ge", np.greater_equal


class Bitwise(Binary):
    """An operation on the bits of integers, or on booleans. Shapes: a, b: broadcast."""

    differentiable: ClassVar[bool] = False
    accepts: ClassVar[Family] = "integral"
    left: ClassVar[tuple[float, float]] = (-100.0, 100.0)
    right: ClassVar[tuple[float, float]] = (-100.0, 100.0)


@dataclass(frozen=True)
class BitwiseAnd(Bitwise):
    """Bits set in both."""

    scalar, meaning = "and", np.bitwise_and


@dataclass(frozen=True)
class BitwiseOr(Bitwise):
    """Bits set in either."""

    scalar, meaning = "or", np.bitwise_or


@dataclass(frozen=True)
class BitwiseXor(Bitwise):
    """Bits set in one only."""

    scalar, meaning = "xor", np.bitwise_xor


@dataclass(frozen=True)
class ShiftLeft(Bitwise):
    """a's bits moved up by b, which must lie in [0, width)."""

    accepts: ClassVar[Family] = "int"
    right: ClassVar[tuple[float, float]] = (0.0, 7.0)
    scalar, meaning = "shl", np.left_shift


@dataclass(frozen=True)
class ShiftRight(Bitwise):
    """a's bits moved down by b, which must lie in [0, width); the sign is kept."""

    accepts: ClassVar[Family] = "int"
    right: ClassVar[tuple[float, float]] = (0.0, 7.0)
    scalar, meaning = "shr", np.right_shift


class Logical(Binary):
    """An operation on truths. Shapes: a, b: broadcast, bool."""

    differentiable: ClassVar[bool] = False
    accepts: ClassVar[Family] = "bool"

    @classmethod
    def samples(cls) -> Samples:
        """Equal, broadcast, empty and symbolic shapes."""
        yield cls(), (example(boolean, "n", 5), example(boolean, "n", 5))
        yield cls(), (example(boolean, 3, 1), example(boolean, 4))
        yield cls(), (example(boolean, 7), example(boolean))
        yield cls(), (example(boolean, 0), example(boolean, 1))


@dataclass(frozen=True)
class LogicalAnd(Logical):
    """Both hold."""

    scalar, meaning = "and", np.logical_and


@dataclass(frozen=True)
class LogicalOr(Logical):
    """One holds, or both."""

    scalar, meaning = "or", np.logical_or


@dataclass(frozen=True)
class LogicalXor(Logical):
    """Exactly one holds."""

    scalar, meaning = "xor", np.logical_xor


@dataclass(frozen=True)
class Where(Pointwise):
    """``a`` where ``condition`` holds, else ``b``.

    Shapes:  condition: bool, a, b: of one dtype -> broadcast.
    Errors:  E0102 if a and b differ in dtype; E0103 if the condition is not bool; E0105.
    """

    arity: ClassVar[int] = 3

    def infer(self, *types: TensorType) -> TensorType:
        """The dtype of the alternatives."""
        operands(self, types, 3)
        check_is(self, types[0].dtype, boolean, "the condition")
        return broadcast_types(self, types, check_same_dtype(self, types[1:]))

    def formula(self, *xs: Expr) -> Expr:
        """A selection."""
        return select(*xs)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.where."""
        return np.where(*arrays)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """To each alternative where it was chosen."""
        (dy,) = douts
        zero = number(dy, 0)
        return gradients(args, None, Where()(args[0], dy, zero), Where()(args[0], zero, dy))

    @classmethod
    def samples(cls) -> Samples:
        """Equal and broadcast shapes, scalars, other dtypes."""
        yield cls(), (example(boolean, "n", 5), example(f32, "n", 5), example(f32, "n", 5))
        yield cls(), (example(boolean, 3, 1), example(f32, 1, 4), example(f32))
        yield cls(), (example(boolean), example(f16, 7), example(f16, 7))
        yield cls(), (example(boolean, 2, 0), example(i64, 1), example(i64, 2, 1))
        yield cls(), (example(boolean, 5), example(boolean, 5), example(boolean, 1))
