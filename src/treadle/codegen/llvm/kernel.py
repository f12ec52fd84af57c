"""A finished loop program as the text of an LLVM function.

The function is ``void @name.kernel(ptr pool, ptr buffers..., i64 symbols..., scalars...)``. Blocks
do not exist at this level. A parallel loop becomes a function of its own that the thread pool calls
with a part of the range.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from treadle.base.errors import CodegenError, InternalError
from treadle.base.span import Span
from treadle.codegen.llvm.expression import Evaluator
from treadle.codegen.llvm.load_store import address, store
from treadle.codegen.llvm.math import math_function
from treadle.codegen.llvm.parallel import Capture, captured, context_layout, grain_of, thunk_text
from treadle.codegen.llvm.types import Operand, const_operand, memory_type, register_type
from treadle.codegen.llvm.writer import MathKey, Parts, ScopeKind, Writer
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Const, Expr, Var, int_value
from treadle.ir.analysis import buffers_written, facts_of, symbols
from treadle.ir.tensor import (
    ONE,
    PREFETCHES,
    Allocate,
    Buffer,
    For,
    If,
    Intrinsic,
    Let,
    Load,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.target import Target

_STACK_LIMIT = 64 * 1024
# The stack of a thread holds more, but it is not ours alone.
_FRAME_LIMIT = 1024 * 1024
_ALIGN = 64
_LOOP_FLAGS = "!llvm.loop !0"


@dataclass(frozen=True, slots=True)
class KernelText:
    """One kernel as LLVM text.

    ``definitions`` are whole functions, the kernel itself last; ``support`` are definitions that
    several kernels may share, by name; ``declares`` are lines that must stand once in a module;
    ``math`` names the vector math functions that are called (arguments of ``math_function``).
    """

    symbol: str
    definitions: tuple[str, ...]
    support: tuple[tuple[str, str], ...]
    declares: tuple[str, ...]
    math: tuple[MathKey, ...]


def kernel_text(
    function: TensorFunction,
    target: Target,
    *,
    contract: bool = True,
    aliased: frozenset[int] = frozenset(),
) -> KernelText:
    """Translate a finished loop program, one statement after another.

    Unless ``contract``, every product and sum of floats is rounded. ``aliased`` are the positions
    of buffers that may share memory; all others are told apart from any.

    Raises:
        CodegenError: E0501 for a function that has no machine code on its type, E0503 for an
            unknown intrinsic.
    """
    parts = Parts(contract)
    emitter = KernelEmitter(function.name, target, parts, facts_of(function))
    written = frozenset(buffers_written(function.body))
    names: list[str] = ["ptr %pool"]
    emitter.aliased.update(function.buffers[k] for k in aliased)
    for buffer in function.buffers:
        names.append(emitter.add_buffer(buffer, readonly=buffer not in written))
    for var in symbols(function):
        names.append(emitter.add_variable(var))
    emitter.body(function.body)
    symbol = global_name(kernel_symbol(function.name))
    parts.functions.append(emitter.text(f"define void {symbol}({', '.join(names)})"))
    return KernelText(
        symbol,
        tuple(parts.functions),
        tuple(parts.support.items()),
        tuple(parts.declares),
        tuple(parts.math),
    )


def module_text(kernels: Iterable[KernelText], extra_text: str, target: Target) -> str:
    """One LLVM module of kernels and further text; what they share stands in it once."""
    kernels = tuple(kernels)
    declares: dict[str, None] = {}
    shared: dict[str, str] = {}
    pending: list[MathKey] = []
    for kernel in kernels:
        declares.update(dict.fromkeys(kernel.declares))
        shared.update(kernel.support)
        pending.extend(kernel.math)
    while pending:
        found = math_function(*pending.pop(), features=target.features)
        if found.symbol not in shared:
            shared[found.symbol] = found.text
            declares.update(dict.fromkeys(found.declares))
            pending.extend(found.requires)
    definitions = [shared[name] for name in sorted(shared)]
    definitions.extend(text for kernel in kernels for text in kernel.definitions)
    definitions.append(extra_text)
    defined = {name for text in definitions for name in _DEFINED.findall(text)}
    outside = [line for line in sorted(declares) if _symbol(line) not in defined]
    pieces = [f'target triple = "{target.triple}"', "\n".join(outside), *definitions]
    pieces.extend((_attributes(target), _METADATA))
    return "\n\n".join(piece for piece in pieces if piece) + "\n"


_DEFINED = re.compile(r'^define [^@]*(@"[^"]*"|@[-\w$.]+)', re.MULTILINE)
_DECLARED = re.compile(r'@"[^"]*"|@[-\w$.]+')


def _symbol(line: str) -> str | None:
    """The name that a line declares."""
    found = _DECLARED.search(line)
    return None if found is None else found.group()


_METADATA = """\
!0 = distinct !{!0, !1, !2}
!1 = !{!"llvm.loop.unroll.disable"}
!2 = !{!"llvm.loop.vectorize.enable", i1 false}"""


def _attributes(target: Target) -> str:
    width = f'"prefer-vector-width"="{target.vector_bits}"'
    legal = f'"min-legal-vector-width"="{target.vector_bits}"'
    return f"attributes #0 = {{ nounwind {width} {legal} }}"


def kernel_symbol(name: str) -> str:
    """The symbol of the kernel of a tensor function; a C library has none with a dot in it."""
    return f"{name}.kernel"


def global_name(name: str) -> str:
    """The name of a function as LLVM text writes it."""
    return f"@{name}" if name.replace("_", "a").replace(".", "a").isalnum() else f'@"{name}"'


class KernelEmitter:
    """Writes the statements of one function.

    ``serial``: whether parallel loops run on the calling thread, as they do inside a parallel loop.
    """

    def __init__(
        self, name: str, target: Target, parts: Parts, facts: Facts, *, serial: bool = False
    ) -> None:
        self.name = name
        self.writer = Writer(target, parts)
        self.values = Evaluator(self.writer, facts)
        self.serial = serial
        self.readonly: set[Buffer] = set()
        self.aliased: set[Buffer] = set()
        self.frame_bytes = 0

    def add_buffer(self, buffer: Buffer, *, readonly: bool) -> str:
        """A parameter that is the address of a buffer; its declaration."""
        name = f"%b.{self.writer.fresh('')}"
        self.values.define_buffer(buffer, Operand("ptr", name), 0)
        if readonly:
            self.readonly.add(buffer)
        align = buffer.dtype.bytes & -buffer.dtype.bytes
        facts = ("" if buffer in self.aliased else "noalias ") + ("readonly " if readonly else "")
        return f"ptr {facts}align {min(align, _ALIGN)} {name}"

    def add_variable(self, var: Var) -> str:
        """A parameter that is a scalar; its declaration."""
        operand = Operand(register_type(var.dtype), f"%s.{self.writer.fresh('')}")
        self.values.define(var, operand, 0)
        return str(operand)

    def text(self, header: str) -> str:
        """The whole function."""
        self._free(self.writer.scopes[0].frees)
        lines = (
            f"{header} #0 {{",
            "entry:",
            *self.writer.prologue,
            *self.writer.scopes[0].lines,
            "  ret void",
            "}",
        )
        return "\n".join(lines)

    def body(self, statements: tuple[Stmt, ...]) -> None:
        """Write statements in order."""
        for stmt in statements:
            self.values.start_statement()
            self._statement(stmt)

    def _statement(self, stmt: Stmt) -> None:
        if isinstance(stmt, Store):
            store(self.values, stmt)
        elif isinstance(stmt, For):
            self._for(stmt)
        elif isinstance(stmt, If):
            self._if(stmt)
        elif isinstance(stmt, Let):
            self._let(stmt)
        elif isinstance(stmt, Allocate):
            self._allocate(stmt.buffer)
        elif isinstance(stmt, Intrinsic):
            self._intrinsic(stmt)
        else:
            raise _misplaced(f"the block {stmt.name}", stmt.span)

    # Loops and branches ---------------------------------------------------------------------------

    def _for(self, stmt: For) -> None:
        if stmt.kind == "vectorized":
            raise _misplaced(f"the vectorized loop {stmt.var.name}", stmt.span)
        extent = int_value(stmt.extent)
        if extent is not None and extent <= 0:
            return
        if extent == 1:
            self.values.define(stmt.var, const_operand(Const(0, stmt.var.dtype)), 0)
            self.body(stmt.body)
        elif stmt.kind == "parallel" and not self.serial:
            self._parallel(stmt)
        else:
            first = const_operand(Const(0, stmt.var.dtype))
            limit = self.values.value(stmt.extent)
            self.counted(stmt, first, limit, never_empty=extent is not None)

    def counted(self, stmt: For, first: Operand, limit: Operand, *, never_empty: bool) -> None:
        """Write a loop that counts from ``first`` to below ``limit``, with its test at the end."""
        w, values = self.writer, self.values
        label, after = w.fresh("loop"), w.fresh("done")
        before, kind, name = w.current.label, first.type, f"%i.{w.fresh('')}"
        outer_facts = values.facts
        values.facts = outer_facts.with_range(stmt.var, stmt.extent)
        with w.inside("loop", label) as scope:
            values.define(stmt.var, Operand(kind, name), w.depth)
            self.body(stmt.body)
            self._free(scope.frees)
            w.emit(f"{name}.next = add nuw nsw {kind} {name}, 1")
            w.emit(f"{name}.more = icmp slt {kind} {name}.next, {limit.name}")
            w.emit(f"br i1 {name}.more, label %{label}, label %{after}, {_LOOP_FLAGS}")
        values.facts = outer_facts
        if never_empty:
            w.emit(f"br label %{label}")
        else:
            some = w.compare("icmp slt", first, limit)
            w.emit(f"br {some}, label %{label}, label %{after}")
        phi = f"{name} = phi {kind} [ {first.name}, %{before} ], [ {name}.next, %{scope.label} ]"
        w.current.lines.extend((f"{label}:", f"  {phi}", *scope.lines))
        w.start_block(after)

    def _if(self, stmt: If) -> None:
        if isinstance(stmt.condition, Const):
            self.body(stmt.body if stmt.condition.value else stmt.orelse)
            return
        w = self.writer
        condition = self.values.value(stmt.condition)
        then, after = w.fresh("then"), w.fresh("endif")
        otherwise = w.fresh("else") if stmt.orelse else after
        branches = (
            [(then, stmt.body), (otherwise, stmt.orelse)] if stmt.orelse else [(then, stmt.body)]
        )
        written: list[str] = []
        for label, body in branches:
            written.extend(self._branch("branch", label, after, body))
        w.emit(f"br {condition}, label %{then}, label %{otherwise}")
        w.current.lines.extend(written)
        w.start_block(after)

    def _branch(self, kind: ScopeKind, label: str, after: str, body: tuple[Stmt, ...]) -> list[str]:
        with self.writer.inside(kind, label) as scope:
            self.body(body)
            self._free(scope.frees)
            self.writer.emit(f"br label %{after}")
        return [f"{label}:", *scope.lines]

    # Names and memory -----------------------------------------------------------------------------

    def _let(self, stmt: Let) -> None:
        values = self.values
        operand = values.value(stmt.value)
        values.define(stmt.var, operand, values.place(stmt.value))

    def _allocate(self, buffer: Buffer) -> None:
        count: Expr = ONE
        for dim in buffer.shape:
            count = count * dim
        size = int_value(count)
        room = min(_STACK_LIMIT, _FRAME_LIMIT - self.frame_bytes)
        if size is not None and size * buffer.dtype.bytes <= room:
            self.frame_bytes += size * buffer.dtype.bytes
            kind = f"[{max(size, 1)} x {memory_type(buffer.dtype)}]"
            self.values.define_buffer(buffer, self.writer.stack(kind, _ALIGN, "buf"), 0)
        else:
            self._allocate_heap(buffer, count * buffer.dtype.bytes)

    def _allocate_heap(self, buffer: Buffer, size: Expr) -> None:
        """Memory from the system, taken where its size is known and given back at the end of that
        scope.
        """
        w, values = self.writer, self.values
        # aligned_alloc wants a multiple of the alignment, and something to give for an empty
        # buffer.
        size = (size + (2 * _ALIGN - 1)) // _ALIGN * _ALIGN
        level = values.place(size)
        with w.at(level):
            rounded = values.value(size)
            w.declare("noalias ptr", "@aligned_alloc", "i64", "i64")
            pointer = w.call("@aligned_alloc", "ptr", Operand("i64", str(_ALIGN)), rounded)
        w.scopes[level].frees.append(pointer)
        values.define_buffer(buffer, pointer, level)

    def _free(self, pointers: list[Operand]) -> None:
        for pointer in pointers:
            self.writer.declare("void", "@free", "ptr")
            self.writer.emit(f"call void @free({pointer})")

    def _intrinsic(self, stmt: Intrinsic) -> None:
        known = stmt.name in PREFETCHES and stmt.args != ()
        if not known or not isinstance(stmt.args[0], Load):
            listed = ", ".join(map(str, stmt.args))
            raise CodegenError(
                "E0503",
                f"there is no machine instruction for {stmt.name}({listed})",
                place=None if stmt.span is None else str(stmt.span),
                help="write prefetch(buffer[indices])",
            )
        w = self.writer
        pointer = address(self.values, stmt.args[0])
        w.declare("void", "@llvm.prefetch.p0", "ptr", "i32", "i32", "i32")
        near = 3 if stmt.name == "prefetch" else 2
        w.emit(f"call void @llvm.prefetch.p0({pointer}, i32 0, i32 {near}, i32 1)")

    # Parallel loops -------------------------------------------------------------------------------

    def _parallel(self, stmt: For) -> None:
        """Outline the loop and have the pool run parts of it."""
        w = self.writer
        capture = captured(stmt, frozenset(self.values.pointers))
        name = f"{self.name}.parallel{len(w.parts.functions)}"
        layout = context_layout(capture)
        self._outline(stmt, capture, name)
        w.parts.functions.append(thunk_text(name, layout))
        context = w.stack(f"[{max(layout.size, 8)} x i8]", _ALIGN, "context")
        items = [self.values.pointers[b][0] for b in capture.buffers]
        items.extend(self.values.value(v) for v in capture.variables)
        for item, offset in zip(items, layout.offsets, strict=True):
            slot = w.assign("ptr", f"getelementptr i8, {context}, i64 {offset}")
            w.emit(f"store {item}, {slot}, align 8")
        count = self.values.value(stmt.extent)
        grain = self.values.value(grain_of(stmt))
        w.declare("void", "@treadle.parallel_for", "ptr", "ptr", "ptr", "i64", "i64")
        body = f"ptr {global_name(name)}"
        w.emit(f"call void @treadle.parallel_for(ptr %pool, {body}, {context}, {count}, {grain})")

    def _outline(self, stmt: For, capture: Capture, name: str) -> None:
        """The function that runs a part of a parallel loop, with what it uses as parameters."""
        facts = self.values.facts
        inner = KernelEmitter(name, self.writer.target, self.writer.parts, facts, serial=True)
        inner.aliased.update(self.aliased)
        params = [inner.add_buffer(b, readonly=b in self.readonly) for b in capture.buffers]
        params.extend(inner.add_variable(v) for v in capture.variables)
        first, limit = Operand("i64", "%begin"), Operand("i64", "%end")
        inner.counted(stmt, first, limit, never_empty=False)
        params.extend((str(first), str(limit)))
        symbol = global_name(f"{name}.part")
        header = f"define internal void {symbol}({', '.join(params)}) noinline"
        self.writer.parts.functions.append(inner.text(header))


def _misplaced(what: str, span: Span | None) -> InternalError:
    place = "" if span is None else f" ({span})"
    return InternalError(f"{what}{place} reached code generation; lower_loops removes it")
