"""What facts say of integers: intervals, divisibility and proofs of claims."""

from treadle.expr.dtype import boolean
from treadle.expr.facts import EMPTY, Facts
from treadle.expr.intervals import Interval
from treadle.expr.proof import holds
from treadle.expr.scalar import Const, Expr, ExprLike, apply, as_expr
from treadle.expr.simplify import simplifier

__all__ = ["EMPTY", "Facts", "Interval", "divisible", "interval", "prove"]


def interval(x: ExprLike, facts: Facts = EMPTY) -> Interval:
    """Bounds of an integer expression for all values that the facts allow.

    A claim's interval is within [0, 1]; floats have none.
    """
    engine = simplifier(facts)
    return engine.prover.interval(engine.simplify(as_expr(x)))


def prove(claim: Expr, facts: Facts = EMPTY) -> bool:
    """Whether ``claim`` is shown to hold for all values that the facts allow.

    ``False`` says only that no proof was found. Shapes and indices are mathematical integers; a
    symbol is at least zero only if facts say so.
    """
    engine = simplifier(facts)
    simple = engine.simplify(claim)
    return simple is Const(True, boolean) or holds(simple, engine.prover)


def divisible(x: ExprLike, k: ExprLike, facts: Facts = EMPTY) -> bool:
    """Whether ``k`` is shown to divide ``x``."""
    remainder = simplifier(facts).simplify(apply("mod", as_expr(x), as_expr(k)))
    return isinstance(remainder, Const) and remainder.value == 0
