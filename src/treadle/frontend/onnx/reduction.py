"""Reductions, positions of extremes, and running sums."""

from collections.abc import Callable

from treadle.expr.dtype import boolean, f64, i32
from treadle.expr.scalar import int_value
from treadle.frontend.onnx.compose import axis_of, cast, full, widened
from treadle.frontend.onnx.converter import Converter, converter
from treadle.frontend.onnx.value import Known
from treadle.ir.graph_builder import Traced
from treadle.ops._shapes import reduced_dims
from treadle.ops.broadcast import Sum
from treadle.ops.elementwise import Abs, Log, Sqrt, Square
from treadle.ops.reduce import ArgMax, ArgMin, LogSumExp, Max, Mean, Min, Prod
from treadle.ops.scan import CumProd, CumSum

Axes = tuple[int, ...]
Reduce = Callable[[Traced, Axes, bool], Traced]


def _sum(x: Traced, axes: Axes, keep: bool) -> Traced:
    return Sum(axes, keep)(x)


def _mean(x: Traced, axes: Axes, keep: bool) -> Traced:
    return Mean(axes, keep)(x)


def _square_sum(x: Traced, axes: Axes, keep: bool) -> Traced:
    return Sum(axes, keep)(Square()(x))


def _l2(x: Traced, axes: Axes, keep: bool) -> Traced:
    return Sqrt()(_square_sum(x, axes, keep))


def _log_sum(x: Traced, axes: Axes, keep: bool) -> Traced:
    return Log()(Sum(axes, keep)(x))


def _extreme(op: type[Max] | type[Min]) -> Reduce:
    def reduce(x: Traced, axes: Axes, keep: bool) -> Traced:
        if any(int_value(x.shape[a]) == 0 for a in axes):
            return full(x, reduced_dims(x.shape, [a % x.ndim for a in axes], keep), _worst(op, x))
        if x.dtype.is_bool:
            return cast(op(axes, keep)(cast(x, i32)), boolean)
        return op(axes, keep)(x)

    return reduce


def _worst(op: type[Max] | type[Min], x: Traced) -> float | bool:
    """The extreme of nothing: what every element replaces."""
    lowest = op is Max
    if x.dtype.is_float:
        return float("-inf") if lowest else float("inf")
    if x.dtype.is_bool:
        return not lowest
    bits = x.dtype.bits - (x.dtype.kind == "int")
    return (-(1 << bits) if x.dtype.kind == "int" else 0) if lowest else (1 << bits) - 1


def _log_sum_exp(x: Traced, axes: Axes, keep: bool) -> Traced:
    if any(int_value(x.shape[a]) == 0 for a in axes):
        return full(x, reduced_dims(x.shape, [a % x.ndim for a in axes], keep), float("-inf"))
    return LogSumExp(axes, keep)(x)


# Functions that integers leave: computed in floats.
_REDUCTIONS: dict[str, Reduce] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": lambda x, axes, keep: Prod(axes, keep)(x),
    "ReduceMax": _extreme(Max),
    "ReduceMin": _extreme(Min),
    "ReduceL1": lambda x, axes, keep: Sum(axes, keep)(Abs()(x)),
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": _square_sum,
}
_IN_FLOATS = frozenset({"ReduceMean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"})


def _reduced(operator: str, x: Traced, axes: Axes, keep: bool) -> Traced:
    from_integers = operator in _IN_FLOATS and not x.dtype.is_float
    wide = cast(x, f64) if from_integers else widened(x)
    kept = wide if operator in _IN_FLOATS or x.dtype.is_float else x
    axes = tuple(axis_of(a, x.ndim) for a in axes)
    return cast(_REDUCTIONS[operator](kept, axes, keep), x.dtype)


def _reduction(operator: str) -> tuple[Converter, Converter]:
    def by_input(
        x: Traced, axes: Known | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Traced:
        found = () if axes is None else axes.ints()
        if not found and noop_with_empty_axes:
            return _reduced(operator, x, (), bool(keepdims))
        return _reduced(operator, x, found or tuple(range(x.ndim)), bool(keepdims))

    def by_attribute(x: Traced, *, axes: Axes | None = None, keepdims: int = 1) -> Traced:
        return _reduced(operator, x, axes or tuple(range(x.ndim)), bool(keepdims))

    since = 13 if operator == "ReduceSum" else 18
    return converter(operator, since=since)(by_input), converter(operator)(by_attribute)


def _position(operator: str, op: type[ArgMax] | type[ArgMin]) -> Converter:
    def convert(
        x: Traced, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
    ) -> Traced:
        return op(axis, bool(keepdims), bool(select_last_index))(x)

    return converter(operator)(convert)


def _running(operator: str, op: type[CumSum] | type[CumProd]) -> Converter:
    def convert(x: Traced, axis: Known, *, exclusive: int = 0, reverse: int = 0) -> Traced:
        return op(axis.integer(), bool(exclusive), bool(reverse))(x)

    return converter(operator)(convert)


CONVERTERS = (
    *(c for name in _REDUCTIONS for c in _reduction(name)),
    _position("ArgMax", ArgMax),
    _position("ArgMin", ArgMin),
    _running("CumSum", CumSum),
    _running("CumProd", CumProd),
)
