"""Normalizations and dropout."""

from treadle.base.errors import ModelImportError
from treadle.expr.dtype import boolean, f32
from treadle.expr.simplify import simplify
from treadle.frontend.onnx.compose import (
    add,
    axis_of,
    cast,
    dims_product,
    div,
    element_type,
    equal,
    full,
    greater_equal,
    mul,
    reshape,
    sub,
    total,
    where,
    widened,
)
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.value import Known
from treadle.ir.graph_builder import Traced
from treadle.ops import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Lrn, Mean, RmsNorm, Variance
from treadle.ops._shapes import same_dims
from treadle.ops.elementwise import Abs, Rsqrt, Sqrt, Square
from treadle.ops.random import RandomUniform

# stash_type's default: statistics are computed in f32.
FLOAT = 1


@converter("BatchNormalization", since=14)
def batch_normalization(
    x: Traced,
    scale: Traced,
    bias: Traced,
    mean: Traced,
    variance: Traced,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> tuple[Traced, ...]:
    """By given statistics; in training by those of the batch, with their running averages as
    further results."""
    if not training_mode:
        inner = cast(x, scale.dtype)
        statistics = (cast(v, scale.dtype) for v in (bias, mean, variance))
        return (cast(BatchNorm(epsilon)(inner, scale, *statistics), x.dtype),)
    axes = tuple(k for k in range(x.ndim) if k != 1)
    now, spread = Mean(axes)(x), Variance(axes, correction=0)(x)
    result = BatchNorm(epsilon)(x, scale, bias, now, spread)
    return (
        result,
        add(mul(mean, momentum), mul(now, 1 - momentum)),
        add(mul(variance, momentum), mul(spread, 1 - momentum)),
    )


@converter("BatchNormalization")
def batch_normalization_old(
    x: Traced,
    scale: Traced,
    bias: Traced,
    mean: Traced,
    variance: Traced,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    is_test: int = 1,
) -> Traced:
    """By given statistics, as before opset 14."""
    return BatchNorm(epsilon)(x, scale, bias, mean, variance)


@converter("InstanceNormalization")
def instance_normalization(
    x: Traced, scale: Traced, bias: Traced, *, epsilon: float = 1e-5
) -> Traced:
    """Every channel of every sample by itself."""
    return InstanceNorm(epsilon)(x, scale, bias)


@converter("GroupNormalization", since=18)
def group_normalization(
    x: Traced,
    scale: Traced,
    bias: Traced,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = FLOAT,
) -> Traced:
    """Groups of channels; before opset 21 scale and bias had one number for each group."""
    if same_dims(scale.shape, x.shape[1:2]):
        return GroupNorm(num_groups, epsilon)(x, scale, bias)
    plain = GroupNorm(num_groups, epsilon)(x)
    groups = reshape(
        plain, x.shape[0], num_groups, simplify(dims_product(x.shape[1:]) // num_groups)
    )
    moved = add(mul(groups, reshape(scale, num_groups, 1)), reshape(bias, num_groups, 1))
    return reshape(moved, *x.shape)


@converter("LayerNormalization", since=17)
def layer_normalization(
    site: Site,
    x: Traced,
    scale: Traced,
    bias: Traced | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = FLOAT,
) -> tuple[Traced, ...]:
    """Over the last axes; mean and inverse deviation as further results."""
    first = axis_of(axis, x.ndim)
    fits = same_dims(scale.shape, x.shape[first:]) and (
        bias is None or same_dims(bias.shape, x.shape[first:])
    )
    if fits:
        result = LayerNorm(first, epsilon)(x, scale, *([] if bias is None else [bias]))
    else:
        scaled = mul(LayerNorm(first, epsilon)(x), scale)
        result = scaled if bias is None else add(scaled, bias)
    if not site.wants(1) and not site.wants(2):
        return (result,)
    wide = cast(x, element_type(stash_type))
    axes = tuple(range(first, x.ndim))
    spread = Variance(axes, keepdims=True, correction=0)(wide)
    return result, Mean(axes, keepdims=True)(wide), Rsqrt()(add(spread, epsilon))


@converter("RMSNormalization", since=23)
def rms_normalization(
    x: Traced, scale: Traced, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = FLOAT
) -> Traced:
    """Over the last axes, without the mean."""
    first = axis_of(axis, x.ndim)
    if scale.dtype == x.dtype and same_dims(scale.shape, x.shape[first:]):
        return RmsNorm(first, epsilon)(x, scale)
    plain = RmsNorm(first, epsilon)(x)
    return mul(cast(plain, scale.dtype), scale)


@converter("LRN")
def lrn(
    x: Traced, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Traced:
    """By the squares of neighbouring channels."""
    return Lrn(size, alpha, beta, bias)(x)


@converter("LpNormalization")
def lp_normalization(x: Traced, *, axis: int = -1, p: int = 2) -> Traced:
    """Divided by the p-norm along an axis; zero where that is."""
    k = axis_of(axis, x.ndim)
    wide = widened(x)
    size = (
        Sqrt()(total(Square()(wide), k, keepdims=True))
        if p == 2
        else total(Abs()(wide), k, keepdims=True)
    )
    empty = equal(size, 0)
    return cast(where(empty, 0, div(wide, where(empty, 1, size))), x.dtype)


@converter("MeanVarianceNormalization", since=9)
def mean_variance_normalization(x: Traced, *, axes: tuple[int, ...] = (0, 2, 3)) -> Traced:
    """(x - mean) / (deviation + 1e-9)."""
    wide = widened(x)
    mean = Mean(axes, keepdims=True)(wide)
    deviation = Sqrt()(sub(Mean(axes, keepdims=True)(Square()(wide)), Square()(mean)))
    return cast(div(sub(wide, mean), add(deviation, 1e-9)), x.dtype)


@converter("Dropout", since=12)
def dropout(
    site: Site,
    x: Traced,
    ratio: Known | None = None,
    training_mode: Known | None = None,
    *,
    seed: int | None = None,
) -> tuple[Traced, ...]:
    """Nothing at inference; in training, elements drawn by a seed become zero and the rest
    grows."""
    share = 0.5 if ratio is None else ratio.item()
    if training_mode is None or not training_mode.item() or share == 0.0:
        return (x, full(x, x.shape, True, boolean)) if site.wants(1) else (x,)
    if not 0.0 <= share < 1.0:
        raise ModelImportError(
            "E0605", f"the ratio of a dropout is {share}", help="it must lie in [0, 1)"
        )
    drawn = site.emit(RandomUniform(x.shape, f32, 0.0, 1.0, seed or len(site.builder.body) + 1))
    kept = greater_equal(drawn, share)
    return where(kept, mul(x, 1.0 / (1.0 - share)), 0), kept


@converter("Dropout")
def dropout_old(
    site: Site,
    x: Traced,
    *,
    ratio: float = 0.5,
    is_test: int = 1,
) -> tuple[Traced, ...]:
    """Nothing, as before opset 12."""
    return (x, full(x, x.shape, True, boolean)) if site.wants(1) else (x,)


CONVERTERS = (
    *(batch_normalization, batch_normalization_old, instance_normalization, group_normalization),
    *(layer_normalization, rms_normalization, lrn, lp_normalization, mean_variance_normalization),
    *(dropout, dropout_old),
)
