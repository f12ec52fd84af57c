"""The logarithm of the gamma function: ``lgamma``.

Near two a polynomial, to which smaller and moderately larger arguments are carried by whole steps
(``gamma(x + 1) = x gamma(x)``); Stirling's series beyond; Euler's reflection below zero. In 64-bit
arithmetic throughout.
"""

from __future__ import annotations

import math

from treadle.codegen.llvm.math.emitter import Emitter, Value
from treadle.codegen.llvm.math.logarithm import log_finite

# log(gamma(2 + t)) = t P(t) on |t| <= 1/2, absolute error 2^-33 and 2^-63.
NEAR_TWO = {
    32: (
        0.4227843350004583, 0.3224670334689425, -0.0673522814721006, 0.020580799471518252,
        -0.007386174155633413, 0.002890795321559696, -0.0011858600344983208,
        0.0005065171429518161, -0.0002538170956727826, 0.00011347281994554691,
    ),
    64: (
        0.42278433509846713, 0.3224670334241132, -0.06735230105319814, 0.02058080842778457,
        -0.0073855510286681535, 0.002890510330738737, -0.0011927539120010226,
        0.0005096695248853096, -0.00022315475074520367, 9.945750909889392e-05,
        -4.4926351103833334e-05, 2.050726741605779e-05, -9.438458716242811e-06,
        4.374374916915131e-06, -2.0449201467015115e-06, 9.578663334114758e-07,
        -4.303558760359961e-07, 2.0304806751615227e-07, -1.3412819758517287e-07,
        6.379047507619774e-08,
    ),
}  # fmt: skip
# log(gamma(x)) = (x - 1/2) (log(x) - 1) + c + P(1/x^2) / x from STEPS + 5/2 on.
STIRLING = {
    32: (
        0.08333333332650951, -0.002777771157705602, 0.0007926375294416172, -0.000544699529621851,
    ),
    64: (
        0.08333333333333333, -0.0027777777777777315, 0.0007936507935804795, -0.000595238054286464,
        0.0008417390684787214, -0.0019156731645284487, 0.0062458510679744925,
        -0.02164244020602092,
    ),
}  # fmt: skip
STIRLING_CONSTANT = 0.5 * math.log(2.0 * math.pi) - 0.5
STEPS = {32: 3, 64: 6}
# sin(pi r) = r P(r^2) on |r| <= 1/2.
SIN_PI = {
    32: (
        3.141592653536132, -5.167712764593, 2.550163317938427, -0.599252186531583,
        0.08205035020147247, -0.007028303855203096,
    ),
    64: (
        3.141592653589793, -5.16771278004997, 2.5501640398773455, -0.5992645293207869,
        0.08214588661099356, -0.007370430943702136, 0.0004663027874593273,
        -2.1915250301851375e-05, 7.94853903737232e-07, -2.228371216069697e-08,
    ),
}  # fmt: skip


def lgamma_positive(e: Emitter, x: Value, bits: int) -> Value:
    """Return ``log(gamma(x))`` for a positive finite 64-bit ``x``, good for results of ``bits``."""
    large = x >= STEPS[bits] + 2.5
    # Below 3/2 the argument goes up to [3/2, 5/2), above it down.
    t = e.select(x < 0.5, x, e.select(x < 1.5, x - 1.0, x - 2.0))
    factor = e.select(x < 0.5, x * (x + 1.0), e.select(x < 1.5, x, 1.0))
    down = x - 1.0
    for _ in range(STEPS[bits]):
        more = t >= 0.5
        factor = e.select(more, factor * down, factor)
        t = e.select(more, t - 1.0, t)
        down = down - 1.0
    logarithm = log_finite(e, e.select(large, x, factor))
    near = t * e.polynomial(t, NEAR_TWO[bits]) + e.select(x < 1.5, -logarithm, logarithm)
    inverse = 1.0 / x
    series = e.fmuladd(inverse, e.polynomial(inverse * inverse, STIRLING[bits]), STIRLING_CONSTANT)
    return e.select(large, (x - 0.5) * (logarithm - 1.0) + series, near)


def lgamma(e: Emitter, x: Value) -> Value:
    """``log(|gamma(x)|)``; infinite at zero, at negative whole numbers and at infinity.

    Error at most 4 ulp for positive arguments, and 6 for negative ones, of the result or of one,
    whichever is larger: the zeros between the poles are met absolutely.
    """
    wide = e.as_double()
    argument = x.widen("double") if e.is_single else x
    magnitude = wide.abs(argument)
    whole_part = (magnitude + 2.0**52) - 2.0**52
    r = magnitude - whole_part
    negative = argument < 0.0
    finite = magnitude < math.inf
    positive = wide.select(negative, magnitude + 1.0, magnitude)
    positive = wide.select(finite & (positive > 0.0), positive, 1.0)
    result = lgamma_positive(wide, positive, e.bits)
    pole = negative & (r.equals(0.0) | (magnitude >= 2.0**52))
    pole = pole | magnitude.equals(0.0)
    sine = wide.abs(r * wide.polynomial(r * r, SIN_PI[e.bits]))
    sine = wide.select(negative & (sine > 0.0), sine, 1.0)
    reflected = (math.log(math.pi) - log_finite(wide, sine)) - result
    result = wide.select(negative, reflected, result)
    result = wide.select(pole | magnitude.equals(math.inf), math.inf, result)
    result = wide.select(argument.is_nan(), argument, result)
    return result.narrow("float") if e.is_single else result
