"""Ask for memory before it is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Expr, Var, int_value, minimum, substitute
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import Access, flat_index, loads
from treadle.ir.tensor import ZERO, Buffer, For, If, Intrinsic, Load, Stmt, TensorFunction
from treadle.schedule.cache import locate_buffer
from treadle.schedule.dependence import of_buffer, under
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import LoopSite, conjunction, facts_at, locate_loop, replaced
from treadle.schedule.regions import over_loops


@dataclass(frozen=True)
class Prefetch(Instruction):
    """At each iteration of a loop, ask for what the loop will read from a parameter ``distance``
    iterations later.

    The hint stands first in the loop's body, once for each place that is read there, at the first
    step of the loops inside. Near the end of the loop it asks for the last iteration's elements, so
    that every address lies in the buffer; where the read is under a condition, so is the hint. It
    changes no result. Let it be the last instruction on the loop: it stands outside of any block.

    Errors: E0301 no such loop or buffer; E0302 the loop is vectorized, or in one that is; E0322 the
    buffer is no parameter; E0324 the loop does not read it, or where depends on what is loaded;
    E0303 the distance is not positive.
    """

    buffer: str
    loop: str
    distance: int

    def check(self, function: TensorFunction) -> tuple[LoopSite, tuple[Access, ...]]:
        """The loop and its reads of the buffer."""
        site = locate_loop(self, function, self.loop)
        buffer = locate_buffer(self, function, self.buffer)
        if self.distance < 1:
            raise self.refuse(
                function,
                site.node,
                "E0303",
                f"{self.distance} is no distance",
                hint="give the number of iterations to look ahead, at least 1",
            )
        return site, _reads(self, function, site, buffer)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the hints."""
        site, reads = self.check(function)
        hints = dict.fromkeys(self._hint(function, site, a) for a in reads)
        added: list[Stmt] = []
        for address, condition in hints:
            fetch = Intrinsic("prefetch", (address,))
            added.append(fetch if condition is None else If(condition, (fetch,)))
        loop = replace_fields(site.node, body=(*added, *site.node.body))
        return replaced(function, (site.node, (loop,)))

    def _hint(
        self, function: TensorFunction, site: LoopSite, read: Access
    ) -> tuple[Expr, Expr | None]:
        """The address, and the condition under which the element is read."""
        loop = site.node
        facts = facts_at(function, (*site.loops, loop))
        inner = read.loops[len(site.loops) + 1 :]
        later: dict[Var, Expr] = {x.var: ZERO for x in inner}
        later[loop.var] = minimum(loop.var + self.distance, loop.extent - 1)

        def there(e: Expr) -> Expr:
            return simplify(substitute(over_loops(e, read), later), facts)

        masks = () if read.mask is None else (read.mask,)
        conditions = [there(c) for c in (*read.conditions, *masks)]
        open_ = [c for c in conditions if getattr(c, "value", None) is not True]
        address = Load(read.buffer, tuple(there(i) for i in read.indices))
        return address, conjunction(open_)


class Ahead(NamedTuple):
    """What the next iteration of a loop reads: where the part of this iteration begins, how many
    elements further the next one lies, and the loops that step from the loop to the hints.
    """

    start: Load
    length: int
    steps: tuple[For, ...]


@dataclass(frozen=True)
class PrefetchNext(Instruction):
    """While an iteration of ``loop`` runs, ask for the part of a parameter that the next one reads:
    ``lines`` lines of the cache at each step of ``at``, a loop inside, until the part is done.

    The parts must lie one behind the other, as the panels of a packed operand do. So what comes
    from far memory arrives evenly while there is other work. The hint stands first in the body of
    ``at`` and may point behind the end of the buffer in the last iteration, which no machine minds.
    It changes no result. Let it be the last instruction on these loops.

    Errors: E0301 no such loop or buffer; E0302 one of the loops is vectorized, or in one that is;
    E0303 the number of lines is not positive; E0322 the buffer is no parameter; E0324 the loop does
    not read it, where depends on what is loaded, or the parts do not lie one behind the other;
    E0329 ``loop`` is not around ``at``.
    """

    buffer: str
    loop: str
    at: str
    lines: int = 1

    def check(self, function: TensorFunction) -> Ahead:
        """What the next iteration reads."""
        site = locate_loop(self, function, self.loop)
        at = locate_loop(self, function, self.at)
        buffer = locate_buffer(self, function, self.buffer)
        if self.lines < 1:
            raise self.refuse(
                function,
                at.node,
                "E0303",
                f"{self.lines} is no number of lines",
                hint="give the number of cache lines to ask for at each step, at least 1",
            )
        if site.node not in at.loops:
            raise self.refuse(
                function, at.node, "E0329", f"'{self.loop}' is not around '{self.at}'"
            )
        around = (*site.loops, site.node)
        reads = _reads(self, function, at, buffer)
        first = _at_start(reads[0], around)
        start = Load(buffer, tuple(simplify(i, facts_at(function, around)) for i in first))
        length = _stride(start, site.node.var)
        facts = facts_at(function, reads[0].loops)
        if length is None or not all(_within(a, start, length, facts) for a in reads):
            raise self.refuse(
                function,
                site.node,
                "E0324",
                f"what '{self.loop}' reads of '{self.buffer}' does not lie part behind part",
                hint="pack the operand in the order of the loops first",
            )
        return Ahead(start, length, (*at.loops[len(site.loops) + 1 :], at.node))

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the hints."""
        start, length, steps = self.check(function)
        at = steps[-1]
        line = max(_LINE // start.buffer.dtype.bytes, 1)
        step: Expr = ZERO
        for loop in steps:
            step = step * loop.extent + loop.var
        done = simplify(step * (line * self.lines))
        offsets = [simplify(done + (length + line * i)) for i in range(self.lines)]
        hints: tuple[Stmt, ...] = tuple(Intrinsic("prefetch", (start, x)) for x in offsets)
        extents = [int_value(x.extent) for x in steps]
        whole = None if None in extents else prod(x for x in extents if x is not None)
        if whole is None or whole * line * self.lines > 2 * length:
            hints = (If(done < length, hints),)
        return replaced(function, (at, (replace_fields(at, body=(*hints, *at.body)),)))


_LINE = 64
"""Bytes of a line of the cache."""


def _at_start(read: Access, around: Sequence[For]) -> tuple[Expr, ...]:
    """Where a read is at the first steps of the loops that are not ``around`` it."""
    first: dict[Var, Expr] = {x.var: ZERO for x in read.loops if x not in around}
    return tuple(substitute(over_loops(i, read), first) for i in read.indices)


def _stride(start: Load, loop: Var) -> int | None:
    """How many elements further the next iteration of a loop begins."""
    split = split_linear(simplify(flat_index(start.buffer, start.indices)), loop)
    return None if split is None else int_value(split[0])


def _within(read: Access, start: Load, length: int, facts: Facts) -> bool:
    """Whether a read lies among the ``length`` elements from ``start`` on."""
    for loop in read.loops:
        facts = facts.with_range(loop.var, loop.extent)
    here = flat_index(read.buffer, tuple(over_loops(i, read) for i in read.indices))
    offset = simplify(here - flat_index(start.buffer, start.indices), facts)
    return prove(offset >= 0, facts) and prove(offset < length, facts)


def _reads(
    instruction: Instruction, function: TensorFunction, site: LoopSite, buffer: Buffer
) -> tuple[Access, ...]:
    """The reads of a parameter in a loop, by arithmetic on loops alone."""
    name = site.node.var.name
    if any(x.kind == "vectorized" for x in (*site.loops, site.node)):
        raise instruction.refuse(
            function,
            site.node,
            "E0302",
            f"'{name}' runs as lanes of vectors",
            hint="choose a loop around it",
        )
    if buffer not in function.buffers:
        raise instruction.refuse(
            function,
            buffer,
            "E0322",
            f"'{buffer.name}' is no parameter; what was just written is near already",
        )
    reads = tuple(
        a
        for a in of_buffer(function, buffer, "load")
        if under(a, site.node) and not isinstance(a.stmt, Intrinsic)
    )
    plain = all(_is_plain(a) for a in reads)
    if not reads or not plain:
        raise instruction.refuse(
            function,
            site.node,
            "E0324",
            f"'{name}' does not read '{buffer.name}'"
            if plain
            else f"where '{name}' reads '{buffer.name}' follows from what is loaded",
        )
    return reads


def _is_plain(read: Access) -> bool:
    """Whether an address and its conditions are arithmetic on loops."""
    masks = () if read.mask is None else (read.mask,)
    exprs = [over_loops(e, read) for e in (*read.indices, *read.conditions, *masks)]
    return all(e.dtype.lanes == 1 for e in exprs) and not loads(*exprs)
