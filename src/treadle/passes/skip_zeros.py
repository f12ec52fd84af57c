"""Sums skip the terms that are zero by a condition, such as those at the border of an image."""

from treadle.expr.scalar import Apply
from treadle.ir.analysis import facts_of
from treadle.ir.tensor import For, If, Load, Stmt, Store, TensorFunction
from treadle.passes.kinds import guarded_term
from treadle.passes.lower_blocks import conjuncts
from treadle.passes.statements import Body, simplify_body, with_body


def skip_zeros(function: TensorFunction) -> TensorFunction:
    """Replace ``Y = Y + select(c, x, 0)`` by ``if c: Y = Y + x``.

    A sum that starts at zero is never the negative zero, so that adding zero changes nothing.
    """
    body = _skip(function.body)
    return (
        function
        if body is function.body
        else with_body(function, simplify_body(body, facts_of(function)))
    )


def _skip(body: Body) -> Body:
    changed = tuple(_changed(s) for s in body)
    return body if all(a is b for a, b in zip(body, changed, strict=True)) else changed


def _changed(s: Stmt) -> Stmt:
    if isinstance(s, For):
        inner = _skip(s.body)
        return s if inner is s.body else For(s.var, s.extent, inner, s.kind, s.span, s.annotations)
    if isinstance(s, If):
        then, orelse = _skip(s.body), _skip(s.orelse)
        same = then is s.body and orelse is s.orelse
        return s if same else If(s.condition, then, orelse, s.span)
    return _skipped(s) if isinstance(s, Store) else s


def _skipped(s: Store) -> Stmt:
    value = s.value
    if s.mask is not None or not isinstance(value, Apply) or value.fn != "add":
        return s
    own = Load(s.buffer, s.indices)
    term = value.args[1] if value.args[0] is own else value.args[0]
    found = guarded_term(term) if own in value.args else None
    if found is None:
        return s
    condition, inner = found
    result: Stmt = Store(s.buffer, s.indices, own + inner, None, s.span)
    for claim in reversed(conjuncts(condition)):
        result = If(claim, (result,), (), s.span)
    return result
