"""Types of results from those of the operands: forward, one operation after another.

The rule of an operation is its ``infer``. What a call gives follows from the callee's signature
alone. Where the operands do not say enough, the result's type is coarser: only a rank is known
(Relax, arXiv 2311.02103, §4.1).
"""

from collections.abc import Mapping, Sequence

from treadle.expr.scalar import Var, int_value
from treadle.expr.simplify import simplify
from treadle.ir.calls import Call, CallTensor, Cond, WhileLoop
from treadle.ir.graph import GraphFunction
from treadle.ir.module import Function
from treadle.ir.op import Op
from treadle.ir.signature import results_of
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import ShapeType, TensorType, Type


def call_types(
    op: type[Op],
    names: Sequence[str],
    functions: Mapping[str, Function],
    given: Sequence[Type],
    symbols: Sequence[object] = (),
    carried: int = 0,
) -> tuple[Type, ...] | None:
    """The types that a call of the functions ``names`` gives on operands of types ``given``;
    ``None`` if a function is not known.
    """
    found = [functions.get(n) for n in names]
    if issubclass(op, CallTensor):
        callee = found[0]
        return (
            _tensor_results(callee, given, symbols) if isinstance(callee, TensorFunction) else None
        )
    graphs = [f for f in found if isinstance(f, GraphFunction)]
    if len(graphs) != len(found):
        return None
    if issubclass(op, Call):
        return graph_results(graphs[0], given)
    if issubclass(op, Cond):
        then, orelse = (graph_results(f, given[1:]) for f in graphs)
        return tuple(coarser(a, b) for a, b in zip(then, orelse, strict=False))
    if issubclass(op, WhileLoop):
        return tuple(given[:carried])
    return None


def graph_results(function: GraphFunction, given: Sequence[Type]) -> tuple[Type, ...]:
    """The types of a graph function's results for operands of types ``given``, by its signature."""
    return results_of([p.type for p in function.params], [r.type for r in function.results], given)


def _tensor_results(
    function: TensorFunction, given: Sequence[Type], symbols: Sequence[object]
) -> tuple[Type, ...]:
    scalars = tuple(p for p in function.params if isinstance(p, Var))
    params = [TensorType(b.shape, b.ndim, b.dtype) for b in function.input_buffers]
    results = [TensorType(b.shape, b.ndim, b.dtype) for b in function.output_buffers]
    return results_of(
        [*params, ShapeType(scalars)],
        results,
        [*given, ShapeType(tuple(symbols))],  # type: ignore[arg-type]
    )


def coarser(a: Type, b: Type) -> Type:
    """The finest type that values of both types have, where they are of one kind; else the
    first.
    """
    if not isinstance(a, TensorType) or not isinstance(b, TensorType) or a.ndim != b.ndim:
        return a
    if a.shape is None or b.shape is None:
        return TensorType(None, a.ndim, a.dtype)
    same = all(int_value(simplify(x - y)) == 0 for x, y in zip(a.shape, b.shape, strict=True))
    return a if same else TensorType(None, a.ndim, a.dtype)
