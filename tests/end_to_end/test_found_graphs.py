"""Graphs whose machine code was wrong once, or that could not be compiled."""

import numpy as np
import pytest

from treadle.ir.interpret import run
from treadle.testing import assert_close, compiled_here, ir, random_inputs

ONE_COLUMN_IN_THE_LAST_VECTOR = """
    @graph.function
    def main(x: Tensor[(n, 7, 1), f32], w: Tensor[(1, 33), f32]) -> (Tensor[(n, 7, 33), f32],):
        y = matmul(x, w)
        return y
"""
SECOND_RESULT_OF_A_FUSED_CALL = """
    @graph.function
    def main(x: Tensor[(n, 5), f32], s: Tensor[(), f32]) -> (Tensor[(n, 2), f32],):
        a = neg(x)
        b, c = top_k(a, k=2, axis=1)
        d = minimum(s, b)
        return d
"""
SUM_OF_NOTHING = """
    @graph.function
    def main(x: Tensor[(n, 3), f32]) -> (Tensor[(1, 1), f32], Tensor[(3,), f32]):
        a = sum(x, axes=(0, 1), keepdims=True)
        b = sum(x, axes=(0,))
        return a, b
"""
PRODUCT_WITHOUT_ELEMENTS = """
    @graph.function
    def main(x: Tensor[(n, 2), f32]) -> (Tensor[(0, 0), f32], Tensor[(n, 2), f32]):
        a = sum(x, axes=(0, 1), keepdims=True)
        b = slice(a, axis=0, start=1, stop=1)
        c = permute(b, axes=(1, 0))
        d = matmul(b, c)
        e = mul(d, f32(0.125))
        y = neg(x)
        return e, y
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize(
    "text",
    [
        ONE_COLUMN_IN_THE_LAST_VECTOR,
        SECOND_RESULT_OF_A_FUSED_CALL,
        SUM_OF_NOTHING,
        PRODUCT_WITHOUT_ELEMENTS,
    ],
)
def test_machine_code_agrees_with_the_interpreter(text, n, threads):
    module = ir(text)
    arrays = random_inputs(module.graph("main"), {"n": n})
    found = compiled_here(module, threads=threads)(*arrays)
    assert_close(found if isinstance(found, tuple) else (found,), run(module, "main", *arrays))


def test_a_kernel_called_as_a_function_of_the_c_library_does_not_replace_it():
    module = ir("""
        @graph.function
        def main(x: Tensor[(7,), f64], y: Tensor[(7,), f64]) -> (Tensor[(7,), f64],):
            z = fmod(x, y)
            return z
    """)
    x, y = np.linspace(-9, 9, 7), np.full(7, 2.5)
    assert_close((compiled_here(module)(x, y),), (np.fmod(x, y),))


def test_gelu_keeps_its_digits_far_below_zero():
    module = ir("""
        @graph.function
        def main(x: Tensor[(64,), f32]) -> (Tensor[(64,), f32],):
            y = gelu(x)
            return y
    """)
    x = np.linspace(-12, 3, 64, dtype=np.float32)
    (expected,) = run(module, "main", x)
    np.testing.assert_allclose(compiled_here(module)(x), expected, rtol=2e-5)
