"""From a graph of ATen operators to graph functions of a module."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import fx
from torch._ops import HigherOrderOperator, OpOverload

from treadle.base.errors import InternalError, ModelImportError, TypeMismatch
from treadle.base.span import Span
from treadle.expr.bounds import Facts, prove
from treadle.expr.dtype import i64
from treadle.expr.scalar import Apply, Const, Expr, Var, eq, variables
from treadle.frontend.torch.context import (
    Context,
    Converted,
    Unsupported,
    tensor_type,
)
from treadle.frontend.torch.converters import CONVERTERS
from treadle.frontend.torch.dtypes import from_torch, to_numpy
from treadle.frontend.torch.fallback import Library, library_function, operands_of
from treadle.frontend.torch.functional import functional_name
from treadle.frontend.torch.spans import span_of
from treadle.frontend.torch.symbols import SYMBOLIC, Symbols, UnknownSymbol
from treadle.ir.analysis import type_exprs
from treadle.ir.calls import AssertTrue, BindSymbol, CallLibrary, Cond, MatchCast, WhileLoop
from treadle.ir.graph import Binding, GraphFunction, ShapeLiteral, Value
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.module import Constant, Module
from treadle.ir.types import ShapeType, TensorType
from treadle.ops._shapes import same_dims

# Arguments that say nothing of values: where and how a tensor is stored.
_IGNORED = frozenset(
    {"layout", "device", "pin_memory", "memory_format", "non_blocking", "copy", "generator", "out"}
)
# Nodes that check what holds once the program was exported, or guide PyTorch's own compiler.
_SKIPPED = frozenset(
    {
        "aten._assert_async.msg",
        "aten._assert_tensor_metadata.default",
        "aten.sym_constrain_range.default",
        "aten.sym_constrain_range_for_size.default",
        "aten._functional_assert_async.msg",
    }
)
# An element of a tensor as a number.
_ITEMS = (torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default)
_INLINED = frozenset({"wrap_with_set_grad_enabled", "wrap_with_autocast"})


class Unknown:
    """The value of a node that has a problem and no type that we know; its users are not tried."""


class _DependsOnUnknown(Exception):
    """An argument is unknown, by a problem that was noted where it arose."""


@dataclass(frozen=True)
class Problem:
    """An operator that cannot be imported: which, where and why."""

    operator: str
    node: str
    span: Span
    reason: str

    def __str__(self) -> str:
        return f"{self.operator} ({self.reason}), node '{self.node}' at {self.span}"


@dataclass(eq=False)
class Importing:
    """What the functions of one program share while they are built."""

    symbols: Symbols
    fallback: bool = False
    functions: dict[str, GraphFunction] = field(default_factory=dict[str, GraphFunction])
    constants: dict[str, Constant] = field(default_factory=dict[str, Constant])
    libraries: dict[str, Library] = field(default_factory=dict[str, Library])
    problems: list[Problem] = field(default_factory=list[Problem])

    def finish(self, main: GraphFunction) -> Module:
        """The module, or the error that lists every problem.

        Raises:
            ModelImportError: E0601.
        """
        if self.problems:
            raise _unsupported(self.problems)
        return Module({main.name: main, **self.functions}, self.constants)


def _unsupported(problems: list[Problem]) -> ModelImportError:
    names = sorted({p.operator for p in problems})
    count = f"{len(names)} operators" if len(names) > 1 else "an operator"
    return ModelImportError(
        "E0601",
        f"the model uses {count} without a translation: {', '.join(names)}",
        place=str(problems[0].span),
        notes=tuple(map(str, problems)),
        help='pass fallback="torch" to let PyTorch run them, unless shapes depend on data',
    )


def import_graph(
    graph: fx.GraphModule,
    *,
    name: str = "main",
    fallback: bool = False,
    symbols: Symbols | None = None,
) -> tuple[Module, Mapping[str, Library]]:
    """A functional graph of ATen operators on fake tensors, as AOTAutograd gives, as a module.

    Every tensor among the placeholders becomes a parameter. So does a symbolic integer that is no
    tensor's dimension, as a ``Shape`` of one. Results are tensors, and symbolic integers as tensors
    of rank 0; the rest is left out.

    Raises:
        ModelImportError: E0601 for operators without a translation.
    """
    importing = Importing(symbols or Symbols(), fallback)
    translator = GraphTranslator(importing, graph, name)
    placeholders = graph.graph.find_nodes(op="placeholder")
    for node in placeholders:
        importing.symbols.introduce_all(node.meta["val"])
    # The variables of sizes are no names for values, and none is negative.
    for var in importing.symbols.known.values():
        translator.builder.fresh(var.name)
        translator.builder.assumes.append(var >= 0)
    dims = {str(d) for n in placeholders for d in getattr(n.meta["val"], "shape", ())}
    for node in placeholders:
        value = node.meta["val"]
        if isinstance(value, SYMBOLIC) and str(value) in dims:
            translator.values[node] = importing.symbols.expr(value)
        else:
            translator.parameter(node)
    results = [translator.result(r) for r in translator.translate() if is_result(r)]
    importing.constants.update(translator.builder.constants)
    return importing.finish(translator.builder.finish(*results)), importing.libraries


def is_result(value: Any) -> bool:
    """Whether the program must compute it: a tensor, or a number that depends on sizes."""
    return isinstance(value, Traced | Expr)


class GraphTranslator:
    """One fx graph, on its way to one graph function.

    The caller first gives values to the placeholders (``parameter`` or ``values``), then calls
    ``translate``.
    """

    def __init__(
        self,
        importing: Importing,
        graph: fx.GraphModule,
        name: str,
        builder: GraphBuilder | None = None,
    ) -> None:
        self.importing = importing
        self.graph = graph
        self.builder = GraphBuilder(name) if builder is None else builder
        self.values: dict[fx.Node, Any] = {}

    @property
    def symbols(self) -> Symbols:
        """The symbols of the program."""
        return self.importing.symbols

    def parameter(self, node: fx.Node) -> None:
        """Make a parameter of a tensor or a symbolic integer; other numbers are known."""
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            self.values[node] = self.builder.input(node.name, tensor_type(value, self.symbols))
        elif isinstance(value, SYMBOLIC):
            size = self.symbols.expr(value)
            self.builder.input(node.name, ShapeType((size,)))
            self.values[node] = size
        else:
            self.values[node] = value

    def translate(self) -> tuple[Any, ...]:
        """Translate every node; the values of the output node, in order."""
        for node in self.graph.graph.nodes:
            self.builder.span = span_of(node)
            if node.op == "output":
                found = node.args[0]
                outputs = found if isinstance(found, tuple | list) else (found,)
                self.builder.span = None
                return tuple(self._output(o) for o in outputs)
            if node.op == "get_attr":
                self.values[node] = self._attribute(node)
            elif node.op == "call_function":
                self.values[node] = self._translated(node)
        raise InternalError("the fx graph has no output")

    def result(self, value: Traced | Expr) -> Traced:
        """A result as a tensor."""
        if isinstance(value, Expr):
            return self.builder.literal(value, value.dtype)
        return value

    def _attribute(self, node: fx.Node) -> Any:
        found: Any = self.graph
        for part in str(node.target).split("."):
            found = getattr(found, part)
        if isinstance(found, torch.Tensor):
            return self.builder.constant(node.name, to_numpy(found.contiguous()))
        return found

    def _value(self, argument: Any) -> Any:
        """An argument of a node as converters take it."""
        if isinstance(argument, fx.Node):
            found = self.values[argument]
            if isinstance(found, Unknown):
                raise _DependsOnUnknown
            return found
        if isinstance(argument, tuple | list):
            return tuple(self._value(a) for a in argument)
        if isinstance(argument, torch.dtype):
            found = from_torch(argument)
            if found is None:
                raise Unsupported(f"there is no element type for {argument}")
            return found
        return argument

    def _output(self, argument: Any) -> Any:
        """The value of a result; an unknown one is left out, as the noted problem will be told."""
        try:
            return self._value(argument)
        except _DependsOnUnknown:
            return None

    def _translated(self, node: fx.Node) -> Any:
        """The value of a call; where there is none, a problem is noted and a stand-in returned."""
        target = node.target
        try:
            self._introduce_sizes(node)
            if target in _ITEMS:
                return self._item(node)
            if isinstance(node.meta.get("val"), SYMBOLIC):
                return _number(self.symbols.expr(node.meta["val"]))
            if target is operator.getitem:
                return self._value(node.args[0])[node.args[1]]
            if isinstance(target, HigherOrderOperator):
                return self._higher_order(node, target.name())
            name = functional_name(target) if isinstance(target, OpOverload) else str(target)
            return self._operator(node, name)
        except _DependsOnUnknown:
            return Unknown()
        except UnknownSymbol as e:
            return self._problem(node, str(e))
        except Unsupported as e:
            return self._fallback(node, str(e))
        except TypeMismatch as e:
            return self._fallback(node, e.message)

    def _introduce_sizes(self, node: fx.Node) -> None:
        """Let there be variables for the sizes that depend on what the node computes."""
        for theirs in map(str, node.meta.get("unbacked_bindings") or ()):
            if theirs in self.symbols.known:
                continue
            same = (s for s in self._equal_sizes.get(theirs, ()) if s in self.symbols.known)
            found = next(same, None)
            if found is not None:
                self.symbols.known[theirs] = self.symbols.known[found]
            else:
                self.builder.fresh(self.symbols.introduce(theirs, theirs).name)

    @cached_property
    def _equal_sizes(self) -> dict[str, list[str]]:
        """For each symbol those that the program asserts to be equal to it."""
        found: dict[str, list[str]] = {}
        for node in self.graph.graph.nodes:
            value = node.meta.get("val")
            claim: Any = value.node.expr if isinstance(value, torch.SymBool) else None
            if type(claim).__name__ == "Equality" and all(a.is_Symbol for a in claim.args):
                a, b = map(str, claim.args)
                found.setdefault(a, []).append(b)
                found.setdefault(b, []).append(a)
        return found

    def _item(self, node: fx.Node) -> Any:
        """An element as a number: of integers a symbol, of others a tensor of rank 0."""
        (x,) = (self._value(a) for a in node.args)
        value = node.meta["val"]
        if not isinstance(value, torch.SymInt):
            return x
        c = Context(self.builder, node, self.symbols)
        number = c.cast(c.reshape(x, ()), i64)
        size = self.symbols.expr(value)
        if size in _bound_here(self.builder) or not isinstance(size, Var):
            # The program asserts that it is equal to another.
            own = Var(self.builder.fresh(f"{node.name}_value"))
            c.emit(BindSymbol(own, (eq(own, size),)), number)
        else:
            is_size = _is_in_shapes(self.graph, str(value.node.expr))
            c.emit(BindSymbol(size, (size >= 0,) if is_size else ()), number)
        return size

    def _operator(self, node: fx.Node, name: str) -> Any:
        if name in _SKIPPED:
            return None
        if name == "aten._assert_scalar.default":
            self._assume(node.args[0])
            return None
        converter = CONVERTERS.get(name)
        if converter is None:
            raise Unsupported("no converter")
        context = Context(self.builder, node, self.symbols)
        return self._checked(context, converter(context, *self._arguments(node)))

    def _arguments(self, node: fx.Node) -> list[Any]:
        """The arguments in the order of the operator's schema, defaults filled in."""
        target = node.target
        assert isinstance(target, OpOverload)
        found: list[Any] = []
        schema = target._schema  # pyright: ignore[reportPrivateUsage]
        for position, argument in enumerate(schema.arguments):
            if argument.name in _IGNORED:
                continue
            if position < len(node.args):
                value = node.args[position]
            else:
                default = argument.default_value if argument.has_default_value() else None
                value = node.kwargs.get(argument.name, default)
            # A schema says a dtype as a number when it is a default; there is none but None.
            found.append(self._value(value))
        return found

    def _assume(self, claim: Any) -> None:
        """What the program asserts of sizes becomes a fact, unless it follows from others."""
        value = self._value(claim)
        if not isinstance(value, Expr):
            return
        parts = value.args if isinstance(value, Apply) and value.fn == "and" else (value,)
        for part in parts:
            if self.symbols.late.isdisjoint(variables(part)):
                if not prove(part, Facts.of(self.builder.assumes)):
                    self.builder.assumes.append(part)
            elif not isinstance(part, Const):
                message = f"{part} does not hold of sizes that depend on data"
                self.builder.emit(AssertTrue(message), self.builder.literal(part, part.dtype))

    def _checked(self, c: Context, result: Converted) -> Traced | tuple[Traced | None, ...] | None:
        """The result under the node's name, with the types that PyTorch has for it."""
        results = result if isinstance(result, tuple) else (result,)
        expected = [v for v in c.values if isinstance(v, torch.Tensor)]
        fitted = list(results)
        for k, (found, value) in enumerate(zip(results, expected, strict=False)):
            if found is None:
                _refuse_use(c.node, k)
            else:
                fitted[k] = self._fitted(c, found, tensor_type(value, self.symbols))
        named = _named(self.builder, c.node.name, tuple(fitted))
        return named if isinstance(result, tuple) else named[0]

    def _fitted(self, c: Context, found: Traced, expected: TensorType) -> Traced:
        if found.dtype is not expected.dtype or found.ndim != expected.ndim:
            raise InternalError(
                f"the converter of {c.node.target} gives {found.type}; PyTorch says {expected}"
            )
        if found.type.shape is not None and same_dims(found.shape, expected.dims):
            return found
        # Equal for the sizes that PyTorch allows, by facts that it kept to itself.
        return c.emit(MatchCast(expected), found)

    def _problem(self, node: fx.Node, reason: str) -> Any:
        self.importing.problems.append(Problem(str(node.target), node.name, span_of(node), reason))
        return self._stand_in(node.meta.get("val"))

    def _stand_in(self, value: Any) -> Any:
        """Something to go on with after a problem, so that one error tells all."""
        if isinstance(value, tuple | list):
            return tuple(self._stand_in(v) for v in value)
        if not isinstance(value, torch.Tensor):
            return Unknown()
        try:
            return Traced(self.builder, Value("unknown", tensor_type(value, self.symbols)))
        except (Unsupported, UnknownSymbol):
            return Unknown()

    def _fallback(self, node: fx.Node, reason: str) -> Any:
        """Leave a node to PyTorch if the user wants that, else note the problem."""
        target = node.target
        if not self.importing.fallback or not isinstance(target, OpOverload):
            return self._problem(node, reason)
        if node.meta.get("unbacked_bindings"):
            return self._problem(node, f"{reason}, and the size of its result depends on data")
        context = Context(self.builder, node, self.symbols)
        try:
            values = [v for v in context.values if isinstance(v, torch.Tensor)]
            out = tuple(tensor_type(v, self.symbols) for v in values)
        except (UnknownSymbol, Unsupported) as e:
            return self._problem(node, str(e))
        operands, template, tree = operands_of(
            node, self._value, lambda x: context.literal(x, x.dtype)
        )
        if any(not isinstance(v, torch.Tensor) for v in context.values):
            return self._problem(node, "a result is no tensor")
        name = f"torch.{target}.{len(self.importing.libraries)}"
        self.importing.libraries[name] = library_function(target, template, tree)
        results = context.emit_all(CallLibrary(name, out), *operands)
        named = _named(self.builder, node.name, results)
        return named if isinstance(node.meta["val"], tuple | list) else named[0]

    def _higher_order(self, node: fx.Node, name: str) -> Any:
        if name in _INLINED:
            return self._inlined(node)
        context = Context(self.builder, node, self.symbols)
        expected = tuple(tensor_type(v, self.symbols) for v in context.values)
        out = self._without_new_sizes(node, expected)
        if name == "cond":
            condition, then, orelse, operands = (self._value(a) for a in node.args)
            pairs = [self._sub_function(f, f"{node.name}_{w}") for f, w in _branches(then, orelse)]
            op = Cond(pairs[0], pairs[1], out)
            arguments = (condition, *operands)
        elif name == "while_loop":
            test, body, carried, rest = (self._value(a) for a in node.args)
            names = [
                self._sub_function(test, f"{node.name}_test"),
                self._sub_function(body, f"{node.name}_body"),
            ]
            op = WhileLoop(names[0], names[1], len(carried), out)
            arguments = (*carried, *rest)
        else:
            raise Unsupported("no converter")
        results = context.emit_all(op, *(self._operand(context, a) for a in arguments))
        fitted = tuple(
            r if t is e else context.emit(MatchCast(e), r)
            for r, t, e in zip(results, out, expected, strict=True)
        )
        return _named(self.builder, node.name, fitted)

    def _without_new_sizes(
        self, node: fx.Node, types: tuple[TensorType, ...]
    ) -> tuple[TensorType, ...]:
        """The types of a call's results; only the rank where PyTorch has a new symbol for a size,
        which the functions that are called tell.
        """
        new = {self.symbols.known[str(s)] for s in node.meta.get("unbacked_bindings") or ()}
        return tuple(
            t if new.isdisjoint(variables(*t.dims)) else TensorType(None, t.ndim, t.dtype)
            for t in types
        )

    def _operand(self, c: Context, x: Any) -> Traced:
        if isinstance(x, Traced):
            return x
        if isinstance(x, Expr):
            return Traced(self.builder, ShapeLiteral((x,)))
        raise Unsupported(f"an operand is neither a tensor nor a size: {x!r}")

    def _sub_function(self, graph: fx.GraphModule, name: str) -> str:
        unique = self.builder.fresh(name)
        inner = GraphTranslator(self.importing, graph, unique)
        for node in graph.graph.find_nodes(op="placeholder"):
            inner.parameter(node)
        results = inner.translate()
        if any(not isinstance(r, Traced) for r in results):
            raise Unsupported("a branch returns something that is no tensor")
        if inner.builder.constants:
            raise Unsupported("a branch holds a tensor of its own; pass it as an operand")
        self.importing.functions[unique] = inner.builder.finish(*results)
        return unique

    def _inlined(self, node: fx.Node) -> Any:
        """A part of the graph under a mode (gradients, autocast) that is decided by now."""
        arguments = [self._value(a) for a in node.args]
        position = next(k for k, a in enumerate(arguments) if isinstance(a, fx.GraphModule))
        graph = arguments[position]
        inner = GraphTranslator(self.importing, graph, self.builder.name, self.builder)
        placeholders = graph.graph.find_nodes(op="placeholder")
        inner.values.update(zip(placeholders, arguments[position + 1 :], strict=True))
        return inner.translate()


def _bound_here(builder: GraphBuilder) -> set[Var]:
    """The symbols that the function under construction has by now."""
    found = {v for p in builder.params for v in variables(*type_exprs(p.type))}
    for b in builder.body:
        found.update(variables(*(e for v in b.outputs for e in type_exprs(v.type))))
        if isinstance(b.op, BindSymbol):
            found.add(b.op.variable)
    return found


def _is_in_shapes(graph: fx.GraphModule, symbol: str) -> bool:
    """Whether a tensor of the program has a dimension with a symbol."""
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        for v in value if isinstance(value, tuple | list) else (value,):
            if isinstance(v, torch.Tensor) and any(
                isinstance(d, torch.SymInt) and symbol in map(str, d.node.expr.free_symbols)
                for d in v.shape
            ):
                return True
    return False


def _refuse_use(node: fx.Node, index: int) -> None:
    """A converter may leave out a result only if nobody takes it."""
    if any(u.target is operator.getitem and u.args[1] == index for u in node.users):
        raise Unsupported(f"its result {index} is not computed")


def _branches(
    then: fx.GraphModule, orelse: fx.GraphModule
) -> tuple[tuple[fx.GraphModule, str], ...]:
    return (then, "then"), (orelse, "orelse")


def _number(x: Expr) -> Expr | int | float | bool:
    """A Python number where an expression is a constant."""
    return x.value if isinstance(x, Const) else x


def _named(
    builder: GraphBuilder, name: str, results: tuple[Traced | None, ...]
) -> tuple[Traced | None, ...]:
    """Give the node's name to the results, if it is the last binding that defines them."""
    if not builder.body:
        return results
    last = builder.body[-1]
    mine = [r for r in results if r is not None and r.atom in last.outputs]
    if not mine or not last.outputs[0].name.startswith(f"{name}_"):
        return results
    renamed = {old: Value(builder.fresh(name), old.type) for old in last.outputs}
    builder.body[-1] = Binding(tuple(renamed.values()), last.op, last.args, last.span)
    return tuple(
        Traced(builder, renamed[r.atom]) if isinstance(r, Traced) and r.atom in renamed else r  # type: ignore[index]
        for r in results
    )
