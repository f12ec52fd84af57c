"""Traces: schedules as values. A trace prints as Python calls, one per line, and reads back."""

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from treadle.base.errors import ScheduleError
from treadle.ir.analysis import blocks, statements
from treadle.ir.tensor import For, Scope, TensorFunction
from treadle.schedule.cache import CacheRead, CacheWrite, SetScope
from treadle.schedule.compute_at import ComputeAt, ReverseComputeAt
from treadle.schedule.index_map import IndexMap, index_map, parse_index_map
from treadle.schedule.inline import ComputeInline, ReverseComputeInline
from treadle.schedule.instruction import Instruction
from treadle.schedule.layout import TransformLayout
from treadle.schedule.loops import Fuse, Parallel, Reorder, Split, Unroll, Vectorize
from treadle.schedule.reduction import DecomposeReduction, RFactor

Trace = tuple[Instruction, ...]

INSTRUCTIONS: tuple[type[Instruction], ...] = (
    Split, Fuse, Reorder, Vectorize, Unroll, Parallel, ComputeInline, ReverseComputeInline,
    ComputeAt, ReverseComputeAt, CacheRead, CacheWrite, SetScope, DecomposeReduction, RFactor,
    TransformLayout,
)  # fmt: skip


def apply_trace(function: TensorFunction, trace: Iterable[Instruction]) -> TensorFunction:
    """Apply instructions in order.

    Raises:
        ScheduleError: E03xx, from the first instruction that does not apply.
    """
    for instruction in trace:
        function = instruction.apply(function)
    return function


def trace_text(trace: Iterable[Instruction]) -> str:
    """The trace, one call per line."""
    return "".join(f"{instruction}\n" for instruction in trace)


def parse_trace(text: str) -> Trace:
    """The trace that a text says; nothing is executed.

    Raises:
        ScheduleError: E0300 if the text is not a list of instructions.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ScheduleError(
            "E0300", f"the trace cannot be read: {error.msg}", place=f"line {error.lineno}"
        ) from None
    return tuple(_instruction(statement, text) for statement in tree.body)


def _instruction(statement: ast.stmt, text: str) -> Instruction:
    call = statement.value if isinstance(statement, ast.Expr) else None
    name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else None
    cls = {c.name(): c for c in INSTRUCTIONS}.get(name or "")
    source = ast.get_source_segment(text, statement) or ""
    if cls is None or not isinstance(call, ast.Call):
        known = ", ".join(c.name() for c in INSTRUCTIONS)
        raise _unreadable(statement, source, f"the instructions are {known}")
    try:
        args = [_value(a) for a in call.args]
        keywords = {k.arg: _value(k.value) for k in call.keywords if k.arg is not None}
        return cls(*args, **keywords)
    except (TypeError, ValueError):
        names = ", ".join(f.name for f in fields(cls))
        raise _unreadable(statement, source, f"{name} takes {names}") from None


def _unreadable(statement: ast.stmt, source: str, hint: str) -> ScheduleError:
    place = f"line {statement.lineno}"
    return ScheduleError(
        "E0300",
        "this is no instruction of a trace",
        place=place,
        excerpt=source.splitlines(),
        help=hint,
    )


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Lambda):
        return parse_index_map(node)
    return ast.literal_eval(node)


@dataclass(eq=False)
class Schedule:
    """A function on its way, and the trace that brought it there.

    Every method appends one instruction and returns the names of what it made; a refused one
    (ScheduleError, E03xx) leaves the schedule as it was.
    """

    function: TensorFunction
    trace: Trace = ()

    def apply(self, instruction: Instruction) -> None:
        """Append any instruction."""
        self.function = instruction.apply(self.function)
        self.trace = (*self.trace, instruction)

    def loops(self) -> tuple[str, ...]:
        """The names of all loops, in the order of the text."""
        return _loop_names(self.function)

    def split(self, loop: str, factors: tuple[int | None, ...]) -> tuple[str, ...]:
        """Split a loop; the new loops, outermost first."""
        return self._made(Split(loop, tuple(factors)), _loop_names)

    def fuse(self, *loops: str) -> str:
        """Fuse loops, outermost first; the new loop."""
        return self._made(Fuse(loops), _loop_names)[0]

    def reorder(self, *loops: str, reassociate: bool = False) -> None:
        """Put loops in this order."""
        self.apply(Reorder(loops, reassociate))

    def vectorize(self, loop: str, *, reassociate: bool = False) -> None:
        """Run iterations as lanes."""
        self.apply(Vectorize(loop, reassociate))

    def unroll(self, loop: str) -> None:
        """Repeat the body."""
        self.apply(Unroll(loop))

    def parallel(self, loop: str) -> None:
        """Run iterations on all threads."""
        self.apply(Parallel(loop))

    def compute_inline(self, block: str) -> None:
        """Put a producer into the blocks that use it."""
        self.apply(ComputeInline(block))

    def reverse_compute_inline(self, block: str) -> None:
        """Put an elementwise consumer into its producer."""
        self.apply(ReverseComputeInline(block))

    def compute_at(self, block: str, loop: str) -> tuple[str, ...]:
        """Compute a producer where a loop needs it; its new loops."""
        return self._made(ComputeAt(block, loop), _loop_names)

    def reverse_compute_at(self, block: str, loop: str) -> tuple[str, ...]:
        """Run a consumer at the end of a loop's body; its new loops."""
        return self._made(ReverseComputeAt(block, loop), _loop_names)

    def cache_read(self, block: str, buffer: str, scope: Scope) -> str:
        """Read a buffer through a copy; the block that copies."""
        return self._made(CacheRead(block, buffer, scope), _block_names)[0]

    def cache_write(self, block: str, scope: Scope) -> str:
        """Write a buffer through another; the block that copies."""
        return self._made(CacheWrite(block, scope), _block_names)[0]

    def set_scope(self, buffer: str, scope: Scope) -> None:
        """Place a buffer of the function's own."""
        self.apply(SetScope(buffer, scope))

    def decompose_reduction(self, block: str, loop: str) -> str:
        """Start a reduction in a block of its own before a loop; that block."""
        return self._made(DecomposeReduction(block, loop), _block_names)[0]

    def rfactor(self, loop: str) -> str:
        """Reduce along a loop last; the block of partial results."""
        return self._made(RFactor(loop), _block_names)[0]

    def transform_layout(
        self, buffer: str, layout: "IndexMap | Callable[..., tuple[object, ...]]"
    ) -> tuple[str, ...]:
        """Store a buffer in another order; the new dimensions, as text."""
        change = layout if isinstance(layout, IndexMap) else index_map(layout)
        instruction = TransformLayout(buffer, change)
        shape = instruction.new_shape(self.function)
        self.apply(instruction)
        return tuple(str(d) for d in shape)

    def _made(
        self, instruction: Instruction, of: Callable[[TensorFunction], tuple[str, ...]]
    ) -> tuple[str, ...]:
        before = frozenset(of(self.function))
        self.apply(instruction)
        return tuple(name for name in of(self.function) if name not in before)


def _loop_names(function: TensorFunction) -> tuple[str, ...]:
    return tuple(s.var.name for s in statements(function.body) if isinstance(s, For))


def _block_names(function: TensorFunction) -> tuple[str, ...]:
    return tuple(b.name for b in blocks(function))
