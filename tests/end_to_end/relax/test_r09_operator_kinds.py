"""The kind of an operator is inferred from the loops of its program, not declared (Relax, arXiv
2311.02103, §4.2, Alg. 1).
"""

import pytest

from treadle.passes.kinds import Kind, summarize
from treadle.passes.legalize import decompose, legalize
from treadle.testing import ir

OPERATIONS = {
    "relu(x)": Kind.ELEMENTWISE,
    "add(x, x)": Kind.ELEMENTWISE,
    "add(x, row)": Kind.ELEMENTWISE,  # element by element in x, repeated in row
    "expand(row, shape=(n, 8))": Kind.BROADCAST,
    "permute(x, axes=(1, 0))": Kind.INJECTIVE,
    "reshape(x, shape=(n * 8,))": Kind.INJECTIVE,
    "slice(x, axis=1, start=2, stop=6)": Kind.INJECTIVE,
    "gather(x, places, axis=0)": Kind.INJECTIVE,
    "sum(x, axes=(1,))": Kind.REDUCTION,
    "max(x, axes=(0,))": Kind.REDUCTION,
    "matmul(x, w)": Kind.CONTRACTION,
    "cum_sum(x, axis=0)": Kind.OPAQUE,
}


@pytest.mark.parametrize(("operation", "kind"), OPERATIONS.items(), ids=list(OPERATIONS))
def test_operations_have_the_kind_of_their_loops(operation, kind):
    module = legalize(
        decompose(
            ir(f"""
@graph.function
def main(x: Tensor[(n, 8), f32], row: Tensor[(8,), f32], w: Tensor[(8, 4), f32],
         places: Tensor[(3,), i64]):
    y = {operation}
    return y
""")
        )
    )
    (function,) = module.tensor_functions
    assert summarize(function).kind is kind


OWN = """
@tensor.function
def own(X: Buffer[(n, 8), f32], W: Buffer[(8, 4), f32], Y: Output[(n, 4), f32]):
    for i in range(n):
        for j in range(4):
            for k in range(8):
                with block("Y"):
                    vi = spatial(n, i)
                    vj = spatial(4, j)
                    vk = reduction(8, k)
                    with init():
                        Y[vi, vj] = f32({start})
                    Y[vi, vj] = {value}
"""
VALUES = {
    "X[vi, vk] * W[vk, vj] + Y[vi, vj]": Kind.CONTRACTION,
    "max(Y[vi, vj], X[vi, vk])": Kind.REDUCTION,
    "Y[vi, vj] + X[vi, vk]": Kind.REDUCTION,
}


@pytest.mark.parametrize(("value", "kind"), VALUES.items(), ids=list(VALUES))
def test_a_user_s_own_loops_have_a_kind_too(value, kind):
    (function,) = ir(OWN.format(start="0.0", value=value)).tensor_functions
    assert summarize(function).kind is kind


def test_stores_at_different_indices_are_opaque():
    (function,) = ir("""
@tensor.function
def two(X: Buffer[(8,), f32], Y: Output[(16,), f32]):
    for i in range(8):
        with block("Y"):
            vi = spatial(8, i)
            Y[vi] = X[vi]
            Y[vi + 8] = X[vi]
""").tensor_functions
    assert summarize(function).kind is Kind.OPAQUE
