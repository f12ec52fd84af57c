"""Padding becomes an operation of its own."""

import numpy as np
import pytest

from treadle.expr.dtype import f32, i32
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ir.types import tensor
from treadle.ops import Add, Conv, MaxPool, Pad, Relu, Slice
from treadle.passes.separate_padding import separate_padding


def built(op, *types):
    b = GraphBuilder("main")
    inputs = [b.input(f"x{i}", t) for i, t in enumerate(types)]
    return Module({"main": b.finish(op(*inputs))}, b.constants)


SAME = ((1, 1), (2, 0))
CASES = (
    (Conv((1, 1), SAME, (1, 1)), tensor([2, 3, 6, 5], f32), tensor([4, 3, 3, 3], f32)),
    (Conv((2, 1), SAME, (1, 2), 2), tensor([1, 4, 7, 40], f32), tensor([6, 2, 3, 2], f32)),
    (MaxPool((3, 3), (2, 2), SAME, (1, 1)), tensor([2, 3, 6, 5], f32)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0].op_name())
def test_the_result_is_the_same_and_the_padding_an_operation(case):
    op, *types = case
    module = built(op, *types)
    apart = separate_padding(module)
    ops = [type(b.op) for b in apart.graph("main").body]
    assert ops == [Pad, type(op)]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal([int(str(d)) for d in t.dims]).astype(np.float32) for t in types]
    for before, after in zip(
        run(module, "main", *arrays), run(apart, "main", *arrays), strict=True
    ):
        np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "case",
    [
        (Conv((1,), ((0, 0),), (1,)), tensor([1, 2, 5], f32), tensor([3, 2, 3], f32)),
        (MaxPool((3,), (2,), ((1, 1),), (1,)), tensor([1, 2, 5], i32)),
        (MaxPool((3,), (2,), ((1, 1),), (1,), ceil_mode=True), tensor([1, 2, 6], f32)),
    ],
    ids=["nothing added", "integers", "windows that overhang"],
)
def test_what_does_not_pad_floats_stays(case):
    op, *types = case
    module = built(op, *types)
    assert [b.op for b in separate_padding(module).graph("main").body] == [op]


def test_an_operand_is_padded_once_for_equal_paddings():
    b = GraphBuilder("main")
    x, w = b.input("x", tensor([1, 2, 5], f32)), b.input("w", tensor([3, 2, 3], f32))
    conv = Conv((1,), ((1, 1),), (1,))
    module = Module({"main": b.finish(conv(x, w), conv(x, w))}, b.constants)
    ops = [type(x.op) for x in separate_padding(module).graph("main").body]
    assert ops == [Pad, Conv, Conv]


def residual(kernel: int, stride: int = 1) -> Module:
    """A value that is convolved with a border, and read as it is by a sum behind a convolution."""
    b, rng = GraphBuilder("main"), np.random.default_rng(0)

    def conv(x, size, step=1):
        weight = b.constant("w", rng.standard_normal((4, 4, size, size)).astype(np.float32))
        side = size // 2
        return Conv((step, step), ((side, side),) * 2, (1, 1))(x, weight)

    x = Relu()(conv(b.input("x", tensor([1, 4, 8, 8], f32)), 3))
    y = Add()(conv(Relu()(conv(x, 3, stride)), kernel), conv(x, 1, 2) if stride > 1 else x)
    return Module({"main": b.finish(y)}, b.constants)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2)])
def test_a_sum_around_a_block_reads_what_is_stored_with_a_border(kernel, stride):
    module = residual(kernel, stride)
    apart = separate_padding(module)
    body = apart.graph("main").body
    padded = {v for b in body if isinstance(b.op, Pad) for v in b.outputs}
    sources = [b.args[0] for b in body if isinstance(b.op, Pad)]
    assert all(sum(s in b.args for b in body) == 1 for s in sources)
    assert any(isinstance(b.op, Slice) and b.args[0] in padded for b in body)
    x = np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    for before, after in zip(run(module, "main", x), run(apart, "main", x), strict=True):
        np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-5)


def test_points_of_an_image_are_read_as_a_list():
    ops = [type(b.op) for b in separate_padding(residual(1)).graph("main").body]
    assert Slice not in ops
