"""Let the host plan the large temporaries of kernels: they become further outputs that nobody
reads.

After Relax's workspace lifting (arXiv 2311.02103, §4.4). What is allocated inside loops stays in
the kernel.
"""

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Var, int_value, substitute
from treadle.expr.simplify import simplify
from treadle.ir.analysis import element_count
from treadle.ir.calls import CallTensor
from treadle.ir.graph import Binding, GraphFunction, Value
from treadle.ir.module import Function, Module
from treadle.ir.tensor import Allocate, Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.passes.fuse import callee_symbols
from treadle.passes.shrink_allocations import STACK_BYTES
from treadle.passes.sink_allocations import sink_allocations


def lift_workspace(module: Module) -> Module:
    """Turn the large temporaries of every tensor function that is called into outputs."""
    lifted: dict[str, tuple[TensorFunction, tuple[Buffer, ...]]] = {}
    functions: list[Function] = []
    for f in module.functions.values():
        if isinstance(f, TensorFunction):
            f, buffers = _lift(f)
            lifted[f.name] = (f, buffers)
        functions.append(f)
    changed = [
        replace_fields(f, body=tuple(_call(b, module, lifted) for b in f.body))
        if isinstance(f, GraphFunction)
        else f
        for f in functions
    ]
    return module.with_functions(changed)


def _lift(function: TensorFunction) -> tuple[TensorFunction, tuple[Buffer, ...]]:
    function = sink_allocations(function)
    large = tuple(
        s.buffer for s in function.body if isinstance(s, Allocate) and _is_large(s.buffer)
    )
    if not large:
        return function, ()
    body = tuple(s for s in function.body if not (isinstance(s, Allocate) and s.buffer in large))
    scalars = tuple(p for p in function.params if isinstance(p, Var))
    params = (*function.buffers, *large, *scalars)
    return replace_fields(
        function, params=params, outputs=function.outputs + len(large), body=body
    ), large


def _is_large(buffer: Buffer) -> bool:
    count = int_value(simplify(element_count(buffer)))
    return buffer.scope == "global" and (count is None or count * buffer.dtype.bytes > STACK_BYTES)


def _call(
    binding: Binding, module: Module, lifted: dict[str, tuple[TensorFunction, tuple[Buffer, ...]]]
) -> Binding:
    op = binding.op
    if not isinstance(op, CallTensor):
        return binding
    buffers = lifted[op.function][1]
    if not buffers:
        return binding
    symbols = callee_symbols(module.tensor(op.function), binding.args, op)
    types = tuple(
        TensorType(tuple(simplify(substitute(d, symbols)) for d in b.shape), b.ndim, b.dtype)
        for b in buffers
    )
    spare = tuple(
        Value(f"{binding.outputs[0].name}_{b.name}", t) for b, t in zip(buffers, types, strict=True)
    )
    return replace_fields(
        binding, outputs=(*binding.outputs, *spare), op=replace_fields(op, out=(*op.out, *types))
    )
