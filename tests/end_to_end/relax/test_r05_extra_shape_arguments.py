"""A function whose buffers' shapes do not tell a symbol gets its value as an argument: ``n`` where
all buffers have ``2 * n`` elements (Relax, arXiv 2311.02103, §4.2, Fig. 8), whichever pass writes
the function.
"""

import numpy as np
import pytest

from treadle.driver.pipelines import graph_pipeline, loop_pipeline
from treadle.ir.analysis import symbols
from treadle.ir.calls import CallTensor
from treadle.target import Target
from treadle.testing import ir

CHAIN = """
@graph.function
def main(x: Tensor[(n, 2), f32]) -> (Tensor[(2 * n,), f32],):
    y = reshape(x, shape=(2 * n,))
    z = exp(y)
    w = relu(z)
    v = neg(w)
    return v
"""
REPEATED = """
@graph.function
def main(x: Tensor[(2 * n,), f32], y: Tensor[(n,), f32]) -> (Tensor[(2 * n,), f32],):
    a = concat(y, y, axis=0)
    b = add(a, x)
    c = exp(b)
    d = mul(c, x)
    return d
"""
COUNTED = """
@graph.function
def main(x: Tensor[(2 * n,), f32], y: Tensor[(n,), f32]) -> (Tensor[(2 * n,), f32],):
    size = cast(literal(n), dtype=f32)
    a = div(x, size)
    b = exp(a)
    return b
"""
PRODUCTS = """
@graph.function
def main(x: Tensor[(n, 2, 16), f32], w: Tensor[(16, 16), f32]) -> (Tensor[(2 * n, 16), f32],):
    a = reshape(x, shape=(2 * n, 16))
    b = matmul(a, w)
    c = softmax(b, axis=-1)
    d = matmul(c, w)
    e = relu(d)
    return e
"""
WORKSPACE = """
@graph.function
def main(x: Tensor[(n, 2, 64), f32]) -> (Tensor[(2 * n, 64), f32],):
    a = reshape(x, shape=(2 * n, 64))
    b = softmax(a, axis=0)
    c = exp(b)
    return c
"""
TEXTS = {
    "fused chain": (CHAIN, ((6, 2),)),
    "concatenation": (REPEATED, ((8,), (4,))),
    "the symbol as a number": (COUNTED, ((8,), (4,))),
    "chain of products": (PRODUCTS, ((6, 2, 16), (16, 16))),
    "workspace": (WORKSPACE, ((6, 2, 64),)),
}


@pytest.mark.parametrize(("text", "shapes"), TEXTS.values(), ids=TEXTS)
def test_outlined_functions_compute_the_right_values(both, text, shapes):
    rng = np.random.default_rng(0)
    both(text, *(rng.uniform(-1, 1, s).astype(np.float32) for s in shapes))


@pytest.mark.parametrize(("text", "shapes"), TEXTS.values(), ids=TEXTS)
def test_every_call_gives_each_symbol_that_shapes_do_not_tell(text, shapes):
    module = graph_pipeline().run(ir(text), verify=True)
    module = loop_pipeline(Target.parse("native"), 1).run(module, verify=True)
    calls = [b for b in module.graph("main").body if isinstance(b.op, CallTensor)]
    assert calls
    for b in calls:
        callee = module.tensor(b.op.function)
        told = {d for x in callee.buffers for d in x.shape}
        given = callee.params[len(callee.buffers) :]
        assert len(b.op.symbols) == len(given)
        assert all(v in told or v in given for v in symbols(callee))


def test_the_symbol_of_two_n_elements_is_an_argument():
    text = """
@graph.function
def main(x: Tensor[(2 * n,), f32], m: Tensor[(n,), f32]) -> (Tensor[(2 * n,), f32],):
    rows = reshape(x, shape=(n, 2))
    ends = flip(rows, axes=(0,))
    y = reshape(ends, shape=(2 * n,))
    z = exp(y)
    return z
"""
    module = graph_pipeline().run(ir(text), verify=True)
    module = loop_pipeline(Target.parse("native"), 1).run(module, verify=True)
    lists = [b.op.symbols for b in module.graph("main").body if isinstance(b.op, CallTensor)]
    assert "n" in [str(s) for given in lists for s in given]
