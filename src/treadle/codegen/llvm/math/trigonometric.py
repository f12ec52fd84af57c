"""The circular family: ``sin cos tan``, correct for every finite argument.

``x = q pi/2 + r``. Up to ``|x| < 2^20`` the reduction subtracts ``q`` times pi/2 in parts (Cody
and Waite), in 64-bit arithmetic also for 32-bit arguments. When any lane is larger, a cold
function multiplies each lane's significand by the right window of the bits of 2/pi (Payne and
Hanek).
"""

from __future__ import annotations

import math

from treadle.codegen.llvm.math.emitter import Emitter, Value, vector_type

REDUCTION_LIMIT = 2.0**20
# pi/2 in parts; the first two have 33 bits, so that q times them is exact.
HALF_PI_PARTS = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)

# sin(r) = r + r^3 P(r^2) and cos(r) = 1 - r^2/2 + r^4 P(r^2) on |r| <= pi/4, relative error 2^-28
# and 2^-58.
SIN_SINGLE = (-0.16666655242443085, 0.008332155644893646, -0.00019514623272698373)
COS_SINGLE = (0.04166664555668831, -0.0013887310633435845, 2.443251469230745e-05)
SIN_DOUBLE = (
    -0.1666666666666663, 0.008333333333322005, -0.00019841269829495606, 2.755731358773401e-06,
    -2.5050742332692487e-08, 1.5895906415366652e-10,
)  # fmt: skip
COS_DOUBLE = (
    0.041666666666666595, -0.001388888888887288, 2.480158728874015e-05, -2.7557314146611623e-07,
    2.08756963317831e-09, -1.1358299377336945e-11,
)  # fmt: skip

# The first 1280 bits of 2/pi behind 64 zero bits, as 64-bit words: arguments near the limit reach
# before the point.
TWO_OVER_PI = int(
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561"
    "b7246e3a424dd2e006492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484"
    "e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980f"
    "ef2f118b5a0a6d1f6d367ecf27cb09b74f463f669e5fea2d7527bac7ebe5f17b"
    "3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6babf0cfbc209af4361d",
    16,
)
TABLE_WORDS = 21
TABLE_SYMBOL = "@treadle.two_over_pi"


def bit_table() -> str:
    """Return the definition of the global table of the bits of 2/pi."""
    words = [
        (TWO_OVER_PI >> (64 * (TABLE_WORDS - 1 - i))) & (2**64 - 1) for i in range(TABLE_WORDS)
    ]
    elements = ", ".join(f"i64 {word}" for word in words)
    return f"{TABLE_SYMBOL} = internal unnamed_addr constant [{TABLE_WORDS} x i64] [{elements}]"


def window_of_bits(e: Emitter, exponent: Value) -> Value:
    """Return 192 bits of 2/pi, starting where the significand of a number of that biased exponent
    needs them.
    """
    e.declares[bit_table()] = None
    # A number is M 2^k with k = exponent - 1075; bits of weight above 2^(1-k) are multiples of
    # four and drop out.
    start = exponent - (1075 + 2 - 64)
    position = e.select(start > 0, start, 0)
    word, shift = position >> 6, position & 63
    window = e.like(Value(e, "i256", ""), 0)
    for i in range(4):
        pointer = e.assign(
            "ptr", f"getelementptr inbounds i64, ptr {TABLE_SYMBOL}, i64 {(word + i).name}"
        )
        loaded = e.assign("i64", f"load i64, ptr {pointer.name}")
        window = (window << 64) | loaded.widen("i256")
    return ((window << shift.widen("i256")) >> 64).narrow("i192")


def reduce_large(e: Emitter, x: Value) -> str:
    """Write the reduction of one scalar of any size and return the operand text of ``{r high, r
    low, q}``.
    """
    bits = x.to_bits()
    significand = (bits & ((1 << 52) - 1)) | (1 << 52)
    turns = significand.widen("i192") * window_of_bits(
        e, (bits >> 52) & 2047
    )  # x / (2 pi) in units of 2^-192
    quadrant = (turns + (1 << 189)) >> 190
    rest = turns - (quadrant << 190)
    below = rest < 0
    size = e.select(below, -rest, rest)
    pieces: list[Value] = []
    for i in range(4):
        piece = (size >> (150 - 40 * i)).narrow("i64") & ((1 << 40) - 1)
        pieces.append(
            e.assign("double", f"uitofp {piece.typed} to double") * 2.0 ** (-40 * (i + 1))
        )
    high, error = e.fast_two_sum(pieces[0], pieces[1])
    high, low = e.fast_two_sum(high, error + pieces[2] + pieces[3])
    product, product_error = e.two_product(high, e.like(high, HALF_PI[0]))
    product, low = e.fast_two_sum(product, product_error + high * HALF_PI[1] + low * HALF_PI[0])
    negative = bits < 0
    flip = below ^ negative
    count = quadrant.narrow("i64")
    fields = (
        e.select(flip, -product, product),
        e.select(flip, -low, low),
        e.select(negative, -count, count),
    )
    result = "poison"
    for i, value in enumerate(fields):
        result = e.assign(
            "", f"insertvalue {{double, double, i64}} {result}, {value.typed}, {i}"
        ).name
    return result


def reduce_large_lanes(lanes: int, callee: str, symbol: str) -> str:
    """Return the text of a cold function that calls the scalar reduction for each lane in turn."""
    floats, ints = vector_type("double", lanes), vector_type("i64", lanes)
    kinds = ("double", "double", "i64")
    types = (floats, floats, ints)
    names = ("high", "low", "quadrant")
    struct = f"{{{', '.join(types)}}}"
    lines = [
        f"define internal {struct} {symbol}({floats} %x) noinline cold nounwind {{",
        "entry:",
        "  br label %loop",
        "loop:",
        "  %lane = phi i32 [0, %entry], [%lane.next, %loop]",
        *(
            f"  %{n} = phi {t} [poison, %entry], [%{n}.next, %loop]"
            for n, t in zip(names, types, strict=True)
        ),
        f"  %element = extractelement {floats} %x, i32 %lane",
        f"  %reduced = call {{double, double, i64}} {callee}(double %element)",
    ]
    for i, (name, kind, type_) in enumerate(zip(names, kinds, types, strict=True)):
        lines.append(f"  %{name}.one = extractvalue {{double, double, i64}} %reduced, {i}")
        lines.append(
            f"  %{name}.next = insertelement {type_} %{name}, {kind} %{name}.one, i32 %lane"
        )
    lines += ["  %lane.next = add i32 %lane, 1", f"  %more = icmp ult i32 %lane.next, {lanes}"]
    lines += ["  br i1 %more, label %loop, label %done", "done:"]
    result = "poison"
    for i, (name, type_) in enumerate(zip(names, types, strict=True)):
        lines.append(f"  %result.{i} = insertvalue {struct} {result}, {type_} %{name}.next, {i}")
        result = f"%result.{i}"
    return "\n".join([*lines, f"  ret {struct} {result}", "}"])


def reduce_angle(e: Emitter, x: Value) -> tuple[Value, Value, Value]:
    """Return ``r`` in two parts and the quadrant ``q`` (modulo four) of 64-bit ``x``."""
    shifted = e.fmuladd(x, 2.0 / math.pi, 1.5 * 2.0**52)
    n = shifted - 1.5 * 2.0**52
    first = e.fmuladd(n, -HALF_PI_PARTS[0], x)
    if e.is_single:
        high = e.fmuladd(n, -(HALF_PI_PARTS[1] + HALF_PI_PARTS[2]), first)
        low = e.like(high, 0.0)
    else:
        second, error = e.two_sum(first, n * -HALF_PI_PARTS[1])
        high, low = e.fast_two_sum(second, e.fmuladd(n, -HALF_PI_PARTS[2], error))
    return patch_large(e, x, (high, low, shifted.to_bits()))


def patch_large(e: Emitter, x: Value, fast: tuple[Value, ...]) -> tuple[Value, Value, Value]:
    """Replace the lanes of ``fast`` whose ``x`` is too large by the cold reduction, when there is
    one.
    """
    e.requires[("reduce_angle", 64, e.lanes)] = None
    large = e.assign("i1", f"fcmp uge {e.abs(x).typed}, {e.like(x, REDUCTION_LIMIT).name}")
    any_large = large.name
    if e.lanes > 1:
        reducer = f"@llvm.vector.reduce.or.v{e.lanes}i1"
        e.declares[f"declare i1 {reducer}({large.type})"] = None
        any_large = e.assign("i1", f"call i1 {reducer}({large.typed})").name
    weights = '!prof !{!"branch_weights", i32 1, i32 2000}'
    e.emit(f"  br i1 {any_large}, label %large, label %reduced, {weights}")
    e.emit("large:")
    struct = f"{{{', '.join(v.type for v in fast)}}}"
    symbol = f'@"treadle.reduce_angle.{"" if e.lanes == 1 else f"v{e.lanes}"}f64"'
    slow = e.assign("", f"call {struct} {symbol}({x.typed})")
    patched: list[Value] = []
    for i, value in enumerate(fast):
        part = e.assign(value.kind, f"extractvalue {struct} {slow.name}, {i}")
        patched.append(e.select(large, part, value))
    patched[0] = patched[0] + (x - x)  # infinity has no angle
    e.emit("  br label %reduced")
    e.emit("reduced:")
    merged = [
        e.assign(a.kind, f"phi {a.type} [{a.name}, %entry], [{b.name}, %large]")
        for a, b in zip(fast, patched, strict=True)
    ]
    return merged[0], merged[1], merged[2]


def sin_cos(e: Emitter, x: Value) -> tuple[Value, Value, Value]:
    """Return ``sin(r)``, ``cos(r)`` and the quadrant as an integer of the function's width."""
    if e.is_single:
        high, _, quadrant = reduce_angle(e, x.widen("double"))
        r = high.narrow("float")
        z = r * r
        sine = e.fmuladd(r * z, e.polynomial(z, SIN_SINGLE), r)
        cosine = e.fmuladd(z * z, e.polynomial(z, COS_SINGLE), e.fmuladd(z, -0.5, 1.0))
        return sine, cosine, quadrant.narrow("i32")
    r, low, quadrant = reduce_angle(e, x)
    z = r * r
    cube = z * r
    tail = cube * e.polynomial(z, SIN_DOUBLE[1:])
    sine = r - ((z * (low * 0.5 - tail) - low) - cube * SIN_DOUBLE[0])
    half = z * 0.5
    near_one = 1.0 - half
    cosine = near_one + (
        ((1.0 - near_one) - half) + (z * z * e.polynomial(z, COS_DOUBLE) - r * low)
    )
    return sine, cosine, quadrant


def sign_from(e: Emitter, x: Value, quadrant: Value) -> Value:
    """Return ``x`` negated where bit one of ``quadrant`` is set."""
    return (x.to_bits() ^ ((quadrant & 2) << (e.bits - 2))).to_floats()


def sin(e: Emitter, x: Value) -> Value:
    """``sin(x)``; NaN at infinity."""
    sine, cosine, quadrant = sin_cos(e, x)
    odd = (quadrant & 1).equals(1)
    return e.keep_tiny(x, sign_from(e, e.select(odd, cosine, sine), quadrant))


def cos(e: Emitter, x: Value) -> Value:
    """``cos(x)``; NaN at infinity."""
    sine, cosine, quadrant = sin_cos(e, x)
    odd = (quadrant & 1).equals(1)
    return sign_from(e, e.select(odd, sine, cosine), quadrant + 1)


def tan(e: Emitter, x: Value) -> Value:
    """``sin(x) / cos(x)``; NaN at infinity."""
    sine, cosine, quadrant = sin_cos(e, x)
    odd = (quadrant & 1).equals(1)
    return e.keep_tiny(x, e.select(odd, -cosine, sine) / e.select(odd, sine, cosine))
