"""Conversions between element types, those of the 16-bit floats included.

Float to integer truncates towards zero; what is out of range becomes some integer, never a trap.
The software forms of half precision use the well-known scaling by a power of two (F. Giesen,
"float->half variants", 2012).
"""

from treadle.codegen.llvm.types import (
    Operand,
    computing,
    constant,
    is_half,
    register_type,
    scalar_register,
)
from treadle.codegen.llvm.writer import Writer
from treadle.expr.dtype import DType, f32, f64


def widen(w: Writer, x: Operand, dtype: DType) -> Operand:
    """A value of ``dtype`` in the type that it computes in."""
    if not is_half(dtype):
        return x
    if dtype.kind == "bfloat":
        bits = w.convert("zext", x, "i32")
        return w.convert("bitcast", w.op("shl", bits, w.integer(16, bits)), "float")
    if _converts_half(w):
        return w.convert("fpext", w.convert("bitcast", x, "half"), "float")
    return _half_to_float(w, x)


def narrow(w: Writer, x: Operand, dtype: DType) -> Operand:
    """An f32 rounded to the 16-bit float type ``dtype``; other types stay as they are."""
    if not is_half(dtype):
        return x
    if dtype.kind == "bfloat":
        return _float_to_bfloat(w, x)
    if _converts_half(w):
        return w.convert("bitcast", w.convert("fptrunc", x, "half"), "i16")
    return _float_to_half(w, x)


def _converts_half(w: Writer) -> bool:
    return "f16c" in w.target.features or w.target.arch in ("aarch64", "arm64")


def _float_to_bfloat(w: Writer, x: Operand) -> Operand:
    """Round to nearest even on the bits; NaN stays NaN."""
    bits = w.convert("bitcast", x, "i32")
    high = w.op("lshr", bits, w.integer(16, bits))
    odd = w.op("and", high, w.integer(1, bits))
    rounded = w.op("add", w.op("add", bits, odd), w.integer(0x7FFF, bits))
    result = w.op("lshr", rounded, w.integer(16, bits))
    quiet = w.op("or", high, w.integer(0x40, bits))
    return w.convert("trunc", w.select(w.compare("fcmp uno", x, x), quiet, result), "i16")


def _half_to_float(w: Writer, x: Operand) -> Operand:
    wide = w.convert("zext", x, "i32")
    magnitude = w.op("and", wide, w.integer(0x7FFF, wide))
    sign = w.op("shl", w.op("xor", wide, magnitude), w.integer(16, wide))
    moved = w.op("shl", magnitude, w.integer(13, wide))
    scaled = w.convert("bitcast", moved, "float")
    lanes = f32.vector(_lanes(x))
    scaled = w.op("fmul", scaled, constant(2.0**112, lanes))
    special = w.compare("icmp uge", magnitude, w.integer(0x7C00, wide))
    bits = w.convert("bitcast", scaled, "i32")
    bits = w.select(special, w.op("or", moved, w.integer(0x7F800000, wide)), bits)
    return w.convert("bitcast", w.op("or", bits, sign), "float")


def _float_to_half(w: Writer, x: Operand) -> Operand:
    bits = w.convert("bitcast", x, "i32")
    magnitude = w.op("and", bits, w.integer(0x7FFFFFFF, bits))
    sign = w.op("lshr", w.op("xor", bits, magnitude), w.integer(16, bits))
    odd = w.op("and", w.op("lshr", magnitude, w.integer(13, bits)), w.integer(1, bits))
    normal = w.op("add", w.op("add", magnitude, odd), w.integer(0xFFF - (112 << 23), bits))
    normal = w.op("lshr", normal, w.integer(13, bits))
    # Adding a half lines the significand up with the spacing of the denormals.
    absolute = w.convert("bitcast", magnitude, "float")
    shifted = w.op("fadd", absolute, constant(0.5, f32.vector(_lanes(x))))
    tiny = w.op("sub", w.convert("bitcast", shifted, "i32"), w.integer(0x3F000000, bits))
    is_tiny = w.compare("icmp ult", magnitude, w.integer(113 << 23, bits))
    finite = w.select(is_tiny, tiny, normal)
    is_nan = w.compare("icmp ugt", magnitude, w.integer(0x7F800000, bits))
    special = w.select(is_nan, w.integer(0x7E00, bits), w.integer(0x7C00, bits))
    is_special = w.compare("icmp uge", magnitude, w.integer(143 << 23, bits))
    result = w.op("or", w.select(is_special, special, finite), sign)
    return w.convert("trunc", result, "i16")


def _lanes(x: Operand) -> int:
    return int(x.type[1:].split(" ", 1)[0]) if x.type.startswith("<") else 1


def cast(w: Writer, x: Operand, source: DType, result: DType) -> Operand:
    """Convert a value of ``source`` to ``result``, as C does."""
    if source.scalar == result.scalar:
        return x
    if result.is_bool:
        return _to_bool(w, x, source)
    if source.is_float:
        return _from_float(w, x, source, result)
    if result.is_float:
        return _int_to_float(w, x, source, result)
    if source.bits == result.bits and not source.is_bool:
        return x
    if not source.is_bool and result.bits < source.bits:
        return w.convert("trunc", x, scalar_register(result))
    return w.convert("sext" if source.kind == "int" else "zext", x, scalar_register(result))


def _to_bool(w: Writer, x: Operand, source: DType) -> Operand:
    if source.is_float:
        value = widen(w, x, source)
        return w.compare("fcmp une", value, constant(0.0, computing(source)))
    return w.compare("icmp ne", x, w.integer(0, x))


def _from_float(w: Writer, x: Operand, source: DType, result: DType) -> Operand:
    if not result.is_float:
        return _float_to_int(w, widen(w, x, source), result)
    if source.bits == 64:
        if result.bits == 32:
            return w.convert("fptrunc", x, "float")
        return narrow(w, _to_single(w, x, result), result)
    wide = widen(w, x, source)
    return w.convert("fpext", wide, "double") if result.bits == 64 else narrow(w, wide, result)


def _to_single(w: Writer, x: Operand, result: DType) -> Operand:
    """An f64 as an f32 that is then narrowed to ``result``, rounded to odd where rounding twice
    would show.
    """
    single = w.convert("fptrunc", x, "float")
    if result.kind == "bfloat":
        return single  # rounded twice, as ml_dtypes does
    back = w.convert("fpext", single, "double")
    inexact = w.compare("fcmp one", back, x)
    beyond = w.compare("fcmp ogt", w.intrinsic("fabs", back), w.intrinsic("fabs", x))
    bits = w.convert("bitcast", single, "i32")
    bits = w.op("sub", bits, w.convert("zext", beyond, "i32"))
    bits = w.op("or", bits, w.convert("zext", inexact, "i32"))
    return w.convert("bitcast", bits, "float")


def _float_to_int(w: Writer, x: Operand, result: DType) -> Operand:
    if result.bits < 32:
        return w.convert("trunc", w.convert("fptosi", x, "i32"), scalar_register(result))
    return w.convert("fptoui" if result.kind == "uint" else "fptosi", x, scalar_register(result))


def _int_to_float(w: Writer, x: Operand, source: DType, result: DType) -> Operand:
    instruction = "sitofp" if source.kind == "int" else "uitofp"
    kind = scalar_register(f64 if result.bits == 64 else f32)
    return narrow(w, w.convert(instruction, x, kind), result)


def bitcast(w: Writer, x: Operand, result: DType) -> Operand:
    """The same bits as another type of the same width."""
    kind = register_type(result)
    return x if kind == x.type else w.assign(kind, f"bitcast {x} to {kind}")
