"""Shape lowering: the symbols of an entry as expressions of the raw dimensions of its inputs, and
what every call tests of these.

After Relax's lowering of symbolic shapes to arithmetic of the host (arXiv 2311.02103, §4.7): native
code computes the symbols once, before the first kernel runs.
"""

from treadle.base.errors import LoweringError
from treadle.expr.scalar import Expr, Var, eq, substitute, variables
from treadle.ir.analysis import symbols
from treadle.ir.graph import GraphFunction
from treadle.ir.host import ShapeCheck, dimension
from treadle.ir.signature import solve
from treadle.ir.types import TensorType


def solve_inputs(function: GraphFunction) -> tuple[dict[Var, Expr], tuple[ShapeCheck, ...]]:
    """The symbols of an entry's signature, and the checks of its inputs' shapes.

    A symbol follows from a dimension that it is, that is linear in it (``2 * n + 1``), or that is a
    product with symbols that are known (``n * m``).

    Raises:
        LoweringError: E0420 if a symbol follows from no dimension, E0421 if a parameter is no
            tensor of known shape.
    """
    dims = [
        (d, i, axis) for i, p in enumerate(function.params) for axis, d in enumerate(_dims(p.type))
    ]
    solution = solve([(d, dimension(i, axis)) for d, i, axis in dims])
    solved = solution.values
    missing = [v for v in symbols(function) if v not in solved]
    if missing:
        raise LoweringError(
            "E0420",
            f"the symbol '{missing[0]}' does not follow from the inputs of '{function.name}'",
            help="give the function a parameter with this dimension",
        )
    found = {v: x for v, x in solved.items() if v in variables(*(d for d, _, _ in dims))}
    checks = [ShapeCheck(substitute(c, found), str(c)) for c in solution.conditions]
    for d, i, axis in dims:
        if not isinstance(d, Var) or solved[d] is not dimension(i, axis):
            claim = eq(dimension(i, axis), substitute(d, found))
            checks.append(ShapeCheck(claim, f"dimension {axis} of input {i} is {d}", i, axis))
    sizes = [v >= 0 for v, x in found.items() if not isinstance(x, Var)]
    checks.extend(ShapeCheck(substitute(a, found), str(a)) for a in (*sizes, *function.assumes))
    return found, tuple(checks)


def _dims(type_: object) -> tuple[Expr, ...]:
    if not isinstance(type_, TensorType) or type_.shape is None:
        raise LoweringError(
            "E0421", f"an entry takes and gives tensors of known shape, not {type_}"
        )
    return type_.shape
