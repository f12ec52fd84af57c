"""Resampling of images."""

import math

from treadle.base.errors import ModelImportError
from treadle.expr.scalar import Expr, as_expr, int_value
from treadle.expr.simplify import simplify
from treadle.frontend.onnx.compose import axis_of
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.rules import chosen, paired, require
from treadle.frontend.onnx.value import Known
from treadle.frontend.onnx.window import known_ints
from treadle.ir.graph_builder import Traced
from treadle.ops import GridSample, Resize

_LARGEST_SCALE = 2.0**31


def _scaled(size: Expr, scale: float) -> Expr:
    """floor(size * scale); symbols need a whole scale, or one over a whole number."""
    if not math.isfinite(scale) or not 0 < scale < _LARGEST_SCALE:
        raise ModelImportError(
            "E0605",
            f"an image cannot be scaled by {scale}",
            help="scales are positive numbers of a reasonable size",
        )
    known = int_value(size)
    if known is not None:
        return as_expr(int(known * float(scale) + 1e-9) if scale < 1 else int(known * float(scale)))
    if scale == int(scale):
        return simplify(size * int(scale))
    if scale and 1 / scale == int(1 / scale):
        return simplify(size // int(1 / scale))
    raise ModelImportError(
        "E0607",
        f"{scale} times the symbolic size {size} is no dimension",
        help="give the model fixed spatial dimensions",
    )


def _policy(
    x: Traced, axes: list[int], sizes: list[int], policy: str
) -> tuple[list[float], list[int]]:
    """Scales and sizes under a policy that keeps the proportions."""
    old = known_ints([x.shape[a] for a in axes], "a size that keeps the proportions")
    require(0 not in old, "an empty image has no proportions")
    ratios = [new / n for new, n in paired("sizes and axes", sizes, old)]
    if policy == "stretch":
        return ratios, sizes
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [scale] * len(axes), [int(n * scale + 0.5) for n in old]


@converter("Resize", since=11)
def resize(
    x: Traced,
    roi: Known | None = None,
    scales: Known | None = None,
    sizes: Known | None = None,
    *,
    antialias: int = 0,
    axes: tuple[int, ...] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Traced:
    """To given sizes, or by given scales."""
    named = [axis_of(a, x.ndim) for a in axes] if axes is not None else list(range(x.ndim))
    shape, factors = list(x.shape), [1.0] * x.ndim
    given: tuple[float, ...] | None = None
    if scales is not None and scales.array.size:
        for axis, scale in paired("axes and scales", named, scales.floats()):
            factors[axis] = scale
            shape[axis] = _scaled(x.shape[axis], scale)
        given = tuple(factors)
    elif sizes is not None:
        if keep_aspect_ratio_policy == "stretch":
            for axis, size in paired("axes and sizes", named, sizes.sizes()):
                shape[axis] = size
        else:
            found, new = _policy(x, named, list(sizes.ints()), keep_aspect_ratio_policy)
            for axis, scale, size in zip(named, found, new, strict=True):
                factors[axis], shape[axis] = scale, as_expr(size)
            given = tuple(factors)
    return Resize(
        tuple(shape),
        given,
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        bool(exclude_outside),
        bool(antialias),
        extrapolation_value,
        _region(x, roi, named) if coordinate_transformation_mode == "tf_crop_and_resize" else None,
    )(x)


def _region(x: Traced, roi: Known | None, axes: list[int]) -> tuple[float, ...] | None:
    if roi is None or not roi.array.size:
        return None
    values = roi.floats()
    require(len(values) == 2 * len(axes), "a region has a start and an end along each axis")
    starts, stops = [0.0] * x.ndim, [1.0] * x.ndim
    for k, axis in enumerate(axes):
        starts[axis], stops[axis] = values[k], values[k + len(axes)]
    return (*starts, *stops)


@converter("Upsample", since=9)
def upsample(x: Traced, scales: Known, *, mode: str = "nearest") -> Traced:
    """By given scales."""
    factors = scales.floats()
    shape = tuple(_scaled(d, s) for d, s in paired("dimensions and scales", x.shape, factors))
    return Resize(shape, factors, mode, "asymmetric", "floor")(x)


@converter("Upsample", since=7)
def upsample_attribute(x: Traced, *, scales: tuple[float, ...], mode: str = "nearest") -> Traced:
    """By given scales."""
    shape = tuple(_scaled(d, s) for d, s in paired("dimensions and scales", x.shape, scales))
    return Resize(shape, tuple(scales), mode, "asymmetric", "floor")(x)


_MODES = {
    "bilinear": "linear",
    "linear": "linear",
    "nearest": "nearest",
    "bicubic": "cubic",
    "cubic": "cubic",
}


@converter("GridSample", since=16)
def grid_sample(
    x: Traced,
    grid: Traced,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Traced:
    """Samples at the places of a grid."""
    return GridSample(chosen(_MODES, mode, "mode"), padding_mode, bool(align_corners))(x, grid)


CONVERTERS = (resize, upsample, upsample_attribute, grid_sample)
