"""The inverse circular family: ``asin acos atan atan2``."""

from __future__ import annotations

import math

from treadle.codegen.llvm.math.emitter import Emitter, Value

# asin(x) = x + x^3 P(x^2) on |x| <= 1/2, relative error 2^-27 and 2^-56.
ASIN_SINGLE = (
    0.16666753590106964,
    0.07495235651731491,
    0.04547795280814171,
    0.024142930284142494,
    0.04222724959254265,
)
ASIN_DOUBLE = (
    0.16666666666665378, 0.07500000000344414, 0.04464285682231613, 0.03038195938094012,
    0.02237175229342565,
    0.01735979022695603, 0.013884404059374035, 0.012174591470503938, 0.006505027620955374,
    0.019590251286313257,
    -0.016320337378243767, 0.03197737891391454,
)  # fmt: skip
# atan(x) = x + x^3 P(x^2) on |x| <= tan(pi/8), relative error 2^-30 and 2^-64.
ATAN_SINGLE = (
    -0.33333316445350647, 0.1999848335981369, -0.14243724942207336, 0.10595047473907471,
    -0.060809455811977386,
)  # fmt: skip
ATAN_DOUBLE = (
    -0.33333333333333326, 0.19999999999997667, -0.14285714285387835, 0.1111111108816854,
    -0.09090908144234632,
    0.0769228275270761, -0.06666226677426881, 0.05877021076375759, -0.05218400050357146,
    0.045035327458974726,
    -0.033474085402290917, 0.015194788412057342,
)  # fmt: skip
TAN_EIGHTH_PI = math.sqrt(2.0) - 1.0
# What rounding pi/4 to 32 and to 64 bits leaves over; pi/2 and pi leave twice and four times as
# much.
QUARTER_PI_LOW = {32: -2.1855695e-8, 64: 3.061616997868383e-17}


def asin_parts(e: Emitter, magnitude: Value) -> tuple[Value, Value]:
    """Return ``y`` and ``asin(y)``: ``y`` is ``magnitude`` up to 1/2, above it ``sqrt((1 -
    magnitude) / 2)``.
    """
    large = magnitude > 0.5
    z = e.select(large, (1.0 - magnitude) * 0.5, magnitude * magnitude)
    y = e.select(large, e.sqrt(z), magnitude)
    return y, e.fmuladd(y * z, e.polynomial(z, e.pick(ASIN_SINGLE, ASIN_DOUBLE)), y)


def half_pi_minus(e: Emitter, angle: Value, quarters: int = 2) -> Value:
    """Return ``quarters`` times pi/4, minus ``angle``, with the rounding error of the constant
    put back.
    """
    return quarters * math.pi / 4.0 - (angle - quarters * QUARTER_PI_LOW[e.bits])


def asin(e: Emitter, x: Value) -> Value:
    """``asin(x)``; NaN outside ``[-1, 1]``."""
    magnitude = e.abs(x)
    _, angle = asin_parts(e, magnitude)
    result = e.select(magnitude > 0.5, half_pi_minus(e, angle * 2.0), angle)
    return e.keep_tiny(x, e.copysign(result, x))


def acos(e: Emitter, x: Value) -> Value:
    """``acos(x)``; NaN outside ``[-1, 1]``."""
    magnitude = e.abs(x)
    _, angle = asin_parts(e, magnitude)
    middle = half_pi_minus(e, e.copysign(angle, x))
    outer = e.select(x < 0.0, half_pi_minus(e, angle * 2.0, 4), angle * 2.0)
    return e.select(magnitude > 0.5, outer, middle)


def atan_of_ratio(e: Emitter, top: Value, bottom: Value) -> Value:
    """Return ``atan(top / bottom)`` for ``0 <= top <= bottom`` with one division."""
    large = top > bottom * TAN_EIGHTH_PI
    t = e.select(large, top - bottom, top) / e.select(large, top + bottom, bottom)
    z = t * t
    # Where z underflows the square is far below the last place, so denormal ratios pass through.
    angle = e.fmuladd(t * z, e.polynomial(z, e.pick(ATAN_SINGLE, ATAN_DOUBLE)), t)
    return e.select(large, half_pi_minus(e, -angle, 1), angle)


def atan(e: Emitter, x: Value) -> Value:
    """``atan(x)``; pi/2 with the sign of ``x`` at infinity."""
    magnitude = e.abs(x)
    large = magnitude > 1.0
    one = e.constant(1.0)
    angle = atan_of_ratio(e, e.select(large, one, magnitude), e.select(large, magnitude, one))
    return e.keep_tiny(x, e.copysign(e.select(large, half_pi_minus(e, angle), angle), x))


def atan2(e: Emitter, y: Value, x: Value) -> Value:
    """``atan2(y, x)``: the angle of the point ``(x, y)``, with the conventions of C at zeros and
    infinities.
    """
    height, width = e.abs(y), e.abs(x)
    steep = height > width
    top, bottom = e.select(steep, width, height), e.select(steep, height, width)
    # Keep both away from overflow of their sum and from denormals, whose quotient would be rough.
    exponent = e.format.bias - 3
    scale = e.select(
        bottom > 2.0**exponent,
        0.25,
        e.select(bottom < 2.0 ** -(exponent // 2), 2.0 ** (exponent // 2), e.constant(1.0)),
    )
    top, bottom = top * scale, bottom * scale
    infinite = top.equals(math.inf)
    top, bottom = e.select(infinite, 1.0, top), e.select(infinite, 1.0, bottom)
    bottom = e.select(bottom.equals(0.0), 1.0, bottom)
    angle = atan_of_ratio(e, top, bottom)
    angle = e.select(steep, half_pi_minus(e, angle), angle)
    left = e.copysign(e.constant(1.0), x) < 0.0
    angle = e.select(left, half_pi_minus(e, angle, 4), angle)
    angle = e.select(x.is_nan(), x, e.select(y.is_nan(), y, angle))
    return e.copysign(angle, y)
