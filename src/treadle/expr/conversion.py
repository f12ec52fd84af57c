"""Casts of casts."""

from treadle.expr.dtype import DType
from treadle.expr.scalar import Apply, Expr, apply

_MANTISSA = {("float", 16): 11, ("bfloat", 16): 8, ("float", 32): 24, ("float", 64): 53}
_EXPONENT = {("float", 16): 5, ("bfloat", 16): 8, ("float", 32): 8, ("float", 64): 11}


def holds_exactly(wide: DType, narrow: DType) -> bool:
    """Whether every value of ``narrow`` is one of ``wide``, so that a cast there loses nothing."""
    if narrow.is_bool:
        return True
    if wide.is_bool:
        return False
    if narrow.is_float:
        if not wide.is_float:
            return False
        a, b = (wide.kind, wide.bits), (narrow.kind, narrow.bits)
        return _MANTISSA[a] >= _MANTISSA[b] and _EXPONENT[a] >= _EXPONENT[b]
    digits = narrow.bits - (narrow.kind == "int")
    if wide.is_float:
        # bfloat16 and f32 reach beyond every integer; f16 ends at 65504, which needs 16 digits.
        return _MANTISSA[(wide.kind, wide.bits)] >= digits
    if narrow.kind == "int" and wide.kind == "uint":
        return False
    return wide.bits - (wide.kind == "int") >= digits


def simplify_cast(x: Apply) -> Expr:
    """A cast to the same type, or one after a cast that lost nothing (or nothing more)."""
    inner = x.args[0]
    if inner.dtype is x.dtype:
        return inner
    if not isinstance(inner, Apply) or inner.fn != "cast":
        return x
    source = inner.args[0].dtype
    if not _may_skip(source, inner.dtype, x.dtype):
        return x
    return inner.args[0] if source is x.dtype else apply("cast", inner.args[0], dtype=x.dtype)


def _may_skip(source: DType, middle: DType, target: DType) -> bool:
    if holds_exactly(middle.scalar, source.scalar):
        return True
    # Integers wrap: dropping high bits twice is dropping them once.
    integers = source.is_int and middle.is_int and target.is_int
    return integers and target.bits <= middle.bits
