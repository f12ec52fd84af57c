"""Products of matrices."""

from treadle.frontend.torch.context import Context, Converter, Number
from treadle.frontend.torch.promotion import elementwise
from treadle.ir.graph_builder import Traced
from treadle.ops.binary import Add, Mul
from treadle.ops.contraction import Einsum, Matmul


def matmul(c: Context, a: Traced, b: Traced) -> Traced:
    """The product; vectors and batches as in NumPy."""
    return c.emit(Matmul(), a, b)


def linear(c: Context, x: Traced, weight: Traced, bias: Traced | None) -> Traced:
    """x · weightᵀ + bias."""
    transposed = c.permute(weight, (1, 0)) if weight.ndim == 2 else weight
    y = c.emit(Matmul(), x, transposed)
    return y if bias is None else c.emit(Add(), y, bias)


def _scaled(c: Context, x: Traced, factor: Number) -> Traced:
    return x if factor == 1 else elementwise(c, Mul(), x, factor)


def addmm(
    c: Context, x: Traced, a: Traced, b: Traced, beta: Number = 1, alpha: Number = 1
) -> Traced:
    """beta · x + alpha · a · b, of matrices or batches of them."""
    product = _scaled(c, c.emit(Matmul(), a, b), alpha)
    return product if beta == 0 else c.emit(Add(), product, _scaled(c, x, beta))


def outer(c: Context, a: Traced, b: Traced) -> Traced:
    """All products of two vectors' elements."""
    return elementwise(c, Mul(), c.reshape(a, (a.shape[0], 1)), b)


def einsum(c: Context, equation: str, operands: tuple[Traced, ...], path: object = None) -> Traced:
    """The sum of products that the equation says."""
    return c.emit(Einsum(equation.replace(" ", "")), *operands)


CONVERTERS: dict[str, Converter] = {
    "mm.default": matmul,
    "bmm.default": matmul,
    "matmul.default": matmul,
    "mv.default": matmul,
    "dot.default": matmul,
    "vdot.default": matmul,
    "linear.default": linear,
    "addmm.default": addmm,
    "baddbmm.default": addmm,
    "outer.default": outer,
    "einsum.default": einsum,
}
