"""Turn blocks into plain statements: axes become the loops bound to them, predicates and inits
become conditions.
"""

from treadle.expr.bounds import Facts
from treadle.expr.scalar import Apply, Expr, Var, eq
from treadle.ir.analysis import facts_of
from treadle.ir.tensor import Block, For, If, Stmt, TensorFunction
from treadle.passes.statements import Body, simplify_body, substitute_body, with_body


def lower_blocks(function: TensorFunction) -> TensorFunction:
    """Remove every block of ``function``; loops and buffers stay as they are."""
    body = _lower_body(function.body)
    facts: Facts = facts_of(function)
    return with_body(function, simplify_body(body, facts))


def _lower_body(body: Body) -> Body:
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, Block):
            result.extend(_lower_block(s))
        elif isinstance(s, For):
            result.append(For(s.var, s.extent, _lower_body(s.body), s.kind, s.span, s.annotations))
        elif isinstance(s, If):
            result.append(If(s.condition, _lower_body(s.body), _lower_body(s.orelse), s.span))
        else:
            result.append(s)
    return tuple(result)


def _lower_block(block: Block) -> Body:
    bindings: dict[Var, Expr] = {i.var: i.binding for i in block.iters}
    body = substitute_body(_lower_body(block.body), bindings)
    if block.init:
        first = _first_step(block)
        init = substitute_body(_lower_body(block.init), bindings)
        body = (*init, *body) if first is None else (If(first, init, (), block.span), *body)
    for claim in [] if block.where is None else reversed(conjuncts(block.where)):
        body = (If(claim, body, (), block.span),)
    return body


def conjuncts(x: Expr) -> list[Expr]:
    """The claims that ``x`` makes all of: each can be decided in a place of its own."""
    if isinstance(x, Apply) and x.fn == "and":
        return [claim for part in x.args for claim in conjuncts(part)]
    return [x]


def _first_step(block: Block) -> Expr | None:
    """When the reduction of a block starts; ``None`` if there is nothing to reduce over."""
    condition: Expr | None = None
    for axis in block.iters:
        if axis.kind == "reduce":
            zero = eq(axis.binding, 0)
            condition = zero if condition is None else condition & zero
    return condition
