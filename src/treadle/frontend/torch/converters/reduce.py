"""Reductions, running sums, sorting."""

from treadle.expr.dtype import DType, boolean
from treadle.frontend.torch.context import (
    Context,
    Converted,
    Converter,
    Number,
    Size,
    Unsupported,
    axes_of,
    axis_of,
    known,
)
from treadle.frontend.torch.promotion import elementwise
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op
from treadle.ops.binary import Maximum, Minimum
from treadle.ops.broadcast import Sum
from treadle.ops.compare import NotEqual
from treadle.ops.elementwise import Abs, Sqrt, Square
from treadle.ops.power import Pow
from treadle.ops.reduce import (
    All,
    Any,
    ArgMax,
    ArgMin,
    LogSumExp,
    Max,
    Mean,
    Min,
    Prod,
    Variance,
)
from treadle.ops.scan import CumMax, CumMin, CumProd, CumSum
from treadle.ops.sort import Sort, TopK

Dims = int | tuple[int, ...] | None


def _over(op: type[Op]) -> Converter:
    """A reduction over some axes (all by default), computed in the dtype of its result."""

    def converter(
        c: Context, x: Traced, dims: Dims = None, keepdim: bool = False, *_: object
    ) -> Traced:
        axes = axes_of(dims, x.ndim)
        return c.emit(op(axes, keepdim), c.cast(x, c.dtype))  # type: ignore[call-arg]  (a reduction)

    return converter


def _of_all(op: type[Op]) -> Converter:
    """A reduction over all axes whose second argument is a dtype."""

    def converter(c: Context, x: Traced, dtype: DType | None = None) -> Traced:
        return c.emit(op(axes_of(None, x.ndim), False), c.cast(x, c.dtype))  # type: ignore[call-arg]

    return converter


def _truth(op: type[Op]) -> Converter:
    """Whether any, or all, are not zero."""

    def converter(c: Context, x: Traced, dims: Dims = None, keepdim: bool = False) -> Traced:
        truth = c.cast(x, boolean)
        result = c.emit(op(axes_of(dims, x.ndim), keepdim), truth)  # type: ignore[call-arg]
        return c.cast(result, c.dtype)

    return converter


def _extreme(reduction: type[Op], position: type[Op]) -> Converter:
    """The extreme along an axis, and where it is."""

    def converter(c: Context, x: Traced, dim: int, keepdim: bool) -> tuple[Traced, Traced]:
        if x.ndim == 0:
            return x, c.full((), 0, c.dtypes[1])
        axis = axis_of(dim, x.ndim)
        values = c.emit(reduction((axis,), keepdim), x)  # type: ignore[call-arg]
        return values, c.emit(position(axis, keepdim), x)  # type: ignore[call-arg]

    return converter


def _position(op: type[Op]) -> Converter:
    """Where the extreme is, along an axis or in all."""

    def converter(c: Context, x: Traced, dim: int | None, keepdim: bool) -> Traced:
        if x.ndim == 0:
            return c.full((), 0, c.dtype)
        if dim is None:
            flat = c.emit(op(0, False), c.reshape(x, (_count(x),)))  # type: ignore[call-arg]
            return c.reshape(flat, c.shape)
        return c.emit(op(axis_of(dim, x.ndim), keepdim), x)  # type: ignore[call-arg]

    return converter


def _count(x: Traced) -> Size:
    total: Size = 1
    for d in x.shape:
        total = total * d
    return total


def _variance(
    c: Context, x: Traced, dims: Dims, correction: Number | None, keepdim: bool
) -> Traced:
    corrected = 1 if correction is None else int(correction)
    if corrected != (1 if correction is None else correction):
        raise Unsupported(f"a correction of {correction}")
    return c.emit(Variance(axes_of(dims, x.ndim), keepdim, corrected), x)


def var(c: Context, x: Traced, dims: Dims, correction: Number | None, keepdim: bool) -> Traced:
    """The variance, corrected."""
    return _variance(c, x, dims, correction, keepdim)


def std(c: Context, x: Traced, dims: Dims, correction: Number | None, keepdim: bool) -> Traced:
    """The square root of the variance."""
    return c.emit(Sqrt(), _variance(c, x, dims, correction, keepdim))


def var_mean(
    c: Context, x: Traced, dims: Dims, correction: Number | None, keepdim: bool
) -> tuple[Traced, Traced]:
    """The variance and the mean."""
    mean = c.emit(Mean(axes_of(dims, x.ndim), keepdim), x)
    return _variance(c, x, dims, correction, keepdim), mean


def logsumexp(c: Context, x: Traced, dims: Dims, keepdim: bool) -> Traced:
    """log of the sum of exponentials, without overflow."""
    return c.emit(LogSumExp(axes_of(dims, x.ndim), keepdim), c.cast(x, c.dtype))


def vector_norm(
    c: Context, x: Traced, order: Number, dims: Dims, keepdim: bool, dtype: DType | None
) -> Traced:
    """The norm of the entries, of any order."""
    axes = axes_of(dims, x.ndim)
    x = c.cast(x, c.dtype)
    if order == 0:
        nonzero = c.emit(NotEqual(), x, c.literal(0, x.dtype))
        return c.emit(Sum(axes, keepdim), c.cast(nonzero, c.dtype))
    if order == 2:
        return c.emit(Sqrt(), c.emit(Sum(axes, keepdim), c.emit(Square(), x)))
    size = c.emit(Abs(), x)
    if order in (float("inf"), float("-inf")):
        return c.emit(Max(axes, keepdim) if order > 0 else Min(axes, keepdim), size)
    if order == 1:
        return c.emit(Sum(axes, keepdim), size)
    powers = elementwise(c, Pow(), size, float(order))
    return elementwise(c, Pow(), c.emit(Sum(axes, keepdim), powers), 1 / order)


def _running(op: type[Op]) -> Converter:
    def converter(c: Context, x: Traced, dim: int, dtype: DType | None) -> Traced:
        wide = c.cast(x, c.dtype)
        return wide if x.ndim == 0 else c.emit(op(axis_of(dim, x.ndim)), wide)  # type: ignore[call-arg]

    return converter


def _running_extreme(op: type[Op]) -> Converter:
    def converter(c: Context, x: Traced, dim: int) -> Converted:
        return c.emit_all(op(axis_of(dim, x.ndim)), x)  # type: ignore[call-arg]

    return converter


def sort(c: Context, x: Traced, dim: int = -1, descending: bool = False) -> Converted:
    """Sorted values, and where they were."""
    return c.emit_all(Sort(axis_of(dim, x.ndim), descending), x)


def sort_stable(
    c: Context, x: Traced, stable: bool | None, dim: int = -1, descending: bool = False
) -> Converted:
    """The same; every sort is stable."""
    return sort(c, x, dim, descending)


def argsort(c: Context, x: Traced, dim: int = -1, descending: bool = False) -> Traced:
    """Where the sorted values were."""
    _, indices = c.emit_all(Sort(axis_of(dim, x.ndim), descending), x)
    return indices


def argsort_stable(
    c: Context, x: Traced, stable: bool, dim: int = -1, descending: bool = False
) -> Traced:
    """The same; every sort is stable."""
    return argsort(c, x, dim, descending)


def topk(c: Context, x: Traced, k: Size, dim: int, largest: bool, ordered: bool) -> Converted:
    """The k extreme values along an axis, in order."""
    if x.ndim == 0:
        raise Unsupported("topk of a tensor without dimensions")
    return c.emit_all(TopK(known(k, "k"), axis_of(dim, x.ndim), largest, ordered), x)


CONVERTERS: dict[str, Converter] = {
    "sum.default": _of_all(Sum),
    "sum.dim_IntList": _over(Sum),
    "mean.default": _of_all(Mean),
    "mean.dim": _over(Mean),
    "prod.default": _of_all(Prod),
    "prod.dim_int": _over(Prod),
    "amax.default": _over(Max),
    "amin.default": _over(Min),
    "max.default": _over(Max),
    "min.default": _over(Min),
    "max.dim": _extreme(Max, ArgMax),
    "min.dim": _extreme(Min, ArgMin),
    "max.other": lambda c, a, b: elementwise(c, Maximum(), a, b),
    "min.other": lambda c, a, b: elementwise(c, Minimum(), a, b),
    "argmax.default": _position(ArgMax),
    "argmin.default": _position(ArgMin),
    "any.default": _truth(Any),
    "any.dim": _truth(Any),
    "any.dims": _truth(Any),
    "all.default": _truth(All),
    "all.dim": _truth(All),
    "all.dims": _truth(All),
    "var.correction": var,
    "std.correction": std,
    "var_mean.correction": var_mean,
    "logsumexp.default": logsumexp,
    "linalg_vector_norm.default": vector_norm,
    "cumsum.default": _running(CumSum),
    "cumprod.default": _running(CumProd),
    "cummax.default": _running_extreme(CumMax),
    "cummin.default": _running_extreme(CumMin),
    "sort.default": sort,
    "sort.stable": sort_stable,
    "argsort.default": argsort,
    "argsort.stable": argsort_stable,
    "topk.default": topk,
}
