"""What a call gives follows from the callee's signature alone, and what is given may be of a
coarser type than what is declared: the boundary tests it (Relax, arXiv 2311.02103, §4.1).
"""

import numpy as np
import pytest

import treadle
from treadle.base.errors import RuntimeFault, TreadleError, VerifyError
from treadle.expr.dtype import f32, f64
from treadle.expr.scalar import Var
from treadle.ir.signature import Fit, fit, match, results_of
from treadle.ir.types import TensorType, tensor
from treadle.testing import ir

N, M = Var("n"), Var("m")
COARSE = TensorType(None, 2, f32)

FITS = [
    (tensor((N, 4), f64), tensor((N, 4), f32), Fit.DISJOINT),
    (tensor((N,), f32), tensor((N, 4), f32), Fit.DISJOINT),
    (tensor((N, 5), f32), tensor((N, 4), f32), Fit.DIFFERENT),
    (tensor((N, N + 1), f32), tensor((N, N), f32), Fit.DIFFERENT),
    (tensor((N, M), f32), tensor((N, 4), f32), Fit.CHECKED),
    (tensor((N, M), f32), tensor((N, N), f32), Fit.CHECKED),
    (COARSE, tensor((N, 4), f32), Fit.CHECKED),
    (tensor((N, 4), f32), tensor((N, 4), f32), Fit.SURE),
    (tensor((N * 2 + N, 4), f32), tensor((N * 3, 4), f32), Fit.SURE),
    (tensor((N, 4), f32), COARSE, Fit.SURE),
]


@pytest.mark.parametrize(("given", "wanted", "expected"), FITS, ids=str)
def test_a_type_fits_another_in_one_of_four_grades(given, wanted, expected):
    assert fit(given, wanted) is expected


def test_the_callee_s_symbols_are_not_the_caller_s():
    # f(x: (n, m)) -> (m, n), called where x is (m, n)
    (result,) = results_of((tensor((N, M), f32),), (tensor((M, N), f32),), (tensor((M, N), f32),))
    assert result == tensor((N, M), f32)


def test_a_symbol_is_found_through_linear_dimensions_and_products():
    given = (tensor((N, 7), f32), tensor((N * 7,), f32))
    found = match(given, (tensor((2 * M + 1, 7), f32), tensor((N * 7,), f32)))
    assert str(found.symbols[M]) == "(n + 1) // 2 - 1"
    assert found.symbols[N] is N
    assert found.fit is Fit.CHECKED


def test_a_result_whose_symbols_are_not_told_has_a_rank_only():
    (result,) = results_of((COARSE,), (tensor((N, 4), f32),), (COARSE,))
    assert result == COARSE


def test_the_type_of_a_call_is_deduced_from_the_signature():
    module = ir("""
@graph.function
def flat(x: Tensor[(n, m), f32]) -> (Tensor[(n * m,), f32],):
    y = reshape(x, shape=(n * m,))
    return y

@graph.function
def main(x: Tensor[(a, 2), f32]) -> (Tensor[(a * 2,), f32],):
    y = call(flat, x)
    return y
""")
    assert str(module.graph("main").body[0].outputs[0].type) == "Tensor[(a * 2,), f32]"


COARSER = """
@graph.function
def four(x: Tensor[({dims}), f32]) -> (Tensor[({dims}), f32],):
    assume(n <= 5)
    y = relu(x)
    return y

@graph.function
def main(x: Tensor[(a, b), f32]) -> (Tensor[(a, b), f32],):
    y = call(four, x, out=(Tensor[(a, b), f32],))
    return y
"""


@pytest.mark.parametrize(
    ("dims", "good", "bad"),
    [
        ("n, 4", (3, 4), (3, 5)),
        ("n, n", (3, 3), (3, 4)),
        ("n, 2 * n", (2, 4), (2, 5)),
        ("2 * n, 4", (6, 4), (5, 4)),
        ("n, 4", (5, 4), (6, 4)),
    ],
)
def test_a_coarser_operand_is_legal_and_tested_at_the_boundary(both, dims, good, bad):
    text = COARSER.format(dims=dims)
    both(text, np.ones(good, np.float32))
    with pytest.raises(RuntimeFault):
        treadle.compile(ir(text), threads=1)(np.ones(bad, np.float32))


def test_a_result_that_is_declared_finer_is_tested(both):
    text = """
@graph.function
def joined(x: Tensor[(n,), f32], y: Tensor[(m,), f32]) -> (Tensor[(n + m,), f32],):
    z = concat(x, y, axis=0)
    return z

@graph.function
def main(x: Tensor[(a,), f32], y: Tensor[(b,), f32]) -> (Tensor[(8,), f32],):
    z = call(joined, x, y, out=(Tensor[(8,), f32],))
    w = relu(z)
    return w
"""
    both(text, np.ones(5, np.float32), np.ones(3, np.float32))
    with pytest.raises(RuntimeFault):
        treadle.compile(ir(text), threads=1)(np.ones(5, np.float32), np.ones(4, np.float32))


def test_a_loop_program_gets_operands_of_its_shapes(both):
    text = """
@tensor.function
def doubled(X: Buffer[(n, 4), f32], Y: Output[(n, 4), f32]):
    for i in range(n):
        for j in range(4):
            with block("Y"):
                vi = spatial(n, i)
                vj = spatial(4, j)
                Y[vi, vj] = X[vi, vj] * f32(2.0)

@graph.function
def main(x: Tensor[(a, b), f32]) -> (Tensor[(a, 4), f32],):
    y = call_tensor(doubled, x, out=(Tensor[(a, 4), f32],))
    return y
"""
    both(text, np.ones((3, 4), np.float32))
    with pytest.raises(RuntimeFault):
        treadle.compile(ir(text), threads=1)(np.ones((3, 3), np.float32))


@pytest.mark.parametrize("dims", ["(n, 5)", "(n,)"])
def test_an_operand_that_never_fits_is_refused_when_compiling(dims):
    text = f"""
@graph.function
def four(x: Tensor[(n, 4), f32]) -> (Tensor[(n, 4), f32],):
    y = relu(x)
    return y

@graph.function
def main(x: Tensor[{dims}, f32]) -> (Tensor[(n, 4), f32],):
    y = call(four, x, out=(Tensor[(n, 4), f32],))
    return y
"""
    with pytest.raises(VerifyError, match="E0205"):
        treadle.compile(ir(text), threads=1)


def test_a_call_that_says_another_result_than_the_signature_is_refused():
    text = """
@graph.function
def same(x: Tensor[(n, 4), f32]) -> (Tensor[(n, 4), f32],):
    y = relu(x)
    return y

@graph.function
def main(x: Tensor[(a, 4), f32]) -> (Tensor[(a, 5), f32],):
    y = call(same, x, out=(Tensor[(a, 5), f32],))
    return y
"""
    with pytest.raises(TreadleError, match="E0205"):
        treadle.compile(ir(text), threads=1)
