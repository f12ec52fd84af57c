"""The error function, what is made of it, and its inverse: ``erf erfc gelu_erf erfinv``.

The tail uses Mills' ratio ``M(t) = exp(t^2/2) Q(t)``, ``Q`` the upper tail of the normal
distribution: smooth, and a quotient of two polynomials with positive coefficients over the whole
range. ``exp(-t^2/2)`` is taken of the exact square in two parts, so that relative accuracy holds
down to the smallest result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from treadle.codegen.llvm.math.emitter import Emitter, Value
from treadle.codegen.llvm.math.exponential import (
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    expm1_polynomial,
    reduce_ln2,
)
from treadle.codegen.llvm.math.logarithm import log_finite
from treadle.codegen.llvm.math.scaling import round_scaled, shrink_by_power, shrink_offset

# erf(x) = x P(x^2) / Q(x^2) on |x| <= 3.93, relative error 2^-25.
ERF_LIMIT = 3.93
ERF_P = (
    1.1283791065216064, 0.19076454639434814, 0.05278754234313965, 0.0037787174805998802,
    0.0002847784198820591, 2.0419922748260433e-06,
)  # fmt: skip
ERF_Q = (
    1.0, 0.502393364906311, 0.11424937099218369, 0.014995673671364784, 0.0011649772059172392,
    3.8002675864845514e-05,
)  # fmt: skip
# erf(x) = x + x P(x^2) on |x| <= 0.65, relative error 2^-57.
ERF_SMALL_LIMIT = 0.65
ERF_SMALL = (
    0.12837916709551256, -0.3761263890318354, 0.11283791670938548, -0.026866170640138787,
    0.005223977548935941,
    -0.0008548320274834513, 0.00012054969593325117, -1.4913490855188643e-05, 1.6214416288645859e-06,
    -1.3523068033951087e-07,
)  # fmt: skip
# Mills' ratio is P(t) / Q(t). In 32 bits on [0, 14.5], relative error 2^-26.5; the highest terms,
# t^4 and t^5, have the coefficient one, and their quotient is a factor of its own.
MILLS_SINGLE = (
    (121.46607208251953, 106.47633361816406, 44.51401138305664, 9.871220588684082),
    (
        96.91703033447266, 162.2854461669922, 116.54354095458984, 45.50001907348633,
        9.871960639953613,
    ),
)  # fmt: skip
# That factor times exp(-r/2), on |r| <= ln 2, relative error 2^-23.5.
MILLS_POWER = (
    0.39894694089889526, -0.19947344064712524, 0.04986729100346565, -0.008311630226671696,
    0.0010450358968228102, -0.0001036855173879303,
)  # fmt: skip
# In 64 bits on [0, 38.8], relative error 2^-59.
MILLS_DOUBLE = (
    (
        0.5, 0.8279658274949829, 0.6796771924714125, 0.3574004011380316, 0.13207483675136555,
        0.03567804855991509, 0.007125497452983753, 0.0010401959747040562, 0.00010663392139293312,
        6.980948081052957e-06, 2.2438482289799661e-07,
    ),
    (
        1.0, 2.4538162157928314, 2.817216458571629, 2.0016677313814166, 0.980261914152142,
        0.3483945276025228, 0.092003992954684, 0.018127140081111014, 0.002624883283399507,
        0.0002678540517365942, 1.749864184372846e-05, 5.624493414740581e-07,
    ),
)  # fmt: skip
MILLS_LIMIT = {32: 14.5, 64: 38.8}
# exp(x^2) erfc(x), which is twice Mills' ratio at sqrt(2) x. In 32 bits, times x + c it is a
# polynomial in u = (x - c) / (x + c), which keeps rounding errors small, on [0, 10.25]; in 64 bits
# P(x) / Q(x), on [0, 27.4].
SCALED_ERFC_CENTRE = 2.0
SCALED_ERFC_SINGLE = (
    1.0215827226638794, -0.6871606707572937, 0.2794717252254486, -0.03644188493490219,
    -0.021505648270249367, 0.006476168986409903, 0.0030623599886894226, -0.0008330227574333549,
    -0.0005926025332883, 4.8004541895352304e-05, 7.005032966844738e-05,
)  # fmt: skip
SCALED_ERFC_DOUBLE = (
    (
        1.0, 2.3418410048497345, 2.71870876988565, 2.0217619779479556, 1.0565986940109244,
        0.40365104121950235, 0.11400795924774004, 0.023536948079238035, 0.00341228548457386,
        0.00031592164654232075, 1.4360628665471783e-05,
    ),
    (
        1.0, 3.4702201719452472, 5.634432917143258, 5.661571306168369, 3.921047656608568,
        1.9708170639682216, 0.736031943637472, 0.20508517879795296, 0.041998132534392114,
        0.00606084532323962, 0.0005599565389993107, 2.5453551579533734e-05,
    ),
)  # fmt: skip
SCALED_ERFC_LIMIT = {32: 10.25, 64: 27.4}
# erfinv(x) / x is a polynomial in w - c up to the first limit of w = -log(1 - x^2), and in
# sqrt(w) - c beyond: as (limit of w, centre c, coefficients), each relative to 2^-23 or 2^-52.
ERFINV_SINGLE: tuple[tuple[float, float, Sequence[float]], ...] = (
    (5.0, 2.5, (
        1.501409360450329, 0.24664027905463662, -0.004177392875203149, -0.001252726391773229,
        0.00021834938623976644, -4.9724196894547514e-06, -3.4639852676333717e-06,
        4.6813134805534123e-07, 2.3335967195708108e-08, -8.931925970244222e-09,
    )),
    (16.4, 3.0, (
        2.8329770027775547, 1.0016749180787858, 0.009435315365385532, -0.007634003851479984,
        0.005764707907900179, -0.003634209428550204, 0.001288443585473374, 6.353361791103242e-05,
        -0.00015176637291682457,
    )),
)  # fmt: skip
ERFINV_DOUBLE: tuple[tuple[float, float, Sequence[float]], ...] = (
    (6.25, 3.125, (
        1.6536545626831027, 0.24015818242558834, -0.006033670871426851, -0.0007407025341546431,
        0.00018673420801981186, -1.3882523393957483e-05, -1.3654691758785656e-06,
        4.23478816822246e-07, -2.907039127564132e-08, -4.1126604371632185e-09,
        1.051223377050429e-09, -5.414303283919504e-11, -1.2978805369932565e-11,
        2.6305268312595183e-12, -8.07192593899004e-14, -4.0020031087558496e-14,
        6.521333511502239e-15, -3.94018812230432e-17, -1.2215637192404172e-16,
        1.5510787009902526e-17, 6.075050702072414e-19, -3.4734793888538036e-19,
        1.999259988861535e-20, 3.194015548136271e-21, -3.5932028927020693e-22,
    )),
    (16.0, 3.25, (
        3.0838856104922208, 1.0052589676941592, 0.0053709145535581985, -0.0037512085075638536,
        0.0024914420976198813, -0.0016882755561681802, 0.0009532893521118177,
        -0.00035503751863069763, 2.4031363245440546e-05, 6.828484052292924e-05,
        -4.731952918337189e-05, 1.2475343474376931e-05, 2.9273722115986924e-06,
        -4.013946398190292e-06, 1.4958263152984917e-06, 1.832399988132858e-08,
        -2.6860975725571463e-07, 9.071950571029922e-08, -3.831039946072411e-10,
    )),
    (36.6, 5.0, (
        4.849906401408584, 1.0103004648645433, -0.00013871931834997337, -0.00021503011972868823,
        7.59952773143257e-05, -1.968177213025297e-05, 4.526060349765045e-06,
        -9.930201756094202e-07, 2.290135705282797e-07, -6.758750397429899e-08,
        2.9129416280241148e-08, -1.519490709668205e-08, 7.63750927921423e-09,
        -3.5369882331572e-09, 1.494271529056915e-09, -3.996191043356376e-10,
        -2.3766290787161866e-11, 3.385526100493995e-11,
    )),
)  # fmt: skip


def gaussian(e: Emitter, x: Value, exponent: float, factor: Value) -> Value:
    """Return ``factor * exp(exponent * x^2)``; ``exponent`` is minus a power of two, and ``x^2`` is
    not rounded.
    """
    high = e.high_half(x)
    r, shifted = reduce_ln2(e, high * (high * exponent), shrink_offset(e))
    power = expm1_polynomial(e, e.fmuladd((x - high) * exponent, x + high, r))
    return shrink_by_power(e, e.fmuladd(factor, power, factor), shifted)


def quotient(e: Emitter, x: Value, parts: tuple[Sequence[float], Sequence[float]]) -> Value:
    """Return the quotient of two polynomials in ``x``."""
    return e.polynomial(x, parts[0]) / e.polynomial(x, parts[1])


def centred_quotient(e: Emitter, x: Value, centre: float, coefficients: Sequence[float]) -> Value:
    """Return a polynomial in ``(x - c) / (x + c)``, divided by ``x + c``, for the ``centre``
    ``c``.
    """
    scale = 1.0 / (x + centre)
    return scale * e.polynomial(e.fmuladd(scale, -2.0 * centre, 1.0), coefficients)


def erfc_positive(e: Emitter, magnitude: Value) -> Value:
    """Return ``erfc(magnitude)``."""
    limited = e.at_most(magnitude, SCALED_ERFC_LIMIT[e.bits])
    if e.is_single:
        scaled = centred_quotient(e, limited, SCALED_ERFC_CENTRE, SCALED_ERFC_SINGLE)
    else:
        scaled = quotient(e, limited, SCALED_ERFC_DOUBLE)
    return gaussian(e, limited, -1.0, scaled)


def erfc(e: Emitter, x: Value) -> Value:
    """``1 - erf(x)``, relatively accurate in the positive tail down to the denormals.

    Error at most 6 ulp.
    """
    tail = erfc_positive(e, e.abs(x))
    return e.select(x < 0.0, 2.0 - tail, tail)


def erf(e: Emitter, x: Value) -> Value:
    """``2/sqrt(pi) * integral of exp(-t^2) from 0 to x``.

    Error at most 6 ulp in 32 bits (just below one, on CPUs without fused multiply-add).
    """
    if e.is_single:
        limited = e.clamp(x, -ERF_LIMIT, ERF_LIMIT)
        z = limited * limited
        return e.clamp(limited * e.polynomial(z, ERF_P) / e.polynomial(z, ERF_Q), -1.0, 1.0)
    magnitude = e.abs(x)
    near = e.fmuladd(x, e.polynomial(x * x, ERF_SMALL), x)
    far = e.copysign(1.0 - erfc_positive(e, magnitude), x)
    return e.select(magnitude < ERF_SMALL_LIMIT, near, far)


def gelu_erf(e: Emitter, x: Value) -> Value:
    """``x Phi(x) = x (1 + erf(x / sqrt(2))) / 2``, relatively accurate in the negative tail.

    Error at most 6 ulp in 64 bits and 7 in 32; there, on CPUs without fused multiply-add, up to 90
    as ``x`` nears -13.
    """
    t = e.at_most(e.abs(x), MILLS_LIMIT[e.bits])
    tail = gelu_tail_single(e, t) if e.is_single else gelu_tail_double(e, t)
    return e.at_least(x, -0.0) - tail


def gelu_tail_double(e: Emitter, t: Value) -> Value:
    """Return ``t Phi(-t)``."""
    return gaussian(e, t, -0.5, t * quotient(e, t, MILLS_DOUBLE))


def gelu_tail_single(e: Emitter, t: Value) -> Value:
    """Return ``t Phi(-t)``; a fused multiply-add subtracts from the exact square."""
    n, shifted = round_scaled(e, t * t, -0.5 * LOG2_E, shrink_offset(e))
    rest = e.fmuladd(t, t, n * (2.0 * LN2_HIGH[32]))
    power = e.polynomial(e.fmuladd(n, 2.0 * LN2_LOW[32], rest), MILLS_POWER)
    top, bottom = (e.monic(t, part) for part in MILLS_SINGLE)
    return shrink_by_power(e, power * (t * top / bottom), shifted)


def erfinv(e: Emitter, x: Value) -> Value:
    """The ``y`` with ``erf(y) = x``; infinite at one, NaN beyond.

    After M. Giles, "Approximating the erfinv function" (2010).
    """
    magnitude = e.abs(x)
    inside = magnitude < 1.0
    limited = e.select(inside, x, 0.0)
    w = -log_finite(e, (1.0 - limited) * (1.0 + limited))
    root = e.sqrt(w)
    pieces = e.pick(ERFINV_SINGLE, ERFINV_DOUBLE)
    (limit, centre, coefficients), *further = pieces
    ratio = e.polynomial(w - centre, coefficients)
    for reach, centre, coefficients in further:
        ratio = e.select(w < limit, ratio, e.polynomial(root - centre, coefficients))
        limit = reach
    edge = e.select(magnitude.equals(1.0), e.copysign(e.constant(math.inf), x), math.nan)
    return e.select(inside, limited * ratio, edge)
