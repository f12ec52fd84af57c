"""The default schedule of blocks that hold loops of their own: statements in lanes along what lies
together in memory, short loops around them written out, blocks on all threads.
"""

from treadle.expr.bounds import interval
from treadle.expr.scalar import Expr, Var, int_value, substitute, variables
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import (
    Access,
    accesses,
    enclosing_loops,
    facts_of,
    flat_index,
    loads,
    statements,
)
from treadle.ir.tensor import Block, For, If, Stmt
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.attempt import attempt
from treadle.tune.blocks import block_of
from treadle.tune.parallel import spread

_SHORT = 16
"""Iterations up to which a loop around, or inside, lanes is written out."""
_MOST = 64
"""Statements up to which loops are written out."""
_WIDEST = 64
"""Iterations up to which a whole loop becomes lanes: a few vectors."""
_LONG = 1 << 15
"""Bytes from which on asking for what is read from end to end only takes time."""


def holds_loops(block: Block) -> bool:
    """Whether a block's statements stand in loops of their own, without blocks."""
    inside = [*statements(block.body)]
    return any(isinstance(s, For) for s in inside) and not any(isinstance(s, Block) for s in inside)


def schedule_statements(
    s: Schedule, name: str, target: Target, threads: int, *, strict: bool = False
) -> None:
    """Schedule the loops inside of a block, and those around it.

    With ``strict``, floating-point sums keep their order.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    _in_lanes(s, block_of(s, name).body, not strict)
    _foresee(s, name)
    if threads > 1:
        spread(s, [x.var.name for x in enclosing_loops(s.function, block_of(s, name))])


def _in_lanes(s: Schedule, body: tuple[Stmt, ...], reassociate: bool) -> int | None:
    """Give statements lanes, the outermost loops first; how many there are once short loops are
    written out, ``None`` if a loop is left.
    """
    sizes = [_size_in_lanes(s, stmt, reassociate) for stmt in body]
    known = [n for n in sizes if n is not None]
    return sum(known) if len(known) == len(sizes) else None


def _size_in_lanes(s: Schedule, stmt: Stmt, reassociate: bool) -> int | None:
    if isinstance(stmt, If):
        return _in_lanes(s, (*stmt.body, *stmt.orelse), reassociate)
    return _loop_in_lanes(s, stmt, reassociate) if isinstance(stmt, For) else 1


def _loop_in_lanes(s: Schedule, loop: For, reassociate: bool) -> int | None:
    name, extent = loop.var.name, int_value(loop.extent)
    if (
        extent is not None
        and 1 < extent <= _WIDEST
        and _lies_together(s, loop)
        and attempt(s, lambda t: t.vectorize_statements(name, reassociate=reassociate))
    ):
        return _write_out(s, loop.body)
    size = _in_lanes(s, loop.body, reassociate)
    holds_lanes = any(isinstance(x, For) for x in statements(loop.body))
    if size is None or extent is None or not holds_lanes:
        return None
    if extent > _SHORT or extent * size > _MOST:
        return None
    s.unroll_statements(name)
    return extent * size


def _write_out(s: Schedule, body: tuple[Stmt, ...]) -> int | None:
    """Write out the short loops among statements that run in lanes; how many these are then."""
    total: int | None = 0
    for stmt in body:
        size: int | None = 1
        if isinstance(stmt, If):
            size = _write_out(s, (*stmt.body, *stmt.orelse))
        elif isinstance(stmt, For):
            inner, extent = _write_out(s, stmt.body), int_value(stmt.extent)
            size = None if inner is None or extent is None else inner * extent
            if extent is None or extent > _SHORT or size is None or size > _MOST:
                size = None
            else:
                s.unroll_statements(stmt.var.name)
        total = None if total is None or size is None else total + size
    return total


def _foresee(s: Schedule, name: str) -> None:
    """Ask ahead for vectors of parameters where the one to read next is found in memory, unless a
    loop reads all of much that lies at such places from end to end: there the machine is soon ahead
    by itself.
    """
    block = block_of(s, name)
    found: dict[str, dict[tuple[str, str], bool]] = {}
    for a in accesses((block,), lanes=False):
        serial = [x for x in a.loops if x.kind == "serial"]
        wide = any(x.kind == "vectorized" for x in a.loops)
        if a.kind == "load" and wide and a.buffer in s.function.input_buffers:
            used = variables(*a.indices)
            named = {x.var: x.value for x in a.lets if x.var in used and loads(x.value)}
            moving = [x for x in serial[:-1] if x.var in variables(*named.values())]
            for around in moving[-1:]:
                places = found.setdefault(around.var.name, {})
                places[a.buffer.name, serial[-1].var.name] = _walks_all(s, a, list(named))
    for around, places in found.items():
        for buffer, loop in () if all(places.values()) else places:
            attempt(s, lambda t, b=buffer, x=loop, y=around: t.prefetch_statements(b, x, y))


def _walks_all(s: Schedule, access: Access, named: list[Var]) -> bool:
    """Whether the loops around an access walk, in the order of memory, all that lies between places
    whose numbers are neighbours; they are found in memory. That must be much.
    """
    facts, done = facts_of(s.function), 1
    inner_first = sorted(reversed(access.loops), key=lambda x: x.kind != "vectorized")
    for x in inner_first:
        step, extent = _step(access, x.var), interval(x.extent, facts).high
        if step == done and extent is not None:
            done *= extent
        elif step != 0 and extent != 1:
            break
    place = simplify(flat_index(access.buffer, access.indices))
    found = [split_linear(place, v) for v in named]
    known = [None if x is None else int_value(x[0]) for x in found]
    return known == [done] and done * access.buffer.dtype.bytes >= _LONG


def _lies_together(s: Schedule, loop: For) -> bool:
    """Whether neighbouring iterations access neighbouring elements, or the same one."""
    inside = [a for a in accesses(s.function.body) if any(x.var is loop.var for x in a.loops)]
    steps = [_step(a, loop.var) for a in inside]
    return 1 in steps and all(step in (0, 1) for step in steps)


def _step(access: Access, var: Var) -> int | None:
    """How far apart the elements of neighbouring iterations are, if that is one number."""
    values: dict[Var, Expr] = {}
    for let in access.lets:
        values[let.var] = substitute(let.value, values)
    place = simplify(substitute(flat_index(access.buffer, access.indices), values))
    linear = split_linear(place, var)
    return None if linear is None else int_value(linear[0])
