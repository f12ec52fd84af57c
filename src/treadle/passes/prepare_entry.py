"""Make the entry fit for the host: every result is a value of its own, computed by the function,
under the name that callers know.
"""

from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.ir.calls import MatchCast
from treadle.ir.graph import Atom, Binding, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.types import TensorType
from treadle.ops.broadcast import Expand


def keep_names(module: Module, *, entry: str = "main") -> Module:
    """Write down what callers call the results of ``entry``, before passes exchange its values."""
    function = module.graph(entry)
    return _exchanged(module, function, replace_fields(function, outputs=function.output_names))


def prepare_entry(module: Module, *, entry: str = "main") -> Module:
    """Copy the results of ``entry`` that are parameters, constants, casts, or returned
    twice; but not a donated parameter that is its own result.
    """
    function = module.graph(entry)
    computed = {v for b in function.body for v in b.outputs}
    own = {v for b in function.body if not isinstance(b.op, MatchCast) for v in b.outputs}
    names = {v.name for v in (*function.params, *computed)}
    taken: set[Value] = set()
    donated = {k: function.params[j] for k, j in function.donated}
    copies: list[Binding] = []
    results: list[Atom] = []
    for i, result in enumerate(function.results):
        if isinstance(result, Value) and result in own and result not in taken:
            taken.add(result)
            results.append(result)
            continue
        if donated.get(i) is result:
            results.append(result)
            continue
        if not isinstance(result.type, TensorType) or result.type.shape is None:
            raise InternalError(f"result {i} of '{entry}' is no tensor of known shape")
        copy = Value(_fresh(f"output_{i}", names), result.type)
        copies.append(Binding((copy,), Expand(result.type.shape), (result,)))
        results.append(copy)
    body, returned = (*function.body, *copies), tuple(results)
    return _exchanged(module, function, _plain_names(function, body, returned))


def _plain_names(
    function: GraphFunction, body: tuple[Binding, ...], results: tuple[Atom, ...]
) -> GraphFunction:
    """The function with a body and results; names that the values have anyway are not repeated."""
    outputs = function.outputs
    bare: GraphFunction = replace_fields(function, body=body, results=results, outputs=())
    return bare if outputs == bare.output_names else replace_fields(bare, outputs=outputs)


def _fresh(hint: str, names: set[str]) -> str:
    while hint in names:
        hint += "_"
    names.add(hint)
    return hint


def _exchanged(module: Module, old: GraphFunction, new: GraphFunction) -> Module:
    return module.with_functions(new if f is old else f for f in module.functions.values())
