"""Operators whose results are as large as the values of their operands say.

PyTorch names such a size (``u0``) where it appears first; a ``match_cast`` gives it to the result.
"""

from collections.abc import Sequence

from treadle.expr.dtype import boolean, i64
from treadle.expr.scalar import Expr, Var, const
from treadle.frontend.torch.context import Context, Converter, Unsupported, axis_of
from treadle.ir.calls import AssertTrue, BindSymbol, MatchCast
from treadle.ir.graph_builder import Traced
from treadle.ir.types import tensor
from treadle.ops._shapes import product, same_dim
from treadle.ops.binary import Add, Maximum
from treadle.ops.compare import GreaterEqual
from treadle.ops.index import Gather, ScatterElements, ScatterNd
from treadle.ops.nonzero import FlatNonzero, Nonzero
from treadle.ops.reduce import All, Max
from treadle.ops.repeat import RepeatEach
from treadle.ops.shape import Slice
from treadle.ops.suppression import NonMaxSuppression
from treadle.ops.unique import Unique


def late_size(c: Context, axis: int = 0) -> Expr:
    """The size that PyTorch leaves to the node; at ``axis`` of the result, if it is one that
    another node had.
    """
    sizes = list(c.node.meta.get("unbacked_bindings") or ())
    if len(sizes) > 1:
        raise Unsupported(f"it has {len(sizes)} sizes that depend on data")
    return c.symbols.translate(sizes[0]) if sizes else c.shape[axis]


def refined(c: Context, x: Traced, shape: Sequence[Expr]) -> Traced:
    """A value of which only the rank is known, with its dimensions."""
    return c.emit(MatchCast(tensor(list(shape), x.dtype)), x)


def nonzero(c: Context, x: Traced) -> Traced:
    """Coordinates of elements that are not zero."""
    return c.emit(Nonzero(), x)


def is_mask(x: Traced | None) -> bool:
    """Whether positions are given as a mask."""
    return x is not None and x.dtype is boolean


def places_of(c: Context, mask: Traced, size: Expr) -> Traced:
    """The positions of a mask's elements, ``size`` of them, in row-major order."""
    return refined(c, c.emit(FlatNonzero(), mask), (size,))


def selected(c: Context, x: Traced, mask: Traced | None) -> Traced:
    """x[mask], of a mask of the leading axes."""
    assert mask is not None
    places = places_of(c, mask, late_size(c))
    rows = c.reshape(x, (product(x.shape[: mask.ndim]), *x.shape[mask.ndim :]))
    return c.emit(Gather(0), rows, places)


def unmasked(c: Context, positions: Sequence[Traced | None]) -> tuple[Traced | None, ...]:
    """Positions, each mask among them as the coordinates of its elements: one list for each of its
    axes.
    """
    given = [k for k, p in enumerate(positions) if p is not None]
    adjacent = given[-1] - given[0] + 1 == len(given)
    size = late_size(c, given[0] if adjacent else 0)
    found: list[Traced | None] = []
    for p in positions:
        if p is None or not is_mask(p):
            found.append(p)
            continue
        rows = refined(c, c.emit(Nonzero(), p), (size, const(p.ndim)))
        found.extend(c.reshape(c.emit(Slice(1, k, k + 1), rows), (size,)) for k in range(p.ndim))
    return tuple(found)


def masked_select(c: Context, x: Traced, mask: Traced) -> Traced:
    """The elements of x where a mask holds, both broadcast."""
    shape = _common(x, mask)
    return selected(c, c.expand(x, shape), c.expand(mask, shape))


def _common(a: Traced, b: Traced) -> tuple[Expr, ...]:
    """The shape that both broadcast to."""
    long, short = (a, b) if a.ndim >= b.ndim else (b, a)
    shape = list(long.shape)
    for k in range(1, short.ndim + 1):
        if not same_dim(short.shape[-k], 1):
            shape[-k] = short.shape[-k]
    return tuple(shape)


def masked_scatter(c: Context, x: Traced, mask: Traced, source: Traced) -> Traced:
    """x with the next element of a source wherever a mask holds."""
    shape, count = x.shape, product(x.shape)
    size = Var(c.builder.fresh(f"{c.node.name}_size"))
    places = places_of(c, c.expand(mask, shape), size)
    values = c.emit(Slice(0, 0, size), c.reshape(source, (product(source.shape),)))
    written = c.emit(ScatterNd(), c.reshape(x, (count,)), c.reshape(places, (size, 1)), values)
    return c.reshape(written, shape)


def unique2(
    c: Context, x: Traced, ascending: bool = True, inverse: bool = False, counts: bool = False
) -> tuple[Traced, ...]:
    """Distinct elements; PyTorch sorts them whatever it is asked for."""
    op = Unique(equal_nan=False)
    return _unique(c, op, x, x.shape, inverse=inverse, counts=counts)


def unique_dim(
    c: Context,
    x: Traced,
    dim: int,
    ascending: bool = True,
    inverse: bool = False,
    counts: bool = False,
) -> tuple[Traced, ...]:
    """Distinct slices."""
    axis = axis_of(dim, x.ndim)
    op = Unique(axis, equal_nan=False)
    return _unique(c, op, x, x.shape[axis : axis + 1], inverse=True, counts=True)


def unique_consecutive(
    c: Context, x: Traced, inverse: bool = False, counts: bool = False, dim: int | None = None
) -> tuple[Traced, ...]:
    """The first element, or slice, of each run of equal ones."""
    if dim is None:
        op = Unique(None, sorted=False, equal_nan=False, consecutive=True)
        return _unique(c, op, x, x.shape, inverse=inverse, counts=counts)
    axis = axis_of(dim, x.ndim)
    op = Unique(axis, sorted=False, equal_nan=False, consecutive=True)
    return _unique(c, op, x, x.shape[axis : axis + 1], inverse=True, counts=True)


def _unique(
    c: Context, op: Unique, x: Traced, places: Sequence[Expr], *, inverse: bool, counts: bool
) -> tuple[Traced, ...]:
    """Values, the number of each place, and counts; one that is not asked for is empty."""
    values, _, numbers, lengths = c.emit_all(op, x)
    empty = c.full((0,), 0, i64)
    return (
        values,
        c.reshape(numbers, places) if inverse else empty,
        lengths if counts else empty,
    )


def repeat_interleave(c: Context, repeats: Traced, output_size: object = None) -> Traced:
    """Each position as often as it says."""
    return c.emit(RepeatEach(), repeats)


def bincount(c: Context, x: Traced, weights: Traced | None = None, least: int = 0) -> Traced:
    """How often each number occurs, up to the largest one; or the sum of its weights."""
    zero, one = c.literal(0, i64), c.literal(1, i64)
    numbers = c.cast(x, i64)
    natural = c.emit(All((0,)), c.emit(GreaterEqual(), numbers, zero))
    c.emit(AssertTrue("bincount: a number is negative", "pass numbers of zero or more"), natural)
    last = c.emit(Maximum(), c.emit(Max((0,)), numbers), c.literal(-1, i64))
    size = late_size(c)
    if not isinstance(size, Var):
        raise Unsupported(f"its size is {size}")
    count = c.emit(Maximum(), c.emit(Add(), last, one), c.literal(least, i64))
    c.emit(BindSymbol(size, (size >= least,)), count)
    updates = c.full(numbers.shape, 1, c.dtype) if weights is None else c.cast(weights, c.dtype)
    return c.emit(ScatterElements(0, "add"), c.full((size,), 0, c.dtype), numbers, updates)


def nms(c: Context, boxes: Traced, scores: Traced, threshold: float) -> Traced:
    """The boxes that no better one overlaps."""
    count = scores.shape[0]
    found = c.emit(
        NonMaxSuppression(),
        c.reshape(boxes, (1, count, 4)),
        c.reshape(scores, (1, 1, count)),
        c.literal(count, i64),
        c.literal(threshold, boxes.dtype),
    )
    rows = refined(c, found, (late_size(c), const(3)))
    return c.reshape(c.emit(Slice(1, 2, 3), rows), (late_size(c),))


CONVERTERS: dict[str, Converter] = {
    "nonzero.default": nonzero,
    "masked_select.default": masked_select,
    "bincount.default": bincount,
    "masked_scatter.default": masked_scatter,
    "_unique2.default": unique2,
    "unique_dim.default": unique_dim,
    "unique_consecutive.default": unique_consecutive,
    "repeat_interleave.Tensor": repeat_interleave,
}
