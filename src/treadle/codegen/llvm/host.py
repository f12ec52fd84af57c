"""A host function as LLVM text: one function that solves and checks shapes, one that runs the
kernels in order.

``E.shapes(ptr dims, ptr symbols, ptr out_dims, ptr arena_bytes)`` and ``E.run(ptr block)`` are what
the run time calls; ``treadle_runtime.executable`` says what the arguments hold.
"""

from dataclasses import dataclass, field

from treadle.base.errors import InternalError
from treadle.codegen.llvm.expression import Evaluator
from treadle.codegen.llvm.kernel import KernelText, global_name, kernel_symbol
from treadle.codegen.llvm.types import Operand, register_type
from treadle.codegen.llvm.writer import Parts, Writer
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Expr
from treadle.ir.analysis import symbols
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
    PartSlot,
    SizeStep,
    Slot,
    Step,
    dimension,
)
from treadle.ir.module import Module
from treadle.target import Target
from treadle_runtime.manifest import DTYPES

_HEADER_WORDS = 5
_NOW = """\
define internal void @treadle.stamp(ptr %profile, i64 %index) #0 {
entry:
  %off = icmp eq ptr %profile, null
  br i1 %off, label %done, label %take
take:
  %time = alloca { i64, i64 }
  %status = call i32 @clock_gettime(i32 1, ptr %time)
  %s = load i64, ptr %time
  %rest = getelementptr i64, ptr %time, i64 1
  %ns = load i64, ptr %rest
  %whole = mul i64 %s, 1000000000
  %sum = add i64 %whole, %ns
  %slot = getelementptr i64, ptr %profile, i64 %index
  store i64 %sum, ptr %slot
  br label %done
done:
  ret void
}"""


def host_text(host: HostFunction, module: Module, target: Target) -> KernelText:
    """The two native functions of an entry; the kernels that they call are declared only."""
    parts = Parts()
    shapes = _shapes_text(host, target, parts)
    later = (_later_text(host, stage, target, parts) for stage in range(1, len(host.sizes) + 1))
    run = _Run(host, module, target, parts).texts()
    parts.declares["declare i32 @clock_gettime(i32, ptr)"] = None
    support = (("@treadle.stamp", _NOW),)
    symbol = global_name(f"{host.name}.run")
    return KernelText(
        symbol, (shapes, *later, *run), support, tuple(parts.declares), tuple(parts.math)
    )


TimedStep = KernelStep | LibraryStep | NativeStep


def timed_steps(steps: tuple[Step, ...]) -> tuple[TimedStep, ...]:
    """The calls of kernels and of functions outside in the order in which the profile counts
    them.
    """
    found: list[TimedStep] = []
    for s in steps:
        if isinstance(s, TimedStep):
            found.append(s)
        elif isinstance(s, BranchStep):
            found.extend((*timed_steps(s.then), *timed_steps(s.orelse)))
        elif isinstance(s, LoopStep):
            found.extend((*timed_steps(s.test), *timed_steps(s.body)))
    return tuple(found)


def kernel_steps(steps: tuple[Step, ...]) -> tuple[KernelStep, ...]:
    """The calls of kernels, in the same order."""
    return tuple(s for s in timed_steps(steps) if isinstance(s, KernelStep))


def _function(header: str, writer: Writer) -> str:
    lines = (f"{header} #0 {{", "entry:", *writer.prologue, *writer.scopes[0].lines, "}")
    return "\n".join(lines)


def _word(writer: Writer, base: str, index: int) -> Operand:
    """The address of an array's element."""
    return writer.assign("ptr", f"getelementptr i64, ptr {base}, i64 {index}")


def _load_word(writer: Writer, base: str, index: int, kind: str = "i64") -> Operand:
    return writer.assign(kind, f"load {kind}, {_word(writer, base, index)}, align 8")


def _shapes_text(host: HostFunction, target: Target, parts: Parts) -> str:
    w = Writer(target, parts)
    values = Evaluator(w, Facts())
    position = 0
    for i, (_, type_) in enumerate(host.inputs):
        for axis in range(type_.ndim):
            values.define(dimension(i, axis), _load_word(w, "%dims", position), 0)
            position += 1
    for k, (var, value) in enumerate(host.symbols):
        found = values.value(value)
        w.emit(f"store {found}, {_word(w, '%symbols', k)}, align 8")
        values.define(var, found, 0)
    for k, check in enumerate(host.checks):
        holds = values.value(check.claim)
        good, bad = w.fresh("good"), w.fresh("bad")
        w.emit(f"br {holds}, label %{good}, label %{bad}")
        w.start_block(bad)
        w.emit(f"ret i32 {k + 1}")
        w.start_block(good)
    _store_sizes(host, 0, w, values)
    name = global_name(f"{host.name}.shapes")
    return _function(
        f"define i32 {name}(ptr %dims, ptr %symbols, ptr %out_dims, ptr %arena_bytes)", w
    )


def _later_text(host: HostFunction, stage: int, target: Target, parts: Parts) -> str:
    """The sizes of what a later stage gives memory, from all symbols known by then."""
    w = Writer(target, parts)
    values = Evaluator(w, Facts())
    _define_symbols(host, stage, w, values)
    _store_sizes(host, stage, w, values)
    name = global_name(f"{host.name}.shapes.{stage}")
    return _function(f"define i32 {name}(ptr %symbols, ptr %out_dims, ptr %arena_bytes)", w)


def _define_symbols(host: HostFunction, stage: int, w: Writer, values: Evaluator) -> None:
    """Load the symbols that a stage knows."""
    known = (*(var for var, _ in host.symbols), *host.sizes[:stage])
    for k, var in enumerate(known):
        values.define(var, _load_word(w, "%symbols", k), 0)


def _store_sizes(host: HostFunction, stage: int, w: Writer, values: Evaluator) -> None:
    """Store the shapes of the outputs that are first known in a stage, and the size of its
    arena.
    """
    position = 0
    for _, type_ in host.outputs:
        if host.stage_of(*type_.dims) == stage:
            for k, d in enumerate(type_.dims):
                place = _word(w, "%out_dims", position + k)
                w.emit(f"store {values.value(d)}, {place}, align 8")
        position += type_.ndim
    arena = host.later[stage - 1] if stage else host.arena
    w.emit(f"store {values.value(arena)}, {_word(w, '%arena_bytes', stage)}, align 8")
    w.emit("ret i32 0")


@dataclass(slots=True)
class _Run:
    """Writes ``E.run`` and one function for each later stage: the addresses of everything first,
    then the steps.
    """

    host: HostFunction
    module: Module
    target: Target
    parts: Parts
    writer: Writer = field(init=False)
    values: Evaluator = field(init=False)
    count: int = 0

    def texts(self) -> tuple[str, ...]:
        stages: list[list[Step]] = [[]]
        for step in self.host.steps:
            stages[-1].append(step)
            if isinstance(step, SizeStep):
                stages.append([])
        return tuple(self.text(stage, tuple(steps)) for stage, steps in enumerate(stages))

    def text(self, stage: int, steps: tuple[Step, ...]) -> str:
        w = self.writer = Writer(self.target, self.parts)
        self.values = Evaluator(w, Facts())
        names = ("%pool", "%arena", "%constants", "%symbols", "%profile")
        for k, name in enumerate(names):
            w.emit(f"{name} = load ptr, {_word(w, '%block', k)}, align 8")
        _define_symbols(self.host, stage, w, self.values)
        outer = _HEADER_WORDS + len(self.host.inputs) + len(self.host.outputs)
        for k in range(1, stage + 1):
            w.emit(f"%arena.{k} = load ptr, {_word(w, '%block', outer + k - 1)}, align 8")
        self.steps(steps)
        w.emit("ret i32 0")
        suffix = f".{stage}" if stage else ""
        name = global_name(f"{self.host.name}.run{suffix}")
        return _function(f"define i32 {name}(ptr %block)", w)

    def steps(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            if isinstance(step, KernelStep):
                self.kernel(step)
            elif isinstance(step, LibraryStep):
                self.library(step)
            elif isinstance(step, NativeStep):
                self.native(step)
            elif isinstance(step, CopyStep):
                self.copy(step)
            elif isinstance(step, CheckStep):
                self.check(step)
            elif isinstance(step, SizeStep):
                self.size(step)
            elif isinstance(step, BranchStep):
                self.branch(step)
            else:
                self.loop(step)

    def address(self, slot: Slot) -> Operand:
        w = self.writer
        if isinstance(slot, PartSlot):
            whole, offset = self.address(slot.whole), self.values.value(slot.offset)
            return w.assign("ptr", f"getelementptr i8, {whole}, {offset}")
        if isinstance(slot, ArenaSlot):
            offset = self.values.value(slot.offset)
            arena = f"%arena.{slot.stage}" if slot.stage else "%arena"
            return w.assign("ptr", f"getelementptr i8, ptr {arena}, {offset}")
        if isinstance(slot, ConstantSlot):
            return _load_word(w, "%constants", self.host.constants.index(slot.name), "ptr")
        first = 0 if isinstance(slot, InputSlot) else len(self.host.inputs)
        return _load_word(w, "%block", _HEADER_WORDS + first + slot.index, "ptr")

    def kernel(self, step: KernelStep) -> None:
        w = self.writer
        function = self.module.tensor(step.kernel)
        operands = [Operand("ptr", "%pool"), *(self.address(b) for b in step.buffers)]
        for var, value in zip(symbols(function), step.symbols, strict=True):
            operand = self.values.value(value)
            if operand.type != register_type(var.dtype):
                raise InternalError(f"{step.kernel} takes {var} as {var.dtype}, not {operand.type}")
            operands.append(operand)
        symbol = global_name(kernel_symbol(step.kernel))
        w.declare("void", symbol, *(o.type for o in operands))
        self.timed("void", f"{symbol}({', '.join(map(str, operands))})")

    def timed(self, result: str, call: str) -> Operand:
        """Call something, and note when it began and ended."""
        w = self.writer
        self.stamp(2 * self.count)
        if result == "void":
            w.emit(f"call void {call}")
            found = Operand("void", "")
        else:
            found = w.assign(result, f"call {result} {call}")
        self.stamp(2 * self.count + 1)
        self.count += 1
        return found

    def stamp(self, index: int) -> None:
        self.writer.emit(f"call void @treadle.stamp(ptr %profile, i64 {index})")

    def library(self, step: LibraryStep) -> None:
        w = self.writer
        tensors = (*step.inputs, *step.outputs)
        size = 2 + sum(3 + t.ndim for _, t in tensors)
        words = w.stack(f"[{size} x i64]", 8, "words")
        position = 0

        def put(value: Operand) -> None:
            nonlocal position
            w.emit(f"store {value}, {_word(w, words.name, position)}, align 8")
            position += 1

        put(_number(len(step.inputs)))
        put(_number(len(step.outputs)))
        for slot, type_ in tensors:
            put(self.address(slot))
            put(_number(DTYPES.index(str(type_.dtype))))
            put(_number(type_.ndim))
            for d in type_.dims:
                put(self.values.value(d))
        callback = self.callee(step.function)
        status = self.timed("i32", f"{callback.name}({words})")
        failed = w.assign("i1", f"icmp ne {status}, 0")
        good, bad = w.fresh("good"), w.fresh("bad")
        w.emit(f"br {failed}, label %{bad}, label %{good}")
        w.start_block(bad)
        w.emit("ret i32 1")
        w.start_block(good)

    def callee(self, function: str) -> Operand:
        """The address of a function outside."""
        place = len(self.host.constants) + self.host.callbacks.index(function)
        return _load_word(self.writer, "%constants", place, "ptr")

    def native(self, step: NativeStep) -> None:
        """Call a C function; if it fails, leave what it returned in the first word of the block."""
        w = self.writer
        passed: list[str] = []
        for a in step.arguments:
            operand = self.values.value(a) if isinstance(a, Expr) else self.address(a)
            passed.append(f"{operand.type} {_extended(a)}{operand.name}")
        callee = self.callee(step.function)
        call = f"{callee.name}({', '.join(passed)})"
        if step.check is None:
            self.timed("void", call)
            return
        status = self.timed("i32", call)
        self.require(w.assign("i1", f"icmp eq {status}, 0"), step.check, status)

    def copy(self, step: CopyStep) -> None:
        w = self.writer
        source, target = self.address(step.source), self.address(step.target)
        size = self.values.value(step.size)
        w.declare("void", "@llvm.memmove.p0.p0.i64", "ptr", "ptr", "i64", "i1")
        w.emit(f"call void @llvm.memmove.p0.p0.i64({target}, {source}, {size}, i1 false)")

    def condition(self, slot: Slot) -> Operand:
        w = self.writer
        byte = w.assign("i8", f"load i8, {self.address(slot)}")
        return w.assign("i1", f"icmp ne {byte}, 0")

    def check(self, step: CheckStep) -> None:
        """Return the number of the check, counted after those of shapes, if it fails."""
        claim = step.condition
        holds = self.values.value(claim) if isinstance(claim, Expr) else self.condition(claim)
        self.require(holds, step.check)

    def require(self, holds: Operand, check: int, status: Operand | None = None) -> None:
        w = self.writer
        good, bad = w.fresh("good"), w.fresh("bad")
        w.emit(f"br {holds}, label %{good}, label %{bad}")
        w.start_block(bad)
        if status is not None:
            w.emit(f"store {w.assign('i64', f'sext {status} to i64')}, ptr %block, align 8")
        w.emit(f"ret i32 {1 + len(self.host.checks) + check}")
        w.start_block(good)

    def size(self, step: SizeStep) -> None:
        """Hand a symbol to the caller, who calls the next stage."""
        w = self.writer
        value = w.assign("i64", f"load i64, {self.address(step.source)}, align 8")
        self.values.define(step.symbol, value, 0)
        for claim, check in step.claims:
            self.require(self.values.value(claim), check)
        place = len(self.host.symbols) + self.host.sizes.index(step.symbol)
        w.emit(f"store {value}, {_word(w, '%symbols', place)}, align 8")

    def branch(self, step: BranchStep) -> None:
        w = self.writer
        condition = self.condition(step.condition)
        then, orelse, after = w.fresh("then"), w.fresh("else"), w.fresh("endif")
        blocks: list[str] = []
        for label, steps in ((then, step.then), (orelse, step.orelse)):
            with w.inside("branch", label) as scope:
                self.steps(steps)
                w.emit(f"br label %{after}")
            blocks.extend((f"{label}:", *scope.lines))
        w.emit(f"br {condition}, label %{then}, label %{orelse}")
        w.current.lines.extend(blocks)
        w.start_block(after)

    def loop(self, step: LoopStep) -> None:
        w = self.writer
        test, body, after = w.fresh("test"), w.fresh("body"), w.fresh("done")
        with w.inside("branch", test) as tested:
            self.steps(step.test)
            condition = self.condition(step.condition)
            w.emit(f"br {condition}, label %{body}, label %{after}")
        with w.inside("branch", body) as repeated:
            self.steps(step.body)
            w.emit(f"br label %{test}")
        w.emit(f"br label %{test}")
        w.current.lines.extend((f"{test}:", *tested.lines, f"{body}:", *repeated.lines))
        w.start_block(after)


def _extended(a: Slot | Expr) -> str:
    """How a C function expects an argument that is smaller than a register."""
    if not isinstance(a, Expr) or a.dtype.is_float or a.dtype.bits >= 32:
        return ""
    return "signext " if a.dtype.kind == "int" else "zeroext "


def _number(value: int) -> Operand:
    return Operand("i64", str(value))
