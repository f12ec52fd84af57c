"""Sequences and optional values, taken apart when the model is imported."""

from typing import Any

import numpy as np

from treadle.base.errors import ModelImportError
from treadle.expr.dtype import boolean, i64
from treadle.expr.scalar import as_expr, ceildiv, int_value
from treadle.frontend.onnx.compose import axis_of, concat, insert_axis, reshape
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.movement import split_at
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.value import Known, Operand
from treadle.ir.graph_builder import Traced


def _items(operand: Operand) -> tuple[Operand, ...]:
    if operand.items is None:
        raise ModelImportError(
            "E0604",
            "a sequence is expected, and there is a tensor",
            help="check the model with onnx.checker.check_model",
        )
    return operand.items


def _position(position: Known | None, count: int, end: int) -> int:
    """A position in a sequence counted from the front; ``end`` if none is given."""
    if position is None:
        return end
    place = position.integer()
    found = place + count if place < 0 else place
    if not 0 <= found <= count:
        raise ModelImportError(
            "E0605",
            f"position {place} in a sequence of {count}",
            help="check the model's sequences",
        )
    return found


def _sequence(items: tuple[Operand, ...]) -> Operand:
    return Operand(items=items, sources=frozenset[str]().union(*(i.sources for i in items)))


@converter("SequenceEmpty", since=11)
def empty(*, dtype: int = 1) -> Operand:
    """Nothing yet."""
    return _sequence(())


@converter("SequenceConstruct", since=11)
def construct(*xs: Operand) -> Operand:
    """Tensors in order."""
    return _sequence(xs)


@converter("SequenceAt", since=11)
def at(xs: Operand, position: Known) -> Operand:
    """One of the tensors."""
    items = _items(xs)
    place = _position(position, len(items), 0)
    if place == len(items):
        raise ModelImportError(
            "E0605",
            f"position {place} in a sequence of {place}",
            help="check the model's sequences",
        )
    return items[place]


@converter("SequenceInsert", since=11)
def insert(xs: Operand, x: Operand, position: Known | None = None) -> Operand:
    """With another tensor, at the end unless said."""
    items = _items(xs)
    place = _position(position, len(items), len(items))
    return _sequence((*items[:place], x, *items[place:]))


@converter("SequenceErase", since=11)
def erase(xs: Operand, position: Known | None = None) -> Operand:
    """Without one tensor, the last unless said."""
    items = _items(xs)
    place = _position(position, len(items), len(items) - 1)
    return _sequence((*items[:place], *items[place + 1 :]))


@converter("SequenceLength", since=11)
def length(xs: Operand) -> Known:
    """How many tensors there are."""
    return Known(np.array(len(_items(xs)), np.int64), i64)


@converter("ConcatFromSequence", since=11)
def concat_from(site: Site, xs: Operand, *, axis: int, new_axis: int = 0) -> Traced:
    """The tensors one after another, or stacked."""
    tensors = [site.traced(x) for x in _items(xs)]
    k = axis_of(axis, tensors[0].ndim + new_axis)
    return concat([insert_axis(t, k) for t in tensors] if new_axis else tensors, k)


@converter("SplitToSequence", since=11)
def split_to(x: Traced, sizes: Known | None = None, *, axis: int = 0, keepdims: int = 1) -> Operand:
    """Parts of one size or of several; of one element each, without the axis unless
    ``keepdims``."""
    k = axis_of(axis, x.ndim)
    size = int_value(x.shape[k])
    if size is None:
        raise ModelImportError(
            "E0607",
            "the length of a sequence must be known",
            help="give the model fixed dimensions",
        )
    if sizes is not None and sizes.array.ndim:
        parts = list(sizes.sizes())
    else:
        part = 1 if sizes is None else sizes.integer()
        count = int_value(ceildiv(size, part)) or 0
        parts = [as_expr(min(part, size - i * part)) for i in range(count)]
    found = split_at(x, k, parts)
    if sizes is None and not keepdims:
        found = tuple(reshape(t, *t.shape[:k], *t.shape[k + 1 :]) for t in found)
    return _sequence(tuple(Operand(t) for t in found))


@converter("OptionalHasElement", since=15)
def has_element(x: Operand | None = None) -> Known:
    """Whether there is one: so of every tensor and sequence that is given."""
    return Known(np.array(x is not None and not x.is_absent), boolean)


@converter("OptionalGetElement", since=15)
def get_element(x: Operand) -> Operand:
    """The tensor or sequence itself."""
    return x


@converter("Optional", since=15)
def optional(x: Operand | None = None, *, type: Any = None) -> Operand:  # noqa: A002  (ONNX's name)
    """The tensor or sequence, or none."""
    return Operand(is_absent=True) if x is None else x


CONVERTERS = (
    optional,
    has_element,
    get_element,
    empty,
    construct,
    at,
    insert,
    erase,
    length,
    concat_from,
    split_to,
)
