"""The normal form of integer arithmetic: a sum of integer coefficients times products of atoms.

An atom is an ``i64`` expression that is not itself a sum, difference, product or constant. Two sums
are equal as polynomials when their normal forms are; that is how ``4 * n * (m + 1)`` meets ``n * m
* 4 + n * 4``.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import gcd

from treadle.expr.dtype import i64
from treadle.expr.scalar import Apply, Const, Expr, Var, apply

Monomial = tuple[Expr, ...]
ARITHMETIC = frozenset({"add", "sub", "mul", "neg"})
_MOST_TERMS = 64


def atom_key(x: Expr) -> tuple[str, int]:
    """An order of atoms by their text, so that results do not depend on who was built first."""
    return x.name if isinstance(x, Var) else str(x), id(x)


class Poly:
    """A polynomial with integer coefficients, never changed after it is made.

    ``terms`` maps products of atoms (sorted tuples; the empty one stands for 1) to coefficients
    that are not zero.
    """

    __slots__ = ("_hash", "terms")
    terms: Mapping[Monomial, int]

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms = terms
        self._hash: int | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Poly) and self.terms == other.terms

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __repr__(self) -> str:
        return f"Poly({from_poly(self)})"

    @property
    def constant(self) -> int:
        """The term without atoms."""
        return self.terms.get((), 0)

    @property
    def is_constant(self) -> bool:
        """Whether no atom appears."""
        return not self.terms or (len(self.terms) == 1 and () in self.terms)

    def __add__(self, other: "Poly | int") -> "Poly":
        return self.plus(other if isinstance(other, Poly) else number(other), 1)

    def __sub__(self, other: "Poly | int") -> "Poly":
        return self.plus(other if isinstance(other, Poly) else number(other), -1)

    def __neg__(self) -> "Poly":
        return Poly({m: -c for m, c in self.terms.items()})

    def plus(self, other: "Poly", factor: int) -> "Poly":
        """``self + factor * other``."""
        terms = dict(self.terms)
        for monomial, coefficient in other.terms.items():
            total = terms.get(monomial, 0) + factor * coefficient
            if total:
                terms[monomial] = total
            else:
                terms.pop(monomial, None)
        return Poly(terms)

    def __mul__(self, other: "Poly | int") -> "Poly":
        if isinstance(other, int):
            return Poly({m: c * other for m, c in self.terms.items()} if other else {})
        if other.is_constant:
            return self * other.constant
        if self.is_constant:
            return other * self.constant
        terms: dict[Monomial, int] = {}
        for a, x in self.terms.items():
            for b, y in other.terms.items():
                monomial = product(a, b)
                total = terms.get(monomial, 0) + x * y
                if total:
                    terms[monomial] = total
                else:
                    del terms[monomial]
        return Poly(terms)

    def content(self) -> int:
        """The greatest common divisor of the coefficients but the constant; 0 for a constant."""
        return gcd(*(c for m, c in self.terms.items() if m))

    def divided(self, divisor: int) -> "Poly":
        """Every coefficient divided, rounded down; exact when the divisor divides them all."""
        return Poly({m: q for m, c in self.terms.items() if (q := c // divisor)})

    def atoms(self) -> Iterator[Expr]:
        """The distinct atoms."""
        seen: set[Expr] = set()
        for monomial in self.terms:
            for atom in monomial:
                if atom not in seen:
                    seen.add(atom)
                    yield atom

    def split(self, monomial: Monomial) -> tuple["Poly", "Poly"]:
        """``(a, b)``: ``self = a * monomial + b``, no term of ``b`` a multiple of ``monomial``."""
        inside: dict[Monomial, int] = {}
        outside: dict[Monomial, int] = {}
        for m, c in self.terms.items():
            rest = quotient(m, monomial)
            if rest is None:
                outside[m] = c
            else:
                inside[rest] = c
        return Poly(inside), Poly(outside)


ZERO = Poly({})
ONE = Poly({(): 1})


def number(value: int) -> Poly:
    """The constant polynomial."""
    return Poly({(): value}) if value else ZERO


def atom(x: Expr) -> Poly:
    """The polynomial that is one atom."""
    return Poly({(x,): 1})


def product(a: Monomial, b: Monomial) -> Monomial:
    """The product of two products."""
    if not a:
        return b
    if not b:
        return a
    return tuple(sorted(a + b, key=atom_key))


def quotient(a: Monomial, b: Monomial) -> Monomial | None:
    """``a / b`` if the atoms of ``b`` are all in ``a``."""
    if not b:
        return a
    if len(b) == 1:
        if b[0] not in a:
            return None
        i = a.index(b[0])
        return a[:i] + a[i + 1 :]
    rest = list(a)
    for x in b:
        if x not in rest:
            return None
        rest.remove(x)
    return tuple(rest)


def common(a: Monomial, b: Monomial) -> Monomial:
    """The atoms that two products share, with their multiplicity."""
    rest = list(b)
    shared: list[Expr] = []
    for x in a:
        if x in rest:
            rest.remove(x)
            shared.append(x)
    return tuple(shared)


def combine(fn: str, operands: tuple[Poly, ...]) -> Poly | None:
    """The normal form of a sum, difference, product or negation; ``None`` if it is too long."""
    if fn == "add":
        return operands[0].plus(operands[1], 1)
    if fn == "sub":
        return operands[0].plus(operands[1], -1)
    if fn == "neg":
        return -operands[0]
    if len(operands[0].terms) * len(operands[1].terms) > _MOST_TERMS:
        return None
    return operands[0] * operands[1]


def to_poly(x: Expr) -> Poly:
    """The normal form of an ``i64`` expression; atoms are taken as they are."""
    if isinstance(x, Const):
        return number(int(x.value))
    if isinstance(x, Apply) and x.fn in ARITHMETIC and x.dtype is i64:
        combined = combine(x.fn, tuple([to_poly(a) for a in x.args]))
        if combined is not None:
            return combined
    return atom(x)


def from_poly(p: Poly) -> Expr:
    """The expression of a normal form: positive terms first, sorted by text, the constant last."""
    monomials = (
        sorted((m for m in p.terms if m), key=_monomial_key) if len(p.terms) > 1 else list(p.terms)
    )
    positive = [m for m in monomials if m and p.terms[m] > 0]
    negative = [m for m in monomials if m and p.terms[m] < 0]
    total: Expr | None = None
    for m in positive:
        term = _term(m, p.terms[m])
        total = term if total is None else apply("add", total, term)
    for m in negative:
        if total is None:
            total = _term(m, p.terms[m])
        else:
            total = apply("sub", total, _term(m, -p.terms[m]))
    constant = p.constant
    if total is None:
        return Const(constant, i64)
    if constant == 0:
        return total
    return apply("add", total, constant) if constant > 0 else apply("sub", total, -constant)


def _monomial_key(m: Monomial) -> tuple[tuple[str, int], ...]:
    return tuple([atom_key(x) for x in m])


def _term(monomial: Monomial, coefficient: int) -> Expr:
    result = monomial[0]
    for x in monomial[1:]:
        result = apply("mul", result, x)
    if coefficient == 1:
        return result
    return apply("neg", result) if coefficient == -1 else apply("mul", result, coefficient)


def split_linear(x: Expr, var: Var) -> tuple[Expr, Expr] | None:
    """``(coefficient, rest)`` with ``x == coefficient * var + rest``, both free of ``var``.

    ``None`` if ``x`` is not linear in ``var``, or hides it in an atom such as a quotient.
    """
    inside, outside = to_poly(x).split((var,))
    if mentions(inside, var) or mentions(outside, var):
        return None
    return from_poly(inside), from_poly(outside)


def mentions(p: Poly, var: Var) -> bool:
    """Whether ``var`` occurs in ``p``, within atoms too."""
    return any(occurs(var, x) for x in p.atoms())


def occurs(var: Expr, x: Expr) -> bool:
    """Whether ``var`` is ``x`` or stands below it."""
    return x is var or any(occurs(var, c) for c in x.children)


def divide(a: Poly, d: Poly) -> tuple[Poly, Poly]:
    """``(q, r)`` with ``a == q * d + r``, ``r`` as simple as one pass makes it.

    By a constant, coefficients are reduced towards zero and the constant term into [0, d), so that
    quotient and remainder by the same divisor always agree on ``r``.
    """
    if d.is_constant:
        return _divide_by_number(a, d.constant)
    lead = max(d.terms, key=lambda m: (len(m), _monomial_key(m)))
    q, r = ZERO, a
    for _ in range(len(a.terms)):
        step = _one_step(r, lead, d.terms[lead])
        if step is None:
            break
        q, r = q + step, r - step * d
    # Division by a sum may trade one term for two; then the quotient is no simplification.
    return (q, r) if len(d.terms) == 1 or len(r.terms) < len(a.terms) else (ZERO, a)


def _one_step(r: Poly, lead: Monomial, coefficient: int) -> Poly | None:
    for m, c in r.terms.items():
        rest = quotient(m, lead)
        if rest is not None and (times := _towards_zero(c, coefficient)):
            return Poly({rest: times})
    return None


def _towards_zero(a: int, b: int) -> int:
    q = abs(a) // abs(b)
    return q if (a >= 0) == (b > 0) else -q


def _divide_by_number(a: Poly, d: int) -> tuple[Poly, Poly]:
    q: dict[Monomial, int] = {}
    r: dict[Monomial, int] = {}
    for m, c in a.terms.items():
        times = _towards_zero(c, d) if m else c // d
        if times:
            q[m] = times
        if c - times * d:
            r[m] = c - times * d
    return Poly(q), Poly(r)


def exact_quotient(a: Poly, d: Poly) -> Poly | None:
    """``a / d`` if ``d`` divides ``a`` as a polynomial."""
    q, r = divide(a, d)
    return None if r.terms else q


def common_factor(polys: Iterable[Poly]) -> tuple[int, Monomial]:
    """The greatest coefficient and product of atoms that divide every term of every polynomial."""
    coefficient, monomial = 0, None
    for p in polys:
        for m, c in p.terms.items():
            coefficient = gcd(coefficient, c)
            monomial = m if monomial is None else common(monomial, m)
    return coefficient, monomial or ()
