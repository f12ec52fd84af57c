"""The helpers for tests keep what they say."""

import numpy as np
import pytest
from hypothesis import given, settings

from treadle.base.errors import InternalError, ParseError
from treadle.expr.dtype import f32, i32
from treadle.testing import expressions, ir, modules, random_inputs, tensor_functions


@given(expressions(i32, depth=3))
@settings(deadline=None, max_examples=30)
def test_expressions_have_the_type_that_was_asked_for(x):
    assert x.dtype == i32


@given(tensor_functions(), modules())
@settings(deadline=None, max_examples=20)
def test_inputs_fit_what_they_are_made_for(function, module):
    for buffer, array in zip(function.input_buffers, random_inputs(function), strict=True):
        assert array.ndim == buffer.ndim
        assert array.dtype == buffer.dtype.numpy
    main = module.graph("main")
    for param, array in zip(main.params, random_inputs(main), strict=True):
        assert array.ndim == param.type.ndim
        assert array.dtype == param.type.dtype.numpy


ASSUMING = """
    @graph.function
    def main(x: Tensor[(n, 2 * m), f32], s: Shape[(m, p)]):
        assume(n % 4 == 0)
        return x
"""


def test_inputs_keep_assumptions_and_sizes_that_are_given():
    main = ir(ASSUMING).graph("main")
    x, s = random_inputs(main, {"m": 5, "p": 9})
    assert x.shape == (4, 10)
    assert x.dtype == f32.numpy
    np.testing.assert_array_equal(s, [5, 9])
    again, _ = random_inputs(main, {"m": 5, "p": 9})
    np.testing.assert_array_equal(x, again)
    with pytest.raises(InternalError):
        random_inputs(main, {"n": 3})


def test_a_text_may_be_indented_and_take_its_constants_from_outside():
    w = np.ones(40, np.float32)
    module = ir("\n    w = constant(Tensor[(40,), f32])\n", {"w": w})
    assert module.constants["w"].array is w
    with pytest.raises(ParseError) as caught:
        ir("    w = constant(Tensor[(40,), f32])", source="weights.py")
    assert caught.value.place == "weights.py:1:1"
