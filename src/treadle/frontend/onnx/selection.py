"""Operators whose results have a shape that depends on data: possible where those data are known at
import."""

import numpy as np

from treadle.base.errors import ModelImportError
from treadle.expr.dtype import i64
from treadle.frontend.onnx.compose import axis_of, reshape
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.value import Known, Operand
from treadle.ir.graph_builder import Traced
from treadle.ops import Gather
from treadle.ops._shapes import product


def _held(site: Site, x: Operand, operator: str) -> np.ndarray:
    if x.known is not None:
        return x.known.numbers()
    raise ModelImportError(
        "E0602",
        f"the shape of the result of {operator} depends on what its operand holds",
        place=site.place,
        help="cut the model before it, or make the operand a constant",
    )


@converter("NonZero", since=9)
def non_zero(site: Site, x: Operand) -> Known:
    """The positions of elements that are not zero, a column each."""
    return Known(np.stack(np.nonzero(_held(site, x, "NonZero"))).astype(np.int64), i64)


@converter("Compress", since=9)
def compress(site: Site, x: Traced, condition: Known, *, axis: int | None = None) -> Traced:
    """The slices along an axis where a condition, which must be known, holds; elements, if there is
    no axis."""
    places = site.constant(np.flatnonzero(condition.numbers()))
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
) -> tuple[Known, ...]:
    """Distinct elements or slices, where each stood first, which one each place has, and how often
    each occurs."""
    array = _held(site, x, "Unique")
    values, first, inverse, counts = np.unique(
        array, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    if not sorted:
        order = np.argsort(first)
        rank = np.argsort(order)
        values, first, counts = np.take(values, order, axis or 0), first[order], counts[order]
        inverse = rank[inverse]
    positions = (Known(np.ravel(a).astype(np.int64), i64) for a in (first, inverse, counts))
    return Known(values, x.dtype), *positions


CONVERTERS = (non_zero, compress, unique)
