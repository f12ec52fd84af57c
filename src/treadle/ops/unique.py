"""Distinct elements, and distinct slices: equal ones are brought side by side, then the first of
each run is listed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import boolean, f16, f32, i32, i64
from treadle.expr.scalar import Const, Expr, ExprLike, apply, as_expr, select
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder, guarded
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import (
    ONE,
    ZERO,
    Allocate,
    Buffer,
    For,
    If,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.ir.types import TensorType
from treadle.ops._shapes import (
    check_dims,
    check_field,
    check_is,
    check_rank,
    normalize_axis,
    one,
    product,
    tensor_type,
)
from treadle.ops._sizes import POSITIONS, DataSized, coarse
from treadle.ops.binary import Sub
from treadle.ops.create import Arange, Full, known_shape
from treadle.ops.elementwise import Cast
from treadle.ops.index import Gather, ScatterElements
from treadle.ops.nonzero import positions_where
from treadle.ops.reshape import reshaped
from treadle.ops.scan import CumSum
from treadle.ops.shape import Permute
from treadle.ops.sort import MergeSort, Sort


def _distinct(a: Expr, b: Expr, equal_nan: bool) -> Expr:
    """Whether two elements count as different."""
    differ = apply("ne", a, b)
    if a.dtype.is_float and equal_nan:
        return differ & ~(apply("isnan", a) & apply("isnan", b))
    return differ


def _rows_differ(rows: np.ndarray, equal_nan: bool) -> np.ndarray:
    """Whether each row but the first differs from the one before."""
    after, before = rows[1:], rows[:-1]
    differ = after != before
    if equal_nan and rows.dtype.kind not in "iub":
        differ &= ~((after != after) & (before != before))
    return differ.any(tuple(range(1, differ.ndim)))


@dataclass(frozen=True)
class SortRows(Op):
    """The order in which rows ascend, compared from their first element on; equal rows keep theirs.

    A NaN counts as larger than any number.

    Shapes:  x: (n, m) -> (n,) of i64.
    Errors:  E0107.
    """

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """A position for each row."""
        x = one(self, types)
        check_rank(self, x, 2, 2)
        return POSITIONS if x.shape is None else tensor_type(x.dims[:1], i64)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Stable sorts by one column after another, the last one first."""
        (x,) = arrays
        order = np.arange(len(x))
        for k in reversed(range(x.shape[1])):
            order = order[np.argsort(x[order, k], kind="stable")]
        return order.astype(np.int64)

    def lower(self, *types: TensorType) -> TensorFunction:
        """A merge sort of positions from the bottom up."""
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])
        order = f.output(x.shape[:1], i64)
        spare = f.temp(x.shape[:1], i64)
        f.block("merge", (), _RowSort(f, x, (order, spare), 0).row)
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Ties in the first columns, no rows, no columns, symbolic sizes."""
        yield cls(), (example(f32, 5, 3),)
        yield cls(), (example(i32, 11, 3, low=0, high=2),)
        yield cls(), (example(i64, "n", "m", low=0, high=2),)
        yield cls(), (example(f32, 0, 3),)
        yield cls(), (example(f32, 3, 0),)


_VERDICT = Buffer("D0", (1,), i64, "stack")
"""0 for rows that are equal so far, 1 if the first stands before the second, else 2."""


@dataclass(frozen=True, eq=False)
class _RowSort(MergeSort):
    """Compares rows: the first elements that differ decide."""

    def row(self, *row: Expr) -> tuple[Stmt, ...]:
        """As for elements; what two rows compare to is kept in a place of its own."""
        return (Allocate(_VERDICT), *MergeSort.row(self, *row))

    def less(
        self,
        row: Sequence[Expr],
        positions: tuple[Expr, Expr],
        places: tuple[tuple[Expr, ...], tuple[Expr, ...]],
        source: int,
    ) -> tuple[tuple[Stmt, ...], Expr]:
        """Whether the row at the first of two positions stands before that at the second."""
        b, a = positions
        verdict, k = _VERDICT, self.f.variable()
        first, second = self.x[a, k], self.x[b, k]
        found = select(
            self.before(second, first), ONE, select(self.before(first, second), Const(2, i64), ZERO)
        )
        compare = If(apply("eq", verdict[0], ZERO), (Store(verdict, (ZERO,), found),))
        statements = (
            Store(verdict, (ZERO,), ZERO),
            For(k, self.x.shape[1], (compare,)),
        )
        return statements, apply("eq", verdict[0], ONE)


@dataclass(frozen=True)
class RunStarts(Op):
    """Whether each element (or row) differs from the one before; the first does.

    With ``equal_nan``, NaN does not differ from NaN.

    Shapes:  x: (n,) or (n, m) -> (n,) of bool.
    Errors:  E0107.
    """

    equal_nan: bool = True

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """One bool for each."""
        x = one(self, types)
        check_rank(self, x, 1, 2)
        return TensorType(None if x.shape is None else x.dims[:1], 1, boolean)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Neighbours compared."""
        (x,) = arrays
        return np.concatenate([np.ones(min(len(x), 1), bool), _rows_differ(x, self.equal_nan)])

    def lower(self, *types: TensorType) -> TensorFunction:
        """One comparison per element."""
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])
        starts = f.output(x.shape[:1], boolean)

        def differ(i: Expr, *rest: Expr) -> Expr:
            before = x[(i - 1, *rest)]
            other = guarded(i > 0, _distinct(x[(i, *rest)], before, self.equal_nan), True)
            return other

        if x.ndim == 1:
            f.compute(starts, differ)
        else:
            # A row of no elements has nothing that differs, but the first one is the first.
            some = f.reduce(f.temp(x.shape[:1], boolean), x.shape[1:], differ, "or")
            f.compute(starts, lambda i: some[i] | apply("eq", i, ZERO))
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Elements and rows, ties, none, symbolic sizes."""
        yield cls(), (example(i32, 13, low=0, high=2),)
        yield cls(False), (example(f32, 5, 1),)
        yield cls(), (example(i64, "n", 2, low=0, high=2),)
        yield cls(), (example(f32, 0),)
        yield cls(), (example(f32, 3, 0),)


@dataclass(frozen=True)
class RunLengths(Op):
    """How far it is from each start to the next one, and from the last to ``total``.

    Shapes:  starts: (n,) of i64 -> same.
    Errors:  E0103; E0107.
    """

    total: ExprLike

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """One number for each start."""
        starts = one(self, types)
        check_is(self, starts.dtype, i64, "the starts")
        check_rank(self, starts, 1, 1)
        check_dims(self, (self.total,))
        return starts

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.diff."""
        return np.diff(arrays[0], append=np.int64(known_shape((self.total,))[0]))

    def lower(self, *types: TensorType) -> TensorFunction:
        """One difference per start."""
        f = LoopBuilder(self.op_name())
        starts = f.input(types[0])
        count = starts.shape[0]

        def value(i: Expr) -> Expr:
            return guarded(i + 1 < count, starts[i + 1], as_expr(self.total)) - starts[i]

        f.compute(f.output(starts.shape, i64), value)
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Some, one, none, a symbolic number."""
        yield cls(9), (example(i64, 5, low=0, high=9),)
        yield cls(3), (example(i64, 1, low=0, high=3),)
        yield cls(0), (example(i64, 0, low=0, high=1),)
        yield cls(7), (example(i64, "n", low=0, high=7),)


@dataclass(frozen=True)
class Unique(DataSized):
    """Distinct elements, or slices along ``axis``; where each stood first; which one each place
    has; and how often each occurs.

    They ascend, slices compared from their first element on, or with ``sorted=False`` stand in the
    order in which they first occur. With ``consecutive``, only neighbours count as equal, and
    nothing is sorted. With ``equal_nan``, NaNs are equal to each other.

    Shapes:  x: (…, d, …) -> (…, u, …), (u,), (d,) and (u,) of i64, where u depends on the values;
             without an axis, of the flattened operand.
    Errors:  E0104; E0108 if both ``sorted`` and ``consecutive`` are asked for.
    """

    axis: int | None = None
    sorted: bool = True
    equal_nan: bool = True
    consecutive: bool = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Only the ranks are known, and how many places there are."""
        x = one(self, types)
        both = self.sorted and self.consecutive
        check_field(self, not both, "consecutive elements are not sorted", "pass sorted=False")
        axis = None if self.axis is None else normalize_axis(self, self.axis, x.ndim)
        places = POSITIONS
        if x.shape is not None:
            places = tensor_type((product(x.dims) if axis is None else x.dims[axis],), i64)
        return coarse(1 if axis is None else x.ndim, x), POSITIONS, places, POSITIONS

    def reference(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Rows in order, runs of equal ones, then the order of the first ones."""
        (x,) = arrays
        moved = x.reshape(-1) if self.axis is None else np.moveaxis(x, self.axis, 0)
        rows = moved.reshape(len(moved), -1) if moved.size else np.zeros((len(moved), 0), x.dtype)
        order = np.arange(len(rows))
        if not self.consecutive:
            order = SortRows().reference(rows)
        starts = RunStarts(self.equal_nan).reference(rows[order])
        begins = np.flatnonzero(starts)
        first, counts = order[begins], np.diff(begins, append=len(rows))
        inverse = np.empty(len(rows), np.int64)
        inverse[order] = np.cumsum(starts) - 1
        if not self.sorted and not self.consecutive:
            by_place = np.argsort(first, kind="stable")
            first, counts = first[by_place], counts[by_place]
            inverse = np.argsort(by_place, kind="stable")[inverse]
        values = np.take(moved, first, 0)
        if self.axis is not None:
            values = np.moveaxis(values, 0, self.axis)
        integers = (a.astype(np.int64) for a in (first, inverse, counts))
        return values, *integers

    def decompose(self, *args: Traced) -> tuple[Traced, ...]:
        """Sort, mark the first of each run, list the marks."""
        (x,) = args
        emit, literal = x.builder.emit, x.builder.literal
        moved, rows = self._rows(x)
        count = moved.shape[0]
        order = self._order(x, rows)
        starts = RunStarts(self.equal_nan)(rows if order is None else Gather(0)(rows, order))
        begins = positions_where(starts, "distinct")
        numbers = Sub()(CumSum(0)(Cast(i64)(starts)), literal(1, i64))
        counts = RunLengths(count)(begins)
        if order is None:
            return self._moved_back(Gather(0)(moved, begins), x), begins, numbers, counts
        places = emit(Full((count,), 0, i64))
        first, inverse = Gather(0)(order, begins), ScatterElements(0)(places, order, numbers)
        if not self.sorted:
            _, by_place = x.builder.emit_all(Sort(0), first)
            size = first.shape[0]
            numbering = emit(Arange(0, size, 1, i64))
            rank = ScatterElements(0)(emit(Full((size,), 0, i64)), by_place, numbering)
            first, counts = Gather(0)(first, by_place), Gather(0)(counts, by_place)
            inverse = Gather(0)(rank, inverse)
        return self._moved_back(Gather(0)(moved, first), x), first, inverse, counts

    def _rows(self, x: Traced) -> tuple[Traced, Traced]:
        """The operand with the axis in front, and as elements or rows."""
        if self.axis is None:
            flat = reshaped(x, (product(x.shape),))
            return flat, flat
        axis = normalize_axis(self, self.axis, x.ndim)
        moved = Permute(_front(axis, x.ndim))(x) if axis else x
        if moved.ndim == 1:
            return moved, moved
        return moved, reshaped(moved, (moved.shape[0], product(moved.shape[1:])))

    def _order(self, x: Traced, rows: Traced) -> Traced | None:
        """The order in which rows ascend; ``None`` if they stay as they are."""
        if self.consecutive:
            return None
        if rows.ndim == 2:
            return SortRows()(rows)
        _, order = x.builder.emit_all(Sort(0), rows)
        return order

    def _moved_back(self, values: Traced, x: Traced) -> Traced:
        axis = 0 if self.axis is None else normalize_axis(self, self.axis, x.ndim)
        return Permute(_back(axis, x.ndim))(values) if axis else values

    @classmethod
    def samples(cls) -> Samples:
        """Elements and slices, all orders, ties, one, none, dtypes, symbolic sizes."""
        yield cls(), (example(i32, 3, 7, low=0, high=5),)
        yield cls(), (example(f32, 13),)
        yield cls(None, False), (example(i64, 11, low=0, high=4),)
        yield cls(0), (example(i32, 7, 2, low=0, high=2),)
        yield cls(-1, False), (example(i32, 2, 7, low=0, high=2),)
        yield cls(1), (example(boolean, 2, 5, 2),)
        yield cls(None, False, False, True), (example(i32, 13, low=0, high=2),)
        yield cls(0, False, True, True), (example(i32, "n", 2, low=0, high=2),)
        yield cls(), (example(f16, "n"),)
        yield cls(), (example(f32, 0),)
        yield cls(None, False), (example(i32, 1, low=0, high=3),)


def _front(axis: int, ndim: int) -> tuple[int, ...]:
    """The permutation that brings an axis to the front."""
    return (axis, *(k for k in range(ndim) if k != axis))


def _back(axis: int, ndim: int) -> tuple[int, ...]:
    """The permutation that brings the first axis to its place."""
    return (*range(1, axis + 1), 0, *range(axis + 1, ndim))
