"""The order in which a buffer's elements lie in memory."""

from dataclasses import dataclass
from math import prod

from treadle.base.errors import ScheduleError
from treadle.base.rewrite import Rewriter, replace_fields
from treadle.expr.bounds import prove
from treadle.expr.scalar import Expr, as_expr, eq, substitute, transform, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import accesses, facts_of
from treadle.ir.tensor import Buffer, Load, Store, TensorFunction
from treadle.schedule.cache import locate_buffer
from treadle.schedule.digits import one_to_one
from treadle.schedule.index_map import IndexMap
from treadle.schedule.instruction import Instruction
from treadle.schedule.regions import index_range


@dataclass(frozen=True)
class TransformLayout(Instruction):
    """Store the elements of a buffer in another order, as ``lambda k, j: (j // 64, k, j % 64)``
    says.

    Every access is rewritten. The new shape is the box around the map's values; where the map is
    not onto, the rest is padding that no access reads. A parameter changes its shape: its caller
    packs it (``layout.pack``), with zeros for the padding.

    Errors: E0301 no such buffer; E0322 a result with padding; E0324 an access that is a vector;
    E0340 the map's parameters do not fit, a new index may be negative or unbounded, or two elements
    may share a place.
    """

    buffer: str
    layout: IndexMap

    def check(self, function: TensorFunction) -> tuple[Buffer, tuple[Expr, ...]]:
        """The buffer and its new shape."""
        buffer = locate_buffer(self, function, self.buffer)
        if len(self.layout.params) != buffer.ndim:
            raise self._refuse_map(
                function, buffer, f"'{self.buffer}' has {buffer.ndim} dimensions"
            )
        shape = self._shape(function, buffer)
        for a in accesses(function.body):
            if a.buffer is buffer and any(i.dtype.lanes > 1 for i in a.indices):
                raise self.refuse(
                    function, a.stmt, "E0324", f"a vector of '{self.buffer}' is accessed here"
                )
        if buffer in function.output_buffers:
            facts = facts_of(function)
            same = eq(prod(shape, start=as_expr(1)), prod(buffer.shape, start=as_expr(1)))
            if not prove(simplify(same, facts), facts):
                raise self.refuse(
                    function,
                    buffer,
                    "E0322",
                    f"'{self.buffer}' is a result, and the new layout would leave holes in it",
                )
        return buffer, shape

    def new_shape(self, function: TensorFunction) -> tuple[Expr, ...]:
        """The shape that the buffer gets."""
        return self.check(function)[1]

    def _shape(self, function: TensorFunction, buffer: Buffer) -> tuple[Expr, ...]:
        old = dict(zip(self.layout.variables, buffer.shape, strict=True))
        facts = facts_of(function)
        shape: list[Expr] = []
        for result in self.layout.results:
            if any(v not in old for v in variables(result)):
                raise self._refuse_map(
                    function, buffer, f"{result} is no expression of its parameters"
                )
            found = index_range(result, old, facts)
            if found is None or not prove(found.low >= 0, facts):
                raise self._refuse_map(
                    function, buffer, f"{result} may be negative or has no bound that can be shown"
                )
            shape.append(simplify(found.end, facts))
        inside = facts
        for var, extent in old.items():
            inside = inside.with_range(var, extent)
        if not one_to_one(self.layout.results, old, inside):
            raise self._refuse_map(function, buffer, "two elements may get one place")
        return tuple(shape)

    def _refuse_map(self, function: TensorFunction, buffer: Buffer, why: str) -> ScheduleError:
        return self.refuse(
            function,
            buffer,
            "E0340",
            f"the map does not fit: {why}",
            notes=(f"the map is {self.layout}", f"the shape is {tuple(buffer.shape)}"),
            hint="give a one-to-one map made of +, * , // and % by constants",
        )

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function over the other layout."""
        old, shape = self.check(function)
        new = Buffer(old.name, shape, old.dtype, old.scope)
        rewriter = _Relayout(function, old, new, self.layout)
        params = tuple(new if p is old else p for p in function.params)
        return replace_fields(function, params=params, body=rewriter.rewrite(function.body))


class _Relayout(Rewriter):
    def __init__(
        self, function: TensorFunction, old: Buffer, new: Buffer, layout: IndexMap
    ) -> None:
        self.old, self.new, self.layout = old, new, layout
        self.facts = facts_of(function)

    def rewrite_buffer(self, node: Buffer) -> Buffer:
        return self.new if node is self.old else node

    def rewrite_expr(self, node: Expr) -> Expr:
        return transform(node, self._load)

    def rewrite_store(self, node: Store) -> Store:
        changed = self.generic(node)
        if node.buffer is not self.old:
            return changed
        return replace_fields(changed, indices=self._moved(changed.indices))

    def _load(self, x: Expr) -> Expr | None:
        if isinstance(x, Load) and x.buffer is self.old:
            return Load(self.new, self._moved(x.indices), x.mask)
        return None

    def _moved(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        values = dict(zip(self.layout.variables, indices, strict=True))
        return tuple(simplify(substitute(r, values), self.facts) for r in self.layout.results)
