"""pad_einsum: contractions over extents rounded up keep their results."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.expr.dtype import f32, i32
from treadle.expr.scalar import Var
from treadle.ir.interpret import run_tensor
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.schedule.pad_einsum import PadEinsum
from treadle.schedule.trace import Schedule
from treadle.testing import assert_same_ir, ir

MATMUL = """
    @tensor.function
    def matmul(A: Buffer[(m, 8), f32], B: Buffer[(8, 5), f32], Y: Output[(m, 5), f32]):
        for i in range(m):
            for j in range(5):
                for k in range(8):
                    with block("Y"):
                        vi = spatial(m, i)
                        vj = spatial(5, j)
                        vk = reduction(8, k)
                        with init():
                            Y[vi, vj] = f32(0.0)
                        Y[vi, vj] = Y[vi, vj] + A[vi, vk] * B[vk, vj]
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def test_operands_are_copied_where_they_are_padded_and_the_result_is_cropped():
    assert_same_ir(
        PadEinsum("Y", (1, 4, 4)).apply(function_of(MATMUL)),
        function_of("""
            @tensor.function
            def matmul(A: Buffer[(m, 8), f32], B: Buffer[(8, 5), f32], Y: Output[(m, 5), f32]):
                B_pad = alloc((8, 8), f32)
                for vk_B_pad_1 in range(8):
                    for vj_B_pad_1 in range(8):
                        with block("B_pad"):
                            vk_B_pad = spatial(8, vk_B_pad_1)
                            vj_B_pad = spatial(8, vj_B_pad_1)
                            B_pad[vk_B_pad, vj_B_pad] = select(vj_B_pad < 5, load(B[vk_B_pad,
                            vj_B_pad], mask=vj_B_pad < 5), f32(0.0))
                Y_pad = alloc((m, 8), f32)
                for i in range(m):
                    for j in range(8):
                        for k in range(8):
                            with block("Y"):
                                vi = spatial(m, i)
                                vj = spatial(8, j)
                                vk = reduction(8, k)
                                with init():
                                    Y_pad[vi, vj] = f32(0.0)
                                Y_pad[vi, vj] = Y_pad[vi, vj] + A[vi, vk] * B_pad[vk, vj]
                for vi_crop_1 in range(m):
                    for vj_crop_1 in range(5):
                        with block("Y_crop"):
                            vi_crop = spatial(m, vi_crop_1)
                            vj_crop = spatial(5, vj_crop_1)
                            Y[vi_crop, vj_crop] = Y_pad[vi_crop, vj_crop]
        """),
    )


def test_multiples_are_left_alone():
    f = function_of(MATMUL)
    assert PadEinsum("Y", (1, 5, 4)).apply(f) is f


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(1, 7)] * 3),
    st.tuples(*[st.booleans()] * 3),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.sampled_from(["add", "mul"]),
)
def test_any_padding_of_a_product_keeps_its_meaning(sizes, symbolic, padding, combine):
    m, n, k = (Var(v) if s else d for v, s, d in zip("mnk", symbolic, sizes, strict=True))
    b = LoopBuilder("product")
    x, w = b.input(tensor((m, k), i32), "A"), b.input(tensor((k, n), i32), "B")
    y = b.output((m, n), i32, "Y")
    b.reduce(y, (k,), lambda i, j, p: x[i, p] * w[p, j], combine)
    before = b.build()
    s = Schedule(before)
    s.pad_einsum("Y", padding)
    verify_tensor_function(s.function)
    rng = np.random.default_rng(1)
    shapes = ((sizes[0], sizes[2]), (sizes[2], sizes[1]))
    arrays = [rng.integers(-3, 4, shape).astype(np.int32) for shape in shapes]
    np.testing.assert_array_equal(run_tensor(s.function, arrays)[0], run_tensor(before, arrays)[0])


@pytest.mark.parametrize("combine", ["max", "min"])
def test_a_maximum_is_padded_with_what_changes_none(combine):
    b = LoopBuilder("extreme")
    x = b.input(tensor((Var("n"), 5), f32), "X")
    y = b.output((Var("n"),), f32, "Y")
    b.reduce(y, (5,), lambda i, j: x[i, j], combine)
    before = b.build()
    after = PadEinsum("Y", (4, 4)).apply(before)
    array = np.random.default_rng(2).standard_normal((6, 5)).astype(np.float32)
    np.testing.assert_array_equal(run_tensor(after, [array])[0], run_tensor(before, [array])[0])


def test_a_start_that_loads_stays_inside():
    text = MATMUL.replace("B: Buffer", "C: Buffer[(5,), f32], B: Buffer").replace(
        "= f32(0.0)", "= C[vj]"
    )
    before = function_of(text)
    after = PadEinsum("Y", (4, 4, 3)).apply(before)
    rng = np.random.default_rng(3)
    arrays = [rng.integers(-3, 4, s).astype(np.float32) for s in ((3, 8), (5,), (8, 5))]
    np.testing.assert_array_equal(run_tensor(after, arrays)[0], run_tensor(before, arrays)[0])


OTHER = """Y[vi, vj] = Y[vi, vj] + A[vi, vk] * B[vk, vj]
            with block("Z"):
                z = spatial(m, i)
                Y[z, 0] = f32(0.0)"""
REFUSALS = [
    (MATMUL, (4, 4), "E0383"),
    (MATMUL, (4, 0, 4), "E0383"),
    (MATMUL.replace("A[vi, vk] * B[vk, vj]", "A[vi, vk] - B[vk, vj]"), (4, 4, 4), "E0382"),
    (MATMUL.replace("A[vi, vk]", "A[vi, 7 - vk]"), (4, 4, 4), "E0382"),
    (MATMUL.replace("A[vi, vk] * B[vk, vj]", "max(A[vi, vk], B[vk, vj])"), (4, 4, 4), "E0382"),
    (MATMUL.replace("spatial(m, i)", "spatial(m, m - 1 - i)"), (4, 4, 4), "E0381"),
    (MATMUL.replace("reduction(8, k)", "reduction(8, k)\n                        where(m > 2)"),
     (4, 4, 4), "E0320"),
    (MATMUL.replace("Y[vi, vj] = Y[vi, vj] + A[vi, vk] * B[vk, vj]", OTHER), (4, 4, 4), "E0323"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "padding", "code"), REFUSALS)
def test_refusals(text, padding, code):
    with pytest.raises(ScheduleError) as caught:
        PadEinsum("Y", padding).apply(function_of(text))
    assert caught.value.code == code
    assert caught.value.excerpt


def test_a_padded_step_must_not_make_an_infinity_nan():
    # 0 * inf: the operand without the axis is not zero in the padding.
    text = MATMUL.replace("A[vi, vk] * B[vk, vj]", "A[vi, vk] * C[vj]").replace(
        "B: Buffer[(8, 5), f32]", "C: Buffer[(5,), f32]"
    )
    with pytest.raises(ScheduleError) as caught:
        PadEinsum("Y", (1, 1, 3)).apply(function_of(text))
    assert caught.value.code == "E0382"
    assert "C[vj]" in caught.value.notes[0]


def test_other_blocks_in_the_loops_are_refused():
    text = MATMUL.replace("Y: Output[(m, 5), f32]", "Y: Output[(m, 5), f32], Z: Output[(m,), f32]")
    text = text.replace(
        "        for i in range(m):\n",
        '        for i in range(m):\n            with block("Z"):\n'
        "                z = spatial(m, i)\n                Z[z] = f32(0.0)\n",
    )
    with pytest.raises(ScheduleError) as caught:
        PadEinsum("Y", (4, 4, 4)).apply(function_of(text))
    assert caught.value.code == "E0329"
