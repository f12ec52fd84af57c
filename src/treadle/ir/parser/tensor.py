"""Read tensor functions: parameters, then statements."""

import ast
from collections.abc import Callable
from typing import TypeVar

from treadle.expr.dtype import DType, parse_dtype
from treadle.expr.scalar import Expr, Var, variables
from treadle.ir.parser.expressions import Scope, dims_of, dtype_of, element
from treadle.ir.parser.source import Source, call_name, keywords
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
    IterKind,
    IterVar,
    Let,
    Load,
    LoopKind,
    Stmt,
    Store,
    TensorFunction,
    ThreadAxis,
)
from treadle.ir.tensor import Scope as MemoryScope

T = TypeVar("T", Buffer, Var)

_LOOPS: dict[str, LoopKind] = {
    "range": "serial",
    "parallel": "parallel",
    "vectorized": "vectorized",
    "unrolled": "unrolled",
}
_THREADS: dict[str, ThreadAxis] = {axis: axis for axis in THREAD_AXES}
_AXES: dict[str, IterKind] = {"spatial": "spatial", "reduction": "reduce"}
_SCOPES: dict[str, MemoryScope] = {"global": "global", "stack": "stack", "register": "register"}
_PARAMS = "write Buffer[(n, 64), f32], Output[(n,), f32], or i64"


def read_tensor_function(source: Source, node: ast.FunctionDef) -> TensorFunction:
    """The tensor function that a definition describes.

    Raises:
        ParseError: E0002 to E0006 at the place of the mistake.
    """
    reader = _Reader(source)
    params, outputs = reader.params(node)
    body = list(node.body)
    assumes: list[Expr] = []
    while body and (fact := _assumption(body[0])) is not None:
        assumes.append(reader.scope.expr(fact))
        body.pop(0)
    stmts = reader.body(body)
    span = source.span(node)
    updates = tuple(reader.updates)
    return TensorFunction(node.name, params, outputs, stmts, tuple(assumes), span, updates)


def _without_update(parts: list[ast.expr]) -> list[ast.expr]:
    """What a parameter's type says, without what it updates."""
    return [p for p in parts if call_name(p) != "updates"]


def _assumption(node: ast.stmt) -> ast.expr | None:
    if isinstance(node, ast.Expr) and call_name(node.value) == "assume":
        assert isinstance(node.value, ast.Call)
        if len(node.value.args) == 1:
            return node.value.args[0]
    return None


class _Reader:
    """Reads the statements of one function; a name means the same from its definition on."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.scope = Scope(source)
        self.updates: list[tuple[int, int]] = []

    # ---- Parameters

    def params(self, node: ast.FunctionDef) -> tuple[tuple[Buffer | Var, ...], int]:
        arguments = node.args.args
        for argument in arguments:
            dtype = self._scalar_type(argument)
            if dtype is not None:
                self._define(Var(argument.arg, dtype), argument)
        params: list[Buffer | Var] = []
        outputs = 0
        for argument in arguments:
            scalar = self.scope.variables.get(argument.arg)
            if scalar is not None and self._scalar_type(argument) is not None:
                params.append(scalar)
                continue
            buffer, is_output = self._buffer_param(argument)
            if outputs and not is_output:
                raise self.source.error(
                    "E0003",
                    f"the input '{argument.arg}' stands after an output",
                    argument,
                    help="inputs come before outputs",
                )
            start = self._updated(argument) if is_output else None
            if start is not None:
                self.updates.append((outputs, self._number_of(start, params, outputs)))
            outputs += is_output
            params.append(buffer)
        return tuple(params), outputs

    def _scalar_type(self, argument: ast.arg) -> DType | None:
        note = argument.annotation
        return parse_dtype(note.id) if isinstance(note, ast.Name) else None

    def _buffer_param(self, argument: ast.arg) -> tuple[Buffer, bool]:
        note = argument.annotation
        if (
            not isinstance(note, ast.Subscript)
            or not isinstance(note.value, ast.Name)
            or note.value.id not in ("Buffer", "Output")
            or not isinstance(note.slice, ast.Tuple)
            or not 2 <= len(_without_update(note.slice.elts)) <= 3
        ):
            raise self.source.error(
                "E0003", f"the parameter '{argument.arg}' has no type", argument, help=_PARAMS
            )
        shape, dtype, *scope = _without_update(note.slice.elts)
        dims = self._new_symbols(shape)
        memory = self._memory_scope(scope[0]) if scope else "global"
        buffer = Buffer(argument.arg, dims, dtype_of(self.source, dtype), memory)
        self._define(buffer, argument)
        return buffer, note.value.id == "Output"

    def _updated(self, argument: ast.arg) -> ast.expr | None:
        """What an output says it updates: the name of an input."""
        note = argument.annotation
        if not isinstance(note, ast.Subscript) or not isinstance(note.slice, ast.Tuple):
            return None
        last = note.slice.elts[-1]
        if not isinstance(last, ast.Call) or call_name(last) != "updates":
            return None
        if len(last.args) != 1 or not isinstance(last.args[0], ast.Name):
            raise self.source.error("E0003", "updates takes the name of one input", last)
        return last.args[0]

    def _number_of(self, node: ast.expr, params: list[Buffer | Var], outputs: int) -> int:
        """Which input a name is; the last ``outputs`` of ``params`` are none."""
        inputs = [p.name for p in params[: len(params) - outputs] if isinstance(p, Buffer)]
        name = node.id if isinstance(node, ast.Name) else ""
        if name not in inputs:
            raise self.source.unknown("input", name, inputs, node)
        return inputs.index(name)

    def _new_symbols(self, node: ast.expr) -> tuple[Expr, ...]:
        """The shape of a parameter; names that mean nothing yet become symbols."""
        inner = Scope(self.source, self.scope.variables, self.scope.buffers, open=True)
        dims = dims_of(inner, node)
        for symbol in variables(*dims):
            self.scope.variables.setdefault(symbol.name, symbol)
        return dims

    def _memory_scope(self, node: ast.expr) -> MemoryScope:
        name = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(name, str) or name not in _SCOPES:
            raise self.source.unknown("scope", str(name), _SCOPES, node)
        return _SCOPES[name]

    # ---- Statements

    def body(self, nodes: list[ast.stmt]) -> tuple[Stmt, ...]:
        return tuple(s for node in nodes if (s := self._statement(node)) is not None)

    def _statement(self, node: ast.stmt) -> Stmt | None:
        if isinstance(node, ast.Pass):
            return None
        reader = self._STATEMENTS.get(type(node))
        if reader is None:
            raise self.source.error(
                "E0002",
                "this statement has no place in a tensor function",
                node,
                help="it has loops, blocks, stores, if, let, alloc and intrinsics",
            )
        return reader(self, node)

    def _for(self, node: ast.For) -> For:
        kind = self._loop_kind(node.iter)
        if kind is None or not isinstance(node.target, ast.Name):
            raise self.source.error(
                "E0003",
                "a loop runs over one name",
                node.iter,
                help=f"write for i in range(n): or {', '.join(list(_LOOPS)[1:])}, thread",
            )
        assert isinstance(node.iter, ast.Call)
        extent = self._arguments(node.iter, 1 + (kind in THREAD_AXES), annotated=True)[0]
        noted = self._annotations(node.iter)
        var = self._define(Var(node.target.id), node.target)
        extent, body = self.scope.expr(extent), self.body(node.body)
        return For(var, extent, body, kind, self.source.span(node), noted)

    def _loop_kind(self, node: ast.expr) -> LoopKind | None:
        name = call_name(node)
        if name != "thread" or not isinstance(node, ast.Call) or len(node.args) != 2:
            return _LOOPS.get(name or "")
        found = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        axis = _THREADS.get(found) if isinstance(found, str) else None
        if axis is None:
            raise self.source.unknown("thread axis", str(found), THREAD_AXES, node.args[1])
        return axis

    def _annotations(self, node: ast.Call) -> Annotations:
        """What the keywords of a loop's or block's head say, by name."""
        found: dict[str, Annotation] = {}
        for keyword in node.keywords:
            try:
                value = ast.literal_eval(keyword.value)
            except ValueError:
                value = None
            if keyword.arg is None or not isinstance(value, Annotation):
                raise self.source.error(
                    "E0003",
                    "an annotation is a name and a number, a truth value or a text",
                    keyword,
                    help='write range(n, hint=4) or block("Y", hint="near")',
                )
            found[keyword.arg] = value
        return tuple(sorted(found.items()))

    def _with(self, node: ast.With) -> Block:
        (item, *more) = node.items
        if more or call_name(item.context_expr) != "block":
            raise self.source.error(
                "E0003", "a block was expected", item.context_expr, help='write with block("name"):'
            )
        assert isinstance(item.context_expr, ast.Call)
        (name,) = self._arguments(item.context_expr, 1, annotated=True)
        noted = self._annotations(item.context_expr)
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            raise self.source.error("E0003", "a block's name is in quotes", name)
        rest = list(node.body)
        axes: list[IterVar] = []
        while rest and (axis := self._axis(rest[0])) is not None:
            axes.append(axis)
            rest.pop(0)
        where = None
        if rest and isinstance(rest[0], ast.Expr) and call_name(rest[0].value) == "where":
            (condition,) = self._arguments(rest[0].value, 1)
            where = self.scope.expr(condition)
            rest.pop(0)
        init: tuple[Stmt, ...] = ()
        if rest and isinstance(rest[0], ast.With) and _is_init(rest[0]):
            init = self.body(rest[0].body)
            rest.pop(0)
        body = self.body(rest)
        return Block(name.value, tuple(axes), body, init, where, self.source.span(node), noted)

    def _axis(self, node: ast.stmt) -> IterVar | None:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            return None
        kind = _AXES.get(call_name(node.value) or "")
        if kind is None:
            return None
        extent, binding = (self.scope.expr(a) for a in self._arguments(node.value, 2))
        target = node.targets[0]
        return IterVar(self._define(Var(target.id), target), extent, kind, binding)

    def _assign(self, node: ast.Assign) -> Stmt:
        if len(node.targets) != 1:
            raise self.source.error("E0003", "one name or element is assigned to", node)
        (target,) = node.targets
        if not isinstance(target, ast.Name):
            buffer, indices = element(self.scope, target)
            value = self.scope.expr(node.value, buffer.dtype)
            return Store(buffer, indices, value, None, self.source.span(node))
        kind = call_name(node.value)
        if kind == "alloc":
            return self._alloc(target, node)
        if kind == "let":
            (value,) = self._arguments(node.value, 1)
            found = self.scope.expr(value)
            var = self._define(Var(target.id, found.dtype), target)
            return Let(var, found, self.source.span(node))
        if kind in _AXES:
            raise self.source.error("E0002", "an axis stands at the beginning of a block", node)
        raise self.source.error(
            "E0003",
            f"'{target.id}' is a name, and only elements are assigned to",
            node,
            help=f"write {target.id} = let(...)",
        )

    def _alloc(self, target: ast.Name, node: ast.Assign) -> Allocate:
        assert isinstance(node.value, ast.Call)
        given = keywords(self.source, node.value, ("scope",))
        if len(node.value.args) != 2:
            raise self.source.error("E0003", "alloc takes a shape and an element type", node.value)
        shape, dtype = node.value.args
        memory = self._memory_scope(given["scope"]) if "scope" in given else "global"
        dims = dims_of(self.scope, shape)
        buffer = Buffer(target.id, dims, dtype_of(self.source, dtype), memory)
        self._define(buffer, target)
        return Allocate(buffer, self.source.span(node))

    def _aug_assign(self, node: ast.AugAssign) -> Store:
        """``Y[i] += x`` is ``Y[i] = Y[i] + x``."""
        buffer, indices = element(self.scope, node.target)
        assert isinstance(node.target, ast.Subscript)
        loaded = ast.copy_location(ast.Subscript(node.target.value, node.target.slice), node)
        combined = ast.copy_location(ast.BinOp(loaded, node.op, node.value), node)
        value = self.scope.expr(combined, buffer.dtype)
        return Store(buffer, indices, value, None, self.source.span(node))

    def _if(self, node: ast.If) -> If:
        condition = self.scope.expr(node.test)
        return If(condition, self.body(node.body), self.body(node.orelse), self.source.span(node))

    def _call(self, node: ast.Expr) -> Stmt:
        name = call_name(node.value)
        if name is None:
            raise self.source.error("E0002", "a value alone has no effect", node)
        assert isinstance(node.value, ast.Call)
        if name == "store":
            return self._masked_store(node.value)
        if name in ("where", "assume"):
            raise self.source.error(
                "E0002",
                f"{name} has another place",
                node,
                help="assume stands first in a function, where after the axes of a block",
            )
        args = tuple(self.scope.expr(a) for a in node.value.args)
        if node.value.keywords:
            raise self.source.error("E0003", f"{name} takes no keywords", node)
        return Intrinsic(name, args, self.source.span(node))

    def _masked_store(self, node: ast.Call) -> Store:
        given = keywords(self.source, node, ("mask",))
        if len(node.args) != 2:
            raise self.source.error(
                "E0003", "store takes an element and a value: store(X[i], x, mask=m)", node
            )
        buffer, indices = element(self.scope, node.args[0])
        dtype = Load(buffer, indices).dtype
        value = self.scope.expr(node.args[1], dtype)
        mask = self.scope.expr(given["mask"]) if "mask" in given else None
        return Store(buffer, indices, value, mask, self.source.span(node))

    def _arguments(self, node: ast.expr, count: int, annotated: bool = False) -> list[ast.expr]:
        assert isinstance(node, ast.Call)
        if len(node.args) != count or (node.keywords and not annotated):
            raise self.source.error(
                "E0003", f"{call_name(node)} takes {count} argument{'s' * (count > 1)}", node
            )
        return node.args

    def _define(self, what: T, node: ast.AST) -> T:
        if what.name in self.scope.variables or what.name in self.scope.buffers:
            raise self.source.error(
                "E0006",
                f"'{what.name}' is defined twice",
                node,
                help="names are unique within a function",
            )
        if isinstance(what, Buffer):
            self.scope.buffers[what.name] = what
        else:
            self.scope.variables[what.name] = what
        return what

    _STATEMENTS: dict[type[ast.stmt], Callable[..., Stmt]] = {  # noqa: RUF012  (a constant table)
        ast.For: _for,
        ast.With: _with,
        ast.Assign: _assign,
        ast.AugAssign: _aug_assign,
        ast.If: _if,
        ast.Expr: _call,
    }


def _is_init(node: ast.With) -> bool:
    return len(node.items) == 1 and call_name(node.items[0].context_expr) == "init"
