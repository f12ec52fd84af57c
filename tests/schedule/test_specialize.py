"""specialize: the branches, what they may rely on, and that results stay the same."""

import numpy as np
import pytest

from treadle.base.errors import ScheduleError
from treadle.ir.interpret import run_tensor
from treadle.ir.verify import verify_tensor_function
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.index_map import index_map
from treadle.schedule.layout import TransformLayout
from treadle.schedule.loops import Parallel, Vectorize
from treadle.schedule.specialize import Specialize
from treadle.schedule.split import Split
from treadle.schedule.trace import Schedule, parse_trace, trace_text
from treadle.testing import assert_same_ir, ir

DOUBLE = """
    @tensor.function
    def double(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        for i in range(n):
            with block("Y"):
                vi = spatial(n, i)
                Y[vi] = X[vi] * f32(2.0)
"""
PRODUCT = """
    @tensor.function
    def product(A: Buffer[(m, 8), f32], B: Buffer[(8, 16), f32], Y: Output[(m, 16), f32]):
        T = alloc((m, 16), f32)
        for i in range(m):
            for j in range(16):
                for k in range(8):
                    with block("T"):
                        vi = spatial(m, i)
                        vj = spatial(16, j)
                        vk = reduction(8, k)
                        with init():
                            T[vi, vj] = f32(0.0)
                        T[vi, vj] = T[vi, vj] + A[vi, vk] * B[vk, vj]
        for p in range(m):
            for q in range(16):
                with block("Y"):
                    yp = spatial(m, p)
                    yq = spatial(16, q)
                    Y[yp, yq] = max(T[yp, yq], f32(0.0))
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def tiled(rows):
    """The product in register tiles of so many rows."""
    s = Schedule(function_of(PRODUCT))
    tiles, row = s.split("i", (None, rows))
    s.reorder(tiles, "k", row, "j")
    s.set_scope("T", "register")
    s.reverse_compute_at("Y", tiles)
    s.decompose_reduction("T", "k")
    s.unroll(row)
    s.vectorize("j")
    return s.trace


def test_each_branch_is_the_whole_body_with_names_of_its_own():
    wanted = """
        @tensor.function
        def double(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
            if n <= 8:
                for i_then in parallel(n):
                    with block("Y_then"):
                        vi_then = spatial(n, i_then)
                        Y[vi_then] = X[vi_then] * f32(2.0)
            else:
                for i in range(n):
                    with block("Y"):
                        vi = spatial(n, i)
                        Y[vi] = X[vi] * f32(2.0)
    """
    after = Specialize("n <= 8", (Parallel("i"),)).apply(function_of(DOUBLE))
    assert_same_ir(after, function_of(wanted))


def test_a_value_takes_the_place_of_its_symbol():
    after = Specialize("n == 1").apply(function_of(DOUBLE))
    assert "for i_then in range(1):" in str(after)
    assert "for i in range(n):" in str(after)
    assert "X: Buffer[(n,), f32]" in str(after)


def test_a_branch_may_rely_on_its_condition():
    after = Specialize("n <= 4", (Split("i", (1, 4)),)).apply(function_of(DOUBLE))
    assert "where(i_1_then < n)" in str(after)
    with pytest.raises(ScheduleError, match="E0303"):
        Split("i", (1, 4)).apply(function_of(DOUBLE))


def test_the_other_branch_may_rely_on_the_opposite():
    aligned = DOUBLE.replace("for i in", "assume(n % 4 == 0)\n        for i in")
    after = Specialize("n % 8 != 0", (), (Split("i", (None, 8)),)).apply(function_of(aligned))
    assert "where" not in str(after)


def test_branches_may_be_specialized_further():
    inner = Specialize("n <= 4", (Split("i", (1, 4)),))
    s = Schedule(function_of(DOUBLE))
    s.specialize("n == 1", (), (inner,))
    verify_tensor_function(s.function)
    assert [line.strip() for line in str(s.function).splitlines() if "if n" in line] == [
        "if n == 1:",
        "if n <= 4:",
    ]
    assert parse_trace(trace_text(s.trace)) == s.trace


@pytest.mark.parametrize("m", [0, 1, 2, 3, 4, 7, 8, 9])
def test_results_stay_the_same(m):
    s = Schedule(function_of(PRODUCT))
    s.specialize("m == 1", tiled(1), (Specialize("m <= 3", tiled(3), tiled(4)),))
    lowered = lower_loops(s.function)
    verify_tensor_function(lowered)
    rng = np.random.default_rng(m)
    a, b = (rng.integers(-3, 4, d).astype(np.float32) for d in ((m, 8), (8, 16)))
    for function in (s.function, lowered):
        found = run_tensor(function, [a, b], {"m": m}, out_shapes=[(m, 16)])[0]
        np.testing.assert_array_equal(found, np.maximum(a @ b, 0))


@pytest.mark.parametrize(
    "condition", ["k <= 8", "n +", "n", "1 < 2", "X[0] < f32(1.0)", "n > 1)\n  f("]
)
def test_a_condition_compares_symbols(condition):
    with pytest.raises(ScheduleError, match="E0386") as caught:
        Specialize(condition).apply(function_of(DOUBLE))
    assert caught.value.help == "the symbols are n"


def test_branches_agree_on_the_layout_of_parameters():
    packed = TransformLayout("B", index_map(lambda k, j: (j // 8, k, j % 8)))
    with pytest.raises(ScheduleError, match="E0387"):
        Specialize("m <= 8", (packed,)).apply(function_of(PRODUCT))
    after = Specialize("m <= 8", (packed,), (packed,)).apply(function_of(PRODUCT))
    assert "B: Buffer[(2, 8, 8), f32]" in str(after)


def test_what_a_branch_refuses_is_refused():
    with pytest.raises(ScheduleError, match="E0305"):
        Specialize("n <= 8", (Vectorize("i"),)).apply(function_of(DOUBLE))
