"""What is known of a graph value before the program runs."""

from dataclasses import dataclass

from treadle.expr.dtype import DType
from treadle.expr.scalar import Expr, ExprLike, as_expr


@dataclass(frozen=True, slots=True)
class TensorType:
    """A dense tensor. ``shape`` is ``None`` when only the number of dimensions is known."""

    shape: tuple[Expr, ...] | None
    ndim: int
    dtype: DType

    @property
    def dims(self) -> tuple[Expr, ...]:
        """The dimensions; asking for unknown ones is an error of the compiler."""
        if self.shape is None:
            raise UnknownShape
        return self.shape

    def __str__(self) -> str:
        if self.shape is None:
            return f"Tensor[ndim({self.ndim}), {self.dtype}]"
        return f"Tensor[{tuple_text(self.shape)}, {self.dtype}]"


class UnknownShape(LookupError):
    """Dimensions were asked of a tensor of which only the rank is known."""


@dataclass(frozen=True, slots=True)
class ShapeType:
    """A tuple of dimensions as a value; binds or checks the symbols in it where it enters a
    function.
    """

    dims: tuple[Expr, ...]

    def __str__(self) -> str:
        return f"Shape[{tuple_text(self.dims)}]"


Type = TensorType | ShapeType


def tuple_text(dims: tuple[Expr, ...]) -> str:
    """A tuple of expressions in Python's notation."""
    inner = ", ".join(map(str, dims))
    return f"({inner},)" if len(dims) == 1 else f"({inner})"


def tensor(shape: tuple[ExprLike, ...] | list[ExprLike], dtype: DType) -> TensorType:
    """The type of a tensor of known (maybe symbolic) dimensions."""
    dims = tuple(as_expr(d) for d in shape)
    return TensorType(dims, len(dims), dtype)
