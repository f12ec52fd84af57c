"""Softmax, the normalizations, attention."""

import torch

from treadle.expr.dtype import f32
from treadle.frontend.torch.context import Context, Converter, Size, Unsupported, axis_of
from treadle.frontend.torch.dtypes import to_torch
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op
from treadle.ops.attention import Attention
from treadle.ops.binary import Add
from treadle.ops.channel_norm import BatchNorm, GroupNorm, InstanceNorm
from treadle.ops.elementwise import Rsqrt
from treadle.ops.normalize import LayerNorm, LogSoftmax, RmsNorm, Softmax
from treadle.ops.reduce import Mean, Variance


def _softmax(op: type[Softmax] | type[LogSoftmax]) -> Converter:
    """In the dtype that was asked for, which is the result's."""

    def converter(c: Context, x: Traced, dim: int, *_: object) -> Traced:
        wide = c.cast(x, c.dtype)
        if x.ndim == 0:
            return c.full((), 1.0 if op is Softmax else 0.0, c.dtype)
        return c.emit(op(axis_of(dim, x.ndim)), wide)

    return converter


def _emitted(c: Context, op: Op, *operands: Traced | None) -> Traced:
    """An operation whose operands may differ in precision: computed in f32, rounded once."""
    given = [x for x in operands if x is not None]
    mixed = len({x.dtype for x in given}) > 1
    wide = f32 if mixed else given[0].dtype
    return c.cast(c.emit(op, *(c.cast(x, wide) for x in given)), c.dtype)


def _affine(
    c: Context, x: Traced, shape: tuple[Size, ...], weight: Traced | None, bias: Traced | None
) -> tuple[Traced | None, Traced | None]:
    """A weight where only a bias was given, since operands come in order."""
    if weight is None and bias is not None:
        weight = c.full(shape, 1.0, bias.dtype)
    return weight, bias


def layer_norm(
    c: Context,
    x: Traced,
    shape: tuple[Size, ...],
    weight: Traced | None,
    bias: Traced | None,
    eps: float,
    *_: object,
) -> Traced:
    """Mean zero and variance one over the last axes."""
    weight, bias = _affine(c, x, shape, weight, bias)
    return _emitted(c, LayerNorm(x.ndim - len(shape), eps), x, weight, bias)


def native_layer_norm(
    c: Context,
    x: Traced,
    shape: tuple[Size, ...],
    weight: Traced | None,
    bias: Traced | None,
    eps: float,
) -> tuple[Traced, Traced | None, Traced | None]:
    """The same; mean and deviation, which gradients need, only where they are used."""
    y = layer_norm(c, x, shape, weight, bias, eps)
    if len(c.node.users) < 2:
        return y, None, None
    dtype = c.dtypes[1]
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    wide = c.cast(x, dtype)
    variance = c.emit(Variance(axes, True, 0), wide)
    deviation = c.emit(Rsqrt(), c.emit(Add(), variance, c.literal(eps, dtype)))
    return y, c.emit(Mean(axes, True), wide), deviation


def rms_norm(
    c: Context, x: Traced, shape: tuple[Size, ...], weight: Traced | None, eps: float | None
) -> Traced:
    """Mean square one over the last axes."""
    least = torch.finfo(to_torch(x.dtype)).eps if eps is None else eps
    return _emitted(c, RmsNorm(x.ndim - len(shape), least), x, weight)


def group_norm(
    c: Context,
    x: Traced,
    groups: int,
    weight: Traced | None,
    bias: Traced | None,
    eps: float,
    *_: object,
) -> Traced:
    """Mean zero and variance one over groups of channels."""
    channels = (x.shape[1],)
    if weight is not None and bias is None:
        bias = c.full(channels, 0.0, weight.dtype)
    weight, bias = _affine(c, x, channels, weight, bias)
    return _emitted(c, GroupNorm(groups, eps), x, weight, bias)


def native_group_norm(
    c: Context,
    x: Traced,
    weight: Traced | None,
    bias: Traced | None,
    n: Size,
    channels: Size,
    size: Size,
    groups: int,
    eps: float,
) -> tuple[Traced, None, None]:
    """The same; mean and deviation are left out."""
    return group_norm(c, x, groups, weight, bias, eps), None, None


def batch_norm(
    c: Context,
    x: Traced,
    weight: Traced | None,
    bias: Traced | None,
    mean: Traced | None,
    variance: Traced | None,
    training: bool,
    momentum: float,
    eps: float,
    *_: object,
) -> Traced:
    """With the statistics that training has found."""
    if training or mean is None or variance is None:
        raise Unsupported("batch normalization in training mode; call model.eval()")
    return _batch_norm(c, x, weight, bias, mean, variance, eps)


def _batch_norm(
    c: Context,
    x: Traced,
    weight: Traced | None,
    bias: Traced | None,
    mean: Traced,
    variance: Traced,
    eps: float,
) -> Traced:
    weight = c.full(mean.shape, 1.0, mean.dtype) if weight is None else weight
    bias = c.full(mean.shape, 0.0, mean.dtype) if bias is None else bias
    return _emitted(c, BatchNorm(eps), x, weight, bias, mean, variance)


def batch_norm_inference(
    c: Context,
    x: Traced,
    weight: Traced | None,
    bias: Traced | None,
    mean: Traced,
    variance: Traced,
    momentum: float,
    eps: float,
) -> tuple[Traced, None, None]:
    """The same, as PyTorch decomposes it."""
    return _batch_norm(c, x, weight, bias, mean, variance, eps), None, None


def instance_norm(
    c: Context,
    x: Traced,
    weight: Traced | None,
    bias: Traced | None,
    mean: Traced | None,
    variance: Traced | None,
    use_input: bool,
    momentum: float,
    eps: float,
    *_: object,
) -> Traced:
    """Mean zero and variance one over each channel, or the statistics that training has found."""
    if not use_input:
        if mean is None or variance is None:
            raise Unsupported("no statistics")
        return _batch_norm(c, x, weight, bias, mean, variance, eps)
    channels = (x.shape[1],)
    scale = c.full(channels, 1.0, x.dtype) if weight is None else weight
    shift = c.full(channels, 0.0, x.dtype) if bias is None else bias
    return _emitted(c, InstanceNorm(eps), x, scale, shift)


def attention(
    c: Context,
    query: Traced,
    key: Traced,
    value: Traced,
    mask: Traced | None,
    dropout: float,
    causal: bool,
    scale: float | None,
    grouped: bool,
) -> Traced:
    """Attention by scaled dot products."""
    if dropout:
        raise Unsupported("dropout in training mode; call model.eval()")
    operands = [query, key, value]
    if mask is not None:
        operands.append(mask if mask.dtype.is_bool else c.cast(mask, query.dtype))
    return c.emit(Attention(causal, scale), *operands)


def flash_attention(
    c: Context,
    query: Traced,
    key: Traced,
    value: Traced,
    dropout: float = 0.0,
    causal: bool = False,
    mask: Traced | None = None,
    scale: float | None = None,
) -> tuple[Traced, None]:
    """The same, as PyTorch's own choice of algorithm; what only gradients need is left out."""
    return attention(c, query, key, value, mask, dropout, causal, scale, False), None


CONVERTERS: dict[str, Converter] = {
    "softmax.int": _softmax(Softmax),
    "_softmax.default": _softmax(Softmax),
    "log_softmax.int": _softmax(LogSoftmax),
    "_log_softmax.default": _softmax(LogSoftmax),
    "layer_norm.default": layer_norm,
    "native_layer_norm.default": native_layer_norm,
    "rms_norm.default": rms_norm,
    "group_norm.default": group_norm,
    "native_group_norm.default": native_group_norm,
    "batch_norm.default": batch_norm,
    "_native_batch_norm_legit_no_training.default": batch_norm_inference,
    "instance_norm.default": instance_norm,
    "scaled_dot_product_attention.default": attention,
    "_scaled_dot_product_flash_attention_for_cpu.default": flash_attention,
}
