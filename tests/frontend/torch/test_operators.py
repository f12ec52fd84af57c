"""Every converter gives what eager PyTorch gives, in value, shape and dtype."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor


def floats(*shape, low=-2.0, high=2.0, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator) * (high - low) + low).to(dtype)


def ints(*shape, low=-5, high=6, dtype=torch.int64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator).to(dtype)


def bools(*shape, seed=0):
    return ints(*shape, low=0, high=2, seed=seed).bool()


class Case(NamedTuple):
    name: str
    function: Callable[..., Any]
    inputs: tuple[Tensor, ...]


def case(name, function, *inputs):
    return Case(name, function, inputs)


X = floats(2, 3, 4)
Y = floats(2, 3, 4, seed=1)
POSITIVE = floats(2, 3, low=0.2, high=3.0)
UNIT = floats(2, 3, low=-0.9, high=0.9)
I = ints(2, 3)  # noqa: E741
B = bools(2, 3)

UNARY = [
    case(name, getattr(torch, name), POSITIVE)
    for name in (
        *("abs", "neg", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt"),
        *("reciprocal", "square", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asinh", "erf"),
        *("erfc", "lgamma", "floor", "ceil", "trunc", "round", "sign", "sgn", "isnan", "isinf"),
        *("isfinite", "sigmoid", "relu", "frac", "deg2rad"),
    )
] + [
    case(name, getattr(torch, name), UNIT)
    for name in ("asin", "acos", "atan", "atanh", "erfinv", "logit")
]

ACTIVATIONS = [
    case(f.__name__, f, floats(2, 5, low=-4, high=8))
    for f in (
        *(F.relu, F.relu6, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh, F.gelu),
        *(F.leaky_relu, F.elu, F.selu, F.celu, F.softplus, F.softsign, F.logsigmoid, F.tanhshrink),
        *(F.hardshrink, F.softshrink, F.tanh),
    )
] + [
    case("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), X),
    case("elu_alpha", lambda x: F.elu(x, 0.3), X),
    case("threshold", lambda x: F.threshold(x, 0.1, 7.0), X),
    case("glu", lambda x: F.glu(x, -1), X),
    case("prelu", lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3])), X),
    case("clamp", lambda x: x.clamp(-0.5, 0.7), X),
    case("clamp_min", lambda x: x.clamp(min=0.1), X),
    case("clamp_int", lambda x: x.clamp(-2, 3), I),
    case("clamp_int_by_float", lambda x: x.clamp(-1.5, 2.5), I),
    case("clamp_tensors", lambda x, y: torch.clamp(x, y, y + 1), X, Y),
    case("dropout_in_evaluation", lambda x: F.dropout(x, 0.5, training=False), X),
    case("round_decimals", lambda x: torch.round(x, decimals=1), X),
]

BINARY = [
    case("add", lambda a, b: a + b, X, Y),
    case("add_alpha", lambda a, b: torch.add(a, b, alpha=2), X, Y),
    case("add_broadcast", lambda a, b: a + b, X, floats(3, 1)),
    case("add_int_float", lambda a, b: a + b, I, UNIT),
    case("add_int_scalar", lambda a: a + 2, I),
    case("add_int_float_scalar", lambda a: a + 2.5, I),
    case("add_bool_bool", lambda a, b: a + b, B, bools(2, 3, seed=1)),
    case("add_bool_int", lambda a: a + 1, B),
    case("sub", lambda a, b: a - b, X, Y),
    case("rsub", lambda a: 1 - a, X),
    case("rsub_int", lambda a: 1.5 - a, I),
    case("mul_zero_dim", lambda a, b: a * b, I, torch.tensor(2.5)),
    case("mul_zero_dim_wide", lambda a, b: a * b, UNIT, torch.tensor(2.5, dtype=torch.float64)),
    case("div", lambda a, b: a / b, X, POSITIVE[0, 0]),
    case("div_int", lambda a: a / 3, I),
    case("div_floor", lambda a, b: torch.div(a, b, rounding_mode="floor"), I, torch.tensor(3)),
    case("div_trunc", lambda a, b: torch.div(a, b, rounding_mode="trunc"), I, torch.tensor(3)),
    case("div_trunc_float", lambda a, b: torch.div(a, b, rounding_mode="trunc"), X, Y),
    case("floor_divide", lambda a: a // 2, I),
    case("floor_divide_float", lambda a: a // 0.5, UNIT),
    case("remainder", lambda a: a % 3, I),
    case("remainder_float", lambda a: a % 0.7, UNIT),
    case("fmod", lambda a: torch.fmod(a, 3), I),
    case("pow_2", lambda a: a**2, X),
    case("pow_3", lambda a: a**3, X),
    case("pow_half", lambda a: a**0.5, POSITIVE),
    case("pow_minus_half", lambda a: a**-0.5, POSITIVE),
    case("pow_minus_1", lambda a: a**-1.0, POSITIVE),
    case("pow_1", lambda a: a**1, X),
    case("pow_fraction", lambda a: a**1.7, POSITIVE),
    case("pow_int", lambda a: a**2, I),
    case("pow_int_float", lambda a: a**2.0, I),
    case("pow_tensor", torch.pow, POSITIVE, UNIT),
    case("pow_scalar_base", lambda a: 2**a, UNIT),
    case("maximum", torch.maximum, X, Y),
    case("minimum", torch.minimum, X, Y),
    case("max_other", torch.max, X, Y),
    case("atan2", torch.atan2, X, Y),
    case("copysign", torch.copysign, X, Y),
    case("hypot", torch.hypot, X, Y),
    case("lerp", lambda a, b: torch.lerp(a, b, 0.3), X, Y),
    case("addcmul", lambda a, b: torch.addcmul(a, a, b, value=0.5), X, Y),
    case("addcdiv", lambda a, b: torch.addcdiv(a, a, b, value=0.5), X, X.abs() + 1),
    case("eq", lambda a: a == 2, I),
    case("ne_float", lambda a: a != 2.5, I),
    case("lt", lambda a, b: a < b, X, Y),
    case("lt_int_by_float", lambda a: a < 0.5, I),
    case("le_mixed", lambda a, b: a <= b, I, UNIT),
    case("gt", lambda a: a > 0, X),
    case("ge_bool", lambda a: a >= 1, B),
    case("bitwise_and", lambda a, b: a & b, I, ints(2, 3, seed=2)),
    case("bitwise_or_bool", lambda a, b: a | b, B, bools(2, 3, seed=1)),
    case("bitwise_xor", lambda a: a ^ 3, I),
    case("bitwise_not", lambda a: ~a, I),
    case("bitwise_not_bool", lambda a: ~a, B),
    case("shift_left", lambda a: a << 2, I),
    case("shift_right", lambda a: a >> 1, I),
    case("logical_and", torch.logical_and, I, UNIT),
    case("logical_or", torch.logical_or, B, bools(2, 3, seed=1)),
    case("logical_xor", torch.logical_xor, B, bools(2, 3, seed=1)),
    case("logical_not", torch.logical_not, I),
    case("where", torch.where, B, UNIT, POSITIVE),
    case("where_scalar", lambda c, a: torch.where(c, a, 0.0), B, UNIT),
    case("where_promotes", lambda c, a: torch.where(c, a, 1.5), B, I),
    case("masked_fill", lambda a, m: a.masked_fill(m, float("-inf")), UNIT, B),
    case("to_int", lambda a: a.to(torch.int32), X),
    case("to_bool", lambda a: a.bool(), I),
    case("type_as", lambda a, b: a.type_as(b), I, UNIT),
]

HALF = [
    case(f"{dtype}_{name}".removeprefix("torch."), f, floats(3, 5, dtype=dtype))
    for dtype in (torch.bfloat16, torch.float16)
    for name, f in (
        ("scalar", lambda x: x * 0.1 + 1),
        ("exp", torch.exp),
        ("silu", F.silu),
        ("softmax", lambda x: x.softmax(-1)),
        ("softmax_f32", lambda x: x.softmax(-1, dtype=torch.float32)),
        ("sum", lambda x: x.sum(-1)),
        ("mean", lambda x: x.mean(0)),
        ("layer_norm", lambda x: F.layer_norm(x, (5,))),
        ("float", lambda x: x.float()),
    )
]

REDUCTIONS = [
    case("sum", torch.sum, X),
    case("sum_dim", lambda x: x.sum(1), X),
    case("sum_dims_keep", lambda x: x.sum((0, -1), keepdim=True), X),
    case("sum_bool", torch.sum, B),
    case("sum_int32", torch.sum, I.int()),
    case("sum_dtype", lambda x: x.sum(0, dtype=torch.float64), X),
    case("mean", torch.mean, X),
    case("mean_dim", lambda x: x.mean(-1, keepdim=True), X),
    case("mean_dtype", lambda x: x.mean(dtype=torch.float32), I),
    case("prod", torch.prod, X),
    case("prod_dim", lambda x: x.prod(1), X),
    case("amax", lambda x: x.amax((0, 2)), X),
    case("amin", lambda x: x.amin(1, keepdim=True), X),
    case("max", torch.max, X),
    case("min", torch.min, I),
    case("max_dim", lambda x: x.max(1), X),
    case("min_dim_keep", lambda x: x.min(-1, keepdim=True), X),
    case("argmax", torch.argmax, X),
    case("argmax_dim", lambda x: x.argmax(1), X),
    case("argmin_keep", lambda x: x.argmin(-1, keepdim=True), X),
    case("any", torch.any, B),
    case("any_dim", lambda x: x.any(1), I),
    case("all", torch.all, B),
    case("all_dim", lambda x: x.all(0, keepdim=True), B),
    case("var", lambda x: x.var(-1), X),
    case("var_population", lambda x: x.var((0, 1), unbiased=False, keepdim=True), X),
    case("std", torch.std, X),
    case("var_mean", lambda x: torch.var_mean(x, 1), X),
    case("std_mean", lambda x: torch.std_mean(x, 1), X),
    case("norm", torch.norm, X),
    case("norm_1", lambda x: torch.linalg.vector_norm(x, 1, dim=-1), X),
    case("norm_3", lambda x: torch.linalg.vector_norm(x, 3, dim=-1), X),
    case("norm_inf", lambda x: torch.linalg.vector_norm(x, float("inf"), dim=-1), X),
    case("norm_0", lambda x: torch.linalg.vector_norm(x, 0, dim=-1), X),
    case("normalize", lambda x: F.normalize(x, dim=1), X),
    case("cosine_similarity", lambda a, b: F.cosine_similarity(a, b, -1), X, Y),
    case("logsumexp", lambda x: torch.logsumexp(x, (0, 1)), X),
    case("softmax", lambda x: x.softmax(1), X),
    case("log_softmax", lambda x: x.log_softmax(-1), X),
    case("cumsum", lambda x: x.cumsum(1), X),
    case("cumsum_bool", lambda x: x.cumsum(1), B),
    case("cumprod", lambda x: x.cumprod(-1), X),
    case("cummax", lambda x: x.cummax(1), X),
    case("cummin", lambda x: x.cummin(1), X),
    case("sort", lambda x: x.sort(-1), X),
    case("sort_descending", lambda x: x.sort(1, descending=True), X),
    case("argsort", lambda x: x.argsort(-1), X),
    case("topk", lambda x: x.topk(2, -1), X),
    case("topk_smallest", lambda x: x.topk(2, 1, largest=False), X),
    case(
        "scalar_reductions", lambda x: (x.sum(), x.mean(), x.amax(), x.argmax()), torch.tensor(2.0)
    ),
    case("scalar_dim", lambda x: (x.sum(-1), x.max(0)), torch.tensor(2.0)),
]

SHAPES = [
    case("view", lambda x: x.view(6, -1), X),
    case("reshape", lambda x: x.transpose(0, 1).reshape(-1), X),
    case("flatten", lambda x: x.flatten(1), X),
    case("unflatten", lambda x: x.unflatten(-1, (2, 2)), X),
    case("unsqueeze", lambda x: x.unsqueeze(-2), X),
    case("squeeze", lambda x: x.squeeze(), floats(1, 3, 1)),
    case("squeeze_dim", lambda x: x.squeeze(0), floats(1, 3, 1)),
    case("expand", lambda x: x.expand(2, -1, 4), floats(3, 1)),
    case("permute", lambda x: x.permute(2, 0, -2), X),
    case("transpose", lambda x: x.transpose(-1, 0), X),
    case("t", lambda x: x.t(), I),
    case("movedim", lambda x: x.movedim(0, -1), X),
    case("slice", lambda x: x[:, 1:3], X),
    case("slice_step", lambda x: x[..., 1::2], X),
    case("slice_negative", lambda x: x[:, -2:, :-1], X),
    case("slice_beyond", lambda x: x[1:100, 5:], X),
    case("select", lambda x: x[1], X),
    case("select_negative", lambda x: x[..., -1], X),
    case("narrow", lambda x: x.narrow(1, 1, 2), X),
    case("none_index", lambda x: x[:, None, 0], X),
    case("split", lambda x: x.split(3, -1), X),
    case("split_sizes", lambda x: x.split([1, 3], -1), X),
    case("chunk", lambda x: x.chunk(2, 1), X),
    case("unbind", lambda x: x.unbind(1), X),
    case("cat", lambda a, b: torch.cat((a, b, a), 1), X, Y),
    case("cat_promotes", lambda a, b: torch.cat((a, b)), I, UNIT),
    case("stack", lambda a, b: torch.stack((a, b), -1), X, Y),
    case("repeat", lambda x: x.repeat(2, 1, 3, 1), X),
    case("tile", lambda x: x.tile(2, 2), X),
    case("repeat_interleave", lambda x: x.repeat_interleave(3, 1), X),
    case("repeat_interleave_flat", lambda x: x.repeat_interleave(2), X),
    case("flip", lambda x: x.flip(0, -1), X),
    case("roll", lambda x: x.roll((1, -2), (0, 2)), X),
    case("roll_flat", lambda x: x.roll(5), X),
    case("tril", lambda x: x.tril(), X),
    case("triu", lambda x: x.triu(1), X),
    case("unfold", lambda x: x.unfold(2, 2, 1), X),
    case("diagonal", lambda x: x.diagonal(0, 1, 2), X),
    case("diagonal_offset", lambda x: x.diagonal(1, 0, 2), X),
    case("diagonal_below", lambda x: x.diagonal(-1, 1, 2), X),
    case("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), floats(1, 8, 3, 2)),
    case("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), floats(1, 2, 4, 6)),
    case("meshgrid", lambda a, b: torch.meshgrid(a, b, indexing="ij"), floats(3), floats(4)),
    case("channel_shuffle", lambda x: F.channel_shuffle(x, 2), floats(1, 4, 2, 2)),
    case("contiguous", lambda x: x.transpose(0, 1).contiguous().view(3, 8), X),
    case("as_strided_dense", lambda x: torch.as_strided(x, (6, 4), (4, 1)), X),
]

ROWS = ints(4, low=0, high=2)
INDEXING = [
    case("index", lambda x, i: x[i], X, ROWS),
    case("index_inner", lambda x, i: x[:, i], X, ROWS),
    case("index_matrix", lambda x, i: x[i], X, ROWS.view(2, 2)),
    case("index_adjacent", lambda x, i: x[:, i, i], X, ROWS),
    case("index_apart", lambda x, i: x[i, :, i], X, ROWS),
    case("index_broadcast", lambda x, i: x[i[:, None], i[None]], X, ROWS),
    case("index_negative", lambda x, i: x[i], X, ROWS - 2),
    case("index_select", lambda x, i: x.index_select(1, i), X, ROWS),
    case("gather", lambda x, i: x.gather(1, i), I, ints(2, 2, low=0, high=3)),
    case(
        "take_along_dim", lambda x, i: torch.take_along_dim(x, i, 1), I, ints(2, 2, low=0, high=3)
    ),
    case("embedding", lambda w, i: F.embedding(i, w), floats(5, 3), ints(2, 4, low=0, high=5)),
    case("one_hot", lambda i: F.one_hot(i, 5), ints(2, 3, low=0, high=5)),
    case(
        "scatter",
        lambda x, i, s: x.scatter(1, i, s),
        UNIT,
        torch.tensor([[0, 2], [1, 0]]),
        POSITIVE,
    ),
    case("scatter_value", lambda x, i: x.scatter(1, i, 9.0), UNIT, torch.tensor([[0, 2], [1, 0]])),
    case(
        "scatter_add",
        lambda x, i, s: x.scatter_add(1, i, s),
        UNIT,
        ints(2, 3, low=0, high=3),
        POSITIVE,
    ),
    case(
        "scatter_reduce",
        lambda x, i, s: x.scatter_reduce(1, i, s, "amax"),
        *(UNIT, ints(2, 3, low=0, high=3), POSITIVE),
    ),
    case("index_add", lambda x, i, s: x.index_add(0, i, s), floats(3, 2), ROWS, floats(4, 2)),
    case("index_copy", lambda x, i, s: x.index_copy(0, i, s), floats(3, 2), ROWS[:1], floats(1, 2)),
    case("index_fill", lambda x, i: x.index_fill(1, i, 7.0), X, ROWS),
    case(
        "index_put",
        lambda x, i, v: x.index_put((i,), v),
        floats(3, 2),
        torch.tensor([2, 0]),
        floats(2, 2),
    ),
    case(
        "index_put_accumulate",
        lambda x, i, v: x.index_put((i, i), v, accumulate=True),
        *(floats(3, 3), ROWS, floats(4)),
    ),
    case(
        "index_put_mask", lambda x, m: torch.ops.aten.index_put(x, [m], torch.tensor(3.0)), UNIT, B
    ),
    case("select_scatter", lambda x, s: torch.select_scatter(x, s, 1, -1), X, floats(2, 4)),
    case("slice_scatter", lambda x, s: torch.slice_scatter(x, s, 1, 1, 3), X, floats(2, 2, 4)),
    case(
        "slice_scatter_step", lambda x, s: torch.slice_scatter(x, s, 2, 0, 4, 2), X, floats(2, 3, 2)
    ),
]


def written_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1] = 0
    y[..., 2:].mul_(3)
    y += 1
    return y


CREATION = [
    case("zeros", lambda x: x + torch.zeros(4), X),
    case("ones_like", lambda x: torch.ones_like(x, dtype=torch.int32), X),
    case("full", lambda x: torch.full((2, 2), 1.5) + x.sum(), X),
    case("full_like", lambda x: torch.full_like(x, 3), X),
    case("new_full", lambda x: x.new_full((2,), 3), X),
    case("new_zeros", lambda x: x.new_zeros(3), I),
    case("arange", lambda x: x + torch.arange(4), X),
    case("arange_step", lambda x: x + torch.arange(8, 0, -2), X),
    case("arange_float", lambda x: x + torch.arange(0.0, 1.0, 0.25), X),
    case("linspace", lambda x: x + torch.linspace(0, 1, 4), X),
    case("eye", lambda x: x @ torch.eye(4), X),
    case("constant", lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0]), X),
    case("in_place", written_in_place, X),
]

CONTRACTIONS = [
    case("mm", torch.mm, floats(3, 4), floats(4, 5)),
    case("bmm", torch.bmm, floats(2, 3, 4), floats(2, 4, 5)),
    case("matmul_broadcast", torch.matmul, floats(2, 3, 4), floats(4, 5)),
    case("matmul_batches", torch.matmul, floats(2, 1, 3, 4), floats(5, 4, 2)),
    case("matmul_vector", torch.matmul, X, floats(4)),
    case("mv", torch.mv, floats(3, 4), floats(4)),
    case("dot", torch.dot, floats(4), floats(4, seed=1)),
    case("linear", F.linear, X, floats(5, 4), floats(5)),
    case("linear_no_bias", F.linear, floats(4), floats(5, 4)),
    case(
        "addmm",
        lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2),
        floats(5),
        floats(3, 4),
        floats(4, 5),
    ),
    case("baddbmm", torch.baddbmm, floats(2, 3, 5), floats(2, 3, 4), floats(2, 4, 5)),
    case("outer", torch.outer, floats(3), floats(4)),
    case(
        "einsum",
        lambda a, b: torch.einsum("bhid,bhjd->bhij", a, b),
        floats(2, 2, 3, 4),
        floats(2, 2, 5, 4),
    ),
    case("einsum_spaces", lambda a, b: torch.einsum("b i d, d e -> b i e", a, b), X, floats(4, 2)),
    case(
        "cdist_by_hand",
        lambda a, b: (a[:, None] - b[None]).pow(2).sum(-1).sqrt(),
        floats(3, 4),
        floats(2, 4),
    ),
]

IMAGE = floats(2, 4, 7, 6)
WINDOWS = [
    case(
        "conv1d",
        lambda x, w, b: F.conv1d(x, w, b, padding=1),
        floats(2, 3, 8),
        floats(5, 3, 3),
        floats(5),
    ),
    case(
        "conv2d", lambda x, w: F.conv2d(x, w, stride=2, padding=(1, 0)), IMAGE, floats(3, 4, 3, 2)
    ),
    case(
        "conv2d_groups",
        lambda x, w: F.conv2d(x, w, groups=2, dilation=2),
        IMAGE,
        floats(4, 2, 2, 2),
    ),
    case("conv2d_same", lambda x, w: F.conv2d(x, w, padding="same"), IMAGE, floats(3, 4, 2, 3)),
    case("conv2d_unbatched", F.conv2d, IMAGE[0], floats(3, 4, 3, 3)),
    case("conv3d", F.conv3d, floats(1, 2, 4, 4, 3), floats(3, 2, 2, 2, 2)),
    case("conv_transpose1d", F.conv_transpose1d, floats(1, 3, 4), floats(3, 2, 3)),
    case(
        "conv_transpose2d",
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1, groups=2),
        *(IMAGE, floats(4, 3, 3, 3)),
    ),
    case("max_pool1d", lambda x: F.max_pool1d(x, 2), floats(1, 2, 7)),
    case("max_pool2d", lambda x: F.max_pool2d(x, 3, 2, 1), IMAGE),
    case("max_pool2d_ceil", lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True), IMAGE),
    case("max_pool2d_indices", lambda x: F.max_pool2d(x, 2, return_indices=True), IMAGE),
    case("max_pool3d", lambda x: F.max_pool3d(x, 2), floats(1, 2, 4, 4, 4)),
    case("avg_pool1d", lambda x: F.avg_pool1d(x, 3, 1, 1), floats(1, 2, 7)),
    case("avg_pool2d", lambda x: F.avg_pool2d(x, (3, 2), 2, 1, count_include_pad=False), IMAGE),
    case("avg_pool2d_divisor", lambda x: F.avg_pool2d(x, 2, divisor_override=3), IMAGE),
    case("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (3, None)), IMAGE),
    case("adaptive_avg_pool_one", lambda x: F.adaptive_avg_pool2d(x, 1), IMAGE),
    case("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, (2, 3)), IMAGE),
    case("unfold_images", lambda x: F.unfold(x, 3, padding=1, stride=2), IMAGE),
    case("fold", lambda x: F.fold(x, (4, 5), 2), floats(1, 8, 12)),
    case("pad", lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), IMAGE),
    case("pad_negative", lambda x: F.pad(x, (-1, 2)), IMAGE),
    case("pad_reflect", lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), IMAGE),
    case("pad_replicate", lambda x: F.pad(x, (1, 2), mode="replicate"), X),
    case("pad_circular", lambda x: F.pad(x, (1, 2), mode="circular"), X),
    case("nearest", lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    case("nearest_size", lambda x: F.interpolate(x, size=(5, 9)), IMAGE),
    case("nearest_exact", lambda x: F.interpolate(x, size=(5, 9), mode="nearest-exact"), IMAGE),
    case("bilinear", lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), IMAGE),
    case(
        "bilinear_corners",
        lambda x: F.interpolate(x, (9, 4), mode="bilinear", align_corners=True),
        IMAGE,
    ),
    case("bicubic", lambda x: F.interpolate(x, (9, 11), mode="bicubic"), IMAGE),
    case("linear_1d", lambda x: F.interpolate(x, 9, mode="linear"), X),
    case(
        "trilinear", lambda x: F.interpolate(x, (3, 5, 4), mode="trilinear"), floats(1, 2, 2, 3, 3)
    ),
    case("antialias", lambda x: F.interpolate(x, (3, 3), mode="bilinear", antialias=True), IMAGE),
    case(
        "grid_sample",
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        IMAGE,
        floats(2, 3, 5, 2),
    ),
    case(
        "grid_sample_nearest",
        lambda x, g: F.grid_sample(x, g, "nearest", "border", align_corners=True),
        *(IMAGE, floats(2, 3, 5, 2)),
    ),
]

C4 = floats(4)
HEADS = floats(2, 4, 5, 8)
NORMALIZATIONS = [
    case("layer_norm", lambda x: F.layer_norm(x, (4,)), X),
    case("layer_norm_affine", lambda x, w, b: F.layer_norm(x, (4,), w, b), X, C4, C4),
    case("layer_norm_bias_only", lambda x, b: F.layer_norm(x, (4,), None, b), X, C4),
    case("layer_norm_two_axes", lambda x: F.layer_norm(x, (3, 4)), X),
    case("rms_norm", lambda x, w: F.rms_norm(x, (4,), w, 1e-6), X, C4),
    case("rms_norm_default", lambda x: F.rms_norm(x, (4,)), X),
    case("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), IMAGE, C4, C4),
    case("instance_norm", lambda x: F.instance_norm(x), IMAGE),
    case(
        "batch_norm",
        lambda x, m, v, w: F.batch_norm(x, m, v.abs() + 1, w),
        *(IMAGE, C4, C4, C4),
    ),
    case("local_response_norm", lambda x: F.local_response_norm(x, 3), IMAGE),
    case("attention", F.scaled_dot_product_attention, HEADS, HEADS, HEADS),
    case(
        "attention_causal", lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True), HEADS
    ),
    case(
        "attention_causal_longer_keys",
        lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True),
        *(HEADS, floats(2, 4, 7, 8)),
    ),
    case(
        "attention_mask",
        lambda q, m: F.scaled_dot_product_attention(q, q, q, m, scale=0.3),
        *(HEADS, bools(2, 1, 5, 5) | torch.eye(5).bool()),
    ),
    case(
        "attention_bias",
        lambda q, m: F.scaled_dot_product_attention(q, q, q, m),
        HEADS,
        floats(5, 5),
    ),
    case(
        "attention_grouped",
        lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True),
        *(HEADS, floats(2, 2, 5, 8)),
    ),
]

FAMILIES = {
    "unary": UNARY,
    "activations": ACTIVATIONS,
    "binary": BINARY,
    "half": HALF,
    "reductions": REDUCTIONS,
    "shapes": SHAPES,
    "indexing": INDEXING,
    "creation": CREATION,
    "contractions": CONTRACTIONS,
    "windows": WINDOWS,
    "normalizations": NORMALIZATIONS,
}

BATCH = 12  # cases that share one export, which costs more than they do


def batches():
    for name, family in FAMILIES.items():
        for k in range(0, len(family), BATCH):
            yield pytest.param(family[k : k + BATCH], id=f"{name}_{k}")


@pytest.mark.parametrize("cases", list(batches()))
def test_operators_agree_with_eager(agrees, cases):
    counts = [len(c.inputs) for c in cases]
    starts = [sum(counts[:k]) for k in range(len(counts))]

    def together(*xs):
        spans = zip(cases, starts, counts, strict=True)
        return [c.function(*xs[start : start + count]) for c, start, count in spans]

    half = cases[0].inputs[0].dtype in (torch.bfloat16, torch.float16)
    tolerance = {} if half else {"rtol": 1e-5, "atol": 1e-5}
    agrees(
        together, *(x for c in cases for x in c.inputs), names=[c.name for c in cases], **tolerance
    )
