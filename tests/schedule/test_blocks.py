"""Moving, inlining, caching, reductions and layouts: their effect and their refusals."""

import numpy as np
import pytest

from treadle.base.errors import ScheduleError
from treadle.ir.interpret import run_tensor
from treadle.schedule.cache import CacheRead, CacheWrite, SetScope
from treadle.schedule.compute_at import ComputeAt, ReverseComputeAt
from treadle.schedule.index_map import index_map
from treadle.schedule.inline import ComputeInline
from treadle.schedule.layout import TransformLayout
from treadle.schedule.loops import Reorder
from treadle.schedule.reduction import DecomposeReduction, RFactor
from treadle.schedule.reverse_inline import ReverseComputeInline
from treadle.schedule.split import Split
from treadle.schedule.trace import apply_trace
from treadle.testing import assert_same_ir, ir

CHAIN = """
    @tensor.function
    def chain(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
        T = alloc((n, 8), f32)
        for i in range(n):
            for j in range(8):
                with block("T"):
                    ti = spatial(n, i)
                    tj = spatial(8, j)
                    T[ti, tj] = load(X[ti, tj], mask=tj > 0) + f32(1.0)
        for k in range(n):
            for l in range(8):
                with block("Y"):
                    yk = spatial(n, k)
                    yl = spatial(8, l)
                    Y[yk, yl] = load(T[yk, 7 - yl], mask=yk < 3) * f32(2.0)
"""

EPILOGUE = """
    @tensor.function
    def epilogue(A: Buffer[(m, 9), f32], B: Buffer[(9, n), f32], Y: Output[(m, n), f32]):
        T = alloc((m, n), f32)
        for i in range(m):
            for j in range(n):
                for k in range(9):
                    with block("T"):
                        vi = spatial(m, i)
                        vj = spatial(n, j)
                        vk = reduction(9, k)
                        with init():
                            T[vi, vj] = f32(0.0)
                        T[vi, vj] = T[vi, vj] + A[vi, vk] * B[vk, vj]
        for p in range(m):
            for q in range(n):
                with block("Y"):
                    yp = spatial(m, p)
                    yq = spatial(n, q)
                    Y[yp, yq] = max(T[yp, yq], f32(0.0))
"""

POINTWISE = """
    @tensor.function
    def pointwise(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        T = alloc((n,), f32)
        for i in range(n):
            with block("T"):
                ti = spatial(n, i)
                T[ti] = X[ti] + f32(1.0)
        for j in range(n):
            with block("Y"):
                yj = spatial(n, j)
                Y[yj] = T[yj] * T[yj]
"""

STENCIL = """
    @tensor.function
    def stencil(X: Buffer[(n + 2,), f32], sizes: Buffer[(n,), f32], Y: Output[(n,), f32]):
        T = alloc((n + 2,), f32)
        for i in range(n + 2):
            with block("T"):
                ti = spatial(n + 2, i)
                T[ti] = X[ti] * f32(3.0)
        for j in range(n):
            with block("Y"):
                yj = spatial(n, j)
                Y[yj] = T[yj] + T[yj + 2]
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def integers(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def test_compute_inline_carries_the_mask_of_the_load():
    assert_same_ir(
        ComputeInline("T").apply(function_of(CHAIN)),
        function_of("""
            @tensor.function
            def chain(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
                for k in range(n):
                    for l in range(8):
                        with block("Y"):
                            yk = spatial(n, k)
                            yl = spatial(8, l)
                            Y[yk, yl] = select(yk < 3, load(X[yk, 7 - yl], mask=(7 - yl > 0) & (yk <
                            3)) + f32(1.0), f32(0.0)) * f32(2.0)
        """),
    )


def test_reverse_compute_inline_stores_the_consumer_s_value():
    assert_same_ir(
        ReverseComputeInline("Y").apply(function_of(POINTWISE)),
        function_of("""
            @tensor.function
            def pointwise(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
                for i in range(n):
                    with block("Y"):
                        ti = spatial(n, i)
                        Y[ti] = (X[ti] + f32(1.0)) * (X[ti] + f32(1.0))
        """),
    )


def test_compute_at_restricts_to_what_is_read_and_guards_the_tail():
    after = apply_trace(function_of(STENCIL), (Split("j", (None, 4)), ComputeAt("T", "j_0")))
    assert_same_ir(
        after,
        function_of("""
            @tensor.function
            def stencil(X: Buffer[(n + 2,), f32], sizes: Buffer[(n,), f32], Y: Output[(n,), f32]):
                T = alloc((n + 2,), f32)
                for j_0 in range((n + 3) // 4):
                    for ti_1 in range(6):
                        with block("T"):
                            ti = spatial(n + 2, j_0 * 4 + ti_1)
                            where(j_0 * 4 + ti_1 < n + 2)
                            T[ti] = X[ti] * f32(3.0)
                    for j_1 in range(4):
                        with block("Y"):
                            yj = spatial(n, j_0 * 4 + j_1)
                            where(j_0 * 4 + j_1 < n)
                            Y[yj] = T[yj] + T[yj + 2]
        """),
    )


@pytest.mark.parametrize("n", [1, 3, 4, 5, 13])
def test_compute_at_keeps_the_meaning_at_every_tail(n):
    before = function_of(STENCIL)
    after = apply_trace(before, (Split("j", (None, 4)), ComputeAt("T", "j_0")))
    inputs = [integers(n + 2), integers(n)]
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], run_tensor(before, inputs)[0])


def tiled(*more):
    tiles = (
        Split("i", (None, 4)),
        Split("j", (None, 2, 4)),
        Reorder(("i_0", "j_0", "k", "i_1", "j_1", "j_2")),
    )
    return (*tiles, *more)


def test_reverse_compute_at_walks_the_producer_s_tile():
    after = str(apply_trace(function_of(EPILOGUE), tiled(ReverseComputeAt("Y", "j_0"))))
    place = after.index("for i_1_Y in range(4):")
    assert place < after.index("for j_1_Y in range(2):") < after.index("for j_2_Y in range(4):")
    assert "yq = spatial(n, j_0 * 8 + j_1_Y * 4 + j_2_Y)" in after
    assert "for p in" not in after


def test_reverse_compute_at_waits_for_the_last_step_of_a_reduction():
    trace = (Split("k", (3, 3)), Reorder(("k_0", "i", "j", "k_1")), ReverseComputeAt("Y", "i"))
    after = apply_trace(function_of(EPILOGUE), trace)
    assert "where(k_0 == 2)" in str(after)
    a, b = integers(3, 9), integers(9, 5)
    np.testing.assert_array_equal(run_tensor(after, [a, b])[0], np.maximum(a @ b, 0))


def test_a_reduction_is_computed_at_the_row_of_its_consumer():
    after = ComputeAt("T", "p").apply(function_of(EPILOGUE))
    assert "for i in" not in str(after)
    a, b = integers(3, 9), integers(9, 5)
    np.testing.assert_array_equal(run_tensor(after, [a, b])[0], np.maximum(a @ b, 0))


def test_cache_write_copies_in_the_block_s_own_loops():
    after = str(apply_trace(function_of(EPILOGUE), tiled(CacheWrite("T", "register"))))
    assert 'T_register = alloc((m, n), f32, scope="register")' in after
    assert 'with block("T_copy"):' in after
    assert "for j_2_copy in range(4):" in after
    assert "T[vi_copy, vj_copy] = T_register[vi_copy, vj_copy]" in after


def test_cache_read_copies_what_is_read_before_the_nest():
    after = str(CacheRead("T", "B", "stack").apply(function_of(EPILOGUE)))
    assert after.index('with block("B_stack"):') < after.index('with block("T"):')
    assert "A[vi, vk] * B_stack[vk, vj]" in after


def test_set_scope_changes_the_declaration():
    after = str(SetScope("T", "stack").apply(function_of(EPILOGUE)))
    assert 'T = alloc((m, n), f32, scope="stack")' in after


def test_decompose_reduction_copies_the_loops_of_the_result():
    after = str(apply_trace(function_of(EPILOGUE), tiled(DecomposeReduction("T", "k"))))
    assert after.index('with block("T_init"):') < after.index("for k in range(9):")
    assert "for i_1_init in range(4):" in after
    assert "with init():" not in after


def test_rfactor_writes_partial_results_for_every_lane():
    after = apply_trace(function_of(EPILOGUE), (Split("k", (None, 4)), RFactor("k_1")))
    text = str(after)
    assert "T_rf = alloc((4, m, n), f32)" in text
    assert 'with block("T_rf"):' in text
    a, b = integers(3, 9), integers(9, 5)
    np.testing.assert_array_equal(run_tensor(after, [a, b])[0], np.maximum(a @ b, 0))


def test_transform_layout_pads_a_parameter_that_the_caller_packs():
    before = function_of(EPILOGUE)
    layout = TransformLayout("B", index_map(lambda k, j: (j // 4, k, j % 4)))
    assert [str(d) for d in layout.new_shape(before)] == ["(n + 3) // 4", "9", "4"]
    after = layout.apply(before)
    assert "B[vj // 4, vk, vj % 4]" in str(after)
    a, b = integers(3, 9), integers(9, 5)
    packed = layout.layout.pack(b, (2, 9, 4))
    assert packed[1, :, 1:].sum() == 0
    np.testing.assert_array_equal(run_tensor(after, [a, packed], {"n": 5})[0], np.maximum(a @ b, 0))


ANOTHER = """with block("Z"):
            Y[0] = %s
        for j in"""
MASKED = """store(T[ti], f32(0.0), mask=ti > 1)
                T[ti] = X"""

REFUSALS = [
    (ComputeInline("T"), EPILOGUE, "E0320"),
    (ComputeInline("Y"), POINTWISE, "E0322"),
    (ComputeInline("T"), POINTWISE.replace("T[ti] = X", "T[ti * 1 + 0 * ti] = X"), "E0325"),
    (ComputeInline("T"), POINTWISE.replace("Y[yj] = T[yj] * T[yj]", "T[yj] = T[yj]"), "E0323"),
    (
        ComputeInline("T"),
        POINTWISE.replace("T[yj] * T[yj]", "T[yj] * T[yj]\n            prefetch(T[0])"),
        "E0324",
    ),
    (ComputeInline("T"), POINTWISE.replace("T[ti] = X", MASKED), "E0320"),
    (ComputeInline("nothing"), POINTWISE, "E0301"),
    (ReverseComputeInline("T"), POINTWISE, "E0323"),
    (ReverseComputeInline("Y"), POINTWISE.replace("T[yj] * T[yj]", "T[yj] * T[0]"), "E0326"),
    (ReverseComputeInline("Y"), CHAIN, "E0326"),
    (ComputeAt("Y", "i"), POINTWISE, "E0322"),
    (ComputeAt("T", "i"), POINTWISE, "E0329"),
    (ComputeAt("T", "j"), POINTWISE.replace("for j in", ANOTHER % "T[0]"), "E0324"),
    (ReverseComputeAt("Y", "j"), POINTWISE, "E0329"),
    (ReverseComputeAt("T", "j"), POINTWISE, "E0323"),
    (ReverseComputeAt("Y", "i"), STENCIL, "E0326"),
    (ReverseComputeAt("Y", "i"), POINTWISE.replace("for j in", ANOTHER % "f32(1.0)"), "E0324"),
    (CacheRead("T", "T", "stack"), POINTWISE, "E0320"),
    (CacheRead("T", "X", "cupboard"), POINTWISE, "E0322"),
    (
        CacheWrite("T", "stack"),
        POINTWISE.replace("Y[yj] = T[yj] * T[yj]", "T[yj] = T[yj]"),
        "E0323",
    ),
    (SetScope("X", "stack"), POINTWISE, "E0322"),
    (SetScope("Z", "stack"), POINTWISE, "E0301"),
    (DecomposeReduction("T", "i"), POINTWISE, "E0321"),
    (DecomposeReduction("T", "p"), EPILOGUE, "E0329"),
    (RFactor("i"), EPILOGUE, "E0306"),
    (
        RFactor("k"),
        EPILOGUE.replace("T[vi, vj] + A[vi, vk] * B[vk, vj]", "T[vi, vj] - A[vi, vk]"),
        "E0332",
    ),
    (TransformLayout("X", index_map(lambda i, j: (i, j))), POINTWISE, "E0340"),
    (TransformLayout("X", index_map(lambda i: (i // 2,))), POINTWISE, "E0340"),
    (TransformLayout("X", index_map(lambda i: (i - 1,))), POINTWISE, "E0340"),
    (TransformLayout("Y", index_map(lambda i: (i // 4, i % 4))), POINTWISE, "E0322"),
]


@pytest.mark.parametrize(("instruction", "text", "code"), REFUSALS)
def test_refusals(instruction, text, code):
    with pytest.raises(ScheduleError) as caught:
        instruction.apply(function_of(text))
    assert caught.value.code == code
    assert caught.value.excerpt


def test_decompose_refuses_below_a_step_of_the_reduction():
    with pytest.raises(ScheduleError) as caught:
        apply_trace(function_of(EPILOGUE), (Reorder(("k", "i")), DecomposeReduction("T", "j")))
    assert caught.value.code == "E0329"
    assert "k" in (caught.value.help or "")


def test_inlining_refuses_when_an_operand_changes_meanwhile():
    text = """
        @tensor.function
        def overwritten(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
            A = alloc((n,), f32)
            T = alloc((n,), f32)
            for a in range(n):
                with block("A"):
                    va = spatial(n, a)
                    A[va] = X[va]
            for i in range(n):
                with block("T"):
                    ti = spatial(n, i)
                    T[ti] = A[ti]
            for b in range(n):
                with block("again"):
                    vb = spatial(n, b)
                    A[vb] = f32(7.0)
            for j in range(n):
                with block("Y"):
                    yj = spatial(n, j)
                    Y[yj] = T[yj] + A[yj]
    """
    for instruction in (ComputeInline("T"), ComputeAt("T", "j")):
        with pytest.raises(ScheduleError) as caught:
            instruction.apply(function_of(text))
        assert caught.value.code == "E0327"
