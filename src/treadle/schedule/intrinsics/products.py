"""Tiles of matrix products: rows of broadcast elements times one vector of columns.

``C[i, j] += A[i, k] * B[k, j]``, where the columns are the lanes of a vector. Types of less than 32
bits are multiplied in groups of neighbours along ``k``, which the right operand holds together:
``B[j * group + k]``.
"""

from collections.abc import Sequence

from treadle.schedule.intrinsics.intrinsic import Needs, TensorIntrin, define, features

LANES = (4, 8, 16)
"""Columns of the tiles that there are: 128, 256 and 512 bits of sums."""
MOST_ROWS = 14


def fma(rows: int, lanes: int, steps: int) -> TensorIntrin:
    """f32 products, each row an element broadcast to the lanes (multiply-adds, where the target
    has them).
    """
    name = f"fma_f32_{rows}x{lanes}x{steps}"
    run = f"ramp(0, 1, i64x{lanes})"
    lines: list[str] = []
    for k in range(steps):
        lines.append(f"b{k} = let(B[{k}, {run}])")
        lines.extend(
            f"C[{i}, {run}] = C[{i}, {run}] + broadcast(A[{i}, {k}], f32x{lanes}) * b{k}"
            for i in range(rows)
        )
    operands = (("A", (rows, steps), "f32"), ("B", (steps, lanes), "f32"))
    value = "C[vi, vj] + A[vi, vk] * B[vk, vj]"
    needs = {4: features(()), 8: features(("avx2", "fma")), 16: features(("avx512f",))}[lanes]
    return _product(name, (rows, lanes, steps), operands, "f32", value, lines, needs)


def dot_bf16(rows: int, lanes: int) -> TensorIntrin:
    """bf16 pairs, summed in f32 (``vdpbf16ps``)."""
    name = f"dot_bf16_{rows}x{lanes}x2"
    lines = _grouped("bf16", "bf16", rows, lanes, 2)
    operands = (("A", (rows, 2), "bf16"), ("B", (2 * lanes,), "bf16"))
    value = "C[vi, vj] + cast(A[vi, vk], f32) * cast(B[vj * 2 + vk], f32)"
    narrow = () if lanes == 16 else ("avx512vl",)
    needs = features(("avx512bf16", *narrow))
    return _product(name, (rows, lanes, 2), operands, "f32", value, lines, needs, exact=False)


def dot_u8i8(rows: int, lanes: int) -> TensorIntrin:
    """Quads of unsigned by signed bytes, summed in i32 (``vpdpbusd``); nothing saturates."""
    name = f"dot_u8i8_{rows}x{lanes}x4"
    lines = _grouped("u8", "i8", rows, lanes, 4)
    return _bytes(name, rows, lanes, "u8", "i8", lines, _byte_products(lanes))


def dot_i8u8(rows: int, lanes: int) -> TensorIntrin:
    """Quads of signed by unsigned bytes, summed in i32 (``vpdpbusd``); nothing saturates."""
    name = f"dot_i8u8_{rows}x{lanes}x4"
    lines = _grouped("i8", "u8", rows, lanes, 4)
    return _bytes(name, rows, lanes, "i8", "u8", lines, _byte_products(lanes))


def dot_i8i8(rows: int, lanes: int) -> TensorIntrin:
    """Quads of signed bytes, summed in i32.

    ``sdot`` does this; ``vpdpbusd`` takes one operand unsigned, so that code generation adds 128 to
    every element of the left one, and takes 128 times the sums of the right one off again, which
    all rows share.
    """
    name = f"dot_i8i8_{rows}x{lanes}x4"
    lines = _grouped("i8", "i8", rows, lanes, 4)
    neon = (("dotprod",),) if lanes == LANES[0] else ()
    return _bytes(name, rows, lanes, "i8", "i8", lines, (*features(*neon), *_byte_products(lanes)))


def maddubs_u7i8(rows: int, lanes: int) -> TensorIntrin:
    """Quads of bytes below 128 by signed bytes: pairs by ``vpmaddubsw``, whose 16 bits 7-bit
    operands cannot leave, then pairs of those by ``vpmaddwd``.
    """
    name = f"maddubs_u7i8_{rows}x{lanes}x4"
    wide, run = 4 * lanes, f"ramp(0, 1, i64x{lanes})"
    lines = [f"b = let(B[ramp(0, 1, i64x{wide})])"]
    ones = f"broadcast(i16(1), i16x{2 * lanes})"
    for i in range(rows):
        lines.append(f"a{i} = let({_spread(f'A[{i}, ramp(0, 1, i64x4)]', 'u8', lanes, 4)})")
        low = f"a{i} & broadcast(u8(127), u8x{wide})"
        lines.append(f"C[{i}, {run}] = dot(C[{i}, {run}], maddubs({low}, b), {ones})")
    operands = (("A", (rows, 4), "u8"), ("B", (wide,), "i8"))
    value = "C[vi, vj] + cast(A[vi, vk] & u8(127), i32) * cast(B[vj * 4 + vk], i32)"
    needs = {4: features(("ssse3",)), 8: features(("avx2",)), 16: features(("avx512bw",))}[lanes]
    return _product(name, (rows, lanes, 4), operands, "i32", value, lines, needs)


def xor_popcount(rows: int, lanes: int) -> TensorIntrin:
    """Words of 32 bits: how many differ, summed (products of signs, up to a linear map)."""
    name = f"xor_popcount_u32_{rows}x{lanes}x1"
    run = f"ramp(0, 1, i64x{lanes})"
    lines = [f"b = let(B[0, {run}])"]
    for i in range(rows):
        bits = f"popcount(broadcast(A[{i}, 0], u32x{lanes}) ^ b)"
        lines.append(f"C[{i}, {run}] = C[{i}, {run}] + cast({bits}, i32x{lanes})")
    operands = (("A", (rows, 1), "u32"), ("B", (1, lanes), "u32"))
    value = "C[vi, vj] + cast(popcount(A[vi, vk] ^ B[vk, vj]), i32)"
    narrow = () if lanes == 16 else ("avx512vl",)
    neon = (("neon",),) if lanes == LANES[0] else ()
    needs = features(("avx512vpopcntdq", *narrow), *neon)
    return _product(name, (rows, lanes, 1), operands, "i32", value, lines, needs)


def _byte_products(lanes: int) -> Needs:
    """VNNI, or what multiplies and adds pairs of 16-bit words (``vpmaddwd``)."""
    if lanes == LANES[-1]:
        return features(("avx512vnni",), ("avx512bw",))
    return features(("avx512vnni", "avx512vl"), ("avxvnni",), ("avx2",))


def _spread(load: str, kind: str, lanes: int, group: int) -> str:
    """A group of neighbours, the same in every lane of 32 bits."""
    word = f"broadcast(bitcast({load}, u32), u32x{lanes})"
    return f"bitcast({word}, {kind}x{group * lanes})"


def _grouped(left: str, right: str, rows: int, lanes: int, group: int) -> list[str]:
    run = f"ramp(0, 1, i64x{lanes})"
    lines = [f"b = let(B[ramp(0, 1, i64x{group * lanes})])"]
    for i in range(rows):
        word = _spread(f"A[{i}, ramp(0, 1, i64x{group})]", left, lanes, group)
        lines.append(f"a{i} = let({word})")
        lines.append(f"C[{i}, {run}] = dot(C[{i}, {run}], a{i}, b)")
    return lines


def _bytes(
    name: str, rows: int, lanes: int, left: str, right: str, lines: Sequence[str], needs: Needs
) -> TensorIntrin:
    operands = (("A", (rows, 4), left), ("B", (4 * lanes,), right))
    value = "C[vi, vj] + cast(A[vi, vk], i32) * cast(B[vj * 4 + vk], i32)"
    return _product(name, (rows, lanes, 4), operands, "i32", value, lines, needs)


def _product(
    name: str,
    extents: tuple[int, int, int],
    operands: Sequence[tuple[str, tuple[int, ...], str]],
    total: str,
    value: str,
    lines: Sequence[str],
    needs: Needs,
    *,
    exact: bool = True,
) -> TensorIntrin:
    """The intrinsic of a product over rows, columns and steps."""
    m, n, k = extents
    inputs = ", ".join(f"{x}: Buffer[{_shape(dims)}, {kind}]" for x, dims, kind in operands)
    header = f"@tensor.function\ndef {name}({inputs}, C: Output[({m}, {n}), {total}]):\n"
    description = header + (
        f"    for i in range({m}):\n"
        f"        for j in range({n}):\n"
        f"            for k in range({k}):\n"
        '                with block("C"):\n'
        f"                    vi = spatial({m}, i)\n"
        f"                    vj = spatial({n}, j)\n"
        f"                    vk = reduction({k}, k)\n"
        f"                    C[vi, vj] = {value}\n"
    )
    implementation = header + "".join(f"    {line}\n" for line in lines)
    return define(name, description, implementation, needs, exact=exact)


def _shape(dims: tuple[int, ...]) -> str:
    inner = ", ".join(map(str, dims))
    return f"({inner},)" if len(dims) == 1 else f"({inner})"
