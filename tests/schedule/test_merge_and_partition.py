"""merge, loop_partition, add_unit_loop, reorder_block_iter_var: their effect and their refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.ir.analysis import find_loop
from treadle.ir.interpret import run_tensor
from treadle.ir.verify import verify_tensor_function
from treadle.schedule.axis_order import ReorderBlockIterVar
from treadle.schedule.merge import Merge
from treadle.schedule.partition import LoopPartition
from treadle.schedule.trace import Schedule, apply_trace
from treadle.schedule.unit_loop import AddUnitLoop
from treadle.testing import assert_same_ir, ir

TWO = """
    @tensor.function
    def two(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
        A = alloc((n, 8), f32)
        for i in range(n):
            for j in range(8):
                with block("A"):
                    ai = spatial(n, i)
                    aj = spatial(8, j)
                    A[ai, aj] = X[ai, aj] + f32(1.0)
        for p in range(n):
            for q in range(8):
                with block("Y"):
                    yp = spatial(n, p)
                    yq = spatial(8, q)
                    Y[yp, yq] = A[yp, yq] * f32(3.0)
"""

SUMS = """
    @tensor.function
    def sums(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
        S = alloc((n,), f32)
        for i in range(n):
            for k in range(8):
                with block("S"):
                    si = spatial(n, i)
                    sk = reduction(8, k)
                    with init():
                        S[si] = f32(0.0)
                    S[si] = S[si] + X[si, sk]
        for p in range(n):
            for q in range(8):
                with block("Y"):
                    yp = spatial(n, p)
                    yq = spatial(8, q)
                    Y[yp, yq] = X[yp, yq] - S[yp]
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def test_merge_runs_what_both_nests_ran():
    assert_same_ir(
        Merge(("j", "q")).apply(function_of(TWO)),
        function_of("""
            @tensor.function
            def two(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
                A = alloc((n, 8), f32)
                for i in range(n):
                    for j in range(8):
                        with block("A"):
                            ai = spatial(n, i)
                            aj = spatial(8, j)
                            A[ai, aj] = X[ai, aj] + f32(1.0)
                        with block("Y"):
                            yp = spatial(n, i)
                            yq = spatial(8, j)
                            Y[yp, yq] = A[yp, yq] * f32(3.0)
        """),
    )


def test_merge_of_outer_loops_keeps_the_inner_ones():
    function = function_of(SUMS)
    after = Merge(("i", "p")).apply(function)
    assert "for p in" not in str(after)
    x = np.arange(24, dtype=np.float32).reshape(3, 8)
    np.testing.assert_array_equal(run_tensor(after, [x])[0], run_tensor(function, [x])[0])


@pytest.mark.parametrize(
    ("instruction", "text", "code"),
    [
        (Merge(("i", "z")), TWO, "E0301"),
        (Merge(("i",)), TWO, "E0304"),
        (Merge(("i", "i")), TWO, "E0304"),
        (Merge(("i", "j")), TWO, "E0304"),
        (Merge(("i", "q")), TWO, "E0304"),
        (Merge(("p", "i")), TWO, "E0304"),
        (Merge(("j", "q")), TWO.replace("q in range(8)", "q in range(7)"), "E0304"),
        (Merge(("j", "q")), TWO.replace("p in range(n)", "p in parallel(n)"), "E0302"),
        (Merge(("i", "p")), TWO.replace("range(n)", "range(n, hint=1)", 1), "E0350"),
        (Merge(("k", "q")), SUMS, "E0307"),
        (Merge(("j", "q")), TWO.replace("A[yp, yq]", "A[n - 1 - yp, yq]"), "E0307"),
        (Merge(("j", "q")), TWO.replace("Y[yp, yq] = A", "A[yp, yq] = X"), "E0307"),
        (Merge(("i", "p")), TWO.replace("for p", "Y[0, 0] = f32(1.0)\n        for p"), "E0304"),
        (LoopPartition("j", (0, 4)), TWO, "E0303"),
        (LoopPartition("j", (4, 4)), TWO, "E0303"),
        (LoopPartition("j", (4, 8)), TWO, "E0303"),
        (LoopPartition("j", ()), TWO, "E0303"),
        (LoopPartition("j", (4,)), TWO.replace("j in range(8)", "j in unrolled(8)"), "E0302"),
        (LoopPartition("j", (4,)), TWO.replace("j in range(8)", "j in range(8, hint=1)"), "E0350"),
        (LoopPartition("i", (4,)), TWO.replace("spatial(n, i)", "spatial(n, n - 1 - i)"), "E0312"),
        (LoopPartition("k", (4,)), SUMS.replace("8", "m"), None),
        (AddUnitLoop("z"), TWO, "E0301"),
        (ReorderBlockIterVar("z", (1, 0)), TWO, "E0301"),
        (ReorderBlockIterVar("A", (1, 1)), TWO, "E0353"),
        (ReorderBlockIterVar("A", (0,)), TWO, "E0353"),
    ],
)  # fmt: skip
def test_refusals(instruction, text, code):
    function = function_of(text)
    if code is None:
        code = "E0352"
        assert "min" in str(LoopPartition("i", (4,)).apply(function))
    with pytest.raises(ScheduleError) as caught:
        instruction.apply(function)
    assert caught.value.code == code
    assert caught.value.excerpt


def test_a_loop_is_cut_at_positions_that_its_extent_may_not_reach():
    assert_same_ir(
        LoopPartition("p", (2,)).apply(function_of(TWO)),
        function_of(
            TWO[: TWO.index("        for p")]
            + """
        for p in range(min(n, 2)):
            for q in range(8):
                with block("Y"):
                    yp = spatial(min(n, 2), p)
                    yq = spatial(8, q)
                    Y[yp, yq] = A[yp, yq] * f32(3.0)
        for p_1 in range(n - min(n, 2)):
            for q_1 in range(8):
                with block("Y_1"):
                    yp_1 = spatial(n - min(n, 2), p_1)
                    yq_1 = spatial(8, q_1)
                    Y[yp_1 + min(n, 2), yq_1] = A[yp_1 + min(n, 2), yq_1] * f32(3.0)
"""
        ),
    )


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["i", "j", "p", "q", "k"]),
    st.lists(st.integers(1, 7), min_size=1, max_size=3, unique=True),
    st.integers(0, 9),
)
def test_partitions_keep_the_meaning(loop, positions, n):
    x = np.arange(n * 8, dtype=np.float32).reshape(n, 8)
    for text in (TWO, SUMS):
        before = function_of(text)
        if find_loop(before, loop) is None:
            continue
        after = LoopPartition(loop, tuple(sorted(positions))).apply(before)
        verify_tensor_function(after)
        np.testing.assert_array_equal(run_tensor(after, [x])[0], run_tensor(before, [x])[0])


def test_a_unit_loop_holds_a_block_or_a_loop():
    s = Schedule(function_of(TWO))
    assert s.add_unit_loop("Y") == "Y_unit"
    assert s.add_unit_loop("i") == "i_unit"
    text = str(s.function)
    assert "for Y_unit in range(1):\n                with block" in text
    assert "for i_unit in range(1):\n        for i in" in text
    verify_tensor_function(s.function)


def test_methods_return_the_loops_that_they_made():
    s = Schedule(function_of(TWO))
    s.merge("j", "q")
    s.reorder_block_iter_var("Y", (1, 0))
    assert s.loop_partition("j", (2, 5)) == ("j_1", "j_2")
    s.prefetch("X", "i", 1)
    assert s.loops() == ("i", "j", "j_1", "j_2")
    assert_same_ir(apply_trace(function_of(TWO), s.trace), s.function)


def test_axes_change_places_and_nothing_else_does():
    before = function_of(TWO)
    after = ReorderBlockIterVar("A", (1, 0)).apply(before)
    swapped = TWO.replace(
        "ai = spatial(n, i)\n                    aj = spatial(8, j)",
        "aj = spatial(8, j)\n                    ai = spatial(n, i)",
    )
    assert_same_ir(after, function_of(swapped))
