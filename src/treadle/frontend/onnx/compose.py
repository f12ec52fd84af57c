"""Small helpers to write compositions of operations; numbers stand for literals of the other
operand's dtype."""

from collections.abc import Sequence
from functools import reduce as fold

import numpy as np
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from treadle.base.errors import ModelImportError
from treadle.expr.dtype import DType, boolean, f32, from_numpy, i64
from treadle.expr.scalar import Expr, ExprLike, as_expr, eq, int_value
from treadle.expr.simplify import simplify
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op
from treadle.ops._shapes import product, same_dim, same_dims
from treadle.ops.binary import Add, Div, Maximum, Minimum, Mul, Sub
from treadle.ops.broadcast import Expand, Sum
from treadle.ops.compare import Equal, Greater, GreaterEqual, Less, LessEqual, LogicalAnd, Where
from treadle.ops.contraction import Matmul
from treadle.ops.create import Arange, Full
from treadle.ops.elementwise import Cast
from treadle.ops.reshape import Reshape
from treadle.ops.shape import Concat, Permute, Slice

Number = float | bool | Traced


def agreeing(*xs: Traced, but: int | None = None) -> tuple[Traced, ...]:
    """Operands of an operation that broadcasts, or (with ``but``) needs equal dimensions but at
    that axis: where two dimensions may be equal for some symbols only, the program assumes that
    they are, which is checked when it is called.
    """
    rank = max(x.ndim for x in xs)
    common: list[Expr] = []
    for k in range(rank):
        # Counted from the last axis; a number says more than a symbol.
        dims = [x.shape[x.ndim - 1 - k] for x in xs if k < x.ndim]
        stretched = [d for d in dims if int_value(d) != 1] or dims
        common.append(next((d for d in stretched if int_value(d) is not None), stretched[0]))
    skipped = None if but is None else rank - 1 - but
    return tuple(_asserted(x, common, skipped) for x in xs)


def _asserted(x: Traced, common: Sequence[Expr], skipped: int | None) -> Traced:
    for axis, d in enumerate(x.shape):
        k = x.ndim - 1 - axis
        if k != skipped and _may_be(d, common[k]):
            x.builder.assumes.append(eq(d, common[k]))
            x = Slice(axis, 0, common[k])(x)
    return x


def _may_be(d: Expr, other: Expr) -> bool:
    """Whether two dimensions, not provably equal, are equal for some values of their symbols."""
    if int_value(d) is not None or same_dim(d, other):
        return False
    return int_value(simplify(d - other)) is None


def literal(x: Traced, value: float | bool) -> Traced:
    """A number of the dtype of ``x``."""
    return x.builder.literal(value, x.dtype)


def binary(op: Op, a: Number, b: Number) -> Traced:
    """A binary operation; one operand may be a number."""
    if not isinstance(a, Traced):
        assert isinstance(b, Traced)
        a = literal(b, a)
    return op(a, b if isinstance(b, Traced) else literal(a, b))


def add(a: Number, b: Number) -> Traced:
    """a + b."""
    return binary(Add(), a, b)


def sub(a: Number, b: Number) -> Traced:
    """a - b."""
    return binary(Sub(), a, b)


def mul(a: Number, b: Number) -> Traced:
    """a * b."""
    return binary(Mul(), a, b)


def div(a: Number, b: Number) -> Traced:
    """a / b of floats."""
    return binary(Div(), a, b)


def maximum(a: Number, b: Number) -> Traced:
    """The larger."""
    return binary(Maximum(), a, b)


def minimum(a: Number, b: Number) -> Traced:
    """The smaller."""
    return binary(Minimum(), a, b)


def less(a: Number, b: Number) -> Traced:
    """a < b."""
    return binary(Less(), a, b)


def less_equal(a: Number, b: Number) -> Traced:
    """a <= b."""
    return binary(LessEqual(), a, b)


def greater(a: Number, b: Number) -> Traced:
    """a > b."""
    return binary(Greater(), a, b)


def greater_equal(a: Number, b: Number) -> Traced:
    """a >= b."""
    return binary(GreaterEqual(), a, b)


def equal(a: Number, b: Number) -> Traced:
    """a == b."""
    return binary(Equal(), a, b)


def both(*conditions: Traced) -> Traced:
    """Whether all hold."""
    return fold(lambda a, b: LogicalAnd()(a, b), conditions)


def where(condition: Traced, a: Number, b: Number) -> Traced:
    """``a`` where the condition holds, else ``b``; one may be a number."""
    if not isinstance(a, Traced):
        assert isinstance(b, Traced)
        a = literal(b, a)
    return Where()(condition, a, b if isinstance(b, Traced) else literal(a, b))


def matmul(a: Traced, b: Traced) -> Traced:
    """The product of matrices."""
    return Matmul()(a, b)


def cast(x: Traced, dtype: DType) -> Traced:
    """``x`` as another dtype."""
    return x if x.dtype == dtype else Cast(dtype)(x)


def widened(x: Traced) -> Traced:
    """A 16-bit float as f32; anything else as it is."""
    return cast(x, f32) if x.dtype.is_float and x.dtype.bits < 32 else x


def as_bool(x: Traced) -> Traced:
    """Whether each element is not zero."""
    return cast(x, boolean)


def reshape(x: Traced, *shape: ExprLike) -> Traced:
    """``x`` under another shape."""
    dims = tuple(as_expr(d) for d in shape)
    return x if same_dims(x.shape, dims) else Reshape(dims)(x)


def permute(x: Traced, *axes: int) -> Traced:
    """``x`` with its axes in another order."""
    return x if axes == tuple(range(x.ndim)) else Permute(axes)(x)


def expand(x: Traced, shape: Sequence[ExprLike]) -> Traced:
    """``x`` broadcast to a shape; a dimension that may fit it is assumed to."""
    dims = tuple(as_expr(d) for d in shape)
    x = _asserted(x, dims[::-1], None)
    return x if same_dims(x.shape, dims) else Expand(dims)(x)


def concat(xs: Sequence[Traced], axis: int) -> Traced:
    """Tensors one after another."""
    return xs[0] if len(xs) == 1 else Concat(axis)(*xs)


def cut(x: Traced, axis: int, start: ExprLike, stop: ExprLike, step: int = 1) -> Traced:
    """Elements from ``start`` to ``stop`` - 1 along an axis counted from the front."""
    first, last = simplify(as_expr(start)), simplify(as_expr(stop))
    if int_value(first) == 0 and step == 1 and same_dim(last, x.shape[axis]):
        return x
    return Slice(axis, first, last, step)(x)


def pick(x: Traced, axis: int, index: ExprLike) -> Traced:
    """The slice of ``x`` at one index, without the axis."""
    found = cut(x, axis, index, as_expr(index) + 1)
    return reshape(found, *x.shape[:axis], *x.shape[axis + 1 :])


def insert_axis(x: Traced, axis: int) -> Traced:
    """``x`` with a dimension of one at ``axis`` (counted from the front)."""
    return reshape(x, *x.shape[:axis], 1, *x.shape[axis:])


def total(x: Traced, *axes: int, keepdims: bool = False) -> Traced:
    """The sum over axes."""
    return Sum(axes, keepdims)(x)


def full(
    x: Traced, shape: Sequence[ExprLike], value: float | bool, dtype: DType | None = None
) -> Traced:
    """A tensor of one value, of the dtype of ``x`` unless another is given; ``x`` only says where
    it is built."""
    return x.builder.emit(Full(tuple(as_expr(d) for d in shape), value, dtype or x.dtype))


def counted(x: Traced, size: ExprLike, dtype: DType = i64) -> Traced:
    """The numbers from 0 to ``size`` - 1; ``x`` only says where they are built."""
    return x.builder.emit(Arange(0, as_expr(size), 1, dtype))


def size_of(x: Traced, axes: Sequence[int], dtype: DType) -> Traced:
    """The number of elements along axes, as a number of ``dtype``."""
    return cast(x.builder.literal(product([x.shape[a] for a in axes]), i64), dtype)


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front; ModelImportError E0605 if it is out of range."""
    if not -rank <= axis < max(rank, 1):
        raise ModelImportError(
            "E0605",
            f"axis {axis} is out of range for rank {rank}",
            help="check the model with onnx.checker.check_model",
        )
    return axis + rank if axis < 0 else axis


def along_axis(x: Traced, axis: int, rank: int) -> Traced:
    """A tensor of one axis, shaped to stand at ``axis`` of one of ``rank``."""
    return reshape(x, *[x.shape[0] if k == axis else 1 for k in range(rank)])


def dims_product(dims: Sequence[Expr]) -> Expr:
    """The number of elements."""
    return product(dims)


def element_type(code: int) -> DType:
    """The dtype of a ``TensorProto.DataType``; ModelImportError E0604 if the house has none."""
    known = code in onnx.TensorProto.DataType.values()
    name = onnx.TensorProto.DataType.Name(code) if known else f"type {code}"
    found = None
    if known and name not in ("UNDEFINED", "STRING"):
        found = from_numpy(np.dtype(tensor_dtype_to_np_dtype(code)))
    if found is None:
        raise ModelImportError(
            "E0604",
            f"tensors of {name} are not supported",
            help="use bool, integers of 8 to 64 bits, float16, bfloat16, float or double",
        )
    return found


def text(value: bytes | str) -> str:
    """An attribute's string."""
    return value.decode() if isinstance(value, bytes) else value
