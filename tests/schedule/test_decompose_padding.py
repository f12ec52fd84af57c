"""decompose_padding: the border filled once, the inside copied without a condition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.expr.dtype import f32
from treadle.expr.scalar import Var, int_value
from treadle.ir.analysis import accesses, blocks
from treadle.ir.interpret import run_tensor
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops.pad import Pad
from treadle.schedule.decompose_padding import DecomposePadding
from treadle.schedule.trace import Schedule
from treadle.testing import assert_same_ir, ir

PAD = """
    @tensor.function
    def pad(X: Buffer[(n,), f32], Y: Output[(n + 3,), f32]):
        for i in range(n + 3):
            with block("Y"):
                v = spatial(n + 3, i)
                Y[v] = select((v - 1 >= 0) & (v - 1 < n), load(X[v - 1], mask=(v - 1 >= 0) & (v - 1
                < n)), f32(5.0))
"""

MASKED = """
    @tensor.function
    def masked(X: Buffer[(n,), f32], Y: Output[(n + 2,), f32]):
        for i in range(n + 2):
            with block("Y"):
                v = spatial(n + 2, i)
                Y[v] = load(X[v - 2], mask=v >= 2)
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def test_the_border_is_filled_and_the_inside_copied():
    assert_same_ir(
        DecomposePadding("Y", "i").apply(function_of(PAD)),
        function_of("""
            @tensor.function
            def pad(X: Buffer[(n,), f32], Y: Output[(n + 3,), f32]):
                for i_pad in range(1):
                    with block("Y_pad"):
                        v_pad = spatial(1, i_pad)
                        Y[0] = f32(5.0)
                for i_pad_1 in range(2):
                    with block("Y_pad_1"):
                        v_pad_1 = spatial(2, i_pad_1)
                        Y[n + v_pad_1 + 1] = f32(5.0)
                for i in range(n):
                    with block("Y"):
                        v = spatial(n, i)
                        Y[v + 1] = X[v]
        """),
    )


def test_a_load_under_a_mask_is_padding_by_zero():
    after = DecomposePadding("Y", "i").apply(function_of(MASKED))
    assert not any(a.mask is not None for a in accesses(after.body))
    x = np.arange(1, 4, dtype=np.float32)
    np.testing.assert_array_equal(run_tensor(after, [x])[0], [0, 0, 1, 2, 3])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(-2, 3), st.integers(-2, 3), st.booleans()).filter(
            lambda d: d[0] + d[1] + d[2] >= 0 and d[0] + min(d[1], 0) + min(d[2], 0) >= 0
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 2),
    st.sampled_from([None, 1, 2, 3]),
)
def test_any_padding_keeps_its_meaning_and_loses_its_masks(dims, position, tile):
    shape = [Var(f"n{k}") if symbolic else n for k, (n, _, _, symbolic) in enumerate(dims)]
    op = Pad(tuple((b, a) for _, b, a, _ in dims), value=2.5)
    before = op.lower(tensor(shape, f32))
    s = Schedule(before)
    loops = s.loops()
    loop = loops[position % len(loops)]
    if tile is not None:
        loop = s.split(loop, (None, tile))[1]
    if all(b <= 0 and a <= 0 for _, b, a, _ in dims):
        with pytest.raises(ScheduleError) as caught:
            s.decompose_padding("Y0", loop)
        assert caught.value.code == "E0380"
        return
    s.decompose_padding("Y0", loop)
    verify_tensor_function(s.function)
    assert not any(a.mask is not None for a in accesses(s.function.body))
    x = np.random.default_rng(0).integers(-4, 5, [n for n, _, _, _ in dims]).astype(np.float32)
    np.testing.assert_array_equal(run_tensor(s.function, [x])[0], op.reference(x))


def test_a_loop_over_a_part_of_an_axis_fills_no_more_than_that_part():
    text = PAD.replace("for i in range(n + 3)", "for i in range(n + 2)")
    after = DecomposePadding("Y", "i").apply(function_of(text))
    assert "where(" not in str(after)
    assert [str(b.iters[0].extent) for b in blocks(after)] == ["1", "1", "n"]
    x = np.arange(1, 4, dtype=np.float32)
    np.testing.assert_array_equal(run_tensor(after, [x])[0][:5], [5, 1, 2, 3, 5])


def test_every_element_is_written_once():
    after = DecomposePadding("Y0", "i0").apply(Pad(((1, 2), (2, 1))).lower(tensor((3, 4), f32)))
    sizes = [[int_value(a.extent) for a in block.iters] for block in blocks(after)]
    assert sum(x * y for x, y in sizes) == (1 + 3 + 2) * (2 + 4 + 1)


TWO = """for i in range(n + 2):
            with block("Z"):
                z = spatial(n + 2, i)
                Y[z] = f32(1.0)
            with block("Y")"""
REFUSALS = [
    (PAD.replace("for i in range(n + 3)", "for i in parallel(n + 3)"), "i", "E0302"),
    (
        PAD.replace("spatial(n + 3, i)", "spatial(n + 3, i)\n                where(n > 4)"),
        "i",
        "E0320",
    ),
    (MASKED.replace("Y[v] =", "Y[v // 2] ="), "i", "E0325"),
    (MASKED.replace('for i in range(n + 2):\n            with block("Y")', TWO), "i", "E0329"),
    (MASKED.replace(", mask=v >= 2", ""), "i", "E0380"),
    (MASKED.replace("v >= 2", "v % 2 == 0"), "i", "E0380"),
    (MASKED.replace("spatial(n + 2, i)", "spatial(n + 2, n + 1 - i)"), "i", "E0381"),
    (MASKED, "k", "E0301"),
]


@pytest.mark.parametrize(("text", "loop", "code"), REFUSALS)
def test_refusals(text, loop, code):
    with pytest.raises(ScheduleError) as caught:
        DecomposePadding("Y", loop).apply(function_of(text))
    assert caught.value.code == code
    assert caught.value.excerpt
