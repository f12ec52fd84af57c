"""Comparisons of 64-bit integers: decided where facts suffice, else in one form."""

from treadle.expr.dtype import boolean, i64
from treadle.expr.facts import order_poly
from treadle.expr.proof import Prover, holds
from treadle.expr.scalar import Apply, Const, Expr, apply
from treadle.expr.terms import Poly, from_poly, to_poly

_ORDER = frozenset({"lt", "le", "gt", "ge"})


class Comparison:
    """Simplifies comparisons of polynomials under the facts of a prover."""

    def __init__(self, prover: Prover) -> None:
        self.prover = prover

    def simplified(self, fn: str, a: Poly, b: Poly) -> Expr:
        """``a fn b``: a truth value, or terms moved so that every coefficient is positive."""
        verdict = self.prover.compare(fn, a, b)
        if verdict is not None:
            return Const(verdict, boolean)
        return _equality(fn, a - b) if fn in ("eq", "ne") else _order(order_poly(fn, a, b))

    def implies(self, claim: Expr, conclusion: Expr) -> bool:
        """Whether ``conclusion`` follows from ``claim`` (and the facts) by a short argument."""
        if claim is conclusion:
            return True
        if not isinstance(claim, Apply) or not isinstance(conclusion, Apply):
            return False
        if not _compares_indices(claim) or not _compares_indices(conclusion):
            return False
        if claim.fn in _ORDER and conclusion.fn in _ORDER:
            # The common case, bounds of one sum, needs no search.
            p = order_poly(claim.fn, to_poly(claim.args[0]), to_poly(claim.args[1]))
            q = order_poly(conclusion.fn, to_poly(conclusion.args[0]), to_poly(conclusion.args[1]))
            if self.prover.interval_of_poly(q - p).nonnegative:
                return True
        known = self.prover.known
        if not _share_variables(claim, conclusion):
            return False
        return holds(conclusion, Prover(known.extended(claim)))


def _compares_indices(x: Apply) -> bool:
    return x.dtype is boolean and x.args[0].dtype is i64 and len(x.args) == 2


def _share_variables(a: Expr, b: Expr) -> bool:
    atoms = {x for side in a.children for x in to_poly(side).atoms()}
    return any(x in atoms for side in b.children for x in to_poly(side).atoms())


def _order(p: Poly) -> Expr:
    """``p >= 0`` as a comparison of sums with positive coefficients, the greater on the right."""
    factor = p.content()
    if factor > 1:
        p = p.divided(factor)
    more = Poly({m: c for m, c in p.terms.items() if m and c > 0})
    less = Poly({m: -c for m, c in p.terms.items() if m and c < 0})
    constant = p.constant
    if not less.terms:
        return apply("ge", from_poly(more), -constant)
    if constant == 0:
        return apply("le", from_poly(less), from_poly(more))
    above = constant + 1
    if above >= 0:
        return apply("lt", from_poly(less), from_poly(more + above))
    return apply("lt", from_poly(less - above), from_poly(more))


def _equality(fn: str, difference: Poly) -> Expr:
    factor = difference.content()
    if factor > 1:
        difference = difference.divided(factor)
    more = Poly({m: c for m, c in difference.terms.items() if m and c > 0})
    less = Poly({m: -c for m, c in difference.terms.items() if m and c < 0})
    constant = difference.constant
    if not more.terms:
        more, less, constant = less, more, -constant
    if not less.terms:
        return apply(fn, from_poly(more), -constant)
    left, right = from_poly(more), from_poly(less)
    if str(right) < str(left):
        left, right, constant = right, left, -constant
    if constant > 0:
        return apply(fn, apply("add", left, constant), right)
    return apply(fn, left, apply("add", right, -constant) if constant else right)
