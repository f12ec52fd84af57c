"""Cut a loop at given positions."""

from dataclasses import dataclass
from itertools import pairwise

from treadle.expr.bounds import prove
from treadle.expr.scalar import Expr, as_expr, int_value, minimum
from treadle.expr.simplify import simplify
from treadle.ir.tensor import ZERO, TensorFunction
from treadle.schedule.cut import Piece, cut
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import LoopSite, facts_at, locate_loop, replaced, require_plain


@dataclass(frozen=True)
class LoopPartition(Instruction):
    """Cut a loop at positions: the iterations before each run in a loop of their own.

    ``for i in range(n)`` becomes, for the positions ``(4, 8)``, loops over ``min(4, n)``, the next
    four and the rest, in this order. The first keeps its names; the others run copies of all that
    ``i`` runs, named ``i_1``, ``i_2`` and so on. Every copy of a block has domains of its own, from
    zero. A symbolic extent may be smaller than a position: the loops from there on are empty.

    Errors: E0302 the loop is not serial; E0303 positions that do not increase, or are not inside;
    E0312 the loop is an inner part of an axis; E0350 the loop is annotated; E0352 the first loop
    may not start a reduction.
    """

    loop: str
    positions: tuple[int, ...]

    def check(self, function: TensorFunction) -> LoopSite:
        """The loop."""
        site = locate_loop(self, function, self.loop)
        require_plain(self, function, site)
        end = int_value(site.node.extent)
        bounds = (0, *self.positions, *(() if end is None else (end,)))
        if not self.positions or any(a >= b for a, b in pairwise(bounds)):
            raise self.refuse(
                function,
                site.node,
                "E0303",
                f"{self.positions} are no positions in '{self.loop}'",
                notes=(f"the extent is {site.node.extent}",),
                hint="give positions inside of the loop, in increasing order",
            )
        return site

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loops one after the other."""
        site = self.check(function)
        facts, extent = facts_at(function, site.loops), site.node.extent
        bounds: list[Expr] = [ZERO]
        for position in self.positions:
            inside = prove(extent >= position, facts)
            bounds.append(as_expr(position) if inside else minimum(position, extent))
        bounds.append(extent)
        pieces = [
            Piece(start, simplify(end - start, facts), f"_{number}")
            for number, (start, end) in enumerate(pairwise(bounds))
        ]
        return replaced(function, (site.node, cut(self, function, site, pieces)))
