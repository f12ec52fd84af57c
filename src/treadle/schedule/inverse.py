"""Index maps solved for their variables: from the values of the results back to the indices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Expr, Var, eq, int_value, substitute, variables
from treadle.expr.simplify import simplify
from treadle.ir.tensor import ONE, ZERO
from treadle.schedule.digits import Digit, digits, source_extent, stacked, weight_order


def inverse(
    results: Sequence[Expr], extents: Mapping[Var, Expr], places: Sequence[Expr], facts: Facts
) -> dict[Var, Expr] | None:
    """What each variable of ``extents`` is where the results have the values ``places``; ``None``
    where it cannot be told.

    ``facts`` must know the ranges of the variables. At places that no index goes to, the answer
    means nothing.
    """
    solver = _Solver(extents, facts)
    waiting = list(zip(results, places, strict=True))
    while waiting:
        rest = [item for item in waiting if not solver.learns(*item)] + solver.found
        if len(rest) == len(waiting) and not solver.found:
            break
        waiting, solver.found = rest, []
    found = {v: ZERO if prove(e <= 1, facts) else solver.values.get(v) for v, e in extents.items()}
    if any(value is None for value in found.values()):
        return None
    return {v: value for v, value in found.items() if value is not None}


@dataclass
class _Solver:
    """What is known of variables, and of sums that digits are taken of."""

    extents: Mapping[Var, Expr]
    facts: Facts
    values: dict[Expr, Expr] = field(default_factory=dict[Expr, Expr])
    parts: dict[Expr, list[tuple[Digit, Expr]]] = field(
        default_factory=dict[Expr, list[tuple[Digit, Expr]]]
    )
    found: list[tuple[Expr, Expr]] = field(default_factory=list[tuple[Expr, Expr]])

    def learns(self, e: Expr, value: Expr) -> bool:
        """Take in that ``e`` is ``value``; false where that tells nothing yet."""
        still = {v: n for v, n in self.extents.items() if v not in self.values}
        if not any(v in still for v in variables(e)):
            return True
        upright = self._upright(e, value, still)
        if upright is None:
            return False
        parts, x, value = upright
        terms = [d.coefficient * _digit(d, d.source) for d in parts]
        rest = simplify(x - sum(terms, start=ZERO), self.facts)
        if any(v in still for v in variables(rest)):
            return False
        known = {v: value for v, value in self.values.items() if isinstance(v, Var)}
        value = value - substitute(rest, known)
        for d in (d for d in parts if d.source in self.values):
            value = value - d.coefficient * _digit(d, self.values[d.source])
        unknown = tuple(d for d in parts if d.source not in self.values)
        if not stacked(unknown, self.extents, self.facts):
            return False
        for d in sorted(unknown, key=lambda d: weight_order(d.coefficient), reverse=True):
            one = int_value(d.coefficient) == 1
            self._piece(d, value if one else value // d.coefficient)
            value = ZERO if one else value % d.coefficient
        return True

    def _upright(
        self, e: Expr, value: Expr, still: Mapping[Var, Expr]
    ) -> tuple[tuple[Digit, ...], Expr, Expr] | None:
        """``e == value`` with ``e`` a sum of digits, turned round where that makes it one."""
        turned = simplify(ZERO - e, self.facts)
        for x, v in ((e, value), (simplify(e, self.facts), value), (turned, ZERO - value)):
            parts = digits(x, still)
            if parts is not None:
                return parts, x, v
        return None

    def _piece(self, digit: Digit, value: Expr) -> None:
        known = self.parts.setdefault(digit.source, [])
        known.append((digit, value))
        source = digit.source
        extent = source_extent(source, self.extents, self.facts)
        whole = None if extent is None else _joined(known, extent, self.facts)
        if whole is not None and source not in self.values:
            self.values[source] = whole
            if source not in self.extents:
                self.found.append((source, whole))


def _digit(d: Digit, source: Expr) -> Expr:
    part = source if d.divisor is ONE else source // d.divisor
    return part if d.modulus is None else part % d.modulus


def _joined(known: Sequence[tuple[Digit, Expr]], extent: Expr, facts: Facts) -> Expr | None:
    """The number that has these digits, if they are all that a number below ``extent`` has."""
    total: Expr = ZERO
    reach: Expr = ONE
    rest = list(known)
    while rest:
        following = next((k for k in rest if prove(eq(k[0].divisor, reach), facts)), None)
        if following is None:
            return None
        rest.remove(following)
        digit, value = following
        total = total + value * reach
        if digit.modulus is None or prove(extent <= reach * digit.modulus, facts):
            return total
        reach = simplify(reach * digit.modulus, facts)
    return None
