"""The pure scalar functions that expressions apply: one table for meaning, types and notation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ResultRule = Literal["same", "bool", "explicit"]
Family = Literal["arithmetic", "compare", "logic", "math", "select", "convert", "vector"]


@dataclass(frozen=True, slots=True)
class ScalarFunction:
    """A pure function of scalars.

    ``result`` says how its type follows: the arguments' own type (``same``), ``bool``, or given
    with the application (``explicit``). ``evaluate`` is its meaning on NumPy values. ``symbol`` is
    the Python operator that prints it, and ``commutes`` whether its two arguments may be exchanged.
    """

    name: str
    arity: int
    family: Family
    result: ResultRule
    evaluate: Callable[..., Array]
    symbol: str | None = None
    commutes: bool = False


def _truncdiv(a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.floating):
        return np.trunc(np.divide(a, b))
    quotient = np.floor_divide(a, b)
    return quotient + ((np.remainder(a, b) != 0) & ((a < 0) != (b < 0)))


def _divide(a: Array, b: Array) -> Array:
    return np.divide(a, b).astype(a.dtype)


def _erf(x: Array) -> Array:
    return _special(x, "erf")


def _special(x: Array, name: str) -> Array:
    """A function that only the standard library has, element by element, in double precision."""
    table = {"erf": math.erf, "erfc": math.erfc, "lgamma": _lgamma}
    wide = np.vectorize(table[name], otypes=[np.float64])(np.asarray(x, np.float64))
    return wide.astype(x.dtype)


def _lgamma(x: float) -> float:
    if x == math.inf or x == -math.inf or (x <= 0 and x == math.floor(x)):
        return math.inf
    try:
        return math.lgamma(x)
    except OverflowError:
        return math.inf


def _erfinv(x: Array) -> Array:
    """The inverse of erf: Winitzki's approximation (2008, eq. 7) and three Newton steps."""
    y = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        a = 0.147
        t = 2 / (np.pi * a) + np.log1p(-y * y) / 2
        guess = np.copysign(np.sqrt(np.sqrt(t * t - np.log1p(-y * y) / a) - t), y)
        for _ in range(3):
            slope = 2 / np.sqrt(np.pi) * np.exp(-guess * guess)
            guess = np.where(np.abs(y) < 1, guess - (_special(guess, "erf") - y) / slope, guess)
        edge = np.where(np.abs(y) == 1, np.copysign(np.inf, y), np.nan)
        return np.where(np.abs(y) < 1, guess, edge).astype(x.dtype)


def _gelu_erf(x: Array) -> Array:
    """x Φ(x), Φ the normal distribution, relatively accurate on both sides."""
    wide = np.asarray(x, np.float64)
    area = _special(-wide * math.sqrt(0.5), "erfc") / 2
    return np.asarray(np.where(wide == -math.inf, -0.0, wide * area)).astype(x.dtype)


def _sigmoid(x: Array) -> Array:
    return (1 / (1 + np.exp(-x))).astype(x.dtype)


def _rsqrt(x: Array) -> Array:
    return (1 / np.sqrt(x)).astype(x.dtype)


def _fmuladd(a: Array, b: Array, c: Array) -> Array:
    return a * b + c


def _select(c: Array, a: Array, b: Array) -> Array:
    return np.where(c, a, b)


def _cast(x: Array) -> Array:
    return x


def _make(
    family: Family, result: ResultRule, arity: int, **functions: Callable[..., Array]
) -> list[ScalarFunction]:
    return [
        ScalarFunction(name.rstrip("_"), arity, family, result, f) for name, f in functions.items()
    ]


def _operators(
    family: Family, result: ResultRule, *rows: tuple[str, str, Callable[..., Array], bool]
) -> list[ScalarFunction]:
    return [
        ScalarFunction(name, 2, family, result, f, symbol, commutes)
        for name, symbol, f, commutes in rows
    ]


_ALL: list[ScalarFunction] = [
    *_operators(
        "arithmetic",
        "same",
        ("add", "+", np.add, True),
        ("sub", "-", np.subtract, False),
        ("mul", "*", np.multiply, True),
        ("div", "/", _divide, False),
        ("floordiv", "//", np.floor_divide, False),
        ("mod", "%", np.remainder, False),
    ),
    *_operators(
        "logic",
        "same",
        ("and", "&", np.bitwise_and, True),
        ("or", "|", np.bitwise_or, True),
        ("xor", "^", np.bitwise_xor, True),
    ),
    *_operators(
        "logic", "same", ("shl", "<<", np.left_shift, False), ("shr", ">>", np.right_shift, False)
    ),
    *_operators(
        "compare",
        "bool",
        ("eq", "==", np.equal, True),
        ("ne", "!=", np.not_equal, True),
        ("lt", "<", np.less, False),
        ("le", "<=", np.less_equal, False),
        ("gt", ">", np.greater, False),
        ("ge", ">=", np.greater_equal, False),
    ),
    *_make(
        "arithmetic",
        "same",
        2,
        truncdiv=_truncdiv,
        truncmod=np.fmod,
        min=np.minimum,
        max=np.maximum,
    ),
    *_make("arithmetic", "same", 1, neg=np.negative, abs=np.abs, sign=np.sign),
    *_make("arithmetic", "same", 3, fmuladd=_fmuladd),
    *_make("logic", "same", 1, invert=np.invert),
    *_make("logic", "bool", 1, isnan=np.isnan, isinf=np.isinf),
    *_make(
        "math",
        "same",
        1,
        floor=np.floor,
        ceil=np.ceil,
        trunc=np.trunc,
        round=np.rint,
        sqrt=np.sqrt,
        rsqrt=_rsqrt,
    ),
    *_make("math", "same", 1, exp=np.exp, exp2=np.exp2, expm1=np.expm1),
    *_make("math", "same", 1, log=np.log, log2=np.log2, log10=np.log10, log1p=np.log1p),
    *_make(
        "math",
        "same",
        1,
        sin=np.sin,
        cos=np.cos,
        tan=np.tan,
        asin=np.arcsin,
        acos=np.arccos,
        atan=np.arctan,
    ),
    *_make(
        "math",
        "same",
        1,
        sinh=np.sinh,
        cosh=np.cosh,
        tanh=np.tanh,
        asinh=np.arcsinh,
        acosh=np.arccosh,
        atanh=np.arctanh,
    ),
    *_make(
        "math",
        "same",
        1,
        erf=_erf,
        erfc=lambda x: _special(x, "erfc"),
        erfinv=_erfinv,
        gelu_erf=_gelu_erf,
        sigmoid=_sigmoid,
    ),
    *_make("math", "same", 1, lgamma=lambda x: _special(x, "lgamma")),
    *_make(
        "math",
        "same",
        2,
        pow=np.power,
        atan2=np.arctan2,
        copysign=np.copysign,
        nextafter=np.nextafter,
    ),
    ScalarFunction("select", 3, "select", "explicit", _select),
    ScalarFunction("cast", 1, "convert", "explicit", _cast),
    ScalarFunction("bitcast", 1, "convert", "explicit", _cast),
    ScalarFunction("ramp", 2, "vector", "explicit", _cast),
    ScalarFunction("broadcast", 1, "vector", "explicit", _cast),
    ScalarFunction("reduce_add", 1, "vector", "explicit", lambda x: np.add.reduce(x, axis=-1)),
    ScalarFunction("reduce_mul", 1, "vector", "explicit", lambda x: np.multiply.reduce(x, axis=-1)),
    ScalarFunction("reduce_min", 1, "vector", "explicit", lambda x: np.minimum.reduce(x, axis=-1)),
    ScalarFunction("reduce_max", 1, "vector", "explicit", lambda x: np.maximum.reduce(x, axis=-1)),
]

FUNCTIONS: dict[str, ScalarFunction] = {f.name: f for f in _ALL}
OPERATORS: dict[str, str] = {f.symbol: f.name for f in _ALL if f.symbol is not None}
