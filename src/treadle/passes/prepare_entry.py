"""Make the entry fit for the host: every result is a value of its own, computed by the function."""

from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.ir.graph import Atom, Binding, Value
from treadle.ir.module import Module
from treadle.ir.types import TensorType
from treadle.ops.broadcast import Expand


def prepare_entry(module: Module, *, entry: str = "main") -> Module:
    """Copy the results of ``entry`` that are parameters, constants, or returned twice."""
    function = module.graph(entry)
    computed = {v for b in function.body for v in b.outputs}
    taken: set[Value] = set()
    copies: list[Binding] = []
    results: list[Atom] = []
    for i, result in enumerate(function.results):
        if isinstance(result, Value) and result in computed and result not in taken:
            taken.add(result)
            results.append(result)
            continue
        if not isinstance(result.type, TensorType) or result.type.shape is None:
            raise InternalError(f"result {i} of '{entry}' is no tensor of known shape")
        copy = Value(f"output_{i}", result.type)
        copies.append(Binding((copy,), Expand(result.type.shape), (result,)))
        results.append(copy)
    if not copies:
        return module
    changed = replace_fields(function, body=(*function.body, *copies), results=tuple(results))
    return module.with_functions(changed if f is function else f for f in module.functions.values())
