"""Loads and stores: scalars, whole vectors, masked vectors, gathers and scatters.

A masked scalar access takes no branch: where the mask is false its address is that of a dummy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from treadle.codegen.llvm.memory import Place
from treadle.codegen.llvm.types import (
    Operand,
    lane_numbers,
    memory_type,
    scalar_memory,
    vector_of,
)
from treadle.codegen.llvm.writer import overload
from treadle.expr.dtype import DType, i64
from treadle.expr.scalar import Expr
from treadle.expr.terms import from_poly, number
from treadle.ir.tensor import Buffer, Load, Store

if TYPE_CHECKING:
    from treadle.codegen.llvm.expression import Evaluator

_ZEROS = "@treadle.zeros = internal constant [256 x i8] zeroinitializer, align 64"
_DUMMY_BYTES = 256
# Strides up to this are loaded as neighbouring vectors, of which lanes are kept.
_NEAR = 4


def load(e: Evaluator, x: Load) -> Operand:
    """The element, or the vector of elements, that ``x`` names."""
    place = e.where(x.buffer, x.indices)
    mask = None if x.mask is None else e.value(x.mask)
    if place.lanes == 1:
        raw = _load_one(e, x.buffer, place, mask)
    else:
        raw = _load_lanes(e, x.buffer, place, _lane_mask(e, mask, place.lanes))
    return _from_memory(e, raw, x.dtype)


def store(e: Evaluator, s: Store) -> None:
    """Write a value to an element, or to a vector of elements."""
    place = e.where(s.buffer, s.indices)
    value = e.value(s.value)
    dtype = s.value.dtype
    if place.lanes > 1 and dtype.lanes == 1:
        value, dtype = e.writer.splat(value, place.lanes), dtype.vector(place.lanes)
    mask = None if s.mask is None else e.value(s.mask)
    raw = _to_memory(e, value, dtype)
    if place.lanes == 1:
        _store_one(e, s.buffer, place, mask, raw)
    else:
        _store_lanes(e, s.buffer, place, _lane_mask(e, mask, place.lanes), raw)


def address(e: Evaluator, x: Load) -> Operand:
    """The address of the first element that ``x`` names."""
    return e.pointer(x.buffer, e.where(x.buffer, x.indices).offset)


def _from_memory(e: Evaluator, raw: Operand, dtype: DType) -> Operand:
    return e.writer.compare("icmp ne", raw, e.writer.integer(0, raw)) if dtype.is_bool else raw


def _to_memory(e: Evaluator, value: Operand, dtype: DType) -> Operand:
    return e.writer.convert("zext", value, "i8") if dtype.is_bool else value


def _lane_mask(e: Evaluator, mask: Operand | None, lanes: int) -> Operand | None:
    if mask is None or mask.type != "i1":
        return mask
    return e.writer.splat(mask, lanes)


def _alignment(buffer: Buffer) -> int:
    """What is known of the address of an element."""
    return min(64, buffer.dtype.bytes & -buffer.dtype.bytes)


def _load_one(e: Evaluator, buffer: Buffer, place: Place, mask: Operand | None) -> Operand:
    pointer = e.pointer(buffer, place.offset)
    if mask is not None:
        e.writer.parts.declares[_ZEROS] = None
        pointer = e.writer.select(mask, pointer, Operand("ptr", "@treadle.zeros"))
    kind = memory_type(buffer.dtype)
    return e.writer.assign(kind, f"load {kind}, {pointer}, align {_alignment(buffer)}")


def _store_one(
    e: Evaluator, buffer: Buffer, place: Place, mask: Operand | None, value: Operand
) -> None:
    pointer = e.pointer(buffer, place.offset)
    if mask is not None:
        pointer = e.writer.select(mask, pointer, e.writer.dummy(_DUMMY_BYTES))
    e.writer.emit(f"store {value}, {pointer}, align {_alignment(buffer)}")


def _load_lanes(e: Evaluator, buffer: Buffer, place: Place, mask: Operand | None) -> Operand:
    stride = place.constant_stride
    if stride == 1:
        return _load_row(e, buffer, place, mask)
    if stride is not None and 1 < stride <= _NEAR:
        return _load_spread(e, buffer, place, stride, mask)
    if stride is None or mask is not None:
        return _gather(e, buffer, place, mask)
    if stride == 0:
        return e.writer.splat(_load_one(e, buffer, place, None), place.lanes)
    if stride == -1:
        last = Place(place.offset - (place.lanes - 1), place.lanes, number(1))
        return _reverse(e, _load_row(e, buffer, last, None), place.lanes)
    return _load_each(e, buffer, place, stride)


def _load_spread(
    e: Evaluator, buffer: Buffer, place: Place, stride: int, mask: Operand | None
) -> Operand:
    """Lanes a few elements apart: the vectors that lie one after the other from the first to the
    last, of which some lanes are kept. The last vector ends with the last element; with a mask,
    only the elements that are kept are touched.
    """
    lanes = place.lanes
    starts = [k * lanes for k in range(stride - 1)] + [(lanes - 1) * (stride - 1)]
    parts: list[tuple[Operand, _Picks]] = []
    left = list(range(lanes))
    for start in starts:
        here = {k: k * stride - start for k in left if k * stride < start + lanes}
        left = [k for k in left if k not in here]
        row = Place(place.offset + start, lanes, number(1))
        wanted = None if mask is None else _spread_mask(e, mask, here, lanes)
        picks = [here.get(k) for k in range(lanes)]
        parts.append((_load_row(e, buffer, row, wanted), picks))
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [_picked(e, a, b) for a, b in pairs] + parts[len(parts) // 2 * 2 :]
    return parts[0][0]


_Picks = list[int | None]
"""For each lane of a result, the lane that it is taken from, if it is."""


def _spread_mask(e: Evaluator, mask: Operand, here: dict[int, int], lanes: int) -> Operand:
    """The mask of a vector of which lane ``here[k]`` becomes lane k."""
    source = {at: k for k, at in here.items()}
    order = ", ".join(f"i32 {source.get(at, lanes)}" for at in range(lanes))
    none = f"<{lanes} x i1> zeroinitializer"
    return e.writer.assign(mask.type, f"shufflevector {mask}, {none}, <{lanes} x i32> <{order}>")


def _picked(
    e: Evaluator, a: tuple[Operand, _Picks], b: tuple[Operand, _Picks]
) -> tuple[Operand, _Picks]:
    """One vector with the lanes that are picked from two, each in its place."""
    lanes = len(a[1])
    both = [
        i if i is not None else None if j is None else j + lanes
        for i, j in zip(a[1], b[1], strict=True)
    ]
    order = ", ".join("i32 poison" if i is None else f"i32 {i}" for i in both)
    whole = e.writer.assign(a[0].type, f"shufflevector {a[0]}, {b[0]}, <{lanes} x i32> <{order}>")
    return whole, [None if i is None else k for k, i in enumerate(both)]


def _load_row(e: Evaluator, buffer: Buffer, place: Place, mask: Operand | None) -> Operand:
    w, align = e.writer, _alignment(buffer)
    pointer = e.pointer(buffer, place.offset)
    kind = vector_of(scalar_memory(buffer.dtype), place.lanes)
    if mask is None:
        return w.assign(kind, f"load {kind}, {pointer}, align {align}")
    symbol = f"@llvm.masked.load.{overload(kind)}.p0"
    w.declare(kind, symbol, "ptr", mask.type, kind)
    pointer = Operand("ptr", f"align {align} {pointer.name}")
    return w.call(symbol, kind, pointer, mask, Operand(kind, "zeroinitializer"))


def _load_each(e: Evaluator, buffer: Buffer, place: Place, stride: int) -> Operand:
    w, kind = e.writer, scalar_memory(buffer.dtype)
    result = Operand(vector_of(kind, place.lanes), "poison")
    for lane in range(place.lanes):
        pointer = e.pointer(buffer, place.offset + lane * stride)
        item = w.assign(kind, f"load {kind}, {pointer}, align {_alignment(buffer)}")
        result = w.assign(result.type, f"insertelement {result}, {item}, i64 {lane}")
    return result


def _reverse(e: Evaluator, x: Operand, lanes: int) -> Operand:
    order = ", ".join(f"i32 {i}" for i in reversed(range(lanes)))
    return e.writer.assign(x.type, f"shufflevector {x}, {x.type} poison, <{lanes} x i32> <{order}>")


def _gather(e: Evaluator, buffer: Buffer, place: Place, mask: Operand | None) -> Operand:
    w = e.writer
    kind = vector_of(scalar_memory(buffer.dtype), place.lanes)
    pointers = _lane_pointers(e, buffer, place)
    mask = mask or w.splat(Operand("i1", "true"), place.lanes)
    symbol = f"@llvm.masked.gather.{overload(kind)}.{overload(pointers.type)}"
    w.declare(kind, symbol, pointers.type, mask.type, kind)
    pointers = Operand(pointers.type, f"align {_alignment(buffer)} {pointers.name}")
    return w.call(symbol, kind, pointers, mask, Operand(kind, "zeroinitializer"))


def _lane_pointers(e: Evaluator, buffer: Buffer, place: Place) -> Operand:
    w, lanes = e.writer, place.lanes
    pointer = e.pointer(buffer, place.offset)
    total: Operand | None = None
    if place.stride.terms:
        if place.stride.is_constant:
            total = lane_numbers(lanes, scale=place.stride.constant)
        else:
            step = w.splat(e.value(from_poly(place.stride)), lanes)
            total = w.op("mul", lane_numbers(lanes), step)
    for index, step in place.scattered:
        term = _scaled(e, index, step, lanes)
        total = term if total is None else w.op("add", total, term)
    if total is None:
        total = Operand(vector_of("i64", lanes), "zeroinitializer")
    kind = scalar_memory(buffer.dtype)
    return w.assign(vector_of("ptr", lanes), f"getelementptr {kind}, {pointer}, {total}")


def _scaled(e: Evaluator, index: Expr, step: Expr, lanes: int) -> Operand:
    w = e.writer
    value = e.value(index)
    if index.dtype.bits < i64.bits:
        value = w.convert("sext" if index.dtype.kind == "int" else "zext", value, "i64")
    factor = e.value(step)
    return value if factor.name == "1" else w.op("mul", value, w.splat(factor, lanes))


def _store_lanes(
    e: Evaluator, buffer: Buffer, place: Place, mask: Operand | None, value: Operand
) -> None:
    stride = place.constant_stride
    if stride == 1:
        _store_row(e, buffer, place, mask, value)
    elif stride is None or mask is not None:
        _scatter(e, buffer, place, mask, value)
    elif stride == -1:
        last = Place(place.offset - (place.lanes - 1), place.lanes, number(1))
        _store_row(e, buffer, last, None, _reverse(e, value, place.lanes))
    else:
        _store_each(e, buffer, place, stride, value)


def _store_row(
    e: Evaluator, buffer: Buffer, place: Place, mask: Operand | None, value: Operand
) -> None:
    w, align = e.writer, _alignment(buffer)
    pointer = e.pointer(buffer, place.offset)
    if mask is None:
        w.emit(f"store {value}, {pointer}, align {align}")
        return
    symbol = f"@llvm.masked.store.{overload(value.type)}.p0"
    w.declare("void", symbol, value.type, "ptr", mask.type)
    w.emit(f"call void {symbol}({value}, ptr align {align} {pointer.name}, {mask})")


def _store_each(e: Evaluator, buffer: Buffer, place: Place, stride: int, value: Operand) -> None:
    w, kind = e.writer, scalar_memory(buffer.dtype)
    for lane in range(place.lanes):
        item = w.assign(kind, f"extractelement {value}, i64 {lane}")
        pointer = e.pointer(buffer, place.offset + lane * stride)
        w.emit(f"store {item}, {pointer}, align {_alignment(buffer)}")


def _scatter(
    e: Evaluator, buffer: Buffer, place: Place, mask: Operand | None, value: Operand
) -> None:
    w = e.writer
    pointers = _lane_pointers(e, buffer, place)
    mask = mask or w.splat(Operand("i1", "true"), place.lanes)
    symbol = f"@llvm.masked.scatter.{overload(value.type)}.{overload(pointers.type)}"
    w.declare("void", symbol, value.type, pointers.type, mask.type)
    listed = f"{pointers.type} align {_alignment(buffer)} {pointers.name}"
    w.emit(f"call void {symbol}({value}, {listed}, {mask})")
