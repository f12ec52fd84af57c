"""Elementwise operators of more than one operand."""

from collections.abc import Iterator

from treadle.expr.dtype import boolean
from treadle.expr.scalar import Expr
from treadle.frontend.torch.context import Context, Converter, Number, Operand, Unsupported
from treadle.frontend.torch.promotion import common_dtype, elementwise
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op
from treadle.ops.binary import (
    Add,
    Atan2,
    Copysign,
    Div,
    FloorDiv,
    Fmod,
    Maximum,
    Minimum,
    Mod,
    Mul,
    Nextafter,
    Sub,
    TruncDiv,
)
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
    NotEqual,
    ShiftLeft,
    ShiftRight,
    Where,
)
from treadle.ops.elementwise import Reciprocal, Rsqrt, Sqrt, Square
from treadle.ops.power import Pow


def _arithmetic(op: type[Op]) -> Converter:
    """The operator that is ``op`` in the dtype of its result."""

    def converter(c: Context, a: Operand, b: Operand) -> Traced:
        return elementwise(c, op(), a, b)

    return converter


def _comparison(op: type[Op]) -> Converter:
    """The operator that compares in the common dtype."""

    def converter(c: Context, a: Operand, b: Operand) -> Traced:
        return elementwise(c, op(), a, b, dtype=common_dtype(a, b))

    return converter


def _logical(op: type[Op]) -> Converter:
    """The operator on truths."""

    def converter(c: Context, a: Operand, b: Operand) -> Traced:
        return elementwise(c, op(), a, b, dtype=boolean)

    return converter


def _scaled(c: Context, x: Operand, factor: Number | Expr) -> Operand:
    if isinstance(factor, int | float) and factor == 1:
        return x
    if not isinstance(x, Traced):
        return x * factor
    return elementwise(c, Mul(), x, factor)


def add(c: Context, a: Operand, b: Operand, alpha: Number | Expr = 1) -> Traced:
    """a + alpha · b."""
    return elementwise(c, Add(), a, _scaled(c, b, alpha))


def sub(c: Context, a: Operand, b: Operand, alpha: Number | Expr = 1) -> Traced:
    """a - alpha · b."""
    return elementwise(c, Sub(), a, _scaled(c, b, alpha))


def rsub(c: Context, a: Operand, b: Operand, alpha: Number | Expr = 1) -> Traced:
    """b - alpha · a."""
    return elementwise(c, Sub(), b, _scaled(c, a, alpha))


def div(c: Context, a: Operand, b: Operand, rounding: str | None = None) -> Traced:
    """True division, or one that rounds down or towards zero."""
    if rounding is None:
        return elementwise(c, Div(), a, b)
    return elementwise(c, FloorDiv() if rounding == "floor" else TruncDiv(), a, b)


def power(c: Context, a: Operand, b: Operand) -> Traced:
    """a to the power of b; common exponents have operations of their own."""
    short: dict[float, Op] = {2: Square(), 0.5: Sqrt(), -0.5: Rsqrt(), -1: Reciprocal()}
    if isinstance(a, Traced) and isinstance(b, int | float) and not isinstance(b, bool):
        if b == 1:
            return c.cast(a, c.dtype)
        op = short.get(b)
        if op is not None and (c.dtype.is_float or b == 2):
            return elementwise(c, op, a)
        if b == 3:
            return elementwise(c, Mul(), elementwise(c, Square(), a), a)
    return elementwise(c, Pow(), a, b)


def where(c: Context, condition: Traced, a: Operand, b: Operand) -> Traced:
    """One of two, by a condition."""
    return c.emit(
        Where(),
        c.cast(condition, boolean),
        c.operand(a, c.dtype),
        c.operand(b, c.dtype),
    )


def masked_fill(c: Context, x: Traced, mask: Traced, value: Operand) -> Traced:
    """``value`` where the mask holds."""
    return where(c, mask, value, x)


def addcmul(c: Context, x: Traced, a: Traced, b: Traced, value: Number | Expr = 1) -> Traced:
    """x + value · a · b."""
    return elementwise(c, Add(), x, _scaled(c, elementwise(c, Mul(), a, b), value))


def addcdiv(c: Context, x: Traced, a: Traced, b: Traced, value: Number | Expr = 1) -> Traced:
    """x + value · a / b."""
    return elementwise(c, Add(), x, _scaled(c, elementwise(c, Div(), a, b), value))


def lerp(c: Context, a: Traced, b: Traced, weight: Operand) -> Traced:
    """a + weight · (b - a)."""
    return elementwise(c, Add(), a, elementwise(c, Mul(), elementwise(c, Sub(), b, a), weight))


def hypot(c: Context, a: Traced, b: Traced) -> Traced:
    """The root of the sum of squares."""
    squares = (elementwise(c, Square(), a), elementwise(c, Square(), b))
    return elementwise(c, Sqrt(), elementwise(c, Add(), *squares))


def shift(op: type[Op]) -> Converter:
    """A shift of integers."""

    def converter(c: Context, a: Operand, b: Operand) -> Traced:
        if c.dtype.is_float:
            raise Unsupported("a shift of floats")
        return elementwise(c, op(), a, b)

    return converter


_COMPARISONS: dict[str, type[Op]] = {
    "eq": Equal,
    "ne": NotEqual,
    "lt": Less,
    "le": LessEqual,
    "gt": Greater,
    "ge": GreaterEqual,
}
_ARITHMETIC: dict[str, type[Op]] = {
    "mul": Mul,
    "floor_divide": FloorDiv,
    "remainder": Mod,
    "fmod": Fmod,
    "copysign": Copysign,
    "bitwise_and": BitwiseAnd,
    "bitwise_or": BitwiseOr,
    "bitwise_xor": BitwiseXor,
    "__and__": BitwiseAnd,
    "__or__": BitwiseOr,
    "__xor__": BitwiseXor,
}
_SHIFTS: dict[str, type[Op]] = {
    "bitwise_left_shift": ShiftLeft,
    "bitwise_right_shift": ShiftRight,
    "__lshift__": ShiftLeft,
    "__rshift__": ShiftRight,
}
_LOGICAL: dict[str, type[Op]] = {
    "logical_and": LogicalAnd,
    "logical_or": LogicalOr,
    "logical_xor": LogicalXor,
}
_OPERANDS = ("Tensor", "Scalar", "Tensor_Scalar", "Scalar_Tensor", "default")


def _overloads(name: str, converter: Converter) -> Iterator[tuple[str, Converter]]:
    for overload in _OPERANDS:
        yield f"{name}.{overload}", converter


CONVERTERS: dict[str, Converter] = dict(
    [
        *(p for n, op in _ARITHMETIC.items() for p in _overloads(n, _arithmetic(op))),
        *(p for n, op in _COMPARISONS.items() for p in _overloads(n, _comparison(op))),
        *(p for n, op in _SHIFTS.items() for p in _overloads(n, shift(op))),
        *(p for n, op in _LOGICAL.items() for p in _overloads(n, _logical(op))),
        *_overloads("add", add),
        *_overloads("sub", sub),
        *_overloads("rsub", rsub),
        *_overloads("div", div),
        *_overloads("masked_fill", masked_fill),
        ("div.Tensor_mode", div),
        ("div.Scalar_mode", div),
        ("pow.Tensor_Tensor", power),
        ("pow.Tensor_Scalar", power),
        ("pow.Scalar", power),
        ("maximum.default", _arithmetic(Maximum)),
        ("minimum.default", _arithmetic(Minimum)),
        ("atan2.default", _arithmetic(Atan2)),
        ("hypot.default", hypot),
        ("nextafter.default", _arithmetic(Nextafter)),
        ("where.self", where),
        ("where.ScalarSelf", where),
        ("where.ScalarOther", where),
        ("where.Scalar", where),
        ("addcmul.default", addcmul),
        ("addcdiv.default", addcdiv),
        ("lerp.Scalar", lerp),
        ("lerp.Tensor", lerp),
    ]
)
