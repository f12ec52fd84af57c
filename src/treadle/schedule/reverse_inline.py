"""Inlining an elementwise consumer into the block that makes what it reads."""

from dataclasses import dataclass

from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Expr, Var, eq, substitute, transform, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import symbols
from treadle.ir.loop_builder import combined, identity
from treadle.ir.tensor import ONE, Block, Buffer, For, If, Load, Store, TensorFunction
from treadle.schedule.dependence import (
    Reduction,
    axes,
    check_order_kept,
    check_ready,
    in_block,
    is_internal,
    of_buffer,
    only_tails,
    reduction_of,
    single_store,
    walk_loads,
)
from treadle.schedule.digits import digits, one_to_one
from treadle.schedule.inline import axes_as_indices, elementwise, masked
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    block_sites,
    conjunction,
    conjuncts,
    facts_at,
    locate_block,
    replaced,
    rescoped,
    uses,
    without_allocation,
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A consumer with its one store and one load of ``buffer``, and the block that writes that;
    ``point`` says what the consumer's axes are there.
    """

    site: BlockSite
    store: Store
    load: Load
    producer: BlockSite
    own: Store
    point: dict[Var, Expr]

    @property
    def buffer(self) -> Buffer:
        """What stands between them."""
        return self.own.buffer

    @property
    def indices(self) -> tuple[Expr, ...]:
        """Where the consumer stores, over the producer's axes."""
        return tuple(substitute(i, self.point) for i in self.store.indices)

    def value(self, made: Expr) -> Expr:
        """What the consumer stores when it finds ``made``, over the producer's axes."""
        here = substitute(self.load, self.point)
        mask = None if self.load.mask is None else substitute(self.load.mask, self.point)
        found = masked(made, mask)
        value = substitute(self.store.value, self.point)
        return transform(value, lambda x: found if x is here else None)

    def where(self, function: TensorFunction) -> Expr | None:
        """The producer's condition, and that its point lies in the consumer's domain."""
        facts = facts_at(function, self.producer.loops)
        for axis in self.producer.node.iters:
            facts = facts.with_range(axis.var, axis.extent)
        needed: list[Expr] = []
        for axis in self.site.node.iters:
            index = self.point[axis.var]
            inside = [c for c in (index >= 0, index < axis.extent) if not prove(c, facts)]
            needed.extend(substitute(c, self.producer.bindings) for c in inside)
        return conjunction((*conjuncts(self.producer.node.where), *needed))

    def merged(self, rule: Instruction, function: TensorFunction, block: Block) -> TensorFunction:
        """The function with ``block``, of the consumer's name, in the place of both."""
        after = replaced(function, (self.producer.node, (block,)), (self.site.node, ()))
        after = without_allocation(after, self.buffer)
        check_ready(rule, function, self.site.node, after, (block.name,))
        return rescoped(after)


def consumer_pair(rule: Instruction, function: TensorFunction, site: BlockSite) -> Pair:
    """An elementwise consumer and the block that writes what only it reads.

    Raises:
        ScheduleError: E0320 the consumer's form; E0323 no such producer; E0324 what the consumer
            writes is used elsewhere; E0325 and E0326 the indices of the two.
    """
    block = site.node
    store = elementwise(rule, function, site)
    found = _producer(function, site)
    if found is None:
        raise rule.refuse(
            function,
            block,
            "E0323",
            f"block '{block.name}' reads nothing that one block writes for it alone",
            hint="use reverse_compute_at to run it near its producer",
        )
    producer, buffer = found
    own = single_store(producer.node)
    if own is None or own.mask is not None or not only_tails(function, producer):
        raise rule.refuse(
            function,
            producer.node if own is None else own,
            "E0320",
            f"block '{producer.node.name}' is not one plain store at every point",
        )
    loads = [x for x in walk_loads(store.value) if x.buffer is buffer]
    if not loads:
        raise rule.refuse(
            function, store, "E0326", f"'{buffer.name}' is read for an index or a mask"
        )
    axes_as_indices(rule, function, site, loads[0].indices, "E0326")
    parts = (*store.indices, *(() if store.mask is None else (store.mask,)))
    if len(loads) > 1 or any(x.buffer is buffer for e in parts for x in walk_loads(e)):
        raise rule.refuse(
            function, store, "E0326", f"'{buffer.name}' is read at more than one place"
        )
    known = {*axes(block, "spatial"), *symbols(function)}
    if any(v not in known for e in (*parts, store.value) for v in variables(e)):
        raise rule.refuse(
            function, store, "E0320", f"block '{block.name}' is not a function of its axes"
        )
    check_order_kept(rule, function, site)
    pairs = zip(loads[0].indices, own.indices, strict=True)
    point = {v: i for v, i in pairs if isinstance(v, Var)}
    return Pair(site, store, loads[0], producer, own, point)


def _producer(function: TensorFunction, site: BlockSite) -> tuple[BlockSite, Buffer] | None:
    store = single_store(site.node)
    read = {x.buffer for x in walk_loads(store.value)} if store is not None else set()
    internal = [b for b in sorted(read, key=lambda b: b.name) if is_internal(function, b)]
    for other in reversed(block_sites(function)):
        for buffer in internal:
            writers = of_buffer(function, buffer, "store")
            alone = all(
                in_block(a, site.node) or in_block(a, other.node)
                for a in of_buffer(function, buffer, "load")
            )
            if (
                len({w.blocks[:1] for w in writers}) == 1
                and alone
                and in_block(writers[0], other.node)
                and other.node is not site.node
            ):
                return other, buffer
    return None


def _reduction(rule: Instruction, function: TensorFunction, pair: Pair) -> Reduction:
    """The producer as a reduction that may go on in the consumer's buffer.

    Raises:
        ScheduleError: E0320 its form, or a buffer of another dtype; E0325 its store's indices, or
            elements of the consumer's buffer that several points share.
    """
    block = pair.producer.node
    found = reduction_of(block)
    if found is None or found.init is None:
        raise rule.refuse(
            function,
            block,
            "E0320",
            f"block '{block.name}' is no reduction with a start",
        )
    target = pair.store.buffer
    if target.dtype != found.buffer.dtype or pair.store.mask is not None:
        raise rule.refuse(
            function,
            pair.store,
            "E0320",
            f"'{target.name}' cannot hold what block '{block.name}' adds up",
            notes=(f"that is {found.buffer.dtype}, and '{target.name}' {target.dtype}",),
        )
    if any(x.buffer is target for x in walk_loads(pair.store.value)):
        raise rule.refuse(
            function,
            pair.store,
            "E0320",
            f"block '{pair.site.node.name}' goes on with what '{target.name}' already holds",
        )
    axes_as_indices(rule, function, pair.producer, found.indices, "E0325")
    extents = {a.var: a.extent for a in pair.site.node.iters}
    facts = facts_at(function, ())
    for var, extent in extents.items():
        facts = facts.with_range(var, extent)
    if not one_to_one(pair.store.indices, extents, facts):
        raise rule.refuse(
            function,
            pair.store,
            "E0325",
            f"cannot show that block '{pair.site.node.name}' stores each element once",
        )
    return found


def _stepped_in(pair: Pair, found: Reduction, init: Expr, *after: If) -> Block:
    """The reduction, done in the consumer's buffer, then ``after``."""
    place = Load(pair.store.buffer, pair.indices)
    old, block = Load(found.buffer, found.indices), pair.producer.node
    value = transform(pair.own.value, lambda x: place if x is old else None)
    return replace_fields(
        block,
        name=pair.site.node.name,
        body=(Store(place.buffer, place.indices, value, None, pair.own.span), *after),
        init=(Store(place.buffer, place.indices, init, None, pair.own.span),),
    )


@dataclass(frozen=True)
class ReverseComputeInline(Instruction):
    """Compute an elementwise consumer where its producer stores, and do without the buffer between
    them.

    The producer is the last block that writes a buffer which only this block reads. Where it is a
    reduction, that is done in the consumer's buffer, which must be of the same dtype, and the
    consumer's value replaces the sum at the last step: ``Y = Y + term``, then ``if k == n - 1: Y =
    f(Y)``.

    Errors: E0320 the form of either block; E0323 no such producer, or several writers; E0324 the
    buffer is used elsewhere; E0325 the indices of a reduction's store, or results that would share
    an element; E0326 the load's indices; E0327 another operand is not ready where the producer
    runs; E0308 the last step of a reduction is not the last to run.
    """

    block: str

    def check(self, function: TensorFunction) -> Pair:
        """The consumer and its producer."""
        pair = consumer_pair(self, function, locate_block(self, function, self.block))
        if not axes(pair.producer.node, "reduce"):
            elementwise(self, function, pair.producer)
            return pair
        _reduction(self, function, pair)
        if not runs_last(function, pair.producer):
            raise self.refuse(
                function,
                pair.producer.node,
                "E0308",
                f"cannot show that block '{pair.producer.node.name}' ends with the last step of "
                "its reduction",
                hint=f"keep the order of its loops, or reverse_compute_at '{self.block}'",
            )
        return pair

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with one block in the place of two."""
        pair = self.check(function)
        if axes(pair.producer.node, "reduce"):
            block = self._last_step(function, pair)
        else:
            mask = None if pair.store.mask is None else substitute(pair.store.mask, pair.point)
            value = pair.value(pair.own.value)
            store = Store(pair.store.buffer, pair.indices, value, mask, pair.store.span)
            block = replace_fields(pair.producer.node, name=self.block, body=(store,))
        return pair.merged(self, function, replace_fields(block, where=pair.where(function)))

    def _last_step(self, function: TensorFunction, pair: Pair) -> Block:
        found = reduction_of(pair.producer.node)
        if found is None or found.init is None:
            raise InternalError(f"block '{self.block}' was checked to follow a reduction")
        facts = facts_at(function, ())
        last = conjunction(
            simplify(eq(a.var, a.extent - ONE), facts.with_range(a.var, a.extent))
            for a in pair.producer.node.iters
            if a.kind == "reduce"
        )
        assert last is not None
        place = Load(pair.store.buffer, pair.indices)
        store = Store(place.buffer, place.indices, pair.value(place), None, pair.store.span)
        return _stepped_in(pair, found, found.init, If(last, (store,), (), pair.store.span))


def runs_last(function: TensorFunction, site: BlockSite) -> bool:
    """Whether the last steps of all reduced axes are shown to be what the block does last at each
    of its results.
    """
    facts = facts_at(function, site.loops)
    reduced = [a for a in site.node.iters if a.kind == "reduce"]
    stepping = [x for x in site.loops if any(uses(a.binding, (x.var,)) for a in reduced)]
    end = {x.var: x.extent - ONE for x in stepping}
    owned = [v for a in reduced for v in variables(a.binding) if v in end]
    if all(prove(eq(substitute(a.binding, end), a.extent - ONE), facts) for a in reduced):
        return True
    alone = len(set(owned)) == len(owned)
    return alone and all(_ascends(a.binding, stepping, facts) for a in reduced)


def _ascends(binding: Expr, loops: list[For], facts: Facts) -> bool:
    """Whether a binding grows from each iteration of the loops to the next, in their order."""
    parts = digits(binding, {x.var: x.extent for x in loops})
    if parts is None or any(d.modulus is not None or d.divisor is not ONE for d in parts):
        return False
    weights = {d.source: d.coefficient for d in parts}
    reach: Expr = ONE
    for x in reversed([x for x in loops if uses(binding, (x.var,))]):
        weight = weights.get(x.var)
        if weight is None or not prove(weight >= reach, facts):
            return False
        reach = simplify(reach + weight * (x.extent - ONE), facts)
    return True


@dataclass(frozen=True)
class FuseReductionEpilogue(Instruction):
    """Start a reduction with what a consumer would combine its result with: ``T = T + a * b`` and
    then ``Y = T + bias`` become ``Y = Y + a * b`` that starts with ``bias``.

    The consumer ``block`` must combine as the reduction does (an addition after a sum, a maximum
    after a maximum). Sums and products of floats are rounded in another order then, which
    ``reassociate=True`` accepts. Any other function, a clipped sum above all, is refused: applied
    to partial results it would give another value. ``reverse_compute_inline`` applies it at the
    end.

    Errors: E0308 another order of rounding; E0320 the form of either block; E0323 the blocks are no
    pair; E0324 the buffer is used elsewhere; E0325 the indices of a store; E0326 the load's
    indices; E0327 another operand is not ready where the reduction starts; E0385 the consumer does
    not combine as the reduction does.
    """

    reduction: str
    block: str
    reassociate: bool = False

    def check(self, function: TensorFunction) -> tuple[Pair, Reduction, Expr]:
        """The blocks, the reduction, and what it is to start with."""
        producer = locate_block(self, function, self.reduction)
        pair = consumer_pair(self, function, locate_block(self, function, self.block))
        if pair.producer.node is not producer.node:
            raise self.refuse(
                function,
                producer.node,
                "E0323",
                f"block '{self.block}' reads what '{pair.producer.node.name}' writes",
            )
        found = _reduction(self, function, pair)
        value, load = pair.store.value, pair.load
        args = value.children if getattr(value, "fn", None) == found.combine else ()
        rest = [x for x in args if x is not load]
        if len(rest) != 1 or load.mask is not None or any(x is load for x in walk_loads(rest[0])):
            raise self.refuse(
                function,
                pair.store,
                "E0385",
                f"block '{self.block}' is not one more step of the reduction",
                notes=(f"the reduction combines by {found.combine}",),
                hint=f'reverse_compute_inline("{self.block}") applies it at the last step',
            )
        if not found.is_exact and not self.reassociate:
            raise self.refuse(
                function,
                pair.store,
                "E0308",
                f"'{self.reduction}' would add in another order",
                hint="pass reassociate=True to accept another rounding",
            )
        return pair, found, substitute(rest[0], pair.point)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with one block in the place of two."""
        pair, found, start = self.check(function)
        assert found.init is not None
        if found.init is not identity(found.combine, found.buffer.dtype):
            start = combined(found.combine, found.init, start)
        block = _stepped_in(pair, found, start)
        return pair.merged(self, function, replace_fields(block, where=pair.where(function)))
