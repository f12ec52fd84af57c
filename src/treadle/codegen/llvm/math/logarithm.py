"""The logarithm family: ``log log2 log10 log1p asinh acosh atanh``.

``x = m 2**n`` with ``m`` in ``[sqrt(1/2), sqrt(2))`` by integer arithmetic on the bits; a minimax
polynomial gives ``log(m)``: in ``f = m - 1`` in 32 bits, in ``s = f / (2 + f)`` in 64 (the scheme
of Sun's fdlibm).
"""

from __future__ import annotations

import math

from treadle.codegen.llvm.math.emitter import Emitter, Value, float_bits
from treadle.codegen.llvm.math.exponential import LN2_HIGH, LN2_LOW

# log(1+f) = f - f^2/2 + f^3 P(f), relative error 2^-27.
LOG_SINGLE = (
    0.3333333134651184, -0.250008225440979, 0.20001220703125, -0.16623322665691376,
    0.14201894402503967,
    -0.13160641491413116, 0.12760762870311737, -0.07632259279489517,
)  # fmt: skip
# log(1+f) = 2 s + s z P(z), s = f/(2+f), z = s^2, relative error 2^-58.
LOG_DOUBLE = (
    0.6666666666666735, 0.3999999999941251, 0.2857142874285751, 0.22222198525143716,
    0.1818356684356699,
    0.15313985175444525, 0.14796616202145627,
)  # fmt: skip

# log10(2) in two parts; n times the first is exact.
LOG10_2 = {
    32: (0.301025390625, 4.605038981195214e-06),
    64: (0.30102999566361177, 3.694239077158931e-13),
}


def split_exponent(e: Emitter, x: Value, denormals: bool = True) -> tuple[Value, Value]:
    """Return ``n`` as a float and ``f = m - 1`` for a positive finite ``x``, which may be denormal
    unless ``denormals`` is false.
    """
    layout = e.format
    scale = layout.mantissa + 2
    rounder: float | Value = layout.rounder + layout.bias
    normal = x
    if denormals:
        tiny = x < layout.smallest_normal
        normal = e.select(tiny, x * 2.0**scale, x)
        rounder = e.select(tiny, layout.rounder + layout.bias + scale, rounder)
    root_bits = float_bits(layout.kind, math.sqrt(0.5))
    biased = normal.to_bits() - (root_bits - layout.one_bits)
    fraction = (biased & ((1 << layout.mantissa) - 1)) + root_bits
    # Putting the exponent into the last bits of the rounder converts it to a float without a
    # conversion.
    n = (
        (biased >> layout.mantissa) + float_bits(layout.kind, layout.rounder)
    ).to_floats() - rounder
    return n, fraction.to_floats() - 1.0


def log1p_fraction(e: Emitter, f: Value) -> tuple[Value, Value]:
    """Return ``log(1+f)`` for the fraction of :func:`split_exponent` as ``f`` and a small
    correction to add.
    """
    if e.is_single:
        square = f * f
        tail = f * square * e.polynomial(f, LOG_SINGLE)
        return f, e.fmuladd(square, -0.5, tail)
    s = f / (f + 2.0)
    z = s * s
    half_square = f * f * 0.5
    rest = z * e.polynomial(z, LOG_DOUBLE)
    return f, s * (half_square + rest) - half_square


def log_domain(e: Emitter, x: Value, result: Value, pole: float = 0.0) -> Value:
    """Return ``result`` with the values of a logarithm at its ``pole``, beyond it, at infinity
    and at NaN.
    """
    finite = e.select(x < math.inf, result, x)
    outside = e.select(x.equals(pole), e.constant(-math.inf), e.constant(math.nan))
    return e.select(x <= pole, outside, finite)


def log_finite(e: Emitter, x: Value, correction: Value | None = None) -> Value:
    """Return ``log(x) + correction`` for a positive finite ``x``."""
    n, f = split_exponent(e, x)
    high, low = log1p_fraction(e, f)
    if correction is not None:
        low = low + correction
    low = e.fmuladd(n, LN2_LOW[e.bits], low)
    return e.fmuladd(n, LN2_HIGH[e.bits], high + low)


def log(e: Emitter, x: Value) -> Value:
    """``log(x)``; ``-inf`` at zero, NaN below."""
    return log_domain(e, x, log_finite(e, x))


def log2(e: Emitter, x: Value) -> Value:
    """``log(x) / log(2)``, exact for powers of two."""
    n, f = split_exponent(e, x)
    high, low = log1p_fraction(e, f)
    return log_domain(e, x, e.fmuladd(high + low, math.log2(math.e), n))


def log10(e: Emitter, x: Value) -> Value:
    """``log(x) / log(10)``."""
    n, f = split_exponent(e, x)
    high, low = log1p_fraction(e, f)
    part_high, part_low = LOG10_2[e.bits]
    small = e.fmuladd(high + low, math.log10(math.e), n * part_low)
    return log_domain(e, x, e.fmuladd(n, part_high, small))


def log1p_positive(e: Emitter, x: Value) -> Value:
    """Return ``log(1 + x)`` for a finite ``x > -1``: the rounding error of ``1 + x`` is added
    back.
    """
    u = x + 1.0
    return log_finite(e, u, (x - (u - 1.0)) / u)


def log1p(e: Emitter, x: Value) -> Value:
    """``log(1 + x)``, relatively accurate near zero."""
    return e.keep_tiny(x, log_domain(e, x, log1p_positive(e, x), pole=-1.0))


def asinh(e: Emitter, x: Value) -> Value:
    """``asinh(x) = log1p(|x| + x^2 / (1 + sqrt(1 + x^2)))``; ``log(|x|) + log(2)`` where squares
    would overflow.
    """
    magnitude = e.abs(x)
    large = magnitude > e.pick(2.0**40, 2.0**400)
    square = x * x
    inner = magnitude + square / (e.sqrt(square + 1.0) + 1.0)
    result = log1p_positive(e, e.select(large, magnitude, inner)) + e.select(
        large, math.log(2.0), 0.0
    )
    finite = e.select(magnitude < math.inf, result, magnitude)
    return e.keep_tiny(x, e.copysign(finite, x))


def acosh(e: Emitter, x: Value) -> Value:
    """``acosh(x) = log1p(t + sqrt(2 t + t^2))`` with ``t = x - 1``; NaN below one."""
    t = x - 1.0
    large = x > e.pick(2.0**40, 2.0**400)
    inner = t + e.sqrt(t * (t + 2.0))
    result = log1p_positive(e, e.select(large, x, inner)) + e.select(large, math.log(2.0), 0.0)
    return e.select(x < 1.0, math.nan, e.select(x < math.inf, result, x))


def atanh(e: Emitter, x: Value) -> Value:
    """``atanh(x) = log1p(2 |x| / (1 - |x|)) / 2``; infinite at one, NaN beyond."""
    magnitude = e.abs(x)
    result = log1p_positive(e, magnitude * 2.0 / (1.0 - magnitude)) * 0.5
    limited = e.select(magnitude.equals(1.0), math.inf, e.select(magnitude < 1.0, result, math.nan))
    return e.keep_tiny(x, e.copysign(limited, x))
