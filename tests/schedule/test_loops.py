"""Split, fuse, reorder, vectorize, unroll, parallel: their effect and their refusals."""

import numpy as np
import pytest

from treadle.base.errors import ScheduleError
from treadle.ir.interpret import run_tensor
from treadle.schedule.loops import Fuse, Parallel, Reorder, Unroll, Vectorize
from treadle.schedule.reduction import DecomposeReduction
from treadle.schedule.split import Split
from treadle.schedule.trace import apply_trace
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

ROW_SUMS = """
    @tensor.function
    def row_sums(X: Buffer[(n, 12), f32], Y: Output[(n,), f32]):
        for i in range(n):
            for j in range(3):
                for k in range(4):
                    with block("Y"):
                        vi = spatial(n, i)
                        vj = reduction(3, j)
                        vk = reduction(4, k)
                        with init():
                            Y[vi] = f32(0.0)
                        Y[vi] = Y[vi] + X[vi, vj * 4 + vk]
"""

SHIFTED = """
    @tensor.function
    def shifted(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
        T = alloc((n + 1, 9), f32)
        for i in range(n):
            for j in range(8):
                with block("T"):
                    ti = spatial(n, i)
                    tj = spatial(8, j)
                    T[ti + 1, tj] = X[ti, tj]
                with block("Y"):
                    yi = spatial(n, i)
                    yj = spatial(8, j)
                    Y[yi, yj] = load(T[yi, yj + 1], mask=(yi > 0) & (yj < 7))
"""
BORDER = """
    @tensor.function
    def border(X: Buffer[(4, 8), f32], Y: Output[(4, 10), f32]):
        for i in range(4):
            for k in range(9):
                with block("Z"):
                    zi = spatial(4, i)
                    zk = spatial(10, k)
                    where(k < 1)
                    Y[zi, zk] = f32(0.0)
            for j in range(8):
                with block("Y"):
                    yi = spatial(4, i)
                    yj = spatial(8, j)
                    Y[yi, yj + 1] = X[yi, yj]
"""
DIGITS = """
    @tensor.function
    def digits(X: Buffer[(4, 8), f32], Y: Output[(4, 8), f32]):
        T = alloc((8,), f32)
        for i in range(4):
            for h in range(4):
                for l in range(2):
                    with block("T"):
                        ti = spatial(4, i)
                        th = spatial(4, h)
                        tl = spatial(2, l)
                        T[th * 2 + tl] = X[ti, th * 2 + tl]
            for j in range(8):
                with block("Y"):
                    yi = spatial(4, i)
                    yj = spatial(8, j)
                    Y[yi, yj] = T[yj]
"""
STRAY = SCALE.replace('with block("Y"):', 'prefetch(X[i, j])\n                with block("Y"):')


def function_of(text):
    return ir(text).tensor_functions[0]


def refusal(instruction, text):
    with pytest.raises(ScheduleError) as caught:
        instruction.check(function_of(text))
    return caught.value


def test_split_guards_only_what_it_cannot_show_to_divide():
    assert_same_ir(
        Split("j", (None, 16)).apply(Split("i", (None, 6)).apply(function_of(SCALE))),
        function_of("""
            @tensor.function
            def scale(X: Buffer[(n, 64), f32], Y: Output[(n, 64), f32]):
                for i_0 in range((n + 5) // 6):
                    for i_1 in range(6):
                        for j_0 in range(4):
                            for j_1 in range(16):
                                with block("Y"):
                                    vi = spatial(n, i_0 * 6 + i_1)
                                    vj = spatial(64, j_0 * 16 + j_1)
                                    where(i_0 * 6 + i_1 < n)
                                    Y[vi, vj] = X[vi, vj] * f32(2.0)
        """),
    )


def test_split_uses_what_the_function_assumes():
    divisible = SCALE.replace(
        "for i in range(n):", "assume(n % 6 == 0)\n        for i in range(n):", 1
    )
    assert "where" not in str(Split("i", (None, 6)).apply(function_of(divisible)))


def test_split_gives_free_names():
    again = Split("i_0", (2, None)).apply(Split("i", (None, 6)).apply(function_of(SCALE)))
    assert "for i_0_0 in range(2)" in str(again)
    renamed = SCALE.replace("j", "i_0")
    assert "for i_0_1 in" in str(Split("i", (None, 6)).apply(function_of(renamed)))


def test_split_guards_statements_outside_blocks():
    text = """
        @tensor.function
        def fill(X: Buffer[(5,), f32], Y: Output[(5,), f32]):
            for i in range(5):
                Y[i] = X[i]
    """
    after = Split("i", (None, 2)).apply(function_of(text))
    x = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(run_tensor(after, [x])[0], x)
    assert "if i_0 * 2 + i_1 < 5:" in str(after)


def test_fuse_gives_quotients_and_remainders():
    assert_same_ir(
        Fuse(("i", "j")).apply(function_of(SCALE)),
        function_of("""
            @tensor.function
            def scale(X: Buffer[(n, 64), f32], Y: Output[(n, 64), f32]):
                for i_j in range(n * 64):
                    with block("Y"):
                        vi = spatial(n, i_j // 64)
                        vj = spatial(64, i_j % 64)
                        Y[vi, vj] = X[vi, vj] * f32(2.0)
        """),
    )


def test_reorder_leaves_unnamed_loops_in_place():
    after = str(Reorder(("k", "i"), reassociate=True).apply(function_of(ROW_SUMS)))
    assert after.index("for k in") < after.index("for j in") < after.index("for i in")


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [(Vectorize("j"), "vectorized"), (Unroll("j"), "unrolled"), (Parallel("i"), "parallel")],
)
def test_kinds_are_marked(instruction, kind):
    assert f"in {kind}(" in str(instruction.apply(function_of(SCALE)))


@pytest.mark.parametrize(
    ("instruction", "text", "code"),
    [
        (Split("z", (None, 2)), SCALE, "E0301"),
        (Split("j", (None, None)), SCALE, "E0303"),
        (Split("j", (0, None)), SCALE, "E0303"),
        (Split("j", (4, 8)), SCALE, "E0303"),
        (Split("i", (4, 8)), SCALE, "E0303"),
        (Split("i", (4,)), SCALE, "E0303"),
        (
            Split("k", (None, 3)),
            ROW_SUMS.replace("spatial(n, i)", "spatial(n, i * 4 + k)"),
            "E0312",
        ),
        (Split("j", (None, 2)), SCALE.replace("j in range", "j in vectorized"), "E0302"),
        (Fuse(("j", "i")), SCALE, "E0304"),
        (Fuse(("i",)), SCALE, "E0304"),
        (Fuse(("i", "j")), SCALE.replace("i in range", "i in parallel"), "E0302"),
        (Fuse(("i", "j")), SCALE.replace("range(64)", "range(i + 1)"), "E0304"),
        (Reorder(("i", "i")), SCALE, "E0304"),
        (Reorder(("j", "i")), SCALE.replace("range(64)", "range(i + 1)"), "E0304"),
        (Reorder(("k", "j")), ROW_SUMS, "E0308"),
        (Reorder(("j", "i")), SHIFTED, "E0307"),
        (Vectorize("i"), SCALE, "E0305"),
        (Unroll("i"), SCALE, "E0305"),
        (Vectorize("k"), ROW_SUMS, "E0306"),
        (Parallel("j"), ROW_SUMS, "E0306"),
        (Vectorize("j"), SHIFTED, "E0307"),
        (Parallel("i"), SHIFTED, "E0307"),
        (Parallel("j"), SCALE.replace("i in range", "i in parallel"), "E0309"),
        (Parallel("i"), SCALE.replace("j in range", "j in parallel"), "E0309"),
        (
            Vectorize("j"),
            SCALE.replace("j * 16", "j").replace("i in range", "i in vectorized"),
            "E0309",
        ),
        (Parallel("j"), SCALE.replace("i in range", "i in vectorized"), "E0309"),
        (Parallel("i"), SCALE.replace("Y[vi, vj] =", "Y[0, vj] ="), "E0311"),
        (Vectorize("j"), SCALE.replace("Y[vi, vj] =", "Y[vi, 0] ="), "E0311"),
        (Unroll("j"), SCALE.replace("j in range", "j in unrolled"), "E0302"),
        (Vectorize("j"), SCALE.replace("j in range", "j in unrolled"), "E0302"),
        (Parallel("j"), SCALE.replace("j in range", "j in vectorized"), "E0302"),
        (Fuse(("i", "j")), SCALE.replace("range(n)", 'thread(n, "blockIdx.x")'), "E0302"),
        (Split("i", (None, 4)), SCALE.replace("range(n)", 'thread(n, "blockIdx.x")'), "E0302"),
        (Fuse(("i", "z")), SCALE, "E0301"),
        (Reorder(("i", "z")), SCALE, "E0301"),
        (Reorder(()), SCALE, "E0304"),
        (
            Reorder(("i", "j")),
            SCALE.replace("for j", "prefetch(X[i, 0])\n            for j"),
            "E0304",
        ),
        (Vectorize("j"), STRAY, "E0310"),
        (Parallel("i"), SCALE.replace("X[vi, vj] *", "Y[0, vj] *"), "E0307"),
        (Parallel("i"), SCALE.replace("X[vi, vj] *", "Y[vi - 1, vj] *"), "E0307"),
        (Vectorize("j"), SCALE.replace("X[vi, vj] *", "Y[vi, vj - 1] *"), "E0307"),
        (Reorder(("j", "i")), SCALE.replace("X[vi, vj] *", "Y[vi - 1, vj + 1] *"), "E0307"),
        (Reorder(("k", "i")), ROW_SUMS.replace("spatial(n, i)", "spatial(n, i // 2)"), "E0308"),
        (Vectorize("j"), SCALE.replace("spatial(64, j)", "spatial(64, j // 2)"), "E0311"),
        (Vectorize("j"), SCALE.replace("spatial(64, j)", "spatial(64, j * j)"), "E0311"),
        (Vectorize("j"), SCALE.replace("spatial(64, j)", "spatial(64, j % 8)"), "E0311"),
    ],
)
def test_refusals(instruction, text, code):
    error = refusal(instruction, text)
    assert error.code == code
    assert error.excerpt


def test_a_refusal_changes_nothing_and_shows_the_loop_and_a_cure():
    function = function_of(SCALE)
    text = str(function)
    with pytest.raises(ScheduleError) as caught:
        Vectorize("i").apply(function)
    shown = str(caught.value)
    assert str(function) == text
    assert "for i in range(n):" in shown
    assert "^^^" in shown
    assert "the extent is n" in shown
    assert 'split("i", (None, 16))' in shown


def test_reassociate_accepts_another_order_of_summation():
    function = function_of(ROW_SUMS)
    after = Reorder(("k", "j"), reassociate=True).apply(function)
    x = np.arange(24, dtype=np.float32).reshape(2, 12)
    np.testing.assert_array_equal(run_tensor(after, [x])[0], x.sum(1))


def test_a_maximum_may_be_reordered():
    text = ROW_SUMS.replace(
        "Y[vi] = Y[vi] + X[vi, vj * 4 + vk]", "Y[vi] = max(Y[vi], X[vi, vj * 4 + vk])"
    )
    assert "for k in" in str(Reorder(("k", "j")).apply(function_of(text)))


def test_a_loop_that_asks_for_memory_may_run_in_parallel():
    assert "for i in parallel(" in str(Parallel("i").apply(function_of(STRAY)))


def test_blocks_that_write_one_row_at_a_time_run_in_parallel_though_they_may_overlap():
    assert "for i in parallel(4)" in str(Parallel("i").apply(function_of(BORDER)))
    below = BORDER.replace("Y[zi, zk] =", "Y[3 - zi, zk] =")
    assert refusal(Parallel("i"), below).code == "E0307"


def test_what_is_written_digit_by_digit_is_written_before_it_is_read():
    assert "for i in parallel(4)" in str(Parallel("i").apply(function_of(DIGITS)))
    for holes in (
        DIGITS.replace("for l in range(2)", "for l in range(1)"),
        DIGITS.replace("spatial(2, l)", "spatial(2, 0)"),
    ):
        assert refusal(Parallel("i"), holes).code == "E0307"


def test_statements_outside_blocks_are_not_reordered():
    text = SCALE.replace('with block("Y"):', 'prefetch(X[i, j])\n                with block("Y"):')
    assert refusal(Reorder(("j", "i")), text).code == "E0310"


def test_lanes_of_a_reduction_combine_only_when_told_and_when_its_start_stands_elsewhere():
    function = function_of(ROW_SUMS)
    started = DecomposeReduction("Y", "j").apply(function)
    marked = Vectorize("k", reassociate=True).apply(started)
    assert "for k in vectorized(4)" in str(marked)
    with pytest.raises(ScheduleError):
        Vectorize("k").apply(started)
    with pytest.raises(ScheduleError):
        Vectorize("k", reassociate=True).apply(function)


@pytest.mark.parametrize("dims", ["n, m", "n, 5", "3, 5"])
def test_a_fused_and_split_nest_runs_on_threads_and_lanes(dims):
    first, second = dims.split(", ")
    text = f"""
        @tensor.function
        def negate(X: Buffer[({dims}), f32], Y: Output[({dims}), f32]):
            for i in range({first}):
                for j in range({second}):
                    with block("Y"):
                        vi = spatial({first}, i)
                        vj = spatial({second}, j)
                        Y[vi, vj] = -X[vi, vj]
    """
    trace = (Fuse(("i", "j")), Split("i_j", (None, 2, 4)), Parallel("i_j_0"), Vectorize("i_j_2"))
    after = apply_trace(function_of(text), trace)
    x = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_array_equal(run_tensor(after, [x])[0], -x)
