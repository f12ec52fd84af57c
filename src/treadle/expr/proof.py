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
from treadle.expr.intervals import EVERYTHING, INTERVALS, Interval, absolute, whole
from treadle.expr.samples import Samples
from treadle.expr.scalar import Apply, Const, Expr, Var, apply
from treadle.expr.terms import Monomial, Poly, atom, quotient, to_poly

_FIRST_FUEL = 12
_FUEL = 300
_DEPTH = 12
_NOWHERE = 1 << 30


class Prover:
    """Answers questions under one set of facts, and remembers the answers."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self._intervals: dict[Expr, Interval] = {}
        self._open: dict[Expr, int] = {}
        self._reached = _NOWHERE
        self._guesses: dict[Expr, int] = {}
        self._proved: set[Poly] = set()
        self._failed: dict[Poly, int] = {}
        self._refutations: set[Poly] = set()
        self._samples: Samples | None = None
        self._fuel = 0

    def nonnegative(self, p: Poly) -> bool:
        """Whether ``p >= 0`` is shown for all values that the facts allow."""
        if self.interval_of_poly(p).nonnegative:
            return True
        if p in self._refutations or (self._samples is not None and self._refuted(p)):
            return False
        self._fuel = _FIRST_FUEL
        if self._prove(p, _DEPTH):
            return True
        if self._fuel > 0 or (self._samples is None and self._refuted(p)):
            return False
        self._fuel = _FUEL
        return self._prove(p, _DEPTH)

    def _refuted(self, p: Poly) -> bool:
        """Whether a long search would be in vain, since an example contradicts the claim."""
        if self._samples is None:
            self._samples = Samples(self.known)
        refuted = self._samples.refute(p)
        if refuted:
            self._refutations.add(p)
        return refuted

    def interval(self, x: Expr) -> Interval:
        """Bounds of an integer or boolean expression, as numbers."""
        if isinstance(x, Const):
            return EVERYTHING if x.dtype.is_float else Interval(int(x.value), int(x.value))
        found = self._intervals.get(x)
        if found is None:
            return self._worked_out(x)
        if self._open:
            known = self._guesses.get(x, _NOWHERE)
            self._reached = min(self._reached, self._open.get(x, known))
        return found

    def _worked_out(self, x: Expr) -> Interval:
        """The interval of what is asked for the first time.

        Meanwhile, facts that lead back to it find it unbounded. What is found by way of that may be
        too wide, so it is forgotten when the first question is answered.
        """
        depth, outer = len(self._open), self._reached
        self._open[x], self._reached = depth, _NOWHERE
        self._intervals[x] = whole(x.dtype.scalar)
        found = self._intervals[x] = self._interval(x)
        del self._open[x]
        if self._reached < depth:
            self._guesses[x] = self._reached
        else:
            self._reached = _NOWHERE
        self._reached = min(outer, self._reached)
        if not depth:
            for guess in self._guesses:
                del self._intervals[guess]
            self._guesses.clear()
        return found

    def interval_of_poly(self, p: Poly) -> Interval:
        """Bounds of a polynomial."""
        total = Interval(p.constant, p.constant)
        for monomial, coefficient in p.terms.items():
            if monomial:
                part = self.interval(monomial[0])
                if len(monomial) > 1:
                    part = self._interval_of_product(monomial)
                total = total + part.scaled(coefficient)
        return total

    def _interval_of_product(self, monomial: Monomial) -> Interval:
        total = Interval(1, 1)
        for x in dict.fromkeys(monomial):
            power = monomial.count(x)
            base = self.interval(x)
            part = absolute(base) if power % 2 == 0 else base
            for _ in range(power):
                total = total * part
        return total

    def _interval(self, x: Expr) -> Interval:
        bounds = whole(x.dtype.scalar)
        if isinstance(x, Apply):
            bounds = self._apply_interval(x, bounds)
        if x.dtype is not i64:
            return bounds
        bounds = self._rounded(x, bounds.meet(self._constrained(x)))
        # What is known so far may show that another factor is positive, and that one this.
        self._intervals[x] = bounds
        return bounds.meet(Interval(1, None)) if self._factor_of_positive(x, bounds) else bounds

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

    def _rounded(self, x: Expr, bounds: Interval) -> Interval:
        """Bounds moved to the next numbers that leave the remainder which facts state."""
        low, high = bounds.low, bounds.high
        for fact in self.known.congruences:
            if fact.poly.terms == {(x,): 1}:
                if low is not None:
                    low += (fact.remainder - low) % fact.modulus
                if high is not None:
                    high -= (high - fact.remainder) % fact.modulus
        return Interval(low, high)

    def _factor_of_positive(self, x: Expr, bounds: Interval) -> bool:
        """Whether a product of which ``x`` is a factor is above zero, and no factor is below."""
        if bounds.low != 0:
            return False
        for p in self.known.by_atom.get(x, ()):
            products = [(m, c) for m, c in p.terms.items() if m]
            if len(products) == 1 and products[0][1] > 0 and p.constant < 0:
                others = [y for y in products[0][0] if y is not x]
                if all(self.interval(y).nonnegative for y in others):
                    return True
        return False

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
        return isinstance(x, Apply) and x.fn == "floordiv" and self._cross_multiplied(p, x, depth)

    def _cross_multiplied(self, p: Poly, x: Apply, depth: int) -> bool:
        """Prove ``p`` times the divisor of a quotient in it, which bounds what comes of that."""
        a, d = to_poly(x.args[0]), to_poly(x.args[1])
        inside, outside = p.split((x,))
        if d.is_constant or any(y is x for y in inside.atoms()) or self._fuel <= 0:
            return False
        self._fuel -= 1
        if not self._prove(d - 1, 4):
            return False
        # d * x is at most a and at least a - d + 1; an integer p is at least zero when d * p > -d.
        rest = outside * d + d - 1
        if self._sign_is_known(-inside, depth) and self._prove(rest + inside * a, depth - 1):
            return True
        least = a - d + 1
        return self._sign_is_known(inside, depth) and self._prove(rest + inside * least, depth - 1)

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
            return depth > 4 and self._by_condition(p, x, values, depth)
        # A minimum is at most either operand, so one suffices where a greater value would do;
        # likewise a maximum.
        inside, _ = p.split((x,))
        factor = -inside if x.fn == "min" else inside
        if any(a is x for a in inside.atoms()) or not self._sign_is_known(factor, depth):
            return False
        return any(self._prove(substituted(p, x, v), depth - 1) for v in values)

    def _by_condition(self, p: Poly, x: Apply, values: tuple[Poly, ...], depth: int) -> bool:
        """Prove each case of a choice with what its condition says."""
        condition = x.args[0]
        opposite = negated(condition)
        if opposite is None or self._fuel <= 0:
            return False
        for claim, value in ((condition, values[0]), (opposite, values[1])):
            within = Prover(self.known.extended(claim))
            within._fuel = self._fuel // 4
            self._fuel -= within._fuel
            if not within._prove(substituted(p, x, value), depth // 2):
                return False
        return True

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
