"""What is assumed of variables: public ``Facts`` and the form that provers read, ``Known``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd

from treadle.expr.dtype import i64
from treadle.expr.scalar import Apply, Const, Expr, ExprLike, Var, apply, as_expr, int_value
from treadle.expr.terms import Monomial, Poly, atom, to_poly

_ORDER = frozenset({"lt", "le", "gt", "ge"})


class Facts:
    """Claims taken as true; never changes.

    ``claims`` are boolean expressions; ``ranges`` pairs of a variable and an extent: ``0 <=
    variable < extent``, so the extent is at least 1. Variables of later ranges may depend on
    earlier ones.
    """

    __slots__ = ("claims", "engine", "ranges")
    claims: tuple[Expr, ...]
    ranges: tuple[tuple[Var, Expr], ...]

    def __init__(
        self, claims: tuple[Expr, ...] = (), ranges: tuple[tuple[Var, Expr], ...] = ()
    ) -> None:
        self.claims = claims
        self.ranges = ranges
        # What the simplifier has worked out under these facts; it lives as long as they do.
        self.engine: object | None = None

    @classmethod
    def of(
        cls, assumes: Iterable[Expr] = (), ranges: Mapping[Var, ExprLike] | None = None
    ) -> "Facts":
        """The facts of a function (``assumes``) and of loops (``ranges``, outermost first)."""
        pairs = () if ranges is None else tuple((v, as_expr(e)) for v, e in ranges.items())
        return cls(tuple(assumes), pairs)

    def with_range(self, var: Var, extent: ExprLike) -> "Facts":
        """These facts and ``0 <= var < extent``."""
        return Facts(self.claims, (*self.ranges, (var, as_expr(extent))))

    def with_fact(self, claim: Expr) -> "Facts":
        """These facts and ``claim``."""
        return Facts((*self.claims, claim), self.ranges)

    def __repr__(self) -> str:
        ranges = [f"0 <= {v} < {e}" for v, e in self.ranges]
        return f"Facts({', '.join([*map(str, self.claims), *ranges])})"


EMPTY = Facts()


@dataclass(frozen=True, slots=True)
class Congruence:
    """``poly`` leaves ``remainder`` when divided by ``modulus``."""

    poly: Poly
    modulus: int
    remainder: int


class Known:
    """Facts in normal form.

    ``constraints`` lists polynomials that are at least zero; ``by_monomial`` finds those in which a
    product appears, with its coefficient. ``truths`` and ``falsehoods`` are claims that are no
    comparison of integers.
    """

    def __init__(self, claims: Iterable[Expr], ranges: Iterable[tuple[Var, Expr]]) -> None:
        self.claims = tuple(claims)
        self.ranges = tuple(ranges)
        self.constraints: list[Poly] = []
        self.by_monomial: dict[Monomial, list[tuple[int, Poly]]] = {}
        self.by_atom: dict[Expr, list[Poly]] = {}
        self.congruences: list[Congruence] = []
        self.truths: set[Expr] = set()
        self.falsehoods: set[Expr] = set()
        self.rank: dict[Expr, int] = {}
        for claim in self.claims:
            self._claim(claim)
        for position, (var, extent) in enumerate(self.ranges):
            size = to_poly(extent)
            self.rank[var] = position + 1
            self._at_least_zero(atom(var))
            self._at_least_zero(size - 1 - atom(var))
            self._at_least_zero(size - 1)

    def extended(self, claim: Expr) -> "Known":
        """The same and ``claim``."""
        return Known((*self.claims, claim), self.ranges)

    def _claim(self, claim: Expr) -> None:
        self.truths.add(claim)
        if not isinstance(claim, Apply):
            return
        if claim.fn == "and":
            for part in claim.args:
                self._claim(part)
        elif claim.fn == "invert":
            self.falsehoods.add(claim.args[0])
            opposite = negated(claim.args[0])
            if opposite is not None:
                self._claim(opposite)
        elif claim.args[0].dtype is i64 and claim.fn in _ORDER:
            self._at_least_zero(
                order_poly(claim.fn, to_poly(claim.args[0]), to_poly(claim.args[1]))
            )
        elif claim.args[0].dtype is i64 and claim.fn == "eq":
            difference = to_poly(claim.args[0]) - to_poly(claim.args[1])
            self._at_least_zero(difference)
            self._at_least_zero(-difference)
            self._congruence(difference)

    def _at_least_zero(self, p: Poly) -> None:
        if p.is_constant:
            return
        self.constraints.append(p)
        for monomial, coefficient in p.terms.items():
            if monomial:
                self.by_monomial.setdefault(monomial, []).append((coefficient, p))
        for x in p.atoms():
            self.by_atom.setdefault(x, []).append(p)

    def _congruence(self, difference: Poly) -> None:
        """Keep ``c * (a % k) + r == 0`` as ``a = -r/c (mod k)``."""
        multiples = [(m, c) for m, c in difference.terms.items() if m]
        if len(multiples) != 1 or abs(multiples[0][1]) != 1 or len(multiples[0][0]) != 1:
            return
        (x,), sign = multiples[0]
        modulus = int_value(x.args[1]) if isinstance(x, Apply) and x.fn == "mod" else None
        if modulus is not None and modulus > 1 and isinstance(x, Apply):
            remainder = -difference.constant * sign
            self.congruences.append(Congruence(to_poly(x.args[0]), modulus, remainder % modulus))


def order_poly(fn: str, a: Poly, b: Poly) -> Poly:
    """The polynomial that is at least zero exactly when ``a fn b`` holds."""
    if fn == "lt":
        return b - a - 1
    if fn == "le":
        return b - a
    return a - b - 1 if fn == "gt" else a - b


_OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}


def negated(claim: Expr) -> Expr | None:
    """The comparison that holds when ``claim`` does not; ``None`` where there is none."""
    if isinstance(claim, Const):
        return Const(not claim.value, claim.dtype)
    if isinstance(claim, Apply) and claim.fn in _OPPOSITE and not claim.args[0].dtype.is_float:
        return apply(_OPPOSITE[claim.fn], *claim.args)
    return None


def divisor_of(p: Poly, known: Known) -> int:
    """An integer that divides every value of a polynomial: its content times what facts add."""
    result = 0
    for monomial, coefficient in p.terms.items():
        factor = coefficient
        for congruence in known.congruences:
            if congruence.remainder == 0 and monomial in congruence.poly.terms:
                rest = congruence.poly - Poly({monomial: congruence.poly.terms[monomial]})
                if not rest.terms and abs(congruence.poly.terms[monomial]) == 1:
                    factor *= congruence.modulus
                    break
        result = gcd(result, factor)
    return result
