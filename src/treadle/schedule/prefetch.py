"""Ask for memory before it is read."""

from dataclasses import dataclass

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, minimum, substitute
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access, loads
from treadle.ir.tensor import ZERO, If, Intrinsic, Load, Stmt, TensorFunction
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
        if any(x.kind == "vectorized" for x in (*site.loops, site.node)):
            raise self.refuse(
                function,
                site.node,
                "E0302",
                f"'{self.loop}' runs as lanes of vectors",
                hint="choose a loop around it",
            )
        if buffer not in function.buffers:
            raise self.refuse(
                function,
                buffer,
                "E0322",
                f"'{self.buffer}' is no parameter; what was just written is near already",
            )
        reads = tuple(
            a
            for a in of_buffer(function, buffer, "load")
            if under(a, site.node) and not isinstance(a.stmt, Intrinsic)
        )
        plain = all(_is_plain(a) for a in reads)
        if not reads or not plain:
            raise self.refuse(
                function,
                site.node,
                "E0324",
                f"'{self.loop}' does not read '{self.buffer}'"
                if plain
                else f"where '{self.loop}' reads '{self.buffer}' follows from what is loaded",
            )
        return site, reads

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


def _is_plain(read: Access) -> bool:
    """Whether an address and its conditions are arithmetic on loops."""
    masks = () if read.mask is None else (read.mask,)
    exprs = [over_loops(e, read) for e in (*read.indices, *read.conditions, *masks)]
    return all(e.dtype.lanes == 1 for e in exprs) and not loads(*exprs)
