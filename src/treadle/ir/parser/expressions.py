"""Read scalar expressions, element types and tensor types."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from treadle.base.errors import InternalError
from treadle.expr.dtype import DType, boolean, f32, i8, i16, i64, parse_dtype, u8
from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Const, Expr, Number, Var, apply, const
from treadle.ir.parser.source import Source, call_name, keywords
from treadle.ir.tensor import Buffer, Load
from treadle.ir.types import ShapeType, TensorType, Type

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
    ast.LShift: "shl",
    ast.RShift: "shr",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
}
_TYPED = frozenset({"cast", "bitcast", "ramp", "broadcast"})
_REDUCTIONS = frozenset({"reduce_add", "reduce_mul", "reduce_min", "reduce_max"})
_VECTORS = frozenset({"shuffle", "dot", "maddubs"})


@dataclass(eq=False)
class Scope:
    """What names mean: variables and buffers. ``open`` takes an unknown name for a symbol (in graph
    functions).
    """

    source: Source
    variables: dict[str, Var] = field(default_factory=dict[str, Var])
    buffers: dict[str, Buffer] = field(default_factory=dict[str, Buffer])
    open: bool = False

    def expr(self, node: ast.expr, dtype: DType | None = None) -> Expr:
        """An expression; a bare number takes ``dtype``, or else i64, f32 or bool as Python's type
        says.

        Raises:
            ParseError: E0003, E0004 or E0005 at the place of the mistake.
        """
        found = self.operand(node)
        return found if isinstance(found, Expr) else const(found, dtype or _natural(found))

    def operand(self, node: ast.expr) -> Expr | Number:
        """An expression, or a Python number that takes its type from the other operand."""
        reader = _READERS.get(type(node))
        if reader is None:
            raise self.source.error(
                "E0003", "this is no scalar expression", node, help="see the reference of the text"
            )
        return reader(self, node)

    def built(
        self, node: ast.expr, fn: str, *args: Expr | Number, dtype: DType | None = None
    ) -> Expr:
        """An application, with mistakes of type shown at ``node``."""
        typed = next((x.dtype for x in args if isinstance(x, Expr) and not x.dtype.is_bool), None)
        if typed is not None and not typed.is_float and any(isinstance(x, float) for x in args):
            raise self.source.error("E0005", f"a float does not combine with {typed}", node, _CAST)
        try:
            return apply(fn, *args, dtype=dtype)
        except InternalError as error:
            raise self.source.error("E0005", error.message, node, help=_CAST) from None


HIGHEST_DIM = 2**62
_CAST = "convert one operand with cast(x, dtype)"


def _natural(value: Number) -> DType:
    return boolean if isinstance(value, bool) else i64 if isinstance(value, int) else f32


def _constant(scope: Scope, node: ast.Constant) -> Expr | Number:
    if isinstance(node.value, bool):
        return Const(node.value, boolean)
    if not isinstance(node.value, int | float):
        raise scope.source.error("E0003", "a number was expected", node)
    return node.value


def _name(scope: Scope, node: ast.Name) -> Expr:
    found = scope.variables.get(node.id)
    if found is not None:
        return found
    if node.id in scope.buffers:
        raise scope.source.error(
            "E0003", f"'{node.id}' is a buffer", node, help=f"read an element: {node.id}[...]"
        )
    if scope.open and parse_dtype(node.id) is None:
        return Var(node.id)
    raise scope.source.unknown("variable", node.id, scope.variables, node)


def _binary(scope: Scope, node: ast.BinOp) -> Expr:
    fn = _BINARY.get(type(node.op))
    if fn is None:
        raise scope.source.error(
            "E0003", "this operator has no meaning here", node, help="pow(a, b) is a function"
        )
    return scope.built(node, fn, scope.operand(node.left), scope.operand(node.right))


def _unary(scope: Scope, node: ast.UnaryOp) -> Expr | Number:
    inner = scope.operand(node.operand)
    if isinstance(node.op, ast.USub):
        return scope.built(node, "neg", inner) if isinstance(inner, Expr) else -inner
    if isinstance(node.op, ast.Invert):
        return scope.built(node, "invert", inner)
    raise scope.source.error(
        "E0003", "this operator has no meaning here", node, help="use ~ for 'not'"
    )


def _compare(scope: Scope, node: ast.Compare) -> Expr:
    fn = _COMPARE.get(type(node.ops[0]))
    if fn is None or len(node.ops) != 1:
        raise scope.source.error(
            "E0003",
            "only one comparison of two values is an expression",
            node,
            help="join comparisons with &: (a < b) & (b < c)",
        )
    return scope.built(node, fn, scope.operand(node.left), scope.operand(node.comparators[0]))


def _bool_op(scope: Scope, node: ast.BoolOp) -> Expr:
    raise scope.source.error(
        "E0003", "'and' and 'or' have no meaning here", node, help="use & and |, in parentheses"
    )


def _call(scope: Scope, node: ast.Call) -> Expr:
    name = call_name(node)
    if name is None:
        raise scope.source.error("E0003", "a function is called by its name", node)
    if name == "load":
        return _masked_load(scope, node)
    if node.keywords:
        raise scope.source.error("E0003", f"{name} takes no keywords", node)
    dtype = parse_dtype(name)
    if dtype is not None:
        return typed_constant(scope.source, dtype, node)
    function = FUNCTIONS.get(name)
    if function is None or function.symbol is not None:
        raise scope.source.unknown("scalar function", name, FUNCTIONS, node)
    return _application(scope, node, name)


def _application(scope: Scope, node: ast.Call, name: str) -> Expr:
    arguments = list(node.args)
    dtype = None
    if name in _TYPED:
        if len(arguments) < 2:
            raise scope.source.error("E0003", f"{name} ends with a type", node)
        dtype = dtype_of(scope.source, arguments.pop())
    operands = [scope.operand(a) for a in arguments]
    if name in _TYPED or name in _REDUCTIONS or name in _VECTORS:
        operands = [x if isinstance(x, Expr) else const(x, _natural(x)) for x in operands]
    arity = FUNCTIONS[name].arity
    if len(operands) != arity and not (FUNCTIONS[name].variadic and len(operands) > arity):
        raise scope.source.error(
            "E0003", f"{name} takes {arity} operands, and {len(operands)} were given", node
        )
    if name in _REDUCTIONS:
        dtype = operands[0].dtype.scalar  # type: ignore[union-attr]  (numbers became constants)
    elif name in _VECTORS:
        dtype = _vector_result(scope, node, name, [x for x in operands if isinstance(x, Expr)])
    elif name == "select":
        arms = [x for x in operands[1:] if isinstance(x, Expr)]
        dtype = arms[0].dtype if arms else _natural(operands[1])  # type: ignore[arg-type]
        _same_arms(scope, node, arms)
    return scope.built(node, name, *operands, dtype=dtype)


def _vector_result(scope: Scope, node: ast.Call, name: str, operands: list[Expr]) -> DType:
    """The type of a function of whole vectors, which follows from its operands."""
    types = [x.dtype for x in operands]
    if name == "shuffle":
        if types[0] != types[1] or not all(isinstance(x, Const) for x in operands[2:]):
            raise scope.source.error("E0005", "shuffle takes two vectors of one type, lanes", node)
        return types[0].scalar.vector(len(operands) - 2)
    if name == "dot":
        if types[1].lanes != types[2].lanes or types[1].lanes not in (
            2 * types[0].lanes,
            4 * types[0].lanes,
        ):
            raise scope.source.error(
                "E0005", "dot takes a vector, and two of 2 or 4 times its lanes", node
            )
        return types[0]
    if types != [u8.vector(types[0].lanes), i8.vector(types[0].lanes)]:
        raise scope.source.error("E0005", "maddubs takes vectors of u8 and of i8", node)
    return i16.vector(types[0].lanes // 2)


def _same_arms(scope: Scope, node: ast.Call, arms: list[Expr]) -> None:
    if len({x.dtype for x in arms}) > 1:
        kinds = " and ".join(str(x.dtype) for x in arms)
        raise scope.source.error("E0005", f"select chooses between {kinds}", node, help=_CAST)


def typed_constant(source: Source, dtype: DType, node: ast.Call) -> Const:
    """``f32(0.5)``, ``i8(-3)`` or ``f32("inf")``."""
    value = number(source, node.args[0]) if len(node.args) == 1 else None
    if value is None:
        raise source.error(
            "E0003",
            f"{dtype}(...) takes one number",
            node,
            help=f"cast(x, {dtype}) converts an expression",
        )
    if not dtype.is_float and isinstance(value, float):
        raise source.error("E0005", f"{value} is no {dtype}", node)
    return Const(value, dtype)


def number(source: Source, node: ast.expr) -> Number | None:
    """A number as written, with its sign; text (``"inf"``) is a float; ``None`` if it is something
    else.
    """
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = number(source, node.operand)
        return None if inner is None else -inner
    if not isinstance(node, ast.Constant):
        return None
    if isinstance(node.value, str):
        if node.value.lstrip("-") not in ("inf", "nan"):
            raise source.error("E0003", 'only "inf", "-inf" and "nan" are numbers in quotes', node)
        return float(node.value)
    return node.value if isinstance(node.value, bool | int | float) else None


def _subscript(scope: Scope, node: ast.Subscript) -> Expr:
    buffer, indices = element(scope, node)
    return Load(buffer, indices)


def element(scope: Scope, node: ast.expr) -> tuple[Buffer, tuple[Expr, ...]]:
    """``X[i, j]`` as a buffer and indices."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
        raise scope.source.error("E0003", "an element of a buffer was expected: X[i, j]", node)
    buffer = scope.buffers.get(node.value.id)
    if buffer is None:
        raise scope.source.unknown("buffer", node.value.id, scope.buffers, node.value)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    indices = tuple(scope.expr(i) for i in items)
    if len(indices) != buffer.ndim:
        raise scope.source.error(
            "E0005",
            f"{buffer.name} has {buffer.ndim} dimensions, and {len(indices)} indices are given",
            node,
        )
    return buffer, indices


def _masked_load(scope: Scope, node: ast.Call) -> Expr:
    given = keywords(scope.source, node, ("mask",))
    if len(node.args) != 1:
        raise scope.source.error("E0003", "load takes one element: load(X[i], mask=m)", node)
    buffer, indices = element(scope, node.args[0])
    return Load(buffer, indices, scope.expr(given["mask"]) if "mask" in given else None)


_READERS: Mapping[type[ast.expr], Callable[..., Expr | Number]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.Compare: _compare,
    ast.BoolOp: _bool_op,
    ast.Call: _call,
    ast.Subscript: _subscript,
}


# ---- Types


def dtype_of(source: Source, node: ast.expr) -> DType:
    """An element type by name."""
    found = parse_dtype(node.id) if isinstance(node, ast.Name) else None
    if found is None:
        name = ast.unparse(node)
        raise source.unknown(
            "element type", name, ("f16", "f32", "f64", "bf16", "i64", "bool"), node
        )
    return found


def dims_of(scope: Scope, node: ast.expr) -> tuple[Expr, ...]:
    """A tuple of dimensions, such as ``(n, 4)``."""
    if not isinstance(node, ast.Tuple):
        raise scope.source.error(
            "E0003", "a shape is a tuple", node, help="one dimension is written (n,)"
        )
    return tuple(_dim(scope, d) for d in node.elts)


def _dim(scope: Scope, node: ast.expr) -> Expr:
    written = number(scope.source, node)
    found = scope.expr(node)
    fits = written is None or (isinstance(written, int) and 0 <= written < HIGHEST_DIM)
    if not fits or found.dtype.is_float or found.dtype.is_bool or found.dtype.lanes > 1:
        raise scope.source.error(
            "E0005",
            f"{ast.unparse(node)} is no dimension",
            node,
            help="a dimension is a whole number below 2**62, or an expression over symbols",
        )
    return found


def is_type(node: ast.AST) -> bool:
    """Whether a node is written as a tensor or shape type."""
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("Tensor", "Shape")
    )


def type_of(scope: Scope, node: ast.AST | None, owner: ast.AST) -> Type:
    """``Tensor[(n, 64), f32]``, ``Tensor[ndim(2), f32]`` (its dimensions unknown) or
    ``Shape[(n,)]``.
    """
    if node is None or not isinstance(node, ast.Subscript) or not is_type(node):
        raise scope.source.error(
            "E0003", "a type was expected", node or owner, help="write Tensor[(n, 64), f32]"
        )
    assert isinstance(node.value, ast.Name)
    if node.value.id == "Shape":
        return ShapeType(dims_of(scope, node.slice))
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else []
    if len(parts) != 2:
        raise scope.source.error("E0003", "a tensor type has a shape and an element type", node)
    dtype = dtype_of(scope.source, parts[1])
    rank = _rank(parts[0])
    if rank is not None:
        return TensorType(None, rank, dtype)
    dims = dims_of(scope, parts[0])
    return TensorType(dims, len(dims), dtype)


def _rank(node: ast.expr) -> int | None:
    """``ndim(2)``: the number of dimensions where these are unknown."""
    if call_name(node) == "ndim" and isinstance(node, ast.Call) and len(node.args) == 1:
        (inner,) = node.args
        if isinstance(inner, ast.Constant) and isinstance(inner.value, int):
            return inner.value
    return None
