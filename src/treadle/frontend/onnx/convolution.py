"""Convolutions."""

from treadle.expr.dtype import i32
from treadle.expr.scalar import int_value
from treadle.frontend.onnx.compose import cast, reshape, sub
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.rules import require
from treadle.frontend.onnx.value import Known
from treadle.frontend.onnx.window import Ints, Pads, known_ints, window_of
from treadle.ir.graph_builder import Traced
from treadle.ops import Col2im, Conv, ConvTranspose


def convolved(
    x: Traced,
    w: Traced,
    bias: Traced | None,
    strides: Ints | None,
    dilations: Ints | None,
    pads: Ints | None,
    auto_pad: str,
    group: int,
) -> Traced:
    """A convolution as ONNX's attributes say it."""
    kernel = known_ints(w.shape[2:], "the kernel of a convolution")
    found = window_of(x.shape[2:], kernel, strides, dilations, pads, auto_pad)
    op = Conv(found.stride, found.pads, found.dilation, group)
    return op(x, w) if bias is None else op(x, w, bias)


@converter("Conv")
def conv(
    x: Traced,
    w: Traced,
    bias: Traced | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Traced:
    """A convolution."""
    return convolved(x, w, bias, strides, dilations, pads, auto_pad, group)


def centered(x: Traced, zero: Traced | None) -> Traced:
    """A quantized tensor less its zero point, as i32; a zero point per output channel stands along
    axis 0."""
    wide = cast(x, i32)
    if zero is None:
        return wide
    point = cast(zero, i32)
    many = point.ndim == 1 and int_value(point.shape[0]) != 1
    if many:
        point = reshape(point, point.shape[0], *[1] * (x.ndim - 1))
    return sub(wide, point if many else reshape(point))


@converter("ConvInteger", since=10)
def conv_integer(
    x: Traced,
    w: Traced,
    x_zero: Traced | None = None,
    w_zero: Traced | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Traced:
    """A convolution of quantized numbers, summed in i32."""
    return convolved(
        centered(x, x_zero), centered(w, w_zero), None, strides, dilations, pads, auto_pad, group
    )


def _transposed_pads(
    natural: Ints, wanted: Ints | None, pads: Ints | None, auto_pad: str, extra: Ints
) -> tuple[Pads, Ints]:
    """Pads, and what is added behind, that give a transposed convolution its size; ``natural`` is
    that without pads."""
    rank = len(natural)
    if wanted is None:
        flat = pads or (0,) * (2 * rank)
        return tuple((flat[k], flat[k + rank]) for k in range(rank)), extra
    pairs: list[tuple[int, int]] = []
    added: list[int] = []
    for size, out, more in zip(natural, wanted, extra, strict=True):
        total = size + more - out
        behind = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        before = total - behind
        if auto_pad == "SAME_UPPER":
            before, behind = total // 2, total - total // 2
        pairs.append((max(before, 0), max(behind, 0)) if total >= 0 else (0, 0))
        added.append(more if total >= 0 else more - total)
    return tuple(pairs), tuple(added)


@converter("ConvTranspose")
def conv_transpose(
    x: Traced,
    w: Traced,
    bias: Traced | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Traced:
    """A transposed convolution, of a size that pads or the result's shape say."""
    kernel = known_ints(w.shape[2:], "the kernel of a convolution")
    rank = len(kernel)
    stride, dilation = strides or (1,) * rank, dilations or (1,) * rank
    extra = output_padding or (0,) * rank
    require(
        len(stride) == len(dilation) == len(extra) == x.ndim - 2 == rank,
        "strides, dilations or output_padding are not those of the kernel",
    )
    require(output_shape is None or len(output_shape) >= rank, "output_shape is too short")
    require(pads is None or len(pads) == 2 * rank, "pads are not those of the kernel")
    wanted = output_shape[-rank:] if output_shape else None
    if wanted is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        sizes = known_ints(x.shape[2:], "the size of an input with auto_pad")
        wanted = tuple(n * s for n, s in zip(sizes, stride, strict=True))
    natural = (0,) * rank
    if wanted is not None:
        sizes = known_ints(x.shape[2:], "the size of an input with a given output_shape")
        natural = tuple(
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(sizes, stride, kernel, dilation, strict=True)
        )
    found, added = _transposed_pads(natural, wanted, pads, auto_pad, extra)
    op = ConvTranspose(stride, found, added, dilation, group)
    return op(x, w) if bias is None else op(x, w, bias)


@converter("Col2Im", since=18)
def col2im(
    x: Traced,
    image_shape: Known,
    block_shape: Known,
    *,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Traced:
    """Columns added where windows took them from."""
    kernel = block_shape.ints()
    require(len(kernel) == image_shape.array.size, "block and image have not the same axes")
    found = window_of(x.shape[2:], kernel, strides, dilations, pads, "NOTSET")
    return Col2im(image_shape.sizes(), kernel, found.stride, found.pads, found.dilation)(x)


CONVERTERS = (conv, conv_integer, conv_transpose, col2im)
