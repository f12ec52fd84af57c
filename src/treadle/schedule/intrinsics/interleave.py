"""Rows of narrow types interleaved, as dot products want their packed operand: loads of rows,
shuffles, one store.
"""

from treadle.expr.dtype import DType
from treadle.schedule.intrinsics.intrinsic import TensorIntrin, define

GROUPS = (2, 4)


def interleave(dtype: DType, group: int, lanes: int) -> TensorIntrin:
    """``Y[j * group + k] = X[k, j]`` for 2 or 4 rows."""
    name = f"interleave_{dtype}_{group}x{lanes}"
    wide = group * lanes
    header = (
        f"@tensor.function\n"
        f"def {name}(X: Buffer[({group}, {lanes}), {dtype}], Y: Output[({wide},), {dtype}]):\n"
    )
    description = header + (
        f"    for k in range({group}):\n"
        f"        for j in range({lanes}):\n"
        '            with block("Y"):\n'
        f"                vk = spatial({group}, k)\n"
        f"                vj = spatial({lanes}, j)\n"
        f"                Y[vj * {group} + vk] = X[vk, vj]\n"
    )
    lines = [f"x{k} = let(X[{k}, ramp(0, 1, i64x{lanes})])" for k in range(group)]
    rows = [f"x{k}" for k in range(group)]
    width, count = 1, lanes
    while len(rows) > 1:
        pairs: list[str] = []
        for first in range(0, len(rows), 2):
            row = f"p{width}_{first}"
            picks = ", ".join(map(str, _alternating(count, width)))
            lines.append(f"{row} = let(shuffle({rows[first]}, {rows[first + 1]}, {picks}))")
            pairs.append(row)
        rows, width, count = pairs, 2 * width, 2 * count
    lines.append(f"Y[ramp(0, 1, i64x{wide})] = {rows[0]}")
    return define(name, description, header + "".join(f"    {line}\n" for line in lines))


def _alternating(count: int, width: int) -> list[int]:
    """Runs of ``width`` lanes of two vectors of ``count``, in turn."""
    starts = range(0, count, width)
    return [lane + at for at in starts for lane in (*range(width), *range(count, count + width))]
