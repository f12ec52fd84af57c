"""Turn vectorized loops into vector statements: the loop's variable becomes a ramp, and what
depends on it widens.

A condition on the lanes becomes a mask of the stores and loads under it. A store to an element that
does not depend on the lanes must combine them (``y = y + term``): the lanes are reduced first.
"""

from treadle.base.errors import LoweringError
from treadle.expr.bounds import Facts
from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import (
    Apply,
    Const,
    Expr,
    Var,
    apply,
    const,
    int_value,
    substitute,
    variables,
    walk,
)
from treadle.expr.simplify import simplify
from treadle.ir.analysis import facts_of
from treadle.ir.loop_builder import Combine, identity
from treadle.ir.tensor import Allocate, For, If, Intrinsic, Let, Load, Stmt, Store, TensorFunction
from treadle.passes.statements import Body, constant_truth, with_body

_HORIZONTAL: dict[str, str] = {
    "add": "reduce_add",
    "mul": "reduce_mul",
    "min": "reduce_min",
    "max": "reduce_max",
}
_COMBINES: dict[str, Combine] = {"add": "add", "mul": "mul", "min": "min", "max": "max"}


def vectorize(function: TensorFunction) -> TensorFunction:
    """Replace every vectorized loop of ``function``.

    Raises:
        LoweringError: E0402 if the extent of one is not constant, E0403 if its body has no vector
            form.
    """
    return with_body(function, _visit(function.body, facts_of(function), frozenset()))


def _visit(body: Body, facts: Facts, unrolled: frozenset[Var]) -> Body:
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            inside = facts.with_range(s.var, s.extent)
            inner = _visit(s.body, inside, unrolled | {s.var} if s.kind == "unrolled" else unrolled)
            if s.kind == "vectorized":
                result.extend(_vectorize_loop(s, inner, inside, unrolled))
            else:
                result.append(For(s.var, s.extent, inner, s.kind, s.span, s.annotations))
        elif isinstance(s, If):
            result.append(
                If(
                    s.condition,
                    _visit(s.body, facts, unrolled),
                    _visit(s.orelse, facts, unrolled),
                    s.span,
                )
            )
        else:
            result.append(s)
    return tuple(result)


def _vectorize_loop(loop: For, body: Body, facts: Facts, unrolled: frozenset[Var]) -> Body:
    lanes = int_value(loop.extent)
    if lanes is None:
        raise _refusal("E0402", loop, f"has extent {loop.extent}, which is not constant")
    if lanes == 0:
        return ()
    return _Widen(loop, lanes, facts, unrolled).body(body)


def _refusal(code: str, loop: For, what: str) -> LoweringError:
    place = None if loop.span is None else str(loop.span)
    help_text = "split the loop by a constant and vectorize the inner one, or leave it serial"
    return LoweringError(
        code, f"the vectorized loop '{loop.var}' {what}", place=place, help=help_text
    )


class _Widen:
    """Rewrites the body of one vectorized loop."""

    def __init__(self, loop: For, lanes: int, facts: Facts, unrolled: frozenset[Var]) -> None:
        self.loop, self.lanes, self.facts, self.unrolled = loop, lanes, facts, unrolled
        index = loop.var.dtype
        one = const(1, index)
        first = const(0, index)
        self.ramp: Expr = (
            first if lanes == 1 else apply("ramp", first, one, dtype=index.vector(lanes))
        )
        self.values: dict[Var, Expr] = {loop.var: self.ramp}

    def body(self, body: Body, mask: Expr | None = None) -> Body:
        return tuple([t for s in body for t in self.statement(s, mask)])

    def statement(self, s: Stmt, mask: Expr | None) -> Body:
        if isinstance(s, Store):
            return (self.store(s, mask),)
        if isinstance(s, If):
            return self.condition(s, mask)
        if isinstance(s, For):
            extent = self.wide(s.extent, None)
            if extent.dtype.lanes > 1:
                raise _refusal(
                    "E0403",
                    self.loop,
                    f"has a loop inside, '{s.var}', whose extent differs between lanes",
                )
            return (For(s.var, extent, self.body(s.body, mask), s.kind, s.span, s.annotations),)
        if isinstance(s, Let):
            value = self.wide(s.value, mask)
            var = Var(s.var.name, value.dtype)
            self.values[s.var] = var
            return (Let(var, value, s.span),)
        if isinstance(s, Allocate):
            return (s,)
        if isinstance(s, Intrinsic):
            first: dict[Var, Expr] = {self.loop.var: const(0, self.loop.var.dtype)}
            return (
                Intrinsic(s.name, tuple(simplify(substitute(a, first)) for a in s.args), s.span),
            )
        raise _refusal("E0403", self.loop, "still has a block inside")

    def condition(self, s: If, mask: Expr | None) -> Body:
        scalar = simplify(s.condition, self.facts)
        truth = constant_truth(scalar)
        if truth is not None:
            return self.body(s.body if truth else s.orelse, mask)
        condition = self.wide(scalar, mask)
        whole = self.whole(scalar) if condition.dtype.lanes > 1 else None
        if whole is not None:
            # Decided copy by copy once the unrolled loops around are written out.
            return (If(whole, self.body(s.body, mask), self.masked(s, condition, mask), s.span),)
        if condition.dtype.lanes == 1:
            return (If(condition, self.body(s.body, mask), self.body(s.orelse, mask), s.span),)
        return self.masked(s, condition, mask)

    def masked(self, s: If, condition: Expr, mask: Expr | None) -> Body:
        """Both branches, each for the lanes that take it."""
        result = self.body(s.body, condition if mask is None else mask & condition)
        if s.orelse:
            other = ~condition
            result += self.body(s.orelse, other if mask is None else mask & other)
        return result

    def whole(self, condition: Expr) -> Expr | None:
        """That a limit on the lanes holds for all of them, if unrolling will decide that; else
        ``None``.
        """
        used = [v for v in variables(condition) if v is not self.loop.var]
        if not used or any(v not in self.unrolled for v in used):
            return None
        last = {self.loop.var: const(self.lanes - 1, self.loop.var.dtype)}
        first = {self.loop.var: const(0, self.loop.var.dtype)}
        ordered = isinstance(condition, Apply) and condition.fn in ("lt", "le", "gt", "ge")
        return substitute(condition, first) & substitute(condition, last) if ordered else None

    def store(self, s: Store, mask: Expr | None) -> Store:
        indices = tuple(self.wide(i, mask) for i in s.indices)
        own = None if s.mask is None else self.wide(s.mask, None)
        both = own if mask is None else mask if own is None else self.broadcast(own) & mask
        if all(i.dtype.lanes == 1 for i in indices) and self.lanes > 1:
            return self.combine(s, indices, both)
        value = self.broadcast(self.wide(s.value, both))
        return Store(s.buffer, indices, value, both, s.span)

    def combine(self, s: Store, indices: tuple[Expr, ...], mask: Expr | None) -> Store:
        """A store of all lanes to one element: they are combined before the element is."""
        value = self.wide_parts(s.value, mask)
        target = Load(s.buffer, indices)
        if isinstance(value, Apply) and value.fn == "fmuladd" and value.args[2] is target:
            value = Apply("add", (target, apply("mul", value.args[0], value.args[1])), value.dtype)
        if (
            not isinstance(value, Apply)
            or value.fn not in _HORIZONTAL
            or len(value.args) != 2
            or target not in value.args
        ):
            wide = self.wide(s.value, mask)
            if wide.dtype.lanes == 1 and mask is None:
                return Store(s.buffer, indices, wide, None, s.span)
            raise _refusal(
                "E0403", self.loop, f"stores every lane to the same element of '{s.buffer.name}'"
            )
        term = value.args[1] if value.args[0] is target else value.args[0]
        if any(isinstance(x, Load) and x.buffer is s.buffer for x in walk(term)):
            raise _refusal(
                "E0403", self.loop, f"reads '{s.buffer.name}' while it combines lanes into it"
            )
        term = self.broadcast(term)
        reduce = _HORIZONTAL[value.fn]
        if mask is not None:
            term = _select(mask, term, identity(_COMBINES[value.fn], term.dtype.scalar))
        element = term.dtype.scalar
        return Store(
            s.buffer,
            indices,
            apply(value.fn, target, apply(reduce, term, dtype=element)),
            None,
            s.span,
        )

    def wide_parts(self, x: Expr, mask: Expr | None) -> Expr:
        """``x`` with its operands widened one by one, not yet made equal in lanes."""
        if isinstance(x, Apply) and (x.fn in _HORIZONTAL or x.fn == "fmuladd"):
            args = tuple(self.wide(a, mask) for a in x.args)
            return Apply(x.fn, args, x.dtype)
        return self.wide(x, mask)

    def wide(self, x: Expr, mask: Expr | None) -> Expr:
        """``x`` for all lanes at once: a vector if it depends on the lane, else the scalar that it
        is.
        """
        memo: dict[Expr, Expr] = {}
        for old in walk(x):
            memo[old] = self.node(old, memo, mask)
        return simplify(memo[x])

    def node(self, x: Expr, memo: dict[Expr, Expr], mask: Expr | None) -> Expr:
        if isinstance(x, Var):
            return self.values.get(x, x)
        if isinstance(x, Load):
            return self.load(x, memo, mask)
        if not isinstance(x, Apply):
            return x
        args = tuple(memo[a] for a in x.args)
        if all(a is b for a, b in zip(args, x.args, strict=True)):
            return x
        if max(a.dtype.lanes for a in args) == 1:
            return x.with_children(args)
        if x.dtype.lanes > 1:
            raise _refusal("E0403", self.loop, f"holds vectors already: {x}")
        args = tuple(self.broadcast(a) for a in args)
        if FUNCTIONS[x.fn].result == "explicit":
            return Apply(x.fn, args, x.dtype.vector(self.lanes))
        return apply(x.fn, *args)

    def load(self, x: Load, memo: dict[Expr, Expr], mask: Expr | None) -> Expr:
        indices = tuple(memo[i] for i in x.indices)
        own = None if x.mask is None else memo[x.mask]
        vector = any(i.dtype.lanes > 1 for i in indices)
        if not vector:
            if own is not None and own.dtype.lanes > 1:
                return _select(own, self.broadcast(Load(x.buffer, indices)), Const(0, x.dtype))
            return Load(x.buffer, indices, own)
        if own is not None:
            own = self.broadcast(own)
            return Load(x.buffer, indices, own if mask is None else own & mask)
        return Load(x.buffer, indices, mask)

    def broadcast(self, x: Expr) -> Expr:
        if x.dtype.lanes > 1 or self.lanes == 1:
            return x
        return apply("broadcast", x, dtype=x.dtype.vector(self.lanes))


def _select(condition: Expr, a: Expr, b: Const) -> Expr:
    other = apply("broadcast", b, dtype=a.dtype) if a.dtype.lanes > 1 else b
    return apply("select", condition, a, other, dtype=a.dtype)
