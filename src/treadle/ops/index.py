"""Reading and writing at positions that are data. Negative positions count from the end.

Positions must lie in range. Those that follow from an input are tested when a compiled program
runs (E0707); one that is out of range reads the nearest element, and writes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from treadle.expr.dtype import boolean, f16, f32, f64, i32, i64
from treadle.expr.scalar import Const, Expr, ExprLike, Var, eq, int_value, select
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder, combined
from treadle.ir.op import Op, Samples, example, fail
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._pointwise import number
from treadle.ops._positions import (
    Indexing,
    Point,
    Positions,
    from_front,
    point_of,
    point_of_tuple,
    positions_of_tuples,
)
from treadle.ops._shapes import (
    check_dtype,
    check_field,
    check_rank,
    check_same_dim,
    check_same_dtype,
    normalize_axis,
    operands,
    product,
    replaced,
    same_dims,
    tensor_type,
    text,
)
from treadle.ops.binary import Div, Mul
from treadle.ops.broadcast import expanded
from treadle.ops.compare import Equal, Where
from treadle.ops.create import Full
from treadle.ops.elementwise import Cast
from treadle.ops.reshape import reshaped

Values = tuple[Traced, ...]
Gradients = tuple[Traced | None, ...]
Reduction = Literal["none", "add", "mul", "max", "min"]
_REDUCTIONS = ("none", "add", "mul", "max", "min")


def _check_indices(op: Op, indices: TensorType) -> None:
    check_dtype(op, indices.dtype, "int", "the positions")


@dataclass(frozen=True)
class Gather(Indexing):
    """The slices of ``data`` along ``axis`` that ``indices`` name, as numpy.take does; of axis 0,
    an embedding.

    Shapes:  data: (…before, d, …after), indices: any -> (…before, …indices, …after).
    Errors:  E0103 unless the positions are integers; E0104.
    """

    axis: int

    def infer(self, *types: TensorType) -> TensorType:
        """The positions' shape in place of the axis."""
        data, indices = operands(self, types, 2)
        _check_indices(self, indices)
        axis = normalize_axis(self, self.axis, data.ndim)
        if data.shape is None or indices.shape is None:
            return TensorType(None, data.ndim - 1 + indices.ndim, data.dtype)
        return tensor_type((*data.dims[:axis], *indices.dims, *data.dims[axis + 1 :]), data.dtype)

    def positions(self, *types: TensorType) -> tuple[Positions, ...]:
        """Along the axis."""
        return (Positions(1, types[0].dims[self.axis]),)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.take."""
        data, indices = arrays
        return np.asarray(np.take(data, indices, self.axis))

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy."""
        axis = normalize_axis(self, self.axis, types[0].ndim)
        f = LoopBuilder(self.op_name())
        data, indices = (f.input(t) for t in types)

        def value(*i: Expr) -> Expr:
            end = axis + indices.ndim
            place = from_front(indices[i[axis:end]], data.shape[axis])
            return Point(data, (*i[:axis], place, *i[end:]), (axis,)).load()

        f.compute(f.output(self.infer(*types).dims, data.dtype), value)
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Add to the slices that were read."""
        (data, indices), (dy,) = args, douts
        axis = normalize_axis(self, self.axis, data.ndim)
        zeros = data.builder.emit(Full(data.shape, 0, data.dtype))
        if axis == 0:
            column = reshaped(indices, (*indices.shape, Const(1, i64)))
            return ScatterNd("add")(zeros, column, dy), None
        count = product(indices.shape)
        flat = reshaped(dy, replaced(data.shape, axis, count))
        row = reshaped(
            indices, tuple(count if k == axis else Const(1, i64) for k in range(data.ndim))
        )
        return ScatterElements(axis, "add")(zeros, expanded(row, flat.shape), flat), None

    @classmethod
    def samples(cls) -> Samples:
        """Axes of both signs, positions of rank 0 to 2 and both signs, repeated ones; empty and
        symbolic shapes."""
        yield cls(0), (example(f32, 5, 3), example(i64, "n", low=-5, high=5))
        yield cls(1), (example(f32, "n", 4), example(i32, 2, 3, low=-4, high=4))
        yield cls(-1), (example(f16, 2, 3, 7), example(i64, low=-7, high=7))
        yield cls(0), (example(i64, 4), example(i32, 0, low=0, high=4))
        yield cls(0), (example(boolean, 3, 1), example(i64, 6, low=0, high=3))


def _indexed(op: Op, data: TensorType, indices: TensorType, axis: int) -> None:
    _check_indices(op, indices)
    normalize_axis(op, axis, data.ndim)
    check_rank(op, indices, data.ndim, data.ndim, "the positions")


@dataclass(frozen=True)
class GatherElements(Indexing):
    """Each element is that of ``data`` at its own indices, but at ``axis`` where the position says.

    Shapes:  data: any, indices: of the same rank, no larger but at ``axis`` -> indices.
    Errors:  E0103 unless the positions are integers; E0104; E0107 if the ranks differ.
    """

    axis: int

    def infer(self, *types: TensorType) -> TensorType:
        """The positions' shape."""
        data, indices = operands(self, types, 2)
        _indexed(self, data, indices, self.axis)
        return TensorType(indices.shape, indices.ndim, data.dtype)

    def positions(self, *types: TensorType) -> tuple[Positions, ...]:
        """Along the axis."""
        return (Positions(1, types[0].dims[self.axis]),)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.take_along_axis, of as much of the data as the positions cover."""
        data, indices = arrays
        axis = self.axis % data.ndim
        covered = tuple(slice(None) if k == axis else slice(d) for k, d in enumerate(indices.shape))
        return np.take_along_axis(data[covered], indices.astype(np.int64), axis)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy."""
        axis = normalize_axis(self, self.axis, types[0].ndim)
        f = LoopBuilder(self.op_name())
        data, indices = (f.input(t) for t in types)

        def value(*i: Expr) -> Expr:
            return point_of(data, axis, i, indices).load()

        f.compute(f.output(indices.shape, data.dtype), value)
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Add to the elements that were read."""
        data, indices = args
        zeros = data.builder.emit(Full(data.shape, 0, data.dtype))
        return ScatterElements(self.axis, "add")(zeros, indices, douts[0]), None

    @classmethod
    def samples(cls) -> Samples:
        """Axes of both signs, fewer and more positions than elements, negative ones."""
        yield cls(1), (example(f32, "n", 5), example(i64, "n", 3, low=-5, high=5))
        yield cls(0), (example(f32, 3, 4), example(i32, 7, 2, low=0, high=3))
        yield cls(-1), (example(f16, 2, 3), example(i64, 2, 0, low=0, high=3))
        yield cls(0), (example(i64, 1), example(i64, 4, low=-1, high=1))


def _tuple_size(op: Op, indices: TensorType) -> int:
    """How many axes a tuple of positions names: the last dimension, which must be known."""
    check_rank(op, indices, 1, None, "the positions")
    size = None if indices.shape is None else int_value(indices.dims[-1])
    if size is None:
        raise fail(op, "E0106", "the last dimension of the positions must be a known number")
    return size


@dataclass(frozen=True)
class GatherNd(Indexing):
    """The slices of ``data`` at tuples of positions, the last dimension of ``indices``; the first
    ``batch_dims`` axes go along.

    Shapes:  data: (…batch, d1, …, dq, …rest), indices: (…batch, …tuples, q) -> (…batch, …tuples,
             …rest).
    Errors:  E0103 unless the positions are integers; E0106 if q is symbolic or batches differ;
             E0107 if q is too large.
    """

    batch_dims: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        """The tuples' shape, then what they leave of the data's."""
        data, indices = operands(self, types, 2)
        _check_indices(self, indices)
        size = _tuple_size(self, indices)
        check_rank(self, data, self.batch_dims + size, None, "the data")
        check_rank(self, indices, self.batch_dims + 1, None, "the positions")
        rank = indices.ndim - 1 + data.ndim - self.batch_dims - size
        if data.shape is None or indices.shape is None:
            return TensorType(None, rank, data.dtype)
        for k in range(self.batch_dims):
            check_same_dim(self, data.dims[k], indices.dims[k], f"dimensions {k}")
        return tensor_type((*indices.dims[:-1], *data.dims[self.batch_dims + size :]), data.dtype)

    def positions(self, *types: TensorType) -> tuple[Positions, ...]:
        """Along the axes after the batch's."""
        return positions_of_tuples(types[0], types[1], self.batch_dims)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """NumPy's indexing by arrays, batch by batch."""
        data, indices = arrays
        b = self.batch_dims
        y = np.empty((*indices.shape[:-1], *data.shape[b + indices.shape[-1] :]), data.dtype)
        for batch in np.ndindex(data.shape[:b]):
            y[batch] = data[batch][tuple(np.moveaxis(indices[batch], -1, 0))]
        return y

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy."""
        f = LoopBuilder(self.op_name())
        data, indices = (f.input(t) for t in types)

        def value(*i: Expr) -> Expr:
            return point_of_tuple(data, indices, i, self.batch_dims).load()

        f.compute(f.output(self.infer(*types).dims, data.dtype), value)
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Add to the slices that were read."""
        data, indices = args
        zeros = data.builder.emit(Full(data.shape, 0, data.dtype))
        return ScatterNd("add", self.batch_dims)(zeros, indices, douts[0]), None

    @classmethod
    def samples(cls) -> Samples:
        """Whole and partial tuples, batches, empty tuples."""
        yield cls(), (example(f32, 3, 4), example(i64, "n", 2, low=-3, high=3))
        yield cls(), (example(f32, 5, 3), example(i32, 2, 2, 1, low=0, high=5))
        yield cls(1), (example(f64, 2, 3, 2), example(i64, 2, 1, low=0, high=3))
        yield cls(1), (example(f32, "n", 3), example(i64, "n", 4, 1, low=-3, high=3))
        yield cls(), (example(f16, 2, 3), example(i64, 0, 2, low=0, high=2))


class Scatter(Indexing):
    """What both ways to scatter share: a copy of the data, then the updates in order."""

    reduction: Reduction

    def check(self, data: TensorType, updates: TensorType) -> None:
        """E0102 for unequal dtypes, E0103 for arithmetic on booleans, E0108 for a reduction that
        there is not."""
        check_same_dtype(self, (data, updates))
        check_field(
            self, self.reduction in _REDUCTIONS, f"there is no reduction {self.reduction!r}"
        )
        if self.reduction != "none":
            check_dtype(self, data.dtype, "number", "the data")

    def updated(self, old: Expr, update: Expr) -> Expr:
        """The new element."""
        return update if self.reduction == "none" else combined(self.reduction, old, update)

    def writepoint_of(
        self,
        f: LoopBuilder,
        y: Buffer,
        updates: Buffer,
        place: Callable[[tuple[Expr, ...]], Point],
    ) -> None:
        """Combine the updates, in order, into the elements that ``place`` says, where there are
        such.
        """

        def store(*i: Expr) -> tuple[tuple[Expr, ...], Expr]:
            at = place(i).indices
            return at, self.updated(y[at], updates[i])

        f.scatter(y, updates.shape, store, where=lambda *i: place(i).is_inside)

    def write(self, y: np.ndarray, at: tuple[np.ndarray, ...], updates: np.ndarray) -> None:
        """NumPy's unbuffered update; without a reduction the last one stays."""
        table = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
        if self.reduction in table:
            table[self.reduction].at(y, at, updates)
        else:
            for point in np.ndindex(updates.shape):
                y[tuple(a[point] for a in at)] = updates[point]

    def gradient(
        self,
        data: Traced,
        updates: Traced,
        y: Traced,
        dy: Traced,
        read: Op,
        write: Op,
        indices: Traced,
    ) -> Gradients:
        """The gradients of data and updates; ``read`` gathers at the positions, ``write`` adds
        there."""
        if self.reduction == "add":
            return dy, None, read(dy, indices)
        if self.reduction == "none":
            zeros = expanded(number(updates, 0), updates.shape)
            return self(dy, indices, zeros), None, read(dy, indices)
        if self.reduction == "mul":
            whole = Mul()(dy, y)
            return Div()(whole, data), None, Div()(read(whole, indices), updates)
        zero = number(dy, 0)
        kept, hit = Equal()(data, y), Equal()(updates, read(y, indices))
        ties = write(Cast(dy.dtype)(kept), indices, Cast(dy.dtype)(hit))
        share = Div()(dy, ties)
        return Where()(kept, share, zero), None, Where()(hit, read(share, indices), zero)


@dataclass(frozen=True)
class ScatterElements(Scatter):
    """A copy of ``data``, in which each update is combined into the element at its own indices, but
    at ``axis`` where its position says. Updates are taken in order; the gradient of "none" takes
    positions to be distinct, that of "mul" factors not to be zero.

    Shapes:  data: any, indices and updates: of one shape of the same rank -> data.
    Errors:  E0102; E0103 unless the positions are integers; E0104; E0106; E0107; E0108.
    """

    axis: int
    reduction: Reduction = "none"

    def infer(self, *types: TensorType) -> TensorType:
        """The data's type."""
        data, indices, updates = operands(self, types, 3)
        self.check(data, updates)
        _indexed(self, data, indices, self.axis)
        known = indices.shape is not None and updates.shape is not None
        if known and not same_dims(indices.dims, updates.dims):
            shapes = f"{text(indices.dims)} and {text(updates.dims)}"
            raise fail(self, "E0106", f"positions and updates differ in shape: {shapes}")
        return data

    def positions(self, *types: TensorType) -> tuple[Positions, ...]:
        """Along the axis."""
        return (Positions(1, types[0].dims[self.axis]),)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """NumPy's unbuffered update."""
        data, indices, updates = arrays
        y = data.copy()
        axis = self.axis % data.ndim
        grid = np.indices(indices.shape)
        at = (indices.astype(np.int64) if k == axis else grid[k] for k in range(data.ndim))
        self.write(y, tuple(at), updates)
        return y

    def lower(self, *types: TensorType) -> TensorFunction:
        """A copy, then the updates in order."""
        axis = normalize_axis(self, self.axis, types[0].ndim)
        self.infer(*types)
        f = LoopBuilder(self.op_name())
        data, indices, updates = (f.input(t) for t in types)
        y = f.compute(f.output(data.shape, data.dtype), lambda *i: data[i])
        self.writepoint_of(f, y, updates, lambda i: point_of(y, axis, i, indices))
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Gathers at the positions."""
        data, indices, updates = args
        read, write = GatherElements(self.axis), ScatterElements(self.axis, "add")
        return self.gradient(data, updates, outs[0], douts[0], read, write, indices)

    @classmethod
    def samples(cls) -> Samples:
        """All reductions; repeated and negative positions; empty and symbolic updates."""
        yield (
            cls(0, "add"),
            (example(f32, 3, 2), example(i64, "n", 2, low=-3, high=3), example(f32, "n", 2)),
        )
        yield cls(0), (example(f32, 7), example(i32, 1, low=-7, high=7), example(f32, 1))
        yield (
            cls(-1, "mul"),
            (
                example(f32, 2, 3, low=0.5),
                example(i64, 2, 5, low=0, high=3),
                example(f32, 2, 5, low=0.5),
            ),
        )
        yield (
            cls(1, "max"),
            (example(f64, 2, 3), example(i64, 1, 4, low=0, high=3), example(f64, 1, 4)),
        )
        yield (
            cls(0, "min"),
            (
                example(i32, 4, low=-9, high=9),
                example(i64, 5, low=0, high=4),
                example(i32, 5, low=-9, high=9),
            ),
        )
        yield cls(0), (example(f16, 3), example(i64, 0, low=0, high=3), example(f16, 0))


@dataclass(frozen=True)
class ScatterNd(Scatter):
    """A copy of ``data``, in which each slice of updates is combined into the one at its tuple of
    positions.

    Updates are taken in order; for gradients as of ``ScatterElements``. The first ``batch_dims``
    axes go along.

    Shapes:  data: (…batch, d1, …, dq, …rest), indices: (…batch, …tuples, q), updates: (…batch,
             …tuples, …rest) -> data.
    Errors:  E0102; E0103 unless the positions are integers; E0106; E0107; E0108.
    """

    reduction: Reduction = "none"
    batch_dims: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        """The data's type."""
        data, indices, updates = operands(self, types, 3)
        self.check(data, updates)
        _check_indices(self, indices)
        if data.shape is None or indices.shape is None or updates.shape is None:
            return data
        expected = GatherNd(self.batch_dims).infer(data, indices)
        if not same_dims(expected.dims, updates.dims):
            raise fail(
                self,
                "E0106",
                f"updates must have shape {text(expected.dims)}, not {text(updates.dims)}",
            )
        return data

    def positions(self, *types: TensorType) -> tuple[Positions, ...]:
        """Along the axes after the batch's."""
        return positions_of_tuples(types[0], types[1], self.batch_dims)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """NumPy's unbuffered update, batch by batch."""
        data, indices, updates = arrays
        y = data.copy()
        size = indices.shape[-1]
        for batch in np.ndindex(data.shape[: self.batch_dims]):
            part, tuples, values = y[batch], indices[batch].astype(np.int64), updates[batch]
            outer = tuples.ndim - 1
            rest = np.indices(values.shape)[outer:]
            named = [
                tuples[..., k].reshape(tuples.shape[:-1] + (1,) * (values.ndim - outer))
                for k in range(size)
            ]
            at = tuple(np.broadcast_to(a, values.shape) for a in (*named, *rest))
            self.write(part, at, values)
        return y

    def lower(self, *types: TensorType) -> TensorFunction:
        """A copy, then the updates in order."""
        self.infer(*types)
        f = LoopBuilder(self.op_name())
        data, indices, updates = (f.input(t) for t in types)
        y = f.compute(f.output(data.shape, data.dtype), lambda *i: data[i])
        self.writepoint_of(f, y, updates, lambda i: point_of_tuple(y, indices, i, self.batch_dims))
        return f.build()

    def vjp(self, args: Values, outs: Values, douts: Values) -> Gradients:
        """Gathers at the positions."""
        data, indices, updates = args
        read, write = GatherNd(self.batch_dims), ScatterNd("add", self.batch_dims)
        return self.gradient(data, updates, outs[0], douts[0], read, write, indices)

    @classmethod
    def samples(cls) -> Samples:
        """All reductions; whole and partial tuples; batches; empty and symbolic updates."""
        yield (
            cls("add"),
            (example(f32, 3, 2), example(i64, "n", 1, low=-3, high=3), example(f32, "n", 2)),
        )
        yield cls(), (example(f32, 3, 5), example(i64, 1, 2, low=-3, high=3), example(f32, 1))
        yield (
            cls("mul"),
            (example(f64, 3, low=0.5), example(i32, 5, 1, low=0, high=3), example(f64, 5, low=0.5)),
        )
        yield (
            cls("max", 1),
            (example(f32, 2, 3), example(i64, 2, 4, 1, low=0, high=3), example(f32, 2, 4)),
        )
        yield (
            cls("min"),
            (
                example(i64, 4, low=-9, high=9),
                example(i64, 5, 1, low=0, high=4),
                example(i64, 5, low=-9, high=9),
            ),
        )
        yield cls(), (example(f16, 3, 2), example(i64, 0, 2, low=0, high=2), example(f16, 0))


@dataclass(frozen=True)
class OneHot(Op):
    """``on`` where the position along the new ``axis`` is the index, else ``off``; an index out of
    range is nowhere.

    Shapes:  indices: any, off, on: () of one dtype -> indices with ``depth`` inserted at ``axis``.
    Errors:  E0102; E0103 unless the indices are integers; E0104; E0107 unless off and on have rank
             0.
    """

    depth: ExprLike
    axis: int = -1

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """The indices' shape and one more dimension."""
        indices, off, on = operands(self, types, 3)
        _check_indices(self, indices)
        check_rank(self, off, 0, 0, "off")
        check_rank(self, on, 0, 0, "on")
        dtype = check_same_dtype(self, (off, on))
        axis = normalize_axis(self, self.axis, indices.ndim + 1)
        if indices.shape is None:
            return TensorType(None, indices.ndim + 1, dtype)
        return tensor_type((*indices.dims[:axis], self.depth, *indices.dims[axis:]), dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """A comparison with np.arange."""
        indices, off, on = arrays
        depth = int_value(self.depth) or 0
        wrapped = np.where(indices < 0, indices + depth, indices)
        hit = np.expand_dims(wrapped, self.axis)
        steps = np.arange(depth).reshape(
            [-1 if k == self.axis % hit.ndim else 1 for k in range(hit.ndim)]
        )
        return np.where(hit == steps, on, off)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One comparison per element."""
        axis = normalize_axis(self, self.axis, types[0].ndim + 1)
        f = LoopBuilder(self.op_name())
        indices, off, on = (f.input(t) for t in types)
        y = f.output(self.infer(*types).dims, on.dtype)

        def value(*i: Expr) -> Expr:
            named = from_front(indices[(*i[:axis], *i[axis + 1 :])], self.depth)
            return select(eq(named, i[axis]), on[()], off[()])

        f.compute(y, value)
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Axes of both signs, negative indices and ones out of range, a symbolic depth."""
        yield cls(5), (example(i64, "n", low=-7, high=7), example(f32), example(f32))
        yield cls(3, 0), (example(i32, 2, 4, low=0, high=3), example(i64), example(i64))
        yield cls(Var("m"), 1), (example(i64, 2, 1, low=0, high=3), example(f16), example(f16))
        yield cls(4), (example(i64, low=0, high=4), example(boolean), example(boolean))
