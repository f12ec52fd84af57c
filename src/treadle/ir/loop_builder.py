"""Write loop programs in few words: each ``compute`` or ``reduce`` is one block in loops of its
own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from treadle.expr.dtype import DType, parse_dtype
from treadle.expr.scalar import (
    Const,
    Expr,
    ExprLike,
    Var,
    apply,
    as_expr,
    int_value,
    maximum,
    minimum,
    select,
    transform,
)
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    If,
    IterVar,
    Load,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.ir.types import TensorType

Combine = Literal["add", "mul", "max", "min", "and", "or"]


def identity(combine: Combine, dtype: DType) -> Const:
    """The neutral element of a combination."""
    if combine == "add" or combine == "or":
        return Const(0, dtype)
    if combine == "mul":
        return Const(1, dtype)
    if combine == "and":
        return Const(True if dtype.is_bool else -1, dtype)
    if dtype.is_float:
        return Const(float("-inf") if combine == "max" else float("inf"), dtype)
    if dtype.is_bool:
        return Const(combine == "min", dtype)
    low = 0 if dtype.kind == "uint" else -(1 << (dtype.bits - 1))
    high = (1 << (dtype.bits if dtype.kind == "uint" else dtype.bits - 1)) - 1
    return Const(low if combine == "max" else high, dtype)


def combined(combine: Combine, a: Expr, b: Expr) -> Expr:
    """Two values combined."""
    if combine == "max":
        return maximum(a, b)
    if combine == "min":
        return minimum(a, b)
    return apply(combine, a, b)


@dataclass(eq=False)
class LoopBuilder:
    """Collects the parameters and blocks of one tensor function.

    The inputs are named ``X0``, ``X1``… unless named; loops and axes are numbered within the
    function, so names never clash.
    """

    name: str
    inputs: list[Buffer] = field(default_factory=list[Buffer])
    outputs: list[Buffer] = field(default_factory=list[Buffer])
    body: list[Stmt] = field(default_factory=list[Stmt])
    assumes: list[Expr] = field(default_factory=list[Expr])
    updates: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    _count: int = 0
    _temps: int = 0
    _blocks: set[str] = field(default_factory=set[str])

    def input(self, type: TensorType, name: str | None = None) -> Buffer:  # noqa: A002
        """A parameter that is read, of a tensor's shape and dtype."""
        buffer = Buffer(name or f"X{len(self.inputs)}", type.dims, type.dtype)
        self.inputs.append(buffer)
        return buffer

    def output(self, shape: tuple[ExprLike, ...], dtype: DType, name: str | None = None) -> Buffer:
        """A parameter that is written."""
        buffer = Buffer(name or f"Y{len(self.outputs)}", shape, dtype)
        self.outputs.append(buffer)
        return buffer

    def updated(self, start: Buffer, name: str | None = None) -> Buffer:
        """A parameter that is written and starts with the contents of an input, which is not read
        otherwise.
        """
        buffer = self.output(start.shape, start.dtype, name)
        self.updates.append((len(self.outputs) - 1, self.inputs.index(start)))
        return buffer

    def temp(self, shape: tuple[ExprLike, ...], dtype: DType, name: str | None = None) -> Buffer:
        """Memory of the function's own."""
        buffer = Buffer(name or f"T{self._temps}", shape, dtype)
        self._temps += 1
        self.body.append(Allocate(buffer))
        return buffer

    def compute(
        self, buffer: Buffer, value: Callable[..., ExprLike], name: str | None = None
    ) -> Buffer:
        """Write every element of ``buffer``: ``value`` of its indices."""
        loops, iters = self._axes(buffer.shape, "spatial")
        indices = tuple(i.var for i in iters)
        store = Store(buffer, indices, _typed(value(*indices), buffer.dtype))
        self._add(loops, Block(self._block_name(name or buffer.name), iters, (store,)))
        return buffer

    def reduce(
        self,
        buffer: Buffer,
        extents: tuple[ExprLike, ...],
        value: Callable[..., ExprLike],
        combine: Combine = "add",
        name: str | None = None,
        init: ExprLike | None = None,
    ) -> Buffer:
        """Write every element of ``buffer``: ``value`` of its indices and of ``extents``' indices,
        combined over the latter.
        """
        if any(int_value(e) == 0 for e in extents):
            # A loop of no steps has no first one, at which ``init`` would run.
            start = identity(combine, buffer.dtype) if init is None else init
            return self.compute(buffer, lambda *_: start, name)
        outer, spatial_iters = self._axes(buffer.shape, "spatial")
        inner, reduce_iters = self._axes(tuple(as_expr(e) for e in extents), "reduce")
        indices = tuple(i.var for i in spatial_iters)
        term = _typed(value(*indices, *(i.var for i in reduce_iters)), buffer.dtype)
        start = identity(combine, buffer.dtype) if init is None else _typed(init, buffer.dtype)
        block = Block(
            self._block_name(name or buffer.name),
            (*spatial_iters, *reduce_iters),
            (Store(buffer, indices, combined(combine, buffer[indices], term)),),
            (Store(buffer, indices, start),),
        )
        self._add((*outer, *inner), block)
        return buffer

    def reduce_at(
        self,
        buffer: Buffer,
        extents: tuple[ExprLike, ...],
        reduced: tuple[ExprLike, ...],
        at: Callable[..., tuple[ExprLike, ...]],
        value: Callable[..., ExprLike],
        name: str | None = None,
    ) -> Buffer:
        """Sum ``value`` over ``reduced`` into the element that ``at`` says, for every point of
        ``extents``.

        ``at`` takes the indices of ``extents`` and must name another element for each; ``value``
        takes those of ``reduced`` as well.
        """
        outer, spatial_iters = self._axes(tuple(as_expr(e) for e in extents), "spatial")
        inner, reduce_iters = self._axes(tuple(as_expr(e) for e in reduced), "reduce")
        point = tuple(i.var for i in spatial_iters)
        target = tuple(as_expr(i) for i in at(*point))
        term = _typed(value(*point, *(i.var for i in reduce_iters)), buffer.dtype)
        block = Block(
            self._block_name(name or buffer.name),
            (*spatial_iters, *reduce_iters),
            (Store(buffer, target, Load(buffer, target) + term),),
            (Store(buffer, target, Const(0, buffer.dtype)),),
        )
        self._add((*outer, *inner), block)
        return buffer

    def scatter(
        self,
        buffer: Buffer,
        extents: tuple[ExprLike, ...],
        store: Callable[..., tuple[tuple[ExprLike, ...], ExprLike]],
        name: str | None = None,
        where: Callable[..., Expr] | None = None,
    ) -> Buffer:
        """For every point of ``extents``, in order, store to the element that ``store`` says the
        value that it says.

        Elements may be stored to more than once, so the loops are reductions to a schedule: it
        keeps their order.
        """
        loops, iters = self._axes(tuple(as_expr(e) for e in extents), "reduce")
        point = tuple(i.var for i in iters)
        indices, value = store(*point)
        write: Stmt = Store(buffer, tuple(as_expr(i) for i in indices), _typed(value, buffer.dtype))
        if where is not None:
            write = If(where(*point), (write,))
        self._add(loops, Block(self._block_name(name or buffer.name), iters, (write,)))
        return buffer

    def place(
        self,
        buffer: Buffer,
        extents: tuple[ExprLike, ...],
        store: Callable[..., tuple[tuple[ExprLike, ...], ExprLike]],
        name: str | None = None,
        ordered: tuple[int, ...] = (),
    ) -> Buffer:
        """For every point of ``extents`` store to the element that ``store`` says the value that it
        says.

        The elements of different points must differ, so the loops are spatial. The axes of
        ``extents`` in ``ordered`` are run in order instead: a value may read what an earlier point
        along them stored.
        """
        loops: list[tuple[Var, Expr]] = []
        iters: list[IterVar] = []
        for axis, extent in enumerate(extents):
            one_loop, one_iter = self._axes(
                (as_expr(extent),), "reduce" if axis in ordered else "spatial"
            )
            loops.extend(one_loop)
            iters.extend(one_iter)
        indices, value = store(*(i.var for i in iters))
        write = Store(buffer, tuple(as_expr(i) for i in indices), _typed(value, buffer.dtype))
        self._add(
            tuple(loops), Block(self._block_name(name or buffer.name), tuple(iters), (write,))
        )
        return buffer

    def block(
        self, name: str, extents: tuple[ExprLike, ...], body: Callable[..., tuple[Stmt, ...]]
    ) -> None:
        """For every point of ``extents``, independently, run the statements that ``body`` says;
        loops among them stay inside.
        """
        loops, iters = self._axes(tuple(as_expr(e) for e in extents), "spatial")
        self._add(loops, Block(self._block_name(name), iters, body(*(i.var for i in iters))))

    def variable(self) -> Var:
        """A loop variable not used yet, for statements inside a block."""
        return Var(f"i{self._number()}")

    def _number(self) -> int:
        """The next number for names of loops; one that makes the name of a dtype (i8) is passed
        over.
        """
        while parse_dtype(f"i{self._count}") is not None:
            self._count += 1
        self._count += 1
        return self._count - 1

    def build(self) -> TensorFunction:
        """The function."""
        params = (*self.inputs, *self.outputs)
        return TensorFunction(
            self.name,
            params,
            len(self.outputs),
            tuple(self.body),
            tuple(self.assumes),
            updates=tuple(self.updates),
        )

    def _axes(
        self, extents: tuple[Expr, ...], kind: Literal["spatial", "reduce"]
    ) -> tuple[tuple[tuple[Var, Expr], ...], tuple[IterVar, ...]]:
        loops: list[tuple[Var, Expr]] = []
        iters: list[IterVar] = []
        for extent in extents:
            count = self._number()
            loop_var, axis = Var(f"i{count}"), Var(f"v{count}")
            loops.append((loop_var, extent))
            iters.append(IterVar(axis, extent, kind, loop_var))
        return tuple(loops), tuple(iters)

    def _block_name(self, hint: str) -> str:
        name, count = hint, 0
        while name in self._blocks:
            count += 1
            name = f"{hint}_{count}"
        self._blocks.add(name)
        return name

    def _add(self, loops: tuple[tuple[Var, Expr], ...], block: Block) -> None:
        nest: Stmt = block
        for var, extent in reversed(loops):
            nest = For(var, extent, (nest,))
        self.body.append(nest)


def _typed(value: ExprLike, dtype: DType) -> Expr:
    return value if isinstance(value, Expr) else Const(value, dtype)


def clamp(x: Expr, low: ExprLike, high: ExprLike) -> Expr:
    """``x`` limited to [low, high]."""
    return minimum(maximum(x, low), high)


def guarded(condition: Expr, value: Expr, other: ExprLike) -> Expr:
    """``value`` where ``condition`` holds, else ``other``; the loads in ``value`` are only made
    where it holds.
    """

    def mask(x: Expr) -> Expr | None:
        if not isinstance(x, Load):
            return None
        return Load(x.buffer, x.indices, condition if x.mask is None else x.mask & condition)

    return select(condition, transform(value, mask), other)
