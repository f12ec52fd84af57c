"""Shapes, slices, joins, and other movements of whole elements."""

from collections.abc import Sequence

from treadle.expr.dtype import i64
from treadle.expr.scalar import Expr, as_expr, ceildiv, int_value, maximum, minimum, select
from treadle.expr.simplify import simplify
from treadle.frontend.onnx.compose import (
    agreeing,
    along_axis,
    axis_of,
    cast,
    counted,
    cut,
    dims_product,
    expand,
    less,
    permute,
    reshape,
    sub,
    where,
)
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.rules import broken, paired, ranked, require
from treadle.frontend.onnx.value import Known, Operand
from treadle.ir.graph_builder import Traced
from treadle.ops._shapes import product, same_dim
from treadle.ops.index import GatherElements
from treadle.ops.pad import Pad
from treadle.ops.shape import Concat, Flip, Tile, Triangular

# The most parts that one node splits a tensor into.
MOST_PARTS = 1 << 16


def quotient(total: Expr, part: Expr) -> Expr:
    """total / part where the quotient is whole; factors that both have are cancelled."""
    if int_value(total) is None and same_dim(total, part):
        return as_expr(1)
    return simplify(total // part)


def reshaped_dims(x: Sequence[Expr], wanted: Sequence[Expr], allowzero: bool) -> list[Expr]:
    """The dimensions that ONNX's Reshape means: 0 copies one, -1 is what is left."""
    copied = [k for k, d in enumerate(wanted) if int_value(d) == 0 and not allowzero]
    require(not copied or copied[-1] < len(x), "the shape copies a dimension that there is not")
    dims = [x[k] if k in copied else d for k, d in enumerate(wanted)]
    free = [k for k, d in enumerate(dims) if int_value(d) == -1]
    if not free:
        return dims
    kept = list(x)
    rest = [d for k, d in enumerate(dims) if k != free[0]]
    for d in list(rest):
        # What stands on both sides needs no division, which symbols would not survive.
        same = next((k for k in kept if same_dim(k, d)), None)
        if same is not None and int_value(d) != 0:
            kept.remove(same)
            rest.remove(d)
    below = product(rest)
    dims[free[0]] = quotient(product(kept), below) if int_value(below) != 0 else as_expr(0)
    return dims


@converter("Reshape", since=5)
def reshape_to(x: Traced, shape: Known, *, allowzero: int = 0) -> Traced:
    """To a shape that must be known."""
    return reshape(x, *reshaped_dims(x.shape, shape.sizes(), bool(allowzero)))


@converter("Reshape")
def reshape_to_attribute(x: Traced, *, shape: tuple[int, ...] = ()) -> Traced:
    """To a shape in an attribute."""
    return reshape(x, *reshaped_dims(x.shape, [as_expr(d) for d in shape], False))


@converter("Flatten")
def flatten(x: Traced, *, axis: int = 1) -> Traced:
    """The axes before ``axis`` as one, the rest as another."""
    k = axis + x.ndim if axis < 0 else axis
    return reshape(x, dims_product(x.shape[:k]), dims_product(x.shape[k:]))


def squeezed(x: Traced, axes: Sequence[int] | None) -> Traced:
    """Without some axes of size one; all of them unless said."""
    found = (
        [k for k, d in enumerate(x.shape) if int_value(d) == 1]
        if axes is None
        else [axis_of(a, x.ndim) for a in axes]
    )
    for k in found:
        if int_value(x.shape[k]) not in (1, None):
            raise broken(f"axis {k} of size {x.shape[k]} cannot be squeezed")
    return reshape(x, *[d for k, d in enumerate(x.shape) if k not in found])


@converter("Squeeze", since=13)
def squeeze(x: Traced, axes: Known | None = None) -> Traced:
    """Without some axes of size one."""
    return squeezed(x, None if axes is None else axes.ints())


@converter("Squeeze")
def squeeze_attribute(x: Traced, *, axes: tuple[int, ...] | None = None) -> Traced:
    """Without some axes of size one."""
    return squeezed(x, axes)


def unsqueezed(x: Traced, axes: Sequence[int]) -> Traced:
    """With axes of size one where the result shall have them."""
    rank = x.ndim + len(axes)
    places = {axis_of(a, rank) for a in axes}
    require(len(places) == len(axes), "an axis is named twice")
    rest = iter(x.shape)
    return reshape(x, *[1 if k in places else next(rest) for k in range(rank)])


@converter("Unsqueeze", since=13)
def unsqueeze(x: Traced, axes: Known) -> Traced:
    """With axes of size one."""
    return unsqueezed(x, axes.ints())


@converter("Unsqueeze")
def unsqueeze_attribute(x: Traced, *, axes: tuple[int, ...]) -> Traced:
    """With axes of size one."""
    return unsqueezed(x, axes)


@converter("Transpose")
def transpose(x: Traced, *, perm: tuple[int, ...] | None = None) -> Traced:
    """Axes in another order; reversed unless said."""
    return permute(x, *(perm if perm is not None else reversed(range(x.ndim))))


@converter("Expand", since=8)
def expand_to(x: Traced, shape: Known) -> Traced:
    """Broadcast with a shape: dimensions of one there keep those of the operand."""
    wanted = list(shape.sizes())
    rank = max(x.ndim, len(wanted))
    ours = [as_expr(1)] * (rank - x.ndim) + list(x.shape)
    theirs = [as_expr(1)] * (rank - len(wanted)) + wanted
    return expand(x, [a if int_value(b) == 1 else b for a, b in zip(ours, theirs, strict=True)])


@converter("Concat", since=4)
def concat_all(*xs: Traced, axis: int) -> Traced:
    """One after another."""
    k = axis_of(axis, xs[0].ndim)
    return xs[0] if len(xs) == 1 else Concat(k)(*agreeing(*xs, but=k))


def split_at(x: Traced, axis: int, sizes: Sequence[Expr]) -> tuple[Traced, ...]:
    """Consecutive parts of given sizes."""
    parts: list[Traced] = []
    start: Expr = as_expr(0)
    for size in sizes:
        parts.append(cut(x, axis, start, start + size))
        start = start + size
    return tuple(parts)


def _even(size: Expr, count: int) -> list[Expr]:
    """Parts of equal size; the last one may be smaller."""
    part = simplify(ceildiv(size, count))
    return [part] * (count - 1) + [simplify(size - part * (count - 1))]


@converter("Split", since=13)
def split(
    site: Site,
    x: Traced,
    sizes: Known | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
) -> tuple[Traced, ...]:
    """Parts of given sizes, or as many as there are results."""
    k = axis_of(axis, x.ndim)
    count = num_outputs or len(site.wanted)
    require(0 < count <= MOST_PARTS, f"a tensor is not split into {count} parts")
    return split_at(x, k, sizes.sizes() if sizes is not None else _even(x.shape[k], count))


@converter("Split", since=2)
def split_attribute(
    site: Site, x: Traced, *, axis: int = 0, split: tuple[int, ...] | None = None
) -> tuple[Traced, ...]:
    """Parts of given sizes."""
    k = axis_of(axis, x.ndim)
    return split_at(
        x, k, [as_expr(s) for s in split] if split else _even(x.shape[k], len(site.wanted))
    )


def _bound(value: Expr, size: Expr, low: int, high: Expr) -> Expr:
    """A bound of a slice counted from the front and kept between ``low`` and ``high``."""
    number, extent, top = int_value(value), int_value(size), int_value(high)
    if number is not None and extent is not None and top is not None:
        from_front = number + extent if number < 0 else number
        return as_expr(min(max(from_front, low), top))
    if number is not None:
        if number >= 1 << 31:
            return high
        # Counted from the end, or far before the beginning.
        moved = size + number if number < 0 else value
        return (
            as_expr(low) if number <= -(1 << 31) else simplify(minimum(maximum(moved, low), high))
        )
    moved = select(value < 0, value + size, value)
    return simplify(minimum(maximum(moved, low), high))


def sliced(x: Traced, axis: int, start: Expr, stop: Expr, step: int) -> Traced:
    """A slice along one axis as Python's."""
    size = x.shape[axis]
    if step > 0:
        first = _bound(start, size, 0, size)
        last = _bound(stop, size, 0, size)
        a, b = int_value(first), int_value(last)
        if a is not None and b is not None:
            last = as_expr(max(a, b))
        return cut(x, axis, first, last, step)
    # Element k of the reversed axis is element size - 1 - k.
    first = simplify(size - 1 - _bound(start, size, 0, simplify(size - 1)))
    last = simplify(size - 1 - _bound(stop, size, -1, simplify(size - 1)))
    a, b = int_value(first), int_value(last)
    if a is not None and b is not None:
        last = as_expr(max(a, b))
    return cut(Flip((axis,))(x), axis, first, last, -step)


@converter("Slice", since=10, sizes=("starts", "ends"))
def slice_by_inputs(
    x: Traced, starts: Known, ends: Known, axes: Known | None = None, steps: Known | None = None
) -> Traced:
    """Slices along some axes."""
    first, last = starts.sizes(), ends.exprs()
    named = range(len(first)) if axes is None else axes.ints()
    strides = (1,) * len(first) if steps is None else steps.ints()
    for axis, start, stop, step in paired("axes, starts, ends, steps", named, first, last, strides):
        x = sliced(x, axis_of(axis, x.ndim), start, stop, step)
    return x


@converter("Slice")
def slice_by_attributes(
    x: Traced,
    *,
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...] | None = None,
) -> Traced:
    """Slices along some axes."""
    named = axes or tuple(range(len(starts)))
    for axis, start, stop in paired("axes, starts and ends", named, starts, ends):
        x = sliced(x, axis_of(axis, x.ndim), as_expr(start), as_expr(stop), 1)
    return x


def _padded(
    x: Traced, pads: Sequence[Expr], axes: Sequence[int], mode: str, value: Operand | float
) -> Traced:
    require(len(pads) == 2 * len(axes), f"{len(pads)} pads are given for {len(axes)} axes")
    pairs: list[tuple[Expr, Expr]] = [(as_expr(0), as_expr(0))] * x.ndim
    for k, axis in enumerate(axes):
        pairs[axis_of(axis, x.ndim)] = (pads[k], pads[k + len(axes)])
    if mode != "constant":
        return Pad(
            tuple(pairs), "wrap" if mode == "wrap" else "edge" if mode == "edge" else "reflect"
        )(x)
    if not isinstance(value, Operand):
        return Pad(tuple(pairs), "constant", value)(x)
    if value.known is not None:
        return Pad(tuple(pairs), "constant", value.known.item())(x)
    return _padded_by(x, tuple(pairs), value.traced)


def _padded_by(x: Traced, pairs: tuple[tuple[Expr, Expr], ...], value: Traced | None) -> Traced:
    """Padding by a value that is computed: chosen where a padded mask says so."""
    assert value is not None
    padded = Pad(pairs, "constant", 0)(x)
    inside = Pad(pairs, "constant", 0)(expand(cast(x.builder.literal(1, i64), i64), x.shape))
    return where(less(inside, 1), reshape(value), padded)


@converter("Pad", since=11)
def pad(
    x: Traced,
    pads: Known,
    value: Operand | None = None,
    axes: Known | None = None,
    *,
    mode: str = "constant",
) -> Traced:
    """Pads of all axes, or of some (from opset 18 on)."""
    named = range(x.ndim) if axes is None else axes.ints()
    return _padded(x, pads.sizes(), named, mode, 0.0 if value is None else value)


@converter("Pad", since=2)
def pad_by_attributes(
    x: Traced, *, pads: tuple[int, ...], mode: str = "constant", value: float = 0.0
) -> Traced:
    """Pads of all axes."""
    return _padded(x, [as_expr(p) for p in pads], range(x.ndim), mode, value)


@converter("Tile", since=6)
def tile(x: Traced, repeats: Known) -> Traced:
    """Repeated along every axis."""
    return Tile(repeats.sizes())(x)


@converter("Trilu", since=14)
def trilu(x: Traced, k: Known | None = None, *, upper: int = 1) -> Traced:
    """The triangle above or below a diagonal."""
    return Triangular(bool(upper), 0 if k is None else k.size())(x)


@converter("DepthToSpace")
def depth_to_space(x: Traced, *, blocksize: int, mode: str = "DCR") -> Traced:
    """Blocks of channels become blocks of space."""
    ranked(x, 4, "an image")
    n, c, h, w = x.shape
    inner = quotient(c, as_expr(blocksize * blocksize))
    if mode == "DCR":
        parts = permute(reshape(x, n, blocksize, blocksize, inner, h, w), 0, 3, 4, 1, 5, 2)
    else:
        parts = permute(reshape(x, n, inner, blocksize, blocksize, h, w), 0, 1, 4, 2, 5, 3)
    return reshape(parts, n, inner, simplify(h * blocksize), simplify(w * blocksize))


@converter("SpaceToDepth")
def space_to_depth(x: Traced, *, blocksize: int, mode: str = "DCR") -> Traced:
    """Blocks of space become channels, before (DCR) or after those there are."""
    ranked(x, 4, "an image")
    n, c, h, w = x.shape
    rows, columns = (quotient(d, as_expr(blocksize)) for d in (h, w))
    parts = reshape(x, n, c, rows, blocksize, columns, blocksize)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return reshape(permute(parts, *order), n, simplify(c * (blocksize * blocksize)), rows, columns)


@converter("ReverseSequence", since=10)
def reverse_sequence(
    x: Traced, lengths: Traced, *, batch_axis: int = 1, time_axis: int = 0
) -> Traced:
    """The first ``lengths[b]`` steps of each sequence in reverse order."""
    batch_axis, time_axis = axis_of(batch_axis, x.ndim), axis_of(time_axis, x.ndim)
    ranked(lengths, 1, "the list of lengths")
    steps = along_axis(counted(x, x.shape[time_axis]), time_axis, x.ndim)
    limits = along_axis(cast(lengths, i64), batch_axis, x.ndim)
    places = where(less(steps, limits), sub(sub(limits, steps), 1), steps)
    return GatherElements(time_axis)(x, expand(places, x.shape))


@converter("CenterCropPad", since=18)
def center_crop_pad(x: Traced, shape: Known, *, axes: tuple[int, ...] | None = None) -> Traced:
    """Cropped or padded with zeros around the center to a shape."""
    named = axes if axes is not None else range(x.ndim)
    for axis, wanted in paired("axes and sizes", named, shape.ints()):
        k = axis_of(axis, x.ndim)
        size = int_value(x.shape[k])
        if size is None:
            raise broken("CenterCropPad needs dimensions that are known")
        before = abs(size - wanted) // 2
        if size > wanted:
            x = cut(x, k, before, before + wanted)
        elif size < wanted:
            pads = [(as_expr(0), as_expr(0))] * x.ndim
            pads[k] = (as_expr(before), as_expr(wanted - size - before))
            x = Pad(tuple(pads))(x)
    return x


CONVERTERS = (
    *(
        reshape_to,
        reshape_to_attribute,
        flatten,
        squeeze,
        squeeze_attribute,
        unsqueeze,
        unsqueeze_attribute,
        transpose,
    ),
    *(
        expand_to,
        concat_all,
        split,
        split_attribute,
        slice_by_inputs,
        slice_by_attributes,
        pad,
        pad_by_attributes,
    ),
    *(tile, trilu, depth_to_space, space_to_depth, reverse_sequence, center_crop_pad),
)
