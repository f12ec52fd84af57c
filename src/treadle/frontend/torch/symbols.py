"""Symbolic sizes: SymPy expressions of PyTorch's shape environment as scalar expressions."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import count
from typing import Any

import torch

from treadle.expr.dtype import boolean, f64, i64
from treadle.expr.scalar import (
    Const,
    Expr,
    Var,
    apply,
    cast,
    eq,
    int_value,
    maximum,
    minimum,
    ne,
    select,
)
from treadle.expr.simplify import simplify

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class UnknownSymbol(LookupError):
    """A size that depends on data, or a function of sizes that has no translation; says which."""


@dataclass(eq=False)
class Symbols:
    """The symbols of one exported program, and what the user calls them.

    ``names`` maps PyTorch's names (``s77``) to readable ones. The symbols of ``known`` that are
    ``late`` are sizes that data give while the program runs; one that neither an input nor an
    operation introduced is refused.
    """

    names: Mapping[str, str] = field(default_factory=dict[str, str])
    known: dict[str, Var] = field(default_factory=dict[str, Var])
    late: set[Var] = field(default_factory=set[Var])

    def introduce(self, theirs: str, late: str | None = None) -> Var:
        """The variable of a symbol that an input's shape has, or (one that would like the name
        ``late``) of one that data give.
        """
        if theirs not in self.known:
            taken = {*self.names.values(), *(v.name for v in self.known.values())}
            wanted = late if late is not None and late not in taken else None
            self.known[theirs] = Var(self.names.get(theirs) or wanted or self._unused())
            if late is not None:
                self.late.add(self.known[theirs])
        return self.known[theirs]

    def _unused(self) -> str:
        taken = {*self.names.values(), *(v.name for v in self.known.values())}
        return next(name for k in count() if (name := f"s{k}") not in taken)

    def introduce_all(self, value: Any) -> None:
        """Introduce every symbol in a tensor's shape, or in a symbolic number."""
        sizes = value.shape if isinstance(value, torch.Tensor) else (value,)
        for size in sizes:
            if isinstance(size, SYMBOLIC):
                for symbol in sorted(size.node.expr.free_symbols, key=str):
                    self.introduce(str(symbol))

    def expr(self, value: Any) -> Expr:
        """A number (int, float, bool or symbolic) as an expression of i64, f64 or bool.

        Raises:
            UnknownSymbol: where it depends on data, or has no translation.
        """
        if isinstance(value, SYMBOLIC):
            return simplify(self.translate(value.node.expr))
        if isinstance(value, bool):
            return Const(value, boolean)
        return Const(value, f64 if isinstance(value, float) else i64)

    def dims(self, tensor: torch.Tensor) -> tuple[Expr, ...]:
        """The shape of a tensor."""
        return tuple(self.expr(d) for d in tensor.shape)

    def translate(self, expression: Any) -> Expr:
        """A SymPy expression as one of ours."""
        kind = type(expression).__name__
        if kind == "Symbol":
            found = self.known.get(str(expression))
            if found is None:
                raise UnknownSymbol(f"the size {expression} depends on data")
            return found
        leaf = _leaf(expression)
        if leaf is not None:
            return leaf
        function = _FUNCTIONS.get(kind)
        if function is None:
            raise UnknownSymbol(f"there is no translation of {kind} in {expression}")
        return function(*(self.translate(a) for a in expression.args))


def _leaf(expression: Any) -> Expr | None:
    if getattr(expression, "is_Boolean", False) and expression in (True, False):
        return Const(bool(expression), boolean)
    if getattr(expression, "is_Integer", False):
        return Const(int(expression), i64)
    if getattr(expression, "is_Float", False):
        return Const(float(expression), f64)
    if getattr(expression, "is_Rational", False):
        return Const(int(expression.p) / int(expression.q), f64)
    if type(expression).__name__ in ("IntInfinity", "Infinity"):
        return Const((1 << 63) - 1, i64)
    return None


def _fold(fn: Callable[[Expr, Expr], Expr]) -> Callable[..., Expr]:
    """A function of any number of operands, from one of two; one float makes all floats."""

    def folded(*xs: Expr) -> Expr:
        floating = any(x.dtype.is_float for x in xs)
        return reduce(fn, [_float(x) for x in xs] if floating else xs)

    return folded


def _float(x: Expr) -> Expr:
    return cast(x, f64)


def _power(base: Expr, exponent: Expr) -> Expr:
    count = int_value(exponent)
    if base.dtype.is_float or count is None or count < 0:
        return apply("pow", _float(base), _float(exponent))
    return reduce(lambda a, b: a * b, [base] * count, Const(1, i64))


def _integer(fn: str) -> Callable[[Expr], Expr]:
    def rounded(x: Expr) -> Expr:
        return x if x.dtype is i64 else cast(apply(fn, x), i64)

    return rounded


def _modular(x: Expr, divisor: Expr, modulus: Expr) -> Expr:
    return (x // divisor) % modulus


def _float_function(fn: str) -> Callable[[Expr], Expr]:
    def applied(x: Expr) -> Expr:
        value = _float(x)
        if fn == "sqrt" and isinstance(value, Const):
            return Const(math.sqrt(value.value), f64)
        return apply(fn, value)

    return applied


_FUNCTIONS: dict[str, Callable[..., Expr]] = {
    "Add": _fold(lambda a, b: a + b),
    "Mul": _fold(lambda a, b: a * b),
    "Max": _fold(maximum),
    "Min": _fold(minimum),
    "Pow": _power,
    "PowByNatural": _power,
    "FloatPow": _power,
    "FloorDiv": lambda a, b: a // b,
    "CleanDiv": lambda a, b: a // b,
    "CeilDiv": lambda a, b: -((-a) // b),
    "Mod": lambda a, b: a % b,
    "PythonMod": lambda a, b: a % b,
    "ModularIndexing": _modular,
    "IntTrueDiv": lambda a, b: _float(a) / _float(b),
    "FloatTrueDiv": lambda a, b: _float(a) / _float(b),
    "ToFloat": _float,
    "Identity": lambda a: a,
    "TruncToInt": _integer("trunc"),
    "FloorToInt": _integer("floor"),
    "CeilToInt": _integer("ceil"),
    "RoundToInt": _integer("round"),
    "Abs": lambda a: apply("abs", a),
    "Where": select,
    "Equality": eq,
    "Unequality": ne,
    "StrictLessThan": lambda a, b: a < b,
    "LessThan": lambda a, b: a <= b,
    "StrictGreaterThan": lambda a, b: a > b,
    "GreaterThan": lambda a, b: a >= b,
    "And": _fold(lambda a, b: a & b),
    "Or": _fold(lambda a, b: a | b),
    "Not": lambda a: ~a,
    **{
        f"OpaqueUnaryFn_{fn}": _float_function(fn)
        for fn in ("sqrt", "exp", "log", "log2", "sin", "cos", "tan", "sinh", "cosh", "tanh")
    },
}


def range_facts(constraints: Mapping[Any, Any], symbols: Symbols) -> list[Expr]:
    """What PyTorch assumes of the ranges of symbols."""
    facts: list[Expr] = []
    for theirs, bounds in constraints.items():
        var = symbols.known.get(str(theirs))
        if var is None:
            continue
        low, high = _bound(bounds.lower), _bound(bounds.upper)
        facts.append(var >= (0 if low is None else low))
        if high is not None:
            facts.append(var <= high)
    return facts


def _bound(value: Any) -> int | None:
    return int(value) if getattr(value, "is_Integer", False) and abs(int(value)) < 1 << 62 else None
