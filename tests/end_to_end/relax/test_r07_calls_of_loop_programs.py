"""A call of a loop program allocates its results and passes numbers besides its buffers; static
dimensions are numbers in its loops while others stay symbols (Relax, arXiv 2311.02103, §3.2,
Fig. 5).
"""

import numpy as np

import treadle
from treadle.driver.pipelines import graph_pipeline, loop_pipeline
from treadle.expr.scalar import int_value
from treadle.ir.analysis import statements
from treadle.ir.calls import CallTensor
from treadle.ir.tensor import For
from treadle.target import Target
from treadle.testing import ir

SHIFTED = """
@tensor.function
def shifted(X: Buffer[(n, 64), f32], k: i64, Y: Output[(n, 64), f32]):
    for i in range(n):
        for j in range(64):
            with block("Y"):
                vi = spatial(n, i)
                vj = spatial(64, j)
                Y[vi, vj] = X[vi, (vj + k) % 64]

@graph.function
def main(x: Tensor[(n, 64), f32]) -> (Tensor[(n, 64), f32], Tensor[(n, 64), f32]):
    y = call_tensor(shifted, x, symbols=(n + 1,))
    z = call_tensor(shifted, x, symbols=(3,))
    return y, z
"""


def test_a_program_gets_numbers_computed_from_the_symbols():
    x = np.arange(5 * 64, dtype=np.float32).reshape(5, 64)
    y, z = treadle.compile(ir(SHIFTED), threads=1)(x)
    np.testing.assert_array_equal(y, np.roll(x, -6, axis=1))
    np.testing.assert_array_equal(z, np.roll(x, -3, axis=1))


def test_interpreted_and_compiled_programs_agree(both):
    both(SHIFTED, np.arange(3 * 64, dtype=np.float32).reshape(3, 64))


def test_static_dimensions_are_numbers_in_the_loops_and_only_n_is_not():
    text = """
@graph.function
def main(x: Tensor[(n, 64), f32], w: Tensor[(64, 32), f32]) -> (Tensor[(n, 32), f32],):
    y = matmul(x, w)
    return y
"""
    module = graph_pipeline().run(ir(text))
    module = loop_pipeline(Target.parse("native"), 1).run(module)
    (call,) = [b.op for b in module.graph("main").body if isinstance(b.op, CallTensor)]
    loops = [s for s in statements(module.tensor(call.function).body) if isinstance(s, For)]
    symbolic = [s for s in loops if int_value(s.extent) is None]
    assert symbolic
    assert len(symbolic) < len(loops)
    assert {v.name for s in symbolic for v in _symbols(s)} == {"n"}


def _symbols(loop: For):
    x = [loop.extent]
    while x:
        e = x.pop()
        if not e.children and int_value(e) is None:
            yield e
        x.extend(e.children)
