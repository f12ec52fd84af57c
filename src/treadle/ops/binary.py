"""Arithmetic of two operands that broadcast."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.ir.graph_builder import Traced
from treadle.ops._pointwise import Binary, gradients, number
from treadle.ops._shapes import Family
from treadle.ops.compare import (
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    LogicalAnd,
    LogicalOr,
    LogicalXor,
    NotEqual,
    ShiftLeft,
    ShiftRight,
    Where,
)

Values = tuple[Traced, ...]
Gradients = tuple[Traced | None, ...]


def negated(x: Traced) -> Traced:
    """-x, as a product."""
    return Mul()(x, number(x, -1))


@dataclass(frozen=True)
class Add(Binary):
    """a + b. Integers wrap."""

    scalar, meaning = "add", np.add

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy to both."""
        return gradients(args, douts[0], douts[0])


@dataclass(frozen=True)
class Sub(Binary):
    """a - b. Integers wrap."""

    scalar, meaning = "sub", np.subtract

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy and -dy."""
        return gradients(args, douts[0], negated(douts[0]))


@dataclass(frozen=True)
class Mul(Binary):
    """a * b. Integers wrap."""

    scalar, meaning = "mul", np.multiply

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy times the other operand."""
        a, b = args
        return gradients(args, Mul()(douts[0], b), Mul()(douts[0], a))


@dataclass(frozen=True)
class Div(Binary):
    """a / b of floats."""

    accepts: ClassVar[Family] = "float"
    right: ClassVar[tuple[float, float]] = (0.5, 4.0)
    scalar, meaning = "div", np.divide

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy / b and -(dy / b) * y."""
        over = Div()(douts[0], args[1])
        return gradients(args, over, negated(Mul()(over, outs[0])))


class Whole(Binary):
    """A division with a whole quotient, or its remainder; of integers, b must not be zero."""

    left: ClassVar[tuple[float, float]] = (-20.0, 20.0)
    right: ClassVar[tuple[float, float]] = (1.0, 6.0)


@dataclass(frozen=True)
class FloorDiv(Whole):
    """a / b rounded down."""

    scalar, meaning = "floordiv", np.floor_divide

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Zero: the result is constant in pieces."""
        return None, None


def _truncated_quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a - np.fmod(a, b)) / b if a.dtype.kind in "fV" else np.trunc(a.astype(np.float64) / b)


@dataclass(frozen=True)
class TruncDiv(Whole):
    """a / b rounded towards zero."""

    scalar, meaning = "truncdiv", _truncated_quotient

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Zero: the result is constant in pieces."""
        return None, None


@dataclass(frozen=True)
class Mod(Whole):
    """What the quotient rounded down leaves: of b's sign."""

    scalar, meaning = "mod", np.remainder

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy and -dy * floor(a / b)."""
        return gradients(args, douts[0], negated(Mul()(douts[0], FloorDiv()(*args))))


@dataclass(frozen=True)
class Fmod(Whole):
    """What the quotient rounded towards zero leaves: of a's sign."""

    scalar, meaning = "truncmod", np.fmod

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy and -dy * trunc(a / b)."""
        return gradients(args, douts[0], negated(Mul()(douts[0], TruncDiv()(*args))))


def shared(args: Values, chosen: Traced, dy: Traced) -> Gradients:
    """dy to the operand that was ``chosen``, a half to each of two equal ones."""
    a, b = args
    half = Where()(Equal()(a, b), Mul()(dy, number(dy, 0.5)), dy)
    zero = number(dy, 0)
    first = Where()(Equal()(a, chosen), half, zero)
    return gradients(args, first, Where()(Equal()(b, chosen), half, zero))


@dataclass(frozen=True)
class Maximum(Binary):
    """The larger; NaN if either is."""

    scalar, meaning = "max", np.maximum

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy to the larger, a half to each of two equal ones."""
        return shared(args, outs[0], douts[0])


@dataclass(frozen=True)
class Minimum(Binary):
    """The smaller; NaN if either is."""

    scalar, meaning = "min", np.minimum

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy to the smaller, a half to each of two equal ones."""
        return shared(args, outs[0], douts[0])


@dataclass(frozen=True)
class Atan2(Binary):
    """The angle of the point (b, a), in (-π, π]."""

    accepts: ClassVar[Family] = "float"
    right: ClassVar[tuple[float, float]] = (0.5, 4.0)
    scalar, meaning = "atan2", np.arctan2

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy * b / (a² + b²) and -dy * a / (a² + b²)."""
        a, b = args
        over = Div()(douts[0], Add()(Mul()(a, a), Mul()(b, b)))
        return gradients(args, Mul()(over, b), negated(Mul()(over, a)))


@dataclass(frozen=True)
class Copysign(Binary):
    """a's magnitude with b's sign."""

    accepts: ClassVar[Family] = "float"
    scalar, meaning = "copysign", np.copysign

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """dy where the signs agree, else -dy."""
        agree = Equal()(outs[0], args[0])
        return gradients(args, Where()(agree, douts[0], negated(douts[0])), None)


@dataclass(frozen=True)
class Nextafter(Binary):
    """The float next to a, towards b."""

    accepts: ClassVar[Family] = "float"
    differentiable: ClassVar[bool] = False
    scalar, meaning = "nextafter", np.nextafter


__all__ = [
    "Add",
    "Atan2",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Copysign",
    "Div",
    "Equal",
    "FloorDiv",
    "Fmod",
    "Greater",
    "GreaterEqual",
    "Less",
    "LessEqual",
    "LogicalAnd",
    "LogicalOr",
    "LogicalXor",
    "Maximum",
    "Minimum",
    "Mod",
    "Mul",
    "Nextafter",
    "NotEqual",
    "ShiftLeft",
    "ShiftRight",
    "Sub",
    "TruncDiv",
    "Where",
    "negated",
]
