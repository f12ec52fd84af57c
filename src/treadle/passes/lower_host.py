"""Turn the entry of a module into a host function: memory planned, calls in order, shapes solved
and checked.
"""

from dataclasses import dataclass, field

from treadle.base.errors import InternalError, LoweringError
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Expr, Var, const, eq, int_value, substitute, variables
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import facts_of, symbols
from treadle.ir.calls import AssertTrue, CallLibrary, CallTensor, Cond, WhileLoop
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, ShapeLiteral, Value
from treadle.ir.host import (
    ArenaSlot,
    BranchStep,
    CheckStep,
    ConstantSlot,
    CopyStep,
    HostFunction,
    InputSlot,
    KernelStep,
    LibraryStep,
    LoopStep,
    OutputSlot,
    PartSlot,
    ShapeCheck,
    Slot,
    Step,
    ValueCheck,
    WholeSlot,
    dimension,
)
from treadle.ir.module import Module
from treadle.ir.tensor import ZERO
from treadle.ir.types import TensorType
from treadle.ops.reshape import Reshape
from treadle.ops.shape import Concat, Slice
from treadle.passes.fuse import callee_symbols
from treadle.passes.plan_memory import ArenaPlan, Block, byte_size
from treadle.passes.share_memory import SharedMemory, joined_parts, shared_memory, size_of
from treadle.passes.specialize_calls import specialized


def lower_host(module: Module, entry: str = "main") -> HostFunction:
    """The host function of a graph function whose calls are calls of tensor functions.

    Raises:
        LoweringError: E0420 if a symbol of the signature cannot be found from the shapes of the
            inputs.
    """
    function = module.graph(entry)
    solved, checks = _solve(function)
    plan = _Plan(module, facts_of(function))
    steps = plan.entry(function)
    offsets, arena = plan.arena.layout()
    placed = tuple(_Place(offsets).step(s) for s in steps)
    return HostFunction(
        entry,
        tuple(
            (n, _tensor_type(p)) for n, p in zip(function.input_names, function.params, strict=True)
        ),
        tuple(
            (n, _tensor_type(r))
            for n, r in zip(function.output_names, function.results, strict=True)
        ),
        tuple(solved.items()),
        checks,
        tuple(plan.constants),
        tuple(plan.callbacks),
        arena,
        placed,
        tuple(plan.checks),
        plan.arena.live(),
    )


def _tensor_type(a: Atom) -> TensorType:
    if not isinstance(a.type, TensorType) or a.type.shape is None:
        raise LoweringError(
            "E0421", f"an entry takes and gives tensors of known shape, not {a.type}"
        )
    return a.type


def _solve(function: GraphFunction) -> tuple[dict[Var, Expr], tuple[ShapeCheck, ...]]:
    """The symbols as expressions of raw dimensions, and what must hold of these."""
    dims = [
        (d, i, axis)
        for i, p in enumerate(function.params)
        for axis, d in enumerate(_tensor_type(p).dims)
    ]
    solved: dict[Var, Expr] = {}
    for d, i, axis in dims:
        if isinstance(d, Var):
            solved.setdefault(d, dimension(i, axis))
    for d, i, axis in dims:
        unknown = [v for v in variables(d) if v not in solved]
        linear = split_linear(d, unknown[0]) if len(unknown) == 1 else None
        scale = None if linear is None else int_value(linear[0])
        if linear is not None and scale:
            solved[unknown[0]] = (dimension(i, axis) - substitute(linear[1], solved)) // scale
    missing = [v for v in symbols(function) if v not in solved]
    if missing:
        raise LoweringError(
            "E0420",
            f"the symbol '{missing[0]}' does not follow from the inputs of '{function.name}'",
            help="give the function a parameter with this dimension",
        )
    checks: list[ShapeCheck] = []
    for d, i, axis in dims:
        if not isinstance(d, Var) or solved[d] is not dimension(i, axis):
            claim = eq(dimension(i, axis), substitute(d, solved))
            checks.append(ShapeCheck(claim, f"dimension {axis} of input {i} is {d}", i, axis))
    checks.extend(ShapeCheck(substitute(a, solved), str(a)) for a in function.assumes)
    return solved, tuple(checks)


def _owner(shared: SharedMemory, result: Value) -> Value:
    owner = shared.owner(result)
    if not isinstance(owner, Value):
        raise InternalError(f"the result {result.name} is a constant")
    return owner


def part_slot(slot: Slot, offset: Expr) -> Slot:
    """The place ``offset`` bytes after another."""
    if offset is ZERO:
        return slot
    if isinstance(slot, PartSlot):
        return PartSlot(slot.whole, simplify(slot.offset + offset))
    return PartSlot(slot, offset)


@dataclass(slots=True)
class _Plan:
    """Walks a graph function, gives its values slots and emits steps over them."""

    module: Module
    facts: Facts
    arena: ArenaPlan = field(init=False)
    constants: dict[str, None] = field(default_factory=dict[str, None])
    callbacks: dict[str, None] = field(default_factory=dict[str, None])
    slots: dict[Value, Slot] = field(default_factory=dict[Value, Slot])
    blocks: dict[Slot, Block] = field(default_factory=dict[Slot, Block])
    checks: list[ValueCheck] = field(default_factory=list[ValueCheck])

    def __post_init__(self) -> None:
        self.arena = ArenaPlan(self.facts)

    def entry(self, function: GraphFunction) -> list[Step]:
        self.slots.update((p, InputSlot(i)) for i, p in enumerate(function.params))
        targets: dict[Value, Slot] = {}
        for i, r in enumerate(function.results):
            if not isinstance(r, Value) or r in targets or r in self.slots:
                raise InternalError("a result of an entry must be a value of its own")
            targets[r] = OutputSlot(i)
        return self.body(function, targets)

    def body(self, function: GraphFunction, targets: dict[Value, Slot]) -> list[Step]:
        """The steps of a function whose parameters have slots and whose results go to
        ``targets``.
        """
        steps: list[Step] = []
        shared = shared_memory(self.module, function)
        for binding in function.body:  # which may have been walked before, for another call
            for v in binding.outputs:
                self.slots.pop(v, None)
        # What a result shows is made in the result's place.
        targets = {_owner(shared, r): slot for r, slot in targets.items()}
        kept = {_owner(shared, r) for r in function.results if isinstance(r, Value)}
        for i, binding in enumerate(function.body):
            for v in binding.outputs:
                self.place(v, shared, targets)
            steps.extend(self.steps(binding))
            for v in [v for v, end in shared.last.items() if end == i and v not in kept]:
                slot = self.slots.get(v)
                if slot in self.blocks and v not in function.params:
                    self.give_back(slot)
        return steps

    def take(self, size: Expr) -> Slot:
        """A place of so many bytes in the arena."""
        block = self.arena.take(size)
        self.blocks[block.slot] = block
        return block.slot

    def give_back(self, slot: Slot) -> None:
        """What is in a place of the arena is not needed any more."""
        self.arena.give_back(self.blocks[slot])

    def place(self, value: Value, shared: SharedMemory, targets: dict[Value, Slot]) -> None:
        """Find a place for a value; whose memory it lies in has one from then on."""
        found = shared.place(value)
        owner = found.owner
        if isinstance(owner, Value) and owner not in self.slots:
            self.slots[owner] = targets[owner] if owner in targets else self.take(size_of(owner))
        self.slots[value] = part_slot(self.slot(owner), found.offset)

    def slot(self, a: Atom) -> Slot:
        if isinstance(a, Value):
            return self.slots[a]
        if isinstance(a, ConstantRef):
            self.constants.setdefault(a.name)
            return ConstantSlot(a.name)
        raise InternalError(f"an operand without memory reached the host: {a}")

    def steps(self, binding: Binding) -> list[Step]:
        op = binding.op
        if isinstance(op, Reshape | Slice):
            return []
        if isinstance(op, Concat):
            return self.join(binding)
        if isinstance(op, CallTensor):
            return [self.kernel(binding, op)]
        if isinstance(op, CallLibrary):
            self.callbacks.setdefault(op.function)
            inputs = tuple((self.slot(a), _tensor_type(a)) for a in binding.args)
            outputs = tuple((self.slot(v), _tensor_type(v)) for v in binding.outputs)
            return [LibraryStep(op.function, inputs, outputs, binding.span)]
        if isinstance(op, AssertTrue):
            return self.check(binding, op)
        if isinstance(op, Cond):
            return self.branch(binding, op)
        if isinstance(op, WhileLoop):
            return self.loop(binding, op)
        raise InternalError(f"{op.op_name()}() reached the host")

    def join(self, binding: Binding) -> list[Step]:
        """Copies of the operands that were not made in their places."""
        whole = self.slots[binding.outputs[0]]
        steps: list[Step] = []
        for a, offset in joined_parts(binding):
            source, target = self.slot(a), part_slot(whole, offset)
            if source != target:
                steps.append(CopyStep(source, target, size_of(a)))
        return steps

    def kernel(self, binding: Binding, op: CallTensor) -> KernelStep:
        f = self.module.tensor(op.function)
        values = callee_symbols(f, binding.args, op)
        buffers = tuple(self.slot(a) for a in (*binding.args, *binding.outputs))
        numbers = tuple(simplify(values.get(s, s), self.facts) for s in symbols(f))
        return KernelStep(f.name, buffers, numbers, binding.outputs[0].name, binding.span)

    def check(self, binding: Binding, op: AssertTrue) -> list[Step]:
        """A test of the operand, and a copy of it where the result has memory of its own."""
        source, target = self.slot(binding.args[0]), self.slots[binding.outputs[0]]
        self.checks.append(ValueCheck(op.message, op.cure, binding.span))
        steps: list[Step] = [CheckStep(source, len(self.checks) - 1)]
        if source is not target:
            steps.append(CopyStep(source, target, byte_size(_tensor_type(binding.outputs[0]))))
        return steps

    def inline(self, name: str, args: tuple[Atom, ...], targets: tuple[Slot, ...]) -> list[Step]:
        """The steps of a graph function on given operands, its results in given places."""
        function = specialized(self.module.graph(name), args)
        for p, a in zip(function.params, args, strict=True):
            if not isinstance(a, ShapeLiteral):  # symbols, which are exchanged by now
                self.slots[p] = self.slot(a)
        steps: list[Step] = []
        inner: dict[Value, Slot] = {}
        copies: list[tuple[Atom, Slot]] = []
        for r, t in zip(function.results, targets, strict=True):
            if isinstance(r, Value) and r not in inner and r not in function.params:
                inner[r] = t
            else:
                copies.append((r, t))
        steps.extend(self.body(function, inner))
        for r, t in copies:
            steps.append(CopyStep(self.slot(r), t, byte_size(_tensor_type(r))))
        return steps

    def branch(self, binding: Binding, op: Cond) -> list[Step]:
        targets = tuple(self.slots[v] for v in binding.outputs)
        then = self.inline(op.then, binding.args[1:], targets)
        orelse = self.inline(op.orelse, binding.args[1:], targets)
        return [BranchStep(self.slot(binding.args[0]), tuple(then), tuple(orelse))]

    def loop(self, binding: Binding, op: WhileLoop) -> list[Step]:
        """The carried values live in the places of the results; the body computes the next ones
        beside them.
        """
        steps: list[Step] = []
        sizes = [byte_size(_tensor_type(v)) for v in binding.outputs]
        for a, v, size in zip(binding.args, binding.outputs, sizes, strict=False):
            steps.append(CopyStep(self.slot(a), self.slots[v], size))
        operands = (*binding.outputs, *binding.args[op.carried :])
        condition = self.take(const(1))
        test = self.inline(op.condition, operands, (condition,))
        following = tuple(self.take(size) for size in sizes)
        body = self.inline(op.body, operands, following)
        for n, v, size in zip(following, binding.outputs, sizes, strict=True):
            body.append(CopyStep(n, self.slots[v], size))
            self.give_back(n)
        self.give_back(condition)
        steps.append(LoopStep(tuple(test), condition, tuple(body)))
        return steps


@dataclass(slots=True)
class _Place:
    """Exchanges the names of blocks for their offsets."""

    offsets: dict[Var, Expr]

    def slot(self, slot: Slot) -> Slot:
        if isinstance(slot, PartSlot):
            return PartSlot(self.whole(slot.whole), slot.offset)
        return self.whole(slot)

    def whole(self, slot: WholeSlot) -> WholeSlot:
        if not isinstance(slot, ArenaSlot):
            return slot
        return ArenaSlot(substitute(slot.offset, self.offsets))

    def step(self, s: Step) -> Step:
        if isinstance(s, KernelStep):
            return KernelStep(
                s.kernel, tuple(self.slot(b) for b in s.buffers), s.symbols, s.label, s.span
            )
        if isinstance(s, LibraryStep):
            inputs = tuple((self.slot(b), t) for b, t in s.inputs)
            return LibraryStep(
                s.function, inputs, tuple((self.slot(b), t) for b, t in s.outputs), s.span
            )
        if isinstance(s, CopyStep):
            return CopyStep(self.slot(s.source), self.slot(s.target), s.size)
        if isinstance(s, CheckStep):
            return CheckStep(self.slot(s.condition), s.check)
        if isinstance(s, BranchStep):
            return BranchStep(self.slot(s.condition), self.steps(s.then), self.steps(s.orelse))
        return LoopStep(self.steps(s.test), self.slot(s.condition), self.steps(s.body))

    def steps(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(self.step(s) for s in steps)
