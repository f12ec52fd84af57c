"""Write straight-line LLVM text with Python operators.

An :class:`Emitter` collects the lines of one function whose values all have the same number of
lanes; a :class:`Value` is one SSA value of it. No fast-math flag is ever set, so that compensated
arithmetic means what it says; where a fused multiply-add is welcome it is asked for by name
(``fmuladd``, which needs no libm on any CPU).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

T = TypeVar("T")

FLOAT_KIND = {32: "float", 64: "double"}
INT_KIND = {"float": "i32", "double": "i64"}
SUFFIX = {"float": "f32", "double": "f64"}


def vector_type(kind: str, lanes: int) -> str:
    """Return the LLVM type of ``lanes`` elements of ``kind``; one lane is a scalar."""
    return kind if lanes == 1 else f"<{lanes} x {kind}>"


def float_literal(kind: str, number: float) -> str:
    """Return ``number``, rounded to ``kind``, in the hexadecimal form that LLVM reads exactly."""
    if kind == "float":
        number = struct.unpack("<f", struct.pack("<f", number))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


def float_bits(kind: str, number: float) -> int:
    """Return the bit pattern of ``number`` as ``kind``, as a signed integer."""
    codes = "<f<i" if kind == "float" else "<d<q"
    return struct.unpack(codes[2:], struct.pack(codes[:2], number))[0]


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """The constants of one binary floating-point format."""

    kind: str
    mantissa: int
    bias: int

    @property
    def smallest_normal(self) -> float:
        """The smallest positive normal number."""
        return 2.0 ** (1 - self.bias)

    @property
    def rounder(self) -> float:
        """A number whose unit in the last place is one: adding it rounds to the nearest integer."""
        return 1.5 * 2.0**self.mantissa

    @property
    def one_bits(self) -> int:
        """The bit pattern of 1.0."""
        return self.bias << self.mantissa


FORMATS = {32: FloatFormat("float", 23, 127), 64: FloatFormat("double", 52, 1023)}


@dataclass(frozen=True, slots=True)
class Value:
    """One SSA value: ``kind`` is the element type, ``name`` the operand text."""

    emitter: Emitter
    kind: str
    name: str

    @property
    def type(self) -> str:
        """The LLVM type, lanes included."""
        return vector_type(self.kind, self.emitter.lanes)

    @property
    def typed(self) -> str:
        """Type and name, as a call's argument is written."""
        return f"{self.type} {self.name}"

    @property
    def is_float(self) -> bool:
        """Whether the element is a floating-point number."""
        return self.kind in SUFFIX

    def _binary(self, float_op: str, int_op: str, other: Operand) -> Value:
        op = float_op if self.is_float else int_op
        right = self.emitter.like(self, other)
        return self.emitter.assign(self.kind, f"{op} {self.typed}, {right.name}")

    def __add__(self, other: Operand) -> Value:
        return self._binary("fadd", "add", other)

    def __sub__(self, other: Operand) -> Value:
        return self._binary("fsub", "sub", other)

    def __mul__(self, other: Operand) -> Value:
        return self._binary("fmul", "mul", other)

    def __truediv__(self, other: Operand) -> Value:
        return self._binary("fdiv", "sdiv", other)

    def __radd__(self, other: float) -> Value:
        return self.emitter.like(self, other) + self

    def __rsub__(self, other: float) -> Value:
        return self.emitter.like(self, other) - self

    def __rmul__(self, other: float) -> Value:
        return self * other

    def __rtruediv__(self, other: float) -> Value:
        return self.emitter.like(self, other) / self

    def __neg__(self) -> Value:
        if self.is_float:
            return self.emitter.assign(self.kind, f"fneg {self.typed}")
        return self.emitter.like(self, 0) - self

    def __and__(self, other: Operand) -> Value:
        return self._binary("", "and", other)

    def __or__(self, other: Operand) -> Value:
        return self._binary("", "or", other)

    def __xor__(self, other: Operand) -> Value:
        return self._binary("", "xor", other)

    def __lshift__(self, other: Operand) -> Value:
        return self._binary("", "shl", other)

    def __rshift__(self, other: Operand) -> Value:
        """Shift right, filling with zeros: vectors of 64-bit arithmetic shifts are slow before
        AVX-512.
        """
        return self._binary("", "lshr", other)

    def _compare(self, float_predicate: str, int_predicate: str, other: Operand) -> Value:
        op = f"fcmp {float_predicate}" if self.is_float else f"icmp {int_predicate}"
        right = self.emitter.like(self, other)
        return self.emitter.assign("i1", f"{op} {self.typed}, {right.name}")

    def __lt__(self, other: Operand) -> Value:
        return self._compare("olt", "slt", other)

    def __gt__(self, other: Operand) -> Value:
        return self._compare("ogt", "sgt", other)

    def __le__(self, other: Operand) -> Value:
        return self._compare("ole", "sle", other)

    def __ge__(self, other: Operand) -> Value:
        return self._compare("oge", "sge", other)

    def equals(self, other: Operand) -> Value:
        """Return whether the two are equal (never, for NaN)."""
        return self._compare("oeq", "eq", other)

    def is_nan(self) -> Value:
        """Return whether the element is not a number."""
        return self._compare("uno", "eq", self)

    def to_bits(self) -> Value:
        """Reinterpret floats as integers of the same width."""
        return self._cast("bitcast", INT_KIND[self.kind])

    def to_floats(self) -> Value:
        """Reinterpret integers as floats of the same width."""
        return self._cast("bitcast", "float" if self.kind == "i32" else "double")

    def widen(self, kind: str) -> Value:
        """Extend to a wider ``kind``: floats exactly, integers by zeros."""
        return self._cast("fpext" if self.is_float else "zext", kind)

    def narrow(self, kind: str) -> Value:
        """Round floats, or truncate integers, to a narrower ``kind``."""
        return self._cast("fptrunc" if self.is_float else "trunc", kind)

    def _cast(self, op: str, kind: str) -> Value:
        return self.emitter.assign(
            kind, f"{op} {self.typed} to {vector_type(kind, self.emitter.lanes)}"
        )


Operand = Value | float


@dataclass(slots=True)
class Emitter:
    """The body of one function under construction, for ``bits``-wide floats in ``lanes`` lanes.

    ``scales`` says that the CPU multiplies by powers of two in one instruction (AVX-512).
    """

    bits: int
    lanes: int
    lines: list[str] = field(default_factory=list[str])
    declares: dict[str, None] = field(default_factory=dict[str, None])
    requires: dict[tuple[str, int, int], None] = field(
        default_factory=dict[tuple[str, int, int], None]
    )
    scales: bool = False

    @property
    def format(self) -> FloatFormat:
        """The floating-point format of the function's arguments."""
        return FORMATS[self.bits]

    @property
    def is_single(self) -> bool:
        """Whether the function is the 32-bit one."""
        return self.bits == 32

    def as_double(self) -> Emitter:
        """Return an emitter of 64-bit arithmetic that writes into the same function."""
        return replace(self, bits=64)

    def pick(self, single: T, double: T) -> T:
        """Return ``single`` in a 32-bit function and ``double`` in a 64-bit one."""
        return single if self.is_single else double

    def emit(self, line: str) -> None:
        """Append one line of text."""
        self.lines.append(line)

    def assign(self, kind: str, text: str) -> Value:
        """Append ``%name = text`` and return the value."""
        name = f"%v{len(self.lines)}"
        self.emit(f"  {name} = {text}")
        return Value(self, kind, name)

    def like(self, model: Value, operand: Operand) -> Value:
        """Return ``operand`` as a value of ``model``'s kind; a number becomes a constant in every
        lane.
        """
        if isinstance(operand, Value):
            return operand
        literal = float_literal(model.kind, operand) if model.is_float else str(int(operand))
        if self.lanes > 1:
            literal = f"splat ({model.kind} {literal})"
        return Value(self, model.kind, literal)

    def constant(self, number: float) -> Value:
        """Return a constant of the function's own kind."""
        return self.like(Value(self, self.format.kind, ""), number)

    def call(self, name: str, *arguments: Value) -> Value:
        """Call the element-wise intrinsic ``llvm.name``."""
        first = arguments[0]
        shape = "" if self.lanes == 1 else f"v{self.lanes}"
        symbol = f"@llvm.{name}.{shape}{SUFFIX.get(first.kind, first.kind)}"
        types = ", ".join(a.type for a in arguments)
        self.declares[f"declare {first.type} {symbol}({types})"] = None
        return self.assign(
            first.kind, f"call {first.type} {symbol}({', '.join(a.typed for a in arguments)})"
        )

    def fmuladd(self, a: Value, b: Operand, c: Operand) -> Value:
        """Return ``a * b + c``, fused where the CPU can."""
        return self.call("fmuladd", a, self.like(a, b), self.like(a, c))

    def select(self, condition: Value, yes: Operand, no: Operand) -> Value:
        """Return ``yes`` where ``condition`` holds, else ``no``; at least one must be a value."""
        model = yes if isinstance(yes, Value) else no
        if not isinstance(model, Value):
            model = self.constant(0.0)
        a, b = self.like(model, yes), self.like(model, no)
        return self.assign(model.kind, f"select {condition.typed}, {a.typed}, {b.typed}")

    def clamp(self, x: Value, low: float, high: float) -> Value:
        """Return ``x`` limited to ``[low, high]``; NaN stays NaN."""
        return self.at_most(self.at_least(x, low), high)

    def at_most(self, x: Value, high: float) -> Value:
        """Return the smaller of ``x`` and ``high``; NaN stays NaN."""
        return self.select(x > high, high, x)

    def abs(self, x: Value) -> Value:
        """Return ``|x|``."""
        return self.call("fabs", x)

    def sqrt(self, x: Value) -> Value:
        """Return the correctly rounded square root."""
        return self.call("sqrt", x)

    def copysign(self, magnitude: Value, sign: Value) -> Value:
        """Return ``magnitude`` with the sign of ``sign``."""
        return self.call("copysign", magnitude, sign)

    def at_least(self, x: Value, low: float) -> Value:
        """Return the larger of ``x`` and ``low``; NaN stays NaN."""
        return self.select(x < low, low, x)

    def keep_tiny(self, x: Value, result: Value) -> Value:
        """Return ``x`` itself where ``f(x)`` rounds to ``x``: keeps denormals and the sign of
        zero.
        """
        return self.select(self.abs(x) < self.pick(2.0**-30, 2.0**-60), x, result)

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Return the polynomial in ``x`` whose coefficients are given from the constant term up
        (Horner).
        """
        result = self.fmuladd(x, coefficients[-1], coefficients[-2])
        for c in reversed(coefficients[:-2]):
            result = self.fmuladd(result, x, c)
        return result

    def monic(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Return the polynomial in ``x`` whose highest term has the coefficient one, and the terms
        below those given: an addition in place of a multiplication.
        """
        result = x + coefficients[-1]
        for c in reversed(coefficients[:-1]):
            result = self.fmuladd(result, x, c)
        return result

    def two_product(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Return ``a * b`` as a rounded product and its error (Dekker), without a fused
        instruction.
        """
        product = a * b
        a_high, b_high = self.high_half(a), self.high_half(b)
        a_low, b_low = a - a_high, b - b_high
        error = a_high * b_high - product
        error = error + a_high * b_low + a_low * b_high
        return product, error + a_low * b_low

    def high_half(self, x: Value) -> Value:
        """Return ``x`` with the lower half of its significand cleared, so that products of halves
        are exact.
        """
        mask = -(1 << 12) if x.kind == "float" else -(1 << 27)
        return (x.to_bits() & mask).to_floats()

    def fast_two_sum(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Return ``a + b`` as a rounded sum and its error, for ``|a| >= |b|`` or ``a == 0``."""
        total = a + b
        return total, b - (total - a)

    def two_sum(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Return ``a + b`` as a rounded sum and its error, for any ``a`` and ``b`` (Knuth)."""
        total = a + b
        b_part = total - a
        return total, (a - (total - b_part)) + (b - b_part)
