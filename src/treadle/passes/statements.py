"""Small tools that the loop-level passes share: substitution in statements and walks over them."""

from collections.abc import Callable, Mapping

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Apply, Expr, Var, int_value, transform, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import allocated, statements
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    If,
    Let,
    Load,
    Stmt,
    Store,
    TensorFunction,
)

Body = tuple[Stmt, ...]


def map_expressions(body: Body, change: Callable[[Expr], Expr]) -> Body:
    """Every expression in the statements changed by ``change``; what defines variables stays."""
    return Statements(change, {}).body(body)


def substitute_body(
    body: Body, values: Mapping[Var, Expr], buffers: Mapping[Buffer, Buffer] | None = None
) -> Body:
    """The statements with variables exchanged for expressions and buffers for others."""
    exchanged = buffers or {}

    def visit(x: Expr) -> Expr | None:
        if isinstance(x, Var):
            return values.get(x)
        if isinstance(x, Load) and x.buffer in exchanged:
            return Load(exchanged[x.buffer], x.indices, x.mask)
        return None

    return Statements(lambda e: transform(e, visit), exchanged).body(body)


class Statements:
    """The statements of a tree with their expressions changed by ``change`` and buffers exchanged;
    what defines variables stays.

    A subclass says by ``stored`` what else becomes of a store.
    """

    def __init__(self, change: Callable[[Expr], Expr], buffers: Mapping[Buffer, Buffer]) -> None:
        self.change = change
        self.buffers = buffers

    def stored(self, s: Store, indices: tuple[Expr, ...], value: Expr, mask: Expr | None) -> Store:
        """What the store ``s`` becomes, its expressions changed already."""
        return Store(self.buffers.get(s.buffer, s.buffer), indices, value, mask, s.span)

    def body(self, body: Body) -> Body:
        """The statements changed."""
        return tuple([self.statement(s) for s in body])

    def statement(self, s: Stmt) -> Stmt:
        """One statement changed, what is inside it too."""
        change = self.change
        if isinstance(s, For):
            return For(s.var, change(s.extent), self.body(s.body), s.kind, s.span, s.annotations)
        if isinstance(s, Store):
            mask = None if s.mask is None else change(s.mask)
            return self.stored(s, tuple([change(i) for i in s.indices]), change(s.value), mask)
        if isinstance(s, If):
            return If(change(s.condition), self.body(s.body), self.body(s.orelse), s.span)
        if isinstance(s, Block):
            iters = tuple(
                [
                    replace_fields(i, extent=change(i.extent), binding=change(i.binding))
                    for i in s.iters
                ]
            )
            where = None if s.where is None else change(s.where)
            return replace_fields(
                s, iters=iters, body=self.body(s.body), init=self.body(s.init), where=where
            )
        if isinstance(s, Let):
            return Let(s.var, change(s.value), s.span)
        if isinstance(s, Allocate):
            return Allocate(self.buffers.get(s.buffer, s.buffer), s.span)
        return replace_fields(s, args=tuple([change(a) for a in s.args]))


def simplify_body(body: Body, facts: Facts, lanes: frozenset[Var] = frozenset()) -> Body:
    """Simplify every expression under what the loops around it say; decided conditions disappear.

    ``lanes`` are the variables of the vectorized loops around ``body``.
    """
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            extent = simplify(s.extent, facts)
            inside = lanes | {s.var} if s.kind == "vectorized" else lanes
            inner = (
                ()
                if _never_runs(extent)
                else simplify_body(s.body, facts.with_range(s.var, extent), inside)
            )
            if inner:
                result.append(For(s.var, extent, inner, s.kind, s.span, s.annotations))
        elif isinstance(s, If):
            result.extend(_simplify_if(s, facts, lanes))
        else:
            result.append(Statements(lambda e: simplify(e, facts), {}).statement(s))
    return tuple(result)


def _never_runs(extent: Expr) -> bool:
    count = int_value(extent)
    return count is not None and count <= 0


def _simplify_if(s: If, facts: Facts, lanes: frozenset[Var]) -> Body:
    condition = simplify(s.condition, facts)
    decided = constant_truth(condition)
    if decided is not None:
        return simplify_body(s.body if decided else s.orelse, facts, lanes)
    body = simplify_body(s.body, facts_inside(facts, condition, lanes), lanes)
    orelse = simplify_body(s.orelse, facts, lanes)
    return (If(condition, body, orelse, s.span),) if body or orelse else ()


def facts_inside(facts: Facts, condition: Expr, lanes: frozenset[Var]) -> Facts:
    """What holds under a condition, but for what it says of lanes: they all run there, some of them
    masked.
    """
    if isinstance(condition, Apply) and condition.fn == "and":
        for part in condition.args:
            facts = facts_inside(facts, part, lanes)
        return facts
    return facts if any(v in lanes for v in variables(condition)) else facts.with_fact(condition)


def constant_truth(x: Expr) -> bool | None:
    """Whether a condition is known to hold, known not to, or open."""
    value = getattr(x, "value", None)
    return value if isinstance(value, bool) else None


def with_body(function: TensorFunction, body: Body) -> TensorFunction:
    """The function over another body."""
    return replace_fields(function, body=body)


def renamed_copy(body: Body, suffix: str) -> Body:
    """The statements with names of their own for the loops, values and buffers that they define."""
    variables = {
        s.var: Var(f"{s.var.name}{suffix}", s.var.dtype)
        for s in statements(body)
        if isinstance(s, For | Let)
    }
    buffers = {b: Buffer(f"{b.name}{suffix}", b.shape, b.dtype, b.scope) for b in allocated(body)}
    if not variables and not buffers:
        return body
    return rename_definitions(substitute_body(body, variables, buffers), variables)


def rename_definitions(body: Body, variables: Mapping[Var, Var], suffix: str = "") -> Body:
    """The statements with what they define renamed; names of blocks get ``suffix``."""
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            inner = rename_definitions(s.body, variables, suffix)
            s = For(variables.get(s.var, s.var), s.extent, inner, s.kind, s.span, s.annotations)
        elif isinstance(s, If):
            inner = rename_definitions(s.body, variables, suffix)
            s = If(s.condition, inner, rename_definitions(s.orelse, variables, suffix), s.span)
        elif isinstance(s, Let):
            s = Let(variables.get(s.var, s.var), s.value, s.span)
        elif isinstance(s, Block):
            iters = tuple(replace_fields(i, var=variables.get(i.var, i.var)) for i in s.iters)
            inner = rename_definitions(s.body, variables, suffix)
            init = rename_definitions(s.init, variables, suffix)
            s = replace_fields(s, name=f"{s.name}{suffix}", iters=iters, body=inner, init=init)
        result.append(s)
    return tuple(result)
