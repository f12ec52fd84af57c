"""Spread nested loops over the threads, however few iterations the outermost one has."""

from math import prod

from treadle.expr.scalar import int_value
from treadle.expr.simplify import simplify
from treadle.ir.analysis import find_loop
from treadle.ir.tensor import For
from treadle.schedule.trace import Schedule
from treadle.tune.attempt import attempt

_UNEVEN = 1.25
"""How much longer the busiest thread may take than with equal shares."""


def spread(s: Schedule, names: list[str]) -> None:
    """Run loops, outermost first, on all threads: as one loop, as far as each holds just the next.

    A symbolic loop may run once, so it is not enough to take the outermost one.

    Raises:
        ScheduleError: E03xx if not even one loop may run on several threads.
    """
    found = [x for x in _loops(s, names) if x is not None]
    while found and int_value(simplify(found[0].extent)) == 1:
        found.pop(0)
    if not found:
        return
    chain = _chain(found)
    if len(chain) == 1 or not attempt(s, lambda t: t.parallel(t.fuse(*chain)), optional=True):
        s.parallel(chain[0])


def fills(s: Schedule, names: list[str], threads: int) -> bool:
    """Whether loops have iterations enough for all threads to have about as many."""
    extents = [None if x is None else int_value(simplify(x.extent)) for x in _loops(s, names)]
    count = prod(x for x in extents if x is not None)
    return None in extents or -(-count // threads) * threads <= count * _UNEVEN


def _loops(s: Schedule, names: list[str]) -> list[For | None]:
    return [find_loop(s.function, n) for n in names]


def _chain(loops: list[For]) -> list[str]:
    """The loops from the first on that stand alone in the one before."""
    chain = [loops[0]]
    for loop in loops[1:]:
        if chain[-1].body != (loop,):
            break
        chain.append(loop)
    return [x.var.name for x in chain]
