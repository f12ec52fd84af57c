"""Blocks that store several elements at a point store what follows at once."""

import numpy as np
import pytest

from treadle.ir.analysis import blocks
from treadle.ir.interpret import run_tensor
from treadle.ir.parser import parse_function
from treadle.ir.tensor import TensorFunction
from treadle.passes.kinds import Kind, summarize
from treadle.passes.store_through import store_through, stores_tiles

PAIRS = """
@tensor.function
def pairs(X: Buffer[(2, 5), f32], Z: Buffer[(9,), f32], Y: Output[(9,), f32]):
    T = alloc((9,), f32)
    for i in range(5):
        with block("T"):
            v = spatial(5, i)
            t = let(X[0, v] + X[1, v])
            T[v * 2] = t
            if v * 2 + 1 < 9:
                T[v * 2 + 1] = t * X[0, v]
    {between}
    for j in range(9):
        with block("Y"):
            w = spatial(9, j)
            Y[w] = {value}
"""


def function(value: str, between: str = "") -> TensorFunction:
    found = parse_function(PAIRS.format(value=value, between=between))
    assert isinstance(found, TensorFunction)
    return found


def arrays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((2, 5)), rng.standard_normal(9)
    return x.astype(np.float32), z.astype(np.float32)


@pytest.mark.parametrize("value", ["T[w] * Z[w]", "max(T[w], f32(0.0)) + T[w]", "T[w] + Z[0]"])
def test_what_each_element_becomes_is_stored_at_once(value):
    before = function(value)
    after = store_through(before)
    assert [b.name for b in blocks(after)] == ["Y"]
    assert stores_tiles(after)
    for a, b in zip(run_tensor(before, arrays(), {}), run_tensor(after, arrays(), {}), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", ["T[8 - w]", "T[w] + T[0]", "Z[w]"])
def test_other_elements_are_no_reason(value):
    before = function(value)
    assert store_through(before) is before


def test_an_operand_that_is_made_in_between_is_waited_for():
    made = """R = alloc((9,), f32)
    for k in range(9):
        with block("R"):
            u = spatial(9, k)
            R[u] = Z[u] * f32(2.0)"""
    before = function("T[w] + R[w]", made)
    assert store_through(before) is before


def test_one_element_at_a_time_is_no_tile():
    assert not stores_tiles(function("T[w]"))
    plain = parse_function("""
@tensor.function
def copy(X: Buffer[(9,), f32], Y: Output[(9,), f32]):
    for j in range(9):
        with block("Y"):
            w = spatial(9, j)
            Y[w] = X[w]
""")
    assert isinstance(plain, TensorFunction)
    assert not stores_tiles(plain)


def test_an_axis_of_one_element_may_be_written_as_zero():
    found = parse_function("""
@tensor.function
def relu(X: Buffer[(1, 9), f32], Y: Output[(1, 9), f32]):
    for i in range(1):
        for j in range(9):
            with block("Y"):
                v = spatial(1, i)
                w = spatial(9, j)
                Y[v, w] = max(X[0, w], f32(0.0))
""")
    assert isinstance(found, TensorFunction)
    summary = summarize(found)
    assert summary.kind == Kind.ELEMENTWISE
    assert summary.identity == frozenset(found.input_buffers)
