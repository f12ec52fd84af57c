"""compute_inline: every condition of the producer and of its uses."""

import numpy as np
import pytest

from treadle.base.errors import ScheduleError
from treadle.ir.interpret import run_tensor
from treadle.schedule.inline import ComputeInline
from treadle.testing import ir

CHAIN = """
    @tensor.function
    def chain(X: Buffer[(n, 6), f32], Y: Output[(6, n), f32]):
        T = alloc((n, 6), f32)
        for i in range(n):
            for j in range(6):
                with block("T"):
                    ti = spatial(n, i)
                    tj = spatial(6, j)
                    T[ti, tj] = X[ti, tj] * f32(2.0)
        for k in range(6):
            for l in range(n):
                with block("Y"):
                    yk = spatial(6, k)
                    yl = spatial(n, l)
                    Y[yk, yl] = T[yl, yk] + T[yl, 5 - yk]
"""


def function_of(text):
    return ir(text).tensor_functions[0]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_producer_vanishes_into_all_places_that_read_it(n):
    before = function_of(CHAIN)
    after = ComputeInline("T").apply(before)
    assert "alloc" not in str(after)
    x = np.arange(n * 6, dtype=np.float32).reshape(n, 6)
    np.testing.assert_array_equal(run_tensor(after, [x])[0], run_tensor(before, [x])[0])


STORE = "T[ti, tj] = X[ti, tj] * f32(2.0)"
REDUCTION = CHAIN.replace("tj = spatial(6, j)", "tj = reduction(6, j)").replace(
    STORE, "with init():\n                        T[ti, 0] = f32(0.0)\n"
    "                    T[ti, 0] = T[ti, 0] + X[ti, tj]"
)  # fmt: skip
SINGLE = """
    @tensor.function
    def squares(X: Buffer[(1, n), f32], Y: Output[(n,), f32]):
        T = alloc((1, n), f32)
        for i in range(1):
            for j in range(n):
                with block("T"):
                    ti = spatial(1, i)
                    tj = spatial(n, j)
                    T[0, tj] = X[ti, tj] * X[ti, tj]
        for k in range(n):
            with block("Y"):
                yk = spatial(n, k)
                Y[yk] = T[0, yk]
"""


def test_an_axis_of_one_element_need_not_be_an_index():
    before = function_of(SINGLE)
    after = ComputeInline("T").apply(before)
    assert "alloc" not in str(after)
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    np.testing.assert_array_equal(run_tensor(after, [x])[0], (x * x)[0])


REFUSALS = [
    ("T", REDUCTION, "E0320"),
    ("T", CHAIN.replace(STORE, f"where(n > 3)\n                    {STORE}"), "E0320"),
    ("T", CHAIN.replace(STORE, f"{STORE}\n                    T[ti, tj] = f32(0.0)"), "E0320"),
    ("T", CHAIN.replace("X[ti, tj] * f32(2.0)", "cast(i, f32)"), "E0320"),
    ("T", CHAIN.replace("X[ti, tj] * f32(2.0)", "T[ti, tj] * f32(2.0)"), "E0320"),
    ("Y", CHAIN, "E0322"),
    ("T", CHAIN.replace("T[ti, tj] =", "T[ti, ti] ="), "E0325"),
    ("T", CHAIN.replace("T[ti, tj] =", "T[ti, 5 - tj] ="), "E0325"),
    ("T", CHAIN.replace("T[ti, tj] =", "T[ti, 0] ="), "E0325"),
    (
        "T",
        CHAIN.replace(
            "        for k in range(6)",
            '        for o in range(n):\n            with block("Z"):\n'
            "                z = spatial(n, o)\n                T[z, 0] = f32(1.0)\n"
            "        for k in range(6)",
        ),
        "E0323",
    ),
    (
        "T",
        CHAIN.replace("Y[yk, yl] =", "prefetch(T[0, 0])\n                    Y[yk, yl] ="),
        "E0324",
    ),
]


@pytest.mark.parametrize(("block", "text", "code"), REFUSALS)
def test_refusals(block, text, code):
    with pytest.raises(ScheduleError) as caught:
        ComputeInline(block).apply(function_of(text))
    assert caught.value.code == code
    assert caught.value.excerpt
