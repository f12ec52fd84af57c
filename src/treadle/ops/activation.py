"""Activation functions. Sixteen-bit floats are computed in f32."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from treadle.expr.dtype import bf16, f16, f32, f64, i32
from treadle.expr.scalar import Const, Expr, apply, maximum, minimum, select
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Samples, example
from treadle.ir.types import TensorType
from treadle.ops._pointwise import Pointwise, gradients, number
from treadle.ops._reduction import in_wide
from treadle.ops._shapes import Family, check_field
from treadle.ops.binary import Add, Mul, Sub
from treadle.ops.compare import Equal, Greater, Less, LogicalAnd, Where
from treadle.ops.elementwise import Abs, Erf, Exp, Square
from treadle.ops.trigonometric import Tanh

Array = np.ndarray


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0)


class Activation(Pointwise):
    """An elementwise function of floats, written as ``formula`` on elements and ``meaning`` on
    double-precision arrays."""

    widens: ClassVar[bool] = True

    @abstractmethod
    def meaning(self, x: Array) -> Array:
        """The function in double precision."""

    @abstractmethod
    def derivative(self, x: Traced, y: Traced) -> Traced:
        """dy/dx."""

    def reference(self, *arrays: Array) -> Array:
        """The meaning, rounded."""
        (x,) = arrays
        return np.asarray(self.meaning(in_wide(x))).astype(x.dtype)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """The result's gradient times the slope."""
        return (Mul()(douts[0], self.derivative(args[0], outs[0])),)

    @classmethod
    def samples(cls) -> Samples:
        """The usual ranks and float dtypes, beyond the bends of all functions."""
        yield cls(), (example(f32, "n", 7, low=-6, high=6),)
        yield cls(), (example(f64, 3, 1, low=-30, high=30),)
        yield cls(), (example(f16, 5),)
        yield cls(), (example(bf16, 5),)
        yield cls(), (example(f32, 2, 0),)
        yield cls(), (example(f32),)


def _times(x: Traced, factor: float) -> Traced:
    return Mul()(x, number(x, factor))


def _plus(x: Traced, term: float) -> Traced:
    return Add()(x, number(x, term))


def _from(term: float, x: Traced) -> Traced:
    return Sub()(number(x, term), x)


def _above(x: Traced, bound: float) -> Traced:
    return Greater()(x, number(x, bound))


def _if(condition: Traced, inside: Traced, outside: Traced) -> Traced:
    return Where()(condition, inside, outside)


def _sigmoid_of(x: Expr) -> Expr:
    return apply("sigmoid", x)


@dataclass(frozen=True)
class Relu(Activation):
    """max(x, 0); of integers too."""

    accepts: ClassVar[Family] = "number"

    def formula(self, *xs: Expr) -> Expr:
        """A maximum."""
        return maximum(xs[0], 0)

    def meaning(self, x: Array) -> Array:
        """A maximum."""
        return np.maximum(x, 0)

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 above zero, else 0."""
        return _if(_above(x, 0), number(x, 1), number(x, 0))

    @classmethod
    def samples(cls) -> Samples:
        """Integers besides."""
        yield from super().samples()
        yield cls(), (example(i32, 5, low=-9, high=9),)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    def formula(self, *xs: Expr) -> Expr:
        """The scalar function of that name."""
        return _sigmoid_of(xs[0])

    def meaning(self, x: Array) -> Array:
        """By way of tanh."""
        return _sigmoid(x)

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """y (1 - y)."""
        return Mul()(y, _from(1, y))


@dataclass(frozen=True)
class Silu(Activation):
    """x sigmoid(x)."""

    def formula(self, *xs: Expr) -> Expr:
        """A product."""
        return xs[0] * _sigmoid_of(xs[0])

    def meaning(self, x: Array) -> Array:
        """A product."""
        return x * _sigmoid(x)

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """s + y (1 - s)."""
        s = Sigmoid()(x)
        return Add()(s, Mul()(y, _from(1, s)))


@dataclass(frozen=True)
class Softsign(Activation):
    """x / (1 + |x|)."""

    def formula(self, *xs: Expr) -> Expr:
        """A quotient."""
        return xs[0] / (apply("abs", xs[0]) + 1.0)

    def meaning(self, x: Array) -> Array:
        """A quotient."""
        return x / (1 + np.abs(x))

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """(1 - |y|)²."""
        return Square()(_from(1, Abs()(y)))


@dataclass(frozen=True)
class Mish(Activation):
    """x tanh(softplus(x))."""

    def formula(self, *xs: Expr) -> Expr:
        """With e = exp(min(x, 20)): x (e² + 2e) / (e² + 2e + 2), which rounds to x beyond."""
        x = xs[0]
        e = apply("exp", minimum(x, 20.0))
        square = e * (e + 2.0)
        return x * (square / (square + 2.0))

    def meaning(self, x: Array) -> Array:
        """As defined."""
        return x * np.tanh(_softplus(x))

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """t + x (1 - t²) sigmoid(x), t = tanh(softplus(x))."""
        t = Tanh()(Softplus()(x))
        return Add()(t, Mul()(Mul()(x, Sigmoid()(x)), _from(1, Square()(t))))


@dataclass(frozen=True)
class HardSwish(Activation):
    """x max(0, min(1, x / 6 + 1/2))."""

    def formula(self, *xs: Expr) -> Expr:
        """A clipped line times x."""
        return xs[0] * maximum(minimum(xs[0] * (1 / 6) + 0.5, 1.0), 0.0)

    def meaning(self, x: Array) -> Array:
        """A clipped line times x."""
        return x * np.clip(x / 6 + 0.5, 0, 1)

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """0 up to -3, 1 from 3, x / 3 + 1/2 between."""
        inner = _if(_above(x, 3), number(x, 1), _plus(_times(x, 1 / 3), 0.5))
        return _if(_above(x, -3), inner, number(x, 0))


_CUBE = 0.044715
_ROOT = math.sqrt(2 / math.pi)


@dataclass(frozen=True)
class Gelu(Activation):
    """x Φ(x), Φ the normal distribution; or its approximation by tanh (Hendrycks and Gimpel 2016).

    Errors:  E0108 if ``approximate`` is neither "none" nor "tanh".
    """

    approximate: Literal["none", "tanh"] = "none"

    def infer(self, *types: TensorType) -> TensorType:
        """The operand's type."""
        check_field(
            self,
            self.approximate in ("none", "tanh"),
            f"approximate must be 'none' or 'tanh', not {self.approximate!r}",
        )
        return super().infer(*types)

    def formula(self, *xs: Expr) -> Expr:
        """The scalar function, or with tanh, both in forms that keep their digits far below zero:
        (1 + tanh(u)) / 2 is sigmoid(2 u).
        """
        x = xs[0]
        if self.approximate == "none":
            return apply("gelu_erf", x)
        return x * apply("sigmoid", (x * x * x * _CUBE + x) * (2 * _ROOT))

    def meaning(self, x: Array) -> Array:
        """As defined."""
        if self.approximate == "none":
            return x * 0.5 * np.vectorize(math.erfc, otypes=[np.float64])(-x / math.sqrt(2))
        return x * _sigmoid(2 * _ROOT * (x + _CUBE * x**3))

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """Φ(x) + x φ(x), or the derivative of the approximation."""
        if self.approximate == "none":
            phi = _times(Exp()(_times(Square()(x), -0.5)), 1 / math.sqrt(2 * math.pi))
            area = _times(_plus(Erf()(_times(x, math.sqrt(0.5))), 1), 0.5)
            return Add()(area, Mul()(x, phi))
        square = Square()(x)
        t = Tanh()(Mul()(_times(x, _ROOT), _plus(_times(square, _CUBE), 1)))
        inner = _times(_plus(_times(square, 3 * _CUBE), 1), _ROOT)
        return Add()(
            _times(_plus(t, 1), 0.5), Mul()(Mul()(_times(x, 0.5), _from(1, Square()(t))), inner)
        )

    @classmethod
    def samples(cls) -> Samples:
        """Both forms."""
        yield from super().samples()
        yield cls("tanh"), (example(f32, "n", 5, low=-6, high=6),)
        yield cls("tanh"), (example(f16, 7),)


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """x above zero, ``slope`` x elsewhere."""

    slope: float = 0.01

    def formula(self, *xs: Expr) -> Expr:
        """A selection."""
        return select(xs[0] > 0.0, xs[0], xs[0] * self.slope)

    def meaning(self, x: Array) -> Array:
        """A selection."""
        return np.where(x > 0, x, self.slope * x)

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 or the slope below."""
        return _if(_above(x, 0), number(x, 1), number(x, self.slope))

    @classmethod
    def samples(cls) -> Samples:
        """Another slope besides."""
        yield from super().samples()
        yield cls(-0.5), (example(f32, 5),)


class ExponentialUnit(Activation):
    """x / scale above zero, a decaying exponential below."""

    @abstractmethod
    def parameters(self) -> tuple[float, float, float]:
        """a, b, c of: c x above zero, c a (exp(b x) - 1) elsewhere."""

    def formula(self, *xs: Expr) -> Expr:
        """A selection."""
        a, b, c = self.parameters()
        return select(xs[0] > 0.0, xs[0] * c, apply("expm1", xs[0] * b) * (a * c))

    def meaning(self, x: Array) -> Array:
        """A selection."""
        a, b, c = self.parameters()
        return np.where(x > 0, c * x, c * a * np.expm1(b * np.minimum(x, 0)))

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """c, or a b c exp(b x)."""
        a, b, c = self.parameters()
        return _if(_above(x, 0), number(x, c), _times(Exp()(_times(x, b)), a * b * c))


@dataclass(frozen=True)
class Elu(ExponentialUnit):
    """x above zero, alpha (exp(x) - 1) elsewhere."""

    alpha: float = 1.0

    def parameters(self) -> tuple[float, float, float]:
        """alpha, 1, 1."""
        return self.alpha, 1.0, 1.0


@dataclass(frozen=True)
class Selu(ExponentialUnit):
    """gamma times: x above zero, alpha (exp(x) - 1) elsewhere (Klambauer et al. 2017)."""

    alpha: float = 1.6732632423543772
    gamma: float = 1.0507009873554805

    def parameters(self) -> tuple[float, float, float]:
        """alpha, 1, gamma."""
        return self.alpha, 1.0, self.gamma


@dataclass(frozen=True)
class Celu(ExponentialUnit):
    """x above zero, alpha (exp(x / alpha) - 1) elsewhere.

    Errors:  E0108 if ``alpha`` is zero.
    """

    alpha: float = 1.0

    def infer(self, *types: TensorType) -> TensorType:
        """The operand's type."""
        check_field(self, self.alpha != 0, "alpha must not be zero")
        return super().infer(*types)

    def parameters(self) -> tuple[float, float, float]:
        """alpha, 1 / alpha, 1."""
        return self.alpha, 1.0 / self.alpha, 1.0

    @classmethod
    def samples(cls) -> Samples:
        """Another alpha besides."""
        yield from super().samples()
        yield cls(2.5), (example(f32, 5),)


@dataclass(frozen=True)
class Softplus(Activation):
    """log(1 + exp(beta x)) / beta; x itself where beta x exceeds ``threshold``."""

    beta: float = 1.0
    threshold: float = 20.0

    def formula(self, *xs: Expr) -> Expr:
        """A selection; the logarithm is taken of exp(-|beta x|), which cannot overflow."""
        x = xs[0]
        scaled = x * self.beta
        soft = (maximum(scaled, 0.0) + apply("log1p", apply("exp", -apply("abs", scaled)))) * (
            1 / self.beta
        )
        return select(scaled > self.threshold, x, soft)

    def meaning(self, x: Array) -> Array:
        """As defined."""
        return np.where(self.beta * x > self.threshold, x, _softplus(self.beta * x) / self.beta)

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """sigmoid(beta x), 1 beyond the threshold."""
        scaled = _times(x, self.beta)
        return _if(_above(scaled, self.threshold), number(x, 1), Sigmoid()(scaled))

    @classmethod
    def samples(cls) -> Samples:
        """Another beta and a low threshold besides."""
        yield from super().samples()
        yield cls(0.5, 3.0), (example(f32, 9, low=-20, high=20),)


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """max(0, min(1, alpha x + beta))."""

    alpha: float = 0.2
    beta: float = 0.5

    def formula(self, *xs: Expr) -> Expr:
        """A clipped line."""
        return maximum(minimum(xs[0] * self.alpha + self.beta, 1.0), 0.0)

    def meaning(self, x: Array) -> Array:
        """A clipped line."""
        return np.clip(self.alpha * x + self.beta, 0, 1)

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """alpha inside, 0 outside."""
        inside = LogicalAnd()(_above(y, 0), Less()(y, number(y, 1)))
        return _if(inside, number(x, self.alpha), number(x, 0))


@dataclass(frozen=True)
class ThresholdedRelu(Activation):
    """x above ``alpha``, else 0."""

    alpha: float = 1.0

    def formula(self, *xs: Expr) -> Expr:
        """A selection."""
        return select(xs[0] > self.alpha, xs[0], 0.0)

    def meaning(self, x: Array) -> Array:
        """A selection."""
        return np.where(x > self.alpha, x, 0)

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 above alpha, else 0."""
        return _if(_above(x, self.alpha), number(x, 1), number(x, 0))


@dataclass(frozen=True)
class Clip(Activation):
    """x limited to [low, high]; ``None`` is no limit.

    Errors:  E0103 for bool.
    """

    low: float | None = None
    high: float | None = None

    accepts: ClassVar[Family] = "number"

    def formula(self, *xs: Expr) -> Expr:
        """A maximum, then a minimum."""
        x = xs[0]
        x = x if self.low is None else maximum(x, Const(self.low, x.dtype))
        return x if self.high is None else minimum(x, Const(self.high, x.dtype))

    def meaning(self, x: Array) -> Array:
        """np.clip."""
        return np.clip(x, self.low, self.high)

    def derivative(self, x: Traced, y: Traced) -> Traced:
        """1 inside and at the limits, 0 outside."""
        return _if(Equal()(x, y), number(x, 1), number(x, 0))

    @classmethod
    def samples(cls) -> Samples:
        """One limit, both, crossed ones, integers."""
        yield from super().samples()
        yield cls(-1.0, 1.5), (example(f32, "n", 5),)
        yield cls(None, 0.5), (example(f16, 5),)
        yield cls(0.0), (example(f32, 5),)
        yield cls(1.0, -1.0), (example(f32, 5),)
        yield cls(-3, 4), (example(i32, 7, low=-9, high=9),)


@dataclass(frozen=True)
class Prelu(Pointwise):
    """x above zero, slope x elsewhere.

    Shapes:  x: any, slope: broadcasts with x -> broadcast.
    """

    arity: ClassVar[int] = 2
    widens: ClassVar[bool] = True

    def formula(self, *xs: Expr) -> Expr:
        """A selection."""
        x, slope = xs
        return select(x > 0.0, x, x * slope)

    def reference(self, *arrays: Array) -> Array:
        """A selection."""
        x, slope = (in_wide(a) for a in arrays)
        return np.where(x > 0, x, slope * x).astype(arrays[0].dtype)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """dy or dy · slope; below zero, dy · x."""
        (x, slope), (dy,) = args, douts
        above = _above(x, 0)
        return gradients(
            args, _if(above, dy, Mul()(dy, slope)), _if(above, number(dy, 0), Mul()(dy, x))
        )

    @classmethod
    def samples(cls) -> Samples:
        """One slope, one per channel, one per element."""
        yield cls(), (example(f32, "n", 4), example(f32, 4))
        yield cls(), (example(f32, 2, 3, 2), example(f32, 3, 1))
        yield cls(), (example(f16, 7), example(f16, 1))
        yield cls(), (example(f64, 3, 2), example(f64))
