"""Loop-level functions: buffers, loops, blocks and stores.

A ``Block`` is the unit of scheduling. What it reads and writes follows from its body
(``treadle.ir.analysis``); it is not stored a second time.
"""

from typing import Any, Literal, get_args

from treadle.base.node import node
from treadle.base.span import Span
from treadle.expr.dtype import DType, i64
from treadle.expr.scalar import Const, Expr, ExprLike, Interned, Var, as_expr

Scope = Literal["global", "stack", "register"]
ThreadAxis = Literal[
    "blockIdx.x", "blockIdx.y", "blockIdx.z",
    "threadIdx.x", "threadIdx.y", "threadIdx.z",
    "vthread.x", "vthread.y", "vthread.z",
]  # fmt: skip
LoopKind = Literal["serial", "parallel", "vectorized", "unrolled"] | ThreadAxis
THREAD_AXES: tuple[ThreadAxis, ...] = get_args(ThreadAxis)
IterKind = Literal["spatial", "reduce"]


Annotation = str | int | float | bool
Annotations = tuple[tuple[str, Annotation], ...]
"""Names and values that a schedule leaves at loops and blocks; names are sorted."""


class Buffer(Interned):
    """Memory of ``shape`` elements in row-major order, known by its name within a function.

    ``scope`` says where it lives: ``global`` (a parameter or the arena), ``stack`` (the frame of
    the kernel), or ``register`` (each element becomes a machine register once all indices are
    constants). Interned: two functions that declare the same buffer share the object, which holds
    no state.
    """

    __slots__ = ("dtype", "name", "scope", "shape")
    name: str
    shape: tuple[Expr, ...]
    dtype: DType
    scope: Scope

    def __new__(
        cls, name: str, shape: tuple[ExprLike, ...], dtype: DType, scope: Scope = "global"
    ) -> "Buffer":
        dims = tuple(as_expr(d) for d in shape)

        def make() -> "Buffer":
            self = object.__new__(cls)
            self.name, self.shape, self.dtype, self.scope = name, dims, dtype, scope
            return self

        return cls._intern((name, dims, dtype, scope), make)

    def __reduce__(self) -> tuple[Any, ...]:
        return Buffer, (self.name, self.shape, self.dtype, self.scope)

    def __repr__(self) -> str:
        return f"Buffer({self.name}, {self.shape}, {self.dtype}, {self.scope})"

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def __getitem__(self, indices: ExprLike | tuple[ExprLike, ...]) -> "Load":
        items = indices if isinstance(indices, tuple) else (indices,)
        return Load(self, tuple(as_expr(i) for i in items))


class Load(Expr):
    """An element of a buffer; a vector of them when an index is one.

    Where ``mask`` is false nothing is read and the value is zero.
    """

    __slots__ = ("buffer", "indices", "mask")
    buffer: Buffer
    indices: tuple[Expr, ...]
    mask: Expr | None

    def __new__(cls, buffer: Buffer, indices: tuple[Expr, ...], mask: Expr | None = None) -> "Load":
        lanes = max((i.dtype.lanes for i in indices), default=1)
        # A buffer of vectors hands out whole vectors; lanes of indices select elements of a buffer
        # of scalars.
        dtype = buffer.dtype if lanes == 1 else buffer.dtype.vector(lanes)

        def make() -> "Load":
            self = object.__new__(cls)
            self.buffer, self.indices, self.mask, self.dtype = buffer, indices, mask, dtype
            return self

        return cls._intern((buffer, indices, mask), make)

    @property
    def children(self) -> tuple[Expr, ...]:
        """The indices, and the mask if there is one."""
        return self.indices if self.mask is None else (*self.indices, self.mask)

    def with_children(self, children: tuple[Expr, ...]) -> Expr:
        """The element at other indices."""
        rank = len(self.indices)
        return Load(self.buffer, children[:rank], children[rank] if self.mask is not None else None)

    def to_text(self) -> str:
        """The element in Python's notation."""
        inner = ", ".join(map(str, self.indices)) or "()"
        if self.mask is None:
            return f"{self.buffer.name}[{inner}]"
        return f"load({self.buffer.name}[{inner}], mask={self.mask})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Load, (self.buffer, self.indices, self.mask)


@node
class For:
    """Run ``body`` for ``var`` from 0 to ``extent`` - 1.

    A loop whose kind is a thread axis is spread over the threads of a GPU's kernel. What
    ``annotations`` say is for passes that know the name; others pass it on.
    """

    var: Var
    extent: Expr
    body: "tuple[Stmt, ...]"
    kind: LoopKind = "serial"
    span: Span | None = None
    annotations: Annotations = ()


@node
class IterVar:
    """An iteration variable of a block: its domain [0, extent), its kind, and the expression of
    loops bound to it.
    """

    var: Var
    extent: Expr
    kind: IterKind
    binding: Expr


@node
class Block:
    """A computation over iteration variables, scheduled as a whole.

    ``init`` runs before ``body`` at the first step of the reduction (all reduce variables zero).
    Where ``where`` (over the surrounding loops) is false the block does nothing.
    """

    name: str
    iters: tuple[IterVar, ...]
    body: "tuple[Stmt, ...]"
    init: "tuple[Stmt, ...]" = ()
    where: Expr | None = None
    span: Span | None = None
    annotations: Annotations = ()


@node
class Store:
    """Write ``value`` to an element (or a vector of elements) of a buffer, where ``mask`` holds."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr
    mask: Expr | None = None
    span: Span | None = None


@node
class If:
    """Run ``body`` when ``condition`` holds, else ``orelse``."""

    condition: Expr
    body: "tuple[Stmt, ...]"
    orelse: "tuple[Stmt, ...]" = ()
    span: Span | None = None


@node
class Allocate:
    """Declare ``buffer`` for the statements that follow in the same body; its contents are
    undefined.
    """

    buffer: Buffer
    span: Span | None = None


@node
class Let:
    """Name a value for the statements that follow in the same body."""

    var: Var
    value: Expr
    span: Span | None = None


PREFETCHES = frozenset({"prefetch", "prefetch_far"})
"""Intrinsics that ask for memory that will be read."""


@node
class Intrinsic:
    """An effect of the machine; a ``Load`` among the operands stands for its address.

    ``prefetch(X[i])`` and ``prefetch(X[i], n)``, the address ``n`` elements behind, ask for memory
    that will be read; the second may lie outside of the buffer. ``prefetch_far`` does not bring it
    nearer than the second cache, which can wait for more at a time than the first.
    """

    name: str
    args: tuple[Expr, ...]
    span: Span | None = None


Stmt = For | Block | Store | If | Allocate | Let | Intrinsic


@node
class TensorFunction:
    """A loop program over parameters in destination-passing style: the last ``outputs`` buffers are
    written.

    ``params`` are buffers, then scalar variables. Symbols in the shapes of buffers are bound by the
    caller (they are passed beside the buffers). ``assumes`` are facts about symbols that callers
    keep. ``updates`` are pairs of numbers of an output and of an input of the same type: that
    output starts with the contents of that input, which the body then does not touch, so that both
    may be the same memory. Other outputs start undefined.
    """

    name: str
    params: tuple[Buffer | Var, ...]
    outputs: int
    body: tuple[Stmt, ...]
    assumes: tuple[Expr, ...] = ()
    span: Span | None = None
    updates: tuple[tuple[int, int], ...] = ()

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The buffer parameters, inputs before outputs."""
        return tuple(p for p in self.params if isinstance(p, Buffer))

    @property
    def input_buffers(self) -> tuple[Buffer, ...]:
        """The buffers that are only read."""
        buffers = self.buffers
        return buffers[: len(buffers) - self.outputs]

    @property
    def output_buffers(self) -> tuple[Buffer, ...]:
        """The buffers that are written."""
        buffers = self.buffers
        return buffers[len(buffers) - self.outputs :]

    def updated_from(self, output: Buffer) -> Buffer | None:
        """The input whose contents an output starts with, if there is one."""
        found = dict(self.updates).get(self.output_buffers.index(output))
        return None if found is None else self.input_buffers[found]

    def __str__(self) -> str:
        from treadle.ir.printer import function_text  # noqa: PLC0415  (the printer knows every node)

        return function_text(self)


def loop(name: str, extent: ExprLike, *body: Stmt, kind: LoopKind = "serial") -> For:
    """A loop over ``name`` from 0 to ``extent`` - 1."""
    return For(Var(name), as_expr(extent), body, kind)


def spatial(name: str, extent: ExprLike, binding: Expr) -> IterVar:
    """A parallel axis of a block."""
    return IterVar(Var(name), as_expr(extent), "spatial", binding)


def reduction(name: str, extent: ExprLike, binding: Expr) -> IterVar:
    """An axis of a block that is summed (or otherwise combined) over."""
    return IterVar(Var(name), as_expr(extent), "reduce", binding)


ZERO = Const(0, i64)
ONE = Const(1, i64)
