"""Move each temporary into the innermost loop whose iterations each use one of their own.

That holds for a loop around all accesses unless a block that writes the temporary reduces over it:
a reduction carries its value from one iteration to the next, everything else writes what it is read
for within the iteration. A temporary that one block reads before another writes it holds partial
results between iterations: it stays where it is declared. None moves further out.
"""

from dataclasses import dataclass, field

from treadle.expr.scalar import Var, variables, walk
from treadle.ir.analysis import accesses, expressions
from treadle.ir.tensor import Allocate, Block, Buffer, For, If, Load, Stmt, Store, TensorFunction
from treadle.passes.statements import Body, with_body


@dataclass(slots=True)
class _Uses:
    """The loops around the declaration of a temporary, those around all accesses so far, the loops
    that its writers reduce over, and whether it was written, or read before.
    """

    declared: tuple[For, ...]
    loops: tuple[For, ...] | None = None
    carried: set[Var] = field(default_factory=set[Var])
    is_written: bool = False
    is_read_first: bool = False


def sink_allocations(function: TensorFunction) -> TensorFunction:
    """Put the allocations of ``function`` as far in as its blocks permit; for use while there are
    blocks.
    """
    uses: dict[Buffer, _Uses] = {}
    _declare(function.body, (), uses)
    if not uses:
        return function
    _collect(function.body, (), frozenset(), uses)
    homes = {buffer: _home(found) for buffer, found in uses.items() if found.loops is not None}
    return with_body(function, _place(function.body, None, homes))


def _declare(body: Body, loops: tuple[For, ...], uses: dict[Buffer, _Uses]) -> None:
    for s in body:
        if isinstance(s, Allocate):
            uses[s.buffer] = _Uses(loops)
        elif isinstance(s, For):
            _declare(s.body, (*loops, s), uses)
        elif isinstance(s, If):
            _declare((*s.body, *s.orelse), loops, uses)


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
            _note_order(s, uses)
            _collect((*s.init, *s.body), loops, inner, uses, True)
        elif isinstance(s, Store) and s.buffer in uses:
            _add(uses[s.buffer], loops)
            uses[s.buffer].carried |= reduced


def _note_order(block: Block, uses: dict[Buffer, _Uses]) -> None:
    own = accesses((block,))
    written = {a.buffer for a in own if a.kind == "store"}
    for a in own:
        found = uses.get(a.buffer)
        if found is not None and a.buffer not in written and not found.is_written:
            found.is_read_first = True
    for buffer in written & uses.keys():
        uses[buffer].is_written = True


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
    for depth, loop in enumerate(uses.loops or ()):
        carried = loop.var in uses.carried or uses.is_read_first
        # Lanes share one temporary: it has a place for each of them.
        if (carried and depth >= len(uses.declared)) or loop.kind == "vectorized":
            break
        home = loop.var
    return home


def _place(body: Body, inside: Var | None, homes: dict[Buffer, Var | None]) -> Body:
    """The statements with every allocation just before the first statement that uses it, in the
    loop it belongs into.
    """
    return _place_in(body, {buffer for buffer, home in homes.items() if home is inside}, homes)


def _place_in(body: Body, waiting: set[Buffer], homes: dict[Buffer, Var | None]) -> Body:
    """The statements with the allocations that wait for their first use, and with those inside of
    loops.
    """
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, Allocate):
            continue
        used = _buffers((s,)) & waiting
        result.extend(Allocate(buffer) for buffer in sorted(used, key=lambda b: b.name))
        waiting = waiting - used
        if isinstance(s, For):
            s = For(s.var, s.extent, _place(s.body, s.var, homes), s.kind, s.span, s.annotations)
        elif isinstance(s, If):
            # What either branch uses stands before both; the loops inside have their own.
            s = If(
                s.condition,
                _place_in(s.body, set(), homes),
                _place_in(s.orelse, set(), homes),
                s.span,
            )
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
