"""Neighbouring dimensions that are only ever walked together become one: a kernel over images is
one over pixels, and a product over two axes is a product over one.

This happens once layouts are chosen, since only then is it known which axes are neighbours. The
order in memory stays, so the graph looks at the values through views.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from treadle.base.errors import ScheduleError
from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access, accesses, blocks, fresh_name
from treadle.ir.calls import CallTensor
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Value
from treadle.ir.module import Constant, Function, Module
from treadle.ir.tensor import Block, Buffer, Load, Store, TensorFunction
from treadle.ir.types import TensorType, tensor
from treadle.ops.reshape import Reshape
from treadle.schedule.block_layout import TransformBlockLayout
from treadle.schedule.index_map import IndexMap
from treadle.schedule.layout import TransformLayout

Pair = tuple[Buffer, int]
"""A dimension of a buffer, and the one after it."""


def collapse_axes(module: Module) -> Module:
    """Collapse dimensions in every tensor function, and view the operands of its calls so."""
    made = {f.name: c for f in module.tensor_functions if (c := collapsed(f)).merges}
    views = _Views(module, made)
    functions: list[Function] = []
    for f in module.functions.values():
        if isinstance(f, GraphFunction):
            f = replace_fields(f, body=tuple(b for old in f.body for b in views.call(old)))
        functions.append(made[f.name].function if f.name in made else f)
    constants = {**module.constants, **views.constants}
    return Module({f.name: f for f in functions}, constants)


@dataclass(frozen=True, slots=True)
class Collapsed:
    """A function, and the dimensions that were merged with the next of their buffer, in order."""

    function: TensorFunction
    merges: tuple[tuple[str, int], ...] = ()


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
    """Views of operands and results for the calls of collapsed functions."""

    module: Module
    made: dict[str, Collapsed]
    constants: dict[str, Constant] = field(default_factory=dict[str, Constant])
    names: dict[tuple[str, TensorType], str] = field(
        default_factory=dict[tuple[str, TensorType], str]
    )

    def call(self, b: Binding) -> Iterator[Binding]:
        """A call, and the views around it."""
        op = b.op
        if not isinstance(op, CallTensor) or op.function not in self.made:
            yield b
            return
        buffers, merges = self.module.tensor(op.function).buffers, self.made[op.function].merges
        shapes = [
            _merged_type(a, [k for name, k in merges if name == buffer.name])
            for a, buffer in zip((*b.args, *b.outputs), buffers, strict=True)
        ]
        args: list[Atom] = []
        for a, type_ in zip(b.args, shapes, strict=False):
            if type_ == a.type:
                args.append(a)
            elif isinstance(a, ConstantRef):
                args.append(self.constant(a, type_))
            else:
                view = Value(f"{_name(a)}_flat", type_)
                yield Binding((view,), Reshape(type_.dims), (a,), b.span)
                args.append(view)
        results = shapes[len(b.args) :]
        outputs = tuple(
            v if v.type == t else Value(f"{v.name}_flat", t)
            for v, t in zip(b.outputs, results, strict=True)
        )
        yield replace_fields(
            b, outputs=outputs, op=replace_fields(op, out=tuple(results)), args=tuple(args)
        )
        for v, flat in zip(b.outputs, outputs, strict=True):
            if flat is not v:
                assert isinstance(v.type, TensorType)
                yield Binding((v,), Reshape(v.type.dims), (flat,), b.span)

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


def _name(a: Atom) -> str:
    return a.name if isinstance(a, Value) else "operand"


def _merged_type(a: Atom, merges: list[int]) -> TensorType:
    """The type of an operand after each of some dimensions was merged with the next one."""
    assert isinstance(a.type, TensorType)
    if not merges:
        return a.type
    dims = list(a.type.dims)
    for k in merges:
        dims[k : k + 2] = [simplify(dims[k] * dims[k + 1])]
    return tensor(tuple(dims), a.type.dtype)
