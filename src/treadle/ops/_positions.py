"""Positions that are data: where they may lie, and how memory is kept safe from the rest.

A position counts from the end if it is negative, unless its type has no negative numbers. A
position out of range is a mistake: the pass ``check_indices`` lets a program test those that its
caller gives. Whatever becomes of that, a loop program reads the nearest element instead and does
not write at all.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from treadle.expr.dtype import boolean, i64
from treadle.expr.scalar import Const, Expr, ExprLike, cast, int_value, select
from treadle.ir.loop_builder import clamp
from treadle.ir.op import Op
from treadle.ir.tensor import Buffer, Load
from treadle.ir.types import TensorType
from treadle.ops._shapes import replaced, same_dim
from treadle.ops._window import all_of, inside


@dataclass(frozen=True, slots=True)
class Positions:
    """Operand number ``operand`` holds positions along an axis of ``extent`` elements; with
    ``column``, only that one of its last dimension does.
    """

    operand: int
    extent: Expr
    column: int | None = None


class Indexing(Op):
    """An operation some of whose operands hold positions."""

    @abstractmethod
    def positions(self, *types: TensorType) -> tuple[Positions, ...]:
        """Which operands do, for operands of known shape."""


def from_front(index: Expr, extent: ExprLike) -> Expr:
    """A position from the front, from one that may count from the end."""
    wide_index = cast(index, i64)
    return (
        wide_index
        if index.dtype.kind == "uint"
        else select(wide_index < 0, wide_index + extent, wide_index)
    )


@dataclass(frozen=True, slots=True)
class Point:
    """A point of ``data`` of which some coordinates, those at ``axes``, are data."""

    data: Buffer
    indices: tuple[Expr, ...]
    axes: tuple[int, ...]

    def load(self) -> Expr:
        """The element, or the nearest one that there is; zero, unread, where there is none."""
        extents = [self.data.shape[a] for a in self.axes]
        nothing = Const(0, self.data.dtype)
        if any(int_value(n) == 0 for n in extents):
            return nothing
        indices = list(self.indices)
        for axis, extent in zip(self.axes, extents, strict=True):
            indices[axis] = clamp(indices[axis], 0, extent - 1)
        symbolic = [n > 0 for n in extents if int_value(n) is None]
        if not symbolic:
            return self.data[tuple(indices)]
        some = all_of(symbolic)
        return select(some, Load(self.data, tuple(indices), some), nothing)

    @property
    def is_inside(self) -> Expr:
        """Whether the element exists."""
        tests = [(self.indices[a], self.data.shape[a]) for a in self.axes]
        found = [c for i, n in tests for c in inside(i, n)]
        return all_of(found) if found else Const(True, boolean)


def point_of(data: Buffer, axis: int, point: tuple[Expr, ...], indices: Buffer) -> Point:
    """The point of ``data`` at ``point``, but at ``axis`` where its position says."""
    place = from_front(indices[point], data.shape[axis])
    pairs = enumerate(zip(indices.shape, data.shape, strict=True))
    beyond = [k for k, (a, d) in pairs if k != axis and not same_dim(a, d) and not _fits(a, d)]
    return Point(data, replaced(point, axis, place), (axis, *beyond))


def _fits(count: Expr, extent: Expr) -> bool:
    """Whether one number is known to be at most another."""
    a, b = int_value(count), int_value(extent)
    return a is not None and b is not None and a <= b


def point_of_tuple(data: Buffer, indices: Buffer, point: Sequence[Expr], batch_dims: int) -> Point:
    """The point of ``data`` that the tuple at the leading indices of ``point`` names."""
    outer = indices.ndim - 1
    size = int_value(indices.shape[-1]) or 0
    axes = tuple(range(batch_dims, batch_dims + size))
    named = [
        from_front(indices[(*point[:outer], Const(k, i64))], data.shape[axis])
        for k, axis in enumerate(axes)
    ]
    return Point(data, (*point[:batch_dims], *named, *point[outer:]), axes)


def positions_of_tuples(data: TensorType, indices: TensorType, batch: int) -> tuple[Positions, ...]:
    """The columns of tuples of positions; one for all where their axes are equally long."""
    extents = data.dims[batch : batch + (int_value(indices.dims[-1]) or 0)]
    if len(set(extents)) == 1:
        return (Positions(1, extents[0]),)
    return tuple(Positions(1, n, k) for k, n in enumerate(extents))
