"""One compilation serves all batch sizes and lengths (Relax, arXiv 2311.02103, §5)."""

import numpy as np

import treadle
from treadle.codegen.llvm import object as objects
from treadle.ir.interpret.graph import run
from treadle.testing import ir

BLOCK = """
@graph.function
def main(x: Tensor[(b, n, 32), f32], keys: Tensor[(b, m, 32), f32], w: Tensor[(32, 32), f32]
         ) -> (Tensor[(b, n, 32), f32],):
    q = matmul(x, w)
    turned = permute(keys, axes=(0, 2, 1))
    scores = matmul(q, turned)
    weights = softmax(scores, axis=-1)
    mixed = matmul(weights, keys)
    y = add(x, mixed)
    z = rms_norm(y, axes_from=-1, eps=0.00001)
    return z
"""


def test_one_executable_serves_all_shapes_and_nothing_is_compiled_again(monkeypatch):
    compilations: list[int] = []
    real = objects.compile_objects

    def counted(texts, *rest):
        compilations.append(len(texts))
        return real(texts, *rest)

    monkeypatch.setattr("treadle.driver.build.compile_objects", counted)
    module = ir(BLOCK)
    exe = treadle.compile(module, threads=1)
    assert len(compilations) == 1
    rng = np.random.default_rng(0)
    w = rng.uniform(-0.3, 0.3, (32, 32)).astype(np.float32)
    for _ in range(40):
        b, n, m = (int(v) for v in rng.integers(1, (5, 40, 70)))
        x = rng.uniform(-1, 1, (b, n, 32)).astype(np.float32)
        keys = rng.uniform(-1, 1, (b, m, 32)).astype(np.float32)
        (expected,) = run(module, "main", x, keys, w)
        np.testing.assert_allclose(exe(x, keys, w), expected, rtol=2e-4, atol=2e-5)
    assert len(compilations) == 1
