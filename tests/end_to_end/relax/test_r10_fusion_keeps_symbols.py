"""Fusion by kinds merges loop programs and keeps their symbols; a program of a user's own fuses
with a product without an operation of the graph (Relax, arXiv 2311.02103, §4.2, Alg. 2, Fig. 9).
"""

import numpy as np

import treadle
from treadle.driver.pipelines import graph_pipeline
from treadle.ir.calls import CallTensor
from treadle.passes.fuse import fuse
from treadle.passes.legalize import legalize
from treadle.testing import ir

BLOCK = """
@graph.function
def main(x: Tensor[(n, m), f32], w: Tensor[(m, 32), f32], b: Tensor[(32,), f32]
         ) -> (Tensor[(n, 32), f32],):
    y = matmul(x, w)
    z = add(y, b)
    a = relu(z)
    c = mul(a, f32(2.0))
    return c
"""


def calls(module):
    return [b for b in module.graph("main").body if isinstance(b.op, CallTensor)]


def fused(text: str):
    return fuse(legalize(graph_pipeline().run(ir(text), verify=True)))


def test_a_product_takes_what_follows_it_and_both_symbols_stay():
    (call,) = calls(fused(BLOCK))
    assert str(call.outputs[0].type) == "Tensor[(n, 32), f32]"
    function = fused(BLOCK).tensor(call.op.function)
    dims = {str(d) for b in function.buffers for d in b.shape}
    assert {"n", "m", "32"} <= dims


def test_the_fused_program_computes_the_same(both):
    rng = np.random.default_rng(0)
    for n, m in ((1, 8), (5, 3), (33, 16)):
        both(
            BLOCK,
            *(rng.uniform(-1, 1, s).astype(np.float32) for s in ((n, m), (m, 32), (32,))),
        )


def test_a_reduction_does_not_fuse_into_another():
    text = """
@graph.function
def main(x: Tensor[(n, m), f32]) -> (Tensor[(), f32],):
    a = exp(x)
    b = sum(a, axes=(1,))
    c = sqrt(b)
    d = sum(c, axes=(0,))
    return d
"""
    assert len(calls(fused(text))) == 2


def test_symbols_that_meet_by_an_expression_stay_an_expression():
    text = """
@graph.function
def main(x: Tensor[(n, 2), f32], y: Tensor[(2 * n,), f32]) -> (Tensor[(2 * n,), f32],):
    a = reshape(x, shape=(2 * n,))
    b = add(a, y)
    c = exp(b)
    return c
"""
    (call,) = calls(fused(text))
    assert str(call.outputs[0].type) == "Tensor[(2 * n,), f32]"


DECODED = """
codes = constant(Tensor[(64, 32), i8])
scales = constant(Tensor[(2, 32), f32])

@tensor.function
def decode(Q: Buffer[(64, 32), i8], S: Buffer[(2, 32), f32], W: Output[(64, 32), f32]):
    for k in range(64):
        for j in range(32):
            with block("W"):
                vk = spatial(64, k)
                vj = spatial(32, j)
                W[vk, vj] = cast(Q[vk, vj], f32) * S[vk // 32, vj]

@graph.function
def main(x: Tensor[(n, 64), f32]) -> (Tensor[(n, 32), f32],):
    w = call_tensor(decode, constants.codes, constants.scales)
    y = matmul(x, w)
    z = relu(y)
    return z
"""


def test_a_user_s_decoding_of_weights_fuses_with_the_product_that_reads_them():
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, (64, 32)).astype(np.int8)
    scales = rng.uniform(0.1, 1, (2, 32)).astype(np.float32)
    module = ir(DECODED, {"codes": codes, "scales": scales})
    assert len(calls(fuse(legalize(graph_pipeline().run(module))))) == 1
    x = rng.uniform(-1, 1, (5, 64)).astype(np.float32)
    weights = codes.astype(np.float32) * np.repeat(scales, 32, axis=0)
    found = treadle.compile(module, threads=1)(x)
    np.testing.assert_allclose(found, np.maximum(x @ weights, 0), rtol=1e-4, atol=1e-4)
