"""bind: loops over the threads of a GPU, their refusals, and that processors refuse them."""

import numpy as np
import pytest

from treadle.base.errors import LoweringError, ParseError, ScheduleError
from treadle.ir.interpret import run_tensor
from treadle.ir.level import Level, level_of
from treadle.ir.tensor import THREAD_AXES
from treadle.ir.verify import verify_tensor_function
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.loops import Parallel
from treadle.schedule.thread_axes import Bind
from treadle.schedule.trace import Schedule
from treadle.testing import assert_same_ir, ir

SCALE = """
    @tensor.function
    def scale(X: Buffer[(n, 64), f32], Y: Output[(n, 64), f32]):
        for i in range(n):
            for j in range(64):
                with block("Y"):
                    vi = spatial(n, i)
                    vj = spatial(64, j)
                    Y[vi, vj] = X[vi, vj] * f32(2.0)
"""

MAXIMA = """
    @tensor.function
    def maxima(X: Buffer[(n, 64), f32], Y: Output[(n,), f32]):
        for i in range(n):
            for k in range(64):
                with block("Y"):
                    vi = spatial(n, i)
                    vk = reduction(64, k)
                    with init():
                        Y[vi] = f32(0.0)
                    Y[vi] = max(Y[vi], X[vi, vk])
"""
STRAY = SCALE.replace("with", "prefetch(X[i, j])\n                with")
SUMS = MAXIMA.replace("max(Y[vi], X[vi, vk])", "Y[vi] + X[vi, vk]")
PAIR = """
    @tensor.function
    def pair(X: Buffer[(n, 64), f32], Y: Output[(n, 64), f32], Z: Output[(n, 32), f32]):
        for i in thread(n, "blockIdx.x"):
            for j in thread(64, "threadIdx.x"):
                with block("Y"):
                    vi = spatial(n, i)
                    vj = spatial(64, j)
                    Y[vi, vj] = X[vi, vj] * f32(2.0)
            for k in range(32):
                with block("Z"):
                    zi = spatial(n, i)
                    zk = spatial(32, k)
                    Z[zi, zk] = X[zi, zk]
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def test_bound_loops_print_read_back_and_run_one_iteration_after_the_other():
    s = Schedule(function_of(SCALE))
    s.bind("i", "blockIdx.x")
    j_0, j_1 = s.split("j", (None, 16))
    s.bind(j_0, "vthread.y")
    s.bind(j_1, "threadIdx.x")
    assert 'for i in thread(n, "blockIdx.x"):' in str(s.function)
    assert 'for j_0 in thread(4, "vthread.y"):' in str(s.function)
    assert_same_ir(function_of(str(s.function)), s.function)
    verify_tensor_function(s.function)
    x = np.arange(3 * 64, dtype=np.float32).reshape(3, 64)
    np.testing.assert_array_equal(run_tensor(s.function, [x])[0], x * 2)


@pytest.mark.parametrize("axis", THREAD_AXES)
def test_a_processor_refuses_every_thread_axis(axis):
    function = Bind("i", axis).apply(function_of(SCALE))
    assert level_of(function) == Level.LOOP
    with pytest.raises(LoweringError) as caught:
        lower_loops(function)
    assert caught.value.code == "E0404"
    assert axis in str(caught.value)


def test_threads_combine_a_reduction_whose_order_is_free():
    assert "threadIdx.x" in str(Bind("k", "threadIdx.x").apply(function_of(MAXIMA)))
    assert "threadIdx.x" in str(Bind("k", "threadIdx.x", True).apply(function_of(SUMS)))


@pytest.mark.parametrize(
    ("instruction", "text", "code"),
    [
        (Bind("z", "threadIdx.x"), SCALE, "E0301"),
        (Bind("i", "warpIdx.x"), SCALE, "E0355"),
        (Bind("i", "blockIdx.x"), SCALE.replace("range(n)", "parallel(n)"), "E0302"),
        (Bind("j", "blockIdx.x"), SCALE.replace("range(n)", "parallel(n)"), "E0309"),
        (Bind("j", "blockIdx.x"), SCALE.replace("range(n)", 'thread(n, "blockIdx.x")'), "E0309"),
        (Bind("i", "vthread.x"), SCALE.replace("range(64)", 'thread(64, "vthread.x")'), "E0309"),
        (Bind("k", "threadIdx.x"), PAIR, "E0355"),
        (Bind("k", "blockIdx.x"), MAXIMA, "E0306"),
        (Bind("k", "vthread.x"), MAXIMA, "E0306"),
        (Bind("k", "threadIdx.x"), SUMS, "E0308"),
        (Bind("k", "threadIdx.x"), SUMS.replace("Y[vi] + X", "Y[vi] - X"), "E0306"),
        (Bind("i", "blockIdx.x"), SCALE.replace("Y[vi, vj] =", "Y[0, vj] ="), "E0311"),
        (Bind("i", "blockIdx.x"), STRAY, "E0310"),
        (Bind("i", "blockIdx.x"), SCALE.replace("range(64)", "parallel(64)"), "E0309"),
        (Bind("j", "vthread.x"), SCALE.replace("range(n)", "vectorized(n)"), "E0309"),
        (Parallel("j"), SCALE.replace("range(n)", 'thread(n, "blockIdx.x")'), "E0309"),
        (Parallel("i"), SCALE.replace("range(n)", 'thread(n, "blockIdx.x")'), "E0302"),
    ],
)  # fmt: skip
def test_refusals(instruction, text, code):
    with pytest.raises(ScheduleError) as caught:
        instruction.apply(function_of(text))
    assert caught.value.code == code
    assert caught.value.excerpt


def test_loops_of_one_axis_run_equally_often():
    fitting = PAIR.replace("32", "64")
    assert str(Bind("k", "threadIdx.x").apply(function_of(fitting))).count("threadIdx.x") == 2


def test_an_unknown_axis_is_not_read():
    with pytest.raises(ParseError) as caught:
        function_of(SCALE.replace("range(n)", 'thread(n, "blokIdx.x")'))
    assert caught.value.code == "E0004"
