"""Products of one operand with several constant matrices become one product with the matrices side
by side, and what follows reads its part of the columns: the operand is walked once.

That is for products whose columns are taken apart again, such as queries, keys and values of
attention: each result has one use, which leads through views and factors to another product, into
whose loops the cut is written. Where results meet element by element, as in a gated layer, they
stay apart, since each then is finished in the tile that it is made in.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import int_value
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Literal, Value
from treadle.ir.module import Constant, Module
from treadle.ir.types import TensorType, tensor
from treadle.ops import Add, Einsum, Matmul, Permute, Reshape, Slice
from treadle.ops._pointwise import Pointwise

_MOST_ROWS = 128
"""With more rows than this the walk over the operand takes no part of the time that is seen."""


def merge_products(module: Module) -> Module:
    """Merge the products of one value by constant matrices in every graph function."""
    constants = dict(module.constants)
    uses = Counter(
        a.name
        for f in module.graph_functions
        for a in (*(a for b in f.body for a in b.args), *f.results)
        if isinstance(a, ConstantRef)
    )
    functions = {
        f.name: _Merge(f, constants, uses).run() if isinstance(f, GraphFunction) else f
        for f in module.functions.values()
    }
    return Module(functions, constants)


@dataclass(frozen=True, slots=True)
class _Product:
    """A product with a constant matrix, and the addition of a constant row to it."""

    product: Binding
    addition: Binding | None
    weight: ConstantRef
    bias: ConstantRef | None

    @property
    def result(self) -> Value:
        """What the rest of the function uses."""
        return (self.addition or self.product).outputs[0]


@dataclass(slots=True)
class _Merge:
    """One graph function; matrices side by side are added to the module's constants."""

    function: GraphFunction
    constants: dict[str, Constant]
    uses: Counter[str]
    consumers: dict[Value, list[Binding]] = field(default_factory=dict[Value, list[Binding]])
    results: set[Value] = field(default_factory=set[Value])

    def run(self) -> GraphFunction:
        self.results = {r for r in self.function.results if isinstance(r, Value)}
        for b in self.function.body:
            for a in b.args:
                if isinstance(a, Value):
                    self.consumers.setdefault(a, []).append(b)
        groups: dict[tuple[object, ...], list[_Product]] = {}
        for b in self.function.body:
            found = self.product(b)
            if found is not None:
                key = (b.args[0], found.bias is None, _type(found.weight).dtype)
                groups.setdefault(key, []).append(found)
        merged = {
            group[0].product: self.merged(group) for group in groups.values() if len(group) > 1
        }
        if not merged:
            return self.function
        gone = {
            b
            for group in groups.values()
            if group[0].product in merged
            for p in group
            for b in (p.product, p.addition)
        }
        body: list[Binding] = []
        for b in self.function.body:
            body.extend(merged.get(b, () if b in gone else (b,)))
        return replace_fields(self.function, body=tuple(body))

    def product(self, b: Binding) -> _Product | None:
        """What ``b`` begins, if its columns may be part of a wider product."""
        if type(b.op) is not Matmul or not isinstance(b.args[0], Value):
            return None
        weight = b.args[1]
        if not isinstance(weight, ConstantRef) or not self.is_own(weight, 2):
            return None
        rows = int_value(_type(b.args[0]).dims[0]) if _type(b.args[0]).ndim == 2 else _MOST_ROWS + 1
        if rows is not None and rows > _MOST_ROWS:
            return None
        follower = self.only_consumer(b.outputs[0])
        found = _Product(b, None, weight, None)
        if follower is not None and isinstance(follower.op, Add):
            bias = next((a for a in follower.args if isinstance(a, ConstantRef)), None)
            if bias is not None and self.is_own(bias, 1):
                found = _Product(b, follower, weight, bias)
        return found if self.leads_to_product(found.result) else None

    def is_own(self, a: ConstantRef, rank: int) -> bool:
        """Whether a constant of so many axes is used once only."""
        return self.uses[a.name] == 1 and _type(a).ndim == rank

    def only_consumer(self, value: Value) -> Binding | None:
        found = self.consumers.get(value, [])
        return found[0] if len(found) == 1 and value not in self.results else None

    def leads_to_product(self, value: Value) -> bool:
        """Whether all that is done with a value is a product, maybe of a view of it.

        What is computed from each element before they are permuted is computed in the tile that
        makes them; so the product stays as it is.
        """
        moved = False
        while True:
            follower = self.only_consumer(value)
            if follower is None or isinstance(follower.op, Matmul | Einsum):
                return follower is not None
            if not isinstance(follower.op, Reshape | Permute):
                others = [a for a in follower.args if a is not value]
                single = all(isinstance(a, Literal) or _elements(a) == 1 for a in others)
                if not (moved and single and isinstance(follower.op, Pointwise)):
                    return False
            moved = moved or isinstance(follower.op, Permute)
            value = follower.outputs[0]

    def merged(self, group: list[_Product]) -> tuple[Binding, ...]:
        """The wide product, and the parts of its columns under the old names."""
        first = group[0]
        weight = self.side_by_side([p.weight for p in group])
        biases = [p.bias for p in group if p.bias is not None]
        rows, dtype = _type(first.product.args[0]).dims[0], _type(weight).dtype
        type_ = tensor((rows, _type(weight).dims[1]), dtype)
        wide = Value(f"{first.product.outputs[0].name}_wide", type_)
        body = [
            replace_fields(first.product, outputs=(wide,), args=(first.product.args[0], weight))
        ]
        if biases and first.addition is not None:
            total = Value(f"{first.result.name}_wide", type_)
            args = (wide, self.side_by_side(biases))
            body.append(replace_fields(first.addition, outputs=(total,), args=args))
            wide = total
        start = 0
        for p in group:
            stop = start + (int_value(_type(p.weight).dims[1]) or 0)
            body.append(Binding((p.result,), Slice(1, start, stop), (wide,), p.product.span))
            start = stop
        return tuple(body)

    def side_by_side(self, parts: list[ConstantRef]) -> ConstantRef:
        """Constants one after another along their last axis."""
        array = np.concatenate([self.constants[a.name].array for a in parts], axis=-1)
        type_ = tensor(list(array.shape), _type(parts[0]).dtype)
        name = "_".join((*dict.fromkeys(a.name for a in parts), "wide"))
        for a in parts:
            del self.constants[a.name]
        self.constants[name] = Constant(type_, array)
        return ConstantRef(name, type_)


def _type(a: Atom) -> TensorType:
    assert isinstance(a.type, TensorType)
    return a.type


def _elements(a: Atom) -> int | None:
    count = 1
    if not isinstance(a.type, TensorType) or a.type.shape is None:
        return None
    for d in a.type.dims:
        count *= int_value(d) or 0
    return count
