"""Operations whose results are as large as values say: counts that become symbols.

Where nothing more is known, such a result has a coarse type: a rank. ``decompose`` says the same by
other operations, in an order in which each size is computed, and bound to a symbol, before anything
of this size. The pass ``bind_sizes`` does so before any other looks at shapes.
"""

from abc import abstractmethod
from typing import ClassVar

from treadle.expr.dtype import i64
from treadle.expr.scalar import Expr, ExprLike, Var, as_expr
from treadle.ir.calls import BindSymbol
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op
from treadle.ir.types import TensorType
from treadle.ops.elementwise import Cast


class DataSized(Op):
    """An operation with results whose sizes depend on values."""

    differentiable: ClassVar[bool] = False

    @abstractmethod
    def decompose(self, *args: Traced) -> Traced | tuple[Traced, ...]:
        """The same results with dimensions, over symbols that the program binds."""


def coarse(ndim: int, like: TensorType) -> TensorType:
    """The type of a result of which only the rank is known, of the element type of another."""
    return TensorType(None, ndim, like.dtype)


POSITIONS = TensorType(None, 1, i64)
"""A list of positions, as many as values say."""


def bind_size(count: Traced, name: str, most: ExprLike | None = None) -> Var:
    """A symbol for a number that the program computes, an integer of rank 0, at most ``most``."""
    symbol = Var(count.builder.fresh(name))
    above: tuple[Expr, ...] = () if most is None else (symbol <= as_expr(most),)
    BindSymbol(symbol, (symbol >= 0, *above))(count if count.dtype is i64 else Cast(i64)(count))
    return symbol
