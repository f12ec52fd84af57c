"""Powers: ``pow rsqrt cbrt``.

``x^y = exp(y log x)``, with the logarithm and the product in two parts (64 bits) or in 64-bit
arithmetic (32 bits).
"""

from __future__ import annotations

import math

from treadle.codegen.llvm.math.emitter import Emitter, Value
from treadle.codegen.llvm.math.exponential import (
    LN2_HIGH,
    LN2_LOW,
    exp,
    exp_of_pair,
    reduce_ln2,
)
from treadle.codegen.llvm.math.logarithm import log_finite, split_exponent
from treadle.codegen.llvm.math.scaling import power_of_two

# log(m) = 2 s + 2/3 s^3 + s^5 P(s^2), s = (m-1)/(m+1).
POW_LOG = (
    0.3999999999999998, 0.28571428571445157, 0.22222222217526255, 0.18181818871506708,
    0.153845567930339,
    0.1333632031413862, 0.1167476145835941, 0.11989476540832693,
)  # fmt: skip
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
# In 64-bit arithmetic for results of 32 bits: log(m) = 2 s + s^3 P(s^2), and
# exp(r) = 1 + r + r^2 P(r), relative error 2^-35 and 2^-27.
SHORT_LOG = (0.6666666655404201, 0.4000012221181065, 0.28550778633191964, 0.23331614471843498)
SHORT_EXP = (
    0.5, 0.16666576666119928, 0.04166655421298415, 0.008363232883682618, 0.0013926250831497611,
)  # fmt: skip
# Exponents beyond the first make every power but one's zero or infinite; so do logarithms beyond
# the second.
EXPONENT_BOUND = 2.0**300
SINGLE_EXPONENT_BOUND = 2.0**100
OVERFLOW = 800.0


def log_pair(e: Emitter, x: Value) -> tuple[Value, Value]:
    """Return ``log(x)`` of a positive finite 64-bit ``x`` in two parts, relative error about
    2^-64.
    """
    n, f = split_exponent(e, x)
    bottom, bottom_low = e.fast_two_sum(e.constant(2.0), f)
    s = f / bottom
    product, error = e.two_product(s, bottom)
    s_low = ((f - product) - error - s * bottom_low) / bottom
    z, z_low = e.two_product(s, s)
    z_low = z_low + s * s_low * 2.0
    cube, cube_low = e.two_product(z, s)
    cube_low = cube_low + z * s_low + z_low * s
    third, third_low = e.two_product(cube, e.constant(TWO_THIRDS[0]))
    third_low = third_low + cube * TWO_THIRDS[1] + cube_low * TWO_THIRDS[0]
    third_low = third_low + cube * z * e.polynomial(z, POW_LOG)
    high, low = e.fast_two_sum(s * 2.0, third)
    low = low + (s_low * 2.0 + third_low)
    total, error = e.two_sum(n * LN2_HIGH[64], high)
    low = low + error + n * LN2_LOW[64]
    return e.fast_two_sum(total, low)


def pow_magnitude(e: Emitter, x: Value, y: Value) -> Value:
    """Return ``x^y`` for a positive finite ``x`` of 64 bits."""
    bounded = e.clamp(y, -EXPONENT_BOUND, EXPONENT_BOUND)
    high, low = log_pair(e, x)
    product, error = e.two_product(bounded, high)
    outside = e.abs(product) > OVERFLOW
    rest = e.select(outside, 0.0, error + bounded * low)
    return exp_of_pair(e, e.clamp(product, -OVERFLOW, OVERFLOW), rest)


def log_of_single(wide: Emitter, x: Value) -> Value:
    """Return ``log(x)`` in 64 bits of a positive finite ``x`` of 32, relative error 2^-35."""
    n, f = split_exponent(wide, x.widen("double"), denormals=False)
    s = f / (f + 2.0)
    z = s * s
    small = wide.fmuladd(s * z, wide.polynomial(z, SHORT_LOG), s * 2.0)
    return wide.fmuladd(n, math.log(2.0), small)


def exp_to_single(wide: Emitter, x: Value) -> Value:
    """Return ``exp(x)`` of a 64-bit ``x``, rounded to 32 bits: 64 have room for every exponent."""
    r, shifted = reduce_ln2(wide, wide.clamp(x, -110.0, 90.0), wide.format.bias)
    power = wide.fmuladd(r * r, wide.polynomial(r, SHORT_EXP), r)
    scale = power_of_two(wide, shifted)
    return wide.fmuladd(scale, power, scale).narrow("float")


def pow_magnitude_single(e: Emitter, x: Value, y: Value) -> Value:
    """Return ``x^y`` for a positive finite ``x``, all of 32 bits."""
    wide = e.as_double()
    bounded = e.clamp(y, -SINGLE_EXPONENT_BOUND, SINGLE_EXPONENT_BOUND)
    return exp_to_single(wide, bounded.widen("double") * log_of_single(wide, x))


def is_whole(e: Emitter, y: Value) -> Value:
    """Return whether ``y`` has no fraction; holds for infinity. Rounds by adding, so that no CPU
    calls libm.
    """
    rounder = e.copysign(e.constant(2.0**e.format.mantissa), y)
    return ((y + rounder) - rounder).equals(y) | (e.abs(y) >= 2.0**e.format.mantissa)


def power(e: Emitter, x: Value, y: Value) -> Value:
    """``x^y``, known as ``pow``, with the special values of C."""
    magnitude = e.abs(x)
    general = pow_magnitude_single if e.is_single else pow_magnitude
    result = general(e, magnitude, y)
    extreme = magnitude.equals(0.0) | magnitude.equals(math.inf)
    grows = e.select(magnitude > 1.0, y, -y) > 0.0
    result = e.select(extreme, e.select(grows, e.constant(math.inf), e.constant(0.0)), result)
    whole, even = is_whole(e, y), is_whole(e, y * 0.5)
    # Minus one, or minus zero, to an odd power; a negative number has no other real powers than
    # whole ones.
    result = e.select(whole, e.select(even, result, e.copysign(result, x)), result)
    negative = (x < 0.0) & (x > -math.inf)
    result = e.select(negative, e.select(whole, result, math.nan), result)
    result = e.select(x.is_nan(), x, e.select(y.is_nan(), y, result))
    return e.select(x.equals(1.0) | y.equals(0.0), 1.0, result)


def rsqrt(e: Emitter, x: Value) -> Value:
    """``1 / sqrt(x)`` by two correctly rounded operations."""
    return 1.0 / e.sqrt(x)


def cbrt(e: Emitter, x: Value) -> Value:
    """The cube root: ``exp(log(|x|) / 3)`` in 64-bit arithmetic, and in 64 bits one step of
    Newton's method.
    """
    magnitude = e.abs(x)
    if e.is_single:
        wide = e.as_double()
        root = exp_to_single(wide, log_of_single(wide, magnitude) * (1.0 / 3.0))
    else:
        root = exp(e, log_finite(e, magnitude) * (1.0 / 3.0))
        root = root + (magnitude / (root * root) - root) * (1.0 / 3.0)
    plain = magnitude < math.inf
    return e.select(plain, e.select(x.equals(0.0), x, e.copysign(root, x)), x)
