"""decompose_reduction and rfactor: combinations, conditions, and what each refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.expr.dtype import boolean, f32, i32
from treadle.expr.scalar import Var
from treadle.ir.interpret import run_tensor
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops.adaptive_pool import AdaptiveAvgPool
from treadle.ops.reduce import ArgMax
from treadle.schedule.reduction import DecomposeReduction, RFactor
from treadle.schedule.trace import Schedule
from treadle.testing import ir

SUM = """
    @tensor.function
    def total(X: Buffer[(m, 9), f32], Y: Output[(m,), f32]):
        for i in range(m):
            for k in range(9):
                with block("Y"):
                    vi = spatial(m, i)
                    vk = reduction(9, k)
                    with init():
                        Y[vi] = f32(0.0)
                    Y[vi] = Y[vi] + X[vi, vk]
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def folded(combine, dtype):
    b = LoopBuilder("folded")
    x = b.input(tensor((Var("m"), Var("k"), Var("l")), dtype), "X")
    y = b.output((Var("m"),), dtype, "Y")
    b.reduce(y, (Var("k"), Var("l")), lambda i, p, q: x[i, p, q], combine)
    return b.build()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(
        [*((c, i32) for c in ("add", "mul", "min", "max", "and", "or")), ("min", f32),
         ("max", f32), ("and", boolean), ("or", boolean)]
    ),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.integers(2, 4),
    st.integers(0, 1),
    st.booleans(),
)  # fmt: skip
def test_partial_results_of_a_fused_reduction_keep_the_meaning(
    case, sizes, tile, which, decomposed
):
    combine, dtype = case
    before = folded(combine, dtype)
    s = Schedule(before)
    outer, *steps = s.loops()
    loops = s.split(s.fuse(*steps), (None, tile))
    partial = s.rfactor(loops[which])
    if decomposed and which == 1:
        s.decompose_reduction(partial, outer)
    verify_tensor_function(s.function)
    x = np.random.default_rng(5).integers(-3, 4, sizes).astype(dtype.numpy)
    np.testing.assert_array_equal(run_tensor(s.function, [x])[0], run_tensor(before, [x])[0])


@pytest.mark.parametrize("dims", [(7, 7), (Var("n"), Var("m")), (Var("n"), 7)])
@pytest.mark.parametrize("tile", [2, 4, 5])
def test_an_adaptive_pool_is_summed_by_lanes_of_its_fused_window(dims, tile):
    before = AdaptiveAvgPool((3, 2)).lower(tensor((2, 3, *dims), f32))
    s = Schedule(before)
    s.rfactor(s.split(s.fuse("i4", "i5"), (None, tile))[1])
    verify_tensor_function(s.function)
    x = np.random.default_rng(6).integers(-4, 5, (2, 3, 7, 7)).astype(np.float32)
    np.testing.assert_allclose(
        run_tensor(s.function, [x])[0], run_tensor(before, [x])[0], rtol=1e-6
    )


def test_the_place_of_a_maximum_is_found_by_lanes():
    before = ArgMax(1).lower(tensor((Var("m"), 11), f32))
    s = Schedule(before)
    s.rfactor(s.split("i1", (None, 4))[1])
    s.rfactor(s.split("i3", (None, 4))[1])
    x = np.random.default_rng(7).integers(-2, 3, (5, 11)).astype(np.float32)
    np.testing.assert_array_equal(run_tensor(s.function, [x])[0], x.argmax(1))


TWO = SUM.replace(
    "            for k in",
    """            with block("Z"):
                z = spatial(m, i)
                Y[z] = f32(1.0)
            for k in""",
)
AGAIN = (
    SUM
    + """        for o in range(m):
            with block("Z"):
                z = spatial(m, o)
                Y[z] = f32(1.0)
"""
)
START = "                    with init():\n                        Y[vi] = f32(0.0)\n"
GOES_ON = SUM.replace(START, "")
RFACTOR = [
    (SUM.replace("k in range(9)", "k in unrolled(9)"), "k", "E0302"),
    (SUM, "i", "E0306"),
    (SUM.replace("with init():", "where(X[0, 0] > f32(0.0))\n                    with init():"),
     "k", "E0320"),
    (SUM.replace("with init():", "where(m > 3)\n                    with init():"), "k", "E0320"),
    (AGAIN, "k", "E0323"),
    (TWO, "i", "E0329"),
    (SUM.replace("Y[vi] + X", "Y[vi] - X"), "k", "E0332"),
    (GOES_ON, "k", "E0332"),
    (SUM, "z", "E0301"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "loop", "code"), RFACTOR)
def test_refusals_of_rfactor(text, loop, code):
    with pytest.raises(ScheduleError) as caught:
        RFactor(loop).apply(function_of(text))
    assert caught.value.code == code
    assert caught.value.excerpt


STARTED = """
    @tensor.function
    def started(X: Buffer[(m, 9), f32], Y: Output[(m,), f32]):
        S = alloc((m,), f32)
        for i in range(m):
            with block("S"):
                s = spatial(m, i)
                S[s] = X[s, 0]
            for k in range(9):
                with block("Y"):
                    vi = spatial(m, i)
                    vk = reduction(9, k)
                    with init():
                        Y[vi] = S[vi]
                    Y[vi] = Y[vi] + X[vi, vk]
"""
AGAINST = """
    @tensor.function
    def again(X: Buffer[(m, 9), f32], Y: Output[(m,), f32]):
        for r in range(2):
            for i in range(m):
                for k in range(9):
                    with block("Y"):
                        vi = spatial(m, i)
                        vk = reduction(9, k)
                        with init():
                            Y[vi] = f32(0.0)
                        Y[vi] = Y[vi] + X[vi, vk]
"""
DECOMPOSE = [
    (AGAINST, "r", "E0311"),
    (SUM.replace("with init():", "where(X[0, 0] > f32(0.0))\n                    with init():"),
     "k", "E0320"),
    (GOES_ON, "k", "E0321"),
    (AGAIN, "k", "E0323"),
    (STARTED, "i", "E0327"),
    (SUM, "z", "E0301"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "loop", "code"), DECOMPOSE)
def test_refusals_of_decompose_reduction(text, loop, code):
    with pytest.raises(ScheduleError) as caught:
        DecomposeReduction("Y", loop).apply(function_of(text))
    assert caught.value.code == code
    assert caught.value.excerpt
