"""Group neighbouring calls of tensor functions into one when that saves a round trip to memory.

A group is a tree with one result: every value inside it is used inside it only. First a contraction
or a reduction takes the elementwise calls that follow it, as does what stores a tile at each point,
and a contraction the border that its consumer wants around the result; then whatever computes one
element from few is written into its only consumer. Last, two products whose results share rows
become one with what is done to the rows between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import blocks, loads, symbols
from treadle.ir.calls import CallTensor
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Value
from treadle.ir.module import Function, Module
from treadle.ir.signature import match
from treadle.ir.tensor import Buffer, IterVar, Store, TensorFunction
from treadle.ir.types import ShapeType, TensorType, Type
from treadle.passes.chains import row_chain
from treadle.passes.kinds import Kind, Summary, contraction_operands, summarize
from treadle.passes.merge import Member, merge
from treadle.passes.store_through import store_through, stores_tiles

_CHAIN_GROUPS = 4
"""Groups of ``max_ops`` calls that a chain of products may hold."""


def fuse(module: Module, *, max_ops: int = 16, chains: bool = True) -> Module:
    """Merge calls of tensor functions in every graph function; at most ``max_ops`` become one.

    ``chains`` lets products that share rows become one function, which pays if its schedule may
    change the order of sums.
    """
    programs: dict[object, TensorFunction] = {}
    taken = set(module.functions)
    functions: list[Function] = []
    for function in module.functions.values():
        if isinstance(function, GraphFunction):
            function = _Fusion(module, function, max_ops, chains, programs, taken).run()
        functions.append(function)
    return module.with_functions([*functions, *programs.values()])


def callee_symbols(
    function: TensorFunction, args: Sequence[Atom], op: CallTensor
) -> dict[Var, Expr]:
    """The values of a function's symbols at a call, found by matching the shapes of the operands
    and results.
    """
    values: dict[Var, Expr] = {}
    types = [*(a.type for a in args), *op.out]
    for buffer, type_ in zip(function.buffers, types, strict=True):
        if not isinstance(type_, TensorType) or type_.shape is None:
            raise InternalError(f"{function.name} is called on an operand of unknown shape")
        for dim, actual in zip(buffer.shape, type_.shape, strict=True):
            if isinstance(dim, Var):
                values.setdefault(dim, actual)
    scalars = [p for p in function.params if isinstance(p, Var)]
    values.update(zip(scalars, op.symbols, strict=True))
    if any(s not in values for s in symbols(function)):
        wanted = [TensorType(b.shape, b.ndim, b.dtype) for b in function.buffers]
        given = [*types, ShapeType(op.symbols)]
        values.update(match(given, [*wanted, ShapeType(tuple(scalars))]).symbols)
    return values


@dataclass(slots=True)
class _Group:
    members: list[Binding]
    kind: Kind


@dataclass(slots=True)
class _Fusion:
    module: Module
    function: GraphFunction
    max_ops: int
    chains: bool
    programs: dict[object, TensorFunction]
    taken: set[str]
    groups: dict[Binding, _Group] = field(default_factory=dict[Binding, _Group])
    consumers: dict[Value, list[Binding]] = field(default_factory=dict[Value, list[Binding]])
    producers: dict[Value, Binding] = field(default_factory=dict[Value, Binding])
    results: set[Value] = field(default_factory=set[Value])

    def run(self) -> GraphFunction:
        for binding in self.function.body:
            self.producers.update((v, binding) for v in binding.outputs)
            for a in dict.fromkeys(binding.args):
                if isinstance(a, Value):
                    self.consumers.setdefault(a, []).append(binding)
        self.results = {a for a in self.function.results if isinstance(a, Value)}
        for binding in self.function.body:
            self.take_epilogues(binding)
        for binding in reversed(self.function.body):
            self.join_consumer(binding)
        if self.chains:
            for binding in self.function.body:
                self.join_chain(binding)
        return replace_fields(self.function, body=self.rebuild())

    def callee(self, binding: Binding) -> TensorFunction | None:
        if not isinstance(binding.op, CallTensor):
            return None
        found = self.module.functions.get(binding.op.function)
        return found if isinstance(found, TensorFunction) else None

    def summary(self, binding: Binding) -> Summary | None:
        callee = self.callee(binding)
        return None if callee is None else summarize(callee)

    def only_consumer(self, value: Value) -> Binding | None:
        found = self.consumers.get(value, [])
        return found[0] if len(found) == 1 and value not in self.results else None

    def take_epilogues(self, binding: Binding) -> None:
        """Let a contraction, a reduction or what stores tiles have the elementwise calls that
        follow it.
        """
        summary, callee = self.summary(binding), self.callee(binding)
        if binding in self.groups or summary is None or callee is None:
            return
        tiles = stores_tiles(callee)
        if not tiles and summary.kind not in (Kind.CONTRACTION, Kind.REDUCTION):
            return
        group = _Group([binding], summary.kind)
        self.groups[binding] = group
        value = binding.outputs[0]
        while len(group.members) < self.max_ops:
            follower = self.only_consumer(value)
            if follower is None or follower in self.groups:
                return
            last = summary.kind == Kind.CONTRACTION and self.is_border(follower, value)
            if not last and not self.is_epilogue(follower, value, cheap=tiles):
                return
            group.members.append(follower)
            self.groups[follower] = group
            value = follower.outputs[0]
            if last:
                return

    def is_epilogue(self, binding: Binding, value: Value, *, cheap: bool) -> bool:
        """Whether a call works on the elements of ``value``, each by itself; with ``cheap``, also
        that it may be written out many times.
        """
        summary, callee = self.summary(binding), self.callee(binding)
        if summary is None or callee is None or summary.kind != Kind.ELEMENTWISE:
            return False
        if cheap and not summary.cheap:
            return False
        operands = [
            b for b, a in zip(callee.input_buffers, binding.args, strict=True) if a is value
        ]
        return all(b in summary.identity for b in operands) and _same_shape(
            value, binding.outputs[0]
        )

    def is_border(self, binding: Binding, value: Value) -> bool:
        """Whether a call copies ``value`` into the middle of its result."""
        summary, callee = self.summary(binding), self.callee(binding)
        if summary is None or callee is None:
            return False
        operands = [
            b for b, a in zip(callee.input_buffers, binding.args, strict=True) if a is value
        ]
        return len(operands) == 1 and operands[0] in summary.bordered

    def join_consumer(self, binding: Binding) -> None:
        """Write a call into the group that alone uses its result."""
        summary = self.summary(binding)
        if summary is None:
            return
        group = self.groups.get(binding)
        if group is not None and (len(group.members) > 1 or not summary.is_spatial):
            return
        if group is None:
            group = self.groups[binding] = _Group([binding], summary.kind)
        users = self.consumers.get(binding.outputs[0], [])
        if not summary.is_spatial or not users or binding.outputs[0] in self.results:
            return
        targets = {id(self.groups.get(u)): self.groups.get(u) for u in users}
        target = next(iter(targets.values()))
        if len(targets) != 1 or target is None or target is group or self.spoils(target, binding):
            return
        if len(target.members) + 1 > self.max_ops or not all(
            self.accepts(u, binding, summary) for u in users
        ):
            return
        target.members.insert(0, binding)
        self.groups[binding] = target

    def spoils(self, group: _Group, producer: Binding) -> bool:
        """Whether a producer makes or reads what a call of the group updates in its place."""
        for m in group.members:
            callee = self.callee(m)
            updated = [] if callee is None else [m.args[j] for _, j in callee.updates]
            if any(a in (*producer.outputs, *producer.args) for a in updated):
                return True
        return False

    def accepts(self, user: Binding, producer: Binding, summary: Summary) -> bool:
        """Whether computing the producer's elements where ``user`` reads them costs little."""
        callee = self.callee(user)
        if callee is None:
            return False
        value = producer.outputs[0]
        buffers = {b for b, a in zip(callee.input_buffers, user.args, strict=True) if a is value}
        for block in blocks(callee):
            reads = {x.buffer for x in loads(*(e for s in block.body for e in _values(s)))}
            if not reads & buffers:
                continue
            if contraction_operands(block) is not None:
                if not summary.affine_copy and not decodes(producer, summary):
                    return False
            elif not summary.cheap and not _same_size(block.iters, value):
                return False
        return summarize(callee).kind != Kind.OPAQUE or summary.kind <= Kind.INJECTIVE

    def join_chain(self, binding: Binding) -> None:
        """Merge the group of a product with those that make rows for it, up to another product,
        where loops show that they are a chain.
        """
        group = self.groups.get(binding)
        summary = self.summary(binding)
        if group is None or summary is None or summary.kind != Kind.CONTRACTION:
            return
        for x in binding.args:
            groups = self.groups_above(x, binding)
            members = [m for g in groups for m in g.members] + group.members
            if not groups or len(members) > _CHAIN_GROUPS * self.max_ops:
                continue
            ordered = self.in_order(members)
            parts = self.parts(ordered)[0]
            if row_chain(merge("chain", parts, self.scalars(parts))) is None:
                continue
            whole = _Group(ordered, Kind.CONTRACTION)
            self.groups.update((m, whole) for m in ordered)
            return

    def groups_above(self, x: Atom, user: Binding) -> list[_Group]:
        """The groups that compute ``x``, which only ``user`` takes, from a product on; and those
        that compute a side of that product for nobody else.
        """
        above: list[_Group] = []
        step = (x, user) if isinstance(x, Value) else None
        while step is not None:
            value, user = step
            maker = self.producers.get(value)
            group = None if maker is None else self.groups.get(maker)
            if group is None or self.only_consumer(value) is not user:
                return []
            above.insert(0, group)
            if group.kind == Kind.CONTRACTION:
                return [*self.sides(group), *above]
            step = self.main_input(group, value)
        return []

    def main_input(self, group: _Group, result: Value) -> tuple[Value, Binding] | None:
        """The value of the result's shape that only one call of a group takes, and that call."""
        for m in group.members:
            for a in m.args:
                if not isinstance(a, Value) or self.producers.get(a) in (None, *group.members):
                    continue
                if self.only_consumer(a) is m and _same_shape(a, result):
                    return a, m
        return None

    def sides(self, group: _Group) -> list[_Group]:
        """The groups that compute elements for calls of this group only."""
        found: list[_Group] = []
        for a in dict.fromkeys(a for m in group.members for a in m.args):
            maker = self.producers.get(a) if isinstance(a, Value) else None
            other = None if maker is None else self.groups.get(maker)
            if other is None or other is group or other.kind > Kind.INJECTIVE:
                continue
            users = self.consumers.get(a, []) if isinstance(a, Value) else []
            if a not in self.results and all(u in group.members for u in users):
                found.append(other)
        return found

    def in_order(self, members: list[Binding]) -> list[Binding]:
        """Calls in the order of the function."""
        order = {b: i for i, b in enumerate(self.function.body)}
        return sorted(members, key=lambda b: order[b])

    def rebuild(self) -> tuple[Binding, ...]:
        body: list[Binding] = []
        order = {b: i for i, b in enumerate(self.function.body)}
        for binding in self.function.body:
            group = self.groups.get(binding)
            if group is None:
                body.append(binding)
                continue
            members = sorted(group.members, key=lambda b: order[b])
            if binding is members[-1]:
                body.append(
                    binding
                    if len(members) == 1 and not self.renames(binding)
                    else self.fused(members)
                )
        return tuple(body)

    def renames(self, binding: Binding) -> bool:
        """Whether a call takes constants: such a function is not shared with calls that do not."""
        return any(isinstance(a, ConstantRef) for a in binding.args)

    def parts(self, members: list[Binding]) -> tuple[list[Member], list[Atom]]:
        """Calls in order as members of one function, and the operands of that."""
        place = {m.outputs[0]: j for j, m in enumerate(members)}
        inputs: list[Atom] = []
        parts: list[Member] = []
        for m in members:
            callee = self.callee(m)
            if callee is None or not isinstance(m.op, CallTensor):
                raise InternalError("a group holds a call of something else than a tensor function")
            sources = [_source(a, place, inputs) for a in m.args]
            parts.append(Member(callee, tuple(sources), callee_symbols(callee, m.args, m.op)))
        return parts, inputs

    def fused(self, members: list[Binding]) -> Binding:
        """One call for ``members``, which stand in order."""
        parts, inputs = self.parts(members)
        scalars = self.scalars(parts)
        last = members[-1]
        out = tuple(v.type for v in last.outputs if isinstance(v.type, TensorType))
        key = (
            tuple((p.function.name, p.inputs, tuple(p.symbols.items())) for p in parts),
            tuple((isinstance(a, ConstantRef), a.type) for a in inputs),
            out,
        )
        program = self.programs.get(key)
        if program is None:
            program = store_through(merge(self.name(parts), parts, scalars))
            self.programs[key] = program
        return replace_fields(last, op=CallTensor(program.name, out, scalars), args=tuple(inputs))

    def scalars(self, parts: list[Member]) -> tuple[Var, ...]:
        """The symbols that the whole needs and no dimension of its buffers is."""
        plain: set[Expr] = set()
        needed: dict[Var, None] = {}
        for j, part in enumerate(parts):
            f = part.function
            outer: list[Buffer] = [
                b for b, (s, _) in zip(f.input_buffers, part.inputs, strict=True) if s == "in"
            ]
            outer += f.output_buffers if j == len(parts) - 1 else []
            plain.update(
                part.symbols.get(d, d) if isinstance(d, Var) else d for b in outer for d in b.shape
            )
            needed.update((v, None) for s in symbols(f) for v in variables(part.symbols.get(s, s)))
        return tuple(v for v in needed if v not in plain)

    def name(self, parts: list[Member]) -> str:
        stem = "_".join(
            dict.fromkeys(p.function.name.rstrip("0123456789").rstrip("_") for p in parts)
        )[:48]
        name, number = stem, 0
        while name in self.taken:
            number += 1
            name = f"{stem}_{number}"
        self.taken.add(name)
        return name


def decodes(binding: Binding, summary: Summary) -> bool:
    """Whether a call only unpacks constants, to more bytes than they have: a product that does so
    itself reads less.
    """
    types = [*(a.type for a in binding.args), *(v.type for v in binding.outputs)]
    sizes = [_bytes(t) for t in types]
    known = [s for s in sizes if s is not None]
    return (
        summary.cheap
        and summary.is_spatial
        and all(isinstance(a, ConstantRef) for a in binding.args)
        and len(known) == len(sizes)
        and sum(known[:-1]) < known[-1]
    )


def _bytes(type_: Type) -> int | None:
    """Bytes of a tensor of constant shape."""
    if not isinstance(type_, TensorType) or type_.shape is None:
        return None
    size = type_.dtype.bytes
    for d in map(int_value, type_.shape):
        if d is None:
            return None
        size *= d
    return size


def _values(s: object) -> tuple[Expr, ...]:
    return (s.value,) if isinstance(s, Store) else ()


def _source(a: Atom, place: dict[Value, int], inputs: list[Atom]) -> tuple[str, int]:
    if isinstance(a, Value) and a in place:
        return "member", place[a]
    if isinstance(a, ConstantRef):
        same = next(
            (i for i, x in enumerate(inputs) if isinstance(x, ConstantRef) and x.name == a.name),
            None,
        )
    else:
        same = next((i for i, x in enumerate(inputs) if x is a), None)
    if same is not None:
        return "in", same
    inputs.append(a)
    return "in", len(inputs) - 1


def _same_shape(a: Value, b: Value) -> bool:
    x, y = a.type, b.type
    if not isinstance(x, TensorType) or not isinstance(y, TensorType) or x.ndim != y.ndim:
        return False
    return all(int_value(simplify(p - q)) == 0 for p, q in zip(x.dims, y.dims, strict=True))


def _same_size(iters: Sequence[IterVar], value: Value) -> bool:
    """Whether a block's domain has as many points as a value has elements."""
    if not isinstance(value.type, TensorType):
        return False
    points: Expr | None = None
    for i in iters:
        points = i.extent if points is None else points * i.extent
    elements: Expr | None = None
    for d in value.type.dims:
        elements = d if elements is None else elements * d
    if points is None or elements is None:
        return points is elements
    return simplify(points) is simplify(elements)
