"""Samples at computed places: regions of interest and deformed convolutions."""

from collections.abc import Sequence

import numpy as np

from treadle.expr.dtype import f32, i64
from treadle.expr.scalar import Expr, as_expr
from treadle.expr.simplify import simplify
from treadle.frontend.onnx.compose import (
    add,
    along_axis,
    both,
    cast,
    counted,
    expand,
    greater_equal,
    less,
    less_equal,
    matmul,
    maximum,
    minimum,
    mul,
    pick,
    reshape,
    sub,
    where,
)
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.rules import ranked, require
from treadle.frontend.onnx.window import Ints, known_ints, window_of
from treadle.ir.graph_builder import Traced
from treadle.ops import Gather, GatherElements, Max, Mean
from treadle.ops._shapes import product
from treadle.ops.elementwise import Floor


def _clamped(place: Traced, size: Expr) -> Traced:
    last = place.builder.literal(simplify(size - 1), i64)
    return minimum(maximum(place, 0), last)


def _as(x: Traced, value: Expr) -> Traced:
    """A dimension as a number of the dtype of ``x``."""
    return cast(x.builder.literal(value, i64), x.dtype)


def _bilinear(
    flat: Traced, size: Sequence[Expr], y: Traced, x: Traced, inside: bool, largest: bool = False
) -> Traced:
    """Bilinear samples of planes.

    Shapes: flat (…, h w), y and x (…, points) -> (…, points). Taps outside count as zero, unless
    ``inside`` says that places are kept inside before. ``largest`` takes the largest of the
    weighted taps instead of their sum.
    """
    height, width = size
    base_y, base_x = Floor()(y), Floor()(x)
    part_y, part_x = sub(y, base_y), sub(x, base_x)
    result: Traced | None = None
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = add(cast(base_y, i64), dy), add(cast(base_x, i64), dx)
            weight = mul(part_y if dy else sub(1.0, part_y), part_x if dx else sub(1.0, part_x))
            if not inside:
                valid = both(
                    greater_equal(row, 0),
                    less(row, _as(row, height)),
                    greater_equal(column, 0),
                    less(column, _as(column, width)),
                )
                weight = where(valid, weight, 0)
            place = add(mul(_clamped(row, height), _as(row, width)), _clamped(column, width))
            found = mul(GatherElements(flat.ndim - 1)(flat, place), weight)
            result = (
                found
                if result is None
                else maximum(result, found)
                if largest
                else add(result, found)
            )
    assert result is not None
    return result


def _kept(place: Traced, size: Expr) -> tuple[Traced, Traced]:
    """A coordinate of a region of interest moved inside, and whether it counts at all."""
    limit = _as(place, size)
    counts = both(greater_equal(place, -1.0), less_equal(place, limit))
    return minimum(maximum(place, 0.0), sub(limit, 1.0)), counts


# The most samples that are taken of a region.
MOST_SAMPLES = 1 << 24


@converter("RoiAlign", since=10)
def roi_align(
    site: Site,
    x: Traced,
    rois: Traced,
    batch: Traced,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Traced:
    """Averages (or maxima) of bilinear samples in each cell of each region; ``sampling_ratio`` must
    be given."""
    ratio = sampling_ratio or 1
    samples = output_height * output_width * ratio * ratio
    require(0 < samples <= MOST_SAMPLES, f"{samples} samples of a region cannot be taken")
    half = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    count = rois.shape[0]
    corners = sub(mul(rois, spatial_scale), half)
    x1, y1, x2, y2 = (reshape(pick(corners, 1, k), count, 1) for k in range(4))
    height, width = sub(y2, y1), sub(x2, x1)
    if not half:
        height, width = maximum(height, 1.0), maximum(width, 1.0)
    rows, row_counts = _kept(_places(site, y1, height, output_height, ratio), x.shape[2])
    columns, column_counts = _kept(_places(site, x1, width, output_width, ratio), x.shape[3])
    grid = (count, 1, output_height * ratio, output_width * ratio)
    ys = expand(reshape(rows, count, 1, grid[2], 1), grid)
    xs = expand(reshape(columns, count, 1, 1, grid[3]), grid)
    points = grid[2] * grid[3]
    planes = reshape(Gather(0)(x, batch), count, x.shape[1], product(x.shape[2:]))
    shape = (count, x.shape[1], as_expr(points))
    y, c = (expand(reshape(v, count, 1, points), shape) for v in (ys, xs))
    found = _bilinear(planes, x.shape[2:], y, c, inside=True, largest=mode == "max")
    valid = both(
        reshape(row_counts, count, 1, grid[2], 1), reshape(column_counts, count, 1, 1, grid[3])
    )
    found = reshape(found, count, x.shape[1], *grid[2:])
    found = where(valid, found, 0)
    cells = reshape(found, count, x.shape[1], output_height, ratio, output_width, ratio)
    return Max((3, 5))(cells) if mode == "max" else Mean((3, 5))(cells)


def _places(site: Site, start: Traced, size: Traced, cells: int, ratio: int) -> Traced:
    """The coordinates of samples: (regions, cells * ratio)."""
    steps = (np.arange(cells * ratio) + 0.5) / (cells * ratio)
    return add(start, mul(size, site.constant(steps.astype(start.dtype.numpy))))


@converter("DeformConv", since=19)
def deform_conv(
    site: Site,
    x: Traced,
    w: Traced,
    offset: Traced,
    bias: Traced | None = None,
    mask: Traced | None = None,
    *,
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    offset_group: int = 1,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Traced:
    """A convolution of two dimensions whose taps are moved by offsets, each sampled bilinearly."""
    for value, what in ((x, "the input"), (w, "the weight"), (offset, "the offset")):
        ranked(value, 4, what)
    kernel = known_ints(w.shape[2:], "the kernel of a convolution")
    window = window_of(x.shape[2:], kernel, strides, dilations, pads, "NOTSET")
    n, c = x.shape[:2]
    taps = kernel[0] * kernel[1]
    oh, ow = offset.shape[2:]
    moved = reshape(offset, n, offset_group, kernel[0], kernel[1], 2, oh, ow)
    places: list[Traced] = []
    for axis in (0, 1):
        steps = np.arange(kernel[axis]) * window.dilation[axis] - window.pads[axis][0]
        tap = reshape(
            site.constant(steps.astype(np.float32)),
            *[kernel[axis] if k == 2 + axis else 1 for k in range(6)],
        )
        position = mul(cast(counted(x, (oh, ow)[axis]), f32), float(window.stride[axis]))
        regular = cast(add(tap, along_axis(position, 4 + axis, 6)), x.dtype)
        places.append(
            reshape(
                add(pick(moved, 4, axis), regular), n, offset_group, 1, simplify(oh * ow * taps)
            )
        )
    channels = simplify(c // offset_group)
    planes = reshape(x, n, offset_group, channels, product(x.shape[2:]))
    shape = (n, as_expr(offset_group), channels, simplify(oh * ow * taps))
    ys, xs = (expand(p, shape) for p in places)
    found = _bilinear(planes, x.shape[2:], ys, xs, inside=False)
    if mask is not None:
        found = mul(found, reshape(mask, n, offset_group, 1, simplify(oh * ow * taps)))
    columns = reshape(found, n, group, simplify(c // group * taps), simplify(oh * ow))
    weights = reshape(w, group, simplify(w.shape[0] // group), simplify(w.shape[1] * taps))
    result = reshape(matmul(weights, columns), n, w.shape[0], oh, ow)
    return result if bias is None else add(result, reshape(bias, w.shape[0], 1, 1))


CONVERTERS = (roi_align, deform_conv)
