"""The order in which a buffer's elements lie in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from treadle.base.errors import ScheduleError
from treadle.base.rewrite import Rewriter, replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import (
    Const,
    Expr,
    Var,
    as_expr,
    const,
    eq,
    maximum,
    substitute,
    transform,
    variables,
)
from treadle.expr.simplify import simplify
from treadle.ir.analysis import accesses, facts_of, fresh_name, names, statements, symbols
from treadle.ir.tensor import Allocate, Block, Buffer, IterVar, Load, Store, TensorFunction
from treadle.schedule.cache import block_name, locate_buffer
from treadle.schedule.digits import one_to_one
from treadle.schedule.index_map import IndexMap
from treadle.schedule.instruction import Instruction
from treadle.schedule.inverse import inverse
from treadle.schedule.nest import conjunction, replaced
from treadle.schedule.nests import Nest, nest_over
from treadle.schedule.regions import index_range, whole


@dataclass(frozen=True)
class TransformLayout(Instruction):
    """Store the elements of a buffer in another order, as ``lambda k, j: (j // 64, k, j % 64)``
    says.

    Every access is rewritten. The new shape is the box around the map's values; where the map is
    not onto, the rest is padding that no access reads. With a ``pad_value`` a block
    ``{buffer}_pad`` fills the padding with that. A parameter changes its shape: its caller packs it
    (``pack``), with ``pad_value``, or zeros, for the padding. The map may mention symbols of the
    function.

    Errors: E0301 no such buffer; E0322 a result with padding of no value; E0324 an access that is a
    vector; E0340 the map's parameters do not fit, a new index may be negative or unbounded, two
    elements may share a place, or the padding cannot be told from the rest.
    """

    buffer: str
    layout: IndexMap
    pad_value: float | None = None

    def check(self, function: TensorFunction) -> tuple[Buffer, tuple[Expr, ...]]:
        """The buffer and its new shape."""
        buffer = locate_buffer(self, function, self.buffer)
        if len(self.layout.params) != buffer.ndim:
            raise self._refuse_map(
                function, buffer, f"'{self.buffer}' has {buffer.ndim} dimensions"
            )
        shape = self._shape(function, buffer)
        for k, j in function.updates:
            pair = (function.output_buffers[k], function.input_buffers[j])
            if buffer in pair:
                raise self.refuse(
                    function,
                    buffer,
                    "E0322",
                    f"'{pair[0].name}' starts with the contents of '{pair[1].name}': neither has"
                    " a layout of its own",
                )
        for a in accesses(function.body):
            if a.buffer is buffer and a.is_vector:
                raise self.refuse(
                    function, a.stmt, "E0324", f"a vector of '{self.buffer}' is accessed here"
                )
        if self._is_onto(function, buffer, shape):
            return buffer, shape
        if self.pad_value is not None:
            self._outside(function, buffer, shape, _places(len(shape)))
        elif buffer in function.output_buffers:
            raise self.refuse(
                function,
                buffer,
                "E0322",
                f"'{self.buffer}' is a result, and the new layout would leave holes in it",
                hint="give a pad_value for them",
            )
        return buffer, shape

    def _is_onto(self, function: TensorFunction, buffer: Buffer, shape: tuple[Expr, ...]) -> bool:
        facts = facts_of(function)
        same = eq(prod(shape, start=as_expr(1)), prod(buffer.shape, start=as_expr(1)))
        return prove(simplify(same, facts), facts)

    def _outside(
        self,
        function: TensorFunction,
        buffer: Buffer,
        shape: tuple[Expr, ...],
        places: tuple[Expr, ...],
    ) -> Expr:
        """Whether no element of the buffer goes to ``places``."""
        if not buffer.dtype.is_float and self.pad_value != int(self.pad_value or 0):
            raise self._refuse_map(function, buffer, f"{self.pad_value} is no {buffer.dtype}")
        old, results = self._indices(function, buffer)
        indices = inverse(results, old, places, _ranged(facts_of(function), old))
        if indices is None:
            raise self._refuse_map(function, buffer, "the padding cannot be told from the rest")
        around = facts_of(function)
        for place, extent in zip(places, shape, strict=True):
            around = around.with_range(place, extent) if isinstance(place, Var) else around
        claims: list[Expr] = []
        for var, extent in old.items():
            claims += (indices[var] >= 0, indices[var] < extent)
        for result, place in zip(results, places, strict=True):
            claims.append(eq(substitute(result, indices), place))
        inside = conjunction(simplify(c, around) for c in claims if not prove(c, around))
        return const(False) if inside is None else ~inside

    def pack(
        self, array: np.ndarray, shape: tuple[int, ...], symbols: Mapping[str, int] = {}
    ) -> np.ndarray:
        """An argument for the parameter, in its new ``shape``."""
        return self.layout.pack(array, shape, self.pad_value or 0, symbols)

    def new_shape(self, function: TensorFunction) -> tuple[Expr, ...]:
        """The shape that the buffer gets."""
        return self.check(function)[1]

    def _indices(
        self, function: TensorFunction, buffer: Buffer
    ) -> tuple[dict[Var, Expr], tuple[Expr, ...]]:
        """The map's parameters under names of their own with the extents, and its results."""
        taken = set(names(function))
        own = {v: Var(fresh_name(f"{v.name}_old", taken)) for v in self.layout.variables}
        extents = dict(zip(own.values(), buffer.shape, strict=True))
        return extents, tuple(substitute(r, own) for r in self.layout.results)

    def _shape(self, function: TensorFunction, buffer: Buffer) -> tuple[Expr, ...]:
        old, results = self._indices(function, buffer)
        facts = facts_of(function)
        known = {*old, *symbols(function)}
        shape: list[Expr] = []
        for result, said in zip(results, self.layout.results, strict=True):
            if any(v not in known for v in variables(result)):
                raise self._refuse_map(
                    function, buffer, f"{said} is no expression of its parameters"
                )
            found = index_range(result, old, facts)
            if found is None or not prove(found.low >= 0, facts):
                raise self._refuse_map(
                    function, buffer, f"{said} may be negative or has no bound that can be shown"
                )
            end = simplify(found.end, facts)
            if not isinstance(result, Var) and not prove(end >= 0, facts):
                end = simplify(maximum(end, 0), facts)  # of an empty buffer
            shape.append(end)
        inside = _ranged(facts, old)
        if not one_to_one(results, old, inside) and inverse(results, old, results, inside) is None:
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
        after = replace_fields(function, params=params, body=rewriter.rewrite(function.body))
        filled = self.pad_value is not None and not self._is_onto(function, old, shape)
        if not filled or old in function.input_buffers:
            return after
        return self._filled(function, after, old, new)

    def _filled(
        self, before: TensorFunction, after: TensorFunction, old: Buffer, new: Buffer
    ) -> TensorFunction:
        """The function with the padding of ``new`` filled."""
        taken = set(names(after))
        iters: list[IterVar] = []
        for number, extent in enumerate(new.shape):
            var = Var(fresh_name(f"{new.name}_pad{number}", taken))
            taken.add(var.name)
            iters.append(IterVar(var, extent, "spatial", var))
        value = Const(self.pad_value or 0, new.dtype)
        store = Store(new, tuple(a.var for a in iters), value)
        block = Block(block_name(after, f"{new.name}_pad"), tuple(iters), (store,))
        nest = nest_over(iters, [whole(d) for d in new.shape], facts_of(after), taken)
        outside = self._outside(before, old, new.shape, nest.bindings)
        fill = Nest(nest.loops, nest.bindings, (outside, *nest.conditions)).around(block)
        declared = (s for s in statements(after.body) if isinstance(s, Allocate))
        place = next((s for s in declared if s.buffer is new), None)
        if place is None:
            return replace_fields(after, body=(*fill, *after.body))
        return replaced(after, (place, (place, *fill)))


def _places(rank: int) -> tuple[Expr, ...]:
    return tuple(Var(f"place{number}") for number in range(rank))


def _ranged(facts: Facts, extents: Mapping[Var, Expr]) -> Facts:
    for var, extent in extents.items():
        facts = facts.with_range(var, extent)
    return facts


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

    def rewrite_block(self, node: Block) -> Block:
        around = self.facts
        self.facts = _ranged(around, {axis.var: axis.extent for axis in node.iters})
        changed = self.generic(node)
        self.facts = around
        return changed

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
