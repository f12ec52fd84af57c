"""Small compositions of operations, for gradients and decompositions."""

from collections.abc import Sequence

from treadle.expr.dtype import DType, i64
from treadle.expr.scalar import Expr, ExprLike, as_expr
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ops._shapes import dim, same_dim, wide
from treadle.ops.create import Arange
from treadle.ops.elementwise import Cast
from treadle.ops.reshape import Reshape
from treadle.ops.shape import Permute, Slice


def converted(x: Traced, dtype: DType) -> Traced:
    """``x`` as another dtype."""
    return x if x.dtype == dtype else Cast(dtype)(x)


def widened(x: Traced) -> Traced:
    """``x`` in the dtype that sums are computed in."""
    return converted(x, wide(x.dtype))


def transposed(x: Traced) -> Traced:
    """``x`` with its last two axes exchanged."""
    return Permute((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))(x)


def cropped(x: Traced, shape: Sequence[Expr]) -> Traced:
    """The first elements of ``x`` along the axes in which it is not known to have the shape
    already.
    """
    for axis, size in enumerate(shape):
        if not same_dim(x.shape[axis], size):
            x = Slice(axis, 0, size)(x)
    return x


def along(x: Traced, axis: int, rank: int) -> Traced:
    """A tensor of one axis, shaped to stand at ``axis`` of one of ``rank``."""
    return Reshape(tuple(x.shape[0] if k == axis else as_expr(1) for k in range(rank)))(x)


def counted(builder: GraphBuilder, size: Expr, axis: int, rank: int) -> Traced:
    """The numbers from 0 to ``size`` - 1 along ``axis`` of a tensor of ``rank``."""
    return along(builder.emit(Arange(0, size, 1, i64)), axis, rank)


def difference(a: ExprLike, b: ExprLike) -> Expr:
    """The simplified difference of two dimensions."""
    return dim(as_expr(a) - b)
