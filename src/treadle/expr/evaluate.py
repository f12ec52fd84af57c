"""The value of an expression: NumPy arithmetic, element by element, in its own types."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from treadle.base.errors import InternalError
from treadle.expr.dtype import DType
from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Apply, Const, Expr, Var, walk

Value = Any
"""A NumPy array of the expression's element type; a vector's lanes are the last axis."""

Leaf = Callable[[Expr, tuple[Value, ...]], Value]


def evaluate(x: Expr, env: Mapping[Var, Any], load: Leaf | None = None) -> Value:
    """The value of ``x`` where variables have the values of ``env``.

    Values are NumPy arrays or Python numbers and broadcast against each other. A vector's lanes are
    the last axis, which its scalars do not have. ``load`` gives the value of nodes that are no
    function of their operands alone, such as a ``Load``; it receives the node and the values of its
    children.

    Integer division by zero gives zero, as in NumPy.

    Raises:
        InternalError: if a variable has no value, or a node is met that needs ``load`` and there is
            none.
    """
    values: dict[Expr, Value] = {}
    with np.errstate(all="ignore"):
        for e in walk(x):
            if isinstance(e, Const):
                values[e] = _constant(e)
            elif isinstance(e, Var):
                values[e] = _variable(e, env)
            elif isinstance(e, Apply):
                values[e] = apply_function(e, tuple([values[a] for a in e.args]))
            elif load is not None:
                values[e] = load(e, tuple([values[c] for c in e.children]))
            else:
                raise InternalError(f"{e} has no value without memory")
    return values[x]


def _constant(x: Const) -> Value:
    value = np.asarray(x.value, x.dtype.numpy)
    return value if x.dtype.lanes == 1 else np.repeat(value[..., None], x.dtype.lanes, axis=-1)


def _variable(x: Var, env: Mapping[Var, Any]) -> Value:
    if x not in env:
        raise InternalError(f"{x} has no value")
    return np.asarray(env[x]).astype(x.dtype.numpy, copy=False)


def apply_function(x: Apply, args: tuple[Value, ...]) -> Value:
    """The value of one application to values that are known."""
    if x.fn == "cast":
        return convert(args[0], x.args[0].dtype, x.dtype)
    if x.fn == "bitcast":
        return _bitcast(np.asarray(args[0]), x.args[0].dtype, x.dtype)
    if x.fn == "ramp":
        return args[0][..., None] + args[1][..., None] * np.arange(
            x.dtype.lanes, dtype=x.dtype.numpy
        )
    if x.fn == "broadcast":
        return np.repeat(np.asarray(args[0])[..., None], x.dtype.lanes, axis=-1)
    function = FUNCTIONS[x.fn]
    if x.args[-1].dtype.kind == "bfloat" and function.family == "math":
        # Not every function exists for bfloat16; through f32 it is rounded once more, within half a
        # unit.
        wide = function.evaluate(*(np.asarray(a, np.float32) for a in args))
        return np.asarray(wide).astype(x.dtype.numpy)
    return np.asarray(function.evaluate(*args)).astype(x.dtype.numpy, copy=False)


def _bitcast(value: Value, source: DType, target: DType) -> Value:
    if source.lanes == target.lanes:
        return value.view(target.numpy)
    lanes = value if source.lanes > 1 else value[..., None]
    seen = np.ascontiguousarray(lanes).view(target.numpy)
    return seen if target.lanes > 1 else seen[..., 0]


def convert(value: Value, source: DType, target: DType) -> Value:
    """Values converted as C does; what is undefined there (NaN to integer) is what NumPy does."""
    array = np.asarray(value)
    if target.is_bool:
        return array != 0
    if source.is_float and target.is_int:
        array = np.trunc(array.astype(np.float64))
        return (
            array.astype(np.int64).astype(target.numpy)
            if target.bits < 64
            else array.astype(target.numpy)
        )
    return array.astype(target.numpy)
