"""Sampling at computed places."""

from dataclasses import dataclass
from itertools import product as points
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import f32, i64
from treadle.expr.scalar import Const, Expr, Var, apply, cast, eq, minimum, select
from treadle.ir.loop_builder import LoopBuilder, guarded
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import (
    check_dtype,
    check_field,
    check_rank,
    check_same_dim,
    check_same_dtype,
    operands,
    tensor_type,
    wide,
)
from treadle.ops._sums import accumulator, rounded, summed
from treadle.ops._window import all_of, choose, inside

_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_CUBIC = -0.75


@dataclass(frozen=True)
class GridSample(Op):
    """Sample an operand at places from -1 to 1 along each spatial axis (the last coordinate is
    that of the first axis).

    ``mode`` is "linear", "nearest" (half to even) or "cubic" (parameter -0.75); ``padding`` says
    what lies outside: "zeros", the "border", or the "reflection" of the inside. With
    ``align_corners`` -1 and 1 are the centers of the outermost elements, else their outer edges.

    Shapes:  x: (n, c, *size), grid: (n, *count, rank of size) -> (n, c, *count).
    Dtypes:  any float, both the same. Computed in f32 for 16-bit floats.
    Errors:  E0101, E0102, E0103; E0106 if dimensions differ; E0107; E0108 for fields that do not
             fit.
    """

    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x, grid = operands(self, types, 2)
        check_dtype(self, check_same_dtype(self, types), "float")
        check_rank(self, x, 3)
        check_rank(self, grid, x.ndim, x.ndim, "the grid")
        check_field(self, self.mode in _TAPS, f"mode is '{self.mode}'", "linear, nearest or cubic")
        paddings = ("zeros", "border", "reflection")
        check_field(
            self,
            self.padding in paddings,
            f"padding is '{self.padding}'",
            "zeros, border or reflection",
        )
        if x.shape is None or grid.shape is None:
            return TensorType(None, x.ndim, x.dtype)
        check_same_dim(self, x.dims[0], grid.dims[0], "the batches")
        check_same_dim(
            self,
            grid.dims[-1],
            Const(x.ndim - 2, i64),
            "the grid's last dimension and the spatial rank",
        )
        return tensor_type((*x.dims[:2], *grid.dims[1:-1]), x.dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        x, grid = summed(arrays[0]), summed(arrays[1])
        rank = x.ndim - 2
        taps = [
            self._taps_of(grid[..., rank - 1 - axis], x.shape[axis + 2]) for axis in range(rank)
        ]
        y = np.zeros((x.shape[0], *grid.shape[1:-1], x.shape[1]), x.dtype)
        batch = np.arange(x.shape[0]).reshape(-1, *[1] * rank)
        for choice in points(range(_TAPS[self.mode]), repeat=rank):
            places = [taps[axis][0][t] for axis, t in enumerate(choice)]
            weight = np.prod([taps[axis][1][t] for axis, t in enumerate(choice)], axis=0)
            held = np.all([p >= 0 for p in places], axis=0)
            values = x[(batch, slice(None), *(np.maximum(p, 0) for p in places))]
            y += np.where(held[..., None], values * weight[..., None], 0).astype(x.dtype)
        return np.moveaxis(y, -1, 1).astype(arrays[0].dtype)

    def _taps_of(self, g: np.ndarray, size: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The indices (-1: outside) and weights of the taps along an axis."""
        place = (g + 1) / 2 * (size - 1) if self.align_corners else ((g + 1) * size - 1) / 2
        if self.mode != "cubic":
            place = self._folded(place, size)
        if self.mode == "nearest":
            indices, weights = [np.rint(place)], [np.ones_like(place)]
        else:
            base = np.floor(place)
            part = place - base
            offsets = (0, 1) if self.mode == "linear" else (-1, 0, 1, 2)
            indices = [base + t for t in offsets]
            kernel = (lambda d: 1 - d) if self.mode == "linear" else _keys
            weights = [kernel(np.abs(part - t)) for t in offsets]
        if self.mode == "cubic":
            indices = [self._folded(i, size) for i in indices]
        outside = [(i < 0) | (i > size - 1) for i in indices]
        return [
            np.where(o, -1, i).astype(np.int64) for i, o in zip(indices, outside, strict=True)
        ], weights

    def _folded(self, place: np.ndarray, size: int) -> np.ndarray:
        if self.padding == "reflection":
            low = 0.0 if self.align_corners else -0.5
            span = size - 1.0 if self.align_corners else float(size)
            if span == 0:
                return np.zeros_like(place)
            turns = np.abs(place - low)
            rest = np.fmod(turns, span)
            place = np.where(np.floor(turns / span) % 2 == 0, rest, span - rest) + low
        return place if self.padding == "zeros" else np.clip(place, 0, size - 1)

    def lower(self, *types: TensorType) -> TensorFunction:
        """Tables of indices and weights for each place and axis, then a sum over the taps."""
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        x, grid = b.input(types[0], "X"), b.input(types[1], "grid")
        out = b.output(result.dims, result.dtype)
        dtype = wide(out.dtype)
        taps = _TAPS[self.mode]
        rank = x.ndim - 2
        shape = (*grid.shape[:-1], taps)
        sources: list[Buffer] = []
        weights: list[Buffer] = []
        for axis in range(rank):
            coordinates = b.temp(grid.shape[:-1], dtype, f"place{axis}")
            sources.append(b.temp(shape, i64, f"source{axis}"))
            weights.append(b.temp(shape, dtype, f"weight{axis}"))
            size = x.shape[axis + 2]
            b.compute(
                coordinates,
                lambda *i, a=axis, n=size: self._place(cast(grid[(*i, rank - 1 - a)], dtype), n),
            )
            b.compute(
                sources[axis], lambda *i, p=coordinates, n=size: self._source(p[i[:-1]], i[-1], n)
            )
            b.compute(weights[axis], lambda *i, p=coordinates: self._weight(p[i[:-1]], i[-1]))
        total = accumulator(b, out)

        def term(n: Var, c: Var, *rest: Var) -> Expr:
            at, choice = rest[:rank], rest[rank:]
            source = [sources[k][(n, *at, t)] for k, t in enumerate(choice)]
            weight: Expr = Const(1, dtype)
            for k, t in enumerate(choice):
                weight = weights[k][(n, *at, t)] if k == 0 else weight * weights[k][(n, *at, t)]
            value = cast(x[(n, c, *source)], dtype)
            return guarded(all_of([s >= 0 for s in source]), value, 0) * weight

        b.reduce(total, (taps,) * rank, term)
        rounded(b, total, out)
        return b.build()

    def _place(self, g: Expr, size: Expr) -> Expr:
        """A coordinate of the grid in elements; limited, so that it has an integer, where all
        beyond is alike.
        """
        length = cast(size, g.dtype)
        place = (
            (g + 1.0) / 2.0 * (length - 1.0)
            if self.align_corners
            else ((g + 1.0) * length - 1.0) / 2.0
        )
        if self.mode != "cubic":
            place = self._fold(place, length)
        return place if self.padding == "reflection" else _limited(place, -3.0, length + 3.0)

    def _fold(self, place: Expr, length: Expr) -> Expr:
        """A coordinate after the padding is applied to it."""
        if self.padding == "zeros":
            return place
        if self.padding == "reflection":
            low = 0.0 if self.align_corners else -0.5
            span = length - 1.0 if self.align_corners else length
            kept = choose(eq(span, 0.0), 1.0, span)
            turns = apply("abs", place - low)
            count = apply("floor", turns / kept)
            rest = turns - count * kept
            folded = (
                select(eq(count - apply("floor", count / 2.0) * 2.0, 0.0), rest, span - rest) + low
            )
            place = choose(eq(span, 0.0), 0.0, folded)
        return _limited(place, 0.0, length - 1.0)

    def _source(self, place: Expr, tap: Expr, size: Expr) -> Expr:
        """The index of a tap, -1 outside."""
        if self.mode == "nearest":
            index = apply("round", place)
        else:
            index = (
                apply("floor", place)
                + cast(tap, place.dtype)
                - (1.0 if self.mode == "cubic" else 0.0)
            )
        if self.mode == "cubic":
            index = self._fold(index, cast(size, place.dtype))
        whole = cast(index, i64)
        return select(all_of(inside(whole, size)), whole, -1)

    def _weight(self, place: Expr, tap: Expr) -> Expr:
        if self.mode == "nearest":
            return Const(1, place.dtype)
        part = place - apply("floor", place)
        if self.mode == "linear":
            return select(eq(tap, 0), 1.0 - part, part)
        d = apply("abs", part + 1.0 - cast(tap, place.dtype))
        near = (d * (_CUBIC + 2) - (_CUBIC + 3)) * d * d + 1.0
        far = ((d * _CUBIC - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC
        return select(d <= 1.0, near, far)

    @classmethod
    def samples(cls) -> Samples:
        """Every mode and padding."""
        image, line = example(f32, "n", 2, 4, 5), example(f32, 2, 1, 5)
        grid = example(f32, "n", 3, 2, 2, low=-1.4, high=1.4)
        yield cls(), (image, grid)
        yield cls("linear", "border", True), (image, grid)
        yield cls("nearest", "reflection"), (image, grid)
        yield cls("cubic", "zeros", True), (image, grid)
        yield cls("cubic", "reflection"), (image, grid)
        yield cls("linear", "reflection", True), (line, example(f32, 2, 4, 1, low=-3.0, high=3.0))
        yield cls(), (example(f32, 1, 2, 2, 3, 4), example(f32, 1, 2, 2, 1, 3, low=-1.2, high=1.2))


def _limited(place: Expr, low: float, high: Expr) -> Expr:
    """A coordinate from ``low`` to ``high``; ``low`` for NaN, which has no integer."""
    return minimum(select(place >= low, place, low), high)


def _keys(d: np.ndarray) -> np.ndarray:
    """The cubic kernel of Keys (1981)."""
    a = _CUBIC
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    return np.where(d <= 1, near, a * (d**3 - 5 * d**2 + 8 * d - 4))
