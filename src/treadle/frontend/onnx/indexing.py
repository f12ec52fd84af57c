"""Gathers, scatters, sorting and choosing by position."""

from treadle.expr.dtype import boolean, i32, i64
from treadle.expr.scalar import as_expr
from treadle.frontend.onnx.compose import (
    add,
    along_axis,
    axis_of,
    cast,
    counted,
    cut,
    expand,
    greater_equal,
    insert_axis,
    reshape,
    where,
)
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.value import Known
from treadle.ir.graph_builder import Traced
from treadle.ops.binary import Mod
from treadle.ops.compare import Equal
from treadle.ops.index import Gather, GatherElements, GatherNd, ScatterElements, ScatterNd
from treadle.ops.sort import TopK


@converter("Gather")
def gather(x: Traced, indices: Traced, *, axis: int = 0) -> Traced:
    """Slices at positions."""
    return Gather(axis)(x, indices)


@converter("GatherElements", since=11)
def gather_elements(x: Traced, indices: Traced, *, axis: int = 0) -> Traced:
    """Elements at positions along one axis."""
    return GatherElements(axis)(x, indices)


@converter("GatherND", since=11)
def gather_nd(x: Traced, indices: Traced, *, batch_dims: int = 0) -> Traced:
    """Slices at tuples of positions."""
    return GatherNd(batch_dims)(x, indices)


@converter("ScatterElements", since=11)
def scatter_elements(
    x: Traced, indices: Traced, updates: Traced, *, axis: int = 0, reduction: str = "none"
) -> Traced:
    """Elements put at positions along one axis."""
    if x.dtype.is_bool and reduction != "none":
        found = ScatterElements(axis, reduction)(cast(x, i32), indices, cast(updates, i32))  # type: ignore[arg-type]
        return cast(found, boolean)
    return ScatterElements(axis, reduction)(x, indices, updates)  # type: ignore[arg-type]  (ONNX has the same words)


@converter("Scatter", since=9)
def scatter(x: Traced, indices: Traced, updates: Traced, *, axis: int = 0) -> Traced:
    """The older name of ScatterElements."""
    return ScatterElements(axis)(x, indices, updates)


@converter("ScatterND", since=11)
def scatter_nd(x: Traced, indices: Traced, updates: Traced, *, reduction: str = "none") -> Traced:
    """Slices put at tuples of positions."""
    return ScatterNd(reduction)(x, indices, updates)  # type: ignore[arg-type]  (ONNX has the same words)


@converter("OneHot", since=9)
def one_hot(indices: Traced, depth: Known, values: Traced, *, axis: int = -1) -> Traced:
    """The second value at the index along a new axis, the first elsewhere; negative indices count
    from the end."""
    size = depth.expr() if not depth.dtype.is_float else as_expr(int(depth.item()))
    rank = indices.ndim + 1
    k = axis_of(axis, rank)
    place = insert_axis(cast(indices, i64), k)
    wrapped = where(greater_equal(place, 0), place, add(place, place.builder.literal(size, i64)))
    chosen = Equal()(wrapped, along_axis(counted(indices, size), k, rank))
    off, on = (reshape(cut(values, 0, v, v + 1)) for v in (0, 1))
    return where(chosen, on, off)


@converter("TopK", since=10, sizes=("k",))
def top_k(
    x: Traced,
    k: Known,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,  # noqa: A002  (ONNX's name)
) -> tuple[Traced, ...]:
    """The k best elements and where they stand."""
    return x.builder.emit_all(TopK(k.size(), axis, bool(largest), bool(sorted)), x)


@converter("TopK")
def top_k_attribute(x: Traced, *, k: int, axis: int = -1) -> tuple[Traced, ...]:
    """The k largest elements and where they stand."""
    return x.builder.emit_all(TopK(k, axis), x)


@converter("TensorScatter", since=24)
def tensor_scatter(
    past: Traced,
    update: Traced,
    starts: Traced | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Traced:
    """``update`` written into a cache along ``axis``, from each sample's start on."""
    k = axis_of(axis, past.ndim)
    steps = along_axis(counted(past, update.shape[k]), k, past.ndim)
    if starts is not None:
        steps = add(steps, along_axis(cast(starts, i64), 0, past.ndim))
    if mode == "circular":
        steps = Mod()(steps, past.builder.literal(past.shape[k], i64))
    return ScatterElements(k)(past, expand(steps, update.shape), update)


CONVERTERS = (
    *(
        gather,
        gather_elements,
        gather_nd,
        scatter_elements,
        scatter,
        scatter_nd,
        one_hot,
        top_k,
        top_k_attribute,
    ),
    tensor_scatter,
)
