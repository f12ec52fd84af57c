"""Read graph functions: types of parameters, then one operation per line."""

import ast
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

from treadle.base.errors import InternalError, TreadleError
from treadle.expr.dtype import parse_dtype
from treadle.expr.scalar import Const, Expr, const
from treadle.ir.calls import CALLS, Call, CallLibrary, CallTensor
from treadle.ir.deduce import call_types
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Literal, ShapeLiteral, Value
from treadle.ir.module import Constant, Function
from treadle.ir.op import Op
from treadle.ir.op_fields import FUNCTION_FIELDS, default_of, holds_expressions, op_fields
from treadle.ir.parser.expressions import Scope, is_type, number, type_of, typed_constant
from treadle.ir.parser.source import Source, call_name
from treadle.ir.signature import Fit, fit
from treadle.ir.types import Type

_NAMED = (Call, CallTensor, CallLibrary)


def read_graph_function(
    source: Source,
    node: ast.FunctionDef,
    ops: Mapping[str, type[Op]],
    constants: Mapping[str, Constant],
    functions: Mapping[str, Function],
) -> GraphFunction:
    """The graph function that a definition describes; types of results are inferred line by line,
    those of calls from the signatures of ``functions``, which stand before it.

    Raises:
        ParseError: E0002 to E0007 at the place of the mistake.
        TypeMismatch: what an operation says of its operands, at its line.
    """
    return _Reader(source, ops, constants, functions).function(node)


@dataclass(eq=False)
class _Reader:
    source: Source
    ops: Mapping[str, type[Op]]
    constants: Mapping[str, Constant]
    functions: Mapping[str, Function]
    values: dict[str, Value] = field(default_factory=dict[str, Value])

    def __post_init__(self) -> None:
        self.scope = Scope(self.source, open=True)

    def function(self, node: ast.FunctionDef) -> GraphFunction:
        params = tuple(self._param(a) for a in node.args.args)
        assumes: list[Expr] = []
        body: list[Binding] = []
        results: tuple[Atom, ...] | None = None
        for stmt in node.body:
            if results is not None:
                raise self.source.error("E0002", "nothing stands after return", stmt)
            if isinstance(stmt, ast.Return):
                results = self._results(stmt, node)
            elif isinstance(stmt, ast.Expr) and call_name(stmt.value) == "assume":
                assumes.append(self._assumption(stmt.value))
            else:
                body.append(self._binding(stmt))
        if results is None:
            raise self.source.error(
                "E0002", f"{node.name} returns nothing", node, help="end with return"
            )
        span = self.source.span(node)
        return GraphFunction(node.name, params, tuple(body), results, tuple(assumes), span)

    def _param(self, node: ast.arg) -> Value:
        return self._define(node.arg, type_of(self.scope, node.annotation, node), node)

    def _assumption(self, node: ast.expr) -> Expr:
        assert isinstance(node, ast.Call)
        if len(node.args) != 1:
            raise self.source.error("E0003", "assume takes one condition", node)
        return self.scope.expr(node.args[0])

    def _define(self, name: str, type_: Type, node: ast.AST) -> Value:
        if name in self.values:
            raise self.source.error(
                "E0006", f"'{name}' is defined twice", node, help="give this result another name"
            )
        value = self.values[name] = Value(name, type_)
        return value

    def _results(self, node: ast.Return, function: ast.FunctionDef) -> tuple[Atom, ...]:
        if node.value is None:
            raise self.source.error("E0003", "return has a value", node, help="write return x")
        items = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        atoms = tuple(self._atom(i) for i in items)
        if function.returns is not None:
            self._check_results(atoms, function.returns)
        return atoms

    def _check_results(self, atoms: tuple[Atom, ...], returns: ast.expr) -> None:
        notes = returns.elts if isinstance(returns, ast.Tuple) else [returns]
        if len(notes) != len(atoms):
            raise self.source.error(
                "E0007", f"{len(notes)} types are written for {len(atoms)} results", returns
            )
        for atom, note in zip(atoms, notes, strict=True):
            written = type_of(self.scope, note, returns)
            if fit(atom.type, written) is not Fit.SURE:
                raise self.source.error(
                    "E0007",
                    f"the result is {atom.type}, and {written} is written",
                    note,
                    help="write the type that the operations give, or assert it with match_cast",
                )

    # ---- One line

    def _binding(self, node: ast.stmt) -> Binding:
        names, call, types = self._parts(node)
        op, args = self._operation(call)
        if types is None:
            types = self._infer(op, args, call)
        if len(types) != len(names):
            raise self.source.error(
                "E0003", f"{len(types)} results are given {len(names)} names", node
            )
        outputs = tuple(self._define(n.id, t, n) for n, t in zip(names, types, strict=True))
        return Binding(outputs, op, args, self.source.span(node))

    def _parts(self, node: ast.stmt) -> tuple[list[ast.Name], ast.Call, tuple[Type, ...] | None]:
        types: tuple[Type, ...] | None = None
        if isinstance(node, ast.AnnAssign):
            target, value = node.target, node.value
            types = (type_of(self.scope, node.annotation, node),)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        else:
            raise self.source.error(
                "E0002",
                "this statement has no place in a graph function",
                node,
                help="each line is one operation: y = relu(x)",
            )
        if value is not None and call_name(value) == "typed":
            assert isinstance(value, ast.Call)
            types = tuple(type_of(self.scope, t, value) for t in value.args[1:])
            value = value.args[0] if value.args else value
        items = target.elts if isinstance(target, ast.Tuple) else [target]
        names = [i for i in items if isinstance(i, ast.Name)]
        if len(names) != len(items) or not isinstance(value, ast.Call):
            raise self.source.error(
                "E0003", "a line is a name and an operation", node, help="write y = relu(x)"
            )
        return names, value, types

    def _infer(self, op: Op, args: tuple[Atom, ...], node: ast.Call) -> tuple[Type, ...]:
        try:
            inferred = op.infer(*(a.type for a in args))  # type: ignore[arg-type]
        except TreadleError as error:
            raise self.source.placed(error, node) from None
        except TypeError as error:
            message = f"{op.op_name()} does not take {len(args)} operands"
            raise self.source.error("E0003", message, node, notes=(str(error),)) from None
        return inferred if isinstance(inferred, tuple) else (inferred,)

    def _operation(self, node: ast.Call) -> tuple[Op, tuple[Atom, ...]]:
        name = call_name(node)
        cls = self.ops.get(name) if name else None
        if cls is None:
            raise self.source.unknown("operation", name or ast.unparse(node.func), self.ops, node)
        positional = list(node.args)
        values: dict[str, Any] = {}
        if issubclass(cls, _NAMED):
            function = _function_name(cls, positional[0]) if positional else None
            if function is None:
                raise self.source.error("E0003", f"{name} begins with a function's name", node)
            values["function"] = function
            positional.pop(0)
        known = [f.name for f in op_fields(cls)]
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg not in known:
                what = f"attribute of {name}"
                raise self.source.unknown(what, keyword.arg or "**", known, keyword)
            values[keyword.arg] = self._field(cls, keyword.arg, keyword.value)
        args = tuple(self._atom(a) for a in positional)
        self._add_types(cls, values, args)
        for declared in op_fields(cls):
            if declared.name not in values and default_of(declared) is MISSING:
                raise self.source.error("E0003", f"{name} needs {declared.name}=...", node)
        return self._made(cls, values, node), args

    def _add_types(self, cls: type[Op], values: dict[str, Any], args: tuple[Atom, ...]) -> None:
        """Deduce the types that a call gives, where it does not write them."""
        names = [values[f] for f in FUNCTION_FIELDS if f in values]
        if "out" in values or not issubclass(cls, CALLS) or not names:
            return
        ordered = [values[f.name] for f in op_fields(cls) if f.name in FUNCTION_FIELDS]
        given = [a.type for a in args]
        symbols, carried = values.get("symbols", ()), values.get("carried", 0)
        found = call_types(cls, ordered, self.functions, given, symbols, carried)
        if found is not None:
            values["out"] = found

    def _made(self, cls: type[Op], values: dict[str, Any], node: ast.Call) -> Op:
        try:
            return cls(**values)
        except TreadleError as error:
            raise self.source.placed(error, node) from None
        except (InternalError, TypeError, ValueError) as error:
            raise self.source.error(
                "E0003", f"{cls.op_name()} refuses these attributes: {error}", node
            ) from None

    # ---- Operands and attributes

    def _atom(self, node: ast.expr) -> Atom:
        if isinstance(node, ast.Name):
            found = self.values.get(node.id)
            if found is None:
                raise self.source.unknown("value", node.id, self.values, node)
            return found
        if isinstance(node, ast.Attribute):
            return self._constant(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return Literal(const(node.value))
        if isinstance(node, ast.Call):
            found = self._literal(node)
            if found is not None:
                return found
        raise self.source.error(
            "E0003",
            "an operand is a name, a constant or a typed number",
            node,
            help="write f32(0.5), i64(3), literal(n + 1), shape(n, 4) or constants.w;"
            " give a nested operation a line of its own",
        )

    def _constant(self, node: ast.Attribute) -> ConstantRef:
        if not isinstance(node.value, ast.Name) or node.value.id != "constants":
            raise self.source.error("E0003", "a constant is written constants.w", node)
        found = self.constants.get(node.attr)
        if found is None:
            raise self.source.unknown("constant", node.attr, self.constants, node)
        return ConstantRef(node.attr, found.type)

    def _literal(self, node: ast.Call) -> Atom | None:
        name = call_name(node) or ""
        if name == "shape":
            return ShapeLiteral(tuple(self.scope.expr(d) for d in node.args))
        if name == "literal" and len(node.args) == 1:
            return Literal(self.scope.expr(node.args[0]))
        dtype = parse_dtype(name)
        return None if dtype is None else Literal(typed_constant(self.source, dtype, node))

    def _field(self, cls: type[Op], name: str, node: ast.expr) -> Any:  # noqa: ANN401  (any field)
        if name in FUNCTION_FIELDS and isinstance(node, ast.Name):
            return node.id
        return self._field_value(node, holds_expressions(cls, name))

    def _field_value(self, node: ast.expr, expressions: bool) -> Any:  # noqa: ANN401  (any field)
        if isinstance(node, ast.Tuple):
            return tuple(self._field_value(e, expressions) for e in node.elts)
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str)):
            return node.value
        if is_type(node):
            return type_of(self.scope, node, node)
        if isinstance(node, ast.Name) and parse_dtype(node.id) is not None:
            return parse_dtype(node.id)
        if isinstance(node, ast.Call) and call_name(node) == "float" and len(node.args) == 1:
            return number(self.source, node.args[0])
        plain = number(self.source, node)
        if plain is None:
            return self.scope.expr(node)
        return Const(plain, const(plain).dtype) if expressions else plain


def _function_name(cls: type[Op], node: ast.expr) -> str | None:
    """The function that a call names; one of a library may be written ``library.function``."""
    if isinstance(node, ast.Name):
        return node.id
    if issubclass(cls, CallLibrary) and isinstance(node, ast.Attribute):
        library = node.value
        return f"{library.id}.{node.attr}" if isinstance(library, ast.Name) else None
    return None
