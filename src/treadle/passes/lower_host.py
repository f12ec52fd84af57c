"""Turn the entry of a module into a host function: memory planned, calls in order, shapes solved
and checked.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from treadle.base.errors import InternalError, LoweringError
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.dtype import boolean
from treadle.expr.scalar import Const, Expr, Var, cast, const, substitute, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import bound_symbols, facts_of, symbols, type_exprs
from treadle.ir.calls import (
    AssertTrue,
    BindSymbol,
    CallLibrary,
    CallTensor,
    Cond,
    MatchCast,
    WhileLoop,
)
from treadle.ir.graph import (
    Atom,
    Binding,
    ConstantRef,
    GraphFunction,
    Literal,
    ShapeLiteral,
    Value,
)
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
    NativeStep,
    OutputSlot,
    PartSlot,
    SizeStep,
    Slot,
    Step,
    ValueCheck,
    WholeSlot,
)
from treadle.ir.module import Module
from treadle.ir.signature import Fit, match
from treadle.ir.tensor import ZERO
from treadle.ir.types import TensorType, Type
from treadle.libraries.library import Lowering, Scalar
from treadle.ops.reshape import Reshape
from treadle.ops.shape import Concat, Slice
from treadle.passes.fuse import callee_symbols
from treadle.passes.plan_memory import ArenaPlan, Block, byte_size
from treadle.passes.share_memory import Place, SharedMemory, joined_parts, shared_memory, size_of
from treadle.passes.solve_inputs import solve_inputs
from treadle.passes.specialize_calls import specialized

LOG = logging.getLogger("treadle.passes")
NO_NATIVES: Mapping[str, Lowering] = MappingProxyType({})


def lower_host(
    module: Module,
    entry: str = "main",
    natives: Mapping[str, Lowering] = NO_NATIVES,
    *,
    static: bool = False,
) -> HostFunction:
    """The host function of a graph function whose calls are calls of tensor functions, and of
    functions of libraries: ``natives`` are those of C, all others are called back. With ``static``,
    the arena has a constant size.

    Raises:
        LoweringError: E0420 if a symbol of the signature cannot be found from the shapes of the
            inputs, E0423 if static memory has no upper bound, E0431 if a call of a C function does
            not fit its declaration.
    """
    function = module.graph(entry)
    solved, checks = solve_inputs(function)
    late = bound_symbols(function)
    plan = _Plan(module, facts_of(function), natives, late, static)
    steps = plan.entry(function)
    offsets, arena = plan.arena.layout()
    later: list[Expr] = []
    for stage in range(1, len(late) + 1):
        found, size = plan.arena.layout(stage)
        offsets |= found
        later.append(size)
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
        late,
        tuple(later),
        function.donated,
    )


def _tensor_type(a: Atom) -> TensorType:
    if not isinstance(a.type, TensorType) or a.type.shape is None:
        raise LoweringError(
            "E0421", f"an entry takes and gives tensors of known shape, not {a.type}"
        )
    return a.type


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
    natives: Mapping[str, Lowering]
    late: tuple[Var, ...] = ()
    static: bool = False
    arena: ArenaPlan = field(init=False)
    constants: dict[str, None] = field(default_factory=dict[str, None])
    callbacks: dict[str, None] = field(default_factory=dict[str, None])
    slots: dict[Value, Slot] = field(default_factory=dict[Value, Slot])
    blocks: dict[Slot, Block] = field(default_factory=dict[Slot, Block])
    checks: list[ValueCheck] = field(default_factory=list[ValueCheck])

    def __post_init__(self) -> None:
        self.arena = ArenaPlan(self.facts, self.late, self.static)

    def entry(self, function: GraphFunction) -> list[Step]:
        self.slots.update((p, InputSlot(i)) for i, p in enumerate(function.params))
        shared = shared_memory(self.module, function)
        given = {k: (function.params[j], InputSlot(j)) for k, j in function.donated}
        targets: dict[Value, Slot] = {}
        later: list[tuple[Value, Slot]] = []
        for i, r in enumerate(function.results):
            param, slot = given.get(i, (None, OutputSlot(i)))
            if not isinstance(r, Value) or r in targets or (r in self.slots and r is not param):
                raise InternalError("a result of an entry must be a value of its own")
            if param is None or shared.is_free(param, r):
                targets[r] = slot
            elif shared.owner(r) is not param:
                LOG.info("'%s' is copied to '%s' at the end of each call", r.name, param.name)
                later.append((r, slot))
        steps = self.body(function, targets, shared)
        return [*steps, *(CopyStep(self.slots[r], slot, size_of(r)) for r, slot in later)]

    def body(
        self,
        function: GraphFunction,
        targets: dict[Value, Slot],
        shared: SharedMemory | None = None,
    ) -> list[Step]:
        """The steps of a function whose parameters have slots and whose results go to
        ``targets``; ``shared`` says which values share memory, if that is known.
        """
        steps: list[Step] = []
        shared = shared or shared_memory(self.module, function)
        for binding in function.body:  # which may have been walked before, for another call
            for v in binding.outputs:
                self.slots.pop(v, None)
        # What a result shows is made in the result's place.
        targets = {_owner(shared, r): slot for r, slot in targets.items()}
        kept = {shared.owner(r) for r in function.results if isinstance(r, Value)}
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
        if isinstance(op, MatchCast):
            return self.fits((binding.args[0].type,), (op.type,), "the value", binding)
        if isinstance(op, Concat):
            return self.join(binding)
        if isinstance(op, CallTensor):
            return self.kernel(binding, op)
        if isinstance(op, CallLibrary):
            return self.library(binding, op)
        if isinstance(op, AssertTrue):
            return self.check(binding, op)
        if isinstance(op, BindSymbol):
            return self.size(binding, op)
        if isinstance(op, Cond):
            return self.branch(binding, op)
        if isinstance(op, WhileLoop):
            return self.loop(binding, op)
        raise InternalError(f"{op.op_name()}() reached the host")

    def library(self, binding: Binding, op: CallLibrary) -> list[Step]:
        """A call of a function outside: of Python, or of C after tests that its numbers fit."""
        self.callbacks.setdefault(op.function)
        inputs = tuple((self.slot(a), _tensor_type(a)) for a in binding.args)
        outputs = tuple((self.slot(v), _tensor_type(v)) for v in binding.outputs)
        native = self.natives.get(op.function)
        if native is None:
            return [LibraryStep(op.function, inputs, outputs, binding.span)]
        slots = [slot for slot, _ in (*inputs, *outputs)]
        given, made = ([t for _, t in tensors] for tensors in (inputs, outputs))
        steps: list[Step] = []
        arguments: list[Slot | Expr] = []
        for passed in native.call(given, made, op.symbols, self.facts):
            if isinstance(passed, Scalar):
                steps.extend(self.fitting(passed, op, binding))
                arguments.append(simplify(cast(passed.value, passed.dtype)))
            else:
                arguments.append(slots[passed.index])
        check = None
        if native.returns_status:
            check = len(self.checks)
            message = f"the library function '{op.function}' failed"
            self.checks.append(ValueCheck(message, None, binding.span, op.function))
        call = NativeStep(op.function, tuple(arguments), (*given, *made), check, binding.span)
        return [*steps, call]

    def fitting(self, passed: Scalar, op: CallLibrary, binding: Binding) -> list[Step]:
        """A test that an integer fits the parameter that it is passed for, unless that is clear."""
        value, dtype = passed.value, passed.dtype
        if isinstance(value, Const) or not dtype.is_int or value.dtype == dtype:
            return []
        bits = dtype.bits - (dtype.kind == "int")
        claims = [] if bits >= value.dtype.bits - 1 else [value < 1 << bits]
        if dtype.kind == "uint":
            claims.append(value >= 0)
        claims = [c for c in claims if not prove(c, self.facts)]
        message = f"{value} does not fit a parameter of '{op.function}', which is {dtype}"
        return [self.claim(c, message, "pass smaller inputs", binding) for c in claims]

    def join(self, binding: Binding) -> list[Step]:
        """Copies of the operands that were not made in their places."""
        whole = self.slots[binding.outputs[0]]
        steps: list[Step] = []
        for a, offset in joined_parts(binding):
            source, target = self.slot(a), part_slot(whole, offset)
            if source != target:
                steps.append(CopyStep(source, target, size_of(a)))
        return steps

    def kernel(self, binding: Binding, op: CallTensor) -> list[Step]:
        """A call, after copies of what it updates where the result is not made in its place."""
        f = self.module.tensor(op.function)
        values = callee_symbols(f, binding.args, op)
        buffers = tuple(self.slot(a) for a in (*binding.args, *binding.outputs))
        numbers = tuple(simplify(values.get(s, s), self.facts) for s in symbols(f))
        steps: list[Step] = []
        for k, j in f.updates:
            source, target = buffers[j], buffers[len(binding.args) + k]
            if source != target:
                steps.append(CopyStep(source, target, size_of(binding.args[j])))
        label = binding.outputs[0].name
        return [*steps, KernelStep(f.name, buffers, numbers, label, binding.span)]

    def check(self, binding: Binding, op: AssertTrue) -> list[Step]:
        """A test of the operand, and a copy of it where the result has memory of its own."""
        test = binding.args[0]
        if isinstance(test, Literal):
            return [self.claim(test.value, op.message, op.cure, binding)]
        source, target = self.slot(test), self.slots[binding.outputs[0]]
        self.checks.append(ValueCheck(op.message, op.cure, binding.span))
        steps: list[Step] = [CheckStep(source, len(self.checks) - 1)]
        if source is not target:
            steps.append(CopyStep(source, target, byte_size(_tensor_type(binding.outputs[0]))))
        return steps

    def size(self, binding: Binding, op: BindSymbol) -> list[Step]:
        """The begin of a stage, and a copy of the operand where the result has memory of its
        own.
        """
        place = None if binding.span is None else str(binding.span)
        if op.variable not in self.late:
            raise LoweringError(
                "E0422",
                f"the size '{op.symbol}' depends on data inside of a branch or a loop",
                place=place,
                help="compute what has this size before the branch, or pad it to a known size",
            )
        source, target = self.slot(binding.args[0]), self.slots[binding.outputs[0]]
        claims: list[tuple[Expr, int]] = []
        for claim in op.where:
            claims.append((claim, len(self.checks)))
            message = f"{claim} does not hold of sizes that depend on data"
            self.checks.append(ValueCheck(message, None, binding.span))
        steps: list[Step] = [SizeStep(op.variable, source, tuple(claims))]
        if source is not target:
            steps.append(CopyStep(source, target, byte_size(_tensor_type(binding.outputs[0]))))
        return steps

    def claim(self, claim: Expr, message: str, cure: str | None, binding: Binding) -> Step:
        """A test of what is said of symbols."""
        self.checks.append(ValueCheck(message, cure, binding.span))
        return CheckStep(simplify(claim, self.facts), len(self.checks) - 1)

    def fits(
        self, given: Sequence[Type], wanted: Sequence[Type], what: str, binding: Binding
    ) -> list[Step]:
        """Tests that values have the types that are written for them, where that is not shown."""
        known = {v for t in wanted for v in variables(*type_exprs(t))}
        found = match(given, wanted, known=known, facts=self.facts)
        if found.fit <= Fit.DIFFERENT or found.open:
            raise InternalError(f"{what} of {binding.op.op_name()} can never be {wanted[0]}")
        cure = "pass inputs whose shapes meet it"
        return [
            self.claim(c, f"{what} is {given[0]}, and {c} does not hold", cure, binding)
            for c in found.claims
        ]

    def inline(
        self,
        name: str,
        args: tuple[Atom, ...],
        targets: tuple[Slot, ...],
        wanted: Sequence[Type],
        place: Binding,
    ) -> list[Step]:
        """The steps of a graph function on given operands, its results in given places."""
        function = self.enter(name, args)
        shared = shared_memory(self.module, function)
        inner: dict[Value, Slot] = {}
        copies: list[tuple[Atom, Slot]] = []
        for r, t in zip(function.results, targets, strict=True):
            if isinstance(r, Value) and r not in inner and _is_made(r, function, shared):
                inner[r] = t
            else:
                copies.append((r, t))
        steps = self.body(function, inner, shared)
        steps.extend(self.fits(_types(function.results), wanted, f"the result of '{name}'", place))
        for r, t in copies:
            steps.append(CopyStep(self.slot(r), t, byte_size(_tensor_type(r))))
        return steps

    def enter(self, name: str, args: tuple[Atom, ...]) -> GraphFunction:
        """A function as a call with these operands sees it; its parameters lie where they do."""
        function = specialized(self.module.graph(name), args)
        for p, a in zip(function.params, args, strict=True):
            if not isinstance(a, ShapeLiteral):  # symbols, which are exchanged by now
                self.slots[p] = self.slot(a)
        return function

    def branch(self, binding: Binding, op: Cond) -> list[Step]:
        targets = tuple(self.slots[v] for v in binding.outputs)
        wanted = [v.type for v in binding.outputs]
        then = self.inline(op.then, binding.args[1:], targets, wanted, binding)
        orelse = self.inline(op.orelse, binding.args[1:], targets, wanted, binding)
        return [BranchStep(self.slot(binding.args[0]), tuple(then), tuple(orelse))]

    def loop(self, binding: Binding, op: WhileLoop) -> list[Step]:
        """The carried values live in the places of the results, where the body makes the next ones
        if nobody needs the old ones then, and else beside them.
        """
        types = _types(binding.outputs)
        given = _types(binding.args[: op.carried])
        steps = self.fits(given, types, "a carried value", binding)
        sizes = [byte_size(_tensor_type(v)) for v in binding.outputs]
        for a, v, size in zip(binding.args, binding.outputs, sizes, strict=False):
            steps.append(CopyStep(self.slot(a), self.slots[v], size))
        operands = (*binding.outputs, *binding.args[op.carried :])
        condition = self.take(const(1))
        test = self.inline(op.condition, operands, (condition,), (_CONDITION,), binding)
        body = self.loop_body(op, operands, types, binding)
        self.give_back(condition)
        steps.append(LoopStep(tuple(test), condition, tuple(body)))
        return steps

    def loop_body(
        self, op: WhileLoop, operands: tuple[Atom, ...], types: Sequence[Type], place: Binding
    ) -> list[Step]:
        """One turn of a loop, after which the next values lie where the old ones did."""
        entered = self.enter(op.body, operands)
        pairs = tuple((k, k) for k in range(op.carried))
        function: GraphFunction = replace_fields(entered, donated=pairs)
        shared = shared_memory(self.module, function)
        inner: dict[Value, Slot] = {}
        copies: list[tuple[Atom, Slot]] = []
        beside: list[tuple[Slot, Slot, Expr]] = []
        for r, p in zip(function.results, function.params, strict=False):
            made = isinstance(r, Value) and r not in inner and _is_made(r, function, shared)
            here = self.slots[p]
            if r is p or (isinstance(r, Value) and not made and shared.place(r) == Place(p, ZERO)):
                continue
            if made and isinstance(r, Value) and shared.is_free(p, r):
                inner[r] = here
                continue
            size = size_of(p)
            next_ = self.take(size)
            beside.append((next_, here, size))
            if made and isinstance(r, Value):
                inner[r] = next_
            else:
                copies.append((r, next_))
        steps = self.body(function, inner, shared)
        steps.extend(self.fits(_types(function.results), types, "the next value", place))
        steps.extend(CopyStep(self.slot(r), t, size_of(r)) for r, t in copies)
        steps.extend(CopyStep(*copy) for copy in beside)
        for next_, _, _ in beside:
            self.give_back(next_)
        return steps


def _types(atoms: Sequence[Atom]) -> list[Type]:
    return [a.type for a in atoms]


def _is_made(r: Value, function: GraphFunction, shared: SharedMemory) -> bool:
    """Whether a function makes a result itself, and does not only show a parameter or constant."""
    owner = shared.owner(r)
    return isinstance(owner, Value) and owner not in function.params


_CONDITION = TensorType((), 0, boolean)


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
        return ArenaSlot(substitute(slot.offset, self.offsets), slot.stage)

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
        if isinstance(s, NativeStep):
            placed = tuple(a if isinstance(a, Expr) else self.slot(a) for a in s.arguments)
            return NativeStep(s.function, placed, s.types, s.check, s.span)
        if isinstance(s, CopyStep):
            return CopyStep(self.slot(s.source), self.slot(s.target), s.size)
        if isinstance(s, CheckStep):
            test = s.condition
            return CheckStep(test if isinstance(test, Expr) else self.slot(test), s.check)
        if isinstance(s, SizeStep):
            return SizeStep(s.symbol, self.slot(s.source), s.claims)
        if isinstance(s, BranchStep):
            return BranchStep(self.slot(s.condition), self.steps(s.then), self.steps(s.orelse))
        return LoopStep(self.steps(s.test), self.slot(s.condition), self.steps(s.body))

    def steps(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(self.step(s) for s in steps)
