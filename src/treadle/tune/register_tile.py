"""Sums in a register tile: started before the steps of a reduction, held while these run, and taken
from there by what follows.
"""

from collections.abc import Sequence

from treadle.schedule.trace import Schedule
from treadle.tune.blocks import follower_of, store_of


def hold_sums(s: Schedule, block: str, home: str, step: str, depth: int) -> None:
    """Hold the sums of a block in registers from the first iteration of ``step`` to the last, and
    let what follows take them at the end of ``home``; ``depth`` innermost loops of both are bound.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    follower = follower_of(s, block)
    if follower is None:
        follower = s.cache_write(block, "register")
    else:
        s.set_scope(store_of(s, block).buffer.name, "register")
    fresh = s.reverse_compute_at(follower, home)
    start_sums(s, block, step, depth)
    bind_tile(s, fresh[-depth:])


def start_sums(s: Schedule, block: str, step: str, depth: int) -> None:
    """Start the sums of a block before ``step``, in vectors.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    before = frozenset(s.loops())
    s.decompose_reduction(block, step)
    bind_tile(s, [name for name in s.loops() if name not in before][-depth:])


def bind_tile(s: Schedule, loops: Sequence[str]) -> None:
    """Run the last of the loops over a tile as lanes, and repeat the bodies of the others.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    *rows, lanes = loops
    for name in rows:
        s.unroll(name)
    s.vectorize(lanes)
