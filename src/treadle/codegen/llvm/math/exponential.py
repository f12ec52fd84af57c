"""The exponential family: ``exp exp2 expm1 sinh cosh tanh sigmoid``.

``x = n ln 2 + r`` with ``n`` an integer and ``|r| <= ln(2)/2`` (Cody and Waite); a minimax
polynomial gives ``exp(r)``, or ``exp(r) - 1``.
"""

from __future__ import annotations

import math

from treadle.codegen.llvm.math.emitter import Emitter, Value
from treadle.codegen.llvm.math.scaling import (
    power_of_two,
    round_scaled,
    scale_by_power,
)

LOG2_E = 1.4426950408889634
# ln 2 in two parts; n times the first is exact for every n that occurs.
LN2_HIGH = {32: 0.693359375, 64: 6.93147180369123816490e-01}
LN2_LOW = {32: -2.12194440054690583e-4, 64: 1.90821492927058770002e-10}

# exp(r) = P(r) on |r| <= ln(2)/2, relative error 2^-23.4: what 32 bits need where exp(r) itself is
# the result.
EXP_SHORT = (
    1.0, 0.9999997019767761, 0.4999915063381195, 0.16667649149894714, 0.041897840797901154,
    0.008289581164717674,
)  # fmt: skip
# exp(r) = 1 + r + r^2 P(r) on |r| <= ln(2)/2, relative error 2^-26 and 2^-61 of exp(r) - 1.
EXP_SINGLE = (
    0.4999999701976776,
    0.16666539013385773,
    0.04166721925139427,
    0.008367183618247509,
    0.00138824712485075,
)
EXP_DOUBLE = (
    0.5, 0.16666666666666677, 0.04166666666666649, 0.008333333333320736, 0.0013888888888967871,
    0.00019841269888689106, 2.480158716569445e-05, 2.7557241364359425e-06, 2.755740515325044e-07,
    2.511011126923661e-08, 2.087555418984616e-09,
)  # fmt: skip


def reduce_ln2(e: Emitter, x: Value, offset: int) -> tuple[Value, Value]:
    """Return ``r = x - n ln 2`` and the integer ``n + offset`` (see :func:`round_scaled`)."""
    n, shifted = round_scaled(e, x, LOG2_E, offset)
    r = e.fmuladd(n, -LN2_HIGH[e.bits], x)
    return e.fmuladd(n, -LN2_LOW[e.bits], r), shifted


def expm1_polynomial(e: Emitter, r: Value) -> Value:
    """Return ``exp(r) - 1`` for ``|r| <= ln(2)/2``."""
    return e.fmuladd(r * r, e.polynomial(r, e.pick(EXP_SINGLE, EXP_DOUBLE)), r)


def exp_polynomial(e: Emitter, r: Value) -> Value:
    """Return ``exp(r)`` for ``|r| <= ln(2)/2``."""
    return e.polynomial(r, EXP_SHORT) if e.is_single else expm1_polynomial(e, r) + 1.0


def exp_limits(e: Emitter) -> tuple[float, float]:
    """Return arguments at which ``exp`` has certainly become zero, and infinite."""
    return e.pick((-104.0, 89.0), (-746.0, 710.0))


def exp(e: Emitter, x: Value) -> Value:
    """``exp(x)``, denormal results included."""
    r, shifted = reduce_ln2(e, e.clamp(x, *exp_limits(e)), 2 * e.format.bias)
    return scale_by_power(e, exp_polynomial(e, r), shifted)


def exp_of_pair(e: Emitter, high: Value, low: Value, factor: Value | None = None) -> Value:
    """``factor * exp(high + low)``; ``low`` is small, ``high`` within twice the limits of ``exp``.

    The factor comes in before the scaling, so that a denormal result is rounded once.
    """
    r, shifted = reduce_ln2(e, high, 2 * e.format.bias)
    power = expm1_polynomial(e, r + low) + 1.0
    return scale_by_power(e, power if factor is None else power * factor, shifted)


def exp2(e: Emitter, x: Value) -> Value:
    """``2**x``, denormal results included; exact for integers."""
    limited = e.clamp(x, *e.pick((-151.0, 129.0), (-1076.0, 1025.0)))
    n, shifted = round_scaled(e, limited, 1.0, 2 * e.format.bias)
    r = (limited - n) * math.log(2.0)
    return scale_by_power(e, exp_polynomial(e, r), shifted)


def quarter_expm1(e: Emitter, x: Value) -> Value:
    """``(exp(x) - 1) / 4``: does not overflow where ``sinh`` does not."""
    r, shifted = reduce_ln2(e, x, e.format.bias - 2)
    scale = power_of_two(e, shifted)
    return e.fmuladd(scale, expm1_polynomial(e, r), scale - 0.25)


def expm1(e: Emitter, x: Value) -> Value:
    """``exp(x) - 1``, relatively accurate near zero."""
    limited = e.clamp(x, e.pick(-18.0, -40.0), exp_limits(e)[1])
    return e.keep_tiny(x, quarter_expm1(e, limited) * 4.0)


def sinh(e: Emitter, x: Value) -> Value:
    """``sinh(x) = h + h / (2 h + 1)`` with ``h = expm1(|x|) / 2``."""
    half = quarter_expm1(e, e.at_most(e.abs(x), e.pick(89.5, 710.6))) * 2.0
    bounded = e.at_most(half, 2.0**60)  # infinity divided by infinity would be NaN
    return e.keep_tiny(x, e.copysign(half + bounded / (bounded * 2.0 + 1.0), x))


def cosh(e: Emitter, x: Value) -> Value:
    """``cosh(x) = h + 1 / (4 h)`` with ``h = exp(|x|) / 2``."""
    r, shifted = reduce_ln2(e, e.at_most(e.abs(x), e.pick(89.5, 710.6)), e.format.bias - 2)
    half = (expm1_polynomial(e, r) + 1.0) * power_of_two(e, shifted) * 2.0
    return half + 0.25 / half


def tanh(e: Emitter, x: Value) -> Value:
    """``tanh(x) = h / (h + 1)`` with ``h = expm1(2 |x|) / 2``; never beyond one."""
    magnitude = e.at_most(e.abs(x), e.pick(9.02, 22.0))
    # The reduction of 2 |x|, halved: r is half of what expm1 takes, which only rescales its
    # coefficients.
    n, biased = round_scaled(e, magnitude, 2.0 * LOG2_E, e.format.bias)
    r = e.fmuladd(n, -0.5 * LN2_HIGH[e.bits], magnitude)
    r = e.fmuladd(n, -0.5 * LN2_LOW[e.bits], r)
    coefficients = [c * 2.0 ** (i + 1) for i, c in enumerate(e.pick(EXP_SINGLE, EXP_DOUBLE))]
    half = e.fmuladd(r * r, e.polynomial(r, coefficients), r)
    scale = power_of_two(e, biased)
    half = e.fmuladd(scale, half, e.fmuladd(scale, 0.5, -0.5))
    return e.copysign(half / (half + 1.0), x)


def sigmoid(e: Emitter, x: Value) -> Value:
    """``1 / (1 + exp(-x))``, relatively accurate in the negative tail down to the denormals.

    Numerator and denominator are made smaller by a power of two, so that no ``exp(-x)`` overflows.
    """
    smaller = e.pick(64, 512)
    limited = e.clamp(x, exp_limits(e)[0], 40.0)  # exp(-40) is nothing beside one
    r, shifted = reduce_ln2(e, -limited, e.format.bias - smaller)
    one = 2.0**-smaller
    return one / e.fmuladd(exp_polynomial(e, r), power_of_two(e, shifted), one)
