"""Rules of calls, branches and loops: what is given fits what the named functions declare, and no
function calls itself.

Types that depend on symbols are no broken rule: the program tests them when it runs.
"""

from collections.abc import Sequence

from treadle.expr.dtype import boolean
from treadle.expr.scalar import Var, variables
from treadle.ir.analysis import type_exprs
from treadle.ir.calls import Call, CallTensor, Cond, WhileLoop
from treadle.ir.deduce import graph_results
from treadle.ir.effects import called_graphs
from treadle.ir.graph import Binding, GraphFunction
from treadle.ir.module import Module
from treadle.ir.signature import Fit, match
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import ShapeType, TensorType, Type
from treadle.ir.verify.report import refusal

_BOOL = TensorType((), 0, boolean)


def check_joints(function: GraphFunction, module: Module) -> None:
    """Operands and results of calls, branches and loops have types that can meet."""
    for b in function.body:
        op = b.op
        if isinstance(op, Call):
            _check_call(function, b, module, op.function, _types(b), "call")
        elif isinstance(op, Cond):
            _check_condition(function, b, b.args[0].type if b.args else None)
            for name in (op.then, op.orelse):
                _check_call(function, b, module, name, _types(b)[1:], "branch")
        elif isinstance(op, WhileLoop):
            _check_loop(function, b, op, module)
        elif isinstance(op, CallTensor):
            _check_buffers(function, b, op, module.tensor(op.function))


def check_recursion(function: GraphFunction, module: Module) -> None:
    """No function calls itself, nor by way of others."""
    waiting = [(b, name) for b in function.body for name in called_graphs(b.op)]
    seen: set[str] = set()
    while waiting:
        place, name = waiting.pop()
        if name == function.name:
            message = f"'{name}' calls itself"
            cure = "write a loop with while_loop"
            raise refusal("E0206", message, function, place, help=cure)
        callee = module.functions.get(name)
        if name not in seen and isinstance(callee, GraphFunction):
            seen.add(name)
            waiting += [(place, n) for b in callee.body for n in called_graphs(b.op)]


def _types(b: Binding) -> list[Type]:
    return [a.type for a in b.args]


def _check_call(
    function: GraphFunction,
    b: Binding,
    module: Module,
    name: str,
    given: Sequence[Type],
    what: str,
) -> None:
    """What a graph function is given, and what it gives."""
    callee = module.graph(name)
    _check_fit(function, b, given, [p.type for p in callee.params], f"'{name}' takes")
    found = graph_results(callee, given)
    _check_fit(function, b, found, [v.type for v in b.outputs], f"the {what} says", here=True)


def _check_fit(
    function: GraphFunction,
    b: Binding,
    given: Sequence[Type],
    wanted: Sequence[Type],
    what: str,
    *,
    here: bool = False,
) -> None:
    """Values can have types that are written over symbols of their own, or over those of
    ``here``.
    """
    known = variables(*(e for t in wanted for e in type_exprs(t))) if here else ()
    if match(given, wanted, known=known).fit <= Fit.DIFFERENT:
        raise refusal(
            "E0205",
            f"{what} ({_text(wanted)}), never ({_text(given)})",
            function,
            b,
            help="give values of these types, or cast them with match_cast where sizes agree",
        )


def _text(types: Sequence[Type]) -> str:
    return ", ".join(map(str, types))


def _check_condition(function: GraphFunction, b: Binding, type_: Type | None) -> None:
    if type_ != _BOOL:
        given = "nothing" if type_ is None else str(type_)
        message = f"the condition of {b.op.op_name()} is a bool of rank 0, not {given}"
        raise refusal("E0205", message, function, b)


def _check_loop(function: GraphFunction, b: Binding, op: WhileLoop, module: Module) -> None:
    """What a loop carries keeps its types, and its condition is a bool."""
    if not 0 <= op.carried <= len(b.args) or op.carried != len(b.outputs):
        message = f"a loop that carries {op.carried} values has {len(b.outputs)} results"
        raise refusal("E0206", message, function, b)
    carried = [v.type for v in b.outputs]
    given = [*carried, *_types(b)[op.carried :]]
    _check_fit(function, b, _types(b)[: op.carried], carried, "the loop carries", here=True)
    _check_call(function, b, module, op.body, given, "loop")
    test = module.graph(op.condition)
    _check_fit(function, b, given, [p.type for p in test.params], f"'{op.condition}' takes")
    _check_condition(function, b, test.results[0].type)


def _check_buffers(
    function: GraphFunction, b: Binding, op: CallTensor, callee: TensorFunction
) -> None:
    """Operands and results of a loop program have its buffers' shapes."""
    buffers = [TensorType(x.shape, x.ndim, x.dtype) for x in callee.buffers]
    scalars = ShapeType(tuple(p for p in callee.params if isinstance(p, Var)))
    given = [*_types(b), *op.out]
    if match([*given, ShapeType(op.symbols)], [*buffers, scalars]).fit <= Fit.DIFFERENT:
        message = f"'{op.function}' has buffers ({_text(buffers)}), never ({_text(given)})"
        raise refusal("E0205", message, function, b)
