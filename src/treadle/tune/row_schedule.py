"""The default schedule of reductions: everything that a row needs in one pass, partial results in
lanes.
"""

from treadle.expr.scalar import int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import enclosing_loops, find_block
from treadle.ir.tensor import Block, For
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.spatial_schedule import lanes_of, vectorize_loop

_WIDE = 4
"""Vectors of partial results of a long reduction: as many as hide the latency of an addition."""


def schedule_rows(s: Schedule, names: list[str], target: Target, threads: int) -> None:
    """Compute ``names``, blocks that feed each other, the last of them the result, row by row.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    rows = _rows(s, names)
    if rows:
        home = rows[-1]
        for name in reversed(names[:-1]):
            s.compute_at(name, home)
    for name in names:
        _vectorize(s, name, set(rows), target)
    if rows and threads > 1:
        s.parallel(rows[0])


def _rows(s: Schedule, names: list[str]) -> list[str]:
    """The outer loops of the last block that every reduction has an axis for."""
    last = _block(s, names[-1])
    loops = enclosing_loops(s.function, last)
    count = min(
        len([i for i in _block(s, n).iters if i.kind == "spatial"])
        for n in names
        if any(i.kind == "reduce" for i in _block(s, n).iters) or n == names[-1]
    )
    own = {v for i in last.iters if i.kind == "spatial" for v in variables(i.binding)}
    rows = [loop.var.name for loop in loops if loop.var in own][:count]
    return rows


def _block(s: Schedule, name: str) -> Block:
    found = find_block(s.function, name)
    assert found is not None
    return found


def _vectorize(s: Schedule, name: str, rows: set[str], target: Target) -> None:
    """Run the innermost loop of a block along lanes; a reduction keeps one partial result per
    lane.
    """
    block = _block(s, name)
    loops = [x for x in enclosing_loops(s.function, block) if x.var.name not in rows]
    if not loops:
        return
    inner = loops[-1]
    lanes = lanes_of(s.function, block, target)
    reduced = {v for i in block.iters if i.kind == "reduce" for v in variables(i.binding)}
    if inner.var not in reduced:
        vectorize_loop(s, inner, lanes)
        return
    _reduce(s, name, inner, lanes)


def _reduce(s: Schedule, name: str, inner: For, lanes: int) -> None:
    """One partial result per lane, combined at the end."""
    extent = int_value(simplify(inner.extent))
    if extent is not None and extent < lanes:
        return
    width = lanes if extent is not None and extent < 2 * _WIDE * lanes else _WIDE * lanes
    _, lane = s.split(inner.var.name, (None, width))
    partial = s.rfactor(lane)
    for block in (partial, name):
        start_apart(s, block)
    for block in (partial, f"{partial}_init", name):
        found = find_block(s.function, block)
        wide = (
            []
            if found is None
            else [x for x in enclosing_loops(s.function, found) if int_value(x.extent) == width]
        )
        if wide:
            _to_innermost(s, found, wide[-1])
            s.vectorize(wide[-1].var.name, reassociate=block == name)


def start_apart(s: Schedule, name: str) -> None:
    """Give a reduction's start a block of its own, before the outermost loop that it steps."""
    block = _block(s, name)
    reduced = {v for i in block.iters if i.kind == "reduce" for v in variables(i.binding)}
    steps = [x for x in enclosing_loops(s.function, block) if x.var in reduced]
    if block.init and steps:
        s.decompose_reduction(name, steps[0].var.name)


def _to_innermost(s: Schedule, block: Block | None, lane: For) -> None:
    """Move the loop over lanes inside the others of its nest."""
    if block is None:
        return
    around = list(enclosing_loops(s.function, block))
    below = around[around.index(lane) + 1 :]
    if below:
        s.reorder(*(x.var.name for x in below), lane.var.name)
