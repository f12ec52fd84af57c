"""Read the text of modules: Python's syntax, by its ``ast``; nothing is executed."""

import ast
from collections.abc import Iterable, Mapping

import numpy as np

from treadle.base.rewrite import replace_fields
from treadle.expr.dtype import from_numpy
from treadle.expr.scalar import int_value
from treadle.ir.calls import CALLS
from treadle.ir.module import Constant, Function, Module
from treadle.ir.op import Op
from treadle.ir.parser.expressions import Scope, number, type_of
from treadle.ir.parser.graph import read_graph_function
from treadle.ir.parser.source import Source, call_name
from treadle.ir.parser.tensor import read_tensor_function
from treadle.ir.types import TensorType

__all__ = ["ops_by_name", "parse", "parse_function"]

_KINDS = {"tensor.function", "graph.function"}
_NAMES = {"inputs", "outputs"}


def ops_by_name(classes: Iterable[type[Op]]) -> dict[str, type[Op]]:
    """Classes of operations by their names in the text."""
    return {cls.op_name(): cls for cls in classes}


def parse(
    text: str,
    ops: Mapping[str, type[Op]],
    constants: Mapping[str, np.ndarray] = {},
    source: str = "<text>",
) -> Module:
    """Read a module.

    Args:
        text: what ``str(module)`` gives, or a person writes.
        ops: classes of operations by name; those that name functions (``call`` and others) are
        known anyway. constants: data of constants that the text declares without.
        source: the name of the text in errors and spans.

    Raises:
        ParseError: E00xx, at the place of the mistake.
        TypeMismatch: when an operation's operands do not fit.
    """
    origin = Source(source, tuple(text.split("\n")))
    known = {**ops, **ops_by_name(CALLS)}
    functions: dict[str, Function] = {}
    declared: dict[str, Constant] = {}
    for node in origin.parse().body:
        if isinstance(node, ast.FunctionDef):
            if node.name in functions:
                raise origin.error("E0006", f"the function '{node.name}' is defined twice", node)
            functions[node.name] = _function(origin, node, known, declared, functions)
        else:
            name, constant = _constant(origin, node, constants)
            if name in declared:
                raise origin.error("E0006", f"the constant '{name}' is defined twice", node)
            declared[name] = constant
    return Module(functions, declared)


def parse_function(
    text: str,
    ops: Mapping[str, type[Op]] = {},
    constants: Mapping[str, np.ndarray] = {},
    source: str = "<text>",
) -> Function:
    """Read a text with one function, such as ``str(function)`` gives.

    Raises:
        ParseError: E00xx, also when there is not exactly one function.
    """
    module = parse(text, ops, constants, source)
    if len(module.functions) != 1:
        origin = Source(source, tuple(text.split("\n")))
        found = len(module.functions)
        raise origin.error("E0002", f"one function was expected, and there are {found}", ast.Pass())
    return next(iter(module.functions.values()))


def _function(
    source: Source,
    node: ast.FunctionDef,
    ops: Mapping[str, type[Op]],
    constants: Mapping[str, Constant],
    functions: Mapping[str, Function],
) -> Function:
    kinds = [ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list]
    if len(kinds) != 1 or kinds[0] not in _KINDS:
        raise source.error(
            "E0002",
            f"the function '{node.name}' is of no kind",
            node,
            help="put @graph.function or @tensor.function above it",
        )
    arguments = node.args
    if arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
        raise source.error("E0003", "parameters are plain names", node)
    if arguments.defaults:
        raise source.error("E0003", "parameters have no defaults", arguments.defaults[0])
    said = _said_of(source, kinds[0], node.decorator_list[0])
    if kinds[0] == "tensor.function":
        return read_tensor_function(source, node)
    function = read_graph_function(source, node, ops, constants, functions)
    return replace_fields(function, **said) if said else function


def _said_of(
    source: Source, kind: str, node: ast.expr
) -> dict[str, tuple[str, ...] | tuple[tuple[int, int], ...]]:
    """What ``@graph.function(inputs=("a/b",), outputs=("y.1",), donated=((0, 0),))`` says."""
    if not isinstance(node, ast.Call):
        return {}
    found: dict[str, tuple[str, ...] | tuple[tuple[int, int], ...]] = {}
    for keyword in node.keywords:
        value = keyword.value
        items = value.elts if isinstance(value, ast.Tuple) else []
        texts = [i.value for i in items if isinstance(i, ast.Constant) and isinstance(i.value, str)]
        if keyword.arg in _NAMES and texts and len(texts) == len(items):
            found[keyword.arg] = tuple(texts)
        pairs = [p for i in items if (p := _pair(i)) is not None]
        if keyword.arg == "donated" and pairs and len(pairs) == len(items):
            found["donated"] = tuple(pairs)
    if kind != "graph.function" or node.args or len(found) != len(node.keywords):
        raise source.error(
            "E0003",
            "a graph function takes the names of its inputs and outputs, and what is donated",
            node,
            help='write @graph.function(inputs=("a/b",), outputs=("y.1",), donated=((0, 0),))',
        )
    return found


def _pair(node: ast.expr) -> tuple[int, int] | None:
    """Two numbers, if that is what a text says."""
    parts = node.elts if isinstance(node, ast.Tuple) else []
    numbers = [p.value for p in parts if isinstance(p, ast.Constant) and type(p.value) is int]
    return (numbers[0], numbers[1]) if len(numbers) == len(parts) == 2 else None


# ---- Constants


def _constant(
    source: Source, node: ast.stmt, arrays: Mapping[str, np.ndarray]
) -> tuple[str, Constant]:
    if (
        not isinstance(node, ast.Assign)
        or len(node.targets) != 1
        or not isinstance(node.targets[0], ast.Name)
        or not isinstance(node.value, ast.Call)
        or call_name(node.value) != "constant"
        or not 1 <= len(node.value.args) <= 2
    ):
        raise source.error(
            "E0002",
            "a module has constants and functions only",
            node,
            help="write w = constant(Tensor[(2,), f32], [1.0, 2.0])",
        )
    name = node.targets[0].id
    type_ = type_of(Scope(source), node.value.args[0], node)
    shape = _shape(type_) if isinstance(type_, TensorType) else None
    if shape is None or not isinstance(type_, TensorType):
        raise source.error("E0005", "a constant's dimensions are numbers", node.value.args[0])
    if name in arrays:
        array = np.asarray(arrays[name])
        if array.shape != shape or from_numpy(array.dtype) != type_.dtype:
            given = f"{array.dtype} of shape {array.shape}"
            raise source.error("E0005", f"'{name}' is {type_}, and its data {given}", node)
    elif len(node.value.args) == 2:
        array = _data(source, node.value.args[1], type_, shape)
    else:
        raise source.error(
            "E0008",
            f"the text has no data of the constant '{name}'",
            node,
            help=f"pass constants={{'{name}': array}}",
        )
    return name, Constant(type_, array)


def _shape(type_: TensorType) -> tuple[int, ...] | None:
    sizes = [int_value(d) for d in type_.shape or ()]
    if type_.shape is None or any(s is None for s in sizes):
        return None
    return tuple(s for s in sizes if s is not None)


def _data(source: Source, node: ast.expr, type_: TensorType, shape: tuple[int, ...]) -> np.ndarray:
    flat: list[float] = []
    _collect(source, node, shape, flat)
    return (
        np.array(flat, np.float64 if type_.dtype.is_float else object)
        .astype(type_.dtype.numpy)
        .reshape(shape)
    )


def _collect(source: Source, node: ast.expr, shape: tuple[int, ...], flat: list[float]) -> None:
    if not shape:
        plain = node.args[0] if isinstance(node, ast.Call) and node.args else node
        value = number(source, plain)
        if value is None:
            raise source.error("E0003", "a number was expected", node)
        flat.append(value)
        return
    if not isinstance(node, ast.List) or len(node.elts) != shape[0]:
        raise source.error("E0005", f"a list of {shape[0]} was expected", node)
    for part in node.elts:
        _collect(source, part, shape[1:], flat)
