"""Turn ``match_cast`` into facts: new symbols become what the operand's shape says, the rest a
check at the entry.
"""

from treadle.base.errors import LoweringError, TypeMismatch
from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, eq, int_value, substitute, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import shape_symbols
from treadle.ir.calls import MatchCast
from treadle.ir.graph import Atom, Binding, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.types import TensorType
from treadle.passes.specialize_calls import substituted


def resolve_casts(module: Module) -> Module:
    """Remove every ``match_cast`` whose operand has a shape.

    Raises:
        LoweringError: E0430 if only the rank of the operand is known.
        TypeMismatch: E0131 if the assertion can never hold.
    """
    return module.map_graph_functions(_resolve)


def _resolve(function: GraphFunction) -> GraphFunction:
    while True:
        cast = next((b for b in function.body if isinstance(b.op, MatchCast)), None)
        if cast is None:
            return function
        function = _resolve_one(function, cast, cast.op)


def _resolve_one(function: GraphFunction, cast: Binding, op: object) -> GraphFunction:
    assert isinstance(op, MatchCast)
    place = None if cast.span is None else str(cast.span)
    source = cast.args[0]
    if not isinstance(source.type, TensorType) or source.type.shape is None:
        cure = "pass sizes that depend on data as inputs of their own"
        raise LoweringError(
            "E0430", "match_cast of a value of unknown shape", place=place, help=cure
        )
    known = set(shape_symbols(function))
    symbols: dict[Var, Expr] = {}
    claims: list[Expr] = []
    for dim, actual in zip(op.type.dims, source.type.dims, strict=True):
        if isinstance(dim, Var) and dim not in known and dim not in symbols:
            symbols[dim] = actual
            continue
        difference = simplify(substitute(dim, symbols) - actual)
        if int_value(difference) not in (0, None) and not variables(difference):
            raise TypeMismatch("E0131", f"match_cast: {actual} is never {dim}", place=place)
        if int_value(difference) is None:
            claims.append(eq(substitute(dim, symbols), actual))
    body = tuple(b for b in function.body if b is not cast)
    removed = replace_fields(function, body=_renamed(body, cast.outputs[0], source))
    results = tuple(source if r is cast.outputs[0] else r for r in function.results)
    changed = substituted(replace_fields(removed, results=results), symbols)
    return replace_fields(changed, assumes=(*changed.assumes, *claims))


def _renamed(body: tuple[Binding, ...], old: Value, new: Atom) -> tuple[Binding, ...]:
    return tuple(
        replace_fields(b, args=tuple(new if a is old else a for a in b.args)) for b in body
    )
