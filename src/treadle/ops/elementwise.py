"""Scalar functions of one operand, other than the trigonometric ones."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import DType, bf16, boolean, f16, f32, f64, i8, i16, i32, i64, u8
from treadle.expr.scalar import Const, Expr, apply, cast
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Example, Samples, example, fail
from treadle.ir.types import TensorType
from treadle.ops._pointwise import Meaning, Pointwise, number
from treadle.ops._shapes import Family, broadcast_types, is_in, one
from treadle.ops.binary import Add, Div, Mul, negated


class Unary(Pointwise):
    """A scalar function of one operand: ``scalar`` names it, ``meaning`` is NumPy's, ``domain``
    where samples are drawn.

    The gradient follows from ``derivative``, unless ``differentiable`` is false.
    """

    scalar: ClassVar[str]
    meaning: ClassVar[Meaning]
    domain: ClassVar[tuple[float, float]] = (-2.0, 2.0)

    def formula(self, *xs: Expr) -> Expr:
        """The scalar function applied."""
        return apply(self.scalar, *xs)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """NumPy's function, in its own precision."""
        (x,) = arrays
        dtype = np.dtype(bool) if self.result_dtype(f32) == boolean else x.dtype
        return np.asarray(type(self).meaning(x)).astype(dtype)

    def derivative(self, x: Traced, y: Traced) -> Traced | None:
        """dy/dx from the operand and the result; ``None`` where it is zero."""
        return None

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """The result's gradient times the slope."""
        slope = self.derivative(args[0], outs[0]) if args[0].dtype.is_float else None
        return (None if slope is None else Mul()(douts[0], slope),)

    @classmethod
    def samples(cls) -> Samples:
        """A rank, a size and a dtype of each kind, drawn from the domain."""
        shapes: tuple[tuple[DType, tuple[int | str, ...]], ...] = (
            (f32, ("n", 7)),
            (f64, (3, 1)),
            (f16, (5,)),
            (bf16, (11,)),
            (f32, (0, 3)),
            (f32, ()),
            (i32, (4,)),
            (i64, (1, 3)),
            (u8, (3,)),
            (boolean, (3, 2)),
        )
        for dtype, dims in shapes:
            if is_in(dtype, cls.accepts):
                yield cls(), (cls._example(dtype, dims),)

    @classmethod
    def _example(cls, dtype: DType, dims: tuple[int | str, ...]) -> Example:
        low, high = cls.domain
        if not dtype.is_float:
            low, high = (0.0 if dtype.kind == "uint" else 5 * low), 5 * high
        return example(dtype, *dims, low=low, high=high)


@dataclass(frozen=True)
class Neg(Unary):
    """-x. Integers wrap."""

    accepts: ClassVar[Family] = "number"
    scalar, meaning = "neg", np.negative

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """-1."""
        return number(x, -1)


@dataclass(frozen=True)
class Abs(Unary):
    """|x|. The least integer stays itself."""

    accepts: ClassVar[Family] = "number"
    scalar, meaning = "abs", np.abs

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """The sign."""
        return Sign()(x)


@dataclass(frozen=True)
class Sign(Unary):
    """-1, 0 or 1; NaN of NaN."""

    accepts: ClassVar[Family] = "number"
    scalar, meaning = "sign", np.sign


@dataclass(frozen=True)
class Exp(Unary):
    """e to the power of x."""

    scalar, meaning = "exp", np.exp

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """y."""
        return y


@dataclass(frozen=True)
class Exp2(Unary):
    """2 to the power of x."""

    scalar, meaning = "exp2", np.exp2

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """y ln 2."""
        return Mul()(y, number(x, math.log(2)))


@dataclass(frozen=True)
class Expm1(Unary):
    """e to the power of x, less one, precise near zero."""

    scalar, meaning = "expm1", np.expm1

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """y + 1."""
        return Add()(y, number(x, 1))


@dataclass(frozen=True)
class Log(Unary):
    """The natural logarithm; -inf of 0, NaN of less."""

    domain: ClassVar[tuple[float, float]] = (0.1, 5.0)
    scalar, meaning = "log", np.log

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 / x."""
        return Reciprocal()(x)


@dataclass(frozen=True)
class Log2(Unary):
    """The logarithm to base 2."""

    domain: ClassVar[tuple[float, float]] = (0.1, 5.0)
    scalar, meaning = "log2", np.log2

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 / (x ln 2)."""
        return Div()(number(x, 1 / math.log(2)), x)


@dataclass(frozen=True)
class Log10(Unary):
    """The logarithm to base 10."""

    domain: ClassVar[tuple[float, float]] = (0.1, 5.0)
    scalar, meaning = "log10", np.log10

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 / (x ln 10)."""
        return Div()(number(x, 1 / math.log(10)), x)


@dataclass(frozen=True)
class Log1p(Unary):
    """The natural logarithm of 1 + x, precise near zero."""

    domain: ClassVar[tuple[float, float]] = (-0.9, 4.0)
    scalar, meaning = "log1p", np.log1p

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 / (1 + x)."""
        return Reciprocal()(Add()(x, number(x, 1)))


@dataclass(frozen=True)
class Sqrt(Unary):
    """The square root; NaN below zero."""

    domain: ClassVar[tuple[float, float]] = (0.1, 9.0)
    scalar, meaning = "sqrt", np.sqrt

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 / (2 y)."""
        return Div()(number(x, 0.5), y)


@dataclass(frozen=True)
class Rsqrt(Unary):
    """1 over the square root."""

    domain: ClassVar[tuple[float, float]] = (0.2, 9.0)
    scalar, meaning = "rsqrt", lambda x: 1 / np.sqrt(x)

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """-y / (2 x)."""
        return Div()(Mul()(y, number(x, -0.5)), x)


@dataclass(frozen=True)
class Reciprocal(Unary):
    """1 / x."""

    domain: ClassVar[tuple[float, float]] = (0.2, 4.0)
    meaning = np.reciprocal

    def formula(self, *xs: Expr) -> Expr:
        """A division."""
        return Const(1, xs[0].dtype) / xs[0]

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """-y²."""
        return negated(Mul()(y, y))


@dataclass(frozen=True)
class Square(Unary):
    """x². Integers wrap."""

    accepts: ClassVar[Family] = "number"
    meaning = np.square

    def formula(self, *xs: Expr) -> Expr:
        """A product."""
        return xs[0] * xs[0]

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """2 x."""
        return Mul()(x, number(x, 2))


@dataclass(frozen=True)
class Erf(Unary):
    """The error function."""

    scalar, meaning = "erf", np.vectorize(math.erf, otypes=[np.float64])

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """2 / √π · exp(-x²)."""
        return Mul()(_bell(x), number(x, 2 / math.sqrt(math.pi)))


@dataclass(frozen=True)
class Erfc(Unary):
    """1 - erf(x), precise for large x."""

    scalar, meaning = "erfc", np.vectorize(math.erfc, otypes=[np.float64])

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """-2 / √π · exp(-x²)."""
        return Mul()(_bell(x), number(x, -2 / math.sqrt(math.pi)))


def _bell(x: Traced) -> Traced:
    return Exp()(negated(Mul()(x, x)))


_NORMAL = NormalDist()


@dataclass(frozen=True)
class Erfinv(Unary):
    """The inverse of the error function on (-1, 1); ±inf at ±1, NaN beyond."""

    domain: ClassVar[tuple[float, float]] = (-0.9, 0.9)
    scalar = "erfinv"
    meaning = np.vectorize(
        lambda y: _NORMAL.inv_cdf((float(y) + 1) / 2) / math.sqrt(2), otypes=[np.float64]
    )

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """√π / 2 · exp(y²)."""
        return Mul()(Exp()(Mul()(y, y)), number(x, math.sqrt(math.pi) / 2))


@dataclass(frozen=True)
class Lgamma(Unary):
    """The logarithm of |Γ(x)|; inf at 0, -1, -2…"""

    domain: ClassVar[tuple[float, float]] = (0.3, 6.0)
    differentiable: ClassVar[bool] = False
    scalar, meaning = "lgamma", np.vectorize(math.lgamma, otypes=[np.float64])


@dataclass(frozen=True)
class Floor(Unary):
    """The next whole number down."""

    domain: ClassVar[tuple[float, float]] = (-9.0, 9.0)
    scalar, meaning = "floor", np.floor


@dataclass(frozen=True)
class Ceil(Unary):
    """The next whole number up."""

    domain: ClassVar[tuple[float, float]] = (-9.0, 9.0)
    scalar, meaning = "ceil", np.ceil


@dataclass(frozen=True)
class Trunc(Unary):
    """The next whole number towards zero."""

    domain: ClassVar[tuple[float, float]] = (-9.0, 9.0)
    scalar, meaning = "trunc", np.trunc


@dataclass(frozen=True)
class Round(Unary):
    """The nearest whole number, the even one of two."""

    domain: ClassVar[tuple[float, float]] = (-9.0, 9.0)
    scalar, meaning = "round", np.rint


class Property(Unary):
    """A property of a float. Shapes: x: any -> bool."""

    differentiable: ClassVar[bool] = False

    def result_dtype(self, dtype: DType) -> DType:
        """Truths."""
        return boolean


@dataclass(frozen=True)
class IsNan(Property):
    """Whether x is no number."""

    scalar, meaning = "isnan", np.isnan


@dataclass(frozen=True)
class IsInf(Property):
    """Whether x is ±inf."""

    scalar, meaning = "isinf", np.isinf


@dataclass(frozen=True)
class IsFinite(Property):
    """Whether x is neither NaN nor ±inf."""

    meaning = np.isfinite

    def formula(self, *xs: Expr) -> Expr:
        """Neither of the two."""
        return ~(apply("isnan", *xs) | apply("isinf", *xs))


@dataclass(frozen=True)
class LogicalNot(Unary):
    """The opposite truth."""

    accepts: ClassVar[Family] = "bool"
    differentiable: ClassVar[bool] = False
    scalar, meaning = "invert", np.logical_not


@dataclass(frozen=True)
class BitwiseNot(Unary):
    """Every bit inverted; of booleans, the opposite."""

    accepts: ClassVar[Family] = "integral"
    differentiable: ClassVar[bool] = False
    scalar, meaning = "invert", np.invert


@dataclass(frozen=True)
class Cast(Pointwise):
    """Convert as C does: floats truncate towards zero, integers wrap, anything not zero is true.

    Shapes:  x: any -> same, of ``dtype``.
    """

    dtype: DType

    accepts: ClassVar[Family] = "any"

    def infer(self, *types: TensorType) -> TensorType:
        """The dtype of the field."""
        return broadcast_types(self, (one(self, types),), self.dtype)

    def formula(self, *xs: Expr) -> Expr:
        """A conversion."""
        return cast(xs[0], self.dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.astype; of a bool from 16-bit floats by comparison."""
        (x,) = arrays
        return x != 0 if self.dtype == boolean else x.astype(self.dtype.numpy)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """Back to the operand's dtype, between floats."""
        source = args[0].dtype
        return (Cast(source)(douts[0]) if source.is_float and self.dtype.is_float else None,)

    @classmethod
    def samples(cls) -> Samples:
        """Pairs of kinds and widths."""
        yield cls(f64), (example(f32, "n", 3),)
        yield cls(f16), (example(f32, 7),)
        yield cls(bf16), (example(f32, 5, 1),)
        yield cls(f32), (example(bf16, 5),)
        yield cls(i32), (example(f32, 2, 3, low=-9, high=9),)
        yield cls(i8), (example(i64, 6, low=-1000, high=1000),)
        yield cls(u8), (example(i32, 6, low=-300, high=300),)
        yield cls(f32), (example(i64, 0, 2),)
        yield cls(f32), (example(boolean, 4),)
        yield cls(boolean), (example(i32, 4, low=-1, high=2),)
        yield cls(boolean), (example(f16, 4),)
        yield cls(i64), (example(boolean),)


@dataclass(frozen=True)
class Bitcast(Pointwise):
    """The same bits as elements of another dtype of the same width; what is not zero is true.

    Shapes:  x: any -> same, of ``dtype``.
    """

    dtype: DType

    accepts: ClassVar[Family] = "any"
    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """The dtype of the field; E0103 for an operand of another width."""
        x = one(self, types)
        if x.dtype.bytes != self.dtype.bytes:
            raise fail(
                self,
                "E0103",
                f"an element of {x.dtype} has not the width of one of {self.dtype}",
                help="choose a dtype of the same width",
            )
        return broadcast_types(self, (x,), self.dtype)

    def formula(self, *xs: Expr) -> Expr:
        """The same bits; booleans are bytes of 0 and 1."""
        (x,) = xs
        if x.dtype == boolean or self.dtype == boolean:
            return cast(x, self.dtype)
        return x if x.dtype == self.dtype else apply("bitcast", x, dtype=self.dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Another view of the memory."""
        (x,) = arrays
        if self.dtype == boolean:
            return x.view(np.uint8) != 0
        return np.asarray(x).view(self.dtype.numpy)

    @classmethod
    def samples(cls) -> Samples:
        """Between floats and integers of each width, and booleans."""
        yield cls(i32), (example(f32, "n", 3),)
        yield cls(f32), (example(i32, 2, 5, low=-(2**30), high=2**30),)
        yield cls(f64), (example(i64, 3, low=-(2**60), high=2**60),)
        yield cls(i64), (example(f64, 0, 2),)
        yield cls(i16), (example(f16, 7),)
        yield cls(bf16), (example(i16, 5, low=0, high=16000),)
        yield cls(f16), (example(bf16, 4, low=0.1, high=1.0),)
        yield cls(u8), (example(i8, 9, low=-100, high=100),)
        yield cls(u8), (example(boolean, 4),)
        yield cls(boolean), (example(u8, 4, low=0, high=2),)
        yield cls(f32), (example(f32),)
