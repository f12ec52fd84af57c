"""Write the graph functions that are called into their callers."""

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, variables
from treadle.ir.analysis import fresh_name, shape_symbols, type_exprs
from treadle.ir.calls import BindSymbol, Call, MatchCast
from treadle.ir.graph import Atom, Binding, GraphFunction, Value
from treadle.ir.module import Module
from treadle.passes.specialize_calls import specialized, substituted


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
    taken = {v.name for v in (*shape_symbols(function), *own_symbols(function))}

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
        callee = module.graph(binding.op.function)
        callee = specialized(substituted(callee, _renamed(callee, taken)), args)
        atoms.update(zip(callee.params, args, strict=True))
        for inner in callee.body:
            visit(inner, f"{prefix}{binding.outputs[0].name}_")
        results = tuple(atoms.get(r, r) if isinstance(r, Value) else r for r in callee.results)
        atoms.update(zip(binding.outputs, results, strict=True))

    for binding in function.body:
        visit(binding, "")
    results = tuple(atoms.get(r, r) if isinstance(r, Value) else r for r in function.results)
    return replace_fields(function, body=tuple(body), results=results)


def own_symbols(function: GraphFunction) -> tuple[Var, ...]:
    """The symbols that a function binds itself, in order: by casts, and by values."""
    given = set(shape_symbols(function))
    found: dict[Var, None] = {}
    for b in function.body:
        if isinstance(b.op, MatchCast):
            found.update(dict.fromkeys(variables(*type_exprs(b.op.type))))
        elif isinstance(b.op, BindSymbol):
            found[b.op.variable] = None
    return tuple(v for v in found if v not in given)


def _renamed(callee: GraphFunction, taken: set[str]) -> dict[Var, Expr]:
    """Names that nothing has yet for the symbols that a function binds itself."""
    names: dict[Var, Expr] = {}
    for v in own_symbols(callee):
        name = fresh_name(v.name, taken)
        taken.add(name)
        names[v] = Var(name, v.dtype)
    return names
