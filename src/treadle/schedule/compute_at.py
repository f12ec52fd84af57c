"""Moving blocks: a producer to where a loop needs it, a consumer to where a loop has made what it
reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Apply, Expr, Var, eq, substitute
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access, accesses, names
from treadle.ir.tensor import (
    ONE,
    ZERO,
    Block,
    Buffer,
    For,
    LoopKind,
    TensorFunction,
)
from treadle.schedule.bindings import binding_state
from treadle.schedule.dependence import (
    axes,
    check_order_kept,
    check_ready,
    in_block,
    is_determined,
    is_internal,
    of_buffer,
    only_tails,
    steps,
    under,
)
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    LoopSite,
    block_sites,
    facts_at,
    locate_block,
    locate_loop,
    replaced,
    rescoped,
    tidied,
    uses,
)
from treadle.schedule.nests import Loops, Nest, inside_conditions, mirrored_loops, nest_over
from treadle.schedule.regions import Range, Region, access_region, contains, union, whole
from treadle.schedule.tile_reads import read_from_tile


def axis_ranges(block: Block, indices: Sequence[Expr], region: Region) -> tuple[Range, ...]:
    """What the axes of a block must run over so that stores at ``indices`` fill ``region``; all
    where that is unknown.
    """
    found: dict[Var, Range] = {}
    for index, wanted in zip(indices, region, strict=True):
        if isinstance(index, Var):
            found[index] = wanted
        elif isinstance(index, Apply) and index.fn == "floordiv" and isinstance(index.args[0], Var):
            tile = index.args[1]
            found.setdefault(
                index.args[0], Range(simplify(wanted.low * tile), simplify(wanted.extent * tile))
            )
    return tuple(
        found.get(axis.var, whole(axis.extent)) if axis.kind == "spatial" else whole(axis.extent)
        for axis in block.iters
    )


def _producer_store(
    rule: Instruction, function: TensorFunction, site: BlockSite, *, alone: bool = True
) -> Access:
    """The store of a block that may be moved: it fills one buffer, the same way every time; with
    ``alone``, nothing else writes that.

    Raises:
        ScheduleError: E0320 or E0323.
    """
    block = site.node
    stores = [a for a in accesses((block,)) if a.kind == "store"]
    buffers = {a.buffer for a in stores}
    if len(buffers) != 1 or not only_tails(function, site) or not stores or stores[-1].lets:
        raise rule.refuse(
            function,
            block,
            "E0320",
            f"block '{block.name}' does not write one buffer at every point of its axes",
        )
    if len({a.indices for a in stores}) != 1 or not is_determined(stores[-1], function):
        raise rule.refuse(
            function,
            block,
            "E0320",
            f"block '{block.name}' writes more than one element at a point, or one at many",
        )
    buffer = stores[0].buffer
    own = {a.indices for a in accesses((block,)) if a.kind == "load" and a.buffer is buffer}
    if own - {stores[-1].indices} or (own and not block.init):
        raise rule.refuse(
            function,
            block,
            "E0320",
            f"block '{block.name}' goes on with what '{buffer.name}' already holds",
            hint="move the block before decompose_reduction",
        )
    loops = [loop.var for loop in site.loops]
    inner = [block.body, block.init]
    if any(uses(e, loops) for a in accesses((*inner[0], *inner[1])) for e in a.indices):
        raise rule.refuse(
            function, block, "E0320", f"block '{block.name}' uses loops around it directly"
        )
    if alone and any(not in_block(a, block) for a in of_buffer(function, buffer, "store")):
        raise rule.refuse(function, block, "E0323", f"'{buffer.name}' has other writers")
    return stores[-1]


def _distinct_place(
    rule: Instruction, function: TensorFunction, site: BlockSite, loop: LoopSite
) -> None:
    if any(s is loop.node for s in site.above):
        raise rule.refuse(
            function,
            loop.node,
            "E0329",
            f"block '{site.node.name}' already stands in loop '{loop.node.var}'",
        )


@dataclass(frozen=True)
class ComputeAt(Instruction):
    """Compute a producer inside a loop: at each iteration just what the consumers there read.

    The block gets new loops over the box that is read, named after its axes, and stands before the
    first consumer. Boxes that reach over the buffer are cut by a condition. Elements that several
    iterations read are computed again. A reduction is done as a whole, in the order of its axes.

    Errors: E0320 the block's form; E0322 the buffer is a parameter; E0323 several writers; E0324
    consumers outside the loop; E0327 what it reads changes meanwhile; E0329 the block stands in the
    loop already.
    """

    block: str
    loop: str

    def check(self, function: TensorFunction) -> tuple[BlockSite, LoopSite, Access]:
        """The block, the loop and the block's store."""
        site = locate_block(self, function, self.block)
        loop = locate_loop(self, function, self.loop)
        _distinct_place(self, function, site, loop)
        store = _producer_store(self, function, site)
        if not is_internal(function, store.buffer):
            raise self.refuse(
                function,
                site.node,
                "E0322",
                f"'{store.buffer.name}' is a parameter; all of it is wanted",
                hint="use reverse_compute_at on the blocks that run after it",
            )
        reads = self._reads(function, site, store.buffer)
        outside = next((a for a in reads if not under(a, loop.node)), None)
        if outside is not None or not reads:
            node = site.node if outside is None else outside.stmt
            raise self.refuse(
                function,
                node,
                "E0324",
                f"'{store.buffer.name}' is not read in loop '{self.loop}' only",
                hint="choose a loop around all blocks that read it",
            )
        return site, loop, store

    def _reads(self, function: TensorFunction, site: BlockSite, buffer: Buffer) -> list[Access]:
        return [a for a in of_buffer(function, buffer, "load") if not in_block(a, site.node)]

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the block moved."""
        site, loop, store = self.check(function)
        reads = self._reads(function, site, store.buffer)
        around = (*loop.loops, loop.node)
        facts = facts_at(function, around)
        region = union(
            (access_region(a, (x.var for x in around), facts) for a in reads), store.buffer, facts
        )
        self._check_common(function, site, loop, region, facts)
        ranges = axis_ranges(site.node, store.indices, region)
        nest = nest_over(site.node.iters, ranges, facts, set(names(function)))
        first = _first_reader(loop.node, store.buffer)
        body = loop.node.body
        moved = replace_fields(
            loop.node, body=(*body[:first], *nest.around(site.node), *body[first:])
        )
        after = replaced(function, (site.node, ()), (loop.node, (moved,)))
        check_ready(self, function, site.node, after, (self.block,))
        return rescoped(after)

    def _check_common(
        self,
        function: TensorFunction,
        site: BlockSite,
        loop: LoopSite,
        region: Region,
        facts: Facts,
    ) -> None:
        """In loops that both stand in already, the block must not be asked for more than it
        computed there.
        """
        common = [x for x, y in zip(site.loops, loop.loops, strict=False) if x is y]
        write = next(
            a for a in accesses(function.body) if a.kind == "store" and in_block(a, site.node)
        )
        if common and not contains(
            access_region(write, (x.var for x in common), facts_at(function, site.loops)),
            region,
            write.buffer,
            facts,
        ):
            raise self.refuse(
                function,
                site.node,
                "E0327",
                f"cannot show that loop '{self.loop}' reads only what the same iteration of "
                f"'{common[-1].var}' writes",
            )


def _first_reader(loop: For, buffer: Buffer) -> int:
    for position, stmt in enumerate(loop.body):
        if any(a.kind == "load" and a.buffer is buffer for a in accesses((stmt,))):
            return position
    return len(loop.body)


@dataclass(frozen=True)
class ReverseComputeAt(Instruction):
    """Run a consumer at the end of a loop's body, on what the loop has just made.

    The consumer gets loops like the producer's inside the loop (extents and kinds; those that step
    a reduction left out), so that it walks the same tile. Where the loop stands in a loop that
    steps the producer's reduction, or that writes the same elements every time, the consumer runs
    at the last step of that. Axes that the producer's buffer does not have run over their whole
    domain. Where the producer only copies a tile of the loop's body, as ``cache_inplace`` leaves
    it, the consumer reads the tile, and what nobody else reads is not copied.

    Errors: E0320 the consumer's form; E0323 no producer in the loop, or several writers; E0324 what
    it writes is used elsewhere; E0326 the indices of its load; E0327 an operand is not ready there;
    E0329 the block stands in the loop already.
    """

    block: str
    loop: str

    def check(self, function: TensorFunction) -> tuple[BlockSite, LoopSite, BlockSite, Access]:
        """The consumer, the loop, the producer and its store."""
        site = locate_block(self, function, self.block)
        loop = locate_loop(self, function, self.loop)
        _distinct_place(self, function, site, loop)
        _producer_store(self, function, site, alone=False)
        producer, store = self._producer(function, site, loop)
        if not only_tails(function, producer):
            raise self.refuse(
                function,
                producer.node,
                "E0328",
                f"block '{producer.node.name}' runs under a condition of its own",
            )
        self._check_last_writer(function, producer, store)
        check_order_kept(self, function, site)
        return site, loop, producer, store

    def _check_last_writer(
        self, function: TensorFunction, producer: BlockSite, store: Access
    ) -> None:
        """All that other blocks write to the producer's buffer, it must write too, as a reduction
        goes over what was started elsewhere.
        """
        facts = facts_at(function, ())
        own = access_region(store, (), facts)
        for other in of_buffer(function, store.buffer, "store"):
            if in_block(other, producer.node):
                continue
            region = access_region(other, (), facts)
            if (
                not contains(own, region, store.buffer, facts)
                or not binding_state(function, producer).covering
            ):
                raise self.refuse(
                    function,
                    other.stmt,
                    "E0323",
                    f"'{store.buffer.name}' has other writers than block '{producer.node.name}'",
                    notes=("what they write would not be read",),
                )

    def _producer(
        self, function: TensorFunction, site: BlockSite, loop: LoopSite
    ) -> tuple[BlockSite, Access]:
        read = {a.buffer for a in accesses((site.node,)) if a.kind == "load"}
        inside = [s for s in block_sites(function) if any(x is loop.node for x in s.above)]
        for candidate in reversed(inside):
            for store in (
                a
                for a in accesses(function.body)
                if a.kind == "store" and in_block(a, candidate.node)
            ):
                if store.buffer in read:
                    return candidate, store
        raise self.refuse(
            function,
            loop.node,
            "E0323",
            f"loop '{self.loop}' writes nothing that block '{self.block}' reads",
            hint="choose a loop around the block that writes it",
        )

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the block moved."""
        site, loop, producer, store = self.check(function)
        point = self._point(function, site, producer, store)
        nest = self._nest(function, site, loop, producer, point)
        last = self._last_steps(function, site, loop, producer)
        nest = Nest(nest.loops, nest.bindings, (*last, *nest.conditions))
        moved = replace_fields(loop.node, body=(*loop.node.body, *nest.around(site.node)))
        after = replaced(function, (site.node, ()), (loop.node, (moved,)))
        check_ready(self, function, site.node, after, (self.block,))
        after = rescoped(after)
        return read_from_tile(self, after, self.block, self.loop, producer.node.name)

    def _point(
        self, function: TensorFunction, site: BlockSite, producer: BlockSite, store: Access
    ) -> dict[Var, Expr]:
        """The axes of the consumer that follow from the element just stored, over the producer's
        loops.
        """
        if any(uses(i, axes(producer.node, "reduce")) for i in store.indices):
            raise self.refuse(
                function,
                producer.node,
                "E0326",
                f"block '{producer.node.name}' stores where a step of its own says",
            )
        loads = {
            a.indices
            for a in accesses((site.node,))
            if a.kind == "load" and a.buffer is store.buffer
        }
        own = {axis.var for axis in site.node.iters}
        indices = next(iter(loads))
        point: dict[Var, Expr] = {}
        for index, stored in zip(indices, store.indices, strict=True):
            if index is ZERO:
                continue
            if index not in own or index in point or not isinstance(index, Var):
                point.clear()
                break
            point[index] = substitute(stored, producer.bindings)
        if len(loads) > 1 or (not point and any(i is not ZERO for i in indices)):
            raise self.refuse(
                function,
                site.node,
                "E0326",
                f"block '{self.block}' does not read '{store.buffer.name}' at its axes",
                hint="only an elementwise consumer, or one that broadcasts, can follow",
            )
        return point

    def _nest(
        self,
        function: TensorFunction,
        site: BlockSite,
        loop: LoopSite,
        producer: BlockSite,
        point: dict[Var, Expr],
    ) -> Nest:
        taken = set(names(function))
        facts = facts_at(function, (*loop.loops, loop.node))
        inner = producer.loops[len(loop.loops) + 1 :]
        reduced = {a.var for a in site.node.iters if a.kind == "reduce"}
        for old in inner:
            stepping = any(uses(e, (old.var,)) for e in point.values())
            if stepping and steps(old, producer.node, "reduce"):
                raise self.refuse(
                    function,
                    old,
                    "E0327",
                    f"'{old.var}' steps an axis and a reduction of '{producer.node.name}' at once",
                )
        renamed, copies = mirrored_loops(inner, tuple(point.values()), self.block, taken)
        carried = [
            renamed[x] for v in reduced if v in point for x in renamed if uses(point[v], (x,))
        ]
        kinds: dict[Var, LoopKind] = dict.fromkeys(carried, "serial")
        loops: Loops = tuple((v, e, kinds.get(v, kind)) for v, e, kind in copies)
        for var, extent, _ in loops:
            facts = facts.with_range(var, extent)
        self._check_reduced(function, site, inner, loop, point)
        rest = [axis for axis in site.node.iters if axis.var not in point]
        added = nest_over(rest, [whole(axis.extent) for axis in rest], facts, taken)
        for var, extent, _ in added.loops:
            facts = facts.with_range(var, extent)
        bindings = dict(zip((axis.var for axis in rest), added.bindings, strict=True))
        bindings |= {v: tidied(substitute(e, renamed), facts) for v, e in point.items()}
        ordered = tuple(bindings[axis.var] for axis in site.node.iters)
        self._check_steps_in_order(
            function, site, ordered, [var for var, _, _ in (*loops, *added.loops)]
        )
        conditions = inside_conditions(site.node.iters, ordered, facts)
        return Nest((*loops, *added.loops), ordered, conditions)

    def _check_steps_in_order(
        self,
        function: TensorFunction,
        site: BlockSite,
        bindings: Sequence[Expr],
        order: Sequence[Var],
    ) -> None:
        """A reduction over several axes must step them in their own order."""
        pairs = zip(site.node.iters, bindings, strict=True)
        places = [
            order.index(b)
            for a, b in pairs
            if a.kind == "reduce" and isinstance(b, Var) and b in order
        ]
        if places != sorted(places):
            raise self.refuse(
                function,
                site.node,
                "E0308",
                f"the steps of the reduction in block '{self.block}' would change their order",
            )

    def _check_reduced(
        self,
        function: TensorFunction,
        site: BlockSite,
        inner: Sequence[For],
        loop: LoopSite,
        point: dict[Var, Expr],
    ) -> None:
        """A reduction of the consumer must find all that it reduces in one iteration, in order."""
        facts = facts_at(function, (*loop.loops, loop.node, *inner))
        for axis in site.node.iters:
            if axis.kind != "reduce" or axis.var not in point:
                continue
            running = [x for x in inner if uses(point[axis.var], (x.var,))]
            whole_axis = len(running) == 1 and point[axis.var] is running[0].var
            if not whole_axis or not prove(eq(running[0].extent, axis.extent), facts):
                raise self.refuse(
                    function,
                    site.node,
                    "E0327",
                    f"loop '{self.loop}' makes only a part of what block '{self.block}' reduces",
                    hint="choose a loop further out",
                )

    def _last_steps(
        self, function: TensorFunction, site: BlockSite, loop: LoopSite, producer: BlockSite
    ) -> tuple[Expr, ...]:
        common = [x for x in site.loops if any(x is y for y in loop.loops)]
        around = [x for x in (*loop.loops, loop.node) if not any(x is y for y in common)]
        # What writes the same elements at every iteration has not written them before the last.
        stepping = [
            x
            for x in around
            if steps(x, producer.node, "reduce")
            or (x.kind in ("serial", "unrolled") and not steps(x, producer.node, "spatial"))
        ]
        for x in stepping:
            if steps(x, producer.node, "spatial"):
                raise self.refuse(
                    function, x, "E0327", f"'{x.var}' steps an axis and a reduction at once"
                )
        return tuple(eq(x.var, simplify(x.extent - 1)) for x in stepping if x.extent is not ONE)
