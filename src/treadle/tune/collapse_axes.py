"""Neighbouring dimensions that are only ever walked together become one: a kernel over images is
one over pixels, and a product over two axes is a product over one.

This happens once layouts are chosen, since only then is it known which axes are neighbours. The
order in memory stays, so the graph looks at the values through views.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from treadle.base.cache import NO_CACHE, DiskCache
from treadle.base.errors import ScheduleError
from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access, accesses, blocks, fresh_name
from treadle.ir.calls import CallTensor
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Value
from treadle.ir.module import Constant, Function, Module
from treadle.ir.parser import parse_function
from treadle.ir.tensor import Block, Buffer, Load, Store, TensorFunction
from treadle.ir.types import TensorType, tensor
from treadle.ops.reshape import Reshape
from treadle.schedule.block_layout import TransformBlockLayout
from treadle.schedule.index_map import IndexMap
from treadle.schedule.layout import TransformLayout

Pair = tuple[Buffer, int]
"""A dimension of a buffer, and the one after it."""


def collapse_axes(module: Module, *, cache: DiskCache = NO_CACHE) -> Module:
    """Collapse dimensions in every tensor function, and view the operands of its calls so.

    Functions that ``cache`` holds are not worked out again.
    """
    made = {f.name: c for f in module.tensor_functions if (c := _known(f, cache)).merges}
    views = _Views(module, made)
    functions: list[Function] = []
    for f in module.functions.values():
        if isinstance(f, GraphFunction):
            f = _Viewed(f, views).run()
        functions.append(made[f.name].function if f.name in made else f)
    constants = {**module.constants, **views.constants}
    return Module({f.name: f for f in functions}, constants)


@dataclass(frozen=True, slots=True)
class Collapsed:
    """A function, and the dimensions that were merged with the next of their buffer, in order."""

    function: TensorFunction
    merges: tuple[tuple[str, int], ...] = ()


def _known(function: TensorFunction, cache: DiskCache) -> Collapsed:
    """The collapsed function, from the cache if that has it."""
    key = cache.key("collapse", str(function))
    known = cache.get(key)
    if known is None:
        found = collapsed(function)
        text = str(found.function) if found.merges else ""
        cache.put(key, json.dumps({"function": text, "merges": found.merges}).encode())
        return found
    data = json.loads(known)
    if not data["merges"]:
        return Collapsed(function)
    after = parse_function(data["function"])
    assert isinstance(after, TensorFunction)
    merges = tuple((str(name), int(k)) for name, k in data["merges"])
    return Collapsed(replace_fields(after, span=function.span), merges)


def collapsed(function: TensorFunction) -> Collapsed:
    """The function over fewer dimensions, where that is possible."""
    found = Collapsed(function)
    refused = 0
    while True:
        groups = list(_groups(found.function))[refused:]
        if not groups:
            return found
        try:
            found = _merged(found, groups[0])
        except ScheduleError:
            refused += 1


@dataclass(frozen=True, slots=True)
class _Group:
    """Dimensions, and axes of blocks, that must be collapsed together."""

    pairs: frozenset[Pair]
    axes: frozenset[tuple[str, Var, Var]]


def _groups(function: TensorFunction) -> Iterator[_Group]:
    """The groups of dimensions that may be collapsed."""
    found = accesses(function.body)
    seen: set[Pair] = set()
    for a in found:
        for k in range(a.buffer.ndim - 1):
            if (a.buffer, k) not in seen:
                group = _closure(function, found, (a.buffer, k))
                seen.add((a.buffer, k))
                if group is not None:
                    seen |= group.pairs
                    yield group


def _closure(function: TensorFunction, found: tuple[Access, ...], start: Pair) -> _Group | None:
    """All that must be collapsed together with a pair of dimensions; ``None`` if that cannot be."""
    pairs: set[Pair] = set()
    axes: set[tuple[str, Var, Var]] = set()
    left = [start]
    while left:
        buffer, k = pair = left.pop()
        if pair in pairs:
            continue
        if int_value(buffer.shape[k]) is None or int_value(buffer.shape[k + 1]) is None:
            return None
        pairs.add(pair)
        for a in (x for x in found if x.buffer is buffer):
            walked = _walked(a, k)
            if walked is None:
                return None
            if walked not in axes:
                axes.add(walked)
                more = _others(function, walked)
                if more is None:
                    return None
                left += more
    overlap = any((b, k + 1) in pairs for b, k in pairs)
    return None if overlap or not axes else _Group(frozenset(pairs), frozenset(axes))


def _walked(a: Access, k: int) -> tuple[str, Var, Var] | None:
    """The axes of a block that an access runs over two dimensions with, each over all of its."""
    u, v = a.indices[k], a.indices[k + 1]
    if not a.blocks or not isinstance(u, Var) or not isinstance(v, Var) or u is v:
        return None
    block = a.blocks[-1]
    extents = {i.var: (i.extent, i.kind) for i in block.iters}
    if u not in extents or v not in extents or extents[u][1] != extents[v][1]:
        return None
    whole = all(
        int_value(extents[x][0]) == int_value(a.buffer.shape[d]) for x, d in ((u, k), (v, k + 1))
    )
    return (block.name, u, v) if whole else None


def _others(function: TensorFunction, walked: tuple[str, Var, Var]) -> list[Pair] | None:
    """The other dimensions that a block runs over with two axes; ``None`` if it uses them in
    another way.
    """
    name, u, v = walked
    block = next(b for b in blocks(function) if b.name == name)
    pairs: list[Pair] = []
    for a in accesses((block,)):
        used = [k for k, i in enumerate(a.indices) if {u, v} & set(variables(i))]
        if used and (
            len(used) != 2
            or used[1] != used[0] + 1
            or a.indices[used[0]] is not u
            or a.indices[used[1]] is not v
        ):
            return None
        pairs += [(a.buffer, used[0])] if used else []
    return None if _computes_with(block, u, v) else pairs


def _computes_with(block: Block, u: Var, v: Var) -> bool:
    """Whether a block uses its axes other than as indices."""
    stores = [*block.init, *block.body]
    if block.where is not None or not all(isinstance(s, Store) for s in stores):
        return True
    left: list[Expr] = [s.value for s in stores if isinstance(s, Store)]
    left += [s.mask for s in stores if isinstance(s, Store) and s.mask is not None]
    while left:
        x = left.pop()
        if x is u or x is v:
            return True
        if isinstance(x, Load):
            left += [] if x.mask is None else [x.mask]
        else:
            left += x.children
    return False


def _merged(found: Collapsed, group: _Group) -> Collapsed:
    """The function with a group's dimensions and axes collapsed.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    function, merges = found.function, list(found.merges)
    for buffer, k in sorted(group.pairs, key=lambda pair: pair[0].name):
        merges.append((buffer.name, k))
        params = tuple(f"d{i}" for i in range(buffer.ndim))
        one = Var(params[k]) * buffer.shape[k + 1] + Var(params[k + 1])
        results = (*map(Var, params[:k]), one, *map(Var, params[k + 2 :]))
        function = TransformLayout(buffer.name, IndexMap(params, results)).apply(function)
    for name, u, v in sorted(group.axes, key=lambda walked: walked[0]):
        block = next(b for b in blocks(function) if b.name == name)
        extent = next(i.extent for i in block.iters if i.var is v)
        place = {i.var: Var(f"d{n}") for n, i in enumerate(block.iters)}
        results = tuple(
            place[u] * extent + place[v] if i.var is u else place[i.var]
            for i in block.iters
            if i.var is not v
        )
        layout = IndexMap(tuple(d.name for d in place.values()), results)
        function = TransformBlockLayout(name, layout).apply(function)
    return Collapsed(function, tuple(merges))


@dataclass(slots=True)
class _Views:
    """The collapsed functions of a module, and constants under the shapes that they take."""

    module: Module
    made: dict[str, Collapsed]
    constants: dict[str, Constant] = field(default_factory=dict[str, Constant])
    names: dict[tuple[str, TensorType], str] = field(
        default_factory=dict[tuple[str, TensorType], str]
    )

    def types(self, b: Binding, function: str) -> list[TensorType]:
        """The types of a call's operands and results as the collapsed function takes them."""
        buffers, merges = self.module.tensor(function).buffers, self.made[function].merges
        return [
            _merged_type(a, [k for name, k in merges if name == buffer.name])
            for a, buffer in zip((*b.args, *b.outputs), buffers, strict=True)
        ]

    def constant(self, a: ConstantRef, type_: TensorType) -> ConstantRef:
        """A constant under another shape."""
        shape = tuple(int_value(d) or 0 for d in type_.dims)
        key = (a.name, type_)
        if key not in self.names:
            taken = {**self.module.constants, **self.constants}
            name = self.names[key] = fresh_name(f"{a.name}_flat", taken)
            array = self.module.constants[a.name].array.reshape(shape)
            self.constants[name] = Constant(type_, array)
        return ConstantRef(self.names[key], type_)


@dataclass(slots=True)
class _Viewed:
    """A graph function whose calls of collapsed functions look at their operands through views."""

    function: GraphFunction
    views: _Views
    body: list[Binding] = field(default_factory=list[Binding])
    taken: set[str] = field(default_factory=set[str])
    known: dict[tuple[Atom, TensorType], Value] = field(
        default_factory=dict[tuple[Atom, TensorType], Value]
    )

    def run(self) -> GraphFunction:
        f = self.function
        self.taken.update(p.name for p in f.params)
        self.taken.update(v.name for b in f.body for v in b.outputs)
        for b in f.body:
            if isinstance(b.op, CallTensor) and b.op.function in self.views.made:
                self.call(b, b.op)
            else:
                self.body.append(b)
        return replace_fields(f, body=tuple(self.body))

    def call(self, b: Binding, op: CallTensor) -> None:
        """Add a call, and the views around it."""
        types = self.views.types(b, op.function)
        args = tuple(self.operand(a, t, b) for a, t in zip(b.args, types, strict=False))
        results = types[len(b.args) :]
        outputs = tuple(
            v if v.type == t else self.fresh(v.name, t)
            for v, t in zip(b.outputs, results, strict=True)
        )
        op = replace_fields(op, out=tuple(results))
        self.body.append(replace_fields(b, outputs=outputs, op=op, args=args))
        for v, flat in zip(b.outputs, outputs, strict=True):
            if (
                flat is not v
                and isinstance(v.type, TensorType)
                and isinstance(flat.type, TensorType)
            ):
                self.known[v, flat.type] = flat
                self.body.append(Binding((v,), Reshape(v.type.dims), (flat,), b.span))

    def operand(self, a: Atom, type_: TensorType, b: Binding) -> Atom:
        """An operand under another shape; equal views are made once."""
        if type_ == a.type:
            return a
        if isinstance(a, ConstantRef):
            return self.views.constant(a, type_)
        if (a, type_) not in self.known:
            view = self.fresh(a.name if isinstance(a, Value) else "operand", type_)
            self.body.append(Binding((view,), Reshape(type_.dims), (a,), b.span))
            self.known[a, type_] = view
        return self.known[a, type_]

    def fresh(self, name: str, type_: TensorType) -> Value:
        value = Value(fresh_name(f"{name}_flat", self.taken), type_)
        self.taken.add(value.name)
        return value


def _merged_type(a: Atom, merges: list[int]) -> TensorType:
    """The type of an operand after each of some dimensions was merged with the next one."""
    assert isinstance(a.type, TensorType)
    if not merges:
        return a.type
    dims = list(a.type.dims)
    for k in merges:
        dims[k : k + 2] = [simplify(dims[k] * dims[k + 1])]
    return tensor(tuple(dims), a.type.dtype)
