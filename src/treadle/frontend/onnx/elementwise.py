"""Elementwise arithmetic, comparison, logic, bits and casts."""

from treadle.expr.dtype import f32, f64
from treadle.frontend.onnx.compose import (
    add,
    agreeing,
    both,
    cast,
    div,
    element_type,
    equal,
    greater_equal,
    less,
    maximum,
    minimum,
    reshape,
    where,
)
from treadle.frontend.onnx.converter import Converter, converter
from treadle.frontend.onnx.rules import require
from treadle.frontend.onnx.value import Operand
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op
from treadle.ops.activation import Clip
from treadle.ops.binary import Add, Div, Fmod, Maximum, Minimum, Mod, Mul, Sub, TruncDiv
from treadle.ops.compare import (
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    LogicalAnd,
    LogicalOr,
    LogicalXor,
    ShiftLeft,
    ShiftRight,
    Where,
)
from treadle.ops.elementwise import (
    Abs,
    Bitcast,
    BitwiseNot,
    Ceil,
    Erf,
    Exp,
    Floor,
    IsInf,
    IsNan,
    Log,
    LogicalNot,
    Neg,
    Reciprocal,
    Round,
    Sign,
    Sqrt,
)
from treadle.ops.power import Pow
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

# The largest f32, which ONNX takes for no limit.
LARGEST = 3.4028234663852886e38


def _unary(operator: str, op: Op) -> Converter:
    def convert(x: Traced) -> Traced:
        return op(x)

    return converter(operator)(convert)


def _binary(operator: str, op: Op) -> Converter:
    def convert(a: Traced, b: Traced) -> Traced:
        return op(*agreeing(a, b))

    return converter(operator, since=7)(convert)


def _aligned(operator: str, op: Op) -> Converter:
    """Before opset 7 operands broadcast only when asked to."""

    def convert(a: Traced, b: Traced, *, broadcast: int = 0, axis: int | None = None) -> Traced:
        return op(a, aligned(a, b, axis) if broadcast else b)

    return converter(operator)(convert)


def aligned(a: Traced, b: Traced, axis: int | None) -> Traced:
    """``b`` with ones behind, so that its first axis stands at ``axis`` of ``a``: broadcasting
    before opset 7."""
    if axis is None:
        return b
    from_front = axis + a.ndim if axis < 0 else axis
    behind = a.ndim - from_front - b.ndim
    return b if behind <= 0 else reshape(b, *b.shape, *[1] * behind)


@converter("Div", since=7)
def divide(a: Traced, b: Traced) -> Traced:
    """Integers: towards zero."""
    return (Div() if a.dtype.is_float else TruncDiv())(*agreeing(a, b))


@converter("Div")
def divide_old(a: Traced, b: Traced, *, broadcast: int = 0, axis: int | None = None) -> Traced:
    """As before opset 7."""
    return (Div() if a.dtype.is_float else TruncDiv())(a, aligned(a, b, axis) if broadcast else b)


@converter("Mod", since=10)
def mod(a: Traced, b: Traced, *, fmod: int = 0) -> Traced:
    """The remainder of the divisor's sign, or with ``fmod`` of the dividend's."""
    return (Fmod() if fmod else Mod())(*agreeing(a, b))


@converter("Pow", since=7)
def power(a: Traced, b: Traced) -> Traced:
    """The base's dtype, whatever the exponent's is."""
    if a.dtype.is_float or b.dtype.is_int:
        return Pow()(a, cast(b, a.dtype))
    wide = f64 if a.dtype.bits > 16 else f32
    return cast(Pow()(cast(a, wide), cast(b, wide)), a.dtype)


@converter("Pow")
def power_old(a: Traced, b: Traced, *, broadcast: int = 0, axis: int | None = None) -> Traced:
    """As before opset 7."""
    return Pow()(a, aligned(a, b, axis) if broadcast else b)


def _variadic(operator: str, op: Op) -> Converter:
    def convert(*xs: Traced) -> Traced:
        result, *others = agreeing(*xs)
        for x in others:
            result = op(result, x)
        return result

    return converter(operator)(convert)


@converter("Mean", since=8)
def mean(*xs: Traced) -> Traced:
    """The average of the operands, broadcast."""
    require(bool(xs), "an average needs operands")
    result = xs[0]
    for x in xs[1:]:
        result = add(result, x)
    return div(result, len(xs))


@converter("BitShift", since=11)
def bit_shift(x: Traced, y: Traced, *, direction: str) -> Traced:
    """By as many bits as the dtype has or more, everything is shifted out."""
    bits = x.dtype.bits
    inside = less(y, bits)
    if y.dtype.kind == "int":
        inside = both(inside, greater_equal(y, 0))
    amount = where(inside, y, 0)
    if direction == "LEFT":
        return where(inside, ShiftLeft()(x, amount), 0)
    if x.dtype.kind == "uint":
        return where(inside, ShiftRight()(x, amount), 0)
    return ShiftRight()(x, where(inside, y, bits - 1))


@converter("IsInf", since=10)
def is_inf(x: Traced, *, detect_negative: int = 1, detect_positive: int = 1) -> Traced:
    """Of one sign only, if so asked."""
    if detect_negative and detect_positive:
        return IsInf()(x)
    if detect_positive:
        return equal(x, float("inf"))
    if detect_negative:
        return equal(x, float("-inf"))
    return both(IsInf()(x), LogicalNot()(IsInf()(x)))


@converter("Where", since=9)
def choose(condition: Traced, a: Traced, b: Traced) -> Traced:
    """``a`` where the condition holds, else ``b``."""
    return Where()(*agreeing(condition, a, b))


@converter("Clip", since=11)
def clip(x: Traced, low: Operand | None = None, high: Operand | None = None) -> Traced:
    """Limits that are known become fields; others are operands."""
    for limit, function in ((low, maximum), (high, minimum)):
        if limit is not None:
            x = function(x, _scalar(x, limit))
    return x


def _scalar(x: Traced, limit: Operand) -> Traced:
    if limit.known is not None and limit.known.is_concrete:
        return x.builder.literal(limit.known.item(), x.dtype)
    assert limit.traced is not None
    return limit.traced


@converter("Clip", since=6)
def clip_to_attributes(x: Traced, *, min: float = -LARGEST, max: float = LARGEST) -> Traced:  # noqa: A002
    """The limits are attributes."""
    return Clip(min, max)(x)


@converter("Cast", since=6)
def cast_to(x: Traced, *, to: int, saturate: int = 1, round_mode: str = "up") -> Traced:
    """``saturate`` and ``round_mode`` say something of 8-bit floats only, which are refused."""
    return cast(x, element_type(to))


@converter("CastLike", since=15)
def cast_like(x: Traced, like: Operand, *, saturate: int = 1, round_mode: str = "up") -> Traced:
    """To the dtype of another tensor."""
    return cast(x, like.dtype)


@converter("BitCast", since=26)
def bit_cast(x: Traced, *, to: int) -> Traced:
    """The same bits as another dtype."""
    return Bitcast(element_type(to))(x)


@converter("Identity")
def identity(x: Operand) -> Operand:
    """The value itself."""
    return x


_BROADCAST: dict[str, Op] = {
    "Add": Add(),
    "Sub": Sub(),
    "Mul": Mul(),
    "Equal": Equal(),
    "Greater": Greater(),
    "Less": Less(),
    "And": LogicalAnd(),
    "Or": LogicalOr(),
    "Xor": LogicalXor(),
}
_NEWER: dict[str, Op] = {
    "GreaterOrEqual": GreaterEqual(),
    "LessOrEqual": LessEqual(),
    "BitwiseAnd": BitwiseAnd(),
    "BitwiseOr": BitwiseOr(),
    "BitwiseXor": BitwiseXor(),
}
BINARY = (
    *(_binary(name, op) for name, op in {**_BROADCAST, **_NEWER}.items()),
    *(_aligned(name, op) for name, op in _BROADCAST.items()),
    *(divide, divide_old, mod, power, power_old, choose, bit_shift),
)
VARIADIC = (_variadic("Max", Maximum()), _variadic("Min", Minimum()), _variadic("Sum", Add()), mean)
UNARY = tuple(
    _unary(type(op).__name__, op)
    for op in (
        *(
            Abs(),
            Acos(),
            Acosh(),
            Asin(),
            Asinh(),
            Atan(),
            Atanh(),
            Ceil(),
            Cos(),
            Cosh(),
            Erf(),
            Exp(),
            Floor(),
        ),
        *(
            Log(),
            Neg(),
            Reciprocal(),
            Round(),
            Sign(),
            Sin(),
            Sinh(),
            Sqrt(),
            Tan(),
            Tanh(),
            BitwiseNot(),
        ),
    )
)
CONVERTERS = (
    *BINARY,
    *VARIADIC,
    *UNARY,
    *(_unary("Not", LogicalNot()), _unary("IsNaN", IsNan()), is_inf),
    *(clip, clip_to_attributes, cast_to, cast_like, bit_cast, identity),
)
