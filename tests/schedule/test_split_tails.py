"""What becomes of a rest that the factors of a split leave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.ir.analysis import find_loop
from treadle.ir.interpret import run_tensor
from treadle.ir.tensor import For
from treadle.ir.verify import verify_tensor_function
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.compute_at import ReverseComputeAt
from treadle.schedule.loops import Fuse, Unroll, Vectorize
from treadle.schedule.split import TAILS, Split
from treadle.schedule.trace import Schedule, apply_trace
from treadle.testing import assert_same_ir, ir

SCALE = """
    @tensor.function
    def scale(X: Buffer[(n, 40), f32], Y: Output[(n, 40), f32]):
        for i in range(n):
            for j in range(40):
                with block("Y"):
                    vi = spatial(n, i)
                    vj = spatial(40, j)
                    Y[vi, vj] = X[vi, vj] * f32(2.0)
"""

SUMS = """
    @tensor.function
    def sums(X: Buffer[(n, 10), f32], Y: Output[(n,), f32]):
        for i in range(n):
            for k in range(10):
                with block("Y"):
                    vi = spatial(n, i)
                    vk = reduction(10, k)
                    with init():
                        Y[vi] = f32(0.0)
                    Y[vi] = Y[vi] + X[vi, vk]
"""

CHAIN = """
    @tensor.function
    def chain(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
        A = alloc((n, 8), f32)
        B = alloc((n, 8), f32)
        for i in range(n):
            for j in range(8):
                with block("A"):
                    ai = spatial(n, i)
                    aj = spatial(8, j)
                    A[ai, aj] = X[ai, aj] + f32(1.0)
        for p in range(n):
            for q in range(8):
                with block("B"):
                    bp = spatial(n, p)
                    bq = spatial(8, q)
                    B[bp, bq] = A[bp, bq] * f32(3.0)
        for s in range(n):
            for t in range(8):
                with block("Y"):
                    ys = spatial(n, s)
                    yt = spatial(8, t)
                    Y[ys, yt] = B[ys, yt]
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def test_mask_keeps_one_nest_under_its_condition():
    assert_same_ir(
        Split("i", (None, 6), "mask").apply(function_of(SCALE)),
        function_of("""
            @tensor.function
            def scale(X: Buffer[(n, 40), f32], Y: Output[(n, 40), f32]):
                for i_0 in range((n + 5) // 6):
                    for i_1 in range(6, tail="mask"):
                        for j in range(40):
                            with block("Y"):
                                vi = spatial(n, i_0 * 6 + i_1)
                                vj = spatial(40, j)
                                where(i_0 * 6 + i_1 < n)
                                Y[vi, vj] = X[vi, vj] * f32(2.0)
        """),
    )


def test_peel_runs_full_tiles_without_a_condition_and_then_the_rest():
    assert_same_ir(
        Split("i", (None, 6), "peel").apply(function_of(SCALE)),
        function_of("""
            @tensor.function
            def scale(X: Buffer[(n, 40), f32], Y: Output[(n, 40), f32]):
                for i_0 in range(n // 6):
                    for i_1 in range(6):
                        for j in range(40):
                            with block("Y"):
                                vi = spatial(n // 6 * 6, i_0 * 6 + i_1)
                                vj = spatial(40, j)
                                Y[vi, vj] = X[vi, vj] * f32(2.0)
                for i_rest in range(n - n // 6 * 6):
                    for j_rest in range(40):
                        with block("Y_rest"):
                            vi_rest = spatial(n - n // 6 * 6, i_rest)
                            vj_rest = spatial(40, j_rest)
                            Y[vi_rest + n // 6 * 6, vj_rest] = X[vi_rest + n // 6 * 6, vj_rest] * f32(2.0)
        """),  # noqa: E501
    )


def test_peeling_a_reduction_starts_it_once():
    assert_same_ir(
        Split("k", (None, 4), "peel").apply(function_of(SUMS)),
        function_of("""
            @tensor.function
            def sums(X: Buffer[(n, 10), f32], Y: Output[(n,), f32]):
                for i in range(n):
                    for k_0 in range(2):
                        for k_1 in range(4):
                            with block("Y"):
                                vi = spatial(n, i)
                                vk = reduction(8, k_0 * 4 + k_1)
                                with init():
                                    Y[vi] = f32(0.0)
                                Y[vi] = Y[vi] + X[vi, vk]
                    for k_rest in range(2):
                        with block("Y_rest"):
                            vi_rest = spatial(n, i)
                            vk_rest = reduction(2, k_rest)
                            Y[vi_rest] = Y[vi_rest] + X[vi_rest, vk_rest + 8]
        """),
    )


def test_balanced_parts_differ_by_one_at_most():
    after = Split("j", (None, 16), "balanced").apply(function_of(SCALE))
    assert_same_ir(
        after,
        function_of("""
            @tensor.function
            def scale(X: Buffer[(n, 40), f32], Y: Output[(n, 40), f32]):
                for i in range(n):
                    for j_0 in range(1):
                        for j_1 in range(14):
                            with block("Y"):
                                vi = spatial(n, i)
                                vj = spatial(14, j_1)
                                Y[vi, vj] = X[vi, vj] * f32(2.0)
                    for j_rest_0 in range(2):
                        for j_rest_1 in range(13):
                            with block("Y_rest"):
                                vi_rest = spatial(n, i)
                                vj_rest = spatial(26, j_rest_0 * 13 + j_rest_1)
                                Y[vi_rest, vj_rest + 14] = X[vi_rest, vj_rest + 14] * f32(2.0)
        """),
    )


def test_pad_makes_buffers_of_the_function_larger_and_asks_nothing():
    assert_same_ir(
        Split("p", (None, 4), "pad").apply(function_of(CHAIN)),
        function_of("""
            @tensor.function
            def chain(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
                A = alloc(((n + 3) // 4 * 4, 8), f32)
                B = alloc(((n + 3) // 4 * 4, 8), f32)
                for i in range(n):
                    for j in range(8):
                        with block("A"):
                            ai = spatial(n, i)
                            aj = spatial(8, j)
                            A[ai, aj] = X[ai, aj] + f32(1.0)
                for p_0 in range((n + 3) // 4):
                    for p_1 in range(4):
                        for q in range(8):
                            with block("B"):
                                bp = spatial((n + 3) // 4 * 4, p_0 * 4 + p_1)
                                bq = spatial(8, q)
                                B[bp, bq] = A[bp, bq] * f32(3.0)
                for s in range(n):
                    for t in range(8):
                        with block("Y"):
                            ys = spatial(n, s)
                            yt = spatial(8, t)
                            Y[ys, yt] = B[ys, yt]
        """),
    )


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(TAILS),
    st.sampled_from(["i", "j", "p", "q", "k"]),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 13),
)
def test_every_tail_keeps_the_meaning_or_is_refused(tail, loop, factor, outer, n):
    refused = set()
    for text in (CHAIN, SUMS, SCALE):
        before = function_of(text)
        factors = (factor, None) if outer else (None, factor)
        if find_loop(before, loop) is None:
            continue
        try:
            after = Split(loop, factors, tail).apply(before)
        except ScheduleError as error:
            refused.add((tail, error.code))
            continue
        verify_tensor_function(after)
        columns = before.input_buffers[0].shape[1].value
        x = np.arange(n * columns, dtype=np.float32).reshape(n, columns)
        wanted = run_tensor(before, [x])[0]
        np.testing.assert_array_equal(run_tensor(after, [x])[0], wanted)
        low = run_tensor(lower_loops(after), [x], {"n": n}, out_shapes=[wanted.shape])[0]
        np.testing.assert_array_equal(low, wanted)
    assert refused <= {("pad", "E0351"), ("peel", "E0352"), ("balanced", "E0352")}


def test_a_masked_tile_is_lowered_once_and_a_guarded_one_in_versions():
    def lowered(tail):
        trace = (Split("i", (None, 6), tail), Unroll("i_1"))
        return str(lower_loops(apply_trace(function_of(SCALE), trace)))

    assert "if i_0_rows >= 6:" in lowered("mask")
    assert "else:" not in lowered("mask")
    assert "else:" in lowered("guard")


def test_masked_lanes_become_a_mask():
    trace = (Split("i", (None, 8), "mask"), Vectorize("i_1"))
    text = str(lower_loops(apply_trace(function_of(SCALE.replace("40", "1")), trace)))
    assert text.count("mask=") == 2
    assert "if" not in text


def test_peeled_tiles_have_no_condition_after_lowering():
    trace = (Split("i", (None, 6), "peel"), Unroll("i_1"))
    assert "if" not in str(lower_loops(apply_trace(function_of(SCALE), trace)))


@pytest.mark.parametrize("tail", TAILS)
def test_every_tail_is_an_exact_split_where_the_factor_divides(tail):
    found = Split("j", (None, 8), tail).apply(function_of(SCALE))
    assert_same_ir(found, Split("j", (None, 8)).apply(function_of(SCALE)))


def test_split_returns_the_loops_of_the_rest_too():
    s = Schedule(function_of(SCALE))
    assert s.split("i", (None, 6), tail="peel") == ("i_0", "i_1", "i_rest", "j_rest")


@pytest.mark.parametrize(
    ("instruction", "text", "code"),
    [
        (Split("i", (None, 6), "cut"), SCALE, "E0303"),
        (Split("j", (8, 8), "peel"), SCALE, "E0303"),
        (Split("j", (8, 8), "balanced"), SCALE, "E0303"),
        (Split("j", (None, 2, 3), "balanced"), SCALE, "E0303"),
        (Split("i", (None, 6), "pad"), SCALE, "E0351"),
        (Split("p", (None, 4), "pad"), CHAIN.replace("A[bp, bq] *", "X[bp, bq] *"), "E0351"),
        (Split("p", (None, 4), "pad"), CHAIN.replace("B[bp, bq] =", "B[n - 1, bq] ="), "E0351"),
        (Split("p", (None, 4), "pad"), CHAIN.replace("A[bp,", "A[n - 1 - bp,"), "E0351"),
        (Split("k", (None, 4), "pad"), SUMS, "E0351"),
        (Split("k", (None, 4), "peel"), SUMS.replace("10", "m"), "E0352"),
        (Split("i_1", (None, 4), "peel"), None, "E0312"),
        (Split("i_j", (None, 16), "peel"), "fused", "E0312"),
        (Split("i", (None, 4)), SCALE.replace("range(n)", "range(n, hint=1)"), "E0350"),
    ],
)
def test_refusals(instruction, text, code):
    function = function_of(SCALE if text in (None, "fused") else text)
    if text is None:
        function = Split("i", (None, 6)).apply(function)
    elif text == "fused":
        function = Fuse(("i", "j")).apply(function)
    with pytest.raises(ScheduleError) as caught:
        instruction.apply(function)
    assert caught.value.code == code
    assert caught.value.excerpt


def test_padding_where_a_division_could_trap_is_refused():
    text = CHAIN.replace("f32", "i32").replace("A[bp, bq] * i32(3.0)", "i32(7) // A[bp, bq]")
    text = text.replace("i32(1.0)", "i32(1)")
    with pytest.raises(ScheduleError) as caught:
        Split("p", (None, 4), "pad").apply(function_of(text))
    assert caught.value.code == "E0351"
    assert "divide" in str(caught.value)


TRIANGLE = """
    @tensor.function
    def triangle(X: Buffer[(n, n), f32], Y: Output[(n, n), f32]):
        A = alloc((n, n), f32)
        for i in range(n):
            for j in range(n):
                with block("A"):
                    ai = spatial(n, i)
                    aj = spatial(n, j)
                    A[ai, aj] = X[ai, aj]
        for p in range(n):
            for q in range(n - p):
                with block("A2"):
                    bp = spatial(n, p)
                    bq = spatial(n - p, q)
                    A[bp, bq] = A[bp, bq] + f32(1.0)
        for s in range(n):
            for t in range(n):
                with block("Y"):
                    ys = spatial(n, s)
                    yt = spatial(n, t)
                    Y[ys, yt] = A[ys, yt]
"""


@pytest.mark.parametrize("tail", TAILS)
def test_inner_loops_that_depend_on_the_loop_are_split_or_refused(tail):
    before = function_of(TRIANGLE)
    if tail == "pad":
        with pytest.raises(ScheduleError) as caught:
            Split("p", (None, 4), tail).apply(before)
        assert caught.value.code == "E0351"
        return
    after = Split("p", (None, 4), tail).apply(before)
    verify_tensor_function(after)
    x = np.arange(49, dtype=np.float32).reshape(7, 7)
    np.testing.assert_array_equal(run_tensor(after, [x])[0], run_tensor(before, [x])[0])


def test_a_consumer_does_not_follow_one_of_two_parts_that_make_what_it_reads():
    after = Split("p", (None, 4), "peel").apply(function_of(CHAIN))
    for loop in ("p_0", "p_rest"):
        with pytest.raises(ScheduleError) as caught:
            ReverseComputeAt("Y", loop).apply(after)
        assert caught.value.code == "E0323"


def test_a_consumer_does_not_follow_a_writer_that_leaves_elements_to_another():
    text = """
        @tensor.function
        def evens(X: Buffer[(32,), f32], Y: Output[(63,), f32]):
            T = alloc((63,), f32)
            for z in range(63):
                with block("Z"):
                    vz = spatial(63, z)
                    T[vz] = f32(0.0)
            for i in range(32):
                with block("T"):
                    vi = spatial(63, i * 2)
                    T[vi] = f32(1.0)
            for j in range(63):
                with block("Y"):
                    vj = spatial(63, j)
                    Y[vj] = T[vj]
    """
    with pytest.raises(ScheduleError) as caught:
        ReverseComputeAt("Y", "i").apply(function_of(text))
    assert caught.value.code == "E0323"


def test_an_annotation_of_a_masked_tile_stays_with_its_kind():
    after = apply_trace(function_of(SCALE), (Split("i", (None, 6), "mask"), Unroll("i_1")))
    inner = after.body[0].body[0]
    assert isinstance(inner, For)
    assert (inner.kind, inner.annotations) == ("unrolled", (("tail", "mask"),))
