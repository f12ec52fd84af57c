"""Copies of whole regions at a loop: what its body reads of a buffer, what it writes."""

from dataclasses import dataclass
from math import prod

from treadle.expr.bounds import prove
from treadle.expr.scalar import as_expr, substitute
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access, accesses, names
from treadle.ir.tensor import Allocate, Scope, Stmt, TensorFunction
from treadle.schedule.cache import (
    axis_boxes,
    cache_of,
    check_scope,
    copy_back,
    only_reads,
    read_through,
    renamed_axes,
    sole_store,
    writes_nothing,
)
from treadle.schedule.dependence import in_block, steps
from treadle.schedule.digits import one_to_one
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    LoopSite,
    facts_at,
    locate_block,
    locate_loop,
    replaced,
    rescoped,
    with_buffers,
)
from treadle.schedule.nests import nest_over
from treadle.schedule.regions import Range


def locate_around(
    rule: Instruction, function: TensorFunction, block: str, name: str
) -> tuple[BlockSite, LoopSite, Stmt]:
    """The block, the loop around it, and the statement of the loop's body that holds the block.

    Raises:
        ScheduleError: E0301; E0302 if the loop's iterations are lanes; E0329 if it is not around.
    """
    site = locate_block(rule, function, block)
    loop = locate_loop(rule, function, name)
    if not any(s is loop.node for s in site.above):
        raise rule.refuse(
            function,
            loop.node,
            "E0329",
            f"'{name}' is not around block '{block}'",
            hint="choose a loop around it",
        )
    if any(x.kind == "vectorized" for x in (*loop.loops, loop.node)):
        raise rule.refuse(
            function,
            loop.node,
            "E0302",
            f"iterations of '{name}' are lanes of vectors",
            hint="choose a loop around the vectorized one",
        )
    path = site.path
    child = path[next(p for p, s in enumerate(path) if s is loop.node) + 1]
    return site, loop, child


@dataclass(frozen=True)
class ReadAt(Instruction):
    """Copy the region of a buffer that a block reads in an iteration of ``loop``, as one, and let
    the block read the copy.

    The copy, of ``scope``, is called ``{buffer}_{scope}`` like its block, and is made right before
    the statement of the loop's body that holds the block. The region is the box around all that is
    read; a condition cuts it at the ends of the buffer.

    Errors: E0302 the loop is vectorized; E0320 the block does not only read the buffer; E0322 no
    such scope; E0327 the statement writes the buffer too; E0329 the loop is not around the block.
    """

    block: str
    buffer: str
    loop: str
    scope: Scope

    def check(self, function: TensorFunction) -> tuple[BlockSite, LoopSite, Stmt]:
        """The block, the loop and the statement in it that holds the block."""
        site, loop, child = locate_around(self, function, self.block, self.loop)
        check_scope(self, function, self.scope)
        _, reads = only_reads(self, function, self.block, self.buffer)
        if not writes_nothing(child, reads[0].buffer):
            raise self.refuse(
                function,
                child,
                "E0327",
                f"'{self.buffer}' is written between the copy and what reads it",
                hint="choose a loop further in, between the writer and the reader",
            )
        return site, loop, child

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the copy."""
        site, loop, child = self.check(function)
        _, reads = only_reads(self, function, self.block, self.buffer)
        around = (*loop.loops, loop.node)
        return read_through(function, site, reads, self.scope, child, around)


@dataclass(frozen=True)
class WriteAt(Instruction):
    """Let a block write a buffer of ``scope`` in an iteration of ``loop``, and copy the region that
    it has written there as one.

    The new buffer is ``{buffer}_{scope}``; the block ``{block}_copy`` stands right after the
    statement of the loop's body that holds the block.

    Errors: E0302 the loop is vectorized; E0306 loops around the body step the block's reduction;
    E0320 the block's form; E0322 no such scope; E0323 several writers; E0324 the buffer is read
    before it is copied; E0329 the loop is not around the block; E0361 the region has holes.
    """

    block: str
    loop: str
    scope: Scope

    def check(self, function: TensorFunction) -> tuple[BlockSite, LoopSite, Stmt, Access]:
        """The block, the loop, the statement in it that holds the block, and the block's store."""
        site, loop, child = locate_around(self, function, self.block, self.loop)
        check_scope(self, function, self.scope)
        _, store = sole_store(self, function, self.block)
        for x in (*loop.loops, loop.node):
            if steps(x, site.node, "reduce"):
                raise self.refuse(
                    function,
                    x,
                    "E0306",
                    f"'{x.var}' steps the reduction of block '{self.block}'",
                    notes=("the region is not complete in one iteration",),
                    hint=f'cache_inplace("{self.block}", "{self.loop}") keeps partial results',
                )
        for a in accesses((child,)):
            if a.buffer is store.buffer and not in_block(a, site.node):
                raise self.refuse(
                    function,
                    a.stmt,
                    "E0324",
                    f"'{a.buffer.name}' is read here before it would be copied",
                    hint="choose a loop further in",
                )
        self._check_dense(function, site, loop, store)
        return site, loop, child, store

    def _check_dense(
        self, function: TensorFunction, site: BlockSite, loop: LoopSite, store: Access
    ) -> None:
        facts = facts_at(function, site.loops)
        inner = site.loops[len(loop.loops) + 1 :]
        moving = {x.var: x.extent for x in inner if not steps(x, site.node, "reduce")}
        count = prod(moving.values(), start=as_expr(1))
        size = prod((r.extent for r in self._boxes(function, site, loop)), start=as_expr(1))
        places = [substitute(i, site.bindings) for i in store.indices]
        twisted = any(steps(x, site.node, "spatial") for x in inner if x.var not in moving)
        if (
            twisted
            or not one_to_one(places, moving, facts)
            or not prove(simplify(size - count, facts) <= 0, facts)
        ):
            raise self.refuse(
                function,
                loop.node,
                "E0361",
                f"cannot show that an iteration of '{self.loop}' writes all of a box of "
                f"'{store.buffer.name}'",
                notes=("a copy of the box would overwrite what others have written",),
                hint=f'cache_write("{self.block}", "{self.scope}") copies just what is written',
            )

    def _boxes(
        self, function: TensorFunction, site: BlockSite, loop: LoopSite
    ) -> tuple[Range, ...]:
        spatial = tuple(a for a in site.node.iters if a.kind == "spatial")
        return axis_boxes(function, site, spatial, (*loop.loops, loop.node))

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the copy."""
        site, loop, child, store = self.check(function)
        cache = cache_of(function, store.buffer, self.scope)
        taken = {*names(function), cache.name}
        spatial = tuple(a for a in site.node.iters if a.kind == "spatial")
        iters, new = renamed_axes(spatial, taken, "copy")
        copy = copy_back(function, site, store, cache, store.indices, iters, new)
        boxes = self._boxes(function, site, loop)
        facts = facts_at(function, (*loop.loops, loop.node))
        copies = nest_over(iters, boxes, facts, taken).around(copy)
        block = with_buffers((site.node,), {store.buffer: cache})
        changed = replaced(function, (child, (Allocate(cache), child, *copies)))
        return rescoped(replaced(changed, (site.node, block)))
