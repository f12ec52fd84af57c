"""Products of matrices."""

from treadle.frontend.onnx.compose import add, matmul, mul, permute
from treadle.frontend.onnx.converter import converter
from treadle.ir.graph_builder import Traced
from treadle.ops.contraction import Einsum


@converter("MatMul")
def product(a: Traced, b: Traced) -> Traced:
    """As numpy.matmul."""
    return matmul(a, b)


@converter("Gemm")
def gemm(
    a: Traced,
    b: Traced,
    c: Traced | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    broadcast: int = 1,
) -> Traced:
    """alpha a b + beta c; integers when both factors are 1, else by way of them."""
    left, right = (permute(x, 1, 0) if flag else x for x, flag in ((a, transA), (b, transB)))
    result = matmul(left, right)
    if alpha != 1.0:
        result = mul(result, alpha)
    if c is None or beta == 0.0:
        return result
    return add(result, c if beta == 1.0 else mul(c, beta))


@converter("Einsum", since=12)
def einsum(*xs: Traced, equation: str) -> Traced:
    """As numpy.einsum."""
    return Einsum(equation.replace(" ", ""))(*xs)


CONVERTERS = (product, gemm, einsum)
