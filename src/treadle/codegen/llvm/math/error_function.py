"""The error function and what is made of it: ``erf erfc gelu_erf``.

The tail uses Mills' ratio ``M(t) = exp(t^2/2) Q(t)``, ``Q`` the upper tail of the normal
distribution: smooth, and a quotient of two polynomials with positive coefficients over the whole
range. ``exp(-t^2/2)`` is taken of the exact square in two parts, so that relative accuracy holds
down to the smallest result.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.llvm.math.emitter import Emitter, Value
from treadle.codegen.llvm.math.exponential import exp_of_pair

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
# In 32 bits Mills' ratio times t + c is a polynomial in u = (t - c) / (t + c), which keeps
# rounding errors small: on [0, 14.5], relative error 2^-28.
MILLS_CENTRE = 3.0
MILLS_SINGLE = (
    0.7290837168693542, -0.509332001209259, 0.23001764714717865, -0.047262709587812424,
    -0.010462535545229912, 0.006969301961362362, 0.0010247851023450494, -0.001032531727105379,
    -0.0002447585866320878, 0.00013126051635481417, 5.445949136628769e-05,
)  # fmt: skip
# In 64 bits it is P(t) / Q(t), on [0, 38.8], relative error 2^-59.
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
# The same two forms of exp(x^2) erfc(x), which is twice Mills' ratio at sqrt(2) x, on [0, 10.25]
# and [0, 27.4].
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


def gaussian(e: Emitter, x: Value, exponent: float, factor: Value) -> Value:
    """Return ``factor * exp(exponent * x^2)``; ``exponent`` is a power of two, and ``x^2`` is not
    rounded.
    """
    high = e.high_half(x)
    return exp_of_pair(e, high * high * exponent, (x - high) * (x + high) * exponent, factor)


def quotient(e: Emitter, x: Value, parts: tuple[Sequence[float], Sequence[float]]) -> Value:
    """Return the quotient of two polynomials in ``x``."""
    return e.polynomial(x, parts[0]) / e.polynomial(x, parts[1])


def centred_quotient(e: Emitter, x: Value, centre: float, coefficients: Sequence[float]) -> Value:
    """Return a polynomial in ``(x - c) / (x + c)``, divided by ``x + c``, for the ``centre``
    ``c``.
    """
    scale = 1.0 / (x + centre)
    return scale * e.polynomial((x - centre) * scale, coefficients)


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

    Error at most 6 ulp.
    """
    limited = e.clamp(x, -MILLS_LIMIT[e.bits], MILLS_LIMIT[e.bits])
    if e.is_single:
        ratio = centred_quotient(e, e.abs(limited), MILLS_CENTRE, MILLS_SINGLE)
    else:
        ratio = quotient(e, e.abs(limited), MILLS_DOUBLE)
    tail = gaussian(e, limited, -0.5, limited * ratio)
    return e.select(x > 0.0, x - tail, tail)
