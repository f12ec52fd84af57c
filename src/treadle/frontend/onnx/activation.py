"""Activation functions."""

from treadle.expr.scalar import int_value
from treadle.frontend.onnx.compose import (
    add,
    along_axis,
    axis_of,
    cast,
    counted,
    dims_product,
    equal,
    greater,
    less,
    mul,
    reshape,
    sub,
    where,
)
from treadle.frontend.onnx.converter import Converter, converter
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op
from treadle.ops.activation import (
    Celu,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Mish,
    Prelu,
    Relu,
    Selu,
    Sigmoid,
    Softplus,
    Softsign,
    ThresholdedRelu,
)
from treadle.ops.normalize import LogSoftmax, Softmax
from treadle.ops.reduce import ArgMax


def _simple(operator: str, op: Op) -> Converter:
    def convert(x: Traced) -> Traced:
        return op(x)

    return converter(operator)(convert)


@converter("LeakyRelu", since=6)
def leaky_relu(x: Traced, *, alpha: float = 0.01) -> Traced:
    """A slope below zero."""
    return LeakyRelu(alpha)(x)


@converter("Elu", since=6)
def elu(x: Traced, *, alpha: float = 1.0) -> Traced:
    """An exponential below zero."""
    return Elu(alpha)(x)


@converter("Selu", since=6)
def selu(
    x: Traced, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Traced:
    """The scaled one."""
    return Selu(alpha, gamma)(x)


@converter("Celu", since=12)
def celu(x: Traced, *, alpha: float = 1.0) -> Traced:
    """The continuously differentiable one."""
    return Celu(alpha)(x)


@converter("HardSigmoid", since=6)
def hard_sigmoid(x: Traced, *, alpha: float = 0.2, beta: float = 0.5) -> Traced:
    """A clipped line."""
    return HardSigmoid(alpha, beta)(x)


@converter("ThresholdedRelu", since=10)
def thresholded_relu(x: Traced, *, alpha: float = 1.0) -> Traced:
    """Zero up to ``alpha``."""
    return ThresholdedRelu(alpha)(x)


@converter("Gelu", since=20)
def gelu(x: Traced, *, approximate: str = "none") -> Traced:
    """Exact or by tanh."""
    return Gelu("tanh" if approximate == "tanh" else "none")(x)


@converter("Swish", since=24)
def swish(x: Traced, *, alpha: float = 1.0) -> Traced:
    """x sigmoid(alpha x)."""
    return mul(x, Sigmoid()(mul(x, alpha)))


@converter("PRelu", since=7)
def prelu(x: Traced, slope: Traced) -> Traced:
    """A slope for each channel or element."""
    return Prelu()(x, slope) if x.dtype.is_float else where(less(x, 0), mul(x, slope), x)


@converter("PRelu")
def prelu_old(x: Traced, slope: Traced) -> Traced:
    """Before opset 7 a slope of one axis stood along the channels."""
    single = slope.ndim != 1 or int_value(slope.shape[0]) == 1
    return Prelu()(x, slope if single else along_axis(slope, 1, x.ndim))


@converter("Shrink", since=9)
def shrink(x: Traced, *, bias: float = 0.0, lambd: float = 0.5) -> Traced:
    """Zero between -lambd and lambd, nearer to zero by the bias elsewhere."""
    wide = cast(x, x.dtype) if x.dtype.is_float else x
    above = where(greater(wide, lambd), sub(wide, bias), 0)
    return where(less(wide, -lambd), add(wide, bias), above)


@converter("Softmax", since=13)
def softmax(x: Traced, *, axis: int = -1) -> Traced:
    """Along one axis."""
    return Softmax(axis)(x)


@converter("LogSoftmax", since=13)
def log_softmax(x: Traced, *, axis: int = -1) -> Traced:
    """Along one axis."""
    return LogSoftmax(axis)(x)


@converter("Hardmax", since=13)
def hardmax(x: Traced, *, axis: int = -1) -> Traced:
    """One at the first largest element along an axis, else zero."""
    k = axis_of(axis, x.ndim)
    place = ArgMax(k, keepdims=True)(x)
    return cast(equal(place, along_axis(counted(x, x.shape[k]), k, x.ndim)), x.dtype)


def _flattened(op: Op, operator: str) -> Converter:
    """Before opset 13 the axes from ``axis`` on counted as one."""

    def convert(x: Traced, *, axis: int = 1) -> Traced:
        k = axis_of(axis, x.ndim)
        flat = reshape(x, dims_product(x.shape[:k]), dims_product(x.shape[k:]))
        return reshape(op(flat), *x.shape)

    return converter(operator)(convert)


CONVERTERS = (
    *(
        _simple(type(op).__name__, op)
        for op in (HardSwish(), Mish(), Relu(), Sigmoid(), Softplus(), Softsign())
    ),
    *(
        leaky_relu,
        elu,
        selu,
        celu,
        hard_sigmoid,
        thresholded_relu,
        gelu,
        swish,
        prelu,
        prelu_old,
        shrink,
    ),
    *(
        softmax,
        log_softmax,
        hardmax,
        _flattened(Softmax(-1), "Softmax"),
        _flattened(LogSoftmax(-1), "LogSoftmax"),
    ),
)
