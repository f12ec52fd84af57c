"""Pools."""

from treadle.expr.dtype import i64
from treadle.expr.scalar import Expr
from treadle.expr.simplify import simplify
from treadle.frontend.onnx.compose import add, along_axis, counted, mul
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.value import Known
from treadle.frontend.onnx.window import Ints, Window, window_of
from treadle.ir.graph_builder import Traced
from treadle.ops import AvgPool, LpPool, Max, MaxPool, MaxUnpool, Mean
from treadle.ops._shapes import product
from treadle.ops.binary import FloorDiv, Mod
from treadle.ops.broadcast import Sum
from treadle.ops.elementwise import Abs, Sqrt
from treadle.ops.power import Pow


def _window(
    x: Traced,
    kernel: Ints,
    strides: Ints | None,
    dilations: Ints | None,
    pads: Ints | None,
    auto_pad: str,
) -> Window:
    return window_of(x.shape[2:], kernel, strides, dilations, pads, auto_pad)


@converter("MaxPool")
def max_pool(
    site: Site,
    x: Traced,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    storage_order: int = 0,
    strides: Ints | None = None,
) -> tuple[Traced, ...]:
    """The largest element of each window, and where it stands in the whole tensor."""
    w = _window(x, kernel_shape, strides, dilations, pads, auto_pad)
    op = MaxPool(w.kernel, w.stride, w.pads, w.dilation, bool(ceil_mode), site.wants(1))
    found = site.builder.emit_all(op, x)
    if not site.wants(1):
        return found
    return found[0], _whole_indices(x, found[1], bool(storage_order))


def _whole_indices(x: Traced, flat: Traced, column_major: bool) -> Traced:
    """Indices over the spatial axes as indices over the whole tensor; in column-major order, if
    asked."""
    size = product(x.shape[2:])
    if column_major:
        flat = _column_major(x, flat)
    rank = x.ndim
    batch = mul(
        along_axis(counted(x, x.shape[0]), 0, rank), _number(x, simplify(x.shape[1] * size))
    )
    channel = mul(along_axis(counted(x, x.shape[1]), 1, rank), _number(x, size))
    return add(add(flat, batch), channel)


def _column_major(x: Traced, flat: Traced) -> Traced:
    result = None
    step: Expr = product(())
    rest = flat
    for k in range(x.ndim - 1, 1, -1):
        size = _number(x, x.shape[k])
        here = Mod()(rest, size)
        rest = FloorDiv()(rest, size)
        # The last axis varies slowest: its step is the product of those before it.
        step = product(x.shape[2:k])
        term = mul(here, _number(x, step))
        result = term if result is None else add(result, term)
    return flat if result is None else result


def _number(x: Traced, value: Expr) -> Traced:
    return x.builder.literal(value, i64)


@converter("AveragePool")
def average_pool(
    x: Traced,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Traced:
    """The average of each window."""
    w = _window(x, kernel_shape, strides, dilations, pads, auto_pad)
    return AvgPool(
        w.kernel, w.stride, w.pads, bool(ceil_mode), bool(count_include_pad), w.dilation
    )(x)


@converter("LpPool", since=2)
def lp_pool(
    x: Traced,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    p: int = 2,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Traced:
    """The p-norm of each window."""
    w = _window(x, kernel_shape, strides, dilations, pads, auto_pad)
    return LpPool(w.kernel, w.stride, w.pads, float(p), bool(ceil_mode), w.dilation)(x)


def _spatial(x: Traced) -> Ints:
    return tuple(range(2, x.ndim))


@converter("GlobalAveragePool")
def global_average_pool(x: Traced) -> Traced:
    """The average over the spatial axes."""
    return Mean(_spatial(x), keepdims=True)(x)


@converter("GlobalMaxPool")
def global_max_pool(x: Traced) -> Traced:
    """The maximum over the spatial axes."""
    return Max(_spatial(x), keepdims=True)(x)


@converter("GlobalLpPool")
def global_lp_pool(x: Traced, *, p: float = 2) -> Traced:
    """The p-norm over the spatial axes."""
    powers = Pow()(Abs()(x), x.builder.literal(float(p), x.dtype))
    total = Sum(_spatial(x), keepdims=True)(powers)
    return Sqrt()(total) if p == 2 else Pow()(total, x.builder.literal(1 / p, x.dtype))


@converter("MaxUnpool", since=9)
def max_unpool(
    x: Traced,
    indices: Traced,
    shape: Known | None = None,
    *,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Traced:
    """Elements put back where MaxPool found them; indices count over a tensor of the size that the
    window implies."""
    rank = x.ndim - 2
    flat = pads or (0,) * (2 * rank)
    stride = strides or (1,) * rank
    natural = [
        simplify((d - 1) * stride[k] + kernel_shape[k] - flat[k] - flat[k + rank])
        for k, d in enumerate(x.shape[2:])
    ]
    inner = Mod()(indices, _number(x, product(natural)))
    if shape is None:
        return MaxUnpool(tuple(natural))(x, inner)
    size = shape.sizes()[2:]
    return MaxUnpool(size)(x, _moved(x, inner, natural, size))


def _moved(x: Traced, flat: Traced, before: list[Expr], after: tuple[Expr, ...]) -> Traced:
    """Flat indices over one shape as indices of the same places in another."""
    result = None
    rest = flat
    for k in range(len(before) - 1, -1, -1):
        here = Mod()(rest, _number(x, before[k]))
        rest = FloorDiv()(rest, _number(x, before[k]))
        term = mul(here, _number(x, product(after[k + 1 :])))
        result = term if result is None else add(result, term)
    return flat if result is None else result


CONVERTERS = (
    *(
        max_pool,
        average_pool,
        lp_pool,
        global_average_pool,
        global_max_pool,
        global_lp_pool,
        max_unpool,
    ),
)
