"""Run graph functions: every operation by its reference, every call by its callee."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from treadle.base.errors import InternalError, RuntimeFault
from treadle.expr.scalar import Const, Expr, Var, substitute, variables
from treadle.ir.calls import (
    AssertTrue,
    BindSymbol,
    Call,
    CallLibrary,
    CallTensor,
    Cond,
    FunctionOp,
    MatchCast,
    WhileLoop,
)
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, ShapeLiteral, Value
from treadle.ir.interpret.expressions import Evaluator
from treadle.ir.interpret.loops import run_tensor
from treadle.ir.interpret.state import State
from treadle.ir.interpret.symbols import solve, value_of
from treadle.ir.module import Module
from treadle.ir.op import Op
from treadle.ir.op_fields import op_fields
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import ShapeType, TensorType, Type

Library = Callable[..., np.ndarray | tuple[np.ndarray, ...]]
Arrays = tuple[np.ndarray, ...]


def run(
    module: Module,
    name: str,
    *arrays: np.ndarray,
    libraries: Mapping[str, Library] = {},
    vectorize: bool = True,
) -> Arrays:
    """Run a graph function (or a tensor function) of a module on arrays and return its results.

    A parameter of type ``Shape`` takes an integer array of rank one. ``libraries`` has what
    ``call_library`` names.

    Raises:
        RuntimeFault: E0707 when a check of the program fails; E0761 to E0766 when arrays, shapes,
            indices or assumptions do not fit.
        InternalError: when the module has no such function, or an operation's reference breaks its
            own type.
    """
    if isinstance(module.functions.get(name), TensorFunction):
        return run_tensor(module.tensor(name), arrays, vectorize=vectorize)
    interpreter = _Interpreter(module, libraries, vectorize)
    with np.errstate(all="ignore"):
        return interpreter.call(name, tuple(np.asarray(a) for a in arrays))


@dataclass(eq=False)
class _Frame:
    function: str
    values: dict[Value, np.ndarray]
    symbols: dict[Var, int]


@dataclass(frozen=True, eq=False)
class _Interpreter:
    module: Module
    libraries: Mapping[str, Library]
    vectorize: bool

    def call(self, name: str, arrays: Arrays) -> Arrays:
        function = self.module.graph(name)
        frame = self._enter(function, arrays)
        for binding in function.body:
            results = self._results(binding, frame)
            _check_results(binding, results, frame)
            for value, array in zip(binding.outputs, results, strict=True):
                frame.values[value] = array
        return tuple(self._atom(r, frame) for r in function.results)

    def _enter(self, function: GraphFunction, arrays: Arrays) -> _Frame:
        if len(arrays) != len(function.params):
            raise RuntimeFault(
                "E0762",
                f"{function.name}: takes {len(function.params)} arrays,"
                f" and {len(arrays)} were given",
            )
        frame = _Frame(function.name, dict(zip(function.params, arrays, strict=True)), {})
        types = [(p.name, p.type) for p in function.params]
        _match(types, arrays, frame.symbols, function.name)
        for fact in function.assumes:
            if not _scalar(fact, frame):
                raise RuntimeFault("E0765", f"{function.name}: assume({fact}) does not hold")
        return frame

    def _atom(self, atom: Atom, frame: _Frame) -> np.ndarray:
        if isinstance(atom, Value):
            return frame.values[atom]
        if isinstance(atom, ConstantRef):
            return self.module.constants[atom.name].array
        if isinstance(atom, ShapeLiteral):
            return np.array([int(_scalar(d, frame)) for d in atom.dims], np.int64)
        return np.asarray(_scalar(atom.value, frame), atom.value.dtype.numpy)

    def _results(self, binding: Binding, frame: _Frame) -> Arrays:
        op = binding.op
        arrays = tuple(self._atom(a, frame) for a in binding.args)
        if isinstance(op, FunctionOp):
            return self._joint(op, arrays, frame)
        return _tuple(specialize(op, frame.symbols).reference(*arrays))

    def _joint(self, op: FunctionOp, arrays: Arrays, frame: _Frame) -> Arrays:
        match op:
            case Call():
                return self.call(op.function, arrays)
            case CallTensor():
                return self._call_tensor(op, arrays, frame)
            case CallLibrary():
                return self._call_library(op, arrays)
            case MatchCast():
                _match([("match_cast", op.type)], arrays, frame.symbols, frame.function)
                return arrays
            case AssertTrue():
                if not arrays[0].item():
                    raise RuntimeFault(
                        "E0707", f"'{frame.function}' stopped: {op.message}", help=op.cure
                    )
                return arrays
            case BindSymbol():
                _bind(op, int(arrays[0].item()), frame)
                return arrays
            case Cond():
                return self.call(op.then if arrays[0].item() else op.orelse, arrays[1:])
            case WhileLoop():
                return self._while(op, arrays)
            case _:
                raise InternalError(f"the interpreter knows no {op.op_name()}")

    def _call_tensor(self, op: CallTensor, arrays: Arrays, frame: _Frame) -> Arrays:
        function = self.module.tensor(op.function)
        scalars = [p for p in function.params if isinstance(p, Var)]
        given = {v.name: _scalar(x, frame) for v, x in zip(scalars, op.symbols, strict=True)}
        shapes = [_shape(t, frame) for t in op.out]
        known = None if any(s is None for s in shapes) else [s for s in shapes if s is not None]
        return run_tensor(function, arrays, given, out_shapes=known, vectorize=self.vectorize)

    def _call_library(self, op: CallLibrary, arrays: Arrays) -> Arrays:
        found = self.libraries.get(op.function)
        if found is None:
            raise RuntimeFault(
                "E0766",
                f"there is no library function '{op.function}'",
                help=f"pass libraries={{'{op.function}': ...}}",
            )
        return _tuple(found(*arrays))

    def _while(self, op: WhileLoop, arrays: Arrays) -> Arrays:
        carried, rest = arrays[: op.carried], arrays[op.carried :]
        while self.call(op.condition, (*carried, *rest))[0].item():
            carried = self.call(op.body, (*carried, *rest))
        return carried


def _tuple(results: np.ndarray | Sequence[np.ndarray]) -> Arrays:
    found = results if isinstance(results, tuple | list) else (results,)
    return tuple(np.asarray(r) for r in found)


def _scalar(x: Expr, frame: _Frame) -> Any:  # noqa: ANN401  (a Python or NumPy number)
    if isinstance(x, Const):
        return x.value
    state = State(frame.function)
    state.variables |= frame.symbols
    return Evaluator().evaluate(x, state)


def _bind(op: BindSymbol, value: int, frame: _Frame) -> None:
    """Give a symbol its value, and check what must hold of it."""
    frame.symbols[op.variable] = value
    for claim in op.where:
        if not _scalar(claim, frame):
            raise RuntimeFault(
                "E0707", f"'{frame.function}' stopped: {op.symbol} = {value} breaks {claim}"
            )


def _shape(type_: TensorType, frame: _Frame) -> tuple[int, ...] | None:
    if type_.shape is None:
        return None
    return tuple(int(_scalar(d, frame)) for d in type_.shape)


def _match(
    types: Sequence[tuple[str, Type]], arrays: Arrays, symbols: dict[Var, int], what: str
) -> None:
    """Check arrays against types, and bind the symbols in them."""
    pairs: list[tuple[Expr, int]] = []
    where: list[str] = []
    for (name, type_), array in zip(types, arrays, strict=True):
        if isinstance(type_, ShapeType):
            actual = tuple(int(d) for d in np.atleast_1d(array))
            dims: tuple[Expr, ...] | None = type_.dims
            rank = len(type_.dims)
        else:
            actual, dims, rank = array.shape, type_.shape, type_.ndim
            if array.dtype != type_.dtype.numpy:
                raise RuntimeFault(
                    "E0762", f"{what}: {name} holds {type_.dtype}, and the array {array.dtype}"
                )
        if len(actual) != rank:
            raise RuntimeFault(
                "E0762", f"{what}: {name} has {rank} dimensions, and the array {len(actual)}"
            )
        if dims is not None:
            pairs += zip(dims, actual, strict=True)
            where += [f"dimension {i} of {name}" for i in range(rank)]
    solve(pairs, symbols, what, where)


def _check_results(binding: Binding, results: Arrays, frame: _Frame) -> None:
    """An operation must give what its type says; a reference that does not is our mistake."""
    name = binding.op.op_name()
    if len(results) != len(binding.outputs):
        raise InternalError(
            f"{name} gave {len(results)} results and its type says {len(binding.outputs)}"
        )
    for value, array in zip(binding.outputs, results, strict=True):
        type_ = value.type
        if isinstance(type_, ShapeType):
            continue
        dims = type_.shape
        sizes = None if dims is None else [value_of(d, frame.symbols) for d in dims]
        fits = array.ndim == type_.ndim and array.dtype == type_.dtype.numpy
        if fits and sizes is not None:
            fits = all(s is None or s == d for s, d in zip(sizes, array.shape, strict=True))
        if not fits and isinstance(binding.op, FunctionOp):
            raise RuntimeFault(
                "E0762",
                f"{frame.function}: {name} gave {array.dtype} of shape {array.shape} for"
                f" '{value.name}: {type_}'",
            )
        if not fits:
            raise InternalError(
                f"{name} gave {array.dtype} of shape {array.shape} for '{value.name}: {type_}'"
            )


def specialize(op: Op, symbols: Mapping[Var, int]) -> Op:
    """An operation with the symbols in its fields exchanged for integers."""
    changes: dict[str, Any] = {}
    for declared in op_fields(type(op)):
        old = getattr(op, declared.name)
        new = _specialized(old, symbols)
        if new is not old:
            changes[declared.name] = new
    return replace(op, **changes) if changes else op  # type: ignore[type-var]  (every op is a dataclass)


def _specialized(value: Any, symbols: Mapping[Var, int]) -> Any:  # noqa: ANN401  (any field)
    if isinstance(value, Expr):
        known = {v: Const(symbols[v], v.dtype) for v in variables(value) if v in symbols}
        return substitute(value, known)
    if isinstance(value, tuple):
        parts = tuple(_specialized(v, symbols) for v in value)
        return parts if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    if isinstance(value, TensorType) and value.shape is not None:
        dims = _specialized(value.shape, symbols)
        return value if dims is value.shape else TensorType(dims, value.ndim, value.dtype)
    if isinstance(value, ShapeType):
        dims = _specialized(value.dims, symbols)
        return value if dims is value.dims else ShapeType(dims)
    return value
