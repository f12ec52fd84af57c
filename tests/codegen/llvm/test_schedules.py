"""What schedules leave for lowering, as machine code: tails of tiles and hints to memory."""

import numpy as np
import pytest

from treadle.codegen.llvm.kernel import kernel_text
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.split import TAILS
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.testing import ir

MATMUL = """
    @tensor.function
    def matmul(A: Buffer[(m, k), f32], B: Buffer[(k, 40), f32], Y: Output[(m, 40), f32]):
        for i in range(m):
            for p in range(k):
                for j in range(40):
                    with block("Y"):
                        vi = spatial(m, i)
                        vp = reduction(k, p)
                        vj = spatial(40, j)
                        with init():
                            Y[vi, vj] = f32(0.0)
                        Y[vi, vj] = Y[vi, vj] + A[vi, vp] * B[vp, vj]
"""


def tiled(tail: str) -> Schedule:
    s = Schedule(ir(MATMUL).tensor_functions[0])
    s.decompose_reduction("Y", "p")
    s.prefetch("B", "p", 3)
    _, j_1, *rest = s.split("j", (None, 16), tail)
    s.vectorize(j_1)
    for name in rest:
        if name.endswith("_rest_1"):
            s.vectorize(name)
    s.split("i", (None, 6), tail)
    return s


@pytest.mark.parametrize("tail", [t for t in TAILS if t != "pad"])
@pytest.mark.parametrize(("m", "k"), [(1, 1), (6, 4), (17, 9)])
def test_tiles_with_every_tail_multiply_matrices(run_kernel, tail: str, m: int, k: int):
    rng = np.random.default_rng(m)
    a = rng.integers(-3, 4, (m, k)).astype(np.float32)
    b = rng.integers(-3, 4, (k, 40)).astype(np.float32)
    y = np.full((m, 40), np.nan, np.float32)
    run_kernel(lower_loops(tiled(tail).function), a, b, y, symbols=(m, k))
    np.testing.assert_array_equal(y, a @ b)


def test_a_hint_becomes_an_instruction():
    text = kernel_text(lower_loops(tiled("guard").function), Target.native())
    assert "call void @llvm.prefetch" in str(text)
