"""Proofs that a polynomial of integers is at least zero, by elimination under symbolic bounds.

``p = A * x + B`` is at least zero if ``A`` is and ``A * low + B`` is, where ``low <= x`` is known;
likewise for upper bounds. Bounds come from facts, from what quotients, remainders, minima and
maxima are, and from intervals. The search goes depth first from the atoms that depend on others to
those that do not, and stops when its fuel is spent: it proves only what holds, but not everything
that holds.
"""

from collections.abc import Iterator
from math import gcd

from treadle.expr.dtype import i64
from treadle.expr.facts import Known, negated, order_poly
from treadle.expr.intervals import EVERYTHING, INTERVALS, Interval, whole
from treadle.expr.scalar import Apply, Const, Expr, Var, apply
from treadle.expr.terms import Monomial, Poly, atom, quotient, to_poly

_FUEL = 300
_DEPTH = 12


class Prover:
    """Answers questions under one set of facts, and remembers the answers."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self._intervals: dict[Expr, Interval] = {}
        self._proved: set[Poly] = set()
        self._failed: dict[Poly, int] = {}
        self._fuel = 0

    def nonnegative(self, p: Poly) -> bool:
        """Whether ``p >= 0`` is shown for all values that the facts allow."""
        self._fuel = _FUEL
        return self._prove(p, _DEPTH)

    def interval(self, x: Expr) -> Interval:
        """Bounds of an integer or boolean expression, as numbers."""
        if isinstance(x, Const):
            return EVERYTHING if x.dtype.is_float else Interval(int(x.value), int(x.value))
        found = self._intervals.get(x)
        if found is None:
            # While this is worked out, facts that lead back to it find it unbounded.
            self._intervals[x] = whole(x.dtype.scalar)
            found = self._intervals[x] = self._interval(x)
        return found

    def interval_of_poly(self, p: Poly) -> Interval:
        """Bounds of a polynomial."""
        total = Interval(p.constant, p.constant)
        for monomial, coefficient in p.terms.items():
            if monomial:
                part = self.interval(monomial[0])
                for x in monomial[1:]:
                    part = part * self.interval(x)
                total = total + part.scaled(coefficient)
        return total

    def _interval(self, x: Expr) -> Interval:
        bounds = whole(x.dtype.scalar)
        if isinstance(x, Apply):
            bounds = self._apply_interval(x, bounds)
        if x.dtype is i64:
            bounds = bounds.meet(self._constrained(x))
        return bounds

    def _apply_interval(self, x: Apply, bounds: Interval) -> Interval:
        if x.dtype.is_float:
            return EVERYTHING
        if x.fn == "select":
            return self.interval(x.args[1]).join(self.interval(x.args[2]))
        if x.fn == "cast" and not x.args[0].dtype.is_float:
            inner = self.interval(x.args[0])
            return inner if inner.inside(bounds) or x.dtype.is_bool else bounds
        if x.fn == "broadcast":
            return self.interval(x.args[0])
        rule = INTERVALS.get(x.fn)
        if rule is None or x.dtype.is_bool:
            return bounds
        if x.dtype is i64 and x.fn in ("add", "sub", "mul", "neg"):
            return self.interval_of_poly(to_poly(x))
        found = rule(*[self.interval(a) for a in x.args])
        # Narrow types wrap around: an interval that leaves the type says nothing.
        return found if found.inside(bounds) else bounds

    def _constrained(self, x: Expr) -> Interval:
        """What facts that are linear in ``x`` say of it."""
        bounds = EVERYTHING
        for coefficient, p in self.known.by_monomial.get((x,), ()):
            rest = Poly({m: c for m, c in p.terms.items() if m != (x,)})
            if any(a is x for a in rest.atoms()):
                continue
            high = self.interval_of_poly(rest).high
            if high is None:
                continue
            if coefficient > 0:
                bounds = bounds.meet(Interval(-(high // coefficient), None))
            else:
                bounds = bounds.meet(Interval(None, high // -coefficient))
        return bounds

    def _prove(self, p: Poly, depth: int) -> bool:
        if p.is_constant:
            return p.constant >= 0
        factor = p.content()
        if factor > 1:
            p = p.divided(factor)
        if p in self._proved:
            return True
        bounds = self.interval_of_poly(p)
        if bounds.nonnegative:
            return True
        if (bounds.high is not None and bounds.high < 0) or depth <= 0 or self._fuel <= 0:
            return False
        if self._failed.get(p, 0) >= depth:
            return False
        # Set before the search, so that a bound that leads back here does not go round.
        self._failed[p] = depth
        if any(self._eliminate(p, x, depth) for x in self._order(p)):
            self._proved.add(p)
            return True
        if self._fuel <= 0:
            del self._failed[p]
        return False

    def _order(self, p: Poly) -> list[Expr]:
        """Atoms, those first whose bounds mention others."""
        return sorted(p.atoms(), key=self._dependence, reverse=True)

    def _dependence(self, x: Expr) -> tuple[int, int, str]:
        if isinstance(x, Var):
            return 0, self.known.rank.get(x, 0), x.name
        return _height(x), 0, ""

    def _eliminate(self, p: Poly, x: Expr, depth: int) -> bool:
        if isinstance(x, Apply) and x.fn in ("min", "max", "select", "abs"):
            return self._by_cases(p, x, depth)
        for monomial, coefficient, bound in self._bounds(p, x):
            if self._step(p, monomial, coefficient, bound, depth):
                return True
        return False

    def _step(self, p: Poly, monomial: Monomial, coefficient: int, bound: Poly, depth: int) -> bool:
        """Prove ``p`` from ``bound >= 0``, whose term in ``monomial`` cancels those of ``p``."""
        inside, _ = p.split(monomial)
        if not inside.terms or self._fuel <= 0:
            return False
        self._fuel -= 1
        size = abs(coefficient)
        factor = inside if coefficient > 0 else -inside
        if not self._sign_is_known(factor, depth):
            return False
        content = gcd(size, *factor.terms.values())
        scale = size // content
        times = factor.divided(content)
        # An integer p is at least zero exactly when scale * p is above -scale.
        rest = p * scale - times * bound + (scale - 1)
        return self._prove(rest, depth - 1)

    def _sign_is_known(self, factor: Poly, depth: int) -> bool:
        return factor.constant >= 0 if factor.is_constant else self._prove(factor, depth - 2)

    def _bounds(self, p: Poly, x: Expr) -> Iterator[tuple[Monomial, int, Poly]]:
        """Polynomials that are at least zero, with the product (a multiple of ``x``) they bound."""
        if isinstance(x, Apply):
            for bound in self._definition(x):
                yield from _occurrences(bound, x, p)
        for bound in self.known.by_atom.get(x, ()):
            yield from _occurrences(bound, x, p)
        numbers = self.interval(x)
        if numbers.low is not None:
            yield (x,), 1, atom(x) - numbers.low
        if numbers.high is not None:
            yield (x,), -1, -atom(x) + numbers.high

    def _definition(self, x: Apply) -> Iterator[Poly]:
        if x.fn not in ("floordiv", "mod") or x.dtype is not i64:
            return
        a, d = to_poly(x.args[0]), to_poly(x.args[1])
        if not self._prove(d - 1, 4):
            return
        itself = atom(x)
        if x.fn == "floordiv":
            yield a - d * itself
            yield d * itself + d - 1 - a
            if self._prove(a, 4):
                yield itself
                yield a - itself
            return
        yield itself
        yield d - 1 - itself
        whole_part = d * atom(apply("floordiv", x.args[0], x.args[1]))
        yield itself - a + whole_part
        yield a - whole_part - itself
        if self._prove(a, 4):
            yield a - itself

    def _by_cases(self, p: Poly, x: Apply, depth: int) -> bool:
        if x.fn == "abs":
            values = (to_poly(x.args[0]), -to_poly(x.args[0]))
        else:
            values = tuple(to_poly(a) for a in x.args[-2:])
        if all(self._prove(substituted(p, x, v), depth - 1) for v in values):
            return True
        if x.fn == "select":
            return False
        # A minimum is at most either operand, so one suffices where a greater value would do;
        # likewise a maximum.
        inside, _ = p.split((x,))
        factor = -inside if x.fn == "min" else inside
        if any(a is x for a in inside.atoms()) or not self._sign_is_known(factor, depth):
            return False
        return any(self._prove(substituted(p, x, v), depth - 1) for v in values)

    def compare(self, fn: str, a: Poly, b: Poly) -> bool | None:
        """Whether a comparison always holds, never holds (``False``), or neither is shown."""
        if fn in ("eq", "ne"):
            verdict = self._equal(a - b)
            return verdict if fn == "eq" or verdict is None else not verdict
        if self.nonnegative(order_poly(fn, a, b)):
            return True
        p = order_poly(fn, a, b)
        return False if self.nonnegative(-p - 1) else None

    def _equal(self, difference: Poly) -> bool | None:
        if difference.is_constant:
            return difference.constant == 0
        if difference.constant % difference.content():
            return False
        above, below = self.nonnegative(difference), self.nonnegative(-difference)
        if above and below:
            return True
        if above and self.nonnegative(difference - 1):
            return False
        return False if below and self.nonnegative(-difference - 1) else None


def holds(claim: Expr, prover: Prover) -> bool:
    """Whether a boolean expression is shown to be true."""
    if isinstance(claim, Const):
        return bool(claim.value)
    if claim in prover.known.truths:
        return True
    if not isinstance(claim, Apply):
        return False
    if claim.fn == "and":
        return all(holds(x, prover) for x in claim.args)
    if claim.fn == "or":
        return any(holds(x, prover) for x in claim.args)
    if claim.fn == "invert":
        inner = claim.args[0]
        opposite = negated(inner)
        return inner in prover.known.falsehoods or (
            opposite is not None and holds(opposite, prover)
        )
    if claim.args[0].dtype is i64 and claim.fn in ("eq", "ne", "lt", "le", "gt", "ge"):
        return prover.compare(claim.fn, to_poly(claim.args[0]), to_poly(claim.args[1])) is True
    return False


def substituted(p: Poly, x: Expr, value: Poly) -> Poly:
    """``p`` with a polynomial for an atom (not for what stands inside other atoms)."""
    inside, rest = p.split((x,))
    while inside.terms:
        again, lower = inside.split((x,))
        rest = rest + lower * value
        # What is left is quadratic in x: one factor of it becomes the value, the other is next.
        inside = again * value
    return rest


def _occurrences(bound: Poly, x: Expr, p: Poly) -> Iterator[tuple[Monomial, int, Poly]]:
    for monomial, coefficient in bound.terms.items():
        if x in monomial and any(quotient(m, monomial) is not None for m in p.terms):
            yield monomial, coefficient, bound


def _height(x: Expr) -> int:
    return 1 + max((_height(c) for c in x.children), default=0)
