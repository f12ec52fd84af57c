"""Reading and writing at positions that are data."""

from collections.abc import Sequence

from treadle.expr.dtype import i64
from treadle.expr.scalar import Const, Expr, Var, as_expr, int_value
from treadle.expr.simplify import simplify
from treadle.frontend.torch.context import (
    Context,
    Converter,
    Operand,
    Size,
    Unsupported,
    axis_of,
    known,
)
from treadle.frontend.torch.converters.binary import where
from treadle.frontend.torch.converters.data_sized import (
    is_mask,
    places_of,
    selected,
    unmasked,
)
from treadle.frontend.torch.converters.shape import slice_bounds, sliced, wrapped
from treadle.ir.graph_builder import Traced
from treadle.ops._shapes import is_one, product, same_dim
from treadle.ops.binary import Add, Mul
from treadle.ops.index import (
    Gather,
    GatherElements,
    GatherNd,
    OneHot,
    ScatterElements,
    ScatterNd,
)
from treadle.ops.shape import Concat

Positions = tuple[Traced | None, ...]


def gather(c: Context, x: Traced, dim: int, index: Traced, *_: object) -> Traced:
    """x at each index along one axis."""
    if x.ndim == 0:
        return x
    return c.emit(GatherElements(axis_of(dim, x.ndim)), x, index)


def index_select(c: Context, x: Traced, dim: int, index: Traced) -> Traced:
    """Slices along one axis."""
    if x.ndim == 0:
        return x
    if index.ndim == 0:
        index = c.reshape(index, (1,))
    return c.emit(Gather(axis_of(dim, x.ndim)), x, index)


def embedding(c: Context, weight: Traced, indices: Traced, *_: object) -> Traced:
    """Rows of a table."""
    return c.emit(Gather(0), weight, indices)


def one_hot(c: Context, indices: Traced, classes: Size = -1) -> Traced:
    """One at each index, zero elsewhere."""
    if int_value(classes) == -1:
        raise Unsupported("the number of classes depends on data; pass num_classes")
    off, on = c.literal(0, c.dtype), c.literal(1, c.dtype)
    return c.emit(OneHot(classes, -1), indices, off, on)


def index(c: Context, x: Traced, positions: Positions) -> Traced:
    """x[positions], some of them left out: NumPy's advanced indexing."""
    if any(is_mask(p) for p in positions):
        if len(positions) == 1:
            return selected(c, x, positions[0])
        positions = unmasked(c, positions)
    axes, tensors = _indexed(x, positions)
    if len(axes) == 1:
        return c.emit(Gather(axes[0]), x, tensors[0])
    rest = tuple(k for k in range(x.ndim) if k not in axes)
    tuples, batch = _tuples(c, tensors)
    found = c.emit(GatherNd(), c.permute(x, (*axes, *rest)), tuples)
    return c.permute(found, _placed(axes, rest, len(batch)))


def _indexed(x: Traced, positions: Positions) -> tuple[tuple[int, ...], list[Traced]]:
    """The axes that are indexed, and by what."""
    pairs = [(k, p) for k, p in enumerate(positions) if p is not None]
    for _, p in pairs:
        if not p.dtype.is_int or p.dtype.kind == "uint":
            raise Unsupported(f"positions of {p.dtype}")
    return tuple(k for k, _ in pairs), [p for _, p in pairs]


def _tuples(c: Context, tensors: Sequence[Traced]) -> tuple[Traced, tuple[Expr, ...]]:
    """Indices of several axes side by side in a last dimension; and their common shape."""
    shape = broadcast(tensors)
    columns = [c.reshape(c.expand(c.cast(p, i64), shape), (*shape, 1)) for p in tensors]
    return columns[0] if len(columns) == 1 else c.emit(Concat(len(shape)), *columns), shape


def broadcast(tensors: Sequence[Traced]) -> tuple[Expr, ...]:
    """The common shape of tensors that broadcast."""
    shape: list[Expr] = [Const(1, i64)] * max(t.ndim for t in tensors)
    for t in tensors:
        for k, d in enumerate(reversed(t.shape), 1):
            if is_one(shape[-k]):
                shape[-k] = d
    return tuple(shape)


def _placed(axes: tuple[int, ...], rest: tuple[int, ...], batch: int) -> tuple[int, ...]:
    """How (batch, rest) is permuted into the order of NumPy's result.

    Indexed axes side by side are replaced where they stood; otherwise the indices' dimensions come
    first.
    """
    adjacent = axes == tuple(range(axes[0], axes[0] + len(axes)))
    before = sum(k < axes[0] for k in rest) if adjacent else 0
    front = range(batch, batch + before)
    behind = range(batch + before, batch + len(rest))
    return (*front, *range(batch), *behind)


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(list(order).index(k) for k in range(len(order)))


def index_put(
    c: Context,
    x: Traced,
    positions: Positions,
    values: Traced,
    accumulate: bool = False,
    *_: object,
) -> Traced:
    """x with values put at (or added to) positions."""
    masks = [p for p in positions if p is not None and is_mask(p)]
    if masks:
        if len(positions) > 1:
            raise Unsupported("a mask among other positions")
        if all(is_one(d) for d in values.shape):
            return _masked_put(c, x, masks[0], values, accumulate)
        return _selected_put(c, x, masks[0], values, accumulate)
    axes, tensors = _indexed(x, positions)
    rest = tuple(k for k in range(x.ndim) if k not in axes)
    tuples, batch = _tuples(c, tensors)
    order = _placed(axes, rest, len(batch))
    # The values have the shape of x[positions]; ScatterNd wants the indices' dimensions first.
    own = (*batch, *(x.shape[k] for k in rest))
    full = c.expand(c.cast(values, x.dtype), tuple(own[k] for k in order))
    updates = c.permute(full, _inverse(order))
    front = (*axes, *rest)
    op = ScatterNd("add" if accumulate else "none")
    written = c.emit(op, c.permute(x, front), tuples, updates)
    return c.permute(written, _inverse(front))


def _masked_put(c: Context, x: Traced, mask: Traced, values: Traced, accumulate: bool) -> Traced:
    """One mask of the leading axes and one value: a selection."""
    column = c.reshape(mask, (*mask.shape, *[1] * (x.ndim - mask.ndim)))
    value = c.reshape(c.cast(values, x.dtype), ())
    changed = c.emit(Add(), x, value) if accumulate else value
    return where(c, column, changed, x)


def _selected_put(c: Context, x: Traced, mask: Traced, values: Traced, accumulate: bool) -> Traced:
    """One mask of the leading axes, and a row for each of its elements."""
    rest = x.shape[mask.ndim :]
    listed = values.ndim == 1 + len(rest) and not is_one(values.shape[0])
    size = values.shape[0] if listed else Var(c.builder.fresh(f"{c.node.name}_size"))
    places = places_of(c, mask, size)
    rows = c.reshape(x, (product(mask.shape), *rest))
    updates = c.expand(c.cast(values, x.dtype), (size, *rest))
    op = ScatterNd("add" if accumulate else "none")
    return c.reshape(c.emit(op, rows, c.reshape(places, (size, 1)), updates), x.shape)


def _fitting(c: Context, x: Traced, index_: Traced, source: Traced) -> Traced:
    """The part of ``source`` that the indices' shape takes."""
    for k, d in enumerate(index_.shape):
        if not same_dim(d, source.shape[k]):
            source = sliced(c, source, k, 0, d)
    return c.cast(source, x.dtype)


def scatter_src(c: Context, x: Traced, dim: int, index_: Traced, source: Traced) -> Traced:
    """x with elements of a source written along one axis."""
    return _scatter(c, x, dim, index_, source, "none")


def scatter_value(c: Context, x: Traced, dim: int, index_: Traced, value: Operand) -> Traced:
    """x with one number written along one axis."""
    number = c.operand(value, x.dtype)
    return _scatter(c, x, dim, index_, c.expand(number, index_.shape), "none")


def scatter_add(c: Context, x: Traced, dim: int, index_: Traced, source: Traced) -> Traced:
    """x with elements of a source added along one axis."""
    return _scatter(c, x, dim, index_, source, "add")


_REDUCTIONS = {
    "sum": "add",
    "add": "add",
    "prod": "mul",
    "multiply": "mul",
    "amax": "max",
    "amin": "min",
}


def scatter_reduce(
    c: Context,
    x: Traced,
    dim: int,
    index_: Traced,
    source: Traced,
    reduce: str,
    include_self: bool = True,
) -> Traced:
    """x with elements of a source combined along one axis."""
    if not include_self or reduce not in _REDUCTIONS:
        raise Unsupported(f"reduce={reduce!r}, include_self={include_self}")
    return _scatter(c, x, dim, index_, source, _REDUCTIONS[reduce])


def _scatter(
    c: Context, x: Traced, dim: int, index_: Traced, source: Traced, reduction: str
) -> Traced:
    if x.ndim == 0:
        raise Unsupported("a scatter into a tensor without dimensions")
    op = ScatterElements(axis_of(dim, x.ndim), reduction)  # type: ignore[arg-type]  (one of the table)
    return c.emit(op, x, index_, _fitting(c, x, index_, source))


def select_scatter(c: Context, x: Traced, source: Traced, dim: int, position: Size) -> Traced:
    """x with one slice along an axis exchanged."""
    axis = axis_of(dim, x.ndim)
    first = wrapped(position, x.shape[axis])
    column = c.reshape(source, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    return _spliced(c, x, c.cast(column, x.dtype), axis, first, simplify(as_expr(first) + 1))


def slice_scatter(
    c: Context,
    x: Traced,
    source: Traced,
    dim: int = 0,
    start: Size | None = None,
    stop: Size | None = None,
    step: Size = 1,
) -> Traced:
    """x with the elements of a slice exchanged."""
    axis = axis_of(dim, x.ndim)
    stride = known(step, "the step of a slice")
    count = source.shape[axis]
    first, last = slice_bounds(c, x.shape[axis], start, stop, count, stride)
    source = c.cast(source, x.dtype)
    if stride == 1:
        return _spliced(c, x, source, axis, first, last)
    places = c.count(count)
    places = c.emit(Mul(), places, c.literal(stride, i64))
    places = c.emit(Add(), places, c.literal(first, i64))
    front = (axis, *(k for k in range(x.ndim) if k != axis))
    tuples = c.reshape(places, (count, 1))
    written = c.emit(ScatterNd(), c.permute(x, front), tuples, c.permute(source, front))
    return c.permute(written, _inverse(front))


def _spliced(c: Context, x: Traced, middle: Traced, axis: int, first: Size, last: Size) -> Traced:
    """What stands before ``first``, then ``middle``, then what stands from ``last`` on."""
    parts: list[Traced] = []
    if int_value(first) != 0:
        parts.append(sliced(c, x, axis, 0, first))
    parts.append(middle)
    if not same_dim(last, x.shape[axis]):
        parts.append(sliced(c, x, axis, last, x.shape[axis]))
    return middle if len(parts) == 1 else c.emit(Concat(axis), *parts)


CONVERTERS: dict[str, Converter] = {
    "gather.default": gather,
    "index_select.default": index_select,
    "embedding.default": embedding,
    "one_hot.default": one_hot,
    "index.Tensor": index,
    "_unsafe_index.Tensor": index,
    "index_put.default": index_put,
    "_unsafe_index_put.default": index_put,
    "scatter.src": scatter_src,
    "scatter.value": scatter_value,
    "scatter_add.default": scatter_add,
    "scatter_reduce.two": scatter_reduce,
    "select_scatter.default": select_scatter,
    "slice_scatter.default": slice_scatter,
}
