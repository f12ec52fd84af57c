"""How values fit the types that a function declares: symbols found, claims left for the run time.

What a call gives is deduced from the callee's signature alone, never from its body (Relax, arXiv
2311.02103, §4.1). A value of a coarser type may be given where a finer one is declared; what cannot
be shown then is a claim that the program tests where it enters the function.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from treadle.base.errors import InternalError
from treadle.expr.bounds import EMPTY, Facts, prove
from treadle.expr.scalar import Expr, Var, eq, int_value, maximum, substitute, variables
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.types import ShapeType, TensorType, Type

Pair = tuple[Expr, Expr]
"""A dimension as a type writes it, over the symbols to be found, and what it is here."""


class Fit(IntEnum):
    """How a value of one type fits another, from never to always."""

    DISJOINT = 0
    """No value is of both types: another element type or number of dimensions."""
    DIFFERENT = 1
    """Dimensions that are known differ."""
    CHECKED = 2
    """That depends on symbols: the program tests it when it runs."""
    SURE = 3
    """It is shown that each value fits."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Symbols as expressions of what the dimensions are, and what must hold of the symbols for
    these to be the only values.
    """

    values: dict[Var, Expr]
    conditions: tuple[Expr, ...] = ()


def solve(pairs: Sequence[Pair], known: Iterable[Var] = ()) -> Solution:
    """The symbols in the first expressions that make them equal to the second.

    A dimension that is a symbol gives it. One that is linear in a single symbol gives it by a
    division, by a number or by an expression of symbols that are found (``n * m`` gives ``n`` once
    ``m`` is known, if that is at least 1). Symbols that are ``known`` keep their meaning. What
    cannot be found is left out.
    """
    values: dict[Var, Expr] = {v: v for v in known}
    conditions: list[Expr] = []
    for dim, actual in pairs:
        if isinstance(dim, Var):
            values.setdefault(dim, actual)
    waiting = [p for p in pairs if any(v not in values for v in variables(p[0]))]
    while waiting:
        left = [p for p in waiting if not _settled(*p, values, conditions)]
        if len(left) == len(waiting):
            break
        waiting = left
    return Solution(values, tuple(conditions))


def _settled(dim: Expr, actual: Expr, values: dict[Var, Expr], conditions: list[Expr]) -> bool:
    """Whether a dimension has no unknown symbol, or its only one is found by it."""
    unknown = [v for v in variables(dim) if v not in values]
    if len(unknown) != 1:
        return not unknown
    linear = split_linear(dim, unknown[0])
    if linear is None or unknown[0] in variables(*linear):
        return False
    scale, rest = (substitute(x, values) for x in linear)
    number = int_value(scale)
    if number == 0:
        return False
    if number is None:
        conditions.append(linear[0] >= 1)
        scale = maximum(scale, 1)
    values[unknown[0]] = simplify((actual - rest) // scale)
    return True


@dataclass(slots=True)
class Match:
    """Values against the types that are declared for them: ``symbols`` of the declaration as
    expressions of the values' dimensions, ``claims`` that are left to test, and how all fit.

    ``open`` are symbols that the values do not tell.
    """

    fit: Fit = Fit.SURE
    symbols: dict[Var, Expr] = field(default_factory=dict[Var, Expr])
    claims: tuple[Expr, ...] = ()
    open: tuple[Var, ...] = ()

    def lower(self, fit: Fit) -> None:
        """Note that something fits only so well."""
        self.fit = min(self.fit, fit)


def match(
    given: Sequence[Type],
    wanted: Sequence[Type],
    *,
    known: Iterable[Var] = (),
    facts: Facts = EMPTY,
) -> Match:
    """How values of types ``given`` fit declared types, whose symbols stand for themselves where
    ``known``, and else for what the values tell.
    """
    found = Match()
    pairs: list[Pair] = []
    for a, b in zip(given, wanted, strict=True):
        found.lower(_pairs(a, b, pairs))
    mine = set(known)
    own = {v: Var(f"{v.name}'", v.dtype) for d, _ in pairs for v in variables(d) if v not in mine}
    outer = frozenset((*mine, *(v for _, a in pairs for v in variables(a))))
    asked = [(substitute(d, own), a) for d, a in pairs]
    solution = solve(asked, outer)
    found.symbols = {v: solution.values[o] for v, o in own.items() if o in solution.values}
    found.open = tuple(v for v, o in own.items() if o not in solution.values)
    claims = [eq(substitute(d, solution.values), a) for d, a in asked if not _equal(d, a, solution)]
    claims += [substitute(c, solution.values) for c in solution.conditions]
    claims += [x >= 0 for x in solution.values.values() if not isinstance(x, Var)]
    found.claims = tuple(c for c in claims if not prove(c, facts))
    if found.claims or found.open:
        found.lower(Fit.CHECKED)
    if any(_never(d, a, solution) for d, a in asked):
        found.lower(Fit.DIFFERENT)
    return found


def _pairs(given: Type, wanted: Type, pairs: list[Pair]) -> Fit:
    """Add the dimensions that two types of one kind compare; how the kinds fit."""
    if isinstance(given, ShapeType) or isinstance(wanted, ShapeType):
        if not isinstance(given, ShapeType) or not isinstance(wanted, ShapeType):
            return Fit.DISJOINT
        if len(given.dims) != len(wanted.dims):
            return Fit.DISJOINT
        pairs.extend(zip(wanted.dims, given.dims, strict=True))
        return Fit.SURE
    if given.dtype != wanted.dtype or given.ndim != wanted.ndim:
        return Fit.DISJOINT
    if wanted.shape is None:
        return Fit.SURE
    if given.shape is None:
        return Fit.CHECKED
    pairs.extend(zip(wanted.shape, given.shape, strict=True))
    return Fit.SURE


def _difference(dim: Expr, actual: Expr, solution: Solution) -> Expr:
    return simplify(substitute(dim, solution.values) - actual)


def _equal(dim: Expr, actual: Expr, solution: Solution) -> bool:
    return int_value(_difference(dim, actual, solution)) == 0


def _never(dim: Expr, actual: Expr, solution: Solution) -> bool:
    return int_value(_difference(dim, actual, solution)) not in (0, None)


def fit(given: Type, wanted: Type, facts: Facts = EMPTY) -> Fit:
    """How a value of one type fits another over the same symbols."""
    symbols = {v for t in (given, wanted) for v in variables(*_dims(t))}
    return match((given,), (wanted,), known=symbols, facts=facts).fit


def _dims(type_: Type) -> tuple[Expr, ...]:
    return type_.dims if isinstance(type_, ShapeType) else type_.shape or ()


def results_of(
    params: Sequence[Type], results: Sequence[Type], given: Sequence[Type]
) -> tuple[Type, ...]:
    """The types of the results of a call with operands of types ``given``, by the signature alone.

    Where a dimension has a symbol that the operands do not tell, only the rank is known.
    """
    found = match(given, params)
    return tuple(_result(r, found.symbols) for r in results)


def _result(type_: Type, symbols: Mapping[Var, Expr]) -> Type:
    dims = _dims(type_)
    known = all(v in symbols for v in variables(*dims))
    if isinstance(type_, ShapeType):
        if not known:
            raise InternalError(f"a function returns {type_}, whose symbols no operand tells")
        return ShapeType(tuple(simplify(substitute(d, symbols)) for d in dims))
    if type_.shape is None or not known:
        return TensorType(None, type_.ndim, type_.dtype)
    return TensorType(
        tuple(simplify(substitute(d, symbols)) for d in dims), type_.ndim, type_.dtype
    )
