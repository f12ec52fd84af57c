"""A transposed convolution by phases: it computes what the reference says, with no wasted work."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.driver import compile as compile_module
from treadle.expr.dtype import f32
from treadle.expr.scalar import Var, int_value
from treadle.ir.analysis import blocks
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.interpret import run_tensor
from treadle.ir.module import Module
from treadle.ir.types import tensor
from treadle.ops.activation import Relu
from treadle.ops.convolution import ConvTranspose

few = settings(max_examples=30, deadline=None)


def draw(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]


def products(op: ConvTranspose, x: tuple[int, ...], w: tuple[int, ...]) -> int:
    """How many products the loops of a transposed convolution compute."""
    function = op.lower(tensor(x, f32), tensor(w, f32))
    found = next(b for b in blocks(function) if b.init)
    return prod(int_value(i.extent) or 0 for i in found.iters)


@few
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),  # stride
            st.integers(1, 3),  # taps of a phase
            st.integers(0, 4),  # padding before
            st.integers(0, 2),  # and after
            st.integers(0, 2),  # more of the result
            st.integers(3, 6),  # size
        ),
        min_size=1,
        max_size=2,
    ),
    st.sampled_from([(1, 3, 2), (2, 1, 2), (3, 1, 1)]),
    st.booleans(),
)
def test_kernels_of_whole_phases_agree_with_the_reference(axes, channels, symbolic):
    groups, ins, outs = channels
    strides, taps, before, after, extra, size = zip(*axes, strict=True)
    kernel = tuple(s * t for s, t in zip(strides, taps, strict=True))
    lost = [max(0, b + a - 2 * s) for s, b, a in zip(strides, before, after, strict=True)]
    size = tuple(n + k for n, k in zip(size, lost, strict=True))
    pads = tuple(zip(before, after, strict=True))
    op = ConvTranspose(strides, pads, extra, (1,) * len(axes), groups)
    x, w, bias = draw((2, groups * ins, *size), (groups * ins, outs, *kernel), (groups * outs,))
    named = (Var("n"), groups * ins, *(Var(f"d{k}") for k in range(len(axes))))
    types = tensor(named if symbolic else x.shape, f32), tensor(w.shape, f32)
    (found,) = run_tensor(op.lower(*types, tensor(bias.shape, f32)), [x, w, bias])
    np.testing.assert_allclose(found, op.reference(x, w, bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_kernel_of_whole_phases_costs_one_product_for_each_tap_of_each_phase(before):
    op = ConvTranspose((2, 2), ((before, 4 - before),) * 2, (2, 2), (1, 1))
    assert products(op, (1, 8, 6, 6), (8, 4, 4, 4)) == 8 * 4 * 12 * 12 * 2 * 2


def test_phases_that_fill_the_result_need_no_copy_of_it():
    op = ConvTranspose((2,), ((1, 1),), (0,), (1,))
    function = op.lower(tensor((1, 8, Var("n")), f32), tensor((8, 4, 4), f32))
    assert [b.name for b in blocks(function)] == ["X_padded", "Y0"]


def test_a_kernel_as_wide_as_the_stride_reads_the_operand_as_it_is():
    op = ConvTranspose((2, 2), ((0, 0),) * 2, (0, 0), (1, 1))
    function = op.lower(tensor((1, 8, 3, 3), f32), tensor((8, 4, 2, 2), f32))
    assert [b.name for b in blocks(function)] == ["Y0"]


@pytest.mark.parametrize(
    ("op", "kernel"),
    [
        (ConvTranspose((2, 2), ((1, 1),) * 2, (0, 0), (1, 1)), (4, 4)),
        (ConvTranspose((3, 3), ((1, 1),) * 2, (0, 1), (1, 1)), (6, 3)),
        (ConvTranspose((2, 2), ((1, 1),) * 2, (1, 1), (1, 1)), (3, 3)),
        (ConvTranspose((2, 1), ((2, 1), (2, 2)), (0, 0), (1, 2)), (2, 3)),
    ],
)
def test_compiled_programs_with_bias_and_activation_agree_with_the_reference(op, kernel):
    x, w, bias = draw((2, 17, 7, 9), (17, 19, *kernel), (19,))
    b = GraphBuilder("main")
    given_x = b.input("x", tensor((Var("n"), 17, 7, 9), f32))
    y = Relu()(op(given_x, b.constant("w", w), b.constant("bias", bias)))
    function = b.finish(y)
    exe = compile_module(Module({"main": function}, dict(b.constants)))
    np.testing.assert_allclose(
        exe(x), np.maximum(op.reference(x, w, bias), 0), rtol=1e-4, atol=1e-4
    )
