"""Evaluate scalar expressions: each becomes a list of steps over slots, so that shared parts run
once.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from treadle.base.errors import InternalError, RuntimeFault
from treadle.expr.dtype import i64
from treadle.expr.evaluate import apply_function
from treadle.expr.scalar import Apply, Const, Expr, Var, walk
from treadle.ir.interpret.state import Element, Scalar, State, load
from treadle.ir.tensor import Load

Step = Callable[[list[Scalar], State], Scalar]

_INTEGERS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "min": min,
    "max": max,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
}
_HALF, _WHOLE = 1 << 63, 1 << 64


@dataclass(frozen=True, eq=False)
class Program:
    """An expression, ready to be evaluated many times."""

    template: list[Scalar]
    steps: tuple[tuple[int, Step], ...]

    def evaluate(self, state: State) -> Scalar:
        """The value, given the variables and buffers."""
        values = self.template.copy()
        for slot, step in self.steps:
            values[slot] = step(values, state)
        return values[-1]


class Evaluator:
    """Evaluates expressions, and keeps what it has translated."""

    def __init__(self) -> None:
        self._programs: dict[Expr, Program] = {}

    def evaluate(self, x: Expr, state: State) -> Scalar:
        """The value of ``x``: see ``state.Scalar``.

        Raises:
            RuntimeFault: E0761 for a load out of bounds, E0764 for a variable without a value.
        """
        program = self._programs.get(x)
        if program is None:
            program = self._programs[x] = _translate(x)
        return program.evaluate(state)


def _translate(root: Expr) -> Program:
    slots: dict[Expr, int] = {}
    template: list[Scalar] = []
    steps: list[tuple[int, Step]] = []
    for x in walk(root):
        slot = slots[x] = len(template)
        template.append(None)
        if isinstance(x, Const):
            template[slot] = constant(x)
        else:
            steps.append((slot, _step(x, [slots[c] for c in x.children])))
    return Program(template, tuple(steps))


def constant(x: Const) -> Scalar:
    """The value of a constant."""
    if x.dtype == i64:
        return x.value
    if x.dtype.lanes > 1:
        return np.full(x.dtype.lanes, x.value, x.dtype.numpy)
    return x.dtype.numpy.type(x.value)


def _step(x: Expr, slots: list[int]) -> Step:
    if isinstance(x, Var):
        return _variable(x)
    if isinstance(x, Load):
        return _load(x, slots)
    if isinstance(x, Apply):
        return _apply(x, slots)
    raise InternalError(f"the interpreter knows no {type(x).__name__}")


def _variable(x: Var) -> Step:
    def step(values: list[Scalar], state: State) -> Scalar:
        found = state.variables.get(x)
        if found is None:
            raise RuntimeFault("E0764", f"{state.function}: '{x.name}' has no value here")
        return found

    return step


def _load(x: Load, slots: list[int]) -> Step:
    rank = len(x.indices)
    element = Element.of(x.buffer, x.indices, x.mask)
    at, mask = slots[:rank], slots[rank] if x.mask is not None else None

    def step(values: list[Scalar], state: State) -> Scalar:
        chosen = None if mask is None else values[mask]
        return load(state, element, [values[s] for s in at], chosen)

    return step


def _apply(x: Apply, slots: list[int]) -> Step:
    if x.fn == "select":
        return _select(x, slots)
    kinds = [a.dtype.numpy.type for a in x.args]

    def general(*args: Scalar) -> Scalar:
        pairs = zip(kinds, args, strict=True)
        typed = tuple([kind(a) if type(a) in (int, bool) else a for kind, a in pairs])
        result = apply_function(x, typed)
        return result if result.ndim else result[()]

    integer = _INTEGERS.get(x.fn)
    if integer is not None and all(a.dtype == i64 for a in x.args):
        return _integer_step(integer, general, slots)
    if len(slots) == 1:
        only = slots[0]
        return lambda values, state: general(values[only])
    if len(slots) == 2:
        first, second = slots
        return lambda values, state: general(values[first], values[second])
    return lambda values, state: general(*(values[s] for s in slots))


def _integer_step(
    integer: Callable[[Any, Any], Any], general: Callable[..., Scalar], slots: list[int]
) -> Step:
    """Python's integers where both operands are ones: they are faster than NumPy's."""
    first, second = slots

    def step(values: list[Scalar], state: State) -> Scalar:
        a, b = values[first], values[second]
        if type(a) is not int or type(b) is not int:
            return general(a, b)
        result = integer(a, b)
        if type(result) is int and not -_HALF <= result < _HALF:
            return (result + _HALF) % _WHOLE - _HALF
        return result

    return step


def _select(x: Apply, slots: list[int]) -> Step:
    condition, first, second = slots
    widen = x.dtype.lanes > 1 and x.args[0].dtype.lanes == 1

    def step(values: list[Scalar], state: State) -> Scalar:
        chosen = values[condition]
        if np.ndim(chosen) == 0:
            return values[first] if chosen else values[second]
        return np.where(chosen[..., None] if widen else chosen, values[first], values[second])

    return step
