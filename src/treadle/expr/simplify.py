"""Simplify expressions: a normal form for 64-bit integers, and rules for everything else.

``i64`` expressions measure and index: they are treated as integers that never overflow. Narrower
integers wrap around and floats round, so for them only rules that keep every bit of every value
apply (the sign and payload of a NaN apart); floats are never reassociated.
"""

from collections.abc import Iterable
from functools import cache

from treadle.base.errors import InternalError
from treadle.expr.comparison import Comparison
from treadle.expr.conversion import simplify_cast
from treadle.expr.division import Division
from treadle.expr.dtype import DType, i64
from treadle.expr.facts import EMPTY, Facts, Known, negated
from treadle.expr.proof import Prover, holds
from treadle.expr.rulebook import ALL_RULES
from treadle.expr.rules import Traced, instantiate
from treadle.expr.scalar import Apply, Const, Expr, ExprLike, Var, apply, as_expr, walk
from treadle.expr.terms import ARITHMETIC, Poly, atom, atom_key, combine, from_poly, number, to_poly

_ROUNDS = 64
_DIVISIONS = frozenset({"floordiv", "mod"})
_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_MAKE_VECTORS = frozenset({"ramp", "broadcast"})
_SORTED = frozenset({"min", "max", "and", "or", "xor"})


def simplify(x: Expr, facts: Facts = EMPTY) -> Expr:
    """An expression of the same value wherever ``facts`` hold, as simple as the rules make it.

    A division by zero, which has no value, may disappear.
    """
    return simplifier(facts).simplify(x)


def simplify_all(xs: Iterable[ExprLike], facts: Facts = EMPTY) -> tuple[Expr, ...]:
    """Several expressions simplified under the same facts; what they share is treated once."""
    engine = simplifier(facts)
    return tuple(engine.simplify(as_expr(x)) for x in xs)


def simplifier(facts: Facts) -> "Simplifier":
    """The simplifier for some facts; it remembers what it has seen while the facts live."""
    if facts is EMPTY:
        return Simplifier(Known((), ()))
    if facts.engine is None:
        first = Simplifier(Known((), ()))
        claims = [first.simplify(c) for c in facts.claims]
        ranges = [(v, first.simplify(e)) for v, e in facts.ranges]
        facts.engine = Simplifier(Known(claims, ranges))
    if not isinstance(facts.engine, Simplifier):
        raise InternalError("facts hold something that is no simplifier")
    return facts.engine


@cache
def _rules_for(fn: str, operand: DType) -> tuple[Traced, ...]:
    """The rules for applications of ``fn`` whose last operand (or new vector) has a given type."""
    found: list[Traced] = []
    for rule in ALL_RULES:
        if rule.applies_to(operand):
            traced = rule.at(operand)
            if traced.pattern.fn == fn:
                found.append(traced)
    return tuple(found)


class Simplifier:
    """Simplifies bottom-up under one set of facts, each node once."""

    def __init__(self, known: Known) -> None:
        self.prover = Prover(known)
        self.division = Division(self.prover)
        self.comparison = Comparison(self.prover)
        self._known = known
        self._memo: dict[Expr, Expr] = {}
        self._polys: dict[Expr, Poly] = {}

    def simplify(self, x: Expr) -> Expr:
        """``x`` simplified."""
        found = self._memo.get(x)
        if found is not None:
            return found
        for e in walk(x):
            if e not in self._memo and e not in self._polys:
                self._visit(e)
        result = self._result(x)
        self._memo.setdefault(result, result)
        return result

    def poly(self, x: Expr) -> Poly:
        """The normal form of an ``i64`` expression, its atoms simplified."""
        self.simplify(x)
        return self._poly(x)

    def _visit(self, e: Expr) -> None:
        if e.dtype is i64 and isinstance(e, Apply):
            if e.fn in ARITHMETIC:
                combined = combine(e.fn, tuple([self._poly(a) for a in e.args]))
                if combined is None:
                    product = apply(e.fn, *[self._result(a) for a in e.args])
                    self._memo[e] = self._memo[product] = product
                    self._polys[e] = atom(product)
                else:
                    # The expression is written when somebody asks, so that inner sums of a sum
                    # never are.
                    self._polys[e] = combined
                return
            if e.fn in _DIVISIONS:
                a, d = (self._poly(x) for x in e.args)
                divide = self.division.floordiv if e.fn == "floordiv" else self.division.mod
                self._polys[e] = divide(a, d)
                return
        self._memo[e] = self._rewritten(e)

    def _result(self, e: Expr) -> Expr:
        found = self._memo.get(e)
        if found is None:
            simple = self.division.recombined(self._polys[e])
            found = from_poly(simple)
            self._memo[e] = self._memo[found] = found
            self._polys[e] = self._polys[found] = simple
        return found

    def _poly(self, e: Expr) -> Poly:
        found = self._polys.get(e)
        if found is None:
            if isinstance(e, Const):
                found = number(int(e.value))
            else:
                # What is not known here is a result, and simple already.
                found = to_poly(self._memo.get(e, e))
            self._polys[e] = found
        return found

    def _rewritten(self, e: Expr) -> Expr:
        children = e.children
        if not children:
            return self._leaf(e)
        rebuilt = tuple([self._result(c) for c in children])
        new = e if rebuilt == children else e.with_children(rebuilt)
        for _ in range(_ROUNDS):
            if not isinstance(new, Apply):
                return new
            stepped = self._step(new)
            if stepped is new:
                return new
            done = self._memo.get(stepped)
            if done is not None:
                return done
            if not isinstance(stepped, Apply) or stepped.fn != new.fn or stepped.args != new.args:
                return self._again(stepped, new)
            new = stepped
        return new

    def _again(self, x: Expr, origin: Expr) -> Expr:
        """Simplify what a rule made; its parts are mostly simple already."""
        self._memo[origin] = origin
        found = self.simplify(x)
        self._memo[origin] = found
        return found

    def _leaf(self, x: Expr) -> Expr:
        """A variable whose only value facts state is that value."""
        if x.dtype is i64 and self._known.constraints and isinstance(x, Var):
            bounds = self.prover.interval(x)
            if bounds.low is not None and bounds.low == bounds.high:
                return Const(bounds.low, i64)
        return self._known_truth(x)

    def _known_truth(self, x: Expr) -> Expr:
        if not x.dtype.is_bool:
            return x
        if x in self._known.truths:
            return Const(True, x.dtype)
        return Const(False, x.dtype) if x in self._known.falsehoods else x

    def _step(self, x: Apply) -> Expr:
        """One rewrite of a node whose operands are simple; the node itself if there is none."""
        of = x.dtype if x.fn in _MAKE_VECTORS else x.args[-1].dtype
        for traced in _rules_for(x.fn, of):
            found = traced.match(x)
            if found is not None and self._allows(traced, found):
                return instantiate(traced.result, found)
        if x.dtype.is_bool and x.fn not in ("broadcast", "cast"):
            return self._step_bool(x)
        if x.fn == "cast":
            return simplify_cast(x)
        if x.fn == "broadcast" and isinstance(x.args[0], Const):
            return Const(x.args[0].value, x.dtype)
        if x.dtype is i64:
            return self._step_index(x)
        return _sorted_operands(x)

    def _allows(self, traced: Traced, found: dict[Var, Expr]) -> bool:
        if traced.condition is None:
            return True
        return holds(instantiate(traced.condition, found), self.prover)

    def _step_bool(self, x: Apply) -> Expr:
        simple = self._known_truth(x)
        if simple is not x:
            return simple
        if x.fn in _COMPARISONS and x.args[0].dtype is i64:
            return self.comparison.simplified(x.fn, self._poly(x.args[0]), self._poly(x.args[1]))
        if x.fn in ("and", "or") and x.dtype.lanes == 1:
            return self._junction(x)
        if x.fn == "invert":
            opposite = negated(x.args[0])
            return x if opposite is None else opposite
        return _sorted_operands(x)

    def _junction(self, x: Apply) -> Expr:
        """A conjunction or disjunction: each operand once, none that another one implies."""
        parts: list[Expr] = []
        _flatten(x, x.fn, parts)
        kept: list[Expr] = []
        for i, part in enumerate(parts):
            others = [*kept, *parts[i + 1 :]]
            if part not in others and not self._superfluous(part, others, x.fn):
                if self._contradicts(part, kept, x.fn):
                    return Const(x.fn == "or", x.dtype)
                kept.append(part)
        kept.sort(key=_operand_key)
        result = kept[0]
        for part in kept[1:]:
            result = apply(x.fn, result, part)
        return result

    def _superfluous(self, part: Expr, others: list[Expr], fn: str) -> bool:
        """Whether another conjunct implies ``part``, or ``part`` implies another disjunct."""
        if fn == "and":
            return any(self.comparison.implies(o, part) for o in others)
        return any(self.comparison.implies(part, o) for o in others)

    def _contradicts(self, part: Expr, others: list[Expr], fn: str) -> bool:
        """Whether two conjuncts exclude each other, or two disjuncts leave nothing out."""
        for other in others:
            opposite = negated(other)
            if opposite is None:
                opposite = apply("invert", other)
            if part is opposite:
                return True
            if fn == "and" and self.comparison.implies(part, opposite):
                return True
            if fn == "or" and self.comparison.implies(opposite, part):
                return True
        return False

    def _step_index(self, x: Apply) -> Expr:
        if x.fn in ("min", "max"):
            return self._step_extreme(x)
        if x.fn in ("truncdiv", "truncmod"):
            a, d = (self._poly(y) for y in x.args)
            if self.prover.nonnegative(a) and self.prover.nonnegative(d - 1):
                return apply("floordiv" if x.fn == "truncdiv" else "mod", *x.args)
        if x.fn == "abs":
            a = self._poly(x.args[0])
            if self.prover.nonnegative(a):
                return x.args[0]
            return apply("neg", x.args[0]) if self.prover.nonnegative(-a) else x
        return x

    def _step_extreme(self, x: Apply) -> Expr:
        a, b = (self._poly(y) for y in x.args)
        difference = b - a
        if self.prover.nonnegative(difference):
            return x.args[x.fn == "max"]
        if self.prover.nonnegative(-difference):
            return x.args[x.fn == "min"]
        return _sorted_operands(x)


def _flatten(x: Expr, fn: str, parts: list[Expr]) -> None:
    if isinstance(x, Apply) and x.fn == fn:
        for a in x.args:
            _flatten(a, fn, parts)
    else:
        parts.append(x)


def _operand_key(x: Expr) -> tuple[bool, str, int]:
    return (isinstance(x, Const), *atom_key(x))


def _sorted_operands(x: Apply) -> Expr:
    """Operands whose order does not matter, in the order of their text, constants last."""
    if (
        x.fn in _SORTED
        and not x.dtype.is_float
        and _operand_key(x.args[1]) < _operand_key(x.args[0])
    ):
        return apply(x.fn, x.args[1], x.args[0])
    return x
