"""Division of integers: rounding down or towards zero, defined for every pair of operands.

A divisor of zero gives zero, and the smallest integer divided by -1 gives itself, as in NumPy; the
instruction would trap.
"""

from collections.abc import Callable

from treadle.codegen.llvm.types import Operand
from treadle.codegen.llvm.writer import Writer
from treadle.expr.dtype import DType

Args = tuple[Operand, ...]


def safe_divisor(w: Writer, dtype: DType, b: Operand) -> Operand:
    """``b``, or one where it is zero or (of signed types) -1; a constant that needs no such care
    stays.
    """
    bad = w.compare("icmp eq", b, w.integer(0, b))
    if dtype.kind == "int":
        bad = w.op("or", bad, w.compare("icmp eq", b, w.integer(-1, b)))
    return w.select(bad, w.integer(1, b), b)


def literal_divisor(b: Operand) -> int | None:
    """The divisor, if it is a constant that cannot trap."""
    text = b.name
    if text.startswith("splat"):
        text = text.split(" ")[-1].rstrip(")")
    try:
        number = int(text)
    except ValueError:
        return None
    return number if number not in (0, -1) else None


def _divide(w: Writer, dtype: DType, args: Args) -> tuple[Operand, Operand]:
    """Quotient and remainder of the division towards zero."""
    a, b = args
    sign = "u" if dtype.kind == "uint" else "s"
    if literal_divisor(b) is not None:
        return w.op(f"{sign}div", a, b), w.op(f"{sign}rem", a, b)
    divisor = safe_divisor(w, dtype, b)
    quotient = w.op(f"{sign}div", a, divisor)
    rest = w.op("sub", a, w.op("mul", quotient, divisor))
    if dtype.kind == "int":
        minus = w.compare("icmp eq", b, w.integer(-1, b))
        quotient = w.select(minus, w.op("sub", w.integer(0, a), a), quotient)
    quotient = w.select(w.compare("icmp eq", b, w.integer(0, b)), w.integer(0, a), quotient)
    return quotient, rest


def _round_down(w: Writer, b: Operand, rest: Operand) -> Operand:
    """Whether rounding down goes one below: the remainder is not zero and its sign is not the
    divisor's.
    """
    signs = w.compare("icmp slt", w.op("xor", rest, b), w.integer(0, b))
    return w.op("and", signs, w.compare("icmp ne", rest, w.integer(0, rest)))


def _shift_of(number: int | None) -> int | None:
    """The power of two that a positive divisor is."""
    if number is None or number <= 0 or number & (number - 1):
        return None
    return number.bit_length() - 1


def floordiv(w: Writer, dtype: DType, args: Args) -> Operand:
    """The quotient rounded down."""
    shift = _shift_of(literal_divisor(args[1]))
    if shift is not None:
        return w.op("lshr" if dtype.kind == "uint" else "ashr", args[0], w.integer(shift, args[0]))
    quotient, rest = _divide(w, dtype, args)
    if dtype.kind == "uint":
        return quotient
    below = w.convert("sext", _round_down(w, args[1], rest), f"i{dtype.bits}")
    return w.op("add", quotient, below)


def mod(w: Writer, dtype: DType, args: Args) -> Operand:
    """The remainder with the divisor's sign."""
    shift = _shift_of(literal_divisor(args[1]))
    if shift is not None:
        return w.op("and", args[0], w.integer((1 << shift) - 1, args[0]))
    rest = _divide(w, dtype, args)[1]
    if dtype.kind == "uint":
        return rest
    return w.select(_round_down(w, args[1], rest), w.op("add", rest, args[1]), rest)


def truncdiv(w: Writer, dtype: DType, args: Args) -> Operand:
    """The quotient rounded towards zero."""
    return _divide(w, dtype, args)[0]


def truncmod(w: Writer, dtype: DType, args: Args) -> Operand:
    """The remainder with the dividend's sign."""
    return _divide(w, dtype, args)[1]


def divide_naturals(w: Writer, fn: str, a: Operand, divisor: int) -> Operand:
    """``a // divisor`` or ``a % divisor`` of an ``a`` that is known not to be negative, by a
    positive constant.
    """
    quotient = fn in ("floordiv", "truncdiv")
    shift = _shift_of(divisor) if divisor > 1 else None
    if divisor == 1:
        return a if quotient else w.integer(0, a)
    if shift is not None:
        number = shift if quotient else (1 << shift) - 1
        return w.op("lshr" if quotient else "and", a, w.integer(number, a))
    return w.op("udiv" if quotient else "urem", a, w.integer(divisor, a))


DIVISIONS: dict[str, Callable[[Writer, DType, Args], Operand]] = {
    "floordiv": floordiv,
    "mod": mod,
    "truncdiv": truncdiv,
    "truncmod": truncmod,
}
