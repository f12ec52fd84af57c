"""Sums of products of neighbouring lanes: the machine's own instruction where the target has one,
else instructions that give the same.

Signatures are those of LLVM 22's intrinsics.
"""

from treadle.base.errors import CodegenError
from treadle.codegen.llvm.types import Operand, constant, scalar_register, vector_of
from treadle.codegen.llvm.writer import Writer, split_type
from treadle.expr.dtype import DType, bf16, f32, i8, i16, i32, u8

_VNNI = {128: "128", 256: "256", 512: "512"}
_PAIRS = {128: "sse2.pmadd.wd", 256: "avx2.pmadd.wd", 512: "avx512.pmaddw.d.512"}
_SATURATED = {
    128: ("ssse3", "ssse3.pmadd.ub.sw.128"),
    256: ("avx2", "avx2.pmadd.ub.sw"),
    512: ("avx512bw", "avx512.pmaddubs.w.512"),
}


def dot(
    w: Writer, total: Operand, a: Operand, b: Operand, kinds: tuple[DType, DType, DType]
) -> Operand:
    """``total`` and the products of each 2 or 4 neighbouring lanes of ``a`` and ``b``.

    Raises:
        CodegenError: E0501 for other types than sums of 8-bit quads and 16-bit pairs in i32, and of
            bf16 pairs in f32.
    """
    kind, left, right = (k.scalar for k in kinds)
    group = kinds[1].lanes // kinds[0].lanes
    if (kind, left, right, group) == (f32, bf16, bf16, 2):
        return _bfloat_pairs(w, total, a, b, kinds[0].lanes)
    if kind is i32 and left in (u8, i8) and right in (u8, i8) and group == 4:
        return _quads(w, total, a, b, kinds)
    if (kind, left, right, group) == (i32, i16, i16, 2):
        pairs = _pairs(w, a, b, kinds[0].lanes)
        return w.op("add", total, pairs or _products(w, a, b, kinds))
    listed = ", ".join(map(str, kinds))
    raise CodegenError("E0501", f"there is no machine code for dot of {listed}")


def maddubs(w: Writer, a: Operand, b: Operand, lanes: int) -> Operand:
    """Products of unsigned and signed bytes, neighbours added, kept within 16 bits."""
    needed, name = _SATURATED.get(lanes * 8, ("", ""))
    if needed and needed in w.target.features:
        return _call(w, f"@llvm.x86.{name}", vector_of("i16", lanes // 2), a, b)
    first, second = (_wide_products(w, a, b, part, 2, (u8, i8)) for part in (0, 1))
    both = w.op("add", first, second)
    low = w.intrinsic("smax", both, w.integer(-(1 << 15), both))
    return w.convert("trunc", w.intrinsic("smin", low, w.integer((1 << 15) - 1, both)), "i16")


def _call(w: Writer, symbol: str, kind: str, *args: Operand) -> Operand:
    w.declare(kind, symbol, *(x.type for x in args))
    return w.call(symbol, kind, *args)


# Bytes and words ----------------------------------------------------------------------------------


def _quads(
    w: Writer, total: Operand, a: Operand, b: Operand, kinds: tuple[DType, DType, DType]
) -> Operand:
    left, right = kinds[1].scalar, kinds[2].scalar
    if left is i8 and right is u8:
        return _quads(w, total, b, a, (kinds[0], kinds[2], kinds[1]))
    own = _neon_quads(w, total, a, b, kinds) or _vnni_quads(w, total, a, b, kinds)
    if own is not None:
        return own
    even, odd = (_pairs(w, *words, kinds[0].lanes) for words in _words(w, a, b, left, right))
    if even is None or odd is None:
        return w.op("add", total, _products(w, a, b, kinds))
    return w.op("add", total, w.op("add", even, odd))


def _vnni_quads(
    w: Writer, total: Operand, a: Operand, b: Operand, kinds: tuple[DType, DType, DType]
) -> Operand | None:
    bits, features = kinds[0].lanes * 32, w.target.features
    known = "avxvnni" in features or {"avx512vnni", "avx512vl"} <= features
    if kinds[2].scalar is not i8 or bits not in _VNNI or not (known if bits < 512 else _wide(w)):
        return None
    symbol = f"@llvm.x86.avx512.vpdpbusd.{_VNNI[bits]}"
    if kinds[1].scalar is u8:
        return _call(w, symbol, total.type, total, a, b)
    # The instruction takes one operand unsigned: 128 more in every lane of it, taken off again.
    flipped = w.op("xor", a, w.integer(-128, a))
    zero = Operand(total.type, "zeroinitializer")
    surplus = _call(w, symbol, total.type, zero, w.integer(-128, a), b)
    return w.op("sub", _call(w, symbol, total.type, total, flipped, b), surplus)


def _wide(w: Writer) -> bool:
    return "avx512vnni" in w.target.features


def _neon_quads(
    w: Writer, total: Operand, a: Operand, b: Operand, kinds: tuple[DType, DType, DType]
) -> Operand | None:
    same = kinds[1].scalar is kinds[2].scalar
    if w.target.arch not in ("aarch64", "arm64") or kinds[0].lanes != 4:
        return None
    if same and "dotprod" in w.target.features:
        name = "sdot" if kinds[1].scalar is i8 else "udot"
        return _call(w, f"@llvm.aarch64.neon.{name}.v4i32.v16i8", total.type, total, a, b)
    if not same and "i8mm" in w.target.features:
        return _call(w, "@llvm.aarch64.neon.usdot.v4i32.v16i8", total.type, total, a, b)
    return None


def _words(
    w: Writer, a: Operand, b: Operand, left: DType, right: DType
) -> tuple[tuple[Operand, Operand], tuple[Operand, Operand]]:
    """The even and the odd bytes of both operands as 16-bit lanes."""
    lanes = split_type(a.type)[0] // 2
    halves: list[tuple[Operand, Operand]] = []
    for x, dtype in ((a, left), (b, right)):
        both = w.assign(f"<{lanes} x i16>", f"bitcast {x} to <{lanes} x i16>")
        shift, eight = "ashr" if dtype is i8 else "lshr", w.integer(8, both)
        halves.append((w.op(shift, w.op("shl", both, eight), eight), w.op(shift, both, eight)))
    return (halves[0][0], halves[1][0]), (halves[0][1], halves[1][1])


def _pairs(w: Writer, a: Operand, b: Operand, lanes: int) -> Operand | None:
    """Sums of products of neighbouring 16-bit lanes, where x86 has an instruction for them."""
    bits, features = lanes * 32, w.target.features
    needed = {128: "sse3", 256: "avx2", 512: "avx512bw"}.get(bits)
    if needed is None or needed not in features:
        return None
    return _call(w, f"@llvm.x86.{_PAIRS[bits]}", f"<{lanes} x i32>", a, b)


def _products(w: Writer, a: Operand, b: Operand, kinds: tuple[DType, DType, DType]) -> Operand:
    """The sum of the products within each group, for any machine."""
    group = kinds[1].lanes // kinds[0].lanes
    signs = (kinds[1].scalar, kinds[2].scalar)
    result = _wide_products(w, a, b, 0, group, signs)
    for part in range(1, group):
        result = w.op("add", result, _wide_products(w, a, b, part, group, signs))
    return result


def _wide_products(
    w: Writer, a: Operand, b: Operand, part: int, group: int, kinds: tuple[DType, DType]
) -> Operand:
    """Products in 32 bits of the lanes number ``part`` of each group."""
    parts = [_every(w, x, part, group) for x in (a, b)]
    wide = [
        w.convert("sext" if kind.kind == "int" else "zext", x, "i32")
        for x, kind in zip(parts, kinds, strict=True)
    ]
    return w.op("mul", *wide)


def _every(w: Writer, x: Operand, first: int, step: int) -> Operand:
    lanes, element = split_type(x.type)
    kept = lanes // step
    picks = ", ".join(f"i32 {first + step * i}" for i in range(kept))
    text = f"shufflevector {x}, {x.type} poison, <{kept} x i32> <{picks}>"
    return w.assign(vector_of(element, kept), text)


# Brain floats -------------------------------------------------------------------------------------


def _bfloat_pairs(w: Writer, total: Operand, a: Operand, b: Operand, lanes: int) -> Operand:
    features = w.target.features
    native = "avx512bf16" in features and (lanes == 16 or "avx512vl" in features)
    if native and lanes in (4, 8, 16):
        kind = f"<{2 * lanes} x bfloat>"
        pairs = [w.assign(kind, f"bitcast {x} to {kind}") for x in (a, b)]
        symbol = f"@llvm.x86.avx512bf16.dpbf16ps.{lanes * 32}"
        return _call(w, symbol, total.type, total, *pairs)
    result = _flushed(w, total, lanes)
    for part in (1, 0):
        x, y = (_bfloat_part(w, v, part, lanes) for v in (a, b))
        # The product is exact in f32 but for its range, so one rounding remains either way where
        # there is no fused multiply-add.
        result = _flushed(w, _fused(w, x, y, result), lanes)
    return result


def _fused(w: Writer, x: Operand, y: Operand, total: Operand) -> Operand:
    if w.target.has_fma:
        return w.intrinsic("fma", x, y, total)
    return w.op("fadd", total, w.op("fmul", x, y))


def _bfloat_part(w: Writer, x: Operand, part: int, lanes: int) -> Operand:
    """The even or the odd lanes as f32, denormals as zeros."""
    both = w.assign(f"<{lanes} x i32>", f"bitcast {x} to <{lanes} x i32>")
    if part == 0:
        bits = w.op("shl", both, w.integer(16, both))
    else:
        bits = w.op("and", both, w.integer(-(1 << 16), both))
    return _flushed(w, w.convert("bitcast", bits, "float"), lanes)


def _flushed(w: Writer, x: Operand, lanes: int) -> Operand:
    """Denormals as zeros of the same sign."""
    kind = f32.vector(lanes)
    tiny = constant(2.0**-126, kind)
    small = w.compare("fcmp olt", w.intrinsic("fabs", x), tiny)
    zero = Operand(vector_of(scalar_register(f32), lanes), "zeroinitializer")
    return w.select(small, w.intrinsic("copysign", zero, x), x)
