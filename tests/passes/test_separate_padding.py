"""Padding becomes an operation of its own."""

import numpy as np
import pytest

from treadle.expr.dtype import f32, i32
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ir.types import tensor
from treadle.ops import Conv, MaxPool, Pad
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
