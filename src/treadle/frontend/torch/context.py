"""What a converter sees of the node it converts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from treadle.expr.dtype import DType, i64
from treadle.expr.scalar import (
    Apply,
    Const,
    Expr,
    Var,
    as_expr,
    cast,
    int_value,
    substitute,
)
from treadle.expr.simplify import simplify
from treadle.frontend.torch.dtypes import from_torch
from treadle.frontend.torch.symbols import Symbols
from treadle.ir.calls import MatchCast
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.op import Op
from treadle.ir.types import TensorType
from treadle.ops._shapes import product, same_dim, same_dims
from treadle.ops.broadcast import Expand
from treadle.ops.create import Arange, Full
from treadle.ops.elementwise import Cast
from treadle.ops.reshape import Reshape
from treadle.ops.shape import Permute

Number = int | float | bool
Operand = Traced | Expr | Number
Size = Expr | int
Dims = tuple[Size, ...]
Converted = Traced | tuple[Traced | None, ...]
Converter = Callable[..., Converted]


class Unsupported(Exception):
    """A converter cannot express the node it was given; the message says what of it."""


@dataclass(frozen=True, eq=False)
class Context:
    """One node of an fx graph, and the function that its translation is added to."""

    builder: GraphBuilder
    node: fx.Node
    symbols: Symbols

    @property
    def values(self) -> tuple[Any, ...]:
        """What PyTorch inferred of the results: tensors without data, or numbers."""
        found = self.node.meta["val"]
        return tuple(found) if isinstance(found, tuple | list) else (found,)

    @property
    def dtype(self) -> DType:
        """The dtype of the (first) result."""
        return self.dtypes[0]

    @property
    def dtypes(self) -> tuple[DType, ...]:
        """The dtypes of all results."""
        return tuple(
            tensor_type(v, self.symbols).dtype for v in self.values if isinstance(v, torch.Tensor)
        )

    @property
    def shape(self) -> tuple[Expr, ...]:
        """The shape of the (first) result."""
        return self.symbols.dims(self.values[0])

    def emit(self, op: Op, *args: Traced) -> Traced:
        """Add an operation with one result."""
        (result,) = self.emit_all(op, *args)
        return result

    def emit_all(self, op: Op, *args: Traced) -> tuple[Traced, ...]:
        """Add an operation with any number of results."""
        return self.builder.emit_all(op, *args, name=f"{self.node.name}_{op.op_name()}")

    def literal(self, value: Number | Expr, dtype: DType) -> Traced:
        """A number as a tensor of no dimensions."""
        if isinstance(value, Expr) and not isinstance(value, Const):
            return self.builder.literal(cast(value, dtype), dtype)
        return self.builder.literal(value.value if isinstance(value, Const) else value, dtype)

    def cast(self, x: Traced, dtype: DType) -> Traced:
        """``x`` in another dtype; itself when it has that one."""
        return x if x.dtype is dtype else self.emit(Cast(dtype), x)

    def operand(self, x: Operand, dtype: DType) -> Traced:
        """A tensor or a number as a tensor of ``dtype``."""
        return self.cast(x, dtype) if isinstance(x, Traced) else self.literal(x, dtype)

    def reshape(self, x: Traced, shape: Sequence[Size]) -> Traced:
        """``x`` in another shape; itself when it has that one."""
        dims = plain(shape)
        if same_dims(x.shape, dims):
            return x
        if not same_dim(product(x.shape), product(dims)):
            x, dims = self._by_divisors(x, dims)
        return self.emit(Reshape(dims), x)

    def _by_divisors(self, x: Traced, dims: Dims) -> tuple[Traced, Dims]:
        """Both shapes with ``n // k * k`` for ``n`` where the program asserts that k divides n."""
        values: dict[Var, Expr] = {}
        for fact in self.builder.assumes:
            found = _divided(fact)
            if found is not None:
                values[found[0]] = (found[0] // found[1]) * found[1]
        known_dims = tuple(simplify(substitute(d, values)) for d in x.shape)
        if not values or same_dims(known_dims, x.shape):
            return x, dims
        cast_ = MatchCast(TensorType(known_dims, x.ndim, x.dtype))
        return self.emit(cast_, x), plain([substitute(as_expr(d), values) for d in dims])

    def expand(self, x: Traced, shape: Sequence[Size]) -> Traced:
        """``x`` repeated to a shape; itself when it has that one."""
        dims = plain(shape)
        return x if same_dims(x.shape, dims) else self.emit(Expand(dims), x)

    def full(self, shape: Sequence[Size], value: Number, dtype: DType) -> Traced:
        """One number everywhere."""
        return self.emit(Full(plain(shape), value, dtype))

    def permute(self, x: Traced, axes: tuple[int, ...]) -> Traced:
        """``x`` with its axes in another order; itself when the order stays."""
        return x if axes == tuple(range(x.ndim)) else self.emit(Permute(axes), x)

    def count(self, size: Size, dtype: DType = i64) -> Traced:
        """The numbers from zero up to a size."""
        return self.emit(Arange(0, plain_size(size), 1, dtype))


def _divided(fact: Expr) -> tuple[Var, int] | None:
    """The variable and the divisor of a fact ``n % k == 0``."""
    if not isinstance(fact, Apply) or fact.fn != "eq":
        return None
    remainder, zero = fact.args
    if int_value(zero) != 0:
        remainder, zero = zero, remainder
    if int_value(zero) != 0 or not isinstance(remainder, Apply) or remainder.fn != "mod":
        return None
    var, divisor = remainder.args[0], int_value(remainder.args[1])
    return (var, divisor) if isinstance(var, Var) and divisor is not None else None


def plain_size(x: Size) -> Size:
    """A size as fields of operations hold it: a Python integer where it is known."""
    found = int_value(x)
    return simplify(as_expr(x)) if found is None else found


def plain(sizes: Sequence[Size]) -> tuple[Size, ...]:
    """The same of a shape."""
    return tuple(plain_size(simplify(as_expr(d))) for d in sizes)


def axis_of(dim: int, ndim: int) -> int:
    """An axis counted from the front; a tensor of rank 0 is taken to have one, as PyTorch does."""
    return dim % max(ndim, 1)


def axes_of(dims: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, in ascending order; all of them for ``None`` and for none."""
    if ndim == 0:
        return ()
    if dims is None or dims == ():
        return tuple(range(ndim))
    return tuple(sorted(d % ndim for d in ((dims,) if isinstance(dims, int) else dims)))


def known(x: Size, what: str) -> int:
    """The integer that a size is; refuses symbols where only a number will do."""
    found = int_value(x)
    if found is None:
        raise Unsupported(f"{what} is symbolic: {x}")
    return found


def tensor_type(value: torch.Tensor, symbols: Symbols) -> TensorType:
    """The type of a tensor without data."""
    dtype = from_torch(value.dtype)
    if dtype is None:
        raise Unsupported(f"there is no element type for {value.dtype}")
    if value.layout is not torch.strided:
        raise Unsupported(f"the layout {value.layout} is not dense")
    return TensorType(symbols.dims(value), value.ndim, dtype)
