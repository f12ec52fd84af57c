"""Calls that only rename the elements' indices, in the same order in memory, become views that cost
nothing.
"""

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Expr, int_value
from treadle.expr.simplify import simplify
from treadle.ir.analysis import blocks, element_count, facts_of, flat_index
from treadle.ir.calls import CallTensor, Cond, WhileLoop
from treadle.ir.graph import Binding, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.tensor import Buffer, Load, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops.reshape import Reshape
from treadle.passes.kinds import only_store, summarize


def restore_views(module: Module) -> Module:
    """Replace calls of flat copies by ``reshape``, where the result does not leave the function."""
    flat = {f.name for f in module.tensor_functions if is_flat_copy(f)}
    return module.map_graph_functions(lambda f: _restore(f, flat))


def _restore(function: GraphFunction, flat: set[str]) -> GraphFunction:
    fixed = {r for r in function.results if isinstance(r, Value)}
    for b in function.body:
        if isinstance(b.op, Cond | WhileLoop):
            fixed.update(v for v in b.outputs)
    body = tuple(_view(b) if _is_view(b, flat, fixed) else b for b in function.body)
    return replace_fields(function, body=body)


def _is_view(b: Binding, flat: set[str], fixed: set[Value]) -> bool:
    simple = isinstance(b.op, CallTensor) and b.op.function in flat and len(b.args) == 1
    return simple and isinstance(b.args[0], Value) and b.outputs[0] not in fixed


def _view(b: Binding) -> Binding:
    out = b.outputs[0].type
    assert isinstance(out, TensorType)
    return replace_fields(b, op=Reshape(out.dims))


def is_flat_copy(function: TensorFunction) -> bool:
    """Whether a function copies its one input element by element in memory order."""
    if len(function.input_buffers) != 1 or not summarize(function).is_spatial:
        return False
    store = only_store(blocks(function)[0])
    if store is None or not isinstance(store.value, Load) or store.value.mask is not None:
        return False
    load = store.value
    facts: Facts = facts_of(function)
    for axis in blocks(function)[0].iters:
        facts = facts.with_range(axis.var, axis.extent)
    same_size = _size(store.buffer, facts) is _size(load.buffer, facts)
    offset = flat_index(store.buffer, store.indices) - flat_index(load.buffer, load.indices)
    return same_size and int_value(simplify(offset, facts)) == 0


def _size(buffer: Buffer, facts: Facts) -> Expr:
    return simplify(element_count(buffer), facts)
