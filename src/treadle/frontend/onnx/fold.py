"""Shapes as values: the operators that exporters compute shapes with, on expressions over symbolic
dimensions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from treadle.expr.dtype import boolean, i64
from treadle.expr.scalar import Expr, apply, as_expr, cast, eq, maximum, minimum, select
from treadle.frontend.onnx.compose import element_type
from treadle.frontend.onnx.value import Known

Attributes = Mapping[str, Any]
Fold = Callable[[Sequence[Known | None], Attributes], Known | tuple[Known, ...] | None]


def fold_symbolic(
    operator: str, operands: Sequence[Known | None], attributes: Attributes
) -> tuple[Known, ...] | None:
    """The results of a node on known operands among which are symbols; ``None`` if this is none of
    the operators here."""
    folder = _FOLDS.get(operator)
    if folder is None or not operands or operands[0] is None:
        return None
    found = folder(operands, attributes)
    return (found,) if isinstance(found, Known) else found


def _elementwise(function: Callable[..., Any], result_is_bool: bool = False) -> Fold:
    wrapped = np.frompyfunc(function, function.__code__.co_argcount, 1)

    def folded(operands: Sequence[Known | None], attributes: Attributes) -> Known:
        known = [k for k in operands if k is not None]
        array = np.asarray(wrapped(*(k.objects() for k in known)), object)
        return Known.symbolic(array, boolean if result_is_bool else known[-1].dtype)

    return folded


def _divide(a: Any, b: Any) -> Any:
    x, y = as_expr(a), as_expr(b)
    return x / y if x.dtype.is_float else apply("truncdiv", x, y)


def _choose(condition: Any, a: Any, b: Any) -> Any:
    return select(as_expr(condition), as_expr(a), as_expr(b))


def _cast(operands: Sequence[Known | None], attributes: Attributes) -> Known | None:
    x = operands[0]
    assert x is not None
    dtype = element_type(attributes["to"])
    # Dimensions stay i64 as expressions: they are small.
    inner = i64 if dtype.is_int else dtype
    found = np.frompyfunc(lambda e: cast(as_expr(e), inner), 1, 1)(x.objects())
    return Known.symbolic(np.asarray(found, object), dtype)


def _gather(operands: Sequence[Known | None], attributes: Attributes) -> Known | None:
    x, indices = operands
    if x is None or indices is None or not indices.is_concrete:
        return None
    return Known.symbolic(
        _object(np.take(x.objects(), indices.array, attributes.get("axis", 0))), x.dtype
    )


def _object(array: Any) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    found = np.empty((), object)
    found[()] = array
    return found


def _concat(operands: Sequence[Known | None], attributes: Attributes) -> Known:
    known = [k for k in operands if k is not None]
    return Known.symbolic(
        np.concatenate([k.objects() for k in known], attributes["axis"]), known[0].dtype
    )


def _axes(operands: Sequence[Known | None], attributes: Attributes) -> tuple[int, ...] | None:
    if "axes" in attributes:
        return tuple(attributes["axes"])
    given = operands[1] if len(operands) > 1 else None
    return None if given is None else given.ints()


def _squeeze(operands: Sequence[Known | None], attributes: Attributes) -> Known:
    x = operands[0]
    assert x is not None
    return Known.symbolic(_object(np.squeeze(x.objects(), _axes(operands, attributes))), x.dtype)


def _unsqueeze(operands: Sequence[Known | None], attributes: Attributes) -> Known:
    x = operands[0]
    assert x is not None
    return Known.symbolic(np.expand_dims(x.objects(), _axes(operands, attributes) or ()), x.dtype)


def _slice(operands: Sequence[Known | None], attributes: Attributes) -> Known | None:
    x, *given = operands
    if x is None or len(given) < 2 or any(k is not None and not k.is_concrete for k in given):
        return None
    starts, stops = (k.ints() for k in given[:2] if k is not None)
    axes = given[2].ints() if len(given) > 2 and given[2] is not None else tuple(range(len(starts)))
    steps = given[3].ints() if len(given) > 3 and given[3] is not None else (1,) * len(starts)
    index = [slice(None)] * x.array.ndim
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        index[axis] = slice(start, None if step < 0 and stop < -x.array.shape[axis] else stop, step)
    return Known.symbolic(x.objects()[tuple(index)], x.dtype)


def _split(operands: Sequence[Known | None], attributes: Attributes) -> tuple[Known, ...] | None:
    x = operands[0]
    sizes = attributes.get("split") or (
        operands[1].ints() if len(operands) > 1 and operands[1] else None
    )
    if x is None or sizes is None:
        return None
    parts = np.split(x.objects(), np.cumsum(sizes)[:-1], attributes.get("axis", 0))
    return tuple(Known.symbolic(p, x.dtype) for p in parts)


def _reshape(operands: Sequence[Known | None], attributes: Attributes) -> Known | None:
    x, shape = operands
    if x is None or shape is None or not shape.is_concrete:
        return None
    sizes = [
        x.array.shape[k] if s == 0 and not attributes.get("allowzero") else s
        for k, s in enumerate(shape.ints())
    ]
    return Known.symbolic(x.objects().reshape(sizes), x.dtype)


def _reduce(combine: Callable[[Expr, Expr], Expr], start: int) -> Fold:
    def folded(operands: Sequence[Known | None], attributes: Attributes) -> Known | None:
        x = operands[0]
        if x is None or x.array.ndim != 1:
            return None
        result: Expr = as_expr(start)
        for e in x.exprs():
            result = combine(result, e)
        shape = (1,) if attributes.get("keepdims", 1) else ()
        return Known.symbolic(_object(result).reshape(shape), x.dtype)

    return folded


def _expand(operands: Sequence[Known | None], attributes: Attributes) -> Known | None:
    x, shape = operands
    if x is None or shape is None or not shape.is_concrete:
        return None
    sizes = np.broadcast_shapes(x.array.shape, shape.ints())
    return Known.symbolic(np.broadcast_to(x.objects(), sizes).copy(), x.dtype)


_FOLDS: dict[str, Fold] = {
    "Add": _elementwise(lambda a, b: as_expr(a) + b),
    "Sub": _elementwise(lambda a, b: as_expr(a) - b),
    "Mul": _elementwise(lambda a, b: as_expr(a) * b),
    "Div": _elementwise(_divide),
    "Mod": _elementwise(lambda a, b: as_expr(a) % b),
    "Neg": _elementwise(lambda a: -as_expr(a)),
    "Min": _elementwise(lambda a, b: minimum(as_expr(a), b)),
    "Max": _elementwise(lambda a, b: maximum(as_expr(a), b)),
    "Floor": _elementwise(lambda a: apply("floor", as_expr(a))),
    "Ceil": _elementwise(lambda a: apply("ceil", as_expr(a))),
    "Equal": _elementwise(lambda a, b: eq(as_expr(a), b), result_is_bool=True),
    "Less": _elementwise(lambda a, b: as_expr(a) < b, result_is_bool=True),
    "LessOrEqual": _elementwise(lambda a, b: as_expr(a) <= b, result_is_bool=True),
    "Greater": _elementwise(lambda a, b: as_expr(a) > b, result_is_bool=True),
    "GreaterOrEqual": _elementwise(lambda a, b: as_expr(a) >= b, result_is_bool=True),
    "Not": _elementwise(lambda a: ~as_expr(a), result_is_bool=True),
    "And": _elementwise(lambda a, b: as_expr(a) & b, result_is_bool=True),
    "Or": _elementwise(lambda a, b: as_expr(a) | b, result_is_bool=True),
    "Where": _elementwise(_choose),
    "Identity": lambda operands, _: operands[0],
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Split": _split,
    "Reshape": _reshape,
    "Expand": _expand,
    "ReduceProd": _reduce(lambda a, b: a * b, 1),
    "ReduceSum": _reduce(lambda a, b: a + b, 0),
}
