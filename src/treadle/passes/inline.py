"""Write the graph functions that are called into their callers."""

from treadle.base.rewrite import replace_fields
from treadle.ir.calls import Call
from treadle.ir.graph import Atom, Binding, GraphFunction, Value
from treadle.ir.module import Module
from treadle.passes.specialize_calls import specialized


def inline(module: Module) -> Module:
    """Replace every ``call`` of a graph function by its body; branches and loops keep naming
    theirs.
    """
    return module.map_graph_functions(lambda f: _inline(f, module))


def _inline(function: GraphFunction, module: Module) -> GraphFunction:
    if not any(isinstance(b.op, Call) for b in function.body):
        return function
    atoms: dict[Value, Atom] = {}
    body: list[Binding] = []

    def visit(binding: Binding, prefix: str) -> None:
        args = tuple(atoms.get(a, a) if isinstance(a, Value) else a for a in binding.args)
        if not isinstance(binding.op, Call):
            outputs = (
                tuple(Value(f"{prefix}{v.name}", v.type) for v in binding.outputs)
                if prefix
                else binding.outputs
            )
            atoms.update(zip(binding.outputs, outputs, strict=True))
            body.append(replace_fields(binding, outputs=outputs, args=args))
            return
        callee = specialized(module.graph(binding.op.function), args)
        atoms.update(zip(callee.params, args, strict=True))
        for inner in callee.body:
            visit(inner, f"{prefix}{binding.outputs[0].name}_")
        results = tuple(atoms.get(r, r) if isinstance(r, Value) else r for r in callee.results)
        atoms.update(zip(binding.outputs, results, strict=True))

    for binding in function.body:
        visit(binding, "")
    results = tuple(atoms.get(r, r) if isinstance(r, Value) else r for r in function.results)
    return replace_fields(function, body=tuple(body), results=results)
