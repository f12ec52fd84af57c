"""The default schedule of reductions: everything that a row needs in one pass, partial results in lanes."""

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
    """Run the innermost loop of a block along lanes; a reduction keeps one partial result per lane."""
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
    extent = int_value(simplify(inner.extent))
    if extent is not None and extent < lanes:
        return
    width = lanes if extent is not None and extent < 2 * _WIDE * lanes else _WIDE * lanes
    _, lane = s.split(inner.var.name, (None, width))
    partial = s.rfactor(lane)
    block = _block(s, partial)
    around = enclosing_loops(s.function, block)
    spatial = {v for i in block.iters if i.kind == "spatial" for v in variables(i.binding)}
    own = [x for x in around if x.var in spatial and int_value(x.extent) == width]
    if own:
        s.vectorize(own[-1].var.name)
    final = _block(s, name)
    tail = [x for x in enclosing_loops(s.function, final) if int_value(x.extent) == width]
    if tail:
        s.vectorize(tail[-1].var.name)


