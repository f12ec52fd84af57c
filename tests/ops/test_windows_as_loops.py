"""The loops of windows and sampling compute what their references say, on random fields."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from treadle.expr.dtype import from_numpy
from treadle.expr.scalar import Var
from treadle.ir.interpret import run_tensor
from treadle.ir.op import Op
from treadle.ir.types import tensor
from treadle.ops._interpolation import COORDINATES, NEAREST
from treadle.ops.adaptive_pool import AdaptiveAvgPool, AdaptiveMaxPool
from treadle.ops.columns import Col2im, Im2col
from treadle.ops.convolution import Conv, ConvTranspose
from treadle.ops.grid_sample import GridSample
from treadle.ops.pool import AvgPool, MaxPool
from treadle.ops.resize import Resize

few = settings(max_examples=25, deadline=None)
ranks = st.integers(1, 3)
channels_of_groups = st.sampled_from([(1, 3, 2), (2, 1, 1), (3, 1, 2), (2, 2, 1)])
pairs = st.tuples(st.integers(0, 2), st.integers(0, 2))


def ints(rank: int, low: int, high: int):
    return st.tuples(*[st.integers(low, high)] * rank)


def draw(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(11)
    return [random.uniform(-2, 2, shape).astype(np.float32) for shape in shapes]


def agree(op: Op, *arrays: np.ndarray, symbolic: bool = False) -> None:
    """Loops and reference agree; with ``symbolic`` the first operand's dimensions are symbols."""
    shapes = [a.shape for a in arrays]
    if symbolic:
        kept = shapes[0][1]
        shapes[0] = tuple(kept if k == 1 else Var(f"d{k}") for k in range(arrays[0].ndim))
    types = [tensor(s, from_numpy(a.dtype)) for s, a in zip(shapes, arrays, strict=True)]
    found = run_tensor(op.lower(*types), arrays)
    expected = op.reference(*arrays)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for y, wanted in zip(found, expected, strict=True):
        assert (y.shape, y.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)


def fits(size, kernel, padding, dilation) -> bool:
    axes = zip(size, kernel, padding, dilation, strict=True)
    return all(n + p[0] + p[1] > d * (k - 1) for n, k, p, d in axes)


@few
@given(
    st.data(), ranks, st.sampled_from([(1, 3, 2), (2, 1, 1), (3, 1, 2), (2, 2, 1)]), st.booleans()
)
def test_convolutions(data, rank, channels, symbolic):
    groups, ins, outs = channels
    size, kernel = data.draw(ints(rank, 2, 5)), data.draw(ints(rank, 1, 3))
    stride, dilation = data.draw(ints(rank, 1, 3)), data.draw(ints(rank, 1, 2))
    padding = data.draw(st.tuples(*[pairs] * rank))
    assume(fits(size, kernel, padding, dilation))
    x, w, bias = draw((2, groups * ins, *size), (groups * outs, ins, *kernel), (groups * outs,))
    agree(Conv(stride, padding, dilation, groups), x, w, bias, symbolic=symbolic)


@few
@given(
    st.data(), ranks, st.sampled_from([(1, 3, 2), (2, 1, 1), (3, 1, 2), (2, 2, 1)]), st.booleans()
)
def test_transposed_convolutions(data, rank, channels, symbolic):
    groups, ins, outs = channels
    size, kernel = data.draw(ints(rank, 1, 4)), data.draw(ints(rank, 1, 3))
    stride, dilation = data.draw(ints(rank, 1, 3)), data.draw(ints(rank, 1, 2))
    padding = data.draw(st.tuples(*[pairs] * rank))
    extra = data.draw(ints(rank, 0, 2))
    axes = zip(size, kernel, stride, padding, dilation, extra, strict=True)
    assume(all((n - 1) * s - sum(p) + d * (k - 1) + e + 1 > 0 for n, k, s, p, d, e in axes))
    x, w, bias = draw((2, groups * ins, *size), (groups * ins, outs, *kernel), (groups * outs,))
    agree(ConvTranspose(stride, padding, extra, dilation, groups), x, w, bias, symbolic=symbolic)


@few
@given(st.data(), ranks, st.booleans(), st.booleans(), st.booleans())
def test_pools(data, rank, ceil_mode, include_pad, symbolic):
    size, kernel = data.draw(ints(rank, 2, 7)), data.draw(ints(rank, 1, 3))
    stride, dilation = data.draw(ints(rank, 1, 3)), data.draw(ints(rank, 1, 2))
    padding = tuple(
        (data.draw(st.integers(0, k // 2)), data.draw(st.integers(0, k // 2))) for k in kernel
    )
    assume(fits(size, kernel, padding, dilation))
    (x,) = draw((2, 3, *size))
    fields = (kernel, stride, padding, dilation)
    agree(MaxPool(*fields, ceil_mode, indices=True), x, symbolic=symbolic)
    agree(AvgPool(kernel, stride, padding, ceil_mode, include_pad, dilation), x, symbolic=symbolic)
    agree(Im2col(*fields), x, symbolic=symbolic)
    columns = Im2col(*fields).reference(x)
    agree(Col2im(size, *fields), columns)


@few
@given(st.data(), ranks, st.booleans())
def test_adaptive_pools(data, rank, symbolic):
    size, target = data.draw(ints(rank, 1, 7)), data.draw(ints(rank, 1, 5))
    (x,) = draw((2, 3, *size))
    agree(AdaptiveAvgPool(target), x, symbolic=symbolic)
    agree(AdaptiveMaxPool(target, indices=True), x, symbolic=symbolic)


@settings(max_examples=60, deadline=None)
@given(
    ints(2, 2, 6),
    ints(2, 1, 8),
    st.sampled_from(["linear", "cubic", "antialiased linear", "antialiased cubic", *NEAREST]),
    st.sampled_from(COORDINATES),
    st.booleans(),
    st.booleans(),
)
def test_resize(size, target, mode, coordinates, exclude_outside, symbolic):
    (x,) = draw((2, 3, *size))
    op = Resize(
        (2, 3, *target),
        mode="nearest" if mode in NEAREST else mode.split()[-1],
        coordinates=coordinates,
        nearest=mode if mode in NEAREST else "floor",
        exclude_outside=exclude_outside,
        antialias=mode.startswith("anti"),
        extrapolation=7.0,
        region=(0.0, 0.0, 0.1, 0.2, 1.0, 1.0, 0.8, 1.1),
    )
    # The first axis is not resized, so its dimension must be the number that the field says.
    agree(op, x, symbolic=symbolic and coordinates != "tf_crop_and_resize")


@few
@given(
    ints(2, 1, 5),
    st.sampled_from(["linear", "nearest", "cubic"]),
    st.sampled_from(["zeros", "border", "reflection"]),
    st.booleans(),
)
def test_grid_sample(size, mode, padding, align_corners):
    x, grid = draw((2, 3, *size), (2, 3, 2, 2))
    agree(GridSample(mode, padding, align_corners), x, grid)
