"""Move each temporary into the innermost loop whose iterations each use one of their own.

That holds for a loop around all accesses unless a block that writes the temporary reduces over it:
a reduction carries its value from one iteration to the next, everything else writes what it is read
for within the iteration.
"""

from dataclasses import dataclass, field

from treadle.expr.scalar import Var, variables, walk
from treadle.ir.analysis import expressions
from treadle.ir.tensor import Allocate, Block, Buffer, For, If, Load, Stmt, Store, TensorFunction
from treadle.passes.statements import Body, with_body


@dataclass(slots=True)
class _Uses:
    """The loops around all accesses of a temporary so far, and the loops that its writers reduce
    over.
    """

    loops: tuple[For, ...] | None = None
    carried: set[Var] = field(default_factory=set[Var])


def sink_allocations(function: TensorFunction) -> TensorFunction:
    """Put the allocations of ``function`` as far in as its blocks permit; for use while there are
    blocks.
    """
    uses: dict[Buffer, _Uses] = {}
    _declare(function.body, uses)
    if not uses:
        return function
    _collect(function.body, (), frozenset(), uses)
    homes = {buffer: _home(found) for buffer, found in uses.items() if found.loops is not None}
    return with_body(function, _place(function.body, None, homes))


def _declare(body: Body, uses: dict[Buffer, _Uses]) -> None:
    for s in body:
        if isinstance(s, Allocate):
            uses[s.buffer] = _Uses()
        elif isinstance(s, For):
            _declare(s.body, uses)
        elif isinstance(s, If):
            _declare((*s.body, *s.orelse), uses)


def _collect(
    body: Body,
    loops: tuple[For, ...],
    reduced: frozenset[Var],
    uses: dict[Buffer, _Uses],
    in_block: bool = False,
) -> None:
    for s in body:
        for load in walk(*expressions(s)):
            if isinstance(load, Load) and load.buffer in uses:
                _add(uses[load.buffer], loops)
        if isinstance(s, For):
            # What a block does inside itself is its own affair: allocations stay around it.
            _collect(s.body, loops if in_block else (*loops, s), reduced, uses, in_block)
        elif isinstance(s, If):
            _collect((*s.body, *s.orelse), loops, reduced, uses, in_block)
        elif isinstance(s, Block):
            inner = reduced.union(*(variables(i.binding) for i in s.iters if i.kind == "reduce"))
            _collect((*s.init, *s.body), loops, inner, uses, True)
        elif isinstance(s, Store) and s.buffer in uses:
            _add(uses[s.buffer], loops)
            uses[s.buffer].carried |= reduced


def _add(uses: _Uses, loops: tuple[For, ...]) -> None:
    if uses.loops is None:
        uses.loops = loops
        return
    shared = 0
    while shared < min(len(loops), len(uses.loops)) and loops[shared] is uses.loops[shared]:
        shared += 1
    uses.loops = loops[:shared]


def _home(uses: _Uses) -> Var | None:
    """The variable of the loop that a temporary belongs into; ``None`` for the body of the
    function.
    """
    home: Var | None = None
    for loop in uses.loops or ():
        # Lanes share one temporary: it has a place for each of them.
        if loop.var in uses.carried or loop.kind == "vectorized":
            break
        home = loop.var
    return home


def _place(body: Body, inside: Var | None, homes: dict[Buffer, Var | None]) -> Body:
    """The statements with every allocation just before the first statement that uses it, in the
    loop it belongs into.
    """
    waiting = {buffer for buffer, home in homes.items() if home is inside}
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, Allocate):
            continue
        used = _buffers((s,)) & waiting
        result.extend(Allocate(buffer) for buffer in sorted(used, key=lambda b: b.name))
        waiting -= used
        if isinstance(s, For):
            s = For(s.var, s.extent, _place(s.body, s.var, homes), s.kind, s.span)
        result.append(s)
    return tuple(result)


def _buffers(body: Body) -> set[Buffer]:
    found: set[Buffer] = set()
    for s in body:
        found |= {x.buffer for x in walk(*expressions(s)) if isinstance(x, Load)}
        if isinstance(s, Store):
            found.add(s.buffer)
        elif isinstance(s, For):
            found |= _buffers(s.body)
        elif isinstance(s, If):
            found |= _buffers((*s.body, *s.orelse))
        elif isinstance(s, Block):
            found |= _buffers((*s.init, *s.body))
    return found
