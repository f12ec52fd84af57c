"""The default schedule of reductions: everything that a row needs in one pass, partial results in
lanes.
"""

from itertools import pairwise
from math import prod

from treadle.expr.scalar import Expr, Var, int_value, substitute, variables
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import buffers_read, enclosing_loops, find_block, flat_index, loads
from treadle.ir.tensor import Block, For, Store
from treadle.passes.kinds import only_store
from treadle.schedule.dependence import reduction_of
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.attempt import attempt
from treadle.tune.blocks import block_of
from treadle.tune.parallel import spread
from treadle.tune.spatial_schedule import can_fuse, lanes_of, order_loops, vectorize_loop

_WINDOW = 64
"""Points of a reduction up to which lanes run along its results."""
_NEAR = 4
_WIDE = 4
"""Vectors of partial results of a long reduction: as many as hide the latency of an addition."""
_PARTS = 16
"""Parts of a reduction of at least so many points to one element."""
_LONG = 1 << 17
_BOTH = 2
"""Vectors of partial results of a reduction whose terms are computed in the same sweep."""


def schedule_rows(
    s: Schedule, names: list[str], target: Target, threads: int, *, strict: bool = False
) -> None:
    """Compute ``names``, blocks that feed each other, the last of them the result, row by row.

    With ``strict``, sums keep their order, and lanes run along results only.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    for name in names:
        order_loops(s, name)
    rows = _rows(s, names)
    if rows:
        home = rows[-1]
        for name in reversed(names[:-1]):
            s.compute_at(name, home)
    done: set[str] = set()
    for producer, name in pairwise(names):
        if not strict and rows and _sum_while_computing(s, producer, name, set(rows), target):
            done |= {producer, name}
    for name in names:
        part = None if strict or rows else _in_parts(s, name)
        if part is not None:
            vectorize_row(s, part, set(_row_loops(s, part)), target, strict)
            if threads > 1:
                spread(s, _row_loops(s, part))
        elif name not in done:
            vectorize_row(s, name, set(rows), target, strict)
    if threads > 1:
        spread(s, _row_loops(s, names[-1]))


def _in_parts(s: Schedule, name: str) -> str | None:
    """Divide a long reduction to one element, so that threads have parts of it; the block that
    reduces these. There are as many for any number of threads, and the sum is the same.
    """
    block = block_of(s, name)
    reduced = {v for i in block.iters if i.kind == "reduce" for v in variables(i.binding)}
    loops = _wide(list(enclosing_loops(s.function, block)))
    points = prod(int_value(simplify(x.extent)) or 1 for x in loops)
    if not reduced or any(x.var not in reduced for x in loops) or points < _LONG:
        return None
    first = int_value(simplify(loops[0].extent))
    if first is None or first < _PARTS:
        return None
    parts, _ = s.split(loops[0].var.name, (_PARTS, None))
    return s.rfactor(parts)


def _rows(s: Schedule, names: list[str]) -> list[str]:
    """The outer loops of the last block that every reduction has an axis for."""
    last = block_of(s, names[-1])
    loops = enclosing_loops(s.function, last)
    count = min(
        len([i for i in block_of(s, n).iters if i.kind == "spatial"])
        for n in names
        if any(i.kind == "reduce" for i in block_of(s, n).iters) or n == names[-1]
    )
    own = {v for i in last.iters if i.kind == "spatial" for v in variables(i.binding)}
    rows = _wide([loop for loop in loops if loop.var in own][:count])
    if rows and all(_gathers_across(s, n) for n in names):
        rows.pop()
    return [loop.var.name for loop in rows]


def _wide(loops: list[For]) -> list[For]:
    """The loops that may have more than one iteration."""
    return [x for x in loops if int_value(simplify(x.extent)) != 1]


def _gathers_across(s: Schedule, name: str) -> bool:
    """Whether a block, if it is a reduction, should run along its results."""
    block = block_of(s, name)
    loops = enclosing_loops(s.function, block)
    reduced = {v for i in block.iters if i.kind == "reduce" for v in variables(i.binding)}
    apart = _wide([x for x in loops if x.var not in reduced])
    return not reduced or (apart != [] and _reduces_across(block, loops, apart[-1]))


def vectorize_row(s: Schedule, name: str, rows: set[str], target: Target, strict: bool) -> None:
    """Run the innermost loop of a block along lanes; a reduction keeps one partial result per
    lane, unless neighbours in memory belong to different results.
    """
    block = block_of(s, name)
    lanes = lanes_of(s.function, block, target)
    reduced = {v for i in block.iters if i.kind == "reduce" for v in variables(i.binding)}
    loops = [x for x in enclosing_loops(s.function, block) if x.var.name not in rows]
    while _fuses(s, block, loops, reduced):
        fused = s.fuse(loops[-2].var.name, loops[-1].var.name)
        block = block_of(s, name)
        reduced = {v for i in block.iters if i.kind == "reduce" for v in variables(i.binding)}
        loops = [x for x in enclosing_loops(s.function, block) if x.var.name not in rows]
        assert loops[-1].var.name == fused
    loops = _wide(loops)
    if not loops:
        return
    inner = loops[-1]
    apart = [x for x in loops if x.var not in reduced]
    if inner.var not in reduced:
        vectorize_loop(s, inner, lanes)
    elif apart and _reduces_across(block, tuple(loops), apart[-1]):
        _across(s, name, apart[-1], [x.var.name for x in loops if x.var in reduced], lanes)
    elif not strict or _is_exact(block):
        _reduce(s, name, inner, lanes)


def _is_exact(block: Block) -> bool:
    """Whether a reduction's result does not depend on its order."""
    found = reduction_of(block)
    return found is not None and found.is_exact


def _fuses(s: Schedule, block: Block, loops: list[For], reduced: set[Var]) -> bool:
    """Whether the two innermost loops both step the reduction and walk memory as one."""
    if len(loops) < 2 or loops[-1].var not in reduced or loops[-2].var not in reduced:
        return False
    return loops[-2].body == (loops[-1],) and can_fuse(s.function, block, loops[-2], loops[-1])


def _reduces_across(block: Block, loops: tuple[For, ...], loop: For) -> bool:
    """Whether lanes should run along a loop over results, not along the reduction: where its
    neighbours lie together and the reduction's do not, or where the reduction is a small window.
    """
    reduced = {v for i in block.iters if i.kind == "reduce" for v in variables(i.binding)}
    steps = [x for x in loops if x.var in reduced]
    if not steps:
        return False
    extents = [int_value(simplify(x.extent)) for x in steps]
    points = prod(x for x in extents if x is not None)
    if None not in extents and points <= _WINDOW:
        return _furthest(block, loop) in range(1, _NEAR + 1)
    return _furthest(block, loop) == 1 and _furthest(block, steps[-1]) != 1


def _furthest(block: Block, loop: For) -> int | None:
    """How far apart neighbours along a loop lie in the operand that spreads them most; ``None``
    if that is not one number.
    """
    bindings: dict[Var, Expr] = {i.var: i.binding for i in block.iters}
    furthest = 0
    for load in loads(*(x.value for x in block.body if isinstance(x, Store))):
        if any(isinstance(x, Store) and x.buffer is load.buffer for x in block.body):
            continue
        place = simplify(substitute(flat_index(load.buffer, load.indices), bindings))
        linear = split_linear(place, loop.var)
        step = None if linear is None else int_value(linear[0])
        if step is None or step < 0:
            return None
        furthest = max(furthest, step)
    return furthest


def _across(s: Schedule, name: str, loop: For, steps: list[str], lanes: int) -> None:
    """Reduce a vector of neighbouring results at once, in a register."""
    extent = int_value(simplify(loop.extent))
    if extent is not None and extent < 2:
        return
    around, lane = s.split(loop.var.name, (None, lanes))
    s.reorder(*steps, lane)
    copied = s.reverse_compute_at(s.cache_write(name, "register"), around)
    before = frozenset(s.loops())
    s.decompose_reduction(name, steps[0])
    started = [x for x in s.loops() if x not in before]
    for inner in (started[-1], lane, copied[-1]):
        s.vectorize(inner)


def _reduce(s: Schedule, name: str, inner: For, lanes: int) -> None:
    """One partial result per lane, combined at the end."""
    extent = int_value(simplify(inner.extent))
    if extent is not None and extent < lanes:
        return
    width = lanes if extent is not None and extent < 2 * _WIDE * lanes else _WIDE * lanes
    _combine(s, _partials(s, name, inner, width), name)


def _sum_while_computing(
    s: Schedule, producer: str, name: str, rows: set[str], target: Target
) -> bool:
    """Reduce what ``producer`` computes in the sweep that computes it; whether that is possible.

    The function stays as it was where it is not, and where vectors do not fill the rows.
    """
    written, block = only_store(block_of(s, producer)), block_of(s, name)
    if written is None or written.buffer not in buffers_read((block,)):
        return False
    nests = [
        [x for x in enclosing_loops(s.function, block_of(s, n)) if x.var.name not in rows]
        for n in (producer, name)
    ]
    width = _BOTH * lanes_of(s.function, block, target)
    sizes = {int_value(simplify(x.extent)) for nest in nests for x in nest}
    size = sizes.pop() if [len(nest) for nest in nests] == [1, 1] and len(sizes) == 1 else None
    if size is None or size % width or not any(i.kind == "reduce" for i in block.iters):
        return False

    def at_once(trial: Schedule) -> None:
        steps, lane = trial.split(nests[0][0].var.name, (None, width))
        partial = _partials(trial, name, nests[1][0], width)
        trial.merge(steps, enclosing_loops(trial.function, block_of(trial, partial))[-2].var.name)
        _combine(trial, partial, name)
        trial.vectorize(lane)

    return attempt(s, at_once, optional=True)


def _partials(s: Schedule, name: str, inner: For, width: int) -> str:
    """Split a reduction in partial results, whose loop is made the innermost; their block."""
    _, lane = s.split(inner.var.name, (None, width))
    partial = s.rfactor(lane)
    rows = _row_loops(s, name)
    around = {x.var.name for x in enclosing_loops(s.function, block_of(s, partial))}
    if rows and rows[-1] not in around:
        s.compute_at(partial, rows[-1])
    first = block_of(s, partial)
    wide = _lane_loop(s, first, partial=True)
    if wide is not None:
        _to_innermost(s, first, wide)
    return partial


def _combine(s: Schedule, partial: str, name: str) -> None:
    """Run partial results along lanes, and sum them up."""
    for block in (partial, name):
        start_apart(s, block)
    for block in (partial, f"{partial}_init"):
        found = find_block(s.function, block)
        wide = None if found is None else _lane_loop(s, found, partial=True)
        if wide is not None:
            s.vectorize(wide.var.name)
    last = _lane_loop(s, block_of(s, name), partial=False)
    if last is not None:
        # What lanes cannot be combined by is combined one by one: they are few.
        attempt(s, lambda t: t.vectorize(last.var.name, reassociate=True), optional=True)


def _row_loops(s: Schedule, name: str) -> list[str]:
    """The loops around a block that step none of its reduction."""
    block = block_of(s, name)
    reduced = {v for i in block.iters if i.kind == "reduce" for v in variables(i.binding)}
    return [x.var.name for x in enclosing_loops(s.function, block) if x.var not in reduced]


def _lane_loop(s: Schedule, block: Block, *, partial: bool) -> For | None:
    """The loop over lanes: the first axis of partial results, the reduced axis of their sum."""
    store = only_store(block)
    reduced = [i for i in block.iters if i.kind == "reduce"]
    lanes = [i for i in block.iters if store is not None and i.var in store.indices[:1]]
    axis = next(iter(lanes if partial else reduced), None)
    used = () if axis is None else variables(axis.binding)
    return next((x for x in enclosing_loops(s.function, block) if x.var in used), None)


def start_apart(s: Schedule, name: str) -> None:
    """Give a reduction's start a block of its own, before the outermost loop that it steps."""
    block = block_of(s, name)
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
