"""Trigonometric and hyperbolic functions of one operand, angles in radians."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.ir.graph_builder import Traced
from treadle.ops._pointwise import number
from treadle.ops.binary import Add, Mul, Sub, negated
from treadle.ops.elementwise import Reciprocal, Rsqrt, Unary


def _squared(x: Traced) -> Traced:
    return Mul()(x, x)


def _one_plus_square(x: Traced) -> Traced:
    return Add()(_squared(x), number(x, 1))


def _one_minus_square(x: Traced) -> Traced:
    return Sub()(number(x, 1), _squared(x))


@dataclass(frozen=True)
class Sin(Unary):
    """The sine."""

    scalar, meaning = "sin", np.sin

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """cos x."""
        return Cos()(x)


@dataclass(frozen=True)
class Cos(Unary):
    """The cosine."""

    scalar, meaning = "cos", np.cos

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """-sin x."""
        return negated(Sin()(x))


@dataclass(frozen=True)
class Tan(Unary):
    """The tangent."""

    domain: ClassVar[tuple[float, float]] = (-1.2, 1.2)
    scalar, meaning = "tan", np.tan

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 + y²."""
        return _one_plus_square(y)


@dataclass(frozen=True)
class Asin(Unary):
    """The angle in [-π/2, π/2] of a sine; NaN beyond ±1."""

    domain: ClassVar[tuple[float, float]] = (-0.9, 0.9)
    scalar, meaning = "asin", np.arcsin

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 / √(1 - x²)."""
        return Rsqrt()(_one_minus_square(x))


@dataclass(frozen=True)
class Acos(Unary):
    """The angle in [0, π] of a cosine; NaN beyond ±1."""

    domain: ClassVar[tuple[float, float]] = (-0.9, 0.9)
    scalar, meaning = "acos", np.arccos

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """-1 / √(1 - x²)."""
        return negated(Rsqrt()(_one_minus_square(x)))


@dataclass(frozen=True)
class Atan(Unary):
    """The angle in (-π/2, π/2) of a tangent."""

    scalar, meaning = "atan", np.arctan

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 / (1 + x²)."""
        return Reciprocal()(_one_plus_square(x))


@dataclass(frozen=True)
class Sinh(Unary):
    """The hyperbolic sine."""

    scalar, meaning = "sinh", np.sinh

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """cosh x."""
        return Cosh()(x)


@dataclass(frozen=True)
class Cosh(Unary):
    """The hyperbolic cosine."""

    scalar, meaning = "cosh", np.cosh

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """sinh x."""
        return Sinh()(x)


@dataclass(frozen=True)
class Tanh(Unary):
    """The hyperbolic tangent."""

    scalar, meaning = "tanh", np.tanh

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 - y²."""
        return _one_minus_square(y)


@dataclass(frozen=True)
class Asinh(Unary):
    """The inverse of the hyperbolic sine."""

    scalar, meaning = "asinh", np.arcsinh

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 / √(1 + x²)."""
        return Rsqrt()(_one_plus_square(x))


@dataclass(frozen=True)
class Acosh(Unary):
    """The inverse of the hyperbolic cosine; NaN below 1."""

    domain: ClassVar[tuple[float, float]] = (1.1, 5.0)
    scalar, meaning = "acosh", np.arccosh

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 / √(x² - 1)."""
        return Rsqrt()(Sub()(_squared(x), number(x, 1)))


@dataclass(frozen=True)
class Atanh(Unary):
    """The inverse of the hyperbolic tangent; NaN beyond ±1."""

    domain: ClassVar[tuple[float, float]] = (-0.9, 0.9)
    scalar, meaning = "atanh", np.arctanh

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 / (1 - x²)."""
        return Reciprocal()(_one_minus_square(x))
