"""A call of a function outside gets memory for its results and fills it; functions come from
libraries that are handed over, C and Python alike (Relax, arXiv 2311.02103, §3.3).
"""

import ctypes.util

import numpy as np
import pytest

import treadle
from treadle.base.errors import LoweringError, RuntimeFault
from treadle.expr.dtype import f32, i64
from treadle.libraries import Library, Lowering, dims, is_op, leading, tensor
from treadle.ops import Neg, Sort
from treadle.testing import ir

N, M = dims("n m")
X, Y = tensor(f32, N, M), tensor(f32, N, M)
FLAT, SAME = tensor(f32, leading(N)), tensor(f32, leading(N))


def libc():
    """``memcpy`` and ``memccpy`` of the C library, of which the second stops at a byte."""
    path = ctypes.util.find_library("c")
    copy = Lowering(
        is_op(Neg, X), Y, "void memcpy(void *y, const void *x, size_t n)", (Y, X, N * M * 4)
    )
    return Library("libc", (copy,), path)


def python(filled):
    """A function that fills its result with a number, and remembers what it was given."""

    def fill(x, y):
        filled.append((x.shape, x.flags.writeable, y.flags.writeable))
        y[...] = x.sum()

    return Library("python", (Lowering(is_op(Neg, FLAT), SAME, fill),))


COPY = """
    @graph.function
    def main(x: Tensor[(n, m), f32]) -> (Tensor[(n, m), f32],):
        a = exp(x)
        y = call_library(libc.memcpy, a, out=(Tensor[(n, m), f32],))
        z = log(y)
        return z
"""


def test_a_function_of_c_gets_pointers_and_the_sizes_of_this_call():
    exe = treadle.compile(ir(COPY), threads=1, libraries=[libc()])
    for shape in ((2, 3), (17, 5), (0, 4), (1, 0)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(exe(x), x, rtol=1e-4, atol=1e-5)


def test_a_function_of_python_gets_arrays_to_read_and_one_to_fill():
    filled = []
    exe = treadle.compile(
        ir("""
            @graph.function
            def main(x: Tensor[(n, m), f32]) -> (Tensor[(n, m), f32],):
                y = call_library(python.fill, x, out=(Tensor[(n, m), f32],))
                return y
        """),
        threads=1,
        libraries=[python(filled)],
    )
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(exe(x), np.full((2, 3), 6))
    assert filled == [((2, 3), False, True)]


def test_a_library_is_a_value_and_is_known_where_it_was_handed_over_only():
    module = ir(COPY)
    treadle.compile(module, threads=1, libraries=[libc()])
    with pytest.raises(RuntimeFault, match="E0726"):
        treadle.compile(module, threads=1)


@pytest.mark.parametrize(
    "call",
    [
        "call_library(libc.memcpy, a, out=(Tensor[(m, n), f32],))",
        "call_library(libc.memcpy, a, a, out=(Tensor[(n, m), f32],))",
        "call_library(libc.memcpy, a, out=(Tensor[(n, m), i64],))",
        "call_library(libc.memcpy, a, out=(Tensor[(n, m + 1), f32],))",
        "call_library(libc.memcpy, a, out=(Tensor[(n, m), f32],), symbols=(n,))",
    ],
)
def test_a_call_that_the_declaration_does_not_allow_does_not_compile(call):
    text = f"""
        @graph.function
        def main(x: Tensor[(n, m), f32]):
            a = exp(x)
            y = {call}
            return y
    """
    with pytest.raises(LoweringError, match="E0431"):
        treadle.compile(ir(text), threads=1, libraries=[libc()])


def test_results_are_planned_like_those_of_kernels():
    text = """
        @graph.function
        def main(x: Tensor[(n, 64), f32]) -> (Tensor[(n, 64), f32],):
            a = cum_sum(x, axis=0)
            b = call_library(libc.memcpy, a, out=(Tensor[(n, 64), f32],))
            c = cum_sum(b, axis=0)
            d = call_library(libc.memcpy, c, out=(Tensor[(n, 64), f32],))
            e = cum_sum(d, axis=0)
            return e
    """
    exe = treadle.compile(ir(text), threads=1, libraries=[libc()])
    x = np.random.default_rng(0).standard_normal((9, 64)).astype(np.float32)
    expected = x.cumsum(0).cumsum(0).cumsum(0)
    np.testing.assert_allclose(exe(x), expected, rtol=1e-4, atol=1e-4)
    # Of four values between, two live at a time; a call never reads what it writes.
    assert exe.memory(n=512).arena == 2 * 512 * 64 * 4


def test_operands_of_a_size_that_values_give():
    text = """
        @graph.function
        def main(x: Tensor[(n,), bool]) -> (Tensor[(k, 1), i64],):
            where = nonzero(x)
            known = match_cast(where, type=Tensor[(k, 1), i64])
            y = call_library(libc.copy, known, out=(Tensor[(k, 1), i64],))
            return y
    """
    x, y = tensor(i64, leading(N)), tensor(i64, leading(N))
    prototype = "void memcpy(void *y, const void *x, size_t n)"
    copy = Lowering(is_op(Sort, x), y, prototype, (y, x, N * 8), name="copy")
    library = Library("libc", (copy,), ctypes.util.find_library("c"))
    exe = treadle.compile(ir(text), threads=1, libraries=[library])
    for x in ([True, False, True, True], [False] * 3, [True] * 9):
        np.testing.assert_array_equal(exe(np.array(x)), np.argwhere(x))
