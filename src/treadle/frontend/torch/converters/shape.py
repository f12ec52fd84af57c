"""Views as values: reshapes, permutations, slices, joins; PyTorch has worked out the shapes."""

from treadle.expr.bounds import Facts, prove
from treadle.expr.dtype import i64
from treadle.expr.scalar import Const, Expr, as_expr, int_value
from treadle.expr.simplify import simplify
from treadle.frontend.torch.context import (
    Context,
    Converter,
    Size,
    Unsupported,
    axis_of,
    known,
    plain,
    plain_size,
)
from treadle.ir.graph_builder import Traced
from treadle.ops._shapes import same_dim
from treadle.ops.binary import Add, Mul
from treadle.ops.elementwise import Bitcast
from treadle.ops.index import Gather
from treadle.ops.shape import Concat, Flip, Roll, Slice, Tile, Triangular


def view(c: Context, x: Traced, *_: object) -> Traced:
    """The node's shape, row-major order."""
    return c.reshape(x, c.shape)


def view_dtype(c: Context, x: Traced, *_: object) -> Traced:
    """The same bits as another dtype of the same width."""
    if x.dtype.bytes != c.dtype.bytes:
        raise Unsupported("a view as a dtype of another width")
    return x if x.dtype is c.dtype else Bitcast(c.dtype)(x)


def expand(c: Context, x: Traced, *_: object) -> Traced:
    """The node's shape, by repetition."""
    return c.expand(x, c.shape)


def permute(c: Context, x: Traced, dims: tuple[int, ...]) -> Traced:
    """Another order of axes."""
    return c.permute(x, tuple(d % max(x.ndim, 1) for d in dims))


def transpose(c: Context, x: Traced, first: int, second: int) -> Traced:
    """Two axes exchanged."""
    if x.ndim == 0:
        return x
    axes = list(range(x.ndim))
    axes[first], axes[second] = axes[second], axes[first]
    return c.permute(x, tuple(axes))


def t(c: Context, x: Traced) -> Traced:
    """A matrix transposed."""
    return c.permute(x, tuple(reversed(range(x.ndim))))


def sliced(c: Context, x: Traced, axis: int, start: Size, stop: Size, step: int = 1) -> Traced:
    """A slice with normalized bounds; the tensor itself when that is all of it."""
    whole = int_value(start) == 0 and step == 1 and same_dim(stop, x.shape[axis])
    if whole:
        return x
    return c.emit(Slice(axis, plain_size(start), plain_size(stop), step), x)


def slice_bounds(
    c: Context,
    extent: Expr,
    start: Size | None,
    stop: Size | None,
    count: Expr,
    step: int,
) -> tuple[Size, Size]:
    """Where a slice of ``count`` elements starts and stops; PyTorch lets bounds reach too far."""
    if step == 1 and (stop is None or (int_value(stop) or 0) >= _FAR):
        return simplify(extent - count), extent
    first = _first(c, 0 if start is None else start, extent)
    if int_value(count) == 0:
        return first, first
    # The last element decides, so that bounds beyond the end do no harm.
    last = as_expr(first) + (count - 1) * step + 1 if step > 1 else as_expr(first) + count
    return first, last


_FAR = 1 << 62  # what PyTorch writes for an open end is about the largest integer


def _first(c: Context, start: Size, extent: Expr) -> Size:
    """A start counted from the front, and no further than the end where both are known."""
    position, limit = int_value(start), int_value(extent)
    if position is None:
        negative = prove(as_expr(start) < 0, Facts.of(c.builder.assumes))
        return extent + start if negative else start
    if limit is None:
        return extent + position if position < 0 else position
    return max(0, limit + position) if position < 0 else min(position, limit)


def slice_tensor(
    c: Context,
    x: Traced,
    dim: int = 0,
    start: Size | None = None,
    stop: Size | None = None,
    step: Size = 1,
) -> Traced:
    """x[start:stop:step] along one axis."""
    axis = axis_of(dim, x.ndim)
    stride = known(step, "the step of a slice")
    first, last = slice_bounds(c, x.shape[axis], start, stop, c.shape[axis], stride)
    return sliced(c, x, axis, first, last, stride)


def select(c: Context, x: Traced, dim: int, index: Size) -> Traced:
    """x[index] along one axis, which goes."""
    axis = axis_of(dim, x.ndim)
    first = wrapped(index, x.shape[axis])
    return c.reshape(sliced(c, x, axis, first, as_expr(first) + 1), c.shape)


def wrapped(index: Size, extent: Expr) -> Size:
    """An index counted from the front."""
    number = int_value(index)
    return index if number is None or number >= 0 else simplify(extent + number)


def split_sizes(c: Context, x: Traced, sizes: tuple[Size, ...], dim: int = 0) -> tuple[Traced, ...]:
    """Consecutive parts."""
    axis = axis_of(dim, x.ndim)
    parts: list[Traced] = []
    offset: Size = 0
    for size in sizes:
        end = plain_size(as_expr(offset) + size)
        parts.append(sliced(c, x, axis, offset, end))
        offset = end
    return tuple(parts)


def split(c: Context, x: Traced, size: Size, dim: int = 0) -> tuple[Traced, ...]:
    """Consecutive parts of one size, the last may be smaller; as many as PyTorch says."""
    axis = axis_of(dim, x.ndim)
    return split_sizes(c, x, tuple(c.symbols.dims(v)[axis] for v in c.values), dim)


def unbind(c: Context, x: Traced, dim: int = 0) -> tuple[Traced, ...]:
    """All slices of one, without the axis."""
    axis = axis_of(dim, x.ndim)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return tuple(c.reshape(sliced(c, x, axis, k, k + 1), shape) for k in range(len(c.values)))


def cat(c: Context, tensors: tuple[Traced, ...], dim: int = 0) -> Traced:
    """One after another; old-style empty vectors are left out."""
    kept = [x for x in tensors if x.ndim == len(c.shape)]
    parts = [c.cast(x, c.dtype) for x in kept]
    return parts[0] if len(parts) == 1 else c.emit(Concat(axis_of(dim, len(c.shape))), *parts)


def stack(c: Context, tensors: tuple[Traced, ...], dim: int = 0) -> Traced:
    """One after another along a new axis."""
    axis = dim % len(c.shape)
    shape = (*c.shape[:axis], 1, *c.shape[axis + 1 :])
    columns = [c.reshape(c.cast(x, c.dtype), shape) for x in tensors]
    return columns[0] if len(columns) == 1 else c.emit(Concat(axis), *columns)


def repeat(c: Context, x: Traced, repeats: tuple[Size, ...]) -> Traced:
    """Tiles; leading counts add axes."""
    added = len(repeats) - x.ndim
    grown = c.reshape(x, (*[1] * added, *x.shape))
    if all(int_value(r) == 1 for r in repeats):
        return grown
    return c.emit(Tile(plain(repeats)), grown)


def repeat_interleave(
    c: Context, x: Traced, repeats: Size, dim: int | None = None, size: Size | None = None
) -> Traced:
    """Every element several times in a row."""
    if dim is None:
        x, dim = c.reshape(x, (_product(x.shape),)), 0
    axis = axis_of(dim, x.ndim)
    before, behind = x.shape[: axis + 1], x.shape[axis + 1 :]
    column = c.reshape(x, (*before, 1, *behind))
    return c.reshape(c.expand(column, (*before, repeats, *behind)), c.shape)


def _product(dims: tuple[Expr, ...]) -> Expr:
    total: Expr = Const(1, i64)
    for d in dims:
        total = total * d
    return simplify(total)


def flip(c: Context, x: Traced, dims: tuple[int, ...]) -> Traced:
    """Reversed along some axes."""
    return c.emit(Flip(tuple(d % max(x.ndim, 1) for d in dims)), x)


def roll(c: Context, x: Traced, shifts: tuple[Size, ...], dims: tuple[int, ...] = ()) -> Traced:
    """Moved around the end; of the flat tensor where no axis is named."""
    moves = tuple(known(s, "a shift") for s in shifts)
    if dims:
        return c.emit(Roll(moves, tuple(d % x.ndim for d in dims)), x)
    flat = c.reshape(x, (_product(x.shape),))
    return c.reshape(c.emit(Roll(moves, (0,)), flat), x.shape)


def triangle(upper: bool) -> Converter:
    """The upper or lower triangle of matrices."""

    def converter(c: Context, x: Traced, diagonal: Size = 0) -> Traced:
        return c.emit(Triangular(upper, diagonal), x)

    return converter


def unfold(c: Context, x: Traced, dim: int, size: int, step: int) -> Traced:
    """All windows along an axis, their elements last."""
    axis = axis_of(dim, x.ndim)
    count = c.shape[axis]
    starts = c.count(count)
    starts = c.emit(Mul(), starts, c.literal(step, i64)) if step != 1 else starts
    inner = c.count(size)
    places = c.emit(Add(), c.reshape(starts, (count, 1)), inner)
    found = c.emit(Gather(axis), x, places)
    order = [k for k in range(found.ndim) if k != axis + 1]
    return c.permute(found, (*order, axis + 1))


def diagonal(c: Context, x: Traced, offset: int = 0, first: int = 0, second: int = 1) -> Traced:
    """The diagonal of matrices in two axes, last."""
    a, b = axis_of(first, x.ndim), axis_of(second, x.ndim)
    order = [k for k in range(x.ndim) if k not in (a, b)]
    matrices = c.permute(x, (*order, a, b))
    rows, columns = matrices.shape[-2:]
    count = c.shape[-1]
    flat = c.reshape(matrices, (*matrices.shape[:-2], rows * columns))
    start: Size = offset if offset >= 0 else simplify(columns * -offset)
    places = c.count(count)
    stride = c.emit(Mul(), places, c.literal(simplify(columns + 1), i64))
    return c.emit(Gather(flat.ndim - 1), flat, c.emit(Add(), stride, c.literal(start, i64)))


def as_strided(
    c: Context,
    x: Traced,
    size: tuple[Size, ...],
    stride: tuple[Size, ...],
    offset: Size | None = None,
) -> Traced:
    """Strides of a dense tensor in row-major order: a reshape. Others alias, and are refused."""
    expected: Expr = Const(1, i64)
    for dim, step in zip(reversed(size), reversed(stride), strict=True):
        if int_value(dim) != 1 and not same_dim(step, expected):
            raise Unsupported("strides that are not those of a dense tensor")
        expected = simplify(expected * dim)
    if int_value(offset or 0) != 0 or not same_dim(expected, _product(x.shape)):
        raise Unsupported("strides over a part of a tensor")
    return c.reshape(x, c.shape)


def pixel_shuffle(c: Context, x: Traced, factor: int) -> Traced:
    """Channels to space: (…, c·r², h, w) -> (…, c, h·r, w·r)."""
    *batch, channels, height, width = x.shape
    lead = len(batch)
    split_up = (*batch, channels // (factor * factor), factor, factor, height, width)
    parts = c.reshape(x, split_up)
    order = (*range(lead + 1), lead + 3, lead + 1, lead + 4, lead + 2)
    return c.reshape(c.permute(parts, order), c.shape)


def pixel_unshuffle(c: Context, x: Traced, factor: int) -> Traced:
    """Space to channels: (…, c, h·r, w·r) -> (…, c·r², h, w)."""
    *batch, channels, height, width = x.shape
    lead = len(batch)
    split_up = (*batch, channels, height // factor, factor, width // factor, factor)
    parts = c.reshape(x, split_up)
    order = (*range(lead + 1), lead + 2, lead + 4, lead + 1, lead + 3)
    return c.reshape(c.permute(parts, order), c.shape)


CONVERTERS: dict[str, Converter] = {
    "view.default": view,
    "view.dtype": view_dtype,
    "_unsafe_view.default": view,
    "reshape.default": view,
    "unsqueeze.default": view,
    "squeeze.default": view,
    "squeeze.dim": view,
    "squeeze.dims": view,
    "flatten.using_ints": view,
    "unflatten.int": view,
    "expand.default": expand,
    "permute.default": permute,
    "transpose.int": transpose,
    "t.default": t,
    "slice.Tensor": slice_tensor,
    "select.int": select,
    "split.Tensor": split,
    "split_with_sizes.default": split_sizes,
    "unbind.int": unbind,
    "cat.default": cat,
    "stack.default": stack,
    "repeat.default": repeat,
    "repeat_interleave.self_int": repeat_interleave,
    "flip.default": flip,
    "roll.default": roll,
    "tril.default": triangle(upper=False),
    "triu.default": triangle(upper=True),
    "unfold.default": unfold,
    "diagonal.default": diagonal,
    "as_strided.default": as_strided,
    "pixel_shuffle.default": pixel_shuffle,
    "pixel_unshuffle.default": pixel_unshuffle,
}
