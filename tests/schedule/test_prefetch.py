"""prefetch: where the hint stands, that it lies in the buffer, and that it changes nothing."""

import numpy as np
import pytest

from treadle.base.errors import ScheduleError
from treadle.ir.interpret import run_tensor
from treadle.ir.verify import verify_tensor_function
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.loops import Vectorize
from treadle.schedule.prefetch import Prefetch, PrefetchNext
from treadle.schedule.split import Split
from treadle.schedule.trace import apply_trace
from treadle.testing import assert_same_ir, ir

MATMUL = """
    @tensor.function
    def matmul(A: Buffer[(m, k), f32], B: Buffer[(k, 16), f32], Y: Output[(m, 16), f32]):
        for i in range(m):
            for p in range(k):
                for j in range(16):
                    with block("Y"):
                        vi = spatial(m, i)
                        vp = reduction(k, p)
                        vj = spatial(16, j)
                        with init():
                            Y[vi, vj] = f32(0.0)
                        Y[vi, vj] = Y[vi, vj] + A[vi, vp] * B[vp, vj]
"""
OWN = MATMUL.replace(
    "for i",
    "C = alloc((3,), f32)\n        for c in range(3):\n            C[c] = f32(1.0)\n        for i",
)


def function_of(text):
    return ir(text).tensor_functions[0]


def test_the_hint_stands_first_and_ends_with_the_loop():
    wanted = MATMUL.replace(
        "for j in", "prefetch(B[min(k - 1, p + 4), 0])\n                for j in"
    )
    assert_same_ir(Prefetch("B", "p", 4).apply(function_of(MATMUL)), function_of(wanted))


def test_a_read_under_a_condition_is_asked_for_under_it():
    limited = MATMUL.replace("with init", "where(p * 2 < k)\n                        with init")
    after = Prefetch("B", "p", 1).apply(function_of(limited))
    assert "if min(k - 1, p + 1) * 2 < k:\n                prefetch(" in str(after)
    verify_tensor_function(after)


def test_a_tail_needs_no_condition_at_its_first_step():
    after = apply_trace(function_of(MATMUL), (Split("p", (None, 3)), Prefetch("B", "p_0", 1)))
    assert "prefetch(B[min((k + 2) // 3 - 1, p_0 + 1) * 3, 0])" in str(after)


@pytest.mark.parametrize("shape", [(0, 5), (3, 1), (4, 7)])
def test_results_stay_the_same(shape):
    m, k = shape
    rng = np.random.default_rng(0)
    a = rng.integers(-3, 4, (m, k)).astype(np.float32)
    b = rng.integers(-3, 4, (k, 16)).astype(np.float32)
    before = function_of(MATMUL)
    after = apply_trace(
        before,
        (Split("p", (None, 3)), Vectorize("j"), Prefetch("B", "p_0", 2), Prefetch("A", "i", 1)),
    )
    wanted = run_tensor(before, [a, b])[0]
    np.testing.assert_array_equal(run_tensor(after, [a, b])[0], wanted)
    low = lower_loops(after)
    assert "prefetch(" in str(low)
    found = run_tensor(low, [a, b], {"m": m, "k": k}, out_shapes=[(m, 16)])[0]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("instruction", "text", "code"),
    [
        (Prefetch("Z", "p", 1), MATMUL, "E0301"),
        (Prefetch("B", "z", 1), MATMUL, "E0301"),
        (Prefetch("B", "p", 0), MATMUL, "E0303"),
        (Prefetch("B", "j", 1), MATMUL.replace("range(16)", "vectorized(16)"), "E0302"),
        (Prefetch("C", "i", 1), OWN, "E0322"),
        (Prefetch("B", "q", 1), MATMUL + "        for q in range(2):\n            pass\n", "E0324"),
        (
            Prefetch("B", "p", 1),
            MATMUL.replace("B[vp, vj]", "B[cast(A[vi, vp], i64), vj]"),
            "E0324",
        ),
    ],
)  # fmt: skip
def test_refusals(instruction, text, code):
    with pytest.raises(ScheduleError) as caught:
        instruction.apply(function_of(text))
    assert caught.value.code == code
    assert caught.value.excerpt


PANELS = """
    @tensor.function
    def product(A: Buffer[(m, 6), f32], B: Buffer[(3, 6, 16), f32], Y: Output[(m, 48), f32]):
        for o in range(3):
            for i in range(m):
                for p in range(6):
                    for j in range(16):
                        with block("Y"):
                            vo = spatial(3, o)
                            vi = spatial(m, i)
                            vp = reduction(6, p)
                            vj = spatial(16, j)
                            with init():
                                Y[vi, vo * 16 + vj] = f32(0.0)
                            Y[vi, vo * 16 + vj] = Y[vi, vo * 16 + vj] + A[vi, vp] * B[vo, vp, vj]
"""


def test_the_next_part_is_asked_for_evenly():
    wanted = PANELS.replace(
        "for j in",
        "if i * 96 + p * 16 < 96:\n"
        "                        prefetch(B[o, 0, 0], i * 96 + p * 16 + 96)\n"
        "                    for j in",
    )
    assert_same_ir(PrefetchNext("B", "o", "p").apply(function_of(PANELS)), function_of(wanted))


def test_several_lines_are_asked_for_at_a_time():
    after = PrefetchNext("B", "o", "i", 2).apply(function_of(PANELS))
    assert "prefetch(B[o, 0, 0], i * 32 + 96)" in str(after)
    assert "prefetch(B[o, 0, 0], i * 32 + 112)" in str(after)


@pytest.mark.parametrize("m", [0, 1, 5])
def test_asking_for_the_next_part_changes_no_result(m):
    rng = np.random.default_rng(1)
    a = rng.integers(-3, 4, (m, 6)).astype(np.float32)
    b = rng.integers(-3, 4, (3, 6, 16)).astype(np.float32)
    before = function_of(PANELS)
    after = apply_trace(before, (Vectorize("j"), PrefetchNext("B", "o", "p")))
    verify_tensor_function(after)
    wanted = a @ b.transpose(1, 0, 2).reshape(6, 48)
    np.testing.assert_array_equal(run_tensor(after, [a, b])[0], wanted)
    low = lower_loops(after)
    assert "prefetch(B[" in str(low)
    found = run_tensor(low, [a, b], {"m": m}, out_shapes=[(m, 48)])[0]
    np.testing.assert_array_equal(found.reshape(m, 48), wanted)


@pytest.mark.parametrize(
    ("instruction", "code"),
    [
        (PrefetchNext("B", "z", "p"), "E0301"),
        (PrefetchNext("Z", "o", "p"), "E0301"),
        (PrefetchNext("B", "o", "p", 0), "E0303"),
        (PrefetchNext("Y", "o", "p"), "E0324"),
        (PrefetchNext("B", "i", "p"), "E0324"),
        (PrefetchNext("A", "i", "j"), "E0302"),
        (PrefetchNext("B", "p", "i"), "E0329"),
        (PrefetchNext("A", "o", "p"), "E0324"),
    ],
)
def test_refusals_of_asking_for_the_next_part(instruction, code):
    function = function_of(PANELS.replace("j in range(16)", "j in vectorized(16)"))
    with pytest.raises(ScheduleError) as caught:
        instruction.apply(function)
    assert caught.value.code == code
