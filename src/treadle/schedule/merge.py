"""Run sibling nests as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from treadle.base.errors import ScheduleError
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import prove
from treadle.expr.scalar import Expr, Var, eq, substitute
from treadle.ir.analysis import Access, accesses
from treadle.ir.tensor import Allocate, For, Stmt, TensorFunction
from treadle.schedule.dependence import (
    check_blocks_only,
    check_stages,
    is_determined,
    steps,
)
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    LoopSite,
    facts_at,
    locate_loop,
    map_exprs,
    replaced,
    require_plain,
    rescoped,
)
from treadle.schedule.regions import access_region, disjoint

Chain = tuple[For, ...]


@dataclass(frozen=True)
class Merge(Instruction):
    """Make one nest of sibling nests: each iteration runs what theirs ran, in the text's order.

    The loops named stand equally deep in nests that follow each other, and each is all that the
    loop around it runs; the loops around them, up to the statement that the nests share, are merged
    too. Extents are equal, pair by pair. The names of the first nest stay.

    Errors: E0302 a loop is not serial; E0304 the nests are not siblings of one form; E0307 an
    iteration needs what a later one makes, or makes anew what an earlier one gave away; E0310
    statements outside blocks; E0350 a loop is annotated.
    """

    loops: tuple[str, ...]

    def check(self, function: TensorFunction) -> tuple[Chain, ...]:
        """The nests: for each, its loops from the sibling down to the one named."""
        sites = [locate_loop(self, function, name) for name in self.loops]
        if len({id(s.node) for s in sites}) < max(2, len(sites)):
            raise self.refuse(
                function, None, "E0304", "two or more loops are needed, each named once"
            )
        shared = _shared(sites)
        chains = tuple(self._chain(function, s, shared) for s in sites)
        self._check_siblings(function, shared, chains)
        for chain in chains:
            self._check_extents(function, chain, chains[0])
            check_blocks_only(self, function, chain[-1])
        self._check_meaning(function, chains)
        return chains

    def _chain(self, function: TensorFunction, site: LoopSite, shared: int) -> Chain:
        chain: list[For] = []
        for stmt in site.path[shared:]:
            if not isinstance(stmt, For):
                raise self._no_siblings(function, stmt, "a condition stands between the loops")
            chain.append(stmt)
            require_plain(self, function, LoopSite(stmt, site.above))
        for outer, inner in pairwise(chain):
            if len(outer.body) != 1:
                raise self._no_siblings(
                    function, inner, f"'{inner.var}' is not all that '{outer.var}' runs"
                )
        return tuple(chain)

    def _no_siblings(self, function: TensorFunction, node: Stmt, why: str) -> ScheduleError:
        return self.refuse(
            function,
            node,
            "E0304",
            why,
            hint="merge loops at one depth of nests that follow each other",
        )

    def _check_siblings(
        self, function: TensorFunction, shared: int, chains: Sequence[Chain]
    ) -> None:
        above = locate_loop(self, function, self.loops[0]).above[:shared]
        bodies = (function.body,) if not above else _bodies(above[-1])
        body = next(b for b in bodies if any(s is chains[0][0] for s in b))
        order = [s for s in body if not isinstance(s, Allocate)]
        places = [next((p for p, s in enumerate(order) if s is c[0]), -2) for c in chains]
        if places != list(range(places[0], places[0] + len(chains))):
            late = next(
                c for c, (a, b) in zip(chains[1:], pairwise(places), strict=True) if b != a + 1
            )
            raise self._no_siblings(
                function, late[0], f"'{late[0].var}' does not follow the nest before it directly"
            )

    def _check_extents(self, function: TensorFunction, chain: Chain, first: Chain) -> None:
        if len(chain) != len(first):
            raise self._no_siblings(
                function, chain[-1], f"'{chain[-1].var}' is not as deep as '{first[-1].var}'"
            )
        names: dict[Var, Expr] = {}
        facts = facts_at(function, locate_loop(self, function, self.loops[0]).loops)
        for mine, theirs in zip(chain, first, strict=True):
            extent = substitute(mine.extent, names)
            if not prove(eq(extent, theirs.extent), facts):
                raise self.refuse(
                    function,
                    mine,
                    "E0304",
                    f"'{mine.var}' and '{theirs.var}' are not shown to run equally often",
                    notes=(f"the extents are {mine.extent} and {theirs.extent}",),
                )
            names[mine.var] = theirs.var

    def _check_meaning(self, function: TensorFunction, chains: Sequence[Chain]) -> None:
        """What crosses from one nest to another must be complete after one iteration."""
        after = self._merged(function, chains)
        site = locate_loop(self, after, chains[0][-1].var.name)
        merged = (*site.loops, site.node)[-len(chains[0]) :]
        check_stages(self, after, merged, site)
        found = [_inside(function, chain) for chain in chains]
        for p, own in enumerate(found):
            for write in (a for a in own if a.kind == "store"):
                others = [a for q, o in enumerate(found) if q != p for a in o]
                self._check_write(function, chains[p], write, others)

    def _check_write(
        self, function: TensorFunction, chain: Chain, write: Access, others: Sequence[Access]
    ) -> None:
        touching = [a for a in others if a.buffer is write.buffer]
        if not touching:
            return
        block = write.blocks[0]
        again = any(
            a.kind == "load" and a.buffer is write.buffer for a in accesses(block.body)
        ) and not (block.init and any(a.kind == "reduce" for a in block.iters))
        stepped = any(steps(x, block, "reduce") for x in chain)
        boxes = facts_at(function, ())
        clash = any(
            a.kind == "store"
            and not disjoint(access_region(a, (), boxes), access_region(write, (), boxes), boxes)
            for a in touching
        )
        if clash or again or stepped or not is_determined(write, function):
            raise self.refuse(
                function,
                block,
                "E0307",
                f"block '{block.name}' may write elements of '{write.buffer.name}' again after "
                "another nest has used them",
                hint="give the nests loops that step axes of the result only",
            )

    def _merged(self, function: TensorFunction, chains: Sequence[Chain]) -> TensorFunction:
        first, *others = chains
        body = first[-1].body
        for chain in others:
            names = {b.var: a.var for a, b in zip(first, chain, strict=True)}
            body = (*body, *map_exprs(chain[-1].body, lambda e, n=names: substitute(e, n)))
        for loop in reversed(first):
            body = (replace_fields(loop, body=body),)
        return replaced(function, (first[0], body), *((c[0], ()) for c in others))

    def apply(self, function: TensorFunction) -> TensorFunction:
        """One nest in the place of the first."""
        return rescoped(self._merged(function, self.check(function)))


def _shared(sites: Sequence[LoopSite]) -> int:
    """How many statements are around all of the loops."""
    count = 0
    for level in zip(*(s.above for s in sites), strict=False):
        if any(s is not level[0] for s in level):
            break
        count += 1
    return count


def _bodies(stmt: Stmt) -> tuple[tuple[Stmt, ...], ...]:
    return tuple(getattr(stmt, name) for name in ("body", "orelse") if hasattr(stmt, name))


def _inside(function: TensorFunction, chain: Chain) -> list[Access]:
    return [a for a in accesses(function.body) if any(x is chain[0] for x in a.loops)]
