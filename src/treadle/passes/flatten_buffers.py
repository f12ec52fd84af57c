"""Address memory by one index: every buffer outside of registers gets one dimension, counted in
row-major order.

Indices that were fused or split then meet in one linear expression, where what cancels does. The
symbols that the shapes bound become scalar parameters, in the same order, so that callers see no
difference.
"""

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Expr, Var, transform
from treadle.expr.simplify import simplify
from treadle.ir.analysis import allocated, element_count, facts_of, flat_index, statements, symbols
from treadle.ir.tensor import Allocate, Buffer, For, If, Load, Stmt, Store, TensorFunction
from treadle.passes.statements import Body, facts_inside, map_expressions


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
    body = _Flatten(flat, lanes).body(function.body, facts)
    return replace_fields(function, params=params, body=body, assumes=tuple(dict.fromkeys(assumes)))


class _Flatten:
    def __init__(self, flat: dict[Buffer, Buffer], lanes: frozenset[Var]) -> None:
        self.flat, self.lanes = flat, lanes

    def body(self, body: Body, facts: Facts) -> Body:
        return tuple([self.statement(s, facts) for s in body])

    def statement(self, s: Stmt, facts: Facts) -> Stmt:
        if isinstance(s, For):
            inner = self.body(s.body, facts.with_range(s.var, s.extent))
            return For(s.var, self.expression(s.extent, facts), inner, s.kind, s.span)
        if isinstance(s, If):
            inside = self.body(s.body, facts_inside(facts, s.condition, self.lanes))
            condition = self.expression(s.condition, facts)
            return If(condition, inside, self.body(s.orelse, facts), s.span)
        if isinstance(s, Allocate):
            return Allocate(self.flat.get(s.buffer, s.buffer), s.span)
        changed = map_expressions((s,), lambda e: self.expression(e, facts))[0]
        if isinstance(changed, Store) and changed.buffer in self.flat:
            place = simplify(flat_index(changed.buffer, changed.indices), facts)
            return Store(
                self.flat[changed.buffer], (place,), changed.value, changed.mask, changed.span
            )
        return changed

    def expression(self, x: Expr, facts: Facts) -> Expr:
        def visit(e: Expr) -> Expr | None:
            if not isinstance(e, Load) or e.buffer not in self.flat:
                return None
            return Load(
                self.flat[e.buffer], (simplify(flat_index(e.buffer, e.indices), facts),), e.mask
            )

        return transform(x, visit)
