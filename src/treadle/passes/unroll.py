"""Write out unrolled loops: one copy of the body per iteration, each with its own index and its own
temporaries.
"""

from treadle.base.errors import LoweringError
from treadle.expr.scalar import const, int_value
from treadle.ir.analysis import facts_of
from treadle.ir.tensor import For, If, Stmt, TensorFunction
from treadle.passes.statements import Body, renamed_copy, simplify_body, substitute_body, with_body


def unroll(function: TensorFunction) -> TensorFunction:
    """Replace every unrolled loop of ``function``.

    Raises:
        LoweringError: E0401 if the extent of one is not constant.
    """
    return with_body(function, simplify_body(_unroll(function.body), facts_of(function)))


def _unroll(body: Body) -> Body:
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For) and s.kind == "unrolled":
            result.extend(_copies(s))
        elif isinstance(s, For):
            result.append(For(s.var, s.extent, _unroll(s.body), s.kind, s.span, s.annotations))
        elif isinstance(s, If):
            result.append(If(s.condition, _unroll(s.body), _unroll(s.orelse), s.span))
        else:
            result.append(s)
    return tuple(result)


def _copies(loop: For) -> Body:
    extent = int_value(loop.extent)
    if extent is None:
        raise LoweringError(
            "E0401",
            f"the unrolled loop '{loop.var}' has extent {loop.extent}, which is not constant",
            place=None if loop.span is None else str(loop.span),
            help="split the loop by a constant and unroll the inner one",
        )
    body = _unroll(loop.body)
    result: list[Stmt] = []
    for i in range(extent):
        copy = body if i == 0 else renamed_copy(body, f"_{loop.var.name}u{i}")
        result.extend(substitute_body(copy, {loop.var: const(i)}))
    return tuple(result)
