"""Write out unrolled loops: one copy of the body per iteration, each with its own index and its own temporaries."""

from treadle.base.errors import LoweringError
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Var, const, int_value
from treadle.ir.analysis import facts_of, statements
from treadle.ir.tensor import Allocate, Buffer, For, If, Let, Stmt, TensorFunction
from treadle.passes.statements import (
    Body,
    rename_definitions,
    simplify_body,
    substitute_body,
    with_body,
)


def unroll(function: TensorFunction) -> TensorFunction:
    """Replace every unrolled loop of ``function``.

    Raises:
        LoweringError: E0401 if the extent of one is not constant.
    """
    body = _unroll(function.body, facts_of(function))
    return with_body(function, body)


def _unroll(body: Body, facts: Facts) -> Body:
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For) and s.kind == "unrolled":
            result.extend(_copies(s, facts))
        elif isinstance(s, For):
            result.append(For(s.var, s.extent, _unroll(s.body, facts.with_range(s.var, s.extent)), s.kind, s.span))
        elif isinstance(s, If):
            result.append(If(s.condition, _unroll(s.body, facts), _unroll(s.orelse, facts), s.span))
        else:
            result.append(s)
    return tuple(result)


def _copies(loop: For, facts: Facts) -> Body:
    extent = int_value(loop.extent)
    if extent is None:
        raise LoweringError(
            "E0401",
            f"the unrolled loop '{loop.var}' has extent {loop.extent}, which is not constant",
            place=None if loop.span is None else str(loop.span),
            help="split the loop by a constant and unroll the inner one",
        )
    result: list[Stmt] = []
    for i in range(extent):
        values, buffers = _renamed(loop.body, i)
        copy = substitute_body(loop.body, {loop.var: const(i), **values}, buffers)
        result.extend(_unroll(simplify_body(rename_definitions(copy, values), facts), facts))
    return tuple(result)


def _renamed(body: Body, copy: int) -> tuple[dict[Var, Var], dict[Buffer, Buffer]]:
    """Names of their own for what a copy of a body defines; the first copy keeps the names."""
    values: dict[Var, Var] = {}
    buffers: dict[Buffer, Buffer] = {}
    if copy == 0:
        return values, buffers
    for s in statements(body):
        if isinstance(s, For | Let):
            values[s.var] = Var(f"{s.var.name}_u{copy}", s.var.dtype)
        elif isinstance(s, Allocate):
            b = s.buffer
            buffers[b] = Buffer(f"{b.name}_u{copy}", b.shape, b.dtype, b.scope)
    return values, buffers
