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
    A ``variadic`` function takes ``arity`` arguments or more.
    """

    name: str
    arity: int
    family: Family
    result: ResultRule
    evaluate: Callable[..., Array]
    symbol: str | None = None
    commutes: bool = False
    variadic: bool = False


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


def _popcount(x: Array) -> Array:
    return np.bitwise_count(x.view(f"u{x.dtype.itemsize}")).astype(x.dtype)


def _shuffle(a: Array, b: Array, *lanes: Array) -> Array:
    """Lanes of two vectors, counted through both, in another order."""
    a, b = np.broadcast_arrays(a, b)
    return np.concatenate((a, b), axis=-1)[..., [int(lane) for lane in lanes]]


def _dot(total: Array, a: Array, b: Array) -> Array:
    """Add the products of neighbouring lanes, 2 or 4 for each lane of the total.

    Integers wrap. Of bfloat16, products are exact in f32, and are added to the total one by one,
    the later lane first, each time rounded to nearest even; denormals, going in or coming out, are
    zero.
    """
    group = a.shape[-1] // total.shape[-1]
    x, y = (v.reshape(*v.shape[:-1], -1, group) for v in (a, b))
    if np.issubdtype(total.dtype, np.integer):
        products = x.astype(total.dtype) * y.astype(total.dtype)
        return total + products.sum(axis=-1, dtype=total.dtype)
    wide = [_flushed(v.astype(np.float32)) for v in (x, y)]
    total = _flushed(total)
    for lane in reversed(range(group)):
        product = wide[0][..., lane].astype(np.float64) * wide[1][..., lane]
        total = _flushed(_sum_rounded_once(product, total.astype(np.float64)))
    return total


def _sum_rounded_once(a: Array, b: Array) -> Array:
    """The f32 nearest to the exact sum of two doubles: the sum in double precision is made odd
    where it is not exact, so that the second rounding cannot meet a tie that is none.

    The error of the first sum is that of Knuth's two-sum; see S. Boldo and G. Melquiond, "Emulation
    of FMA and correctly rounded sums" (2008), for rounding to odd.
    """
    total = np.asarray(a + b)
    back = total - a
    error = (a - (total - back)) + (b - back)
    even = total.view(np.int64) % 2 == 0
    beyond = np.nextafter(total, np.copysign(np.inf, error))
    odd = np.where((error != 0) & even & np.isfinite(total), beyond, total)
    return odd.astype(np.float32)


def _flushed(x: Array) -> Array:
    """Denormals as zeros of the same sign."""
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


def _maddubs(a: Array, b: Array) -> Array:
    """Products of unsigned and signed bytes, neighbours added, kept within 16 bits."""
    x, y = (v.astype(np.int32).reshape(*v.shape[:-1], -1, 2) for v in (a, b))
    return np.clip((x * y).sum(axis=-1), -(1 << 15), (1 << 15) - 1).astype(np.int16)


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
    *_make("logic", "same", 1, invert=np.invert, popcount=_popcount),
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
    ScalarFunction("shuffle", 2, "vector", "explicit", _shuffle, variadic=True),
    ScalarFunction("dot", 3, "vector", "explicit", _dot),
    ScalarFunction("maddubs", 2, "vector", "explicit", _maddubs),
    ScalarFunction("reduce_add", 1, "vector", "explicit", lambda x: np.add.reduce(x, axis=-1)),
    ScalarFunction("reduce_mul", 1, "vector", "explicit", lambda x: np.multiply.reduce(x, axis=-1)),
    ScalarFunction("reduce_min", 1, "vector", "explicit", lambda x: np.minimum.reduce(x, axis=-1)),
    ScalarFunction("reduce_max", 1, "vector", "explicit", lambda x: np.maximum.reduce(x, axis=-1)),
]

FUNCTIONS: dict[str, ScalarFunction] = {f.name: f for f in _ALL}
OPERATORS: dict[str, str] = {f.symbol: f.name for f in _ALL if f.symbol is not None}
