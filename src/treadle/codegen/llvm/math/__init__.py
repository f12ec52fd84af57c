"""Vector math functions as LLVM text.

Every function is a polynomial or rational approximation of ours, written once for 32 and 64 bits
and any number of lanes, with no call into libm, no table (but the bits of 2/pi) and no branch
(but the one to a cold function when an argument of ``sin``, ``cos`` or ``tan`` exceeds 2^20).
NaN, infinities, zeros of both signs and denormals behave as in NumPy. Errors are at most 4 units
in the last place unless a function's docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType

from treadle.codegen.llvm.math import (
    error_function,
    exponential,
    gamma,
    inverse,
    logarithm,
    power,
    trigonometric,
)
from treadle.codegen.llvm.math.emitter import FORMATS, Emitter, Value

__all__ = ["MATH_FUNCTIONS", "MathFunction", "arity", "link_math", "math_function"]

Definition = Callable[..., Value]

UNARY: tuple[Definition, ...] = (
    exponential.exp,
    exponential.exp2,
    exponential.expm1,
    exponential.sinh,
    exponential.cosh,
    exponential.tanh,
    exponential.sigmoid,
    logarithm.log,
    logarithm.log2,
    logarithm.log10,
    logarithm.log1p,
    logarithm.asinh,
    logarithm.acosh,
    logarithm.atanh,
    trigonometric.sin,
    trigonometric.cos,
    trigonometric.tan,
    inverse.asin,
    inverse.acos,
    inverse.atan,
    error_function.erf,
    error_function.erfc,
    error_function.gelu_erf,
    error_function.erfinv,
    gamma.lgamma,
    power.rsqrt,
    power.cbrt,
)
BINARY: Mapping[str, Definition] = MappingProxyType({"atan2": inverse.atan2, "pow": power.power})

# What CPUs have that multiply by powers of two in one instruction.
SCALING = frozenset({"avx512f", "avx512vl"})

MATH_FUNCTIONS: Mapping[str, Definition] = MappingProxyType({f.__name__: f for f in UNARY} | BINARY)


@dataclass(frozen=True)
class MathFunction:
    """One function as LLVM text.

    Attributes:
        symbol: the global name, ``@`` and quotes included, as a call writes it.
        text: the whole ``define``.
        declares: lines that must stand once in the module: intrinsics and constant tables.
        requires: further functions called, as arguments of :func:`math_function`.
    """

    symbol: str
    text: str
    declares: tuple[str, ...]
    requires: tuple[tuple[str, int, int], ...]


def arity(name: str) -> int:
    """Return how many arguments the function ``name`` takes.

    Raises:
        KeyError: there is no such function.
    """
    return 2 if MATH_FUNCTIONS[name] in BINARY.values() else 1


def symbol_of(name: str, bits: int, lanes: int) -> str:
    """Return the global name of a function, for instance ``@"treadle.exp.v16f32"``."""
    return f'@"treadle.{name}.{"" if lanes == 1 else f"v{lanes}"}f{bits}"'


def math_function(
    name: str, bits: int, lanes: int, *, features: Set[str] = frozenset()
) -> MathFunction:
    """Return the function ``name`` for ``bits``-wide floats (32 or 64); one lane is a scalar.

    ``features`` are LLVM's names of the extensions that the CPU has. They choose instructions; the
    results do not depend on them.

    Raises:
        KeyError: there is no such function, or no such width.
    """
    symbol = symbol_of(name, bits, lanes)
    if name == "reduce_angle":
        return reduce_angle_function(symbol, lanes)
    e = Emitter(bits, lanes, scales=features >= SCALING)
    kind = FORMATS[bits].kind
    arguments = [Value(e, kind, f"%{letter}") for letter in "xy"[: arity(name)]]
    result = MATH_FUNCTIONS[name](e, *arguments)
    parameters = ", ".join(argument.typed for argument in arguments)
    header = f"define internal {result.type} {symbol}({parameters}) alwaysinline nounwind {{"
    text = "\n".join((header, "entry:", *e.lines, f"  ret {result.typed}", "}"))
    return MathFunction(symbol, text, tuple(e.declares), tuple(e.requires))


def reduce_angle_function(symbol: str, lanes: int) -> MathFunction:
    """Return the cold reduction of large angles, of one or of several lanes."""
    scalar = ("reduce_angle", 64, 1)
    if lanes > 1:
        text = trigonometric.reduce_large_lanes(lanes, symbol_of(*scalar), symbol)
        return MathFunction(symbol, text, (), (scalar,))
    e = Emitter(64, 1)
    result = trigonometric.reduce_large(e, Value(e, "double", "%x"))
    struct = "{double, double, i64}"
    header = f"define internal {struct} {symbol}(double %x) noinline cold nounwind {{"
    text = "\n".join((header, "entry:", *e.lines, f"  ret {struct} {result}", "}"))
    return MathFunction(symbol, text, tuple(e.declares), tuple(e.requires))


def link_math(*functions: tuple[str, int, int], features: Set[str] = frozenset()) -> str:
    """Return the text of ``functions`` and of all they require, each definition once.

    Raises:
        KeyError: one of them does not exist.
    """
    pending, definitions, declares = list(functions), dict[str, str](), dict[str, None]()
    while pending:
        function = math_function(*pending.pop(), features=features)
        if function.symbol in definitions:
            continue
        definitions[function.symbol] = function.text
        declares.update(dict.fromkeys(function.declares))
        pending += function.requires
    return "\n".join((*declares, *definitions.values()))
