"""Operators whose results have a shape that depends on data."""

from collections.abc import Sequence

import numpy as np

from treadle.expr.dtype import f32, i64
from treadle.expr.scalar import Expr, const
from treadle.frontend.onnx.compose import axis_of, cast, reshape
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.rules import ranked
from treadle.frontend.onnx.value import Known, Operand
from treadle.ir.calls import MatchCast
from treadle.ir.graph_builder import Traced
from treadle.ir.types import tensor
from treadle.ops import FlatNonzero, Gather, NonMaxSuppression, Nonzero, Permute, Unique
from treadle.ops._shapes import product, replaced


def _refined(x: Traced, shape: Sequence[Expr]) -> Traced:
    """A value of which only the rank is known, with its dimensions."""
    return MatchCast(tensor(list(shape), x.dtype))(x)


@converter("NonZero", since=9)
def non_zero(site: Site, x: Operand) -> Known | Traced:
    """The positions of elements that are not zero, a column each."""
    if x.known is not None and x.known.is_concrete:
        found = np.stack(np.nonzero(np.atleast_1d(x.known.array)))
        return Known(found.astype(np.int64), i64)
    value = site.traced(x)
    value = value if value.ndim else reshape(value, 1)
    rows = _refined(Nonzero()(value), (site.late_size("nonzero"), const(value.ndim)))
    return Permute((1, 0))(rows)


@converter("Compress", since=9)
def compress(site: Site, x: Traced, condition: Operand, *, axis: int | None = None) -> Traced:
    """The slices along an axis where a condition holds; elements, if there is no axis."""
    if condition.known is not None and condition.known.is_concrete:
        places = site.constant(np.flatnonzero(condition.known.array))
    else:
        flags = site.traced(condition)
        ranked(flags, 1, "the condition of Compress")
        places = _refined(FlatNonzero()(flags), (site.late_size("selected"),))
    if axis is None:
        return Gather(0)(reshape(x, product(x.shape)), places)
    return Gather(axis_of(axis, x.ndim))(x, places)


@converter("Unique", since=11)
def unique(
    site: Site,
    x: Operand,
    *,
    axis: int | None = None,
    sorted: int = 1,  # noqa: A002  (ONNX's name)
) -> tuple[Known | Traced, ...]:
    """Distinct elements or slices, where each stood first, which one each place has, and how often
    each occurs."""
    op = Unique(axis, bool(sorted))
    if x.known is not None and x.known.is_concrete:
        values, *positions = op.reference(x.known.array)
        return Known(values, x.dtype), *(Known(a, i64) for a in positions)
    value = site.traced(x)
    values, first, inverse, counts = value.builder.emit_all(op, value)
    size = site.late_size("distinct")
    along = None if axis is None else axis_of(axis, value.ndim)
    shape = (size,) if along is None else replaced(value.shape, along, size)
    return _refined(values, shape), _refined(first, (size,)), inverse, _refined(counts, (size,))


@converter("NonMaxSuppression", since=10)
def non_max_suppression(
    site: Site,
    boxes: Traced,
    scores: Traced,
    most: Traced | None = None,
    threshold: Traced | None = None,
    least: Traced | None = None,
    *,
    center_point_box: int = 0,
) -> Traced:
    """Batch, class and number of the boxes that no better one of the class overlaps."""
    operands = [
        boxes,
        scores,
        site.number(0, i64) if most is None else cast(reshape(most), i64),
        site.number(0.0, f32) if threshold is None else reshape(threshold),
        *([] if least is None else [reshape(least)]),
    ]
    found = boxes.builder.emit(NonMaxSuppression(bool(center_point_box)), *operands)
    return _refined(found, (site.late_size("kept"), const(3)))


CONVERTERS = (non_zero, compress, unique, non_max_suppression)
