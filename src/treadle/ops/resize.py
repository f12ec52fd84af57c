"""Change of resolution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np

from treadle.expr.dtype import f16, f32, f64, i64
from treadle.expr.scalar import Const, Expr, Var, as_expr, cast, eq, int_value, select
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._compose import converted, counted, transposed
from treadle.ops._interpolation import COORDINATES, MODES, NEAREST, ResizedAxis
from treadle.ops._shapes import check_dtype, check_field, dim, one, replaced, tensor_type, wide
from treadle.ops._window import all_of
from treadle.ops.compare import Equal
from treadle.ops.contraction import multiplied_along


@dataclass(frozen=True)
class Resize(Op):
    """Resample every axis whose dimension or scale changes, as ONNX's Resize (opset 19) defines it.

    ``scales``, if given, are used to compute coordinates instead of the ratios of dimensions.
    ``region`` holds the starts, then the stops of each axis, from 0 to 1, for
    ``coordinates="tf_crop_and_resize"``, which gives ``extrapolation`` outside of the operand.
    ``cubic`` is the parameter of the cubic kernel. ``antialias`` widens linear and cubic kernels
    where an axis shrinks.

    Shapes:  x: any -> shape, of the same rank.
    Dtypes:  any numbers; integers are computed in f32 and rounded towards zero, 16-bit floats in
             f32.
    Errors:  E0101, E0103; E0108 for fields that do not fit.
    """

    shape: tuple[Expr | int, ...]
    scales: tuple[float, ...] | None = None
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0
    region: tuple[float, ...] | None = None

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x = one(self, types)
        exact = self.mode == "nearest" and self.coordinates != "tf_crop_and_resize"
        check_dtype(self, x.dtype, "any" if exact else "number")
        check_field(
            self,
            len(self.shape) == x.ndim,
            f"shape must have {x.ndim} dimensions, not {len(self.shape)}",
        )
        check_field(
            self,
            self.scales is None or len(self.scales) == x.ndim,
            f"scales must have {x.ndim} values",
        )
        check_field(
            self,
            self.scales is None or all(math.isfinite(s) and s > 0 for s in self.scales),
            "scales must be positive numbers",
        )
        check_field(
            self,
            self.region is None or len(self.region) == 2 * x.ndim,
            f"region must have {2 * x.ndim} values",
        )
        for name, allowed in (("mode", MODES), ("coordinates", COORDINATES), ("nearest", NEAREST)):
            value = getattr(self, name)
            check_field(
                self, value in allowed, f"{name} is '{value}'", f"one of {', '.join(allowed)}"
            )
        check_field(
            self,
            self.mode != "nearest" or not self.antialias,
            "antialias needs mode linear or cubic",
        )
        return tensor_type(self.shape, x.dtype)

    def _axes(self, dims: Sequence[Expr | int]) -> list[ResizedAxis]:
        rank = len(dims)
        region = self.region or (0.0,) * rank + (1.0,) * rank
        return [
            ResizedAxis(
                as_expr(size),
                dim(count),
                None if self.scales is None else self.scales[k],
                (region[k], region[k + rank]),
                self.mode,
                self.coordinates,
                self.nearest,
                self.cubic,
                self.exclude_outside,
                self.antialias,
            )
            for k, (size, count) in enumerate(zip(dims, self.shape, strict=True))
        ]

    @property
    def _extrapolates(self) -> bool:
        return self.coordinates == "tf_crop_and_resize"

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        (x,) = arrays
        shape = tuple(int_value(d) or 0 for d in self.shape)
        exact = self.mode == "nearest"
        found = x if exact else x.astype(np.float64)
        outside = np.zeros(shape, bool)
        region = self.region or (0.0,) * x.ndim + (1.0,) * x.ndim
        for axis, (size, count) in enumerate(zip(x.shape, shape, strict=True)):
            scale = count / size if self.scales is None else self.scales[axis]
            ends = (region[axis], region[axis + x.ndim])
            if (
                abs(scale - 1) < 1e-9
                and size == count
                and (not self._extrapolates or ends == (0.0, 1.0))
            ):
                continue
            places = [_coordinate(self, i, size, count, scale, ends) for i in range(count)]
            if exact:
                found = found.take([_nearest(self.nearest, p, size) for p in places], axis)
            else:
                rows = [_row(self, p, size, scale) for p in places]
                matrix = np.array(rows).reshape(count, size)
                found = np.moveaxis(np.tensordot(found, matrix, (axis, 1)), -1, axis)
            if self._extrapolates:
                beyond = np.array([p < 0 or p > size - 1 for p in places])
                outside |= np.expand_dims(beyond, tuple(k for k in range(x.ndim) if k != axis))
        return (
            np.where(outside, self.extrapolation, found).astype(x.dtype)
            if outside.any()
            else found.astype(x.dtype)
        )

    def lower(self, *types: TensorType) -> TensorFunction:
        """Small tables of taps and weights for each axis; then one pass for each axis that
        changes.
        """
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        x = b.input(types[0], "X")
        out = b.output(result.dims, result.dtype)
        axes = self._axes(x.shape)
        changed = [k for k, axis in enumerate(axes) if not axis.is_identity]
        if self.mode == "nearest":
            return self._lower_nearest(b, x, out, axes, changed)
        current = x
        dtype = wide(x.dtype) if x.dtype.is_float else f32
        direct = dtype == out.dtype and not self._extrapolates
        for k in changed:
            dims = replaced(current.shape, k, axes[k].count)
            last = direct and k == changed[-1]
            found = out if last else b.temp(dims, dtype, f"resized{k}")
            current = self._pass(b, current, found, axes[k], k)
        if current is not out:
            b.compute(out, lambda *i: self._bounded(cast(current[i], out.dtype), i, axes, changed))
        return b.build()

    def _lower_nearest(
        self, b: LoopBuilder, x: Buffer, out: Buffer, axes: list[ResizedAxis], changed: list[int]
    ) -> TensorFunction:
        tables = {k: b.temp((axes[k].count,), i64, f"source{k}") for k in changed}
        for k, table in tables.items():
            b.compute(table, lambda i, axis=axes[k]: axis.kept(axis.first(axis.coordinate(i))))

        def value(*i: Var) -> Expr:
            source = [tables[k][index] if k in tables else index for k, index in enumerate(i)]
            return self._bounded(x[tuple(source)], i, axes, changed)

        b.compute(out, value)
        return b.build()

    def _pass(self, b: LoopBuilder, x: Buffer, found: Buffer, axis: ResizedAxis, k: int) -> Buffer:
        """Resample axis ``k`` into ``found``."""
        dtype = found.dtype
        taps = axis.taps
        weights = b.temp((axis.count, taps), dtype, f"weights{k}")

        def weight(i: Expr, tap: Expr) -> Expr:
            place = axis.coordinate(i)
            return axis.weight(place, axis.first(place) + tap)

        if axis.is_normalized:
            sums = b.temp((axis.count,), f64, f"sums{k}")
            b.reduce(sums, (taps,), weight)
            b.compute(
                weights,
                lambda i, tap: cast(
                    weight(i, tap) / select(eq(sums[i], 0.0), 1.0, sums[i]), weights.dtype
                ),
            )
        else:
            b.compute(weights, lambda i, tap: cast(weight(i, tap), weights.dtype))
        sources = b.temp((axis.count, taps), i64, f"sources{k}")
        b.compute(sources, lambda i, tap: axis.kept(axis.first(axis.coordinate(i)) + tap))

        def term(*point: Var) -> Expr:
            *indices, tap = point
            element = x[replaced(indices, k, sources[indices[k], tap])]
            return cast(element, dtype) * weights[indices[k], tap]

        return b.reduce(found, (taps,), term)

    def _bounded(
        self, value: Expr, point: Sequence[Expr], axes: list[ResizedAxis], changed: list[int]
    ) -> Expr:
        """The value, or the extrapolated one outside."""
        if not self._extrapolates or not changed:
            return value
        beyond = [~axes[k].is_outside(axes[k].coordinate(point[k])) for k in changed]
        return select(all_of(beyond), value, Const(self.extrapolation, value.dtype))

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """A product along each axis that changes with the matrix of weights: the unit matrix,
        resized.
        """
        (x,) = args
        (found,) = douts
        for k, axis in enumerate(self._axes(x.shape)):
            if axis.is_identity:
                continue
            pair = counted(x.builder, axis.size, 0, 2), counted(x.builder, axis.size, 1, 2)
            unit = converted(Equal()(*pair), x.dtype)
            region = None if self.region is None else (0.0, axis.region[0], 1.0, axis.region[1])
            resize = Resize(
                (axis.size, axis.count),
                None if axis.scale is None else (1.0, axis.scale),
                self.mode,
                self.coordinates,
                self.nearest,
                self.cubic,
                self.exclude_outside,
                self.antialias,
                region=region,
            )
            found = multiplied_along(found, k, transposed(resize(unit)))
        return (found,)

    @classmethod
    def samples(cls) -> Samples:
        """Every mode and transformation, up and down, in one to three dimensions."""
        image = (example(f32, "n", 2, 4, 5),)
        yield cls((Var("n"), 2, 8, 10), None, "nearest", "asymmetric", "floor"), image
        yield cls((Var("n"), 2, 3, 7), None, "nearest", "half_pixel", "round_prefer_ceil"), image
        yield cls((Var("n"), 2, 7, 4), None, "linear"), image
        yield cls((Var("n"), 2, 7, 1), None, "linear", "align_corners"), image
        yield (
            cls((Var("n"), 2, 6, 3), None, "cubic", "pytorch_half_pixel", exclude_outside=True),
            image,
        )
        line = (example(f32, 2, 5),)
        yield cls((2, 9), (1.0, 1.8), "cubic", "half_pixel", cubic=-0.5), line
        yield cls((2, 3), (1.0, 0.7), "linear", "half_pixel_symmetric"), line
        yield cls((2, 3), None, "linear", antialias=True), line
        yield cls((2, 2), None, "cubic", antialias=True, exclude_outside=True), line
        yield cls((2, 7), None, "nearest", "asymmetric", "ceil"), line
        crop = (0.0, 0.4, 1.0, 1.2)
        yield (
            cls((2, 4), None, "linear", "tf_crop_and_resize", extrapolation=3.0, region=crop),
            line,
        )
        yield cls((1, 2, 3, 4, 3), None, "linear"), (example(f32, 1, 2, 2, 3, 4),)
        yield cls((2, 9), None, "linear"), (example(f16, 2, 4),)


def _coordinate(
    op: Resize, i: int, size: int, count: int, scale: float, ends: tuple[float, float]
) -> float:
    """Where element ``i`` of a result lies, in plain numbers: the formulas of the specification."""
    length = size * scale
    if op.coordinates == "align_corners":
        return 0.0 if count == 1 else i * (size - 1) / (length - 1)
    if op.coordinates == "asymmetric":
        return i / scale if op.scales is not None else i * size / count
    if op.coordinates == "tf_crop_and_resize":
        low, high = ends
        if count == 1:
            return 0.5 * (low + high) * (size - 1)
        return low * (size - 1) + i * (high - low) * (size - 1) / (length - 1)
    place = ((i + 0.5) / scale if op.scales is not None else (i + 0.5) * size / count) - 0.5
    if op.coordinates == "pytorch_half_pixel":
        return place if count > 1 else 0.0
    if op.coordinates == "half_pixel_symmetric":
        return place if op.scales is None else (i + 0.5 - count / 2) / scale + size / 2 - 0.5
    return place


def _nearest(rule: str, place: float, size: int) -> int:
    whole = floor(place)
    part = place - whole
    up = {
        "floor": False,
        "ceil": part > 0,
        "round_prefer_floor": part > 0.5,
        "round_prefer_ceil": part >= 0.5,
    }[rule]
    return min(max(whole + up, 0), size - 1)


def _row(op: Resize, place: float, size: int, scale: float) -> np.ndarray:
    """The weights of all elements of an axis for one coordinate."""
    row = np.zeros(size)
    shrink = min(scale, 1.0) if op.antialias else 1.0
    radius = (1 if op.mode == "linear" else 2) / shrink
    total = 0.0
    for index in range(floor(place - radius), floor(place + radius) + 2):
        d = abs(index - place) * shrink
        if op.mode == "linear":
            weight = max(0.0, 1 - d)
        elif d <= 1:
            weight = (op.cubic + 2) * d**3 - (op.cubic + 3) * d**2 + 1
        else:
            weight = op.cubic * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0
        if op.exclude_outside and not 0 <= index < size:
            continue
        row[min(max(index, 0), size - 1)] += weight
        total += weight
    return row / total if (op.antialias or op.exclude_outside) and total else row
