"""Memory that a kernel asks for becomes a value of the graph, and is planned with all others
(Relax, arXiv 2311.02103, §4.4).
"""

import numpy as np

import treadle
from treadle.ir.analysis import statements
from treadle.ir.calls import CallTensor
from treadle.ir.tensor import Allocate
from treadle.passes.lift_workspace import lift_workspace
from treadle.testing import ir

SPLIT = """
@tensor.function
def twice(X: Buffer[(n, 4096), f32], Y: Output[(n, 4096), f32]):
    T = alloc((n, 4096), f32)
    for i in range(n):
        for j in range(4096):
            with block("T"):
                vi = spatial(n, i)
                vj = spatial(4096, j)
                T[vi, vj] = X[vi, vj] + f32(1.0)
    for i2 in range(n):
        for j2 in range(4096):
            with block("Y"):
                wi = spatial(n, i2)
                wj = spatial(4096, j2)
                Y[wi, wj] = T[wi, 4095 - wj] * f32(2.0)

@graph.function
def main(x: Tensor[(a, 4096), f32]) -> (Tensor[(a, 4096), f32],):
    y = call_tensor(twice, x, out=(Tensor[(a, 4096), f32],))
    z = call_tensor(twice, y, out=(Tensor[(a, 4096), f32],))
    return z
"""


def test_a_large_workspace_becomes_a_result_that_nobody_reads():
    module = lift_workspace(ir(SPLIT))
    function = module.tensor("twice")
    assert not any(isinstance(s, Allocate) for s in statements(function.body))
    assert function.outputs == 2
    for b in module.graph("main").body:
        assert isinstance(b.op, CallTensor)
        assert [str(v.type) for v in b.outputs] == ["Tensor[(a, 4096), f32]"] * 2


def test_two_calls_share_one_workspace():
    exe = treadle.compile(ir(SPLIT), threads=1)
    x = np.ones((3, 4096), np.float32)
    np.testing.assert_array_equal(exe(x), (((x + 1) * 2)[:, ::-1] + 1)[:, ::-1] * 2)
    # One value between the calls, and at most one workspace at a time.
    assert exe.memory(a=3).arena <= 2 * x.nbytes
