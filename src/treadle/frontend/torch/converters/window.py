"""What slides a window: convolutions, pools, padding."""

from collections.abc import Sequence

from treadle.expr.scalar import Expr
from treadle.frontend.torch.context import (
    Context,
    Converted,
    Converter,
    Number,
    Size,
    Unsupported,
    known,
    plain_size,
)
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op
from treadle.ops.adaptive_pool import AdaptiveAvgPool, AdaptiveMaxPool
from treadle.ops.columns import Col2im, Im2col
from treadle.ops.convolution import Conv, ConvTranspose
from treadle.ops.pad import Pad
from treadle.ops.pool import AvgPool, MaxPool

Sizes = Sequence[Size] | Size


def _spread(values: Sizes, rank: int, what: str) -> tuple[int, ...]:
    """One integer per spatial axis; one number, or a list of one, counts for all."""
    found = tuple(values) if isinstance(values, Sequence) else (values,)
    numbers = tuple(known(v, what) for v in found)
    return numbers * rank if len(numbers) == 1 else numbers


def _even(padding: Sizes, rank: int) -> tuple[tuple[int, int], ...]:
    return tuple((p, p) for p in _spread(padding, rank, "the padding"))


def _batched(c: Context, x: Traced, rank: int) -> Traced:
    """``x`` with a batch of one where it has none."""
    return c.reshape(x, (1, *x.shape)) if x.ndim == rank + 1 else x


def _unbatched(c: Context, y: Traced) -> Traced:
    return c.reshape(y, y.shape[1:]) if y.ndim > len(c.shape) else y


def _applied(c: Context, op: Op, x: Traced, weight: Traced, bias: Traced | None) -> Traced:
    operands = (x, weight) if bias is None else (x, weight, bias)
    return _unbatched(c, c.emit(op, *operands))


def conv(
    c: Context,
    x: Traced,
    weight: Traced,
    bias: Traced | None,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: int,
) -> Traced:
    """A convolution of as many dimensions as the weight has."""
    rank = weight.ndim - 2
    strides = _spread(stride, rank, "the stride")
    dilations = _spread(dilation, rank, "the dilation")
    if isinstance(padding, str):
        pads = _named_padding(padding, weight, dilations)
    else:
        pads = _even(padding, rank)
    return _applied(c, Conv(strides, pads, dilations, groups), _batched(c, x, rank), weight, bias)


def _named_padding(
    name: str, weight: Traced, dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if name == "valid":
        return ((0, 0),) * len(dilation)
    totals = [
        d * (known(k, "the kernel") - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)
    ]
    return tuple((total // 2, total - total // 2) for total in totals)


def conv_transpose(
    c: Context,
    x: Traced,
    weight: Traced,
    bias: Traced | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Traced:
    """A transposed convolution of as many dimensions as the weight has."""
    rank = weight.ndim - 2
    op = ConvTranspose(
        _spread(stride, rank, "the stride"),
        _even(padding, rank),
        _spread(output_padding, rank, "the output padding"),
        _spread(dilation, rank, "the dilation"),
        groups,
    )
    return _applied(c, op, _batched(c, x, rank), weight, bias)


def convolution(
    c: Context,
    x: Traced,
    weight: Traced,
    bias: Traced | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Traced:
    """Either of them."""
    if transposed:
        return conv_transpose(c, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(c, x, weight, bias, stride, padding, dilation, groups)


def _max_pool(rank: int, indices: bool) -> Converter:
    def converter(
        c: Context,
        x: Traced,
        kernel: Sizes,
        stride: Sizes = (),
        padding: Sizes = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
    ) -> Converted:
        op = MaxPool(
            _spread(kernel, rank, "the kernel"),
            _spread(stride or kernel, rank, "the stride"),
            _even(padding, rank),
            _spread(dilation, rank, "the dilation"),
            ceil_mode,
            indices,
        )
        results = c.emit_all(op, _batched(c, x, rank))
        unbatched = tuple(_unbatched(c, y) for y in results)
        return unbatched if indices else unbatched[0]

    return converter


def _avg_pool(rank: int) -> Converter:
    def converter(
        c: Context,
        x: Traced,
        kernel: Sizes,
        stride: Sizes = (),
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor: int | None = None,
    ) -> Traced:
        op = AvgPool(
            _spread(kernel, rank, "the kernel"),
            _spread(stride or kernel, rank, "the stride"),
            _even(padding, rank),
            ceil_mode,
            count_include_pad,
            None,
            divisor,
        )
        return _unbatched(c, c.emit(op, _batched(c, x, rank)))

    return converter


def _adaptive(rank: int, op: type[AdaptiveAvgPool] | type[AdaptiveMaxPool]) -> Converter:
    def converter(c: Context, x: Traced, size: Sizes) -> Converted:
        windows = tuple(known(d, "the output size") for d in c.shape[-rank:])
        grown = _batched(c, x, rank)
        if op is AdaptiveAvgPool:
            return _unbatched(c, c.emit(AdaptiveAvgPool(windows), grown))
        found = c.emit_all(AdaptiveMaxPool(windows, indices=True), grown)
        return tuple(_unbatched(c, y) for y in found)

    return converter


def im2col(
    c: Context, x: Traced, kernel: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes
) -> Traced:
    """Windows as columns."""
    op = Im2col(
        _spread(kernel, 2, "the kernel"),
        _spread(stride, 2, "the stride"),
        _even(padding, 2),
        _spread(dilation, 2, "the dilation"),
    )
    return _unbatched(c, c.emit(op, _batched(c, x, 2)))


def col2im(
    c: Context,
    x: Traced,
    size: Sizes,
    kernel: Sizes,
    dilation: Sizes,
    padding: Sizes,
    stride: Sizes,
) -> Traced:
    """Columns added where they come from."""
    op = Col2im(
        tuple(size) if isinstance(size, Sequence) else (size, size),
        _spread(kernel, 2, "the kernel"),
        _spread(stride, 2, "the stride"),
        _even(padding, 2),
        _spread(dilation, 2, "the dilation"),
    )
    return _unbatched(c, c.emit(op, _batched(c, x, 1)))


def _pad(mode: str) -> Converter:
    """Padding whose pairs come last axis first."""

    def converter(
        c: Context, x: Traced, pads: tuple[Size, ...], value: Number | None = 0
    ) -> Traced:
        return _padded(c, x, pads, mode, value)

    return converter


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(
    c: Context,
    x: Traced,
    pads: tuple[Size, ...],
    mode: str = "constant",
    value: Number | None = None,
) -> Traced:
    """Padding in a named mode."""
    return _padded(c, x, pads, _MODES[mode], value)


def _padded(
    c: Context, x: Traced, pads: tuple[Size, ...], mode: str, value: Number | Expr | None
) -> Traced:
    if isinstance(value, Expr):
        raise Unsupported("a value of padding that is computed")
    pairs = [(plain_size(pads[k]), plain_size(pads[k + 1])) for k in range(0, len(pads), 2)]
    whole = (*[(0, 0)] * (x.ndim - len(pairs)), *reversed(pairs))
    return c.emit(Pad(whole, mode, value or 0), x)  # type: ignore[arg-type]  (a mode of the table)


_RANKS = (1, 2, 3)

CONVERTERS: dict[str, Converter] = {
    **{f"conv{n}d.{way}": conv for n in _RANKS for way in ("default", "padding")},
    "convolution.default": convolution,
    "conv_transpose1d.default": conv_transpose,
    "conv_transpose2d.input": conv_transpose,
    "conv_transpose3d.input": conv_transpose,
    **{f"max_pool{n}d.default": _max_pool(n, indices=False) for n in _RANKS},
    **{f"max_pool{n}d_with_indices.default": _max_pool(n, indices=True) for n in _RANKS},
    **{f"avg_pool{n}d.default": _avg_pool(n) for n in _RANKS},
    **{f"adaptive_avg_pool{n}d.default": _adaptive(n, AdaptiveAvgPool) for n in _RANKS},
    **{f"_adaptive_avg_pool{n}d.default": _adaptive(n, AdaptiveAvgPool) for n in _RANKS},
    **{f"adaptive_max_pool{n}d.default": _adaptive(n, AdaptiveMaxPool) for n in _RANKS},
    "im2col.default": im2col,
    "col2im.default": col2im,
    "constant_pad_nd.default": _pad("constant"),
    **{f"reflection_pad{n}d.default": _pad("reflect") for n in _RANKS},
    **{f"replication_pad{n}d.default": _pad("edge") for n in _RANKS},
    "pad.default": pad,
}
