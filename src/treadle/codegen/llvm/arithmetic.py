"""Scalar functions as LLVM instructions, element by element, with NumPy's meaning.

Integers wrap. Division by zero gives zero, shifts by the width or more give zero (or the sign):
nothing traps.
"""

from collections.abc import Callable

from treadle.base.errors import CodegenError
from treadle.codegen.llvm.convert import narrow, widen
from treadle.codegen.llvm.division import DIVISIONS
from treadle.codegen.llvm.math import MATH_FUNCTIONS
from treadle.codegen.llvm.math import math_function as make_math
from treadle.codegen.llvm.support import INTEGER_POWER
from treadle.codegen.llvm.types import Operand, computing, constant, is_half, register_type
from treadle.codegen.llvm.writer import Writer, with_kind
from treadle.expr.dtype import DType, i64
from treadle.expr.functions import FUNCTIONS

Args = tuple[Operand, ...]
Rule = Callable[[Writer, DType, Args], Operand]


def elementwise(w: Writer, fn: str, dtype: DType, args: Args) -> Operand:
    """Apply ``fn`` to operands of ``dtype``; those of 16-bit floats compute in f32 and round once.

    Raises:
        CodegenError: E0501 if there is no code for the function on this type.
    """
    if not is_half(dtype):
        return _apply(w, fn, dtype, args)
    wide = tuple(widen(w, x, dtype) for x in args)
    result = _apply(w, fn, computing(dtype), wide)
    return narrow(w, result, dtype) if FUNCTIONS[fn].result == "same" else result


def _apply(w: Writer, fn: str, dtype: DType, args: Args) -> Operand:
    table = _FLOAT if dtype.is_float else _BOOL if dtype.is_bool else _INT
    rule = table.get(fn)
    if rule is not None:
        return rule(w, dtype, args)
    if dtype.is_float and fn in MATH_FUNCTIONS:
        return _math(w, fn, dtype, args)
    raise CodegenError(
        "E0501",
        f"there is no machine code for {fn} of {dtype}",
        help="use a type that has the function, or write it in terms of others",
    )


def _math(w: Writer, fn: str, dtype: DType, args: Args) -> Operand:
    key = (fn, dtype.bits, dtype.lanes)
    w.parts.math[key] = None
    return w.call(make_math(*key).symbol, register_type(dtype), *args)


def _op(instruction: str) -> Rule:
    return lambda w, dtype, args: w.op(instruction, args[0], args[1])


def _compare(instruction: str) -> Rule:
    return lambda w, dtype, args: w.compare(instruction, args[0], args[1])


def _signed(signed: Rule, unsigned: Rule) -> Rule:
    return lambda w, dtype, args: (unsigned if dtype.kind == "uint" else signed)(w, dtype, args)


def _intrinsic(name: str, flags: str = "") -> Rule:
    return lambda w, dtype, args: w.intrinsic(name, *args, flags=flags)


def _same(w: Writer, dtype: DType, args: Args) -> Operand:
    return args[0]


def _never(w: Writer, dtype: DType, args: Args) -> Operand:
    return Operand(
        with_kind(args[0].type, "i1"), "false" if dtype.lanes == 1 else "zeroinitializer"
    )


# Floats -------------------------------------------------------------------------------------------


def _rounded_once(instruction: str) -> Rule:
    """An instruction that may become a part of a multiply-add, if the kernel leaves that open."""

    def rule(w: Writer, dtype: DType, args: Args) -> Operand:
        return w.op(f"{instruction} contract" if w.parts.contract else instruction, *args)

    return rule


def _float_muladd(w: Writer, dtype: DType, args: Args) -> Operand:
    if w.parts.contract:
        return w.intrinsic("fmuladd", *args, flags="contract ")
    return w.op("fadd", w.op("fmul", args[0], args[1]), args[2])


def _fneg(w: Writer, dtype: DType, args: Args) -> Operand:
    return w.assign(args[0].type, f"fneg {args[0]}")


def _float_sign(w: Writer, dtype: DType, args: Args) -> Operand:
    x, zero = args[0], constant(0.0, dtype)
    below = w.select(w.compare("fcmp olt", x, zero), constant(-1.0, dtype), zero)
    signed = w.select(w.compare("fcmp ogt", x, zero), constant(1.0, dtype), below)
    return w.select(w.compare("fcmp uno", x, x), x, signed)


def _is_inf(w: Writer, dtype: DType, args: Args) -> Operand:
    return w.compare("fcmp oeq", w.intrinsic("fabs", args[0]), constant(float("inf"), dtype))


def _is_nan(w: Writer, dtype: DType, args: Args) -> Operand:
    return w.compare("fcmp uno", args[0], args[0])


def _truncdiv(w: Writer, dtype: DType, args: Args) -> Operand:
    return w.intrinsic("trunc", w.op("fdiv", *args))


def _float_mod(w: Writer, dtype: DType, args: Args) -> Operand:
    """The remainder with the divisor's sign; a zero has it too."""
    b, zero = args[1], constant(0.0, dtype)
    rest = w.op("frem", *args)
    moved = w.select(_differ_in_sign(w, b, rest, zero), w.op("fadd", rest, b), rest)
    is_zero = w.compare("fcmp oeq", rest, zero)
    return w.select(is_zero, w.intrinsic("copysign", zero_like(w, rest, zero), b), moved)


def zero_like(w: Writer, x: Operand, zero: Operand) -> Operand:
    """Zero, as an operand that ``copysign`` takes."""
    return Operand(x.type, zero.name)


def _differ_in_sign(w: Writer, b: Operand, rest: Operand, zero: Operand) -> Operand:
    """Whether the remainder is not zero and lies on the other side of zero than the divisor."""
    below = w.op("xor", w.compare("fcmp olt", b, zero), w.compare("fcmp olt", rest, zero))
    return w.op("and", below, w.compare("fcmp une", rest, zero))


def _float_floordiv(w: Writer, dtype: DType, args: Args) -> Operand:
    """As NumPy: from the exact remainder, so that the quotient never rounds up past an integer."""
    a, b = args
    zero, one = constant(0.0, dtype), constant(1.0, dtype)
    rest = w.op("frem", a, b)
    quotient = w.op("fdiv", w.op("fsub", a, rest), b)
    adjust = _differ_in_sign(w, b, rest, zero)
    quotient = w.select(adjust, w.op("fsub", quotient, one), quotient)
    floor = w.intrinsic("floor", quotient)
    far = w.compare("fcmp ogt", w.op("fsub", quotient, floor), constant(0.5, dtype))
    floor = w.select(far, w.op("fadd", floor, one), floor)
    plain = w.op("fdiv", a, b)
    signed_zero = w.intrinsic("copysign", zero_like(w, plain, zero), plain)
    result = w.select(w.compare("fcmp une", quotient, zero), floor, signed_zero)
    return w.select(w.compare("fcmp oeq", b, zero), plain, result)


def _nextafter(w: Writer, dtype: DType, args: Args) -> Operand:
    """One step on the bits, which order as the numbers do on either side of zero."""
    x, y = args
    kind = f"i{dtype.bits}"
    bits = w.convert("bitcast", x, kind)
    one, zero = w.integer(1, bits), constant(0.0, dtype)
    away = w.compare("fcmp olt", w.intrinsic("fabs", x), w.intrinsic("fabs", y))
    same_side = w.compare(
        "icmp sge", w.op("xor", bits, w.convert("bitcast", y, kind)), w.integer(0, bits)
    )
    outward = w.op("and", away, same_side)
    stepped = w.select(outward, w.op("add", bits, one), w.op("sub", bits, one))
    smallest = w.convert("bitcast", one, "float" if dtype.bits == 32 else "double")
    from_zero = w.intrinsic("copysign", smallest, y)
    moved = w.convert("bitcast", stepped, "float" if dtype.bits == 32 else "double")
    moved = w.select(w.compare("fcmp oeq", x, zero), from_zero, moved)
    moved = w.select(w.compare("fcmp oeq", x, y), y, moved)
    return w.select(w.compare("fcmp uno", x, y), w.op("fadd", x, y), moved)


_FLOAT: dict[str, Rule] = {
    "add": _rounded_once("fadd"),
    "sub": _rounded_once("fsub"),
    "mul": _rounded_once("fmul"),
    "div": _op("fdiv"),
    "fmuladd": _float_muladd,
    "floordiv": _float_floordiv,
    "mod": _float_mod,
    "truncdiv": _truncdiv,
    "truncmod": _op("frem"),
    # NaN in either operand gives NaN; which of two zeros is given is open, as in NumPy.
    "min": _intrinsic("minimum", "nsz "),
    "max": _intrinsic("maximum", "nsz "),
    "neg": _fneg,
    "abs": _intrinsic("fabs"),
    "sign": _float_sign,
    "isnan": _is_nan,
    "isinf": _is_inf,
    "floor": _intrinsic("floor"),
    "ceil": _intrinsic("ceil"),
    "trunc": _intrinsic("trunc"),
    "round": _intrinsic("roundeven"),
    "sqrt": _intrinsic("sqrt"),
    "copysign": _intrinsic("copysign"),
    "nextafter": _nextafter,
    "eq": _compare("fcmp oeq"),
    "ne": _compare("fcmp une"),
    "lt": _compare("fcmp olt"),
    "le": _compare("fcmp ole"),
    "gt": _compare("fcmp ogt"),
    "ge": _compare("fcmp oge"),
}

# Integers -----------------------------------------------------------------------------------------


def _muladd(w: Writer, dtype: DType, args: Args) -> Operand:
    return w.op("add", w.op("mul", args[0], args[1]), args[2])


def _negate(w: Writer, dtype: DType, args: Args) -> Operand:
    return w.op("sub", w.integer(0, args[0]), args[0])


def _invert(w: Writer, dtype: DType, args: Args) -> Operand:
    return w.op("xor", args[0], w.integer(-1, args[0]))


def _abs(w: Writer, dtype: DType, args: Args) -> Operand:
    return w.intrinsic("smax", args[0], _negate(w, dtype, args))


def _sign(w: Writer, dtype: DType, args: Args) -> Operand:
    x = args[0]
    bits = f"i{dtype.bits}"
    above = w.convert("zext", w.compare("icmp sgt", x, w.integer(0, x)), bits)
    return w.op("or", w.op("ashr", x, w.integer(dtype.bits - 1, x)), above)


def _is_positive(w: Writer, dtype: DType, args: Args) -> Operand:
    x = args[0]
    return w.convert("zext", w.compare("icmp ne", x, w.integer(0, x)), f"i{dtype.bits}")


def _shift_left(w: Writer, dtype: DType, args: Args) -> Operand:
    return _bounded_shift(w, "shl", dtype, args)


def _shift_right_zero(w: Writer, dtype: DType, args: Args) -> Operand:
    return _bounded_shift(w, "lshr", dtype, args)


def _bounded_shift(w: Writer, instruction: str, dtype: DType, args: Args) -> Operand:
    x, count = args
    within = w.compare("icmp ult", count, w.integer(dtype.bits, count))
    return w.select(within, w.op(instruction, x, count), w.integer(0, x))


def _shift_right_sign(w: Writer, dtype: DType, args: Args) -> Operand:
    x, count = args
    return w.op("ashr", x, w.intrinsic("umin", count, w.integer(dtype.bits - 1, count)))


def _power(w: Writer, dtype: DType, args: Args) -> Operand:
    """By repeated squaring, lane by lane, in 64 bits: the low bits are those of the narrower
    product.
    """
    w.parts.support["ipow"] = INTEGER_POWER
    extend = "zext" if dtype.kind == "uint" else "sext"
    wide = [x if dtype.bits == i64.bits else w.convert(extend, x, "i64") for x in args]
    if dtype.lanes == 1:
        result = w.call("@treadle.ipow", "i64", *wide)
    else:
        result = Operand(wide[0].type, "poison")
        for lane in range(dtype.lanes):
            a, b = (w.assign("i64", f"extractelement {x}, i64 {lane}") for x in wide)
            power = w.call("@treadle.ipow", "i64", a, b)
            result = w.assign(result.type, f"insertelement {result}, {power}, i64 {lane}")
    return result if dtype.bits == i64.bits else w.convert("trunc", result, f"i{dtype.bits}")


_INT: dict[str, Rule] = {
    "add": _op("add"),
    "sub": _op("sub"),
    "mul": _op("mul"),
    "fmuladd": _muladd,
    **DIVISIONS,
    "min": _signed(_intrinsic("smin"), _intrinsic("umin")),
    "max": _signed(_intrinsic("smax"), _intrinsic("umax")),
    "neg": _negate,
    "abs": _signed(_abs, _same),
    "sign": _signed(_sign, _is_positive),
    "and": _op("and"),
    "or": _op("or"),
    "xor": _op("xor"),
    "invert": _invert,
    "popcount": _intrinsic("ctpop"),
    "shl": _shift_left,
    "shr": _signed(_shift_right_sign, _shift_right_zero),
    "isnan": _never,
    "isinf": _never,
    "floor": _same,
    "ceil": _same,
    "trunc": _same,
    "round": _same,
    "pow": _power,
    "eq": _compare("icmp eq"),
    "ne": _compare("icmp ne"),
    "lt": _signed(_compare("icmp slt"), _compare("icmp ult")),
    "le": _signed(_compare("icmp sle"), _compare("icmp ule")),
    "gt": _signed(_compare("icmp sgt"), _compare("icmp ugt")),
    "ge": _signed(_compare("icmp sge"), _compare("icmp uge")),
}

# A sum of truth values is "or", a product "and", as in NumPy.
_BOOL: dict[str, Rule] = {
    "add": _op("or"),
    "mul": _op("and"),
    "and": _op("and"),
    "or": _op("or"),
    "xor": _op("xor"),
    "min": _op("and"),
    "max": _op("or"),
    "invert": _invert,
    "abs": _same,
    "isnan": _never,
    "isinf": _never,
    "eq": _compare("icmp eq"),
    "ne": _compare("icmp ne"),
    "lt": _compare("icmp ult"),
    "le": _compare("icmp ule"),
    "gt": _compare("icmp ugt"),
    "ge": _compare("icmp uge"),
}
