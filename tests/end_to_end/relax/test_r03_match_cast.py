"""``match_cast`` binds symbols and is checked when the program runs, wherever it stands (Relax,
arXiv 2311.02103, §3.1).
"""

import numpy as np
import pytest

import treadle
from treadle.base.errors import RuntimeFault, TypeMismatch
from treadle.testing import ir


def vector(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.float32)


CASES = {
    "new symbol": ("(m,)", "(m,)", (5,), None),
    "multiple of a new symbol": ("(m * 2,)", "(m * 2,)", (6,), (7,)),
    "sum with a new symbol": ("(m + 3,)", "(m + 3,)", (3,), (2,)),
    "a number": ("(4,)", "(4,)", (4,), (5,)),
}


@pytest.mark.parametrize(("type_", "result", "good", "bad"), CASES.values(), ids=CASES)
def test_a_cast_binds_its_symbols_and_refuses_other_shapes(both, type_, result, good, bad):
    text = f"""
@graph.function
def main(x: Tensor[(n,), f32]) -> (Tensor[{result}, f32],):
    y = match_cast(x, type=Tensor[{type_}, f32])
    z = neg(y)
    return z
"""
    both(text, vector(*good))
    if bad is not None:
        with pytest.raises(RuntimeFault):
            treadle.compile(ir(text), threads=1)(vector(*bad))


def test_a_cast_relates_two_inputs(both):
    text = """
@graph.function
def main(x: Tensor[(n,), f32], y: Tensor[(m,), f32]) -> (Tensor[(n,), f32],):
    z = match_cast(y, type=Tensor[(n,), f32])
    w = add(x, z)
    return w
"""
    both(text, vector(5), vector(5))
    with pytest.raises(RuntimeFault, match="E0706"):
        treadle.compile(ir(text), threads=1)(vector(5), vector(4))


def test_a_cast_of_an_expression_is_kept_and_tested(both):
    text = """
@graph.function
def main(x: Tensor[(n, 2), f32], y: Tensor[(m, 2), f32]) -> (Tensor[(k, 3, 2), f32],):
    both = concat(x, y, axis=0)
    thirds = match_cast(both, type=Tensor[(k * 3, 2), f32])
    z = reshape(thirds, shape=(k, 3, 2))
    return z
"""
    both(text, np.ones((4, 2), np.float32), np.ones((2, 2), np.float32))
    with pytest.raises(RuntimeFault):
        treadle.compile(ir(text), threads=1)(
            np.ones((4, 2), np.float32), np.ones((3, 2), np.float32)
        )


BRANCHES = """
@graph.function
def halves(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    even = match_cast(x, type=Tensor[(m * 2,), f32])
    rows = reshape(even, shape=(m, 2))
    sums = sum(rows, axes=(1,), keepdims=True)
    wide = expand(sums, shape=(m, 2))
    y = reshape(wide, shape=(m * 2,))
    z = match_cast(y, type=Tensor[(n,), f32])
    return z

@graph.function
def same(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    y = neg(x)
    return y

@graph.function
def main(c: Tensor[(), bool], x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    y = cond(c, x, then=halves, orelse=same)
    return y
"""


def test_a_cast_in_a_branch_is_tested_when_the_branch_runs(both):
    both(BRANCHES, np.array(True), vector(6))
    both(BRANCHES, np.array(False), vector(6))
    exe = treadle.compile(ir(BRANCHES), threads=1)
    np.testing.assert_array_equal(exe(np.array(False), vector(7)), -vector(7))
    with pytest.raises(RuntimeFault, match="E0707"):
        exe(np.array(True), vector(7))


def test_a_cast_that_never_holds_is_refused_when_compiling():
    text = """
@graph.function
def main(x: Tensor[(n, 4), f32]) -> (Tensor[(n, 5), f32],):
    y = match_cast(x, type=Tensor[(n, 5), f32])
    return y
"""
    with pytest.raises(TypeMismatch, match="E0131"):
        treadle.compile(ir(text), threads=1)


def test_a_cast_never_changes_the_element_type_or_the_rank():
    for type_ in ("Tensor[(n, 4), f64]", "Tensor[(n,), f32]"):
        with pytest.raises(TypeMismatch, match="E0131"):
            ir(f"""
@graph.function
def main(x: Tensor[(n, 4), f32]):
    y = match_cast(x, type={type_})
    return y
""")


def test_a_cast_of_a_view_of_an_input_is_returned_in_memory_of_its_own():
    text = """
@graph.function
def main(x: Tensor[(n, 2), f32], y: Tensor[(m, 2), f32]) -> (Tensor[(k * 2, 2), f32],):
    both = concat(x, y, axis=0)
    z = match_cast(both, type=Tensor[(k * 2, 2), f32])
    return z
"""
    x = np.ones((3, 2), np.float32)
    z = treadle.compile(ir(text), threads=1)(x, x)
    assert z.shape == (6, 2)
    assert not np.shares_memory(z, x)


CHOSEN = """
@graph.function
def main(x: Tensor[(n,), f32], y: Tensor[(k, 1), f32]) -> (Tensor[(k, 1), f32],):
    places = nonzero(x)
    numbers = cast(places, dtype=f32)
    chosen = match_cast(numbers, type=Tensor[(k, 1), f32])
    z = add(chosen, y)
    return z
"""


def test_a_cast_refines_a_size_that_depends_on_data(both):
    x = np.array([0, 1, 0, 2], np.float32)
    both(CHOSEN, x, np.ones((2, 1), np.float32))
    with pytest.raises(RuntimeFault, match="E0707"):
        treadle.compile(ir(CHOSEN), threads=1)(x, np.ones((3, 1), np.float32))


def test_a_value_of_unknown_shape_is_passed_to_a_function_that_declares_one(both):
    text = """
@graph.function
def pairs(p: Tensor[(2 * h, 1), i64]) -> (Tensor[(h, 2), i64],):
    s = reshape(p, shape=(h, 2))
    return s

@graph.function
def main(x: Tensor[(n,), f32]):
    places = nonzero(x)
    t = call(pairs, places)
    return t
"""
    both(text, np.array([0, 1, 0, 2], np.float32))
    with pytest.raises(RuntimeFault, match="E0707"):
        treadle.compile(ir(text), threads=1)(np.array([0, 1, 0, 2, 3], np.float32))
