"""What convolutions and pools share: kernels, strides and paddings as ONNX's attributes say
them."""

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.base.errors import ModelImportError
from treadle.expr.scalar import Expr, as_expr, ceildiv, int_value, maximum
from treadle.expr.simplify import simplify

Ints = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """A kernel that slides over spatial axes."""

    kernel: Ints
    stride: Ints
    dilation: Ints
    pads: Pads


def window_of(
    size: Sequence[Expr],
    kernel: Ints,
    strides: Ints | None,
    dilations: Ints | None,
    pads: Ints | None,
    auto_pad: str,
    ceil_mode: bool = False,
) -> Window:
    """The window over axes of some sizes.

    Raises:
        ModelImportError: E0605 when ``auto_pad`` is unknown or needs sizes that are symbols, or
            when attributes are of another rank than the kernel.
    """
    rank = len(kernel)
    stride = strides or (1,) * rank
    dilation = dilations or (1,) * rank
    if len(stride) != rank or len(dilation) != rank or (pads and len(pads) != 2 * rank):
        raise ModelImportError(
            "E0605",
            f"strides, dilations or pads are not those of a window of rank {rank}",
            help="check the model with onnx.checker.check_model",
        )
    if auto_pad in ("NOTSET", "VALID"):
        flat = pads if pads and auto_pad == "NOTSET" else (0,) * (2 * rank)
        return Window(
            kernel, stride, dilation, tuple((flat[k], flat[k + rank]) for k in range(rank))
        )
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise ModelImportError(
            "E0605", f"auto_pad is '{auto_pad}'", help="use NOTSET, SAME_UPPER, SAME_LOWER or VALID"
        )
    found = tuple(
        _same(size[k], (kernel[k] - 1) * dilation[k] + 1, stride[k], auto_pad == "SAME_LOWER")
        for k in range(rank)
    )
    return Window(kernel, stride, dilation, found)


def _same(size: Expr, reach: int, stride: int, more_before: bool) -> tuple[int, int]:
    """The padding with which there are ceil(size / stride) windows."""
    total = simplify(maximum((ceildiv(size, stride) - 1) * stride + reach - size, 0))
    number = reach - 1 if stride == 1 else int_value(total)
    if number is None:
        raise ModelImportError(
            "E0605",
            f"auto_pad needs a known size, and it is {size}",
            help="give the model fixed spatial dimensions",
        )
    less, more = number // 2, number - number // 2
    return (more, less) if more_before else (less, more)


def known_ints(dims: Sequence[Expr], what: str) -> Ints:
    """Dimensions that must be numbers; ModelImportError E0607 otherwise."""
    numbers = [int_value(d) for d in dims]
    found = [n for n in numbers if n is not None]
    if len(found) != len(numbers):
        raise ModelImportError(
            "E0607", f"{what} must be known, and is {dims}", help="give the model fixed dimensions"
        )
    return tuple(found)


def as_dims(values: Sequence[int]) -> tuple[Expr, ...]:
    """Numbers as expressions."""
    return tuple(as_expr(v) for v in values)
