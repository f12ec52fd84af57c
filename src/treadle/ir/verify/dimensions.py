"""Rules of dimensions and of what is assumed of them."""

from treadle.expr.dtype import i64
from treadle.expr.scalar import Expr, int_value
from treadle.ir.analysis import atom_exprs, type_exprs
from treadle.ir.graph import Binding, GraphFunction, ShapeLiteral, Value
from treadle.ir.module import Module
from treadle.ir.verify.report import refusal


def check_dimensions(function: GraphFunction, module: Module) -> None:
    """Dimensions are integers, and none is known to be negative; assumptions are claims."""
    for p in function.params:
        _check_value(function, function, p)
    for b in function.body:
        for v in b.outputs:
            _check_value(function, b, v)
        for a in b.args:
            if isinstance(a, ShapeLiteral):
                _check_dims(function, b, atom_exprs(a), "a shape")
    for fact in function.assumes:
        if not fact.dtype.is_bool:
            message = f"assume({fact}) is of {fact.dtype}, and no claim"
            raise refusal("E0203", message, function, function)


def _check_value(function: GraphFunction, node: Binding | GraphFunction, v: Value) -> None:
    _check_dims(function, node, type_exprs(v.type), f"'{v.name}'")


def _check_dims(
    function: GraphFunction, node: Binding | GraphFunction, dims: tuple[Expr, ...], what: str
) -> None:
    for d in dims:
        if d.dtype != i64:
            message = f"the dimension {d} of {what} is of {d.dtype}, not i64"
            raise refusal("E0203", message, function, node)
        size = int_value(d)
        if size is not None and size < 0:
            message = f"the dimension {d} of {what} is negative"
            raise refusal("E0205", message, function, node)
