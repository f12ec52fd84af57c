"""Results with channels in front: rows side by side, then transposed."""

import numpy as np
import pytest

from treadle.driver import compile as compile_module
from treadle.expr.dtype import f32
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.interpret import run_tensor
from treadle.ir.module import Module
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops.convolution import Conv, ConvTranspose
from treadle.passes.lower_loops import lower_loops
from treadle.target import Target
from treadle.tune.default import default_schedule

OP = Conv((2, 2), ((0, 0), (0, 0)), (1, 1))


def scheduled(width: int, outputs: int, threads: int = 1) -> TensorFunction:
    function = OP.lower(tensor((1, 3, 9, width), f32), tensor((outputs, 3, 7, 7), f32))
    constants = frozenset(b for b in function.buffers if b.name == "W")
    target = Target.parse("x86-64-v4")
    found = default_schedule(function, target, threads, constants).function
    verify_tensor_function(found)
    return found


def test_results_with_channels_in_front_are_stored_by_transposes():
    assert "shuffle(" in str(scheduled(69, 64))


def test_a_row_shorter_than_a_vector_is_stored_as_it_comes():
    assert "shuffle(" not in str(scheduled(21, 64))


@pytest.mark.parametrize(("width", "outputs"), [(69, 64), (63, 32), (101, 64)])
@pytest.mark.parametrize("threads", [1, 2])
def test_transposed_results_are_the_results(width, outputs, threads):
    found = scheduled(width, outputs, threads)
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (1, 3, 9, width)).astype(np.float32)
    w = rng.integers(-3, 4, (outputs, 3, 7, 7)).astype(np.float32)
    wanted = OP.reference(x, w)
    packed = next(b for b in found.buffers if b.name == "W")
    lanes = int(str(packed.shape[-1]))
    laid = np.zeros((-(-outputs // lanes) * lanes, 3, 7, 7), np.float32)
    laid[:outputs] = w
    laid = laid.reshape(-1, lanes, 3, 7, 7).transpose(0, 2, 3, 4, 1)
    shape = [wanted.shape]
    (y,) = run_tensor(lower_loops(found), [x, np.ascontiguousarray(laid)], out_shapes=shape)
    np.testing.assert_array_equal(y.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("threads", [1, 2])
def test_results_of_groups_are_stored_by_transposes(threads):
    op = Conv((2, 2), ((0, 0), (0, 0)), (1, 1), 2)
    function = op.lower(tensor((1, 32, 3, 58), f32), tensor((64, 16, 3, 3), f32))
    constants = frozenset(b for b in function.buffers if b.name == "W")
    target = Target.parse("x86-64-v4")
    found = default_schedule(function, target, threads, constants).function
    verify_tensor_function(found)
    assert "shuffle(" in str(found)
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (1, 32, 3, 58)).astype(np.float32)
    w = rng.integers(-3, 4, (64, 16, 3, 3)).astype(np.float32)
    packed = next(b for b in found.buffers if b.name == "W")
    assert [str(d) for d in packed.shape] == ["2", "1", "16", "3", "3", "32"]
    laid = w.reshape(2, 32, 16, 3, 3).transpose(0, 2, 3, 4, 1)[:, None]
    wanted = op.reference(x, w)
    (y,) = run_tensor(
        lower_loops(found), [x, np.ascontiguousarray(laid)], out_shapes=[wanted.shape]
    )
    np.testing.assert_array_equal(y.reshape(wanted.shape), wanted)


def test_sums_of_one_dimension_are_held_in_registers():
    op = Conv((2,), ((0, 0),), (1,))
    function = op.lower(tensor((1, 16, 67), f32), tensor((64, 16, 3), f32))
    constants = frozenset(b for b in function.buffers if b.name == "W")
    target = Target.parse("x86-64-v4")
    found = default_schedule(function, target, 1, constants).function
    low = str(lower_loops(found))
    assert "shuffle(" in str(found)
    assert 'f32x16, scope="register")' in low


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", [16, 9])
def test_rows_of_a_transposed_convolution_are_stored_with_those_between_them(width, threads):
    op = ConvTranspose((2, 2), ((1, 1), (1, 1)), (0, 0), (1, 1))
    shape, kernel = (1, 16, 2, width), (16, 32, 4, 4)
    function = op.lower(tensor(shape, f32), tensor(kernel, f32))
    constants = frozenset(b for b in function.buffers if b.name == "W")
    found = default_schedule(function, Target.parse("x86-64-v4"), threads, constants).function
    verify_tensor_function(found)
    assert "shuffle(" in str(found)
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-3, 4, s).astype(np.float32) for s in (shape, kernel))
    b = GraphBuilder("main")
    y = op(b.input("x", tensor(shape, f32)), b.constant("w", w))
    exe = compile_module(Module({"main": b.finish(y)}, dict(b.constants)), threads=threads)
    np.testing.assert_array_equal(exe(x), op.reference(x, w))
