"""Element types as LLVM types, and constants as LLVM text.

Values of the 16-bit float types travel as their bits (``i16``) and are widened where they compute:
LLVM then never meets an operation that it would have to turn into a call of a support library.
"""

import math
import struct
from typing import NamedTuple

from treadle.expr.dtype import DType, boolean, f32
from treadle.expr.scalar import Const, Number

_FLOATS = {32: "float", 64: "double"}


class Operand(NamedTuple):
    """A value in LLVM text: its type and its name (or constant)."""

    type: str
    name: str

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


def is_half(dtype: DType) -> bool:
    """Whether ``dtype`` is one of the 16-bit float types, which compute as f32."""
    return dtype.is_float and dtype.bits == 16


def computing(dtype: DType) -> DType:
    """The type that values of ``dtype`` compute in."""
    return DType(f32.kind, f32.bits, dtype.lanes) if is_half(dtype) else dtype


def vector_of(kind: str, lanes: int) -> str:
    """The LLVM type of ``lanes`` elements; one lane is a scalar."""
    return kind if lanes == 1 else f"<{lanes} x {kind}>"


def scalar_register(dtype: DType) -> str:
    """The LLVM type of one element in a register."""
    if dtype.is_bool:
        return "i1"
    if dtype.is_float and dtype.bits > 16:
        return _FLOATS[dtype.bits]
    return f"i{dtype.bits}"


def register_type(dtype: DType) -> str:
    """The LLVM type of a value in registers; truth values are ``i1``."""
    return vector_of(scalar_register(dtype), dtype.lanes)


def scalar_memory(dtype: DType) -> str:
    """The LLVM type of one element in memory; truth values are a byte."""
    return "i8" if dtype.is_bool else scalar_register(dtype)


def memory_type(dtype: DType) -> str:
    """The LLVM type of a value in memory."""
    return vector_of(scalar_memory(dtype), dtype.lanes)


def suffix(dtype: DType) -> str:
    """How an overloaded intrinsic names the type, such as ``v16f32``."""
    kind = scalar_register(dtype)
    name = {"float": "f32", "double": "f64"}.get(kind, kind)
    return name if dtype.lanes == 1 else f"v{dtype.lanes}{name}"


def literal(value: Number, dtype: DType) -> str:
    """The text of a constant of one lane."""
    if dtype.is_bool:
        return "true" if value else "false"
    if not dtype.is_float:
        return str(int(value))
    number = float(value)
    if is_half(dtype):
        return str(int(_half_bits(number, dtype)))
    # LLVM reads a float in the hexadecimal form of the double that it equals.
    bits = (
        0x7FF8000000000000
        if math.isnan(number)
        else struct.unpack("<Q", struct.pack("<d", number))[0]
    )
    return f"0x{bits:016X}"


def _half_bits(number: float, dtype: DType) -> int:
    return int(dtype.numpy.type(number).view("int16"))


def constant(value: Number, dtype: DType) -> Operand:
    """A constant, the same in every lane."""
    text = literal(value, dtype)
    if dtype.lanes > 1:
        text = f"splat ({scalar_register(dtype)} {text})"
    return Operand(register_type(dtype), text)


def const_operand(x: Const) -> Operand:
    """The operand that a constant expression is."""
    return constant(x.value, x.dtype)


def lane_numbers(lanes: int, kind: str = "i64", scale: int = 1) -> Operand:
    """The constant vector 0, scale, 2 scale..."""
    items = ", ".join(f"{kind} {i * scale}" for i in range(lanes))
    return Operand(vector_of(kind, lanes), f"<{items}>")


def truth(lanes: int) -> DType:
    """The type of ``lanes`` truth values."""
    return boolean if lanes == 1 else boolean.vector(lanes)
