"""Rules of loop programs at every level: names, scopes and types."""

import keyword
from collections.abc import Iterator

from treadle.expr.dtype import DType, boolean, parse_dtype
from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Apply, Const, Expr, Var, variables, walk
from treadle.ir.analysis import expressions, loads, shape_symbols, statements
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    If,
    IterVar,
    Let,
    Load,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.ir.verify.report import refusal

Named = tuple[str, Stmt | IterVar | TensorFunction]
Body = tuple[Stmt, ...]


def is_name(name: str) -> bool:
    """Whether the text can hold a name: Python's rules, and no name of an element type."""
    return name.isidentifier() and not keyword.iskeyword(name) and parse_dtype(name) is None


def check_names(function: TensorFunction) -> None:
    """Names of parameters, symbols, loops, axes, lets and buffers are unique; so are blocks'."""
    seen: set[str] = set()
    for name, node in _definitions(function):
        if not is_name(name):
            raise refusal("E0204", f"'{name}' is no name", function, node)
        if name in seen:
            raise refusal(
                "E0201",
                f"'{name}' is defined twice",
                function,
                node,
                help="names are unique within a function",
            )
        seen.add(name)
    titles: set[str] = set()
    for stmt in statements(function.body):
        if isinstance(stmt, Block):
            if stmt.name in titles:
                raise refusal("E0201", f"there are two blocks '{stmt.name}'", function, stmt)
            titles.add(stmt.name)


def _definitions(function: TensorFunction) -> Iterator[Named]:
    if not is_name(function.name):
        yield function.name, function
    for param in function.params:
        yield param.name, function
    for symbol in shape_symbols(function):
        yield symbol.name, function
    for stmt in statements(function.body):
        if isinstance(stmt, For | Let):
            yield stmt.var.name, stmt
        elif isinstance(stmt, Allocate):
            yield stmt.buffer.name, stmt
        elif isinstance(stmt, Block):
            yield from ((axis.var.name, axis) for axis in stmt.iters)


# ---- Scopes


def check_scopes(function: TensorFunction) -> None:
    """A variable or buffer is used where it has been defined, and nowhere else."""
    known: set[Var | Buffer] = {*function.params, *shape_symbols(function)}
    for fact in function.assumes:
        for var in variables(fact):
            if var not in known:
                raise refusal("E0202", f"assume uses '{var.name}'", function, fact)
    _check_body(function, function.body, frozenset(known))


def _check_body(function: TensorFunction, body: Body, known: frozenset[Var | Buffer]) -> None:
    for stmt in body:
        if isinstance(stmt, Block):
            _check_block(function, stmt, known)
            continue
        _check_uses(function, stmt, expressions(stmt), known)
        if isinstance(stmt, For):
            _check_body(function, stmt.body, known | {stmt.var})
        elif isinstance(stmt, If):
            _check_body(function, stmt.body, known)
            _check_body(function, stmt.orelse, known)
        elif isinstance(stmt, Let):
            known = known | {stmt.var}
        elif isinstance(stmt, Allocate):
            known = known | {stmt.buffer}
        elif isinstance(stmt, Store) and stmt.buffer not in known:
            raise _unknown_buffer(function, stmt, stmt.buffer)


def _check_block(function: TensorFunction, block: Block, known: frozenset[Var | Buffer]) -> None:
    for axis in block.iters:
        _check_uses(function, axis, (axis.extent, axis.binding), known)
    if block.where is not None:
        _check_uses(function, block, (block.where,), known)
    inside = known | {axis.var for axis in block.iters}
    _check_body(function, block.init, inside)
    _check_body(function, block.body, inside)


def _check_uses(
    function: TensorFunction,
    node: Stmt | IterVar,
    exprs: tuple[Expr, ...],
    known: frozenset[Var | Buffer],
) -> None:
    for var in variables(*exprs):
        if var not in known:
            raise refusal(
                "E0202",
                f"'{var.name}' ({var.dtype}) is used where it has no value",
                function,
                node,
                help="use a name in the body of the loop, block or let that defines it",
            )
    for load in loads(*exprs):
        if load.buffer not in known:
            raise _unknown_buffer(function, node, load.buffer)


def _unknown_buffer(function: TensorFunction, node: Stmt | IterVar, buffer: Buffer) -> Exception:
    return refusal(
        "E0202",
        f"the buffer '{buffer.name}' is used where it is not allocated",
        function,
        node,
        help="make it a parameter, or put alloc before its use in the same body",
        notes=(f"it is {buffer!r}",),
    )


# ---- Types


def check_types(function: TensorFunction) -> None:
    """Ranks, indices, values, masks and conditions have fitting types."""
    for stmt in statements(function.body):
        _check_expressions(function, stmt)
        if isinstance(stmt, Store):
            _check_access(function, stmt, stmt.buffer, stmt.indices, stmt.mask)
            expected = Load(stmt.buffer, stmt.indices).dtype
            _expect(function, stmt, stmt.value, expected, f"what '{stmt.buffer.name}' holds")
        elif isinstance(stmt, For):
            _check_integer(function, stmt, stmt.extent, "an extent")
        elif isinstance(stmt, If):
            _expect(function, stmt, stmt.condition, boolean, "a condition")
        elif isinstance(stmt, Let) and stmt.var.dtype != stmt.value.dtype:
            _expect(function, stmt, stmt.value, stmt.var.dtype, f"'{stmt.var.name}'")
        elif isinstance(stmt, Block):
            _check_axes(function, stmt)


def _check_expressions(function: TensorFunction, stmt: Stmt) -> None:
    for x in walk(*expressions(stmt)):
        if isinstance(x, Load):
            _check_access(function, stmt, x.buffer, x.indices, x.mask)
        elif isinstance(x, Apply) and not _is_well_typed(x):
            kinds = ", ".join(str(a.dtype) for a in x.args)
            message = f"{x.fn} of {kinds} is recorded as {x.dtype}"
            raise refusal("E0203", message, function, stmt, notes=(f"in {x}",))


def _is_well_typed(x: Apply) -> bool:
    rule = FUNCTIONS[x.fn].result
    if rule == "same":
        return all(a.dtype == x.dtype for a in x.args)
    if x.fn == "select":
        return all(a.dtype == x.dtype for a in x.args[1:])
    if rule == "bool":
        lanes = x.dtype.lanes
        return x.dtype.is_bool and all(a.dtype.lanes == lanes for a in x.args)
    return True


def _check_axes(function: TensorFunction, block: Block) -> None:
    for axis in block.iters:
        _check_integer(function, axis, axis.extent, "an extent")
        _expect(function, axis, axis.binding, axis.var.dtype, "a binding")
    if block.where is not None:
        _expect(function, block, block.where, boolean, "where")


def _check_access(
    function: TensorFunction,
    stmt: Stmt,
    buffer: Buffer,
    indices: tuple[Expr, ...],
    mask: Expr | None,
) -> None:
    if len(indices) != buffer.ndim:
        raise refusal(
            "E0203",
            f"'{buffer.name}' has {buffer.ndim} dimensions, and {len(indices)} indices are given",
            function,
            stmt,
        )
    wide = [i.dtype.lanes for i in indices if i.dtype.lanes > 1]
    for index in indices:
        _check_integer(function, stmt, index, "an index", lanes=True)
    if len(wide) > 1 or (wide and buffer.dtype.lanes > 1):
        raise refusal(
            "E0203",
            f"'{buffer.name}' is indexed by more than one vector",
            function,
            stmt,
            help="one index may be a vector, of a buffer of scalars",
        )
    if mask is None:
        return
    lanes = wide[0] if wide else buffer.dtype.lanes
    if not mask.dtype.is_bool or mask.dtype.lanes not in (1, lanes):
        raise refusal("E0203", f"a mask has type {mask.dtype}, not bool", function, stmt)


def _check_integer(
    function: TensorFunction, node: Stmt | IterVar, x: Expr, what: str, lanes: bool = False
) -> None:
    if not x.dtype.is_int or (x.dtype.lanes > 1 and not lanes):
        raise refusal(
            "E0203",
            f"{what}, {x}, has type {x.dtype}",
            function,
            node,
            help="it must be an integer: use cast(x, i64)",
        )


def _expect(
    function: TensorFunction, node: Stmt | IterVar, x: Expr, dtype: DType, what: str
) -> None:
    if x.dtype != dtype:
        raise refusal(
            "E0203",
            f"{what} has type {dtype}, and {x} has type {x.dtype}",
            function,
            node,
            help=f"convert with cast(x, {dtype})",
        )


# ---- Memory


def check_inputs(function: TensorFunction) -> None:
    """Inputs are not written."""
    inputs = frozenset(function.input_buffers)
    for stmt in statements(function.body):
        if isinstance(stmt, Store) and stmt.buffer in inputs:
            raise refusal(
                "E0210",
                f"the input '{stmt.buffer.name}' is written",
                function,
                stmt,
                help="make it an Output",
            )


def check_updates(function: TensorFunction) -> None:
    """An output that starts with the contents of an input has its type, and nothing else touches
    that input: both may be the same memory.
    """
    inputs, outputs = function.input_buffers, function.output_buffers
    if any(k >= len(outputs) or j >= len(inputs) for k, j in function.updates):
        raise _bad_update(function, function, f"there is no such parameter: {function.updates}")
    for k, j in function.updates:
        x, y = inputs[j], outputs[k]
        if (x.shape, x.dtype, x.scope) != (y.shape, y.dtype, y.scope):
            why = f"'{y.name}' cannot start with the contents of '{x.name}', which has another type"
            raise _bad_update(function, function, why)
        if (
            sum(i == j for _, i in function.updates) > 1
            or sum(o == k for o, _ in function.updates) > 1
        ):
            raise _bad_update(function, function, f"'{x.name}' or '{y.name}' is in two updates")
        for stmt in statements(function.body):
            if any(found.buffer is x for found in loads(*expressions(stmt))):
                why = f"'{x.name}' is read, and '{y.name}' may be the same memory"
                raise _bad_update(function, stmt, why, f"read '{y.name}', which starts the same")


def _bad_update(
    function: TensorFunction,
    node: Stmt | TensorFunction,
    message: str,
    help: str | None = None,  # noqa: A002  (the word that the rendered message uses)
) -> Exception:
    return refusal("E0211", message, function, node, help=help)


def check_registers(function: TensorFunction) -> None:
    """Elements of register buffers are named by constants, once loops are final."""
    for stmt in statements(function.body):
        touched = [(x.buffer, x.indices) for x in loads(*expressions(stmt))]
        if isinstance(stmt, Store):
            touched.append((stmt.buffer, stmt.indices))
        for buffer, indices in touched:
            if buffer.scope == "register" and not all(isinstance(i, Const) for i in indices):
                raise refusal(
                    "E0209",
                    f"the register buffer '{buffer.name}' is indexed by a variable",
                    function,
                    stmt,
                    help='unroll the loops around it, or use scope="stack"',
                )
