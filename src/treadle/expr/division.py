"""Quotients and remainders of polynomials, simplified as far as facts allow.

Splitting and fusing loops makes them; what is left after simplification is what a kernel computes
in its address arithmetic. A division by zero has no value, so what holds for every other divisor
holds.
"""

from collections.abc import Iterator
from math import gcd

from treadle.expr.facts import divisor_of
from treadle.expr.proof import Prover
from treadle.expr.scalar import Apply, Const, Expr, apply
from treadle.expr.terms import (
    ONE,
    ZERO,
    Monomial,
    Poly,
    atom,
    common,
    common_factor,
    divide,
    exact_quotient,
    from_poly,
    number,
    quotient,
    to_poly,
)

_ROUNDS = 8


class Division:
    """Floor division and modulo of polynomials under the facts of a prover."""

    def __init__(self, prover: Prover) -> None:
        self.prover = prover
        self._memo: dict[tuple[str, Poly, Poly], Poly] = {}

    def floordiv(self, a: Poly, d: Poly) -> Poly:
        """``a // d``, rounded down."""
        return self._remembered("floordiv", a, d)

    def mod(self, a: Poly, d: Poly) -> Poly:
        """``a % d``, of the sign of ``d``."""
        return self._remembered("mod", a, d)

    def _remembered(self, fn: str, a: Poly, d: Poly) -> Poly:
        key = (fn, a, d)
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._floordiv(a, d) if fn == "floordiv" else self._mod(a, d)
        return found

    def _floordiv(self, a: Poly, d: Poly) -> Poly:
        if d.is_constant and d.constant <= 0:
            return _opaque("floordiv", a, d) if d.constant == 0 else self.floordiv(-a, -d)
        q, r = self.reduced(a, d)
        if not r.terms or self._is_remainder(r, d):
            return q
        r, d = self._without_small_part(r, d)[0], d
        nested = self._nested_quotient(r, d)
        if nested is not None:
            return q + self.floordiv(*nested)
        inner = self._quotient_of_mod(r, d)
        if inner is not None:
            return q + inner
        smaller = _cancelled(r, d)
        if smaller is not None:
            return q + self.floordiv(smaller[0], smaller[1])
        return q + _opaque("floordiv", r, d)

    def _mod(self, a: Poly, d: Poly) -> Poly:
        if d.is_constant and d.constant <= 0:
            return _opaque("mod", a, d) if d.constant == 0 else -self.mod(-a, -d)
        _, r = self.reduced(a, d)
        if not r.terms or self._is_remainder(r, d):
            return r
        known = self._congruent(r, d)
        if known is not None:
            return known
        flat = self._without_inner_mod(r, d)
        if flat is not None:
            return self.mod(flat, d)
        r, small = self._without_small_part(r, d)
        if small.terms:
            return self.mod(r, d) + small
        smaller = _cancelled(r, d)
        if smaller is not None and (smaller[2].is_constant or self._positive(smaller[2])):
            return self.mod(smaller[0], smaller[1]) * smaller[2]
        return _opaque("mod", r, d)

    def reduced(self, a: Poly, d: Poly) -> tuple[Poly, Poly]:
        """``(q, r)`` with ``a == q * d + r``, and ``0 <= r < d`` if intervals show how."""
        q, r = divide(a, d)
        if not r.terms:
            return q, r
        bounds = self.prover.interval_of_poly(r)
        if d.is_constant:
            if bounds.low is not None and bounds.high is not None:
                shift = bounds.low // d.constant
                if shift and shift == bounds.high // d.constant:
                    return q + shift, r - d * shift
        elif bounds.high is not None and bounds.high < 0 and self.prover.nonnegative(r + d):
            return q - 1, r + d
        return q, r

    def _is_remainder(self, r: Poly, d: Poly) -> bool:
        bounds = self.prover.interval_of_poly(r)
        if bounds.high is not None and bounds.high < 0:
            return False
        if d.is_constant:
            if bounds.nonnegative and bounds.high is not None and bounds.high < d.constant:
                return True
            if not self.prover.known.constraints and all(len(m) < 2 for m in r.terms):
                return False
        return self.prover.nonnegative(d - 1 - r) and self.prover.nonnegative(r)

    def _positive(self, p: Poly) -> bool:
        return self.prover.nonnegative(p - 1)

    def _without_small_part(self, r: Poly, d: Poly) -> tuple[Poly, Poly]:
        """``(g, s)``, ``r == g + s``: a factor of ``d`` divides ``g``, ``s`` is from 0 to below it.

        Then ``r // d == g // d`` and ``r % d == g % d + s``.
        """
        for factor, big in self._factors(r, d):
            small = r - big
            if not small.terms or not big.terms:
                continue
            if factor.is_constant or (self._positive(factor) and self._positive(d)):
                if self._is_remainder(small, factor):
                    return big, small
        return r, ZERO

    def _factors(self, r: Poly, d: Poly) -> Iterator[tuple[Poly, Poly]]:
        """Factors of ``d``, greatest first, each with the part of ``r`` that it divides."""
        if d.is_constant:
            sizes = {m: self._divisor(m, c) for m, c in r.terms.items() if m}
            for g in sorted({gcd(d.constant, s) for s in sizes.values()} - {1}, reverse=True):
                big = {m: r.terms[m] for m, s in sizes.items() if s % g == 0}
                rest = r.constant // g * g
                yield number(g), Poly({**big, (): rest} if rest else big)
            return
        coefficient, monomial = common_factor((d,))
        seen: set[tuple[int, Monomial]] = set()
        for m, c in r.terms.items():
            factor = gcd(coefficient, c), common(monomial, m)
            if factor == (1, ()) or factor in seen:
                continue
            seen.add(factor)
            big = {
                n: k for n, k in r.terms.items() if k % factor[0] == 0 and _divides(factor[1], n)
            }
            yield Poly({factor[1]: factor[0]}), Poly(big)

    def _divisor(self, monomial: Monomial, coefficient: int) -> int:
        if not self.prover.known.congruences:
            return coefficient
        return divisor_of(Poly({monomial: coefficient}), self.prover.known)

    def _nested_quotient(self, r: Poly, d: Poly) -> tuple[Poly, Poly] | None:
        """``(x // e + k) // d`` is ``(x + k * e) // (e * d)`` for a positive ``d``."""
        found = _lone_atom(r, "floordiv")
        if found is None or not (d.is_constant or self._positive(d)):
            return None
        x, e = to_poly(found.args[0]), to_poly(found.args[1])
        return x + e * r.constant, e * d

    def _quotient_of_mod(self, r: Poly, d: Poly) -> Poly | None:
        """``x % (t * d) // d`` is ``x // d % t`` for positive ``t`` and ``d``."""
        found = _lone_atom(r, "mod")
        if found is None or r.constant:
            return None
        times = exact_quotient(to_poly(found.args[1]), d)
        if times is None or times == ONE or not (self._positive(times) and self._positive(d)):
            return None
        return self.mod(self.floordiv(to_poly(found.args[0]), d), times)

    def _congruent(self, r: Poly, d: Poly) -> Poly | None:
        """The remainder that facts such as ``n % 4 == 0`` state."""
        if not d.is_constant or not self.prover.known.congruences:
            return None
        if divisor_of(r - r.constant, self.prover.known) % d.constant == 0:
            return number(r.constant % d.constant)
        found = _lone_atom(r, "floordiv")
        if found is not None and isinstance(found.args[1], Const):
            # x // e % d is x % (e * d) // e.
            e = to_poly(found.args[1])
            inner = self.mod(to_poly(found.args[0]), e * d)
            if inner.is_constant and e.constant > 0:
                return number((inner.constant // e.constant + r.constant) % d.constant)
        for fact in self.prover.known.congruences:
            if fact.modulus % d.constant == 0:
                rest = divide(r - fact.poly, d)[1]
                if rest.is_constant:
                    return number((rest.constant + fact.remainder) % d.constant)
        return None

    def _without_inner_mod(self, r: Poly, d: Poly) -> Poly | None:
        """``x`` for ``x % m`` in a remainder by a divisor of ``m``."""
        flat, changed = ZERO, False
        for m, c in r.terms.items():
            term = Poly({m: c})
            for x in m:
                if isinstance(x, Apply) and x.fn == "mod" and exact_quotient(to_poly(x.args[1]), d):
                    rest = quotient(m, (x,))
                    term = to_poly(x.args[0]) * Poly({rest or (): c})
                    changed = True
                    break
            flat = flat + term
        return flat if changed else None

    def recombined(self, p: Poly) -> Poly:
        """``p`` with ``a // d * d + a % d`` made ``a`` again, exact quotients multiplied out."""
        for _ in range(_ROUNDS):
            changed = self._recombine_once(p)
            if changed is None:
                return p
            p = changed
        return p

    def _recombine_once(self, p: Poly) -> Poly | None:
        for m, c in p.terms.items():
            for x in m:
                if not isinstance(x, Apply):
                    continue
                rest = Poly({quotient(m, (x,)) or (): c})
                if x.fn == "mod":
                    replaced = self._joined(p, x, rest, c, m)
                elif x.fn == "floordiv" and self.prover.known.congruences:
                    replaced = self._multiplied_out(p, x, m, c)
                else:
                    continue
                if replaced is not None:
                    return replaced
        return None

    def _joined(self, p: Poly, x: Apply, rest: Poly, c: int, m: Monomial) -> Poly | None:
        a, d = to_poly(x.args[0]), to_poly(x.args[1])
        multiple = rest * d * self.floordiv(a, d)
        if not multiple.terms:
            return None
        for n, k in multiple.terms.items():
            have = p.terms.get(n, 0)
            # Each term must be there whole; a part of it would only move the remainder elsewhere.
            if have * k <= 0 or abs(have) < abs(k):
                return None
        return p - multiple - Poly({m: c}) + rest * a

    def _multiplied_out(self, p: Poly, x: Apply, m: Monomial, c: int) -> Poly | None:
        a, d = to_poly(x.args[0]), to_poly(x.args[1])
        if not d.is_constant or c % d.constant:
            return None
        remainder = self.mod(a, d)
        if not remainder.is_constant:
            return None
        rest = Poly({quotient(m, (x,)) or (): c // d.constant})
        return p - Poly({m: c}) + rest * (a - remainder)


def _opaque(fn: str, a: Poly, d: Poly) -> Poly:
    return atom(apply(fn, from_poly(a), from_poly(d)))


def _divides(factor: Monomial, m: Monomial) -> bool:
    return quotient(m, factor) is not None


def _lone_atom(r: Poly, fn: str) -> Apply | None:
    """The application of ``fn`` that is all of ``r`` but the constant."""
    parts = [(m, c) for m, c in r.terms.items() if m]
    if len(parts) != 1 or parts[0][1] != 1 or len(parts[0][0]) != 1:
        return None
    x: Expr = parts[0][0][0]
    return x if isinstance(x, Apply) and x.fn == fn else None


def _cancelled(r: Poly, d: Poly) -> tuple[Poly, Poly, Poly] | None:
    """``(r / g, d / g, g)`` for the greatest common single-term factor, if there is one above 1."""
    coefficient, monomial = common_factor((r, d))
    if coefficient <= 1 and not monomial:
        return None
    return (
        _shrink(r, coefficient, monomial),
        _shrink(d, coefficient, monomial),
        Poly({monomial: coefficient}),
    )


def _shrink(p: Poly, coefficient: int, monomial: Monomial) -> Poly:
    return Poly({quotient(m, monomial) or (): c // coefficient for m, c in p.terms.items()})
