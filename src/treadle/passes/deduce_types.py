"""Deduce the types of values again, forward, and keep what is finer: where only a rank was
recorded, the shape that the operands tell.
"""

from collections.abc import Sequence

from treadle.base.rewrite import replace_fields
from treadle.ir.calls import CallLibrary, CallTensor, FunctionOp, MatchCast
from treadle.ir.deduce import call_types
from treadle.ir.graph import Atom, Binding, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.op import Op
from treadle.ir.op_fields import FUNCTION_FIELDS, op_fields
from treadle.ir.types import TensorType, Type


def deduce_types(module: Module) -> Module:
    """Refine the types of all graph functions that hold a value of unknown shape."""
    return module.map_graph_functions(lambda f: _deduced(f, module))


def is_coarse(type_: Type) -> bool:
    """Whether only the rank of a tensor is known."""
    return isinstance(type_, TensorType) and type_.shape is None


def _deduced(function: GraphFunction, module: Module) -> GraphFunction:
    if not any(is_coarse(v.type) for b in function.body for v in b.outputs):
        return function
    values: dict[Value, Value] = {}

    def now(a: Atom) -> Atom:
        return values.get(a, a) if isinstance(a, Value) else a

    body: list[Binding] = []
    for b in function.body:
        args = tuple(map(now, b.args))
        types = tuple(
            new if is_coarse(v.type) else v.type
            for v, new in zip(b.outputs, result_types(b, args, module), strict=True)
        )
        outputs = tuple(
            v if t is v.type else Value(v.name, t) for v, t in zip(b.outputs, types, strict=True)
        )
        values.update(zip(b.outputs, outputs, strict=True))
        body.append(replace_fields(b, outputs=outputs, args=args, op=written(b.op, types)))
    return replace_fields(function, body=tuple(body), results=tuple(map(now, function.results)))


def result_types(b: Binding, args: Sequence[Atom], module: Module) -> tuple[Type, ...]:
    """The types of a binding's results by its operation's rule, or by the signatures that it
    names.
    """
    given = [a.type for a in args]
    op = b.op
    if isinstance(op, MatchCast) and is_coarse(op.type):
        return (given[0],)
    if isinstance(op, FunctionOp):
        names = [getattr(op, f.name) for f in op_fields(type(op)) if f.name in FUNCTION_FIELDS]
        symbols, carried = getattr(op, "symbols", ()), getattr(op, "carried", 0)
        found = call_types(type(op), names, module.functions, given, symbols, carried)
        if found is not None:
            return found
    inferred = op.infer(*given)  # type: ignore[arg-type]
    return inferred if isinstance(inferred, tuple) else (inferred,)


def written(op: Op, types: tuple[Type, ...]) -> Op:
    """A call that says the types of its results."""
    if not hasattr(op, "out") or isinstance(op, CallTensor | CallLibrary) or op.out == types:  # type: ignore[attr-defined]
        return op
    return replace_fields(op, out=types)
