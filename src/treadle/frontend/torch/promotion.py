"""PyTorch's rules for operands of different types: in which dtype they are computed."""

import torch

from treadle.expr.dtype import DType, f32
from treadle.expr.scalar import Expr
from treadle.frontend.torch.context import Context, Operand
from treadle.frontend.torch.dtypes import from_torch, to_torch
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op
from treadle.ops.binary import Add, Maximum, Minimum, Mul
from treadle.ops.compare import LogicalAnd, LogicalOr

# Arithmetic of booleans, which PyTorch allows.
_OF_BOOLEANS: dict[type[Op], type[Op]] = {
    Add: LogicalOr,
    Mul: LogicalAnd,
    Maximum: LogicalOr,
    Minimum: LogicalAnd,
}


def _representative(x: Operand) -> torch.Tensor | float | bool:
    """What PyTorch promotes alike: dtype, and whether there are dimensions, are all that counts."""
    if isinstance(x, Traced):
        return torch.empty((1,) * (x.ndim > 0), dtype=to_torch(x.dtype), device="meta")
    if isinstance(x, Expr):
        return False if x.dtype.is_bool else 1.0 if x.dtype.is_float else 1
    return x


def common_dtype(a: Operand, b: Operand) -> DType:
    """``torch.result_type`` of two operands, one of which is a tensor at least."""
    found = from_torch(torch.result_type(_representative(a), _representative(b)))
    assert found is not None  # a promotion of dtypes that we have is one that we have
    return found


def elementwise(c: Context, op: Op, *operands: Operand, dtype: DType | None = None) -> Traced:
    """``op`` of operands promoted to ``dtype`` (default: the node's); the result in the node's.

    A Python number beside 16-bit floats keeps its precision, as in PyTorch: the operation is
    computed in f32.
    """
    computed = c.dtype if dtype is None else dtype
    numbers = any(not isinstance(x, Traced) for x in operands)
    if numbers and computed.is_float and computed.bits < 32:
        computed = f32
    if computed.is_bool and type(op) in _OF_BOOLEANS:
        op = _OF_BOOLEANS[type(op)]()
    result = c.emit(op, *(c.operand(x, computed) for x in operands))
    return result if result.dtype.is_bool else c.cast(result, c.dtype)
