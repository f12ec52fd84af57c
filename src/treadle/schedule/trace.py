"""Traces: schedules as values. A trace prints as Python calls, one per line, and reads back."""

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from treadle.base.errors import ScheduleError
from treadle.ir.analysis import blocks, statements
from treadle.ir.tensor import Annotation, For, Scope, TensorFunction
from treadle.schedule.annotate import Annotate, Unannotate
from treadle.schedule.axis_order import ReorderBlockIterVar
from treadle.schedule.block_layout import TransformBlockLayout
from treadle.schedule.blockize import Blockize
from treadle.schedule.cache import CacheRead, CacheWrite, SetScope
from treadle.schedule.cache_at import ReadAt, WriteAt
from treadle.schedule.cache_index import CacheIndex
from treadle.schedule.cache_inplace import CacheInplace
from treadle.schedule.compute_at import ComputeAt, ReverseComputeAt
from treadle.schedule.decompose_padding import DecomposePadding
from treadle.schedule.index_map import IndexMap, index_map, parse_index_map
from treadle.schedule.inline import ComputeInline
from treadle.schedule.instruction import Instruction
from treadle.schedule.intrinsics import TensorIntrin
from treadle.schedule.layout import TransformLayout
from treadle.schedule.loops import Fuse, Parallel, Reorder, Unroll, Vectorize
from treadle.schedule.merge import Merge
from treadle.schedule.pad_einsum import PadEinsum
from treadle.schedule.partition import LoopPartition
from treadle.schedule.prefetch import Prefetch, PrefetchNext
from treadle.schedule.reduction import DecomposeReduction, RFactor
from treadle.schedule.reindex import Reindex, ReindexCacheRead, ReindexCacheWrite
from treadle.schedule.reverse_inline import FuseReductionEpilogue, ReverseComputeInline
from treadle.schedule.rolling_buffer import RollingBuffer
from treadle.schedule.specialize import Specialize
from treadle.schedule.split import Split, Tail
from treadle.schedule.statements import (
    PrefetchStatements,
    UnrollStatements,
    VectorizeStatements,
)
from treadle.schedule.storage import SetDtype, StorageAlign
from treadle.schedule.tensorize import Tensorize
from treadle.schedule.thread_axes import Bind
from treadle.schedule.unit_loop import AddUnitLoop

Trace = tuple[Instruction, ...]
Place = IndexMap | Callable[..., tuple[object, ...]]

INSTRUCTIONS: tuple[type[Instruction], ...] = (
    Split, Fuse, Reorder, Merge, LoopPartition, AddUnitLoop, Vectorize, Unroll, Parallel, Bind,
    Annotate, Unannotate, Prefetch, PrefetchNext, ReorderBlockIterVar, ComputeInline,
    ReverseComputeInline, ComputeAt, ReverseComputeAt, CacheRead, CacheWrite, CacheInplace,
    CacheIndex, ReadAt, WriteAt, Reindex, ReindexCacheRead, ReindexCacheWrite, SetScope, SetDtype,
    StorageAlign, DecomposeReduction, RFactor, TransformLayout, TransformBlockLayout, PadEinsum,
    DecomposePadding, RollingBuffer, FuseReductionEpilogue, Blockize, Tensorize, Specialize,
    VectorizeStatements, UnrollStatements, PrefetchStatements,
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
    return _read(statement, statement.value if isinstance(statement, ast.Expr) else None, text)


def _read(statement: ast.stmt | ast.expr, call: ast.expr | None, text: str) -> Instruction:
    name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else None
    cls = {c.name(): c for c in INSTRUCTIONS}.get(name or "")
    source = ast.get_source_segment(text, statement) or ""
    if cls is None or not isinstance(call, ast.Call):
        known = ", ".join(c.name() for c in INSTRUCTIONS)
        raise _unreadable(statement, source, f"the instructions are {known}")
    try:
        args = [_value(a, text) for a in call.args]
        keywords = {k.arg: _value(k.value, text) for k in call.keywords if k.arg is not None}
        return cls(*args, **keywords)
    except (TypeError, ValueError):
        names = ", ".join(f.name for f in fields(cls))
        raise _unreadable(statement, source, f"{name} takes {names}") from None


def _unreadable(statement: ast.stmt | ast.expr, source: str, hint: str) -> ScheduleError:
    place = f"line {statement.lineno}"
    return ScheduleError(
        "E0300",
        "this is no instruction of a trace",
        place=place,
        excerpt=source.splitlines(),
        help=hint,
    )


def _value(node: ast.expr, text: str) -> object:
    if isinstance(node, ast.Lambda):
        return parse_index_map(node)
    if isinstance(node, ast.Call):
        return _read(node, node, text)
    if isinstance(node, ast.Tuple):
        return tuple(_value(x, text) for x in node.elts)
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

    def split(
        self, loop: str, factors: tuple[int | None, ...], tail: Tail = "guard"
    ) -> tuple[str, ...]:
        """Split a loop; the new loops, outermost first, then those of a rest."""
        return self._made(Split(loop, tuple(factors), tail), _loop_names)

    def fuse(self, *loops: str) -> str:
        """Fuse loops, outermost first; the new loop."""
        return self._made(Fuse(loops), _loop_names)[0]

    def reorder(self, *loops: str, reassociate: bool = False) -> None:
        """Put loops in this order."""
        self.apply(Reorder(loops, reassociate))

    def merge(self, *loops: str) -> None:
        """Make one nest of sibling nests, down to these loops."""
        self.apply(Merge(loops))

    def loop_partition(self, loop: str, positions: tuple[int, ...]) -> tuple[str, ...]:
        """Cut a loop at positions; the new loops, those inside the parts too."""
        return self._made(LoopPartition(loop, tuple(positions)), _loop_names)

    def add_unit_loop(self, target: str) -> str:
        """Put a loop or block into a loop of one iteration; that loop."""
        return self._made(AddUnitLoop(target), _loop_names)[0]

    def reorder_block_iter_var(self, block: str, order: tuple[int, ...]) -> None:
        """Name the axes of a block in another order."""
        self.apply(ReorderBlockIterVar(block, tuple(order)))

    def bind(self, loop: str, axis: str, *, reassociate: bool = False) -> None:
        """Spread a loop over a thread axis."""
        self.apply(Bind(loop, axis, reassociate))

    def annotate(self, target: str, key: str, value: Annotation) -> None:
        """Leave a note at a loop or block."""
        self.apply(Annotate(target, key, value))

    def unannotate(self, target: str, key: str) -> None:
        """Take a note away."""
        self.apply(Unannotate(target, key))

    def prefetch(self, buffer: str, loop: str, distance: int) -> None:
        """Ask for what a loop reads some iterations later."""
        self.apply(Prefetch(buffer, loop, distance))

    def prefetch_next(self, buffer: str, loop: str, at: str, lines: int = 1) -> None:
        """Ask for what the next iteration of a loop reads, evenly over the steps of one inside."""
        self.apply(PrefetchNext(buffer, loop, at, lines))

    def vectorize(self, loop: str, *, reassociate: bool = False) -> None:
        """Run iterations as lanes."""
        self.apply(Vectorize(loop, reassociate))

    def unroll(self, loop: str) -> None:
        """Repeat the body."""
        self.apply(Unroll(loop))

    def vectorize_statements(self, loop: str, *, reassociate: bool = False) -> None:
        """Run iterations of a loop inside of a block as lanes."""
        self.apply(VectorizeStatements(loop, reassociate))

    def unroll_statements(self, loop: str) -> None:
        """Repeat the statements of a loop inside of a block."""
        self.apply(UnrollStatements(loop))

    def prefetch_statements(self, buffer: str, loop: str, around: str) -> None:
        """Ask for what a loop inside of a block reads in the next iteration of one around it."""
        self.apply(PrefetchStatements(buffer, loop, around))

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

    def cache_inplace(self, block: str, loop: str, scope: Scope = "register") -> tuple[str, ...]:
        """Hold the tile that a loop's body updates; the new loops, outermost first: those that
        start it, read it and write it back.
        """
        return self._made(CacheInplace(block, loop, scope), _loop_names)

    def cache_index(self, block: str, buffer: str, dimension: int, scope: Scope = "stack") -> str:
        """Work out an index ahead; the block that does."""
        return self._made(CacheIndex(block, buffer, dimension, scope), _block_names)[0]

    def read_at(self, block: str, buffer: str, loop: str, scope: Scope) -> str:
        """Copy what a block reads in an iteration of a loop; the block that copies."""
        return self._made(ReadAt(block, buffer, loop, scope), _block_names)[0]

    def write_at(self, block: str, loop: str, scope: Scope) -> str:
        """Copy what a block has written in an iteration of a loop; the block that copies."""
        return self._made(WriteAt(block, loop, scope), _block_names)[0]

    def reindex(self, block: str, buffer: str) -> str:
        """Access a buffer at the block's axes, through a copy; the block that copies."""
        return self._made(Reindex(block, buffer), _block_names)[0]

    def reindex_cache_read(self, block: str, buffer: str, scope: Scope, place: Place) -> str:
        """Read through a copy laid out by the block's axes; the block that copies."""
        made = ReindexCacheRead(block, buffer, scope, _as_map(place))
        return self._made(made, _block_names)[0]

    def reindex_cache_write(self, block: str, scope: Scope, place: Place) -> str:
        """Write through a buffer laid out by the block's axes; the block that copies."""
        return self._made(ReindexCacheWrite(block, scope, _as_map(place)), _block_names)[0]

    def set_dtype(self, buffer: str, dtype: str) -> None:
        """Hold a buffer of the function's own as another type."""
        self.apply(SetDtype(buffer, dtype))

    def storage_align(self, buffer: str, axis: int, factor: int, offset: int = 0) -> None:
        """Put the rows of a buffer of the function's own at other distances."""
        self.apply(StorageAlign(buffer, axis, factor, offset))

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
        self, buffer: str, layout: Place, pad_value: float | None = None
    ) -> tuple[str, ...]:
        """Store a buffer in another order; the new dimensions, as text."""
        change = layout if isinstance(layout, IndexMap) else index_map(layout)
        instruction = TransformLayout(buffer, change, pad_value)
        shape = instruction.new_shape(self.function)
        self.apply(instruction)
        return tuple(str(d) for d in shape)

    def transform_block_layout(self, block: str, layout: Place) -> tuple[str, ...]:
        """Count the points of a block by other axes; the new loops, outermost first."""
        change = layout if isinstance(layout, IndexMap) else index_map(layout)
        return self._made(TransformBlockLayout(block, change), _loop_names)

    def pad_einsum(self, block: str, padding: tuple[int, ...]) -> tuple[str, ...]:
        """Round the axes of a contraction up to multiples; the blocks that copy."""
        return self._made(PadEinsum(block, tuple(padding)), _block_names)

    def decompose_padding(self, block: str, loop: str) -> tuple[str, ...]:
        """Fill the border of a padding apart from its inside; the blocks that fill."""
        return self._made(DecomposePadding(block, loop), _block_names)

    def rolling_buffer(self, block: str, buffer: str) -> None:
        """Keep what overlapping windows share in a circular buffer."""
        self.apply(RollingBuffer(block, buffer))

    def fuse_reduction_epilogue(
        self, reduction: str, block: str, *, reassociate: bool = False
    ) -> None:
        """Start a reduction with what its consumer would combine it with."""
        self.apply(FuseReductionEpilogue(reduction, block, reassociate))

    def blockize(self, loop: str) -> str:
        """Make one block of a loop and all in it; that block."""
        return self._made(Blockize(loop), _block_names)[0]

    def tensorize(
        self, target: str, intrin: "str | TensorIntrin", *, reassociate: bool = False
    ) -> None:
        """Let a tensor intrinsic do what a loop, or a block of ``blockize``, does."""
        self.apply(Tensorize(target, intrin, reassociate))

    def specialize(self, condition: str, then: Trace = (), orelse: Trace = ()) -> None:
        """Run the function by one trace where a condition on its symbols holds, else by another."""
        self.apply(Specialize(condition, tuple(then), tuple(orelse)))

    def _made(
        self, instruction: Instruction, of: Callable[[TensorFunction], tuple[str, ...]]
    ) -> tuple[str, ...]:
        before = frozenset(of(self.function))
        self.apply(instruction)
        return tuple(name for name in of(self.function) if name not in before)


def _as_map(place: Place) -> IndexMap:
    return place if isinstance(place, IndexMap) else index_map(place)


def _loop_names(function: TensorFunction) -> tuple[str, ...]:
    return tuple(s.var.name for s in statements(function.body) if isinstance(s, For))


def _block_names(function: TensorFunction) -> tuple[str, ...]:
    return tuple(b.name for b in blocks(function))
