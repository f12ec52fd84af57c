"""Address memory by one index: every buffer outside of registers gets one dimension, counted in
row-major order.

Indices that were fused or split then meet in one linear expression, where what cancels does. The
symbols that the shapes bound become scalar parameters, in the same order, so that callers see no
difference.
"""

from collections.abc import Mapping

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Expr, Var, transform
from treadle.expr.simplify import simplify
from treadle.ir.analysis import allocated, element_count, facts_of, flat_index, statements, symbols
from treadle.ir.tensor import (
    PREFETCHES,
    Buffer,
    For,
    If,
    Intrinsic,
    Load,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.passes.statements import Body, Statements, facts_inside


def flatten_buffers(function: TensorFunction) -> TensorFunction:
    """Give the buffers of ``function`` one dimension; for programs without blocks."""
    facts = facts_of(function)
    buffers = [b for b in (*function.buffers, *allocated(function.body)) if b.scope != "register"]
    flat = {
        b: Buffer(b.name, (simplify(element_count(b), facts),), b.dtype, b.scope) for b in buffers
    }
    params = (*(flat[b] for b in function.buffers), *symbols(function))
    assumes = (*function.assumes, *facts.claims)
    lanes = frozenset(
        s.var for s in statements(function.body) if isinstance(s, For) and s.kind == "vectorized"
    )
    body = _Flatten(flat, lanes, facts).body(function.body)
    return replace_fields(function, params=params, body=body, assumes=tuple(dict.fromkeys(assumes)))


class _Flatten(Statements):
    """Exchange buffers for those of one dimension, under what loops and conditions around say."""

    def __init__(self, flat: Mapping[Buffer, Buffer], lanes: frozenset[Var], facts: Facts) -> None:
        super().__init__(lambda e: transform(e, self.load), flat)
        self.lanes, self.facts = lanes, facts

    def statement(self, s: Stmt) -> Stmt:
        """One statement; what is inside it knows more."""
        if isinstance(s, Intrinsic):
            return self.intrinsic(s)
        if not isinstance(s, For | If):
            return super().statement(s)
        if isinstance(s, For):
            inside = self.facts.with_range(s.var, s.extent)
            return replace_fields(s, extent=self.change(s.extent), body=self.under(inside, s.body))
        inside = facts_inside(self.facts, s.condition, self.lanes)
        body, orelse = self.under(inside, s.body), self.body(s.orelse)
        return replace_fields(s, condition=self.change(s.condition), body=body, orelse=orelse)

    def intrinsic(self, s: Intrinsic) -> Stmt:
        """What says how many elements behind an address it means gets that address."""
        first, *further = s.args
        if s.name not in PREFETCHES or not further or not isinstance(first, Load):
            return super().statement(s)
        (place,) = self.place(first.buffer, first.indices)
        place = simplify(sum(further, place), self.facts)
        return replace_fields(s, args=(Load(self.buffers[first.buffer], (place,)),))

    def under(self, facts: Facts, body: Body) -> Body:
        """The statements where ``facts`` hold."""
        return _Flatten(self.buffers, self.lanes, facts).body(body)

    def stored(self, s: Store, indices: tuple[Expr, ...], value: Expr, mask: Expr | None) -> Store:
        """The store at its place in memory."""
        places = self.place(s.buffer, indices) if s.buffer in self.buffers else indices
        return super().stored(s, places, value, mask)

    def load(self, x: Expr) -> Expr | None:
        """A load at its place in memory."""
        if not isinstance(x, Load) or x.buffer not in self.buffers:
            return None
        return Load(self.buffers[x.buffer], self.place(x.buffer, x.indices), x.mask)

    def place(self, buffer: Buffer, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """The one index of an element."""
        return (simplify(flat_index(buffer, indices), self.facts),)
