"""A graph function as one of its calls sees it: its symbols exchanged for what the operands' shapes
say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace

from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, substitute
from treadle.ir.graph import Atom, Binding, GraphFunction, Literal, ShapeLiteral, Value
from treadle.ir.op import Op
from treadle.ir.signature import match
from treadle.ir.types import ShapeType, TensorType, Type


def specialized(function: GraphFunction, args: Sequence[Atom]) -> GraphFunction:
    """A copy of ``function`` with values of its own, over the symbols of the caller.

    Raises:
        InternalError: if an operand does not have the rank of its parameter.
    """
    for p, a in zip(function.params, args, strict=True):
        if _is_coarse(a.type) and not _is_coarse(p.type):
            raise InternalError("a function is called on an operand of unknown shape")
    found = match([a.type for a in args], [p.type for p in function.params])
    return substituted(function, found.symbols)


def substituted(function: GraphFunction, symbols: Mapping[Var, Expr]) -> GraphFunction:
    """A copy of ``function`` with values of its own and symbols exchanged for expressions."""
    values: dict[Value, Value] = {}

    def renewed(v: Value) -> Value:
        values[v] = Value(v.name, substitute_type(v.type, symbols))
        return values[v]

    params = tuple(renewed(p) for p in function.params)
    body: list[Binding] = []
    for b in function.body:
        args = tuple(_atom(a, values, symbols) for a in b.args)
        op = substitute_op(b.op, symbols)
        body.append(Binding(tuple(renewed(v) for v in b.outputs), op, args, b.span))
    results = tuple(_atom(r, values, symbols) for r in function.results)
    assumes = tuple(substitute(a, symbols) for a in function.assumes)
    return replace_fields(
        function, params=params, body=tuple(body), results=results, assumes=assumes
    )


def _is_coarse(type_: Type) -> bool:
    return isinstance(type_, TensorType) and type_.shape is None


def _atom(a: Atom, values: Mapping[Value, Value], symbols: Mapping[Var, Expr]) -> Atom:
    if isinstance(a, Value):
        return values[a]
    if isinstance(a, Literal):
        return Literal(substitute(a.value, symbols))
    return (
        ShapeLiteral(tuple(substitute(d, symbols) for d in a.dims))
        if isinstance(a, ShapeLiteral)
        else a
    )


def substitute_type(type_: Type, symbols: Mapping[Var, Expr]) -> Type:
    """A type over other dimensions."""
    if isinstance(type_, ShapeType):
        return ShapeType(tuple(substitute(d, symbols) for d in type_.dims))
    if type_.shape is None:
        return type_
    return TensorType(tuple(substitute(d, symbols) for d in type_.shape), type_.ndim, type_.dtype)


def substitute_op(op: Op, symbols: Mapping[Var, Expr]) -> Op:
    """An operation whose fields are over other symbols."""
    if not is_dataclass(op) or not symbols:
        return op
    changes = {f.name: _field(getattr(op, f.name), symbols) for f in fields(op)}
    if all(changes[f.name] is getattr(op, f.name) for f in fields(op)):
        return op
    return replace(op, **changes)


def _field(x: object, symbols: Mapping[Var, Expr]) -> object:
    if isinstance(x, tuple):
        changed = tuple(_field(y, symbols) for y in x)
        return x if all(a is b for a, b in zip(x, changed, strict=True)) else changed
    if isinstance(x, TensorType | ShapeType):
        return substitute_type(x, symbols)
    return substitute(x, symbols) if isinstance(x, Expr) else x
