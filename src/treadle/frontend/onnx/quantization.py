"""Quantized numbers."""

from treadle.expr.dtype import DType, f32, i32, u8
from treadle.expr.scalar import as_expr, int_value
from treadle.frontend.onnx.compose import (
    add,
    axis_of,
    cast,
    cut,
    div,
    element_type,
    expand,
    matmul,
    maximum,
    minimum,
    mul,
    reshape,
    sub,
)
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.convolution import centered, convolved
from treadle.frontend.onnx.rules import ranked
from treadle.frontend.onnx.window import Ints
from treadle.ir.graph_builder import Traced
from treadle.ops import Max, Min
from treadle.ops.elementwise import Round


def limits(dtype: DType) -> tuple[int, int]:
    """The least and the largest integer of a dtype."""
    if dtype.kind == "int":
        return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1
    return 0, (1 << dtype.bits) - 1


def spread(v: Traced, x: Traced, axis: int, block: int) -> Traced:
    """A scale or zero point shaped as ``x``: one for all, one for each slice along an axis, or one
    for each block."""
    if v.ndim == 0 or (v.ndim == 1 and int_value(v.shape[0]) == 1 and x.ndim != 1):
        return reshape(v)
    k = axis_of(axis, x.ndim)
    if not block:
        return (
            reshape(v, *[v.shape[0] if a == k else 1 for a in range(x.ndim)]) if v.ndim == 1 else v
        )
    ranked(v, x.ndim, "a scale or zero point of blocks")
    repeated = expand(
        reshape(v, *v.shape[: k + 1], 1, *v.shape[k + 1 :]),
        (*v.shape[: k + 1], block, *v.shape[k + 1 :]),
    )
    merged = reshape(repeated, *v.shape[:k], v.shape[k] * block, *v.shape[k + 1 :])
    return cut(merged, k, as_expr(0), x.shape[k])


def quantized(
    x: Traced, scale: Traced, zero: Traced | None, dtype: DType, axis: int = 1, block: int = 0
) -> Traced:
    """round(x / scale) + zero, limited to the dtype."""
    ratio = cast(div(x, cast(spread(scale, x, axis, block), x.dtype)), f32)
    rounded = Round()(ratio)
    if zero is not None:
        rounded = add(rounded, cast(spread(zero, x, axis, block), f32))
    low, high = limits(dtype)
    return cast(minimum(maximum(rounded, float(low)), float(high)), dtype)


@converter("QuantizeLinear", since=10)
def quantize_linear(
    x: Traced,
    scale: Traced,
    zero: Traced | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Traced:
    """To the dtype of the zero point, or u8."""
    dtype = zero.dtype if zero is not None else element_type(output_dtype) if output_dtype else u8
    inner = element_type(precision) if precision else f32 if x.dtype.is_int else x.dtype
    return quantized(cast(x, inner), scale, zero, dtype, axis, block_size)


@converter("DequantizeLinear", since=10)
def dequantize_linear(
    x: Traced,
    scale: Traced,
    zero: Traced | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Traced:
    """(x - zero) scale."""
    inner = f32 if x.dtype.is_float else i32
    wide = cast(x, inner)
    if zero is not None:
        wide = sub(wide, cast(spread(zero, x, axis, block_size), inner))
    factor = spread(scale, x, axis, block_size)
    result = mul(cast(wide, f32), cast(factor, f32))
    return cast(result, element_type(output_dtype) if output_dtype else scale.dtype)


@converter("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(x: Traced) -> tuple[Traced, ...]:
    """By a scale and a zero point that fit the values."""
    axes = tuple(range(x.ndim))
    low, high = minimum(Min(axes)(x), 0.0), maximum(Max(axes)(x), 0.0)
    scale = div(sub(high, low), 255.0)
    point = Round()(minimum(maximum(div(sub(0.0, low), scale), 0.0), 255.0))
    zero = cast(point, u8)
    return quantized(x, scale, zero, u8), scale, zero


@converter("MatMulInteger", since=10)
def matmul_integer(
    a: Traced, b: Traced, a_zero: Traced | None = None, b_zero: Traced | None = None
) -> Traced:
    """A product of quantized matrices, summed in i32; zero points per row of a and per column of
    b."""
    return matmul(_rows(a, a_zero), _columns(b, b_zero))


def _rows(a: Traced, zero: Traced | None) -> Traced:
    if zero is not None and zero.ndim == 1 and int_value(zero.shape[0]) != 1:
        return centered(a, reshape(zero, zero.shape[0], 1)) if a.ndim > 1 else centered(a, zero)
    return _columns(a, zero)


def _columns(b: Traced, zero: Traced | None) -> Traced:
    wide = cast(b, i32)
    if zero is None:
        return wide
    single = zero.ndim == 1 and int_value(zero.shape[0]) == 1
    return sub(wide, cast(reshape(zero) if single else zero, i32))


@converter("QLinearMatMul", since=10)
def qlinear_matmul(
    a: Traced,
    a_scale: Traced,
    a_zero: Traced,
    b: Traced,
    b_scale: Traced,
    b_zero: Traced,
    y_scale: Traced,
    y_zero: Traced,
) -> Traced:
    """A product of quantized matrices, quantized again."""
    summed = cast(matmul(_rows(a, a_zero), _columns(b, b_zero)), f32)
    left = cast(a_scale, f32)
    if left.ndim == 1 and int_value(left.shape[0]) != 1:
        left = reshape(left, left.shape[0], 1)
    factor = div(mul(_single(left), _single(cast(b_scale, f32))), _single(cast(y_scale, f32)))
    rounded = add(Round()(mul(summed, factor)), cast(_single(y_zero), f32))
    low, high = limits(y_zero.dtype)
    return cast(minimum(maximum(rounded, float(low)), float(high)), y_zero.dtype)


def _single(v: Traced) -> Traced:
    return reshape(v) if v.ndim == 1 and int_value(v.shape[0]) == 1 else v


@converter("QLinearConv", since=10)
def qlinear_conv(
    x: Traced,
    x_scale: Traced,
    x_zero: Traced,
    w: Traced,
    w_scale: Traced,
    w_zero: Traced,
    y_scale: Traced,
    y_zero: Traced,
    bias: Traced | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Traced:
    """A convolution of quantized numbers, quantized again; the weight's scale may differ from
    channel to channel."""
    left, right = centered(x, x_zero), centered(w, w_zero)
    summed = cast(convolved(left, right, bias, strides, dilations, pads, auto_pad, group), f32)
    factor = div(mul(_single(x_scale), _single(w_scale)), _single(y_scale))
    if factor.ndim == 1:
        factor = reshape(factor, factor.shape[0], *[1] * (x.ndim - 2))
    rounded = add(Round()(mul(summed, factor)), cast(_single(y_zero), f32))
    low, high = limits(y_zero.dtype)
    return cast(minimum(maximum(rounded, float(low)), float(high)), y_zero.dtype)


CONVERTERS = (
    *(
        quantize_linear,
        dequantize_linear,
        dynamic_quantize_linear,
        matmul_integer,
        qlinear_matmul,
        qlinear_conv,
    ),
)
