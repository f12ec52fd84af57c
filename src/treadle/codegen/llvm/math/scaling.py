"""Multiplication by powers of two whose exponents stand in the low bits of integers.

An exponent comes as :func:`round_scaled` leaves it: the bits of a float so large that its low bits
count ones. Shifted to the place of an exponent, they are a power of two; on CPUs with AVX-512, one
instruction multiplies by it instead, with the same result.
"""

from __future__ import annotations

from treadle.codegen.llvm.math.emitter import Emitter, Value, vector_type

# Bits of the narrowest and of the widest vector that the instruction takes.
NARROWEST, WIDEST = 128, 512


def round_scaled(e: Emitter, x: Value, scale: float, offset: int) -> tuple[Value, Value]:
    """Return the integer ``n`` nearest to ``x * scale`` as a float, and ``n + offset`` in low bits.

    Adding a large number rounds; what that number is past a power of two is the offset, so that
    the low bits can become an exponent by a shift alone.
    """
    rounder = e.format.rounder + offset
    shifted = e.fmuladd(x, scale, rounder)
    return shifted - rounder, shifted.to_bits()


def power_of_two(e: Emitter, biased: Value) -> Value:
    """Return the power of two, a normal number, whose biased exponent is in the low bits of
    ``biased``.
    """
    return (biased << e.format.mantissa).to_floats()


def scale_by_power(e: Emitter, x: Value, doubly_biased: Value) -> Value:
    """Return ``x * 2**n``, denormals included, for ``n`` plus twice the bias: two steps of half
    the power each.
    """
    if has_instruction(e):
        return scale_at_once(e, x, doubly_biased, 2 * e.format.bias)
    half = doubly_biased >> 1
    return x * power_of_two(e, half) * power_of_two(e, doubly_biased - half)


def shrink_offset(e: Emitter) -> int:
    """Return what to reduce with before :func:`shrink_by_power`."""
    return e.format.bias + e.pick(64, 512)


def shrink_by_power(e: Emitter, x: Value, offset_exponent: Value) -> Value:
    """Return ``x * 2**n``, denormals included, for ``n <= 0`` plus :func:`shrink_offset`: a power
    that is never denormal, and then a constant.
    """
    if has_instruction(e):
        return scale_at_once(e, x, offset_exponent, shrink_offset(e))
    return x * power_of_two(e, offset_exponent) * e.pick(2.0**-64, 2.0**-512)


def has_instruction(e: Emitter) -> bool:
    """Whether one instruction multiplies by powers of two."""
    return e.scales and e.lanes & (e.lanes - 1) == 0


def scale_at_once(e: Emitter, x: Value, shifted: Value, offset: int) -> Value:
    """Return ``x * 2**n`` for ``n + offset`` in the low bits of ``shifted``."""
    n = shifted.to_floats() - (e.format.rounder + offset)
    width = min(max(e.lanes, NARROWEST // e.bits), WIDEST // e.bits)
    pieces = [range(start, start + width) for start in range(0, e.lanes, width)]
    parts = [scalef(e, resized(e, x, p), resized(e, n, p), width) for p in pieces]
    return joined(e, x.kind, parts, width)


def resized(e: Emitter, x: Value, lanes: range) -> str:
    """Return the operand text of some lanes of ``x``; lanes that it does not have are poison."""
    target = vector_type(x.kind, len(lanes))
    if e.lanes == 1:
        return e.assign(x.kind, f"insertelement {target} poison, {x.typed}, i64 0").name
    if len(lanes) == e.lanes:
        return x.name
    return shuffled(e, x.kind, (x.name, "poison"), e.lanes, lanes).name


def joined(e: Emitter, kind: str, parts: list[str], width: int) -> Value:
    """Return the first lanes of vectors one after another, as many as the function has."""
    if e.lanes == 1:
        return e.assign(kind, f"extractelement {vector_type(kind, width)} {parts[0]}, i64 0")
    while len(parts) > 1:
        both = range(2 * width)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [shuffled(e, kind, pair, width, both).name for pair in pairs]
        width *= 2
    if width == e.lanes:
        return Value(e, kind, parts[0])
    return shuffled(e, kind, (parts[0], "poison"), width, range(e.lanes))


def shuffled(e: Emitter, kind: str, pair: tuple[str, str], width: int, lanes: range) -> Value:
    """Return chosen lanes of two vectors of ``width`` lanes, numbered through."""
    source = vector_type(kind, width)
    picks = ", ".join(f"i32 {i}" for i in lanes)
    mask = f"<{len(lanes)} x i32> <{picks}>"
    return e.assign(kind, f"shufflevector {source} {pair[0]}, {source} {pair[1]}, {mask}")


def scalef(e: Emitter, x: str, n: str, width: int) -> str:
    """Return the operand text of ``x * 2**n``, of vectors that fill a register of the CPU."""
    kind = e.format.kind
    bits = width * e.bits
    vector, mask = vector_type(kind, width), f"i{max(width, 8)}"
    symbol = f"@llvm.x86.avx512.mask.scalef.p{'s' if e.is_single else 'd'}.{bits}"
    # The widest form also names a rounding mode, 4 for the current one.
    mode_type, mode = (", i32", ", i32 4") if bits == WIDEST else ("", "")
    e.declares[f"declare {vector} {symbol}({vector}, {vector}, {vector}, {mask}{mode_type})"] = None
    arguments = f"{vector} {x}, {vector} {n}, {vector} zeroinitializer, {mask} -1{mode}"
    return e.assign(kind, f"call {vector} {symbol}({arguments})").name
