"""Rules of graph functions: names, symbols, constants, calls and types."""

from collections.abc import Iterable

from treadle.base.errors import InternalError, TreadleError
from treadle.expr.scalar import Expr, Var, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import atom_exprs, type_exprs
from treadle.ir.calls import BindSymbol, Call, CallTensor, Cond, MatchCast, WhileLoop
from treadle.ir.graph import Binding, ConstantRef, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.op import Op
from treadle.ir.op_fields import op_fields
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import ShapeType, TensorType, Type
from treadle.ir.verify.report import refusal
from treadle.ir.verify.tensor import is_name


def check_names(function: GraphFunction, module: Module) -> None:
    """Each name is defined once, and before its use."""
    seen: dict[str, Value] = {}
    for param in function.params:
        _define(function, function, param, seen)
    for binding in function.body:
        for arg in binding.args:
            if isinstance(arg, Value) and seen.get(arg.name) is not arg:
                raise _undefined(function, binding, arg)
        for value in binding.outputs:
            _define(function, binding, value, seen)
    for result in function.results:
        if isinstance(result, Value) and seen.get(result.name) is not result:
            raise _undefined(function, function, result)
    _check_callers_names(function, "inputs", function.inputs, len(function.params))
    _check_callers_names(function, "outputs", function.outputs, len(function.results))
    _check_donated(function)


def _check_donated(function: GraphFunction) -> None:
    results = [k for k, _ in function.donated]
    params = [j for _, j in function.donated]
    if len(set(results)) != len(results) or len(set(params)) != len(params):
        raise _bad_donation(function, f"one is donated twice: {function.donated}")
    for k, j in function.donated:
        if not 0 <= k < len(function.results) or not 0 <= j < len(function.params):
            raise _bad_donation(function, f"there is no result {k} or no parameter {j}")
        result, param = function.results[k], function.params[j]
        if result.type != param.type or not isinstance(param.type, TensorType):
            why = f"result {k} is {result.type}, and cannot lie in '{param.name}': {param.type}"
            raise _bad_donation(function, why)


def _bad_donation(function: GraphFunction, message: str) -> Exception:
    cure = "pair each donated parameter with one result of the same type"
    return refusal("E0212", message, function, function, help=cure)


def _check_callers_names(
    function: GraphFunction, what: str, names: tuple[str, ...], count: int
) -> None:
    if names and (len(names) != count or len(set(names)) != count):
        raise refusal(
            "E0204",
            f"the names of its {what} are {names}, and it has {count}",
            function,
            function,
            help=f"give each of the {what} a name of its own, or none any",
        )


def _define(
    function: GraphFunction, node: Binding | GraphFunction, value: Value, seen: dict[str, Value]
) -> None:
    if not is_name(value.name):
        raise refusal("E0204", f"'{value.name}' is no name", function, node)
    if value.name in seen:
        raise refusal(
            "E0201",
            f"'{value.name}' is defined twice",
            function,
            node,
            help="names are unique within a function",
        )
    seen[value.name] = value


def _undefined(function: GraphFunction, node: Binding | GraphFunction, value: Value) -> Exception:
    return refusal(
        "E0202",
        f"'{value.name}' is used before it is defined, or belongs to another function",
        function,
        node,
        help="bindings stand in the order in which they run",
    )


def check_symbols(function: GraphFunction, module: Module) -> None:
    """Symbols come from the parameters' types or from ``match_cast``."""
    known: set[Var] = set()
    for param in function.params:
        known.update(variables(*type_exprs(param.type)))
    for fact in function.assumes:
        _check_known(function, function, (fact,), known)
    for binding in function.body:
        if isinstance(binding.op, MatchCast):
            known.update(variables(*type_exprs(binding.op.type)))
        if isinstance(binding.op, BindSymbol):
            _bind_symbol(function, binding, binding.op, known)
        used = [e for a in binding.args for e in atom_exprs(a)]
        used += [e for v in binding.outputs for e in type_exprs(v.type)]
        used += field_exprs(binding.op)
        _check_known(function, binding, used, known)
    for result in function.results:
        _check_known(function, function, atom_exprs(result), known)


def _bind_symbol(
    function: GraphFunction, binding: Binding, op: BindSymbol, known: set[Var]
) -> None:
    if op.variable in known:
        raise refusal("E0201", f"the symbol '{op.symbol}' is bound twice", function, binding)
    known.add(op.variable)


def _check_known(
    function: GraphFunction,
    node: Binding | GraphFunction,
    exprs: Iterable[Expr],
    known: set[Var],
) -> None:
    for symbol in variables(*exprs):
        if symbol not in known:
            raise refusal(
                "E0202",
                f"the symbol '{symbol.name}' has no value here",
                function,
                node,
                help="bind it with match_cast, or pass a Shape",
            )


def field_exprs(op: Op) -> list[Expr]:
    """The expressions in the fields of an operation."""
    found: list[Expr] = []
    for declared in op_fields(type(op)):
        _add_exprs(getattr(op, declared.name), found)
    return found


def _add_exprs(value: object, found: list[Expr]) -> None:
    if isinstance(value, Expr):
        found.append(value)
    elif isinstance(value, tuple):
        for part in value:
            _add_exprs(part, found)
    elif isinstance(value, TensorType | ShapeType):
        found.extend(type_exprs(value))


def check_constants(function: GraphFunction, module: Module) -> None:
    """Constants exist in the module, with the type that is recorded."""
    places = [(b, a) for b in function.body for a in b.args]
    everything = [*places, *((function, r) for r in function.results)]
    for node, atom in everything:
        if not isinstance(atom, ConstantRef):
            continue
        found = module.constants.get(atom.name)
        if found is None:
            raise refusal("E0206", f"there is no constant '{atom.name}'", function, node)
        if found.type != atom.type:
            message = f"the constant '{atom.name}' is {found.type}, not {atom.type}"
            raise refusal("E0206", message, function, node)


# ---- Calls


def check_calls(function: GraphFunction, module: Module) -> None:
    """Functions that are called exist, are of the right kind, and take and give as many values."""
    for binding in function.body:
        op = binding.op
        if isinstance(op, CallTensor):
            _check_tensor_call(function, binding, op, module)
        elif isinstance(op, Call):
            _check_graph_call(function, binding, op.function, len(binding.args), module)
        elif isinstance(op, Cond):
            for name in (op.then, op.orelse):
                _check_graph_call(function, binding, name, len(binding.args) - 1, module)
        elif isinstance(op, WhileLoop):
            _check_graph_call(function, binding, op.body, len(binding.args), module)
            _check_graph_call(function, binding, op.condition, len(binding.args), module, 1)


def _check_tensor_call(
    function: GraphFunction, binding: Binding, op: CallTensor, module: Module
) -> None:
    callee = module.functions.get(op.function)
    if not isinstance(callee, TensorFunction):
        raise _missing(function, binding, "tensor", op.function)
    scalars = [p for p in callee.params if isinstance(p, Var)]
    for what, expected, given in (
        ("inputs", len(callee.input_buffers), len(binding.args)),
        ("outputs", callee.outputs, len(op.out)),
        ("symbols", len(scalars), len(op.symbols)),
    ):
        if expected != given:
            raise _miscounted(function, binding, op.function, what, expected, given)
    arguments = [a.type for a in binding.args]
    pairs = zip(callee.buffers, (*arguments, *op.out), strict=True)
    for buffer, type_ in pairs:
        if not isinstance(type_, TensorType):
            raise refusal("E0206", f"'{buffer.name}' is given {type_}", function, binding)
        if type_.dtype != buffer.dtype or type_.ndim != buffer.ndim:
            message = (
                f"'{buffer.name}' of {op.function} has {buffer.ndim} dimensions of {buffer.dtype},"
                f" and {type_} is given"
            )
            raise refusal("E0206", message, function, binding)


def _check_graph_call(
    function: GraphFunction,
    binding: Binding,
    name: str,
    arguments: int,
    module: Module,
    results: int | None = None,
) -> None:
    callee = module.functions.get(name)
    if not isinstance(callee, GraphFunction):
        raise _missing(function, binding, "graph", name)
    expected = len(binding.outputs) if results is None else results
    for what, wanted, given in (
        ("inputs", len(callee.params), arguments),
        ("results", expected, len(callee.results)),
    ):
        if wanted != given:
            raise _miscounted(function, binding, name, what, wanted, given)


def _missing(function: GraphFunction, binding: Binding, kind: str, name: str) -> Exception:
    return refusal("E0206", f"the module has no {kind} function '{name}'", function, binding)


def _miscounted(
    function: GraphFunction, binding: Binding, name: str, what: str, expected: int, given: int
) -> Exception:
    message = f"{name} has {expected} {what}, and {given} are given"
    return refusal("E0206", message, function, binding)


# ---- Types


def check_types(function: GraphFunction, module: Module) -> None:
    """What ``infer`` says does not contradict what is recorded; either may know less."""
    for binding in function.body:
        try:
            inferred = binding.op.infer(*(a.type for a in binding.args))  # type: ignore[arg-type]
        except TreadleError as error:
            raise refusal(
                "E0205", error.message, function, binding, notes=error.notes, help=error.help
            ) from error
        except (InternalError, TypeError, LookupError) as error:
            message = f"{binding.op.op_name()} does not take these operands"
            raise refusal("E0205", message, function, binding, notes=(str(error),)) from error
        types = inferred if isinstance(inferred, tuple) else (inferred,)
        if len(types) != len(binding.outputs):
            message = f"{len(types)} results are inferred, and {len(binding.outputs)} are named"
            raise refusal("E0205", message, function, binding)
        for value, type_ in zip(binding.outputs, types, strict=True):
            if disjoint(value.type, type_):
                raise refusal(
                    "E0205",
                    f"'{value.name}' is recorded as {value.type}",
                    function,
                    binding,
                    notes=(f"its operation gives {type_}",),
                    help="infer the types again after operands change",
                )


def disjoint(a: Type, b: Type) -> bool:
    """Whether no value is of both types; ``False`` when that depends on symbols or is not known."""
    if isinstance(a, ShapeType) or isinstance(b, ShapeType):
        if not isinstance(a, ShapeType) or not isinstance(b, ShapeType):
            return True
        return len(a.dims) != len(b.dims) or _differ(a.dims, b.dims)
    if a.dtype != b.dtype or a.ndim != b.ndim:
        return True
    return a.shape is not None and b.shape is not None and _differ(a.shape, b.shape)


def _differ(a: tuple[Expr, ...], b: tuple[Expr, ...]) -> bool:
    pairs = zip(a, b, strict=True)
    return any(x is not y and int_value(simplify(x - y)) not in (0, None) for x, y in pairs)
