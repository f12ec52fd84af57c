"""Products of packed weights in integers.

The 32 elements of a row that meet one group of a weight are rounded to integers with a scale of
their own: to one byte each, or to two. Bytes and codes are multiplied and added exactly, and every
sum of 32 products is scaled once. The result differs from the product in f32 by what the rounding
loses, about one part in 250 of the largest element of a group, or in 65000 with two bytes. Machines
multiply bytes four times as fast as f32 and need no conversion, so that a product of few rows takes
as long as the weight takes to be read.
"""

import numpy as np

from treadle.expr.dtype import f32, i8, i32, i64, u8
from treadle.expr.scalar import Const, Expr, Var, apply, cast, int_value
from treadle.ir.calls import CallTensor
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType, tensor
from treadle.language.decoding import decoded
from treadle.language.quantize import GROUP, QuantizedWeight
from treadle.ops import (
    Abs,
    Add,
    Cast,
    Clip,
    Concat,
    Div,
    Floor,
    Matmul,
    Max,
    Mul,
    Pad,
    Reshape,
    Round,
    Sub,
    Sum,
)

_HALF = GROUP // 2
_PANEL = 64
_LARGEST = {1: 127, 2: 127 * 256 + 127}
_TINY = 1e-30
"""What a group of zeros is divided by."""


def product(
    builder: GraphBuilder, x: Traced, weight: QuantizedWeight, name: str = "weight"
) -> Traced:
    """Add the product of ``x``, f32 (t, inputs), and a weight, in f32 or as its ``row_bytes`` say:
    f32 (t, outputs).
    """
    if weight.row_bytes:
        return integer_product(builder, x, weight, name, weight.row_bytes)
    return Matmul()(x, decoded(builder, weight, name))


def integer_product(
    builder: GraphBuilder,
    x: Traced,
    weight: QuantizedWeight,
    name: str = "weight",
    digits: int = 1,
) -> Traced:
    """Add the product of ``x``, f32 (t, inputs), rounded to 1 or 2 bytes, and a weight: f32 (t,
    outputs).
    """
    arrays = padded_parts(weight)
    parts = [builder.constant(f"{name}_{part}", a) for part, a in arrays.items()]
    args = [*rounded_rows(x, digits), *parts]
    function = grouped_product(weight, tuple(p.type for p in parts), digits)
    builder.functions[function.name] = function
    out = TensorType((x.shape[0], Const(weight.outputs, i64)), 2, f32)
    (result,) = builder.emit_all(CallTensor(function.name, (out,)), *args, name=name)
    return result


def padded_parts(weight: QuantizedWeight) -> dict[str, np.ndarray]:
    """The parts of a weight for whole panels of columns: outputs are zeros up to a multiple of 64.
    Bytes are u8 (outputs, groups * 32).
    """
    parts = dict(weight.arrays)
    if not weight.is_narrow:
        parts["codes"] = _padded(weight.codes, 1, GROUP).view(np.uint8)
    return {name: _padded(a, 0, _PANEL) for name, a in parts.items()}


def _padded(array: np.ndarray, axis: int, multiple: int) -> np.ndarray:
    missing = -array.shape[axis] % multiple
    widths = [(0, missing if a == axis else 0) for a in range(array.ndim)]
    return np.pad(array, widths) if missing else array


def rounded_rows(x: Traced, digits: int) -> tuple[Traced, Traced, Traced]:
    """``x`` (t, inputs) in groups of 32: bytes i8 (t, groups, digits, 32), scales f32 (t, groups),
    and the sums of the bytes, i32 (t, groups, digits). Digits count 256 and one.
    """
    t, inputs = x.shape
    count = int_value(inputs)
    assert count is not None
    groups = -(-count // GROUP)
    if count % GROUP:
        x = Pad(((0, 0), (0, groups * GROUP - count)))(x)
    x = Reshape((t, groups, GROUP))(x)
    literal = x.builder.literal
    largest = Max((2,), keepdims=True)(Abs()(x))
    inverse = Div()(literal(_LARGEST[digits], f32), Clip(_TINY, None)(largest))
    scale = Mul()(largest, literal(1 / _LARGEST[digits], f32))
    value = Round()(Mul()(x, inverse))
    if digits == 2:
        # Halves go up: the low digit is at most 127.
        high = Floor()(Add()(Mul()(value, literal(1 / 256, f32)), literal(0.5, f32)))
        low = Sub()(value, Mul()(high, literal(256.0, f32)))
        value = Concat(2)(high, low)
    codes = Reshape((t, groups, digits, GROUP))(Cast(i8)(value))
    return codes, Reshape((t, groups))(scale), Sum((3,))(Cast(i32)(codes))


def grouped_product(
    weight: QuantizedWeight, types: tuple[TensorType, ...], digits: int
) -> TensorFunction:
    """The function from rounded rows and the padded parts, of ``types``, to f32 (t, outputs)."""
    t, groups, padded = Var("t"), weight.groups, types[0].dims[0]
    f = LoopBuilder(f"product_{weight.kind}_{weight.outputs}x{weight.inputs}_{digits}")
    x = f.input(tensor([t, groups, digits, GROUP], i8), "x")
    scale = f.input(tensor([t, groups], f32), "x_scales")
    total = f.input(tensor([t, groups, digits], i32), "x_sums")
    names = ("codes", "scales", "offsets")
    packed, scales, *offsets = (f.input(p, n) for p, n in zip(types, names, strict=False))
    zero, code = (8, _nibble) if weight.is_narrow else (128, _byte)
    codes = f.temp((padded, groups, GROUP), u8)
    f.compute(codes, lambda n, g, k: code(packed, n, g, k), "decode")
    sums = f.temp((t, groups, digits, padded), i32)

    def weighted(i: Var, n: Var, g: Var, d: int) -> Expr:
        inner, of = sums[i, g, d, n], cast(scales[(n, g)[: scales.ndim]], f32)
        if not offsets:
            return cast(inner - total[i, g, d] * zero, f32) * of
        return cast(inner, f32) * of + cast(total[i, g, d], f32) * cast(offsets[0][n, g], f32)

    def scaled(i: Var, n: Var, g: Var) -> Expr:
        low = weighted(i, n, g, digits - 1)
        return (low if digits == 1 else weighted(i, n, g, 0) * 256.0 + low) * scale[i, g]

    def term(i: Var, g: Var, d: Var, n: Var, k: Var) -> Expr:
        return cast(x[i, g, d, k], i32) * cast(codes[n, g, k], i32)

    f.reduce(sums, (GROUP,), term, name="sums")
    f.reduce(f.output((t, weight.outputs), f32, "Y"), (groups,), scaled, name="product")
    return f.build()


def _nibble(packed: Buffer, n: Var, g: Var, k: Var) -> Expr:
    shift = cast(k // _HALF * 4, u8)
    return apply("and", apply("shr", packed[n, g * _HALF + k % _HALF], shift), 15)


def _byte(packed: Buffer, n: Var, g: Var, k: Var) -> Expr:
    """128 more than the code."""
    return apply("xor", packed[n, g * GROUP + k], 128)
