"""Resampling of images."""

from treadle.expr.scalar import Expr
from treadle.frontend.torch.context import Context, Converter, Number, Unsupported, plain
from treadle.ir.graph_builder import Traced
from treadle.ops.grid_sample import GridSample
from treadle.ops.resize import Resize

Factors = tuple[Number | Expr, ...] | Number | Expr | None


def _resized(
    c: Context,
    x: Traced,
    factors: tuple[Factors, ...],
    mode: str,
    coordinates: str,
    **options: object,
) -> Traced:
    """The node's shape; coordinates follow the factors where the user gave them."""
    scales: tuple[float, ...] | None = None
    given = factors[0] if len(factors) == 1 and isinstance(factors[0], tuple) else factors
    numbers = [f for f in given if f is not None] if isinstance(given, tuple) else [given]
    if numbers and coordinates != "align_corners":
        if any(isinstance(f, Expr) for f in numbers):
            raise Unsupported("a scale that is symbolic")
        scales = (1.0, 1.0, *(float(f) for f in numbers))  # type: ignore[arg-type]  (no expression)
    op = Resize(plain(c.shape), scales, mode, coordinates, **options)  # type: ignore[arg-type]
    return c.emit(op, x)


def _nearest(rank: int, exact: bool) -> Converter:
    """The nearest element; PyTorch's older way rounds the corner down, the exact one the center."""

    def converter(c: Context, x: Traced, size: object, *factors: Factors) -> Traced:
        coordinates = "half_pixel" if exact else "asymmetric"
        rounding = "round_prefer_ceil" if exact else "floor"
        return _resized(c, x, _factors(factors), "nearest", coordinates, nearest=rounding)

    return converter


def _interpolated(mode: str, antialias: bool = False) -> Converter:
    def converter(
        c: Context, x: Traced, size: object, align_corners: bool, *factors: Factors
    ) -> Traced:
        coordinates = "align_corners" if align_corners else "half_pixel"
        cubic = -0.5 if antialias else -0.75
        options = {"cubic": cubic, "antialias": antialias, "exclude_outside": antialias}
        return _resized(c, x, _factors(factors), mode, coordinates, **options)

    return converter


def _factors(factors: tuple[Factors, ...]) -> tuple[Factors, ...]:
    return () if all(f is None for f in factors) else factors


_GRID_MODES = ("linear", "nearest", "cubic")
_GRID_PADDING = ("zeros", "border", "reflection")


def grid_sampler(
    c: Context, x: Traced, grid: Traced, mode: int, padding: int, align_corners: bool
) -> Traced:
    """Samples at places that are data."""
    return c.emit(GridSample(_GRID_MODES[mode], _GRID_PADDING[padding], align_corners), x, grid)


def _both(name: str, converter: Converter) -> dict[str, Converter]:
    return {f"{name}.default": converter, f"{name}.vec": converter}


CONVERTERS: dict[str, Converter] = {
    **{
        k: v
        for n in (1, 2, 3)
        for k, v in _both(f"upsample_nearest{n}d", _nearest(n, False)).items()
    },
    **{
        k: v
        for n in (1, 2, 3)
        for k, v in _both(f"_upsample_nearest_exact{n}d", _nearest(n, True)).items()
    },
    **_both("upsample_linear1d", _interpolated("linear")),
    **_both("upsample_bilinear2d", _interpolated("linear")),
    **_both("upsample_trilinear3d", _interpolated("linear")),
    **_both("upsample_bicubic2d", _interpolated("cubic")),
    **_both("_upsample_bilinear2d_aa", _interpolated("linear", antialias=True)),
    **_both("_upsample_bicubic2d_aa", _interpolated("cubic", antialias=True)),
    "grid_sampler.default": grid_sampler,
    "grid_sampler_2d.default": grid_sampler,
    "grid_sampler_3d.default": grid_sampler,
}
