"""Copies that bring an axis of an operand to the lanes of vectors."""

from collections.abc import Sequence

from treadle.expr.dtype import DType, f32
from treadle.expr.scalar import int_value
from treadle.expr.simplify import simplify
from treadle.ir.analysis import find_loop
from treadle.schedule.trace import Schedule
from treadle.tune.attempt import attempt


def pack_lanes(s: Schedule, column: str, others: Sequence[str], lanes: int, dtype: DType) -> None:
    """Run a copy, over ``column`` and the ``others``, with ``column`` along lanes: by transposing
    square tiles in registers if neighbours of the last of the others lie together where the copy
    reads, else by gathering each vector.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    if others and dtype == f32:

        def by_tiles(trial: Schedule) -> None:
            _transpose(trial, column, others, lanes)

        if attempt(s, by_tiles, optional=True):
            return
    group, lane = s.split(column, (None, lanes))
    s.reorder(group, *others, lane)
    s.vectorize(lane)


def _transpose(s: Schedule, column: str, others: Sequence[str], side: int) -> None:
    """Pack by transposing square tiles in registers.

    Raises:
        ScheduleError: E037x if the elements do not lie in such tiles.
    """
    group, lane = s.split(column, (None, side))
    step, inner = s.split(others[-1], (None, side))
    s.reorder(group, *others[:-1], step, lane, inner)
    s.tensorize(lane, f"transpose_f32_{side}x{side}")


def turn_lanes(s: Schedule, row: str, column: str, others: Sequence[str], lanes: int) -> None:
    """Run a copy that reads along ``column`` and writes along ``row``: square tiles are transposed
    in registers, the rows that are left are picked one by one.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    s.reorder(row, *others, column)
    loop = find_loop(s.function, row)
    extent = None if loop is None else int_value(simplify(loop.extent))
    assert extent is not None
    whole = extent // lanes * lanes
    if whole < extent:
        inside = [row, *others, column]
        rest = s.loop_partition(row, (whole,))
        left = [next(x for x in rest if x.startswith(name)) for name in inside]
        s.reorder(*left[1:], left[0])
        s.vectorize(left[0])
    _transpose(s, column, [*others, row], lanes)
