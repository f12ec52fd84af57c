"""Run loop programs statement by statement, in order: this is their meaning."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from treadle.base.errors import InternalError, RuntimeFault
from treadle.expr.dtype import DType, i64
from treadle.expr.scalar import Expr, Var
from treadle.ir.interpret.expressions import Evaluator
from treadle.ir.interpret.mesh import Mesh
from treadle.ir.interpret.state import Element, Scalar, State, poisoned, store
from treadle.ir.interpret.symbols import solve, value_of
from treadle.ir.level import Level, level_of
from treadle.ir.tensor import (
    PREFETCHES,
    Allocate,
    Block,
    Buffer,
    For,
    If,
    Intrinsic,
    Let,
    Stmt,
    Store,
    TensorFunction,
)


def run_tensor(
    function: TensorFunction,
    inputs: Sequence[np.ndarray],
    symbols: Mapping[str, float] | Mapping[Var, float] = {},
    *,
    out_shapes: Sequence[tuple[int, ...]] | None = None,
    vectorize: bool = True,
) -> tuple[np.ndarray, ...]:
    """Run a loop program on arrays for its input buffers, and return its output buffers.

    ``symbols`` gives scalar parameters, and symbols that the inputs' shapes do not tell (by name or
    variable); ``out_shapes`` are matched too if given. With ``vectorize`` nests whose points are
    independent run on whole arrays; the results are the same.

    At level ``DEVICE`` memory has one dimension: arrays of more are taken as their elements in
    row-major order, and results have the shapes that ``out_shapes`` says.

    Raises:
        RuntimeFault: E0761 for an access out of bounds, E0762 and E0763 when shapes do not fit,
            E0764 for a name without a value, E0765 when an assumption does not hold.
    """
    final = level_of(function) == Level.DEVICE
    shapes = None if out_shapes is None else list(out_shapes)
    with np.errstate(all="ignore"):
        if final:
            inputs = _flattened(function.input_buffers, inputs)
            flat = None if shapes is None else [(math.prod(s),) for s in shapes]
            state = _enter(function, inputs, symbols, flat if _is_flat(function) else shapes)
        else:
            state = _enter(function, inputs, symbols, shapes)
        Executor(vectorize).run(function.body, state)
    results = tuple(state.buffers[b] for b in function.output_buffers)
    if shapes is None or not final:
        return results
    return tuple(r.reshape(s) for r, s in zip(results, shapes, strict=True))


def _is_flat(function: TensorFunction) -> bool:
    return all(b.ndim == 1 for b in function.output_buffers)


def _flattened(buffers: Sequence[Buffer], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    pairs = itertools.zip_longest(buffers, arrays)
    return [np.ravel(a) if b is not None and b.ndim == 1 else a for b, a in pairs if a is not None]


def _enter(
    function: TensorFunction,
    inputs: Sequence[np.ndarray],
    symbols: Mapping[str, float] | Mapping[Var, float],
    out_shapes: Sequence[tuple[int, ...]] | None,
) -> State:
    buffers = function.input_buffers
    if len(inputs) != len(buffers):
        raise RuntimeFault(
            "E0762", f"{function.name}: takes {len(buffers)} arrays, and {len(inputs)} were given"
        )
    given = {k if isinstance(k, str) else k.name: v for k, v in symbols.items()}
    params = [p for p in function.params if isinstance(p, Var)]
    scalars = {p: given.pop(p.name) for p in params if p.name in given}
    sizes = {v: int(x) for v, x in scalars.items() if isinstance(x, int | np.integer)}
    sizes |= {Var(name): int(x) for name, x in given.items()}
    pairs: list[tuple[Expr, int]] = []
    where: list[str] = []
    shaped = [(b, np.shape(a)) for b, a in zip(buffers, inputs, strict=True)]
    if out_shapes is not None:
        shaped += list(zip(function.output_buffers, out_shapes, strict=True))
    for buffer, shape in shaped:
        if len(shape) != buffer.ndim:
            raise RuntimeFault(
                "E0762",
                f"{function.name}: {buffer.name} has {buffer.ndim} dimensions, not {len(shape)}",
            )
        pairs += zip(buffer.shape, shape, strict=True)
        where += [f"dimension {i} of {buffer.name}" for i in range(buffer.ndim)]
    solve(pairs, sizes, function.name, where)
    state = State(function.name)
    state.variables |= sizes
    state.variables |= {p: _typed(scalars[p], p.dtype) for p in scalars}
    for buffer, array in zip(buffers, inputs, strict=True):
        state.buffers[buffer] = _checked(function, buffer, array)
    for buffer in function.output_buffers:
        start = function.updated_from(buffer)
        state.buffers[buffer] = (
            poisoned(buffer, _extents(function, buffer, sizes))
            if start is None
            else state.buffers[start].copy()
        )
    _check_assumes(function, state)
    return state


def _typed(value: float, dtype: DType) -> Scalar:
    return int(value) if dtype == i64 else dtype.numpy.type(value)


def _checked(function: TensorFunction, buffer: Buffer, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype != buffer.dtype.numpy:
        raise RuntimeFault(
            "E0762",
            f"{function.name}: {buffer.name} holds {buffer.dtype}, and the array {array.dtype}",
        )
    return array


def _extents(function: TensorFunction, buffer: Buffer, symbols: dict[Var, int]) -> tuple[int, ...]:
    extents: list[int] = []
    for dim in buffer.shape:
        extent = value_of(dim, symbols)
        if extent is None:
            raise RuntimeFault(
                "E0763",
                f"{function.name}: the extent {dim} of {buffer.name} cannot be found",
                help="pass its symbols by name",
            )
        extents.append(extent)
    return tuple(extents)


def _check_assumes(function: TensorFunction, state: State) -> None:
    evaluator = Evaluator()
    for fact in function.assumes:
        if not evaluator.evaluate(fact, state):
            raise RuntimeFault("E0765", f"{function.name}: assume({fact}) does not hold")


class Executor:
    """Runs statements; ``vectorize`` lets independent points of a nest run as arrays."""

    def __init__(self, vectorize: bool) -> None:
        self._evaluator = Evaluator()
        self._mesh = Mesh(self._evaluator) if vectorize else None
        self._elements: dict[Store, Element] = {}

    def run(self, body: tuple[Stmt, ...], state: State) -> None:
        """Run the statements of a body, in order."""
        for stmt in body:
            self._run(stmt, state)

    def _run(self, stmt: Stmt, state: State) -> None:
        match stmt:
            case For():
                self._for(stmt, state)
            case Block():
                self._block(stmt, state)
            case Store():
                self._store(stmt, state)
            case If():
                holds = self._evaluator.evaluate(stmt.condition, state)
                self.run(stmt.body if holds else stmt.orelse, state)
            case Let():
                state.variables[stmt.var] = self._evaluator.evaluate(stmt.value, state)
            case Allocate():
                shape = tuple(int(self._evaluator.evaluate(d, state)) for d in stmt.buffer.shape)
                state.buffers[stmt.buffer] = poisoned(stmt.buffer, shape)
            case Intrinsic():
                if stmt.name not in PREFETCHES:
                    raise InternalError(f"the interpreter knows no intrinsic '{stmt.name}'")

    def _for(self, stmt: For, state: State) -> None:
        if self._mesh is not None and self._mesh.run(stmt, state):
            return
        for i in range(int(self._evaluator.evaluate(stmt.extent, state))):
            state.variables[stmt.var] = i
            self.run(stmt.body, state)

    def _block(self, stmt: Block, state: State) -> None:
        if stmt.where is not None and not self._evaluator.evaluate(stmt.where, state):
            return
        first = True
        for axis in stmt.iters:
            value = self._evaluator.evaluate(axis.binding, state)
            state.variables[axis.var] = value
            first = first and (axis.kind == "spatial" or value == 0)
        if first:
            self.run(stmt.init, state)
        self.run(stmt.body, state)

    def _store(self, stmt: Store, state: State) -> None:
        element = self._elements.get(stmt)
        if element is None:
            element = Element.of(stmt.buffer, stmt.indices, stmt.mask)
            self._elements[stmt] = element
        indices = [self._evaluator.evaluate(i, state) for i in stmt.indices]
        mask = None if stmt.mask is None else self._evaluator.evaluate(stmt.mask, state)
        store(state, element, indices, self._evaluator.evaluate(stmt.value, state), mask)
