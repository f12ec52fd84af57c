"""Print functions and modules as Python text; ``treadle.ir.parser`` reads it back."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from treadle.base.errors import InternalError, TreadleError
from treadle.expr.scalar import Const, Expr, Var
from treadle.ir.calls import Call, CallLibrary, CallTensor
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Literal, ShapeLiteral, Value
from treadle.ir.module import Constant, Function, Module
from treadle.ir.op import Op
from treadle.ir.op_fields import default_of, field_text, op_fields, same_value
from treadle.ir.tensor import (
    THREAD_AXES,
    Allocate,
    Annotation,
    Annotations,
    Block,
    Buffer,
    For,
    If,
    Intrinsic,
    IterVar,
    Let,
    Load,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.ir.types import Type, tuple_text

SMALL_CONSTANT = 16
_LOOPS = {
    "serial": "range",
    "parallel": "parallel",
    "vectorized": "vectorized",
    "unrolled": "unrolled",
}
_CONTEXT = 4

Node = Function | Stmt | IterVar | Binding | Buffer | Value | Expr


@dataclass(eq=False)
class _Writer:
    """Lines of text, and where each node stands: line, first and last column."""

    lines: list[str] = field(default_factory=list[str])
    places: dict[int, tuple[int, int, int]] = field(default_factory=dict[int, tuple[int, int, int]])

    def line(self, depth: int, text: str, node: object = None) -> None:
        start = 4 * depth
        if node is not None:
            self.places.setdefault(id(node), (len(self.lines), start, start + len(text)))
        self.lines.append(" " * start + text if text else "")


def module_text(module: Module) -> str:
    """The whole module: constants, then functions in order. Large constants print without their
    data.
    """
    parts: list[str] = []
    constants = [f"{name} = {constant_text(c)}" for name, c in module.constants.items()]
    if constants:
        parts.append("\n".join(constants) + "\n")
    parts.extend(function_text(f) for f in module.functions.values())
    return "\n".join(parts)


def function_text(function: Function) -> str:
    """One function, with a line break at its end."""
    writer = _Writer()
    _write_function(writer, function)
    return "\n".join(writer.lines) + "\n"


def stmt_text(stmt: Stmt | tuple[Stmt, ...]) -> str:
    """Statements of a tensor function, without indentation."""
    writer = _Writer()
    _write_body(writer, 0, stmt if isinstance(stmt, tuple) else (stmt,))
    return "\n".join(writer.lines)


def annotated_text(function: Function, node: Node) -> list[str]:
    """Lines of a function around ``node``, which is underlined; for the excerpts of errors.

    A node that has no line of its own (an expression) is shown at the first line that uses it.
    """
    writer = _Writer()
    _write_function(writer, function)
    place = writer.places.get(id(node))
    if place is None and isinstance(node, Expr | Buffer):
        text = str(node) if isinstance(node, Expr) else node.name
        place = _find(writer.lines, text)
    if place is None:
        place = writer.places[id(function)]
    at, start, stop = place
    lines = list(writer.lines)
    lines.insert(at + 1, " " * start + "^" * (stop - start))
    return _clip(lines, at)


def _find(lines: list[str], text: str) -> tuple[int, int, int] | None:
    for number, line in enumerate(lines):
        start = line.find(text)
        if start >= 0:
            return number, start, start + len(text)
    return None


def _clip(lines: list[str], at: int) -> list[str]:
    """The header, the headers around the marked line and its neighbours; what is left out becomes
    ``...``.
    """
    depth = len(lines[at]) - len(lines[at].lstrip())
    kept = set(range(max(0, at - _CONTEXT), min(len(lines), at + 2 + _CONTEXT)))
    for number in range(at, -1, -1):
        indent = len(lines[number]) - len(lines[number].lstrip())
        if indent < depth or number < 2:
            kept.add(number)
            depth = min(depth, indent)
    result: list[str] = []
    for number, line in enumerate(lines):
        if number in kept:
            result.append(line)
        elif number - 1 in kept:
            result.append(" " * (len(line) - len(line.lstrip())) + "...")
    return result


# ---- Constants and types


def constant_text(constant: Constant) -> str:
    """A constant's declaration, with its elements when they are few."""
    shape = str(constant.type)
    if constant.array.size > SMALL_CONSTANT:
        return f"constant({shape})"
    return f"constant({shape}, {_data_text(constant.array)})"


def _data_text(array: np.ndarray) -> str:
    if array.ndim:
        return f"[{', '.join(_data_text(row) for row in array)}]"
    if array.dtype.kind in "biu":
        return repr(array.item())
    number = float(array)
    return repr(number) if math.isfinite(number) else f'float("{number}")'


# ---- Functions


def _write_function(writer: _Writer, function: Function) -> None:
    if isinstance(function, GraphFunction):
        _write_graph(writer, function)
    else:
        _write_tensor(writer, function)


def _write_tensor(writer: _Writer, function: TensorFunction) -> None:
    outputs = frozenset(function.output_buffers)
    starts: dict[Buffer | Var, Buffer] = {
        b: x for b in outputs if (x := function.updated_from(b)) is not None
    }
    params = ", ".join(_param_text(p, p in outputs, starts.get(p)) for p in function.params)
    writer.line(0, "@tensor.function")
    writer.line(0, f"def {function.name}({params}):", function)
    _write_assumes(writer, function)
    if function.body or not function.assumes:
        _write_body(writer, 1, function.body)


def _param_text(param: Buffer | Var, output: bool, start: Buffer | None) -> str:
    if isinstance(param, Var):
        return f"{param.name}: {param.dtype}"
    kind = "Output" if output else "Buffer"
    scope = "" if param.scope == "global" else f', "{param.scope}"'
    update = "" if start is None else f", updates({start.name})"
    return f"{param.name}: {kind}[{tuple_text(param.shape)}, {param.dtype}{scope}{update}]"


def _write_assumes(writer: _Writer, function: Function) -> None:
    for fact in function.assumes:
        writer.line(1, f"assume({fact})", fact)


def _write_graph(writer: _Writer, function: GraphFunction) -> None:
    params = ", ".join(f"{p.name}: {p.type}" for p in function.params)
    results = ", ".join(str(r.type) for r in function.results)
    results = f"({results},)" if len(function.results) == 1 else f"({results})"
    said = (
        ("inputs", function.inputs),
        ("outputs", function.outputs),
        ("donated", function.donated),
    )
    names = [f"{key}={found!r}" for key, found in said if found]
    writer.line(0, f"@graph.function({', '.join(names)})" if names else "@graph.function")
    writer.line(0, f"def {function.name}({params}) -> {results}:", function)
    _write_assumes(writer, function)
    for binding in function.body:
        writer.line(1, binding_text(binding), binding)
    names = ", ".join(atom_text(r) for r in function.results)
    writer.line(1, f"return {names or '()'}")


def binding_text(binding: Binding) -> str:
    """One line of a graph function. Types of results are written where ``infer`` says others."""
    names = ", ".join(v.name for v in binding.outputs)
    call = op_text(binding.op, tuple(atom_text(a) for a in binding.args))
    types = tuple(v.type for v in binding.outputs)
    if inferred_types(binding) == types:
        return f"{names} = {call}"
    if len(types) == 1:
        return f"{names}: {types[0]} = {call}"
    return f"{names} = typed({call}, {', '.join(map(str, types))})"


def inferred_types(binding: Binding) -> tuple[Type, ...] | None:
    """What ``infer`` says of a binding's results; ``None`` when it refuses the operands."""
    try:
        inferred = binding.op.infer(*(a.type for a in binding.args))  # type: ignore[arg-type]
    except (TreadleError, InternalError, LookupError, TypeError, ValueError, AttributeError):
        # The text of a wrong program is wanted too: the verifier says what is wrong.
        return None
    return inferred if isinstance(inferred, tuple) else (inferred,)


def atom_text(atom: Atom) -> str:
    """An operand in a graph function."""
    if isinstance(atom, Value):
        return atom.name
    if isinstance(atom, ConstantRef):
        return f"constants.{atom.name}"
    if isinstance(atom, ShapeLiteral):
        return f"shape({', '.join(map(str, atom.dims))})"
    return _literal_text(atom)


def _literal_text(atom: Literal) -> str:
    text = str(atom.value)
    if not isinstance(atom.value, Const):
        return f"literal({text})"
    bare = text.lstrip("-").isdecimal()
    return f"{atom.value.dtype}({text})" if bare else text


def op_text(op: Op, args: tuple[str, ...] = ()) -> str:
    """An operation applied to operands; fields equal to their defaults are left out."""
    cls = type(op)
    parts = list(args)
    for declared in op_fields(cls):
        value = getattr(op, declared.name)
        if same_value(value, default_of(declared)):
            continue
        text = field_text(cls, declared.name, value)
        if isinstance(op, Call | CallTensor | CallLibrary) and declared.name == "function":
            parts.insert(0, text)
        else:
            parts.append(f"{declared.name}={text}")
    return f"{cls.op_name()}({', '.join(parts)})"


# ---- Statements


def _write_body(writer: _Writer, depth: int, body: tuple[Stmt, ...]) -> None:
    if not body:
        writer.line(depth, "pass")
    for stmt in body:
        _WRITERS[type(stmt)](writer, depth, stmt)


def _write_for(writer: _Writer, depth: int, stmt: For) -> None:
    thread = stmt.kind in THREAD_AXES
    axis = f', "{stmt.kind}"' if thread else ""
    arguments = f"{stmt.extent}{axis}{_annotations_text(stmt.annotations)}"
    run = "thread" if thread else _LOOPS[stmt.kind]
    writer.line(depth, f"for {stmt.var.name} in {run}({arguments}):", stmt)
    _write_body(writer, depth + 1, stmt.body)


def _annotations_text(annotations: Annotations) -> str:
    return "".join(f", {name}={_annotation_text(value)}" for name, value in annotations)


def _annotation_text(value: Annotation) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)


def quoted(text: str) -> str:
    """A text as Python writes it on one line, in double quotes."""
    escaped = text.encode("unicode_escape").decode().replace('"', '\\"')
    return f'"{escaped}"'


def _write_block(writer: _Writer, depth: int, stmt: Block) -> None:
    writer.line(depth, f'with block("{stmt.name}"{_annotations_text(stmt.annotations)}):', stmt)
    for axis in stmt.iters:
        text = f"{axis.var.name} = {_iter_kind(axis)}({axis.extent}, {axis.binding})"
        writer.line(depth + 1, text, axis)
    if stmt.where is not None:
        writer.line(depth + 1, f"where({stmt.where})", stmt.where)
    if stmt.init:
        writer.line(depth + 1, "with init():")
        _write_body(writer, depth + 2, stmt.init)
    if stmt.body or not (stmt.iters or stmt.init or stmt.where is not None):
        _write_body(writer, depth + 1, stmt.body)


def _iter_kind(axis: IterVar) -> str:
    return "spatial" if axis.kind == "spatial" else "reduction"


def _write_store(writer: _Writer, depth: int, stmt: Store) -> None:
    # The target prints as a load of the same element does.
    target = Load(stmt.buffer, stmt.indices).to_text()
    if stmt.mask is None:
        writer.line(depth, f"{target} = {stmt.value}", stmt)
    else:
        writer.line(depth, f"store({target}, {stmt.value}, mask={stmt.mask})", stmt)


def _write_if(writer: _Writer, depth: int, stmt: If) -> None:
    writer.line(depth, f"if {stmt.condition}:", stmt)
    _write_body(writer, depth + 1, stmt.body)
    if stmt.orelse:
        writer.line(depth, "else:")
        _write_body(writer, depth + 1, stmt.orelse)


def _write_allocate(writer: _Writer, depth: int, stmt: Allocate) -> None:
    buffer = stmt.buffer
    scope = "" if buffer.scope == "global" else f', scope="{buffer.scope}"'
    text = f"{buffer.name} = alloc({tuple_text(buffer.shape)}, {buffer.dtype}{scope})"
    writer.line(depth, text, stmt)


def _write_let(writer: _Writer, depth: int, stmt: Let) -> None:
    writer.line(depth, f"{stmt.var.name} = let({stmt.value})", stmt)


def _write_intrinsic(writer: _Writer, depth: int, stmt: Intrinsic) -> None:
    writer.line(depth, f"{stmt.name}({', '.join(map(str, stmt.args))})", stmt)


_WRITERS: dict[type, Callable[..., None]] = {
    For: _write_for,
    Block: _write_block,
    Store: _write_store,
    If: _write_if,
    Allocate: _write_allocate,
    Let: _write_let,
    Intrinsic: _write_intrinsic,
}
