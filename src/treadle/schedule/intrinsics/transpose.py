"""Transposes of square tiles: loads of rows, shuffles, stores of rows; no element moves alone.

Within groups of four lanes two stages interleave rows (of 1, then of 2 elements); what remains is a
transpose of groups, which one or two stages of choosing whole groups do. Each of these shuffles is
one instruction on x86 and on NEON.
"""

from collections.abc import Iterable, Sequence

from treadle.expr.dtype import DType
from treadle.schedule.intrinsics.intrinsic import TensorIntrin, define, features

_GROUP = 4
SIDES = (4, 8, 16)
"""Rows and columns of the tiles that there are."""


def transpose(dtype: DType, side: int) -> TensorIntrin:
    """``Y[j, i] = X[i, j]`` for a square tile of 4, 8 or 16 rows of a 32-bit type."""
    name = f"transpose_{dtype}_{side}x{side}"
    shape = f"Buffer[({side}, {side}), {dtype}]"
    header = f"@tensor.function\ndef {{}}(X: {shape}, Y: Output[({side}, {side}), {dtype}]):\n"
    description = header.format(name) + (
        f"    for i in range({side}):\n"
        f"        for j in range({side}):\n"
        '            with block("Y"):\n'
        f"                vi = spatial({side}, i)\n"
        f"                vj = spatial({side}, j)\n"
        "                Y[vj, vi] = X[vi, vj]\n"
    )
    run = f"ramp(0, 1, i64x{side})"
    loads = [f"X[{i}, {run}]" for i in range(side)]
    lines = _lines(loads, [f"Y[{i}, {run}] = {{}}" for i in range(side)])
    implementation = header.format(name) + "".join(f"    {x}\n" for x in lines)
    return define(name, description, implementation, _NEEDS[side])


def transpose_groups(dtype: DType, group: int, side: int) -> TensorIntrin:
    """``Y[k // group, j * group + k % group] = X[j, k]``: groups of 2 or 4 narrow elements move as
    one word of 32 bits.
    """
    name = f"transpose_{dtype}_{group}x{side}x{side}"
    wide = group * side
    shape = f"({side}, {wide}), {dtype}"
    header = f"@tensor.function\ndef {name}(X: Buffer[{shape}], Y: Output[{shape}]):\n"
    description = header + (
        f"    for j in range({side}):\n"
        f"        for k in range({wide}):\n"
        '            with block("Y"):\n'
        f"                vj = spatial({side}, j)\n"
        f"                vk = spatial({wide}, k)\n"
        f"                Y[vk // {group}, vj * {group} + vk % {group}] = X[vj, vk]\n"
    )
    run = f"ramp(0, 1, i64x{wide})"
    loads = [f"bitcast(X[{i}, {run}], u32x{side})" for i in range(side)]
    lines = _lines(loads, [f"Y[{i}, {run}] = bitcast({{}}, {dtype}x{wide})" for i in range(side)])
    implementation = header + "".join(f"    {x}\n" for x in lines)
    return define(name, description, implementation, _NEEDS[side])


_NEEDS = {4: features(()), 8: features(("avx",)), 16: features(("avx512f",))}


def _lines(loads: Sequence[str], stores: Sequence[str]) -> list[str]:
    """The transpose of the rows that ``loads`` say, each put into its store."""
    side = len(loads)
    lines = [f"x{i} = let({load})" for i, load in enumerate(loads)]
    rows: Sequence[str] = [f"x{i}" for i in range(side)]
    for stage, width in enumerate((1, 2)):
        rows = _interleaved(rows, width, f"t{stage}_", lines)
    # Row 4 g + c now holds, in its group b, column 4 b + c of rows 4 g to 4 g + 3.
    groups = side // _GROUP
    for c in range(_GROUP):
        column = _groups_transposed([rows[_GROUP * g + c] for g in range(groups)], c, lines)
        lines.extend(stores[_GROUP * b + c].format(row) for b, row in enumerate(column))
    return lines


def _interleaved(rows: Sequence[str], width: int, hint: str, lines: list[str]) -> list[str]:
    """Rows ``width`` apart interleaved by runs of ``width``, within each group of four lanes.

    Of a pair come the lower and the upper halves, as ``unpcklps`` and ``unpckhps`` give them.
    """
    side = len(rows)
    result = [""] * side
    for base in range(0, side, _GROUP):
        for first, second in _PAIRS[width]:
            a, b = rows[base + first], rows[base + second]
            for half, place in enumerate(_PLACES[width][first]):
                start = 2 * half
                inner = _mixed(start, width)
                picks = [x + g if x < _GROUP else x - _GROUP + side + g
                         for g in range(0, side, _GROUP) for x in inner]  # fmt: skip
                result[base + place] = _let(f"{hint}{base + place}", a, b, picks, lines)
    return result


_PAIRS = {1: ((0, 1), (2, 3)), 2: ((0, 2), (1, 3))}
# Where the lower and upper halves of the pair that starts with a row go.
_PLACES = {1: {0: (0, 1), 2: (2, 3)}, 2: {0: (0, 1), 1: (2, 3)}}


def _mixed(start: int, width: int) -> tuple[int, ...]:
    """Lanes of two groups of four: runs of ``width`` from ``start``, alternating."""
    if width == 1:
        return (start, start + _GROUP, start + 1, start + 1 + _GROUP)
    return (start, start + 1, start + _GROUP, start + 1 + _GROUP)


def _groups_transposed(rows: Sequence[str], column: int, lines: list[str]) -> list[str]:
    """Row b of the result holds group b of every row."""
    count = len(rows)
    if count == 1:
        return list(rows)
    if count == 2:
        return [_choose(rows, ((b,), (b,)), f"g{column}_{b}", lines) for b in range(count)]
    result: list[str] = []
    for odd in range(2):
        own = ((odd, odd + 2), (odd, odd + 2))
        pairs = [
            _choose(rows[k : k + 2], own, f"p{column}_{odd}_{k}", lines) for k in range(0, count, 2)
        ]
        for half in range(2):
            kept = ((half, half + 2), (half, half + 2))
            result.append(_choose(pairs, kept, f"g{column}_{odd + 2 * half}", lines))
    return [result[0], result[2], result[1], result[3]]


def _choose(
    rows: Sequence[str], groups: Sequence[Iterable[int]], name: str, lines: list[str]
) -> str:
    """Whole groups of two rows, those of the first before those of the second."""
    side = _GROUP * sum(len(tuple(g)) for g in groups)
    picks = [
        _GROUP * g + lane + side * which
        for which, chosen in enumerate(groups)
        for g in chosen
        for lane in range(_GROUP)
    ]
    return _let(name, rows[0], rows[1], picks, lines)


def _let(name: str, a: str, b: str, picks: Sequence[int], lines: list[str]) -> str:
    lines.append(f"{name} = let(shuffle({a}, {b}, {', '.join(map(str, picks))}))")
    return name
