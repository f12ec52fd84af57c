"""Sorting along an axis, and the largest or smallest elements."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treadle.expr.dtype import boolean, f16, f32, f64, i32, i64
from treadle.expr.scalar import Const, Expr, ExprLike, Var, apply, cast, int_value, minimum, select
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import ONE, ZERO, Allocate, Buffer, For, If, Let, Stmt, Store, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import check_field, normalize_axis, one, replaced, tensor_type
from treadle.ops.create import Full
from treadle.ops.index import ScatterElements
from treadle.ops.shape import Slice

Values = tuple[Traced, ...]
Gradients = tuple[Traced | None, ...]


@dataclass(frozen=True)
class Sort(Op):
    """Elements along ``axis`` in ascending (or ``descending``) order, beside where they stood.

    A NaN counts as larger than any number. Equal elements keep their order whether or not
    ``stable`` asks for it.

    Shapes:  x: any -> same, and i64 of the same shape.
    Errors:  E0104.
    """

    axis: int
    descending: bool = False
    stable: bool = True

    def infer(self, *types: TensorType) -> tuple[TensorType, TensorType]:
        """The operand's type, and positions."""
        x = one(self, types)
        normalize_axis(self, self.axis, x.ndim)
        return x, TensorType(x.shape, x.ndim, i64)

    def reference(self, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """np.argsort; for descending order of the reversed array, read backwards."""
        (x,) = arrays
        if self.descending:
            backwards = np.argsort(np.flip(x, self.axis), axis=self.axis, kind="stable")
            order = x.shape[self.axis] - 1 - np.flip(backwards, self.axis)
        else:
            order = np.argsort(x, axis=self.axis, kind="stable")
        return np.take_along_axis(x, order, self.axis), order.astype(np.int64)

    def lower(self, *types: TensorType) -> TensorFunction:
        """Per row, a merge sort of positions from the bottom up: O(n log n), rows independent of
        each other."""
        axis = normalize_axis(self, self.axis, types[0].ndim)
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])
        values, order = f.output(x.shape, x.dtype), f.output(x.shape, i64)
        rows = (*x.shape[:axis], *x.shape[axis + 1 :])
        spare = f.temp(x.shape, i64), f.temp(x.shape, x.dtype)
        merge = MergeSort(f, x, (order, spare[0]), axis, self.descending, values=(values, spare[1]))
        f.block("merge", rows, merge.row)
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Back to where the elements stood."""
        return (_returned(args[0], outs[1], douts[0], self.axis),)

    @classmethod
    def samples(cls) -> Samples:
        """Both orders, axes of both signs, ties, sizes from zero to a prime, dtypes, a symbolic
        size."""
        yield cls(0), (example(f32, 13),)
        yield cls(-1, True), (example(f32, 2, 7),)
        yield cls(0), (example(f32, "n", 3),)
        yield cls(1, True), (example(i32, 2, 11, low=0, high=4),)
        yield cls(1), (example(i64, 2, 8, 2, low=0, high=3),)
        yield cls(0), (example(f16, 1),)
        yield cls(0), (example(f32, 0, 3),)
        yield cls(0), (example(boolean, 5),)
        yield cls(-2, False, False), (example(f64, 5, 2),)


def _returned(x: Traced, indices: Traced, dy: Traced, axis: int) -> Traced:
    zeros = x.builder.emit(Full(x.shape, 0, x.dtype))
    return ScatterElements(axis, "add")(zeros, indices, dy)


@dataclass(frozen=True, eq=False)
class MergeSort:
    """Writes the statements that sort one row's positions into the first of two ``orders``; the
    elements go along in two buffers of ``values``, if these are given.
    """

    f: LoopBuilder
    x: Buffer
    orders: tuple[Buffer, Buffer]
    axis: int
    descending: bool = False
    values: tuple[Buffer, Buffer] | None = None

    def row(self, *row: Expr) -> tuple[Stmt, ...]:
        """Positions in order at first; then runs of 1, 2, 4… are merged in pairs, from one place to
        the other and back.
        """
        extent = self.x.shape[self.axis]
        size = int_value(extent)
        i, level = self.f.variable(), self.f.variable()
        width = apply("shl", ONE, level * 2)
        merged = (self._pass(row, 0, width), self._pass(row, 1, width * 2))
        # The number of levels of a symbolic size is not known; levels beyond it do nothing.
        levels = 31 if size is None else (max(0, size - 1).bit_length() + 1) // 2
        body = merged if size is not None else (If(width < extent, merged),)
        start = [Store(self.orders[0], self._at(row, i), i)]
        if self.values is not None:
            start.append(Store(self.values[0], self._at(row, i), self.x[self._at(row, i)]))
        cursor = Buffer("C0", (2,), i64, "stack")
        return (
            Allocate(cursor),
            For(i, extent, tuple(start)),
            For(level, Const(levels, i64), body),
        )

    def _at(self, row: Sequence[Expr], k: Expr) -> tuple[Expr, ...]:
        return (*row[: self.axis], k, *row[self.axis :])

    def _pass(self, row: Sequence[Expr], source: int, width: Expr) -> Stmt:
        """Merge neighbouring runs of ``width`` positions from one place into the other."""
        extent = self.x.shape[self.axis]
        pair, step = self.f.variable(), self.f.variable()
        low = pair * (width * 2)
        middle, high = minimum(low + width, extent), minimum(low + width * 2, extent)
        cursor = Buffer("C0", (2,), i64, "stack")
        merge = (
            Store(cursor, (ZERO,), low),
            Store(cursor, (ONE,), middle),
            For(step, high - low, self._step(row, source, low + step, middle, high)),
        )
        return For(pair, (extent + width * 2 - 1) // (width * 2), merge)

    def _step(
        self, row: Sequence[Expr], source: int, target: Expr, middle: Expr, high: Expr
    ) -> tuple[Stmt, ...]:
        """Move the lesser head of two runs; the left one of equal ones."""
        last = self.x.shape[self.axis] - 1
        left, right, a, b = (self.f.variable() for _ in range(4))
        take_right = Var(self.f.variable().name, boolean)
        cursor, order = Buffer("C0", (2,), i64, "stack"), self.orders[source]
        heads = [self._at(row, minimum(k, last)) for k in (left, right)]
        comparison, less = self.less(row, (b, a), (heads[1], heads[0]), source)
        moved = [
            Store(self.orders[1 - source], self._at(row, target), select(take_right, b, a)),
        ]
        if self.values is not None:
            first, second = (self.values[source][h] for h in heads)
            taken = select(take_right, second, first)
            moved.append(Store(self.values[1 - source], self._at(row, target), taken))
        return (
            Let(left, cursor[0]),
            Let(right, cursor[1]),
            Let(a, order[heads[0]]),
            Let(b, order[heads[1]]),
            *comparison,
            Let(take_right, (right < high) & ((left >= middle) | less)),
            *moved,
            Store(cursor, (ZERO,), left + cast(~take_right, i64)),
            Store(cursor, (ONE,), right + cast(take_right, i64)),
        )

    def less(
        self,
        row: Sequence[Expr],
        positions: tuple[Expr, Expr],
        places: tuple[tuple[Expr, ...], tuple[Expr, ...]],
        source: int,
    ) -> tuple[tuple[Stmt, ...], Expr]:
        """Whether the first of two comes before the second, and what to run to know it: of the
        elements at two positions of ``x``, which stand at two places of ``source`` by now.
        """
        if self.values is None:
            b, a = (self.x[self._at(row, p)] for p in positions)
        else:
            b, a = (self.values[source][p] for p in places)
        return (), self.before(a, b) if self.descending else self.before(b, a)

    @staticmethod
    def before(a: Expr, b: Expr) -> Expr:
        """Whether ``a`` stands strictly before ``b`` in ascending order, NaN last."""
        if a.dtype.is_float:
            return (a < b) | (apply("isnan", b) & ~apply("isnan", a))
        return a < b


@dataclass(frozen=True)
class TopK(Op):
    """The ``k`` largest (or smallest) elements along ``axis``, best first whether or not ``sorted``
    asks for it, and where they stood.

    A NaN counts as larger than any number; of equal elements the first ones are taken.

    Shapes:  x: (…, d, …) -> (…, k, …), and i64 of the same shape.
    Errors:  E0104; E0108 unless 0 <= k <= d, as far as they are known.
    """

    k: ExprLike
    axis: int = -1
    largest: bool = True
    sorted: bool = True

    def infer(self, *types: TensorType) -> tuple[TensorType, TensorType]:
        """k elements along the axis, and positions."""
        x = one(self, types)
        axis = normalize_axis(self, self.axis, x.ndim)
        if x.shape is None:
            return x, TensorType(None, x.ndim, i64)
        k, extent = int_value(self.k), int_value(x.dims[axis])
        fits = k is None or (k >= 0 and (extent is None or k <= extent))
        check_field(self, fits, f"k = {self.k} of {x.dims[axis]} elements")
        dims = replaced(x.dims, axis, self.k)
        return tensor_type(dims, x.dtype), tensor_type(dims, i64)

    def reference(self, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The head of a full sort."""
        values, order = Sort(self.axis, self.largest).reference(*arrays)
        head = np.arange(int_value(self.k) or 0)
        return np.take(values, head, self.axis), np.take(order, head, self.axis)

    def decompose(self, *args: Traced) -> tuple[Traced, ...]:
        """The head of a full sort."""
        x = args[0]
        both = x.builder.emit_all(Sort(self.axis, self.largest), x, names=("values", "order"))
        return tuple(Slice(self.axis, 0, self.k)(y) for y in both)

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Back to where the elements stood."""
        return (_returned(args[0], outs[1], douts[0], self.axis),)

    @classmethod
    def samples(cls) -> Samples:
        """Both ends, all and none, ties, symbolic sizes."""
        yield cls(3), (example(f32, 2, 7),)
        yield cls(2, 0, False), (example(f64, 5, 3),)
        yield cls(4), (example(i32, 9, low=0, high=3),)
        yield cls(Var("n"), 0), (example(f32, "n", 2),)
        yield cls(1, -1, True, False), (example(f16, 1),)
        yield cls(0), (example(f32, 3),)
