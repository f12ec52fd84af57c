"""Drop the functions that the entry does not reach."""

from treadle.ir.calls import Cond, FunctionOp, WhileLoop
from treadle.ir.graph import GraphFunction
from treadle.ir.module import Module
from treadle.ir.op import Op


def drop_unused(module: Module, *, entry: str = "main") -> Module:
    """Keep ``entry`` and what it calls, directly or not."""
    used = called_functions(module, (entry,))
    return module.with_functions(f for f in module.functions.values() if f.name in used)


def called_functions(module: Module, roots: tuple[str, ...]) -> dict[str, None]:
    """The names of the functions reachable from ``roots``, in order of first mention."""
    found: dict[str, None] = {}
    waiting = list(reversed(roots))
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = None
        function = module.functions.get(name)
        if isinstance(function, GraphFunction):
            waiting.extend(
                n
                for b in reversed(function.body)
                for n in named_functions(b.op)
                if n in module.functions
            )
    return found


def named_functions(op: Op) -> tuple[str, ...]:
    """The functions that an operation names."""
    if isinstance(op, Cond):
        return op.then, op.orelse
    if isinstance(op, WhileLoop):
        return op.condition, op.body
    name = getattr(op, "function", None)
    return (name,) if isinstance(op, FunctionOp) and isinstance(name, str) else ()
