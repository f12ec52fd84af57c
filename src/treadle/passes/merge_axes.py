"""Reduce over one axis instead of several: neighbouring axes of a reduction are one in memory."""

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, as_expr
from treadle.expr.simplify import simplify
from treadle.ir.graph import Binding, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.types import TensorType, tensor
from treadle.ops import All, Any, Max, Min, Prod, Sum
from treadle.ops.reshape import Reshape

_REDUCTIONS = (Sum, Prod, Max, Min, Any, All)


def merge_axes(module: Module) -> Module:
    """Reshape the operands of reductions over runs of axes, so that each run is one axis."""
    return module.map_graph_functions(_merge)


def _merge(function: GraphFunction) -> GraphFunction:
    body = tuple(b for binding in function.body for b in _merged(binding))
    return replace_fields(function, body=body)


def _merged(b: Binding) -> tuple[Binding, ...]:
    op, source = b.op, b.args[0] if b.args else None
    if not isinstance(op, _REDUCTIONS) or source is None or not isinstance(source.type, TensorType):
        return (b,)
    if source.type.shape is None:
        return (b,)
    dims = source.type.dims
    axes = sorted(a % len(dims) for a in op.axes) if dims else []
    if len(axes) < 2 or axes != list(range(axes[0], axes[-1] + 1)):
        return (b,)
    run: Expr = as_expr(1)
    for axis in axes:
        run = run * dims[axis]
    shape = (*dims[: axes[0]], simplify(run), *dims[axes[-1] + 1 :])
    out = b.outputs[0]
    assert isinstance(out.type, TensorType)
    merged = Value(f"{out.name}_merged", tensor(shape, source.type.dtype))
    kept = (*shape[: axes[0]], *shape[axes[0] + 1 :])
    narrow = Value(f"{out.name}_narrow", tensor(kept, out.type.dtype))
    return (
        Binding((merged,), Reshape(shape), (source,), b.span),
        Binding((narrow,), type(op)((axes[0],)), (merged,), b.span),
        Binding((out,), Reshape(out.type.dims), (narrow,), b.span),
    )
