"""What reductions over several axes share: their types and their loops."""

from collections.abc import Callable, Sequence

import numpy as np

from treadle.expr.dtype import DType
from treadle.expr.scalar import Expr, cast
from treadle.ir.loop_builder import Combine, LoopBuilder
from treadle.ir.op import Op
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import normalize_axes, one, reduced_dims, tensor_type, wide


def infer_reduction(
    op: Op, types: tuple[TensorType, ...], axes: Sequence[int], keepdims: bool, dtype: DType
) -> TensorType:
    """The operand's shape less ``axes`` (or with ones there); E0104 for an axis that is not
    there."""
    x = one(op, types)
    found = normalize_axes(op, axes, x.ndim)
    if x.shape is None:
        return TensorType(None, x.ndim if keepdims else x.ndim - len(found), dtype)
    return tensor_type(reduced_dims(x.dims, found, keepdims), dtype)


def merge_indices(
    kept: Sequence[Expr], over: Sequence[Expr], axes: Sequence[int], keepdims: bool
) -> tuple[Expr, ...]:
    """Indices of the operand from those of the result and those of the reduced axes (in ascending
    order)."""
    rank = len(kept) if keepdims else len(kept) + len(axes)
    outer = iter([i for k, i in enumerate(kept) if k not in axes] if keepdims else kept)
    inner = iter(over)
    return tuple(next(inner) if k in axes else next(outer) for k in range(rank))


def accumulate(
    f: LoopBuilder,
    x: Buffer,
    axes: Sequence[int],
    keepdims: bool,
    combine: Combine,
    value: Callable[[Expr], Expr] | None = None,
) -> Buffer:
    """Add the output and the loops that combine ``value`` (default: the element) over ``axes``;
    16-bit floats in f32."""
    inner = wide(x.dtype)
    dims = reduced_dims(x.shape, axes, keepdims)
    extents = tuple(x.shape[a] for a in axes)
    y = f.output(dims, x.dtype)
    total = y if inner == x.dtype else f.temp(dims, inner)

    def term(*indices: Expr) -> Expr:
        kept, over = indices[: len(dims)], indices[len(dims) :]
        found = cast(x[merge_indices(kept, over, axes, keepdims)], inner)
        return found if value is None else value(found)

    f.reduce(total, extents, term, combine)
    if total is not y:
        f.compute(y, lambda *i: cast(total[i], x.dtype))
    return y


def lower_reduction(
    op: Op, types: tuple[TensorType, ...], axes: Sequence[int], keepdims: bool, combine: Combine
) -> TensorFunction:
    """The loops of a plain reduction of one operand."""
    f = LoopBuilder(op.op_name())
    x = f.input(types[0])
    accumulate(f, x, normalize_axes(op, axes, x.ndim), keepdims, combine)
    return f.build()


def in_wide(x: np.ndarray) -> np.ndarray:
    """A float array in double precision, for references; others as they are."""
    is_float = np.issubdtype(x.dtype, np.floating) or x.dtype.name == "bfloat16"
    return x.astype(np.float64) if is_float else x
