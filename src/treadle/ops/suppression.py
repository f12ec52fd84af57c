"""Non-maximum suppression: boxes that a better one overlaps are left out."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import DType, boolean, f32, f64, i64
from treadle.expr.scalar import Const, Expr, apply, maximum, minimum
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Example, Op, Samples, example
from treadle.ir.tensor import ONE, ZERO, Allocate, Buffer, For, If, Let, Stmt, Store, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import (
    check_dtype,
    check_is,
    check_rank,
    check_same_dim,
    check_same_dtype,
    operands,
    product,
)
from treadle.ops._sizes import DataSized
from treadle.ops.compare import Greater
from treadle.ops.create import Full
from treadle.ops.index import Gather
from treadle.ops.nonzero import positions_where, unraveled
from treadle.ops.reshape import reshaped
from treadle.ops.shape import Concat, Slice
from treadle.ops.sort import Sort


def _corners(box: np.ndarray, center: bool) -> np.ndarray:
    """Lowest and highest corners of boxes, and their areas, in five columns."""
    a, b, c, d = np.moveaxis(box, -1, 0)
    if center:
        half = box.dtype.type(0.5)
        low, high = (a - c * half, b - d * half), (a + c * half, b + d * half)
    else:
        low, high = (np.minimum(a, c), np.minimum(b, d)), (np.maximum(a, c), np.maximum(b, d))
    area = (high[0] - low[0]) * (high[1] - low[1])
    return np.stack([*low, *high, area], -1)


@dataclass(frozen=True)
class Suppress(Op):
    """Whether each box, best first, is kept: it is open, fewer than ``most`` were kept before, and
    it overlaps none of these by more than ``threshold``, as intersection over union.

    A box is two opposite corners, or with ``center`` its center and its sizes. ``order`` lists the
    boxes of each batch and class.

    Shapes:  boxes: (b, n, 4), order: (b, c, n) of i64, open: (b, c, n) of bool, most: () of i64,
             threshold: () -> (b, c, n) of bool.
    Errors:  E0102; E0103; E0106; E0107.
    """

    center: bool = False

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """One bool for each that is listed."""
        boxes, order, open_, most, threshold = operands(self, types, 5)
        _check_boxes(self, boxes)
        check_same_dtype(self, (boxes, threshold))
        check_is(self, order.dtype, i64, "the order")
        check_is(self, open_.dtype, boolean, "what is open")
        check_is(self, most.dtype, i64, "the number")
        for t, rank in ((order, 3), (open_, 3), (most, 0), (threshold, 0)):
            check_rank(self, t, rank, rank)
        return TensorType(order.shape, 3, boolean)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """One box after another."""
        boxes, order, open_, most, threshold = arrays
        corners = _corners(boxes, self.center)
        found = np.zeros(order.shape, np.bool_)
        for b, c in np.ndindex(order.shape[:2]):
            kept: list[np.ndarray] = []
            for i, k in enumerate(order[b, c]):
                box = corners[b, k]
                if open_[b, c, i] and len(kept) < most:
                    found[b, c, i] = not any(_overlap(box, other) > threshold for other in kept)
                    kept.extend([box] if found[b, c, i] else [])
        return found

    def lower(self, *types: TensorType) -> TensorFunction:
        """Corners and areas first; then per batch and class one box after another, against the
        list of those that are kept.
        """
        f = LoopBuilder(self.op_name())
        boxes, order, open_, most, threshold = (f.input(t) for t in types)
        found = f.output(order.shape, boolean)
        corners = f.temp((*boxes.shape[:2], 5), boxes.dtype)
        for k in range(5):
            f.place(
                corners,
                boxes.shape[:2],
                lambda b, n, k=k: ((b, n, k), self._column(boxes, b, n, k)),
            )
        walk = _Walk(f, corners, order, f.temp(order.shape, i64))
        f.block(
            "suppress",
            order.shape[:2],
            lambda b, c: walk.body(b, c, open_, most[()], threshold[()], found),
        )
        return f.build()

    def _column(self, boxes: Buffer, b: Expr, n: Expr, k: int) -> Expr:
        """A coordinate of the lower or the higher corner, or the area."""
        if k == 4:
            sides = [
                self._column(boxes, b, n, 2 + d) - self._column(boxes, b, n, d) for d in range(2)
            ]
            return sides[0] * sides[1]
        first, second = boxes[b, n, k % 2], boxes[b, n, k % 2 + 2]
        if self.center:
            half = second * Const(0.5, boxes.dtype)
            return first - half if k < 2 else first + half
        return minimum(first, second) if k < 2 else maximum(first, second)

    @classmethod
    def samples(cls) -> Samples:
        """Corners and centers, several batches and classes, one box, none, symbolic sizes."""

        def case(
            b: int, c: int, n: int | str, bound: int, dtype: DType = f32
        ) -> tuple[Example, ...]:
            return (
                example(dtype, b, n, 4, low=0, high=4),
                example(i64, b, c, n, low=0, high=bound),
                example(boolean, b, c, n),
                example(i64, low=1, high=5),
                example(dtype, low=0.1, high=0.6),
            )

        yield cls(), case(2, 3, 7, 7)
        yield cls(True), case(1, 1, 11, 11)
        yield cls(), case(1, 1, 1, 1, f64)
        yield cls(), case(1, 2, 0, 1)
        yield cls(), case(1, 1, "n", 2)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes in five columns; 0 where the union has no area."""
    zero = a.dtype.type(0)
    sides = [max(min(a[2 + d], b[2 + d]) - max(a[d], b[d]), zero) for d in range(2)]
    shared = sides[0] * sides[1]
    union = a[4] + b[4] - shared
    return shared / union if union > 0 else zero


@dataclass(frozen=True, eq=False)
class _Walk:
    """Writes the statements that go through the boxes of one batch and class; ``kept`` is the list
    of those that stay.
    """

    f: LoopBuilder
    corners: Buffer
    order: Buffer
    kept: Buffer

    def body(
        self, b: Expr, c: Expr, open_: Buffer, most: Expr, threshold: Expr, found: Buffer
    ) -> tuple[Stmt, ...]:
        """For each box in order, whether it stays."""
        f, last = self.f, maximum(self.corners.shape[1] - 1, ZERO)
        i, j, box, other = (f.variable() for _ in range(4))
        count, alive = Buffer("C0", (1,), i64, "stack"), Buffer("A0", (1,), boolean, "stack")
        compare = (
            Let(other, self.kept[b, c, j]),
            Store(alive, (ZERO,), ~self._overlaps(b, box, other, threshold)),
        )
        keep = (Store(self.kept, (b, c, count[0]), box), Store(count, (ZERO,), count[0] + ONE))
        step = (
            Let(box, minimum(maximum(self.order[b, c, i], ZERO), last)),
            Store(alive, (ZERO,), open_[b, c, i] & (count[0] < most)),
            For(j, count[0], (If(alive[0], compare),)),
            Store(found, (b, c, i), alive[0]),
            If(alive[0], keep),
        )
        return (
            Allocate(count),
            Allocate(alive),
            Store(count, (ZERO,), ZERO),
            For(i, self.order.shape[2], step),
        )

    def _overlaps(self, b: Expr, one: Expr, two: Expr, threshold: Expr) -> Expr:
        """Whether two boxes share more than the threshold."""
        first, second = ([self.corners[b, x, k] for k in range(5)] for x in (one, two))
        zero = Const(0, self.corners.dtype)
        sides = [
            maximum(minimum(first[2 + d], second[2 + d]) - maximum(first[d], second[d]), zero)
            for d in range(2)
        ]
        shared = sides[0] * sides[1]
        union = first[4] + second[4] - shared
        return (union > zero) & (apply("div", shared, union) > threshold)


def _check_boxes(op: Op, boxes: TensorType) -> None:
    check_dtype(op, boxes.dtype, "float", "the boxes")
    check_rank(op, boxes, 3, 3, "the boxes")
    if boxes.shape is not None:
        check_same_dim(op, boxes.dims[2], Const(4, i64), "the numbers of a box")


@dataclass(frozen=True)
class NonMaxSuppression(DataSized):
    """Batch, class and number of the boxes that are kept, best first within each class: at most
    ``most`` of a class, none with a score up to ``least`` (if it is given), and none that overlaps
    a better one by more than ``threshold``, as intersection over union.

    A box is two opposite corners, or with ``center`` its center and its sizes.

    Shapes:  boxes: (b, n, 4), scores: (b, c, n), most: () of i64, threshold: (), [least: ()] ->
             (u, 3) of i64, where u depends on the values.
    Errors:  E0102; E0103; E0106; E0107.
    """

    center: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        """Only the rank is known."""
        boxes, scores, most, threshold, *least = operands(self, types, 4, 5)
        _check_boxes(self, boxes)
        check_same_dtype(self, (boxes, scores, threshold, *least))
        check_is(self, most.dtype, i64, "the number")
        check_rank(self, scores, 3, 3, "the scores")
        for t in (most, threshold, *least):
            check_rank(self, t, 0, 0)
        if boxes.shape is not None and scores.shape is not None:
            check_same_dim(self, boxes.dims[0], scores.dims[0], "the batches")
            check_same_dim(self, boxes.dims[1], scores.dims[2], "the numbers of boxes")
        return TensorType(None, 2, i64)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Sorted, then one box after another."""
        boxes, scores, most, threshold, *least = arrays
        values, order = Sort(-1, True).reference(scores)
        open_ = values > least[0] if least else np.ones(values.shape, np.bool_)
        kept = Suppress(self.center).reference(boxes, order, open_, most, threshold)
        places = np.argwhere(kept)
        return np.stack([places[:, 0], places[:, 1], order[kept]], 1).astype(np.int64)

    def decompose(self, *args: Traced) -> Traced:
        """Scores sorted, marks for the boxes that stay, and the list of the marks."""
        boxes, scores, most, threshold, *least = args
        values, order = scores.builder.emit_all(Sort(-1, True), scores)
        if least:
            open_ = Greater()(values, least[0])
        else:
            open_ = scores.builder.emit(Full(scores.shape, True, boolean))
        kept = Suppress(self.center)(boxes, order, open_, most, threshold)
        places = positions_where(kept, "kept")
        numbers = Gather(0)(reshaped(order, (product(order.shape),)), places)
        rows = Slice(1, 0, 2)(unraveled(places, order.shape))
        return Concat(1)(rows, reshaped(numbers, (*numbers.shape, ONE)))

    @classmethod
    def samples(cls) -> Samples:
        """With and without a least score, both formats, several classes, none, symbolic sizes."""

        def case(b: int, c: int, n: int | str, *least: Example) -> tuple[Example, ...]:
            return (
                example(f32, b, n, 4, low=0, high=4),
                example(f32, b, c, n, low=0, high=1),
                example(i64, low=1, high=5),
                example(f32, low=0.1, high=0.6),
                *least,
            )

        yield cls(), case(1, 1, 11)
        yield cls(True), case(2, 3, 7, example(f32, low=0.2, high=0.5))
        yield cls(), case(1, 2, "n", example(f32, low=0.2, high=0.5))
        yield cls(), case(1, 1, 0)
