"""Pairs of a pattern and a function, which users extend, replace parts of a graph; the rest is
fused, planned and compiled around them (Relax, arXiv 2311.02103, §4.6).
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
from treadle.expr.dtype import f32
from treadle.libraries import Library, Lowering, dims, is_op, leading, openblas, tensor
from treadle.ops import Attention, Softmax
from treadle.testing import ir

MODEL = """
    @graph.function
    def main(x: Tensor[(b, t, 24), f32], w: Tensor[(24, 24), f32], g: Tensor[(24,), f32]):
        n = rms_norm(x, g)
        q = matmul(n, w)
        h = gelu(q)
        s = softmax(h, axis=-1)
        u = matmul(s, w)
        y = add(u, x)
        z = mul(y, g)
        return z
"""


def row_softmax():
    """A user's own function, in ten lines."""
    rows, n = dims("rows n")
    x, y = tensor(f32, leading(rows), n), tensor(f32, leading(rows), n)

    def softmax(x, y):
        np.exp(x - x.max(-1, keepdims=True), out=y)
        y /= y.sum(-1, keepdims=True)

    last = is_op(Softmax, x).has_fields(axis=lambda axis: axis == -1)
    return Library("mine", (Lowering(last, y, softmax),))


def arrays(b, t):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype(np.float32) for s in ((b, t, 24), (24, 24), (24,))]


def test_what_libraries_do_not_compute_is_fused_as_ever():
    exe = treadle.compile(ir(MODEL), threads=1, libraries=[openblas(threads=1), row_softmax()])
    called = [c.kernel for c in exe.entry.calls]
    libraries = [c for c in called if c in exe.entry.callbacks]
    assert libraries == ["openblas.sgemm", "mine.softmax", "openblas.sgemm"]
    # The norm, the activation, and what follows the last product: one kernel each.
    assert len(called) - len(libraries) == 3


@pytest.fixture(scope="module")
def programs():
    """The model as generated, then with one library or two."""
    module = ir(MODEL)
    blas, mine = openblas(threads=1), row_softmax()
    given_libraries = ([], [blas], [mine], [mine, blas])
    return [treadle.compile(module, threads=1, libraries=x) for x in given_libraries]


@settings(max_examples=15, deadline=None)
@given(b=st.integers(0, 4), t=st.integers(0, 9))
def test_one_program_serves_all_sizes_with_libraries_or_without(programs, b, t):
    expected, *results = (exe(*arrays(b, t)) for exe in programs)
    for found in results:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_pattern_may_be_a_whole_operation_of_the_model():
    """Patterns are matched before operations are taken apart."""
    b, h, t, d = dims("b h t d")
    q, k, v, y = (tensor(f32, b, h, t, d) for _ in range(4))

    def attention(q, k, v, y):
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        y[...] = weights / weights.sum(-1, keepdims=True) @ v

    pattern = is_op(Attention, q, k, v, causal=False, scale=None)
    mine = Library("mine", (Lowering(pattern, y, attention),))
    module = ir("""
        @graph.function
        def main(
            q: Tensor[(n, 2, t, 8), f32],
            k: Tensor[(n, 2, t, 8), f32],
            v: Tensor[(n, 2, t, 8), f32],
        ):
            y = attention(q, k, v)
            return y
    """)
    exe = treadle.compile(module, threads=1, libraries=[mine])
    assert [c.chosen for c in exe.library_choices] == ["mine.attention"]
    inputs = [
        np.random.default_rng(i).standard_normal((3, 2, 5, 8)).astype(np.float32) for i in range(3)
    ]
    expected = treadle.compile(module, threads=1)(*inputs)
    np.testing.assert_allclose(exe(*inputs), expected, rtol=1e-4, atol=1e-5)
