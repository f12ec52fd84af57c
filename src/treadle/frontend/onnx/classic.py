"""Operators of the ai.onnx.ml domain that are plain tensor arithmetic, and determinants."""

from treadle.base.errors import ModelImportError
from treadle.expr.dtype import i64
from treadle.expr.scalar import int_value
from treadle.frontend.onnx.compose import (
    along_axis,
    cast,
    counted,
    cut,
    div,
    equal,
    expand,
    greater,
    less_equal,
    mul,
    pick,
    reshape,
    sub,
    where,
)
from treadle.frontend.onnx.converter import converter
from treadle.ir.graph_builder import Traced
from treadle.ops import ArgMax, Gather, GatherElements
from treadle.ops.elementwise import Abs

ML = "ai.onnx.ml"


@converter("Binarizer", domain=ML)
def binarizer(x: Traced, *, threshold: float = 0.0) -> Traced:
    """One above the threshold, else zero."""
    return cast(greater(x, threshold), x.dtype)


@converter("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(x: Traced, indices: Traced) -> Traced:
    """Columns by index."""
    flat = reshape(indices, *indices.shape[-1:])
    found = Gather(x.ndim - 1)(x, cast(flat, i64))
    return reshape(found, 1, *found.shape) if x.ndim == 1 else found


def _swapped(a: Traced, first: Traced, size: int) -> tuple[Traced, Traced]:
    """The matrix with its first row exchanged for row ``first`` (…, 1), and the sign that this
    gives the determinant."""
    rows = along_axis(counted(a, size), a.ndim - 2, a.ndim)
    chosen = reshape(first, *first.shape[:-1], 1, 1)
    source = where(equal(rows, 0), chosen, where(equal(rows, chosen), 0, rows))
    moved = GatherElements(a.ndim - 2)(a, expand(source, a.shape))
    same = less_equal(first, 0)
    one = a.builder.literal(1.0, a.dtype)
    return moved, where(same, one, -1.0)


@converter("Det", since=11)
def det(x: Traced) -> Traced:
    """By elimination with the largest element of each column as pivot; the size must be known."""
    size = int_value(x.shape[-1])
    if size is None:
        raise ModelImportError(
            "E0607", "the size of a determinant must be known", help="fix the model's dimensions"
        )
    a, result = x, None
    for step in range(size):
        count = size - step
        column = pick(a, a.ndim - 1, 0)
        place = ArgMax(column.ndim - 1, keepdims=True)(Abs()(column))
        a, sign = _swapped(a, place, count)
        pivot = reshape(cut(cut(a, a.ndim - 2, 0, 1), a.ndim - 1, 0, 1), *a.shape[:-2], 1)
        factor = mul(pivot, sign)
        result = factor if result is None else mul(result, factor)
        if count > 1:
            a = _eliminated(a, reshape(pivot, *pivot.shape, 1), count)
    if result is None:
        raise ModelImportError(
            "E0605", "the determinant of an empty matrix", help="give it at least one row"
        )
    return reshape(result, *x.shape[:-2])


def _eliminated(a: Traced, pivot: Traced, size: int) -> Traced:
    """The lower right part, less what the first row explains; a pivot of zero leaves it as it
    is."""
    rows, columns = a.ndim - 2, a.ndim - 1
    top = cut(cut(a, rows, 0, 1), columns, 1, size)
    left = cut(cut(a, rows, 1, size), columns, 0, 1)
    rest = cut(cut(a, rows, 1, size), columns, 1, size)
    safe = where(equal(pivot, 0), 1.0, pivot)
    return sub(rest, mul(div(left, safe), top))


CONVERTERS = (binarizer, array_feature_extractor, det)
