"""Primitives on reductions: the start in a block of its own, and partial results along one loop."""

from dataclasses import dataclass

from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import prove
from treadle.expr.scalar import Expr, Var, substitute
from treadle.ir.analysis import accesses, fresh_name, names
from treadle.ir.loop_builder import combined, guarded, identity
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    If,
    IterVar,
    Load,
    Store,
    TensorFunction,
)
from treadle.schedule.cache import axis_boxes, block_name, own_nest, renamed_axes
from treadle.schedule.dependence import (
    Reduction,
    in_block,
    is_tail,
    of_buffer,
    only_tails,
    reduction_of,
    steps,
)
from treadle.schedule.digits import one_to_one
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    Body,
    LoopSite,
    blocks_below,
    conjunction,
    conjuncts,
    facts_at,
    locate_block,
    locate_loop,
    map_exprs,
    replaced,
    rescoped,
    uses,
)
from treadle.schedule.nests import inside_conditions, mirrored, nest_over
from treadle.schedule.regions import whole


@dataclass(frozen=True)
class DecomposeReduction(Instruction):
    """Start a reduction in a block ``{block}_init`` of its own, in copies of the loops that step
    its result, before ``loop``.

    Errors: E0311 the loops from ``loop`` on visit a result twice; E0320 a condition; E0321 not a
    reduction with a start; E0323 other writers; E0327 the start reads what the loop writes; E0329
    ``loop`` is not around the block, or a loop around it steps the reduction.
    """

    block: str
    loop: str

    def check(self, function: TensorFunction) -> tuple[BlockSite, LoopSite]:
        """The block and the loop."""
        site = locate_block(self, function, self.block)
        loop = locate_loop(self, function, self.loop)
        block = site.node
        if not block.init or not any(a.kind == "reduce" for a in block.iters):
            raise self.refuse(
                function, block, "E0321", f"block '{self.block}' is not a reduction with a start"
            )
        if not any(s is loop.node for s in site.above):
            raise self.refuse(
                function, loop.node, "E0329", f"'{self.loop}' is not around block '{self.block}'"
            )
        for outer in loop.loops:
            if steps(outer, block, "reduce"):
                raise self.refuse(
                    function,
                    loop.node,
                    "E0329",
                    f"'{outer.var}', around '{self.loop}', steps the reduction",
                    hint=f'decompose_reduction("{self.block}", "{outer.var}") or further out',
                )
        if not only_tails(function, site):
            raise self.refuse(
                function, block, "E0320", f"block '{self.block}' runs under a condition of its own"
            )
        self._check_once(function, site, loop)
        self._check_accesses(function, site, loop)
        return site, loop

    def _check_once(self, function: TensorFunction, site: BlockSite, loop: LoopSite) -> None:
        inner = site.loops[len(loop.loops) :]
        facts = facts_at(function, site.loops)
        for x in inner:
            if steps(x, site.node, "reduce") and steps(x, site.node, "spatial"):
                raise self.refuse(
                    function, x, "E0311", f"'{x.var}' steps an axis and a reduction at once"
                )
        moving = {x.var: x.extent for x in inner if not steps(x, site.node, "reduce")}
        bindings = [a.binding for a in site.node.iters if a.kind == "spatial"]
        if not one_to_one(bindings, moving, facts):
            raise self.refuse(
                function,
                loop.node,
                "E0311",
                f"cannot show that '{self.loop}' and the loops in it make each result once",
                hint="choose a loop further in",
            )

    def _check_accesses(self, function: TensorFunction, site: BlockSite, loop: LoopSite) -> None:
        inside = accesses((loop.node,))
        written = {a.buffer for a in inside if a.kind == "store"}
        own = {a.buffer for a in accesses(site.node.init) if a.kind == "store"}
        for a in accesses(function.body):
            if a.buffer in own and a.kind == "store" and not in_block(a, site.node):
                raise self.refuse(
                    function, a.stmt, "E0323", f"'{a.buffer.name}' has another writer"
                )
        for a in accesses(site.node.init):
            if a.kind == "load" and a.buffer in written:
                raise self.refuse(
                    function,
                    site.node,
                    "E0327",
                    f"the start reads '{a.buffer.name}', which '{self.loop}' writes",
                )

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the start apart."""
        site, loop = self.check(function)
        taken = set(names(function))
        spatial = tuple(a for a in site.node.iters if a.kind == "spatial")
        iters, new = renamed_axes(spatial, taken, "init")
        start = map_exprs(site.node.init, lambda e: substitute(e, new))
        block = Block(block_name(function, f"{self.block}_init"), iters, start)
        nest = mirrored(function, site, len(loop.loops), iters, "init", taken)
        if nest is None:
            raise InternalError(
                f"loops of block '{self.block}' step an axis and a reduction, though that was "
                "checked"
            )
        changed = replaced(function, (site.node, (replace_fields(site.node, init=()),)))
        inner = locate_loop(self, changed, self.loop).node
        return rescoped(replaced(changed, (inner, (*nest.around(block), inner))))


@dataclass(frozen=True)
class RFactor(Instruction):
    """Reduce along ``loop`` last: partial results first, one for each of its iterations, then their
    combination.

    The block ``{block}_rf`` stays in its loops and writes ``{buffer}_rf``, whose first dimension is
    ``loop``, which is an axis of the result there; the block itself combines those, right after.
    The combination must be associative (add, mul, min, max, and, or). The order of a floating-point
    sum changes, and with it its rounding. A condition on loops that step the reduction goes into
    the term, which is neutral where it does not hold.

    Errors: E0302 the loop is not serial; E0306 the loop steps an axis of the result; E0320 a
    condition; E0323 other writers; E0329 the loop is shared with other blocks; E0332 the
    combination is not known to be associative.
    """

    loop: str

    @classmethod
    def name(cls) -> str:
        """One word in a trace."""
        return "rfactor"

    def check(self, function: TensorFunction) -> tuple[BlockSite, LoopSite, Reduction]:
        """The block, the loop and the reduction."""
        loop = locate_loop(self, function, self.loop)
        below = blocks_below(function, loop.node)
        if len(below) != 1:
            raise self.refuse(
                function, loop.node, "E0329", f"'{self.loop}' does not hold one block alone"
            )
        site = below[0]
        block = site.node
        if loop.node.kind != "serial":
            raise self.refuse(
                function, loop.node, "E0302", f"'{self.loop}' is already {loop.node.kind}"
            )
        if not steps(loop.node, block, "reduce"):
            raise self.refuse(
                function, loop.node, "E0306", f"'{self.loop}' does not step a reduction"
            )
        found = reduction_of(block)
        if found is None or found.init is None:
            raise self.refuse(
                function,
                block,
                "E0332",
                f"block '{block.name}' is no associative reduction with a start",
                notes=("add, mul, min, max, and, or are associative",),
            )
        if any(isinstance(s, If) for s in site.above) or not all(
            is_tail(block, c, facts_at(function, site.loops)) or _skips_steps(site, c)
            for c in conjuncts(block.where)
        ):
            raise self.refuse(
                function, block, "E0320", f"block '{block.name}' runs under a condition of its own"
            )
        if any(not in_block(a, block) for a in of_buffer(function, found.buffer, "store")):
            raise self.refuse(function, block, "E0323", f"'{found.buffer.name}' has other writers")
        self._check_loops(function, site)
        return site, loop, found

    def _check_loops(self, function: TensorFunction, site: BlockSite) -> None:
        _, around = own_nest(function, site)
        for x in site.loops:
            if not steps(x, site.node, "reduce"):
                continue
            if steps(x, site.node, "spatial"):
                raise self.refuse(
                    function, x, "E0306", f"'{x.var}' steps an axis of the result too"
                )
            if any(x is y for y in around):
                raise self.refuse(
                    function,
                    x,
                    "E0329",
                    f"'{x.var}', which steps the reduction, holds other blocks too",
                )

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with partial results."""
        site, loop, found = self.check(function)
        taken = set(names(function))
        extent = loop.node.extent
        partial = Buffer(
            fresh_name(f"{found.buffer.name}_rf", taken),
            (extent, *found.buffer.shape),
            found.buffer.dtype,
        )
        taken.add(partial.name)
        nest, around = own_nest(function, site)
        factored = self._factored(function, site, loop, found, partial, taken)
        final = self._final(function, site, found, partial, taken, around)
        changed = replaced(function, (nest, (Allocate(partial), nest, *final)))
        return rescoped(replaced(changed, (site.node, (factored,))))

    def _factored(
        self,
        function: TensorFunction,
        site: BlockSite,
        loop: LoopSite,
        found: Reduction,
        partial: Buffer,
        taken: set[str],
    ) -> Block:
        facts = facts_at(function, site.loops)
        lane = _axis(f"v_{self.loop}", loop.node, "spatial", taken)
        others = [x for x in site.loops if x is not loop.node and steps(x, site.node, "reduce")]
        rest = tuple(_axis(f"v_{x.var.name}", x, "reduce", taken) for x in others)
        over = {a.binding: a.var for a in (lane, *rest) if isinstance(a.binding, Var)}
        spatial = tuple(a for a in site.node.iters if a.kind == "spatial")
        reduced = tuple(a for a in site.node.iters if a.kind == "reduce")
        values = {a.var: substitute(a.binding, over) for a in reduced}
        term = substitute(found.term, values)
        start = identity(found.combine, partial.dtype)
        for claim in self._guards(function, site, reduced):
            term = guarded(substitute(claim, over), term, start)
        indices = (lane.var, *found.indices)
        value = combined(found.combine, Load(partial, indices), term) if rest else term
        conditions = inside_conditions(spatial, [a.binding for a in spatial], facts)
        return Block(
            block_name(function, f"{site.node.name}_rf"),
            (lane, *spatial, *rest),
            (Store(partial, indices, value),),
            (Store(partial, indices, start),) if rest else (),
            conjunction(conditions),
            site.node.span,
        )

    def _guards(
        self, function: TensorFunction, site: BlockSite, reduced: tuple[IterVar, ...]
    ) -> tuple[Expr, ...]:
        """What must hold for a step to count: its axes are in their domains."""
        facts = facts_at(function, site.loops)
        if only_tails(function, site):
            inside = (axis.binding < axis.extent for axis in reduced)
            return tuple(c for c in inside if not prove(c, facts))
        # Where that is not what the condition is seen to say, it says so itself.
        return tuple(c for c in conjuncts(site.node.where) if _skips_steps(site, c))

    def _final(
        self,
        function: TensorFunction,
        site: BlockSite,
        found: Reduction,
        partial: Buffer,
        taken: set[str],
        around: tuple[For, ...],
    ) -> Body:
        spatial = tuple(a for a in site.node.iters if a.kind == "spatial")
        boxes = axis_boxes(function, site, spatial, around)
        iters, new = renamed_axes(spatial, taken, "rf")
        lane = IterVar(
            Var(fresh_name(f"v_{self.loop}_rf", taken)),
            partial.shape[0],
            "reduce",
            partial.shape[0],
        )
        taken.add(lane.var.name)
        indices = tuple(substitute(i, new) for i in found.indices)
        init = None if found.init is None else substitute(found.init, new)
        assert init is not None
        whole_value = combined(
            found.combine, Load(found.buffer, indices), Load(partial, (lane.var, *indices))
        )
        block = Block(
            site.node.name,
            (*iters, lane),
            (Store(found.buffer, indices, whole_value),),
            (Store(found.buffer, indices, init),),
            None,
            site.node.span,
        )
        facts = facts_at(function, around)
        return nest_over(block.iters, (*boxes, whole(lane.extent)), facts, taken).around(block)


def _skips_steps(site: BlockSite, claim: Expr) -> bool:
    """Whether a condition is one on loops that step the reduction alone."""
    own = [x for x in site.loops if uses(claim, (x.var,))]
    return bool(own) and all(
        steps(x, site.node, "reduce") and not steps(x, site.node, "spatial") for x in own
    )


def _axis(hint: str, loop: For, kind: str, taken: set[str]) -> IterVar:
    var = Var(fresh_name(hint, taken))
    taken.add(var.name)
    return IterVar(var, loop.extent, kind, loop.var)  # type: ignore[arg-type]
