"""References of windows, sampling and normalizations against PyTorch, on random fields."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from treadle.ops.adaptive_pool import AdaptiveAvgPool, AdaptiveMaxPool
from treadle.ops.attention import Attention
from treadle.ops.channel_norm import BatchNorm, GroupNorm, InstanceNorm, Lrn
from treadle.ops.columns import Col2im, Im2col
from treadle.ops.contraction import Einsum, Matmul
from treadle.ops.convolution import Conv, ConvTranspose
from treadle.ops.grid_sample import GridSample
from treadle.ops.normalize import LayerNorm, LogSoftmax, RmsNorm, Softmax
from treadle.ops.pool import AvgPool, MaxPool, MaxUnpool
from treadle.ops.resize import Resize

few = settings(max_examples=40, deadline=None)
ranks = st.integers(1, 3)
seeds = st.integers(0, 2**16)


def ints(rank: int, low: int, high: int):
    return st.tuples(*[st.integers(low, high)] * rank)


def draw(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.uniform(-2, 2, shape).astype(np.float32) for shape in shapes]


def tensors(arrays: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(a) for a in arrays]


def both_sides(padding: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((p, p) for p in padding)


def assert_same(found: np.ndarray, expected: torch.Tensor, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(found, expected.numpy(), rtol=tolerance, atol=tolerance)


@few
@given(st.data(), ranks, st.sampled_from([1, 2, 3]), seeds)
def test_conv(data, rank, groups, seed):
    size, kernel = data.draw(ints(rank, 4, 7)), data.draw(ints(rank, 1, 3))
    stride, padding = data.draw(ints(rank, 1, 3)), data.draw(ints(rank, 0, 2))
    dilation = data.draw(ints(rank, 1, 2))
    assume(
        all(
            n + 2 * p > d * (k - 1)
            for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)
        )
    )
    arrays = draw(seed, (2, 2 * groups, *size), (3 * groups, 2, *kernel), (3 * groups,))
    torch_conv = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    expected = torch_conv(*tensors(arrays), stride, padding, dilation, groups)
    assert_same(Conv(stride, both_sides(padding), dilation, groups).reference(*arrays), expected)


@few
@given(st.data(), ranks, st.sampled_from([1, 2, 3]), seeds)
def test_conv_transpose(data, rank, groups, seed):
    size, kernel = data.draw(ints(rank, 2, 5)), data.draw(ints(rank, 1, 3))
    stride, padding = data.draw(ints(rank, 1, 3)), data.draw(ints(rank, 0, 1))
    dilation = data.draw(ints(rank, 1, 2))
    pairs = zip(stride, dilation, strict=True)
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in pairs)
    axes = zip(size, kernel, stride, padding, dilation, extra, strict=True)
    assume(all((n - 1) * s - 2 * p + d * (k - 1) + e + 1 > 0 for n, k, s, p, d, e in axes))
    arrays = draw(seed, (2, 2 * groups, *size), (2 * groups, 3, *kernel), (3 * groups,))
    torch_conv = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    expected = torch_conv(*tensors(arrays), stride, padding, extra, groups, dilation)
    op = ConvTranspose(stride, both_sides(padding), extra, dilation, groups)
    assert_same(op.reference(*arrays), expected)


@few
@given(ints(2, 4, 7), ints(2, 1, 3), ints(2, 1, 2), ints(2, 0, 1), ints(2, 1, 2), seeds)
def test_windows_as_columns_and_back(size, kernel, stride, padding, dilation, seed):
    assume(
        all(
            n + 2 * p > d * (k - 1)
            for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)
        )
    )
    (x,) = draw(seed, (2, 3, *size))
    fields = (kernel, stride, both_sides(padding), dilation)
    columns = F.unfold(torch.from_numpy(x), kernel, dilation, padding, stride)
    assert_same(Im2col(*fields).reference(x), columns)
    back = F.fold(columns, size, kernel, dilation, padding, stride)
    assert_same(Col2im(size, *fields).reference(columns.numpy()), back)


@few
@given(st.data(), ranks, st.booleans(), seeds)
def test_max_pool_and_its_inverse(data, rank, ceil_mode, seed):
    size, kernel = data.draw(ints(rank, 3, 8)), data.draw(ints(rank, 1, 3))
    stride, dilation = data.draw(ints(rank, 1, 3)), data.draw(ints(rank, 1, 2))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    assume(
        all(
            n + 2 * p > d * (k - 1)
            for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)
        )
    )
    (x,) = draw(seed, (2, 3, *size))
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    expected, places = pool(
        torch.from_numpy(x), kernel, stride, padding, dilation, ceil_mode, return_indices=True
    )
    fields = (kernel, stride, both_sides(padding), dilation, ceil_mode)
    y, indices = MaxPool(*fields, indices=True).reference(x)
    assert_same(y, expected)
    np.testing.assert_array_equal(indices, places.numpy())
    np.testing.assert_array_equal(MaxPool(*fields).reference(x), y)
    unpooled = np.zeros((2, 3, int(np.prod(size))), np.float32)
    np.put_along_axis(unpooled, indices.reshape(2, 3, -1), y.reshape(2, 3, -1), 2)
    np.testing.assert_array_equal(MaxUnpool(size).reference(y, indices), unpooled.reshape(x.shape))


@few
@given(st.data(), ranks, st.booleans(), st.booleans(), st.sampled_from([None, 5]), seeds)
def test_avg_pool(data, rank, ceil_mode, include_pad, divisor, seed):
    size, kernel = data.draw(ints(rank, 3, 8)), data.draw(ints(rank, 1, 3))
    stride = data.draw(ints(rank, 1, 3))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    (x,) = draw(seed, (2, 3, *size))
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    given_divisor = () if rank == 1 else (divisor,)
    expected = pool(
        torch.from_numpy(x), kernel, stride, padding, ceil_mode, include_pad, *given_divisor
    )
    op = AvgPool(
        kernel,
        stride,
        both_sides(padding),
        ceil_mode,
        include_pad,
        divisor=None if rank == 1 else divisor,
    )
    assert_same(op.reference(x), expected)


@few
@given(st.data(), ranks, seeds)
def test_adaptive_pools(data, rank, seed):
    size, target = data.draw(ints(rank, 1, 8)), data.draw(ints(rank, 1, 8))
    (x,) = draw(seed, (2, 3, *size))
    average = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[rank - 1]
    assert_same(AdaptiveAvgPool(target).reference(x), average(torch.from_numpy(x), target))
    largest = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[rank - 1]
    expected, places = largest(torch.from_numpy(x), target, return_indices=True)
    y, indices = AdaptiveMaxPool(target, indices=True).reference(x)
    assert_same(y, expected)
    np.testing.assert_array_equal(indices, places.numpy())


@few
@given(st.data(), ranks, st.booleans(), seeds)
def test_resize_interpolates(data, rank, align_corners, seed):
    size, target = data.draw(ints(rank, 1, 7)), data.draw(ints(rank, 1, 9))
    (x,) = draw(seed, (2, 3, *size))
    mode = ("linear", "bilinear", "trilinear")[rank - 1]
    coordinates = "align_corners" if align_corners else "half_pixel"
    expected = F.interpolate(torch.from_numpy(x), target, mode=mode, align_corners=align_corners)
    assert_same(Resize((2, 3, *target), None, "linear", coordinates).reference(x), expected)
    nearest = F.interpolate(torch.from_numpy(x), target, mode="nearest")
    assert_same(
        Resize((2, 3, *target), None, "nearest", "asymmetric", "floor").reference(x), nearest
    )
    exact = F.interpolate(torch.from_numpy(x), target, mode="nearest-exact")
    assert_same(
        Resize((2, 3, *target), None, "nearest", "half_pixel", "round_prefer_ceil").reference(x),
        exact,
    )


@few
@given(ints(2, 2, 7), ints(2, 1, 9), st.booleans(), seeds)
def test_resize_interpolates_cubically(size, target, align_corners, seed):
    (x,) = draw(seed, (2, 3, *size))
    coordinates = "align_corners" if align_corners else "half_pixel"
    expected = F.interpolate(
        torch.from_numpy(x), target, mode="bicubic", align_corners=align_corners
    )
    assert_same(Resize((2, 3, *target), None, "cubic", coordinates).reference(x), expected, 1e-4)


@few
@given(ints(2, 2, 9), ints(2, 2, 9), st.sampled_from(["bilinear", "bicubic"]), seeds)
def test_resize_averages_where_it_shrinks(size, target, mode, seed):
    (x,) = draw(seed, (2, 3, *size))
    expected = F.interpolate(torch.from_numpy(x), target, mode=mode, antialias=True)
    op = Resize(
        (2, 3, *target),
        None,
        mode[2:],
        "half_pixel",
        cubic=-0.5,
        exclude_outside=True,
        antialias=True,
    )
    assert_same(op.reference(x), expected, 1e-4)


@few
@given(ints(2, 3, 7), st.sampled_from([0.5, 0.7, 1.5, 2.0, 2.3]), seeds)
def test_resize_uses_the_scale_that_is_given(size, scale, seed):
    (x,) = draw(seed, (2, 3, *size))
    target = tuple(int(n * scale) for n in size)
    expected = F.interpolate(torch.from_numpy(x), scale_factor=scale, mode="bilinear")
    op = Resize((2, 3, *target), (1.0, 1.0, scale, scale), "linear", "half_pixel")
    assert_same(op.reference(x), expected, 1e-4)


@few
@given(
    ints(2, 1, 6),
    st.sampled_from(["bilinear", "nearest", "bicubic"]),
    st.sampled_from(["zeros", "border", "reflection"]),
    st.booleans(),
    seeds,
)
def test_grid_sample(size, mode, padding, align_corners, seed):
    x, grid = draw(seed, (2, 3, *size), (2, 4, 5, 2))
    expected = F.grid_sample(
        torch.from_numpy(x), torch.from_numpy(grid), mode, padding, align_corners
    )
    op = GridSample(mode.removeprefix("bi"), padding, align_corners)
    assert_same(op.reference(x, grid), expected, 1e-4)


@few
@given(
    ints(3, 1, 4),
    st.sampled_from(["bilinear", "nearest"]),
    st.sampled_from(["zeros", "reflection"]),
    seeds,
)
def test_grid_sample_in_three_dimensions(size, mode, padding, seed):
    x, grid = draw(seed, (2, 1, *size), (2, 2, 3, 2, 3))
    expected = F.grid_sample(torch.from_numpy(x), torch.from_numpy(grid), mode, padding, False)
    assert_same(GridSample(mode.removeprefix("bi"), padding).reference(x, grid), expected, 1e-4)


@few
@given(st.integers(1, 3), st.integers(1, 3), seeds)
def test_normalizations(channels, groups, seed):
    c = channels * groups
    arrays = draw(seed, (2, c, 3, 4), (c,), (c,), (4,), (4,))
    x, w, b, w4, b4 = tensors(arrays)
    assert_same(
        LayerNorm(-1, 1e-5).reference(arrays[0], *arrays[3:]), F.layer_norm(x, (4,), w4, b4)
    )
    assert_same(LayerNorm(2, 1e-5).reference(arrays[0]), F.layer_norm(x, (3, 4)))
    assert_same(RmsNorm(-1, 1e-6).reference(arrays[0], arrays[3]), F.rms_norm(x, (4,), w4, 1e-6))
    assert_same(GroupNorm(groups).reference(*arrays[:3]), F.group_norm(x, groups, w, b))
    assert_same(InstanceNorm().reference(*arrays[:3]), F.instance_norm(x, weight=w, bias=b))
    var = np.abs(arrays[2]) + 0.5
    expected = F.batch_norm(x, b, torch.from_numpy(var), w, b)
    assert_same(BatchNorm().reference(*arrays[:3], arrays[2], var), expected)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_local_response_norm(size):
    (x,) = draw(size, (2, 7, 3, 2))
    expected = F.local_response_norm(torch.from_numpy(x), size, 0.5, 0.75, 2.0)
    assert_same(Lrn(size, 0.5, 0.75, 2.0).reference(x), expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(axis):
    (x,) = draw(3, (3, 4, 5))
    x[0, 0, :2] = -np.inf
    assert_same(Softmax(axis).reference(x), F.softmax(torch.from_numpy(x), axis))
    assert_same(LogSoftmax(axis).reference(x), F.log_softmax(torch.from_numpy(x), axis))


@few
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([(2, 2), (4, 2), (6, 1)]),
    st.booleans(),
    seeds,
)
def test_attention(s, t, heads, causal, seed):
    many, few_heads = heads
    arrays = draw(seed, (2, many, s, 4), (2, few_heads, t, 4), (2, few_heads, t, 3))
    q, k, v = tensors(arrays)
    expected = F.scaled_dot_product_attention(
        q, k, v, is_causal=causal, enable_gqa=many != few_heads
    )
    assert_same(Attention(causal).reference(*arrays), expected)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_attention_with_masks_that_hide_everything_from_a_query(kind):
    arrays = draw(5, (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 5))
    mask = np.random.default_rng(6).random((4, 6)) < 0.5
    mask[2] = False
    if kind == "float":
        mask = np.where(mask, 0.3, -np.inf).astype(np.float32)
    expected = F.scaled_dot_product_attention(*tensors(arrays), torch.from_numpy(mask))
    assert_same(Attention().reference(*arrays, mask), expected)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("b...d,...d->...b", ((2, 3, 4), (3, 4))),
        ("iij->j", ((3, 3, 2),)),
        ("ab,bc,cd->ad", ((2, 3), (3, 4), (4, 2))),
    ],
)
def test_einsum(equation, shapes):
    arrays = draw(1, *shapes)
    assert_same(Einsum(equation).reference(*arrays), torch.einsum(equation, *tensors(arrays)))


def test_matmul_of_vectors_and_batches():
    for shapes in (((3,), (3,)), ((3,), (2, 3, 4)), ((5, 1, 2, 3), (4, 3, 2))):
        arrays = draw(2, *shapes)
        assert_same(Matmul().reference(*arrays), torch.matmul(*tensors(arrays)))
