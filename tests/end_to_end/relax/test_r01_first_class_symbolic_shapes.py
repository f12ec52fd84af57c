"""Shapes are values, and a static shape is a special case of a symbolic one (Relax, arXiv
2311.02103, §3.1).
"""

import numpy as np
import pytest

import treadle
from treadle.base.errors import RuntimeFault
from treadle.testing import ir

SHAPE_INPUT = """
@graph.function
def main(x: Tensor[(n,), f32], s: Shape[(m, k)]) -> (Tensor[(m, k), f32],):
    known = match_cast(x, type=Tensor[(m * k,), f32])
    y = reshape(known, shape=(m, k))
    return y
"""


def test_a_shape_is_an_input_of_the_program(both):
    x = np.arange(6, dtype=np.float32)
    for shape in ((2, 3), (3, 2), (6, 1)):
        (y,) = both(SHAPE_INPUT, x, np.array(shape))
        assert y.shape == shape


def test_a_shape_that_does_not_fit_the_data_is_an_error_and_no_wrong_result():
    exe = treadle.compile(ir(SHAPE_INPUT), threads=1)
    x = np.arange(6, dtype=np.float32)
    assert exe(x, np.array([1, 6])).shape == (1, 6)
    with pytest.raises(RuntimeFault, match="E0707"):
        exe(x, np.array([2, 2]))
    with pytest.raises(RuntimeFault, match=r"E070[67]"):
        exe(x, np.array([-2, -3]))


def test_a_shape_is_passed_to_a_function(both):
    (y,) = both(
        """
@graph.function
def folded(x: Tensor[(n,), f32], s: Shape[(m, k)]) -> (Tensor[(m, k), f32],):
    known = match_cast(x, type=Tensor[(m * k,), f32])
    y = reshape(known, shape=(m, k))
    return y

@graph.function
def main(x: Tensor[(2 * a,), f32]) -> (Tensor[(a, 2), f32],):
    y = call(folded, x, shape(a, 2))
    z = relu(y)
    return z
""",
        np.arange(-4, 4, dtype=np.float32),
    )
    assert y.shape == (4, 2)


def test_dimensions_are_numbers_that_the_program_computes_with(both):
    (y,) = both(
        """
@graph.function
def main(x: Tensor[(n, m), f32]) -> (Tensor[(), i64],):
    y = add(literal(n * m + 1), i64(1))
    return y
""",
        np.ones((2, 3), np.float32),
    )
    assert y == 8


def test_a_static_program_is_the_symbolic_one_at_that_size(both):
    text = """
@graph.function
def main(x: Tensor[({n}, 4), f32]) -> (Tensor[({n}, 4), f32],):
    y = softmax(x, axis=-1)
    return y
"""
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    (symbolic,) = both(text.format(n="n"), x)
    (static,) = both(text.format(n=3), x)
    np.testing.assert_array_equal(symbolic, static)
