"""Tiles get about as many rows each, and every row is computed as before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.expr.dtype import f32
from treadle.expr.scalar import Var
from treadle.ir.interpret import run_tensor
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops import Matmul
from treadle.passes.balance_tails import balance_tails
from treadle.passes.inplace import may_overwrite
from treadle.passes.lower_loops import lower_loops
from treadle.target import Target
from treadle.testing import assert_same_ir, ir
from treadle.tune.default import default_schedule

ROWS = """
    @tensor.function
    def rows(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
        for i in range((n + 5) // 6):
            for r in unrolled(6):
                for j in range(8):
                    if i * 6 + r < n:
                        Y[i * 6 + r, j] = X[i * 6 + r, j] * f32(2.0)
"""


def function_of(text: str) -> TensorFunction:
    return ir(text).tensor_functions[0]


def test_tiles_have_about_as_many_rows():
    wanted = """
        @tensor.function
        def rows(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
            for i in range((n + 5) // 6):
                i_start = let(i * ((n + (n + 5) // 6 - 1) // ((n + 5) // 6)))
                i_rows = let(min((n + (n + 5) // 6 - 1) // ((n + 5) // 6), n - i_start))
                for r in unrolled(6):
                    for j in range(8):
                        if r < i_rows:
                            Y[i_start + r, j] = X[i_start + r, j] * f32(2.0)
    """
    after = balance_tails(function_of(ROWS))
    verify_tensor_function(after)
    assert_same_ir(after, function_of(wanted))


@pytest.mark.parametrize("n", [0, 1, 5, 6, 7, 12, 13, 19, 31])
def test_every_row_is_computed(n):
    x = np.random.default_rng(n).standard_normal((n, 8), np.float32)
    for after in (balance_tails(function_of(ROWS)), lower_loops(function_of(ROWS))):
        found = run_tensor(after, [x], {"n": n}, out_shapes=[(n, 8)])[0]
        np.testing.assert_array_equal(found, x * 2)


@pytest.mark.parametrize(
    "text",
    [
        ROWS.replace("X[i * 6 + r, j]", "Y[i * 6 + r - 1, j]"),
        ROWS.replace("Y[i * 6 + r, j] =", "Y[n - 1 - i * 6 - r, j] ="),
        ROWS.replace("Y[i * 6 + r, j] =", "Y[i, j] ="),
        ROWS.replace("* f32(2.0)", "* cast(i, f32)"),
        ROWS.replace("if i * 6 + r < n:", "if i * 6 + r < n - 1:"),
        ROWS.replace("if i * 6 + r < n:", "if i * 6 + j < n:"),
        ROWS.replace("unrolled(6)", "range(6)"),
        ROWS.replace("(n + 5) // 6", "n // 6"),
    ],
    ids=[
        "a row reads another",
        "rows are stored from the end",
        "a tile has one result",
        "a value goes by the tile",
        "the limit is another",
        "the limit is one on columns",
        "the tile is a loop",
        "there is no rest",
    ],
)
def test_what_goes_by_anything_but_rows_stays(text):
    before = function_of(text)
    assert_same_ir(balance_tails(before), before)


def test_hints_go_on_counting_tiles():
    hint = "for r in unrolled(6):\n                prefetch(X[0, 0], i * 64)\n"
    text = ROWS.replace("for r in unrolled(6):\n", hint)
    assert "prefetch(X[0, 0], i * 64)" in str(balance_tails(function_of(text)))
    assert "i_rows" in str(balance_tails(function_of(text)))


@settings(max_examples=12, deadline=None)
@given(n=st.integers(0, 31), k=st.sampled_from([1, 7, 16]), columns=st.sampled_from([1, 5, 33, 64]))
def test_products_keep_their_values(n, k, columns):
    function = Matmul().lower(tensor([Var("n"), k], f32), tensor([k, columns], f32))
    assert function is not None
    target = Target.parse("x86-64-v4")
    s = default_schedule(function, target, 1, frozenset())
    rng = np.random.default_rng(n)
    a, b = (rng.integers(-3, 4, d).astype(np.float32) for d in ((n, k), (k, columns)))
    low = lower_loops(s.function)
    found = run_tensor(low, [a.ravel(), b.ravel()], {"n": n}, out_shapes=[(n * columns,)])[0]
    np.testing.assert_array_equal(found.reshape(n, columns), a @ b)


def test_opposite_branches_never_meet():
    text = """
        @tensor.function
        def f(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
            if n <= 4:
                for i in range(n):
                    for j in range(8):
                        Y[i, j] = X[i, j] * f32(2.0)
            else:
                for i_1 in range(n):
                    for j_1 in range(8):
                        Y[i_1, j_1] = X[i_1, j_1] * f32(2.0)
    """
    assert may_overwrite(function_of(text), 0, 0)
    later = text.replace("else:", "if n > 5:")
    assert not may_overwrite(function_of(later), 0, 0)
