"""Elementwise operators of one tensor, and activations."""

from treadle.frontend.torch.context import Context, Converter, Number, Operand, Unsupported
from treadle.frontend.torch.promotion import elementwise
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op
from treadle.ops.activation import (
    Celu,
    Clip,
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
    Silu,
    Softplus,
)
from treadle.ops.binary import Maximum, Minimum, Mul
from treadle.ops.elementwise import (
    Abs,
    BitwiseNot,
    Ceil,
    Erf,
    Erfc,
    Erfinv,
    Exp,
    Exp2,
    Expm1,
    Floor,
    IsFinite,
    IsInf,
    IsNan,
    Lgamma,
    Log,
    Log1p,
    Log2,
    Log10,
    LogicalNot,
    Neg,
    Reciprocal,
    Round,
    Rsqrt,
    Sign,
    Sqrt,
    Square,
    Trunc,
)
from treadle.ops.trigonometric import (
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Cos,
    Cosh,
    Sin,
    Sinh,
    Tan,
    Tanh,
)


def _unary(op: type[Op]) -> Converter:
    """The operator that is ``op`` in the dtype of its result."""

    def converter(c: Context, x: Traced) -> Traced:
        return elementwise(c, op(), x)

    return converter


def _rounding(op: type[Op]) -> Converter:
    """The same, which leaves integers as they are."""

    def converter(c: Context, x: Traced) -> Traced:
        return elementwise(c, op(), x) if x.dtype.is_float else x

    return converter


def _property(op: type[Op], of_integers: bool) -> Converter:
    """A question about floats, with the answer that integers give."""

    def converter(c: Context, x: Traced) -> Traced:
        if x.dtype.is_float:
            return c.emit(op(), x)
        return c.full(c.shape, of_integers, c.dtype)

    return converter


def identity(c: Context, x: Traced, *_: object) -> Traced:
    """What only copies, or does nothing outside of training."""
    return x


def to_copy(c: Context, x: Traced, *_: object) -> Traced:
    """Another dtype; device and layout are not ours."""
    return c.cast(x, c.dtype)


def dropout(c: Context, x: Traced, p: float, train: bool) -> Traced:
    """Nothing, unless the model trains."""
    _refuse_training(train)
    return x


def native_dropout(c: Context, x: Traced, p: float, train: bool | None) -> tuple[Traced, None]:
    """The same, with a mask that nobody reads."""
    _refuse_training(bool(train))
    return x, None


def _refuse_training(train: bool) -> None:
    if train:
        raise Unsupported("dropout in training mode; call model.eval()")


def logical_not(c: Context, x: Traced) -> Traced:
    """Of what is not zero: false."""
    return c.emit(LogicalNot(), c.cast(x, c.dtype))


def bitwise_not(c: Context, x: Traced) -> Traced:
    """Of booleans: the negation."""
    return c.emit(LogicalNot() if x.dtype.is_bool else BitwiseNot(), x)


def round_decimals(c: Context, x: Traced, decimals: int) -> Traced:
    """Round half to even at a decimal place."""
    scale = 10.0 ** abs(decimals)
    factor = c.literal(scale if decimals >= 0 else 1 / scale, x.dtype)
    inverse = c.literal(1 / scale if decimals >= 0 else scale, x.dtype)
    return c.emit(Mul(), c.emit(Round(), c.emit(Mul(), x, factor)), inverse)


def clamp(c: Context, x: Traced, low: Operand | None, high: Operand | None = None) -> Traced:
    """Limits that are numbers or tensors; numbers go into one operation."""
    if _is_number(low) and _is_number(high):
        return elementwise(c, Clip(low, high), x)  # type: ignore[arg-type]  (both were checked)
    if low is not None:
        x = elementwise(c, Maximum(), x, low)
    return x if high is None else elementwise(c, Minimum(), x, high)


def _is_number(x: Operand | None) -> bool:
    return x is None or isinstance(x, int | float)


def clamp_max(c: Context, x: Traced, high: Operand) -> Traced:
    """An upper limit."""
    return clamp(c, x, None, high)


def relu6(c: Context, x: Traced) -> Traced:
    """Between 0 and 6."""
    return elementwise(c, Clip(0, 6), x)


def gelu(c: Context, x: Traced, approximate: str) -> Traced:
    """Exact or by tanh."""
    return c.emit(Gelu("tanh" if approximate == "tanh" else "none"), x)


def leaky_relu(c: Context, x: Traced, slope: Number) -> Traced:
    """A slope below zero."""
    return c.emit(LeakyRelu(float(slope)), x)


def elu(c: Context, x: Traced, alpha: Number, scale: Number, input_scale: Number) -> Traced:
    """scale · elu(x); the self-normalizing one where the numbers are its."""
    if input_scale != 1:
        raise Unsupported("an input scale")
    result = c.emit(Elu(float(alpha)), x)
    return result if scale == 1 else elementwise(c, Mul(), result, scale)


def selu(c: Context, x: Traced) -> Traced:
    """The self-normalizing unit."""
    return c.emit(Selu(), x)


def celu(c: Context, x: Traced, alpha: Number) -> Traced:
    """The smooth unit."""
    return c.emit(Celu(float(alpha)), x)


def softplus(c: Context, x: Traced, beta: Number, threshold: Number) -> Traced:
    """A smooth ramp."""
    return c.emit(Softplus(float(beta), float(threshold)), x)


def hardsigmoid(c: Context, x: Traced) -> Traced:
    """relu6(x + 3) / 6."""
    return c.emit(HardSigmoid(1 / 6, 0.5), x)


def prelu(c: Context, x: Traced, slope: Traced) -> Traced:
    """One slope, or one per channel (axis 1)."""
    if slope.ndim == 1 and x.ndim > 2:
        slope = c.reshape(slope, (slope.shape[0], *[1] * (x.ndim - 2)))
    return c.emit(Prelu(), x, slope)


_OPS: dict[str, type[Op]] = {
    "abs": Abs,
    "acos": Acos,
    "acosh": Acosh,
    "asin": Asin,
    "asinh": Asinh,
    "atan": Atan,
    "atanh": Atanh,
    "cos": Cos,
    "cosh": Cosh,
    "erf": Erf,
    "erfc": Erfc,
    "erfinv": Erfinv,
    "exp": Exp,
    "exp2": Exp2,
    "expm1": Expm1,
    "lgamma": Lgamma,
    "log": Log,
    "log10": Log10,
    "log1p": Log1p,
    "log2": Log2,
    "neg": Neg,
    "reciprocal": Reciprocal,
    "relu": Relu,
    "rsqrt": Rsqrt,
    "sgn": Sign,
    "sigmoid": Sigmoid,
    "sign": Sign,
    "silu": Silu,
    "sin": Sin,
    "sinh": Sinh,
    "special_erfinv": Erfinv,
    "sqrt": Sqrt,
    "square": Square,
    "tan": Tan,
    "tanh": Tanh,
    "hardswish": HardSwish,
    "mish": Mish,
}
_ROUNDINGS: dict[str, type[Op]] = {"ceil": Ceil, "floor": Floor, "round": Round, "trunc": Trunc}

CONVERTERS: dict[str, Converter] = {
    **{f"{name}.default": _unary(op) for name, op in _OPS.items()},
    **{f"{name}.default": _rounding(op) for name, op in _ROUNDINGS.items()},
    "fix.default": _rounding(Trunc),
    "round.decimals": round_decimals,
    "isnan.default": _property(IsNan, False),
    "isinf.default": _property(IsInf, False),
    "isfinite.default": _property(IsFinite, True),
    "logical_not.default": logical_not,
    "bitwise_not.default": bitwise_not,
    "clone.default": identity,
    "alias.default": identity,
    "detach.default": identity,
    "lift_fresh_copy.default": identity,
    "_to_copy.default": to_copy,
    "dropout.default": dropout,
    "native_dropout.default": native_dropout,
    "clamp.default": clamp,
    "clamp.Tensor": clamp,
    "clamp_min.default": clamp,
    "clamp_min.Tensor": clamp,
    "clamp_max.default": clamp_max,
    "clamp_max.Tensor": clamp_max,
    "hardtanh.default": clamp,
    "relu6.default": relu6,
    "gelu.default": gelu,
    "leaky_relu.default": leaky_relu,
    "elu.default": elu,
    "selu.default": selu,
    "celu.default": celu,
    "softplus.default": softplus,
    "hardsigmoid.default": hardsigmoid,
    "prelu.default": prelu,
    "_prelu_kernel.default": prelu,
}
