"""Turn register tiles into arrays of vectors, so that every element becomes one machine register.

A temporary whose last index is always a whole, aligned run of lanes becomes a buffer of vectors,
one element per run. A masked store to one keeps the other lanes. Register buffers that are indexed
by what is not constant move to the stack.
"""

from treadle.base.errors import InternalError
from treadle.expr.bounds import divisible
from treadle.expr.scalar import Apply, Const, Expr, apply, const, int_value, transform, walk
from treadle.expr.simplify import simplify
from treadle.ir.analysis import expressions, statements
from treadle.ir.tensor import Allocate, Buffer, For, If, Load, Stmt, Store, TensorFunction
from treadle.passes.statements import Body, map_expressions, with_body


def lower_storage(function: TensorFunction) -> TensorFunction:
    """Give the temporaries of ``function`` their final types and scopes."""
    temporaries = [s.buffer for s in statements(function.body) if isinstance(s, Allocate)]
    indices: dict[Buffer, list[tuple[Expr, ...]]] = {b: [] for b in temporaries}
    for s in statements(function.body):
        for x in walk(*expressions(s)):
            if isinstance(x, Load) and x.buffer in indices:
                indices[x.buffer].append(x.indices)
        if isinstance(s, Store) and s.buffer in indices:
            indices[s.buffer].append(s.indices)
    body = function.body
    for buffer, uses in indices.items():
        if buffer.scope == "global" or buffer.ndim == 0:
            continue
        lanes = _lanes(buffer, uses)
        if lanes is not None:
            body = _Retype(buffer, _vectors(buffer, lanes, uses), lanes).body(body)
        elif buffer.scope == "register" and not all(_constant(u) for u in uses):
            moved = Buffer(buffer.name, buffer.shape, buffer.dtype, "stack")
            body = _Retype(buffer, moved, 1).body(body)
    return with_body(function, body)


def _constant(indices: tuple[Expr, ...]) -> bool:
    return all(isinstance(i, Const) for i in indices)


def _lanes(buffer: Buffer, uses: list[tuple[Expr, ...]]) -> int | None:
    """The lanes of every access, if all are runs of that many neighbours that start at a multiple
    of it.
    """
    found: set[int] = set()
    for indices in uses:
        run = indices[-1]
        if not isinstance(run, Apply) or run.fn != "ramp" or int_value(run.args[1]) != 1:
            return None
        if any(i.dtype.lanes > 1 for i in indices[:-1]) or not divisible(
            run.args[0], run.dtype.lanes
        ):
            return None
        found.add(run.dtype.lanes)
    last = int_value(buffer.shape[-1])
    if len(found) != 1 or last is None or last % min(found) != 0:
        return None
    return found.pop()


def _vectors(buffer: Buffer, lanes: int, uses: list[tuple[Expr, ...]]) -> Buffer:
    shape = (*buffer.shape[:-1], simplify(buffer.shape[-1] // lanes))
    constant = all(isinstance(i, Const) for u in uses for i in (*u[:-1], u[-1].children[0]))
    scope = buffer.scope if constant else "stack"
    return Buffer(buffer.name, shape, buffer.dtype.vector(lanes), scope)


class _Retype:
    """Exchange one temporary for another whose last index counts vectors of ``lanes``."""

    def __init__(self, old: Buffer, new: Buffer, lanes: int) -> None:
        self.old, self.new, self.lanes = old, new, lanes

    def body(self, body: Body) -> Body:
        return tuple([self.statement(s) for s in body])

    def statement(self, s: Stmt) -> Stmt:
        if isinstance(s, For):
            return For(s.var, self.expression(s.extent), self.body(s.body), s.kind, s.span)
        if isinstance(s, If):
            return If(self.expression(s.condition), self.body(s.body), self.body(s.orelse), s.span)
        if isinstance(s, Allocate):
            return Allocate(self.new, s.span) if s.buffer is self.old else s
        changed = map_expressions((s,), self.expression)[0]
        if isinstance(changed, Store) and changed.buffer is self.old:
            return self.store(changed)
        return changed

    def store(self, s: Store) -> Store:
        indices = self.indices(s.indices)
        if s.mask is None or self.lanes == 1:
            return Store(self.new, indices, s.value, s.mask, s.span)
        mask = s.mask
        if mask.dtype.lanes == 1:
            mask = apply("broadcast", mask, dtype=mask.dtype.vector(self.lanes))
        kept = apply("select", mask, s.value, Load(self.new, indices), dtype=s.value.dtype)
        return Store(self.new, indices, kept, None, s.span)

    def expression(self, x: Expr) -> Expr:
        return transform(x, self.load)

    def load(self, x: Expr) -> Expr | None:
        if not isinstance(x, Load) or x.buffer is not self.old:
            return None
        return Load(self.new, self.indices(x.indices), x.mask if self.lanes == 1 else None)

    def indices(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        if self.lanes == 1:
            return indices
        run = indices[-1]
        if not isinstance(run, Apply):
            raise InternalError(
                f"'{self.old.name}' is indexed by {run}, which is not a run of lanes"
            )
        return (*indices[:-1], simplify(run.args[0] // const(self.lanes)))
