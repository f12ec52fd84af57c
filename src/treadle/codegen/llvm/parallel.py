"""What a parallel loop takes along when it becomes a function, and how finely its range may be
divided.
"""

from dataclasses import dataclass

from treadle.codegen.llvm.types import Operand, register_type
from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Apply, Expr, Var, const, variables, walk
from treadle.ir.analysis import allocated, defined, expressions, loads, statements
from treadle.ir.tensor import ONE, Buffer, For, If, Stmt, Store

# A part of a loop that does fewer element operations than this is not worth a thread.
_WORTH_A_THREAD = 16 * 1024
_MATH_COST = 15


@dataclass(frozen=True, slots=True)
class Capture:
    """The buffers and the variables of its surroundings that a loop uses."""

    buffers: tuple[Buffer, ...]
    variables: tuple[Var, ...]


@dataclass(frozen=True, slots=True)
class ContextLayout:
    """Where the captured values lie in the context: LLVM type and byte offset of each, and the size
    of all.
    """

    kinds: tuple[str, ...]
    offsets: tuple[int, ...]
    size: int


def captured(loop: For, known: frozenset[Buffer]) -> Capture:
    """What ``loop`` uses of what is defined around it, the buffers ``known`` there."""
    own_buffers = frozenset(allocated(loop.body))
    own_variables = {loop.var, *defined(loop.body)}
    used: dict[Buffer, None] = {}
    found: dict[Var, None] = {}
    for stmt in (loop, *statements(loop.body)):
        parts = expressions(stmt)
        touched = [x.buffer for x in loads(*parts)]
        if isinstance(stmt, Store):
            touched.append(stmt.buffer)
        used.update(dict.fromkeys(b for b in touched if b not in own_buffers))
        found.update(dict.fromkeys(variables(*parts)))
        for buffer in touched:
            found.update(dict.fromkeys(variables(*buffer.shape)))
    buffers = tuple(b for b in used if b in known)
    return Capture(buffers, tuple(v for v in found if v not in own_variables))


def context_layout(capture: Capture) -> ContextLayout:
    """Place the captured values one after another, each on a multiple of eight bytes."""
    kinds = ["ptr"] * len(capture.buffers)
    sizes = [8] * len(capture.buffers)
    for var in capture.variables:
        kinds.append(register_type(var.dtype))
        sizes.append(-(-var.dtype.bytes // 8) * 8)
    offsets = [sum(sizes[:i]) for i in range(len(sizes))]
    return ContextLayout(tuple(kinds), tuple(offsets), sum(sizes))


def thunk_text(name: str, layout: ContextLayout) -> str:
    """The function that the pool calls: it unpacks the context, so that the loop's own function has
    plain parameters.
    """
    lines = [f'define internal void @"{name}"(ptr %context, i64 %begin, i64 %end) #0 {{', "entry:"]
    arguments: list[Operand] = []
    for i, (kind, offset) in enumerate(zip(layout.kinds, layout.offsets, strict=True)):
        lines.append(f"  %p{i} = getelementptr i8, ptr %context, i64 {offset}")
        lines.append(f"  %a{i} = load {kind}, ptr %p{i}, align 8")
        arguments.append(Operand(kind, f"%a{i}"))
    arguments.extend((Operand("i64", "%begin"), Operand("i64", "%end")))
    lines.append(f'  call void @"{name}.part"({", ".join(map(str, arguments))})')
    return "\n".join((*lines, "  ret void", "}"))


def grain_of(loop: For) -> Expr:
    """The least number of iterations that is worth a thread, from a rough count of operations."""
    cost = _cost(loop.body, frozenset({loop.var, *defined(loop.body)}))
    return (const(_WORTH_A_THREAD) + cost) // (cost + ONE)


def _cost(body: tuple[Stmt, ...], inner: frozenset[Var]) -> Expr:
    """Element operations of statements; extents that vary inside of the loop count as one."""
    total: Expr = const(0)
    for stmt in body:
        if isinstance(stmt, For):
            varies = not inner.isdisjoint(variables(stmt.extent)) or bool(loads(stmt.extent))
            extent = ONE if varies else stmt.extent
            total = total + extent * _cost(stmt.body, inner)
        elif isinstance(stmt, If):
            total = total + _cost(stmt.body, inner) + _cost(stmt.orelse, inner)
        elif isinstance(stmt, Store):
            total = total + stmt.value.dtype.lanes * sum(map(_weight, walk(stmt.value)))
    return total


def _weight(x: Expr) -> int:
    """A rough count of instructions for one element."""
    is_math = isinstance(x, Apply) and FUNCTIONS[x.fn].family == "math"
    return _MATH_COST if is_math else 1
