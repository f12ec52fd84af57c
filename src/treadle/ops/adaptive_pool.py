"""Pooling to a given size: windows as even as can be."""

from dataclasses import dataclass

import numpy as np

from treadle.expr.dtype import f16, f32, i64
from treadle.expr.scalar import Expr, Var, as_expr, cast, int_value, select
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder, guarded, identity
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._compose import converted, counted
from treadle.ops._pointwise import number
from treadle.ops._shapes import check_dtype, check_field, check_rank, dim, one, tensor_type, wide
from treadle.ops._sums import summed
from treadle.ops._window import all_of, plus
from treadle.ops.binary import Add, Div, FloorDiv, Mul, Sub
from treadle.ops.compare import GreaterEqual, Less, LogicalAnd
from treadle.ops.contraction import multiplied_along
from treadle.ops.pool import flat_index, is_largest, scattered

Dims = tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class AdaptiveAxis:
    """The windows of one axis: window i of ``windows`` holds the elements from i·n/windows,
    rounded down, to (i + 1)·n/windows, rounded up."""

    size: Expr
    windows: int

    @property
    def even(self) -> bool:
        """Whether all windows are known to have as many elements."""
        known = int_value(self.size)
        return self.windows == 1 or (known is not None and known % self.windows == 0)

    @property
    def longest(self) -> Expr:
        """An upper bound of the number of elements in a window; their number where they are
        even.
        """
        known = int_value(self.size)
        if self.even or known is None:
            return dim(
                self.size // self.windows if self.even else (self.size - 1) // self.windows + 2
            )
        return as_expr(max(stop - start for start, stop in self.ranges(known)))

    def ranges(self, size: int) -> list[tuple[int, int]]:
        """The windows of an axis of known size."""
        return [
            (i * size // self.windows, -(-(i + 1) * size // self.windows))
            for i in range(self.windows)
        ]

    def start(self, i: Expr) -> Expr:
        """The first element of window ``i``."""
        return i * self.longest if self.even else i * self.size // self.windows

    def stop(self, i: Expr) -> Expr:
        """The element behind window ``i``."""
        return ((i + 1) * self.size + (self.windows - 1)) // self.windows

    def element(self, i: Expr, k: Expr) -> tuple[Expr, list[Expr]]:
        """Where element ``k`` of window ``i`` lies, and the conditions for there to be one."""
        if self.windows == 1:
            return k, []
        place = plus(self.start(i), k)
        return place, [] if self.even else [place < self.stop(i)]


@dataclass(frozen=True, slots=True)
class _Geometry:
    axes: tuple[AdaptiveAxis, ...]

    @property
    def extents(self) -> Dims:
        return tuple(a.longest for a in self.axes)

    def source(self, i: tuple[Expr, ...], k: tuple[Expr, ...]) -> tuple[list[Expr], list[Expr]]:
        """Where an element lies along each axis, and the conditions for it to be one of the
        window's.
        """
        found = [a.element(p, t) for a, p, t in zip(self.axes, i, k, strict=True)]
        return [place for place, _ in found], [c for _, conditions in found for c in conditions]


def _geometry(size: tuple[int, ...], dims: Dims) -> _Geometry:
    return _Geometry(tuple(AdaptiveAxis(d, n) for d, n in zip(dims, size, strict=True)))


def _infer(op: Op, size: tuple[int, ...], x: TensorType) -> TensorType:
    check_rank(op, x, 2 + len(size), 2 + len(size))
    check_field(op, all(n >= 1 for n in size), f"size must be positive, not {size}")
    if x.shape is None:
        return TensorType(None, x.ndim, x.dtype)
    return tensor_type((*x.dims[:2], *size), x.dtype)


def _windows(
    x: np.ndarray, size: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """The index of each window and the elements that it holds."""
    found: list[tuple[tuple[int, ...], tuple[slice, ...]]] = []
    ranges = [AdaptiveAxis(as_expr(d), n).ranges(d) for d, n in zip(x.shape[2:], size, strict=True)]
    for index in np.ndindex(size):
        found.append((index, tuple(slice(*r[i]) for r, i in zip(ranges, index, strict=True))))
    return found


@dataclass(frozen=True)
class AdaptiveAvgPool(Op):
    """The averages of ``size`` windows, as even as can be, that cover an operand.

    Shapes:  x: (n, c, *any) -> (n, c, *size).
    Dtypes:  any float. f16 and bf16 are summed in f32.
    Errors:  E0101, E0103, E0107, E0108.
    """

    size: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x = one(self, types)
        check_dtype(self, x.dtype, "float")
        return _infer(self, self.size, x)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        (x,) = arrays
        y = np.empty((*x.shape[:2], *self.size), x.dtype)
        axes = tuple(range(2, x.ndim))
        for index, window in _windows(x, self.size):
            y[(..., *index)] = summed(x)[(..., *window)].mean(axes)
        return y

    def lower(self, *types: TensorType) -> TensorFunction:
        """Sums, then divided by the number of elements."""
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        x = b.input(types[0], "X")
        out = b.output(result.dims, result.dtype)
        total = b.temp(out.shape, wide(out.dtype), "total")
        geometry = _geometry(self.size, x.shape[2:])
        rank = len(self.size)

        def element(n: Var, c: Var, *rest: Var) -> Expr:
            source, conditions = geometry.source(rest[:rank], rest[rank:])
            value = cast(x[(n, c, *source)], total.dtype)
            return guarded(all_of(conditions), value, 0) if conditions else value

        def average(*i: Var) -> Expr:
            number_of: Expr = as_expr(1)
            for axis, p in zip(geometry.axes, i[2:], strict=True):
                number_of = number_of * (
                    axis.longest if axis.even else axis.stop(p) - axis.start(p)
                )
            return cast(total[i] / cast(number_of, total.dtype), out.dtype)

        b.reduce(total, geometry.extents, element)
        b.compute(out, average)
        return b.build()

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """A product with the matrix of shares (window, element) along each axis."""
        (x,) = args
        (found,) = douts
        for axis, windows in enumerate(self.size, 2):
            found = multiplied_along(found, axis, _shares(x, windows, x.shape[axis]))
        return (found,)

    @classmethod
    def samples(cls) -> Samples:
        """Even and uneven windows, more windows than elements, symbolic sizes."""
        yield cls((1, 1)), (example(f32, "n", 3, 5, 4),)
        yield cls((2, 3)), (example(f32, 2, 3, 7, 6),)
        yield cls((5,)), (example(f32, 2, 1, 3),)
        yield cls((3,)), (example(f32, 1, 2, "n"),)
        yield cls((2, 1, 3)), (example(f32, 1, 2, 4, 3, 5),)
        yield cls((2,)), (example(f16, 1, 2, 5),)


def _shares(x: Traced, windows: int, size: Expr) -> Traced:
    """The share of each element in each window: (windows, size), one over the window's length or
    zero.
    """
    b = x.builder
    i, element = counted(b, as_expr(windows), 0, 2), counted(b, size, 1, 2)
    whole, count = b.literal(size, i64), number(i, windows)
    start = FloorDiv()(Mul()(i, whole), count)
    behind = Add()(Mul()(Add()(i, number(i, 1)), whole), number(i, windows - 1))
    stop = FloorDiv()(behind, count)
    held = LogicalAnd()(GreaterEqual()(element, start), Less()(element, stop))
    return Div()(converted(held, x.dtype), converted(Sub()(stop, start), x.dtype))


@dataclass(frozen=True)
class AdaptiveMaxPool(Op):
    """The largest elements of ``size`` windows, as even as can be; with ``indices`` also where
    they are, counted over the spatial axes.

    Shapes:  x: (n, c, *any) -> (n, c, *size) [, indices likewise, i64].
    Dtypes:  any numbers.
    Errors:  E0101, E0103, E0107, E0108.
    """

    size: tuple[int, ...]
    indices: bool = False

    def infer(self, *types: TensorType) -> TensorType | tuple[TensorType, ...]:
        """See the class."""
        x = one(self, types)
        check_dtype(self, x.dtype, "number")
        found = _infer(self, self.size, x)
        return (found, TensorType(found.shape, found.ndim, i64)) if self.indices else found

    def reference(self, *arrays: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """See the class."""
        (x,) = arrays
        y = np.empty((*x.shape[:2], *self.size), x.dtype)
        places = np.empty(y.shape, np.int64)
        positions = np.arange(int(np.prod(x.shape[2:]))).reshape(x.shape[2:])
        for index, window in _windows(x, self.size):
            held = x[(..., *window)].reshape(*x.shape[:2], -1)
            y[(..., *index)] = held.max(-1)
            if held.size:
                places[(..., *index)] = positions[window].reshape(-1)[held.argmax(-1)]
        return (y, places) if self.indices else y

    def lower(self, *types: TensorType) -> TensorFunction:
        """The maximum; then the first position that has it."""
        (x_type,) = types
        dims = _infer(self, self.size, x_type).dims
        b = LoopBuilder(self.op_name())
        x = b.input(x_type, "X")
        out = b.output(dims, x.dtype)
        geometry = _geometry(self.size, x.shape[2:])
        b.reduce(out, geometry.extents, lambda *i: self._element(x, geometry, i), "max")
        if self.indices:
            positions = b.output(dims, i64)
            b.reduce(
                positions, geometry.extents, lambda *i: self._position(x, out, geometry, i), "min"
            )
        return b.build()

    def _element(self, x: Buffer, geometry: _Geometry, point: tuple[Var, ...]) -> Expr:
        rank = len(self.size)
        source, conditions = geometry.source(point[2 : 2 + rank], point[2 + rank :])
        value = x[(*point[:2], *source)]
        return guarded(all_of(conditions), value, identity("max", x.dtype)) if conditions else value

    def _position(
        self, x: Buffer, largest: Buffer, geometry: _Geometry, point: tuple[Var, ...]
    ) -> Expr:
        rank = len(self.size)
        source, conditions = geometry.source(point[2 : 2 + rank], point[2 + rank :])
        value = self._element(x, geometry, point)
        found = all_of([*conditions, is_largest(value, largest[point[: 2 + rank]])])
        return select(found, flat_index(source, x.shape[2:]), identity("min", i64))

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """The gradient goes to the largest element of each window."""
        (x,) = args
        if self.indices:
            return (scattered(x, outs[1], douts[0]),)
        _, indices = x.builder.emit_all(AdaptiveMaxPool(self.size, indices=True), x)
        return (scattered(x, indices, douts[0]),)

    @classmethod
    def samples(cls) -> Samples:
        """Even and uneven windows, indices, symbolic sizes."""
        yield cls((1, 1)), (example(f32, "n", 3, 5, 4),)
        yield cls((2, 3)), (example(f32, 2, 3, 7, 6),)
        yield cls((2, 3), indices=True), (example(f32, "n", 1, 5, 3),)
        yield cls((3,)), (example(f32, 1, 2, "n"),)
