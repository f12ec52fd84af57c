"""Ask once what every iteration asks alike: conditions move out of the loops that do not decide
them.

Where a loop does nothing but under conditions, those that its variable is not in go around the
loop. Two conditions in a row of which exactly one holds become the two branches of one.
"""

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Apply, Expr, int_value, variables, walk
from treadle.ir.analysis import facts_of
from treadle.ir.tensor import For, If, Load, Stmt, TensorFunction
from treadle.passes.statements import Body, with_body


def hoist_conditions(function: TensorFunction) -> TensorFunction:
    """Move conditions of ``function`` out of loops; what is done stays the same."""
    return with_body(function, _hoist(function.body, facts_of(function)))


def _hoist(body: Body, facts: Facts) -> Body:
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            inside = facts.with_range(s.var, s.extent)
            s = _outside(replace_fields(s, body=_hoist(s.body, inside)))
        elif isinstance(s, If):
            s = If(s.condition, _hoist(s.body, facts), _hoist(s.orelse, facts), s.span)
        joined = _joined(result[-1], s, facts) if result else None
        if joined is None:
            result.append(s)
        else:
            result[-1] = joined
    return tuple(result)


def _outside(loop: For) -> Stmt:
    """A loop that does nothing but under conditions, inside of those that it does not decide."""
    guards: list[If] = []
    body = loop.body
    while len(body) == 1 and isinstance(body[0], If) and not body[0].orelse:
        if not _is_fixed(body[0].condition):
            break
        guards.append(body[0])
        body = body[0].body
    own = [g for g in guards if loop.var in variables(g.condition)]
    if len(own) == len(guards):
        return loop
    for g in reversed(own):
        body = (If(g.condition, body, (), g.span),)
    result: Stmt = replace_fields(loop, body=body)
    for g in reversed(guards):
        if g not in own:
            result = If(g.condition, (result,), (), g.span)
    return result


def _joined(a: Stmt, b: Stmt, facts: Facts) -> If | None:
    """Two conditional statements as one, if always exactly one of them runs."""
    if not isinstance(a, If) or not isinstance(b, If) or a.orelse or b.orelse:
        return None
    if not _is_fixed(a.condition) or not _is_fixed(b.condition):
        return None
    opposite = prove(~b.condition, facts.with_fact(a.condition)) and prove(
        b.condition, facts.with_fact(~a.condition)
    )
    return If(a.condition, a.body, b.body, a.span) if opposite else None


def _is_fixed(condition: Expr) -> bool:
    """Whether a condition may be asked elsewhere: statements cannot change it, and nothing in it
    divides by what could be zero where a loop never runs.
    """
    return not any(isinstance(x, Load) or _may_trap(x) for x in walk(condition))


def _may_trap(x: Expr) -> bool:
    if not isinstance(x, Apply) or x.fn not in ("floordiv", "mod", "truncdiv", "truncmod"):
        return False
    return not int_value(x.args[1])
