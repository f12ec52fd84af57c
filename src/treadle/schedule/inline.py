"""Inlining: a producer into its consumers, an elementwise consumer into its producer."""

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import prove
from treadle.expr.scalar import Const, Expr, Var, apply, select, substitute, transform, variables
from treadle.ir.analysis import symbols
from treadle.ir.tensor import ZERO, Buffer, Intrinsic, Load, Store, TensorFunction
from treadle.schedule.dependence import (
    axes,
    check_order_kept,
    check_ready,
    in_block,
    is_internal,
    of_buffer,
    only_tails,
    single_store,
    walk_loads,
)
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    block_sites,
    conjunction,
    conjuncts,
    facts_at,
    locate_block,
    map_exprs,
    replaced,
    rescoped,
    with_body,
    without_allocation,
)


def _elementwise(rule: Instruction, function: TensorFunction, site: BlockSite) -> Store:
    """The one store of a block without a reduction.

    Raises:
        ScheduleError: E0320 for another form.
    """
    block = site.node
    store = single_store(block)
    if store is None or block.init or axes(block, "reduce") or not only_tails(function, site):
        raise rule.refuse(
            function,
            block,
            "E0320",
            f"block '{block.name}' is not one plain store at every point",
            hint="inline blocks with spatial axes, one store and no condition but tails",
        )
    return store


def _axes_as_indices(
    rule: Instruction, function: TensorFunction, site: BlockSite, indices: Sequence[Expr], code: str
) -> None:
    """Refuse unless the indices are all the axes of the block, each once, and zeros."""
    own = [axis.var for axis in site.node.iters]
    used = [i for i in indices if i is not ZERO]
    if len(set(used)) != len(used) or set(used) != set(own):
        raise rule.refuse(
            function,
            site.node,
            code,
            f"block '{site.node.name}' does not use its axes as indices, each once",
            notes=("the indices are " + (", ".join(map(str, indices)) or "none"),),
        )


def _masked(value: Expr, mask: Expr | None) -> Expr:
    """A value of which nothing is loaded where ``mask`` is false; zero there."""
    if mask is None:
        return value

    def guard(x: Expr) -> Expr | None:
        if not isinstance(x, Load):
            return None
        return Load(x.buffer, x.indices, mask if x.mask is None else apply("and", x.mask, mask))

    return select(mask, transform(value, guard), Const(0, value.dtype))


@dataclass(frozen=True)
class ComputeInline(Instruction):
    """Compute a producer's value where it is used, and do without its buffer.

    The block is ``B[i, j, ...] = value`` over distinct axes. A load of ``B`` under a mask loads
    under that mask.

    Errors: E0320 the block's form; E0322 the buffer is a parameter; E0323 it has other writers;
    E0324 a use that takes an address or a vector; E0325 the store's indices; E0327 what it reads
    changes before it is used.
    """

    block: str

    def check(self, function: TensorFunction) -> tuple[BlockSite, Store]:
        """The block and its store."""
        site = locate_block(self, function, self.block)
        store = _elementwise(self, function, site)
        if store.mask is not None:
            raise self.refuse(
                function, store, "E0320", f"the store of block '{self.block}' is masked"
            )
        if not is_internal(function, store.buffer):
            raise self.refuse(
                function, site.node, "E0322", f"'{store.buffer.name}' is a parameter; others see it"
            )
        _axes_as_indices(self, function, site, store.indices, "E0325")
        if len(of_buffer(function, store.buffer, "store")) > 1:
            raise self.refuse(
                function, site.node, "E0323", f"'{store.buffer.name}' has other writers"
            )
        known = {*axes(site.node, "spatial"), *symbols(function)}
        loose = [v for v in variables(store.value) if v not in known]
        if loose or any(x.buffer is store.buffer for x in walk_loads(store.value)):
            raise self.refuse(
                function, store, "E0320", f"block '{self.block}' is not a function of its axes"
            )
        for read in of_buffer(function, store.buffer, "load"):
            if isinstance(read.stmt, Intrinsic) or any(i.dtype.lanes > 1 for i in read.indices):
                raise self.refuse(
                    function,
                    read.stmt,
                    "E0324",
                    f"'{store.buffer.name}' is not read one by one here",
                )
        return site, store

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function without the block."""
        site, store = self.check(function)
        buffer, reads = store.buffer, of_buffer(function, store.buffer, "load")
        users = tuple(dict.fromkeys(r.blocks[0].name for r in reads if r.blocks))

        def inlined(x: Expr) -> Expr | None:
            if not isinstance(x, Load) or x.buffer is not buffer:
                return None
            point = {
                v: i for v, i in zip(store.indices, x.indices, strict=True) if isinstance(v, Var)
            }
            return _masked(substitute(store.value, point), x.mask)

        without = without_allocation(replaced(function, (site.node, ())), buffer)
        after = with_body(without, map_exprs(without.body, lambda e: transform(e, inlined)))
        check_ready(self, function, site.node, after, users)
        return rescoped(after)


@dataclass(frozen=True)
class ReverseComputeInline(Instruction):
    """Compute an elementwise consumer where its producer stores, and do without the buffer between
    them.

    The producer is the last block that writes a buffer which only this block reads; it has no
    reduction.

    Errors: E0320 the form of either block; E0323 no such producer, or several writers; E0324 the
    buffer is used elsewhere; E0326 the load's indices; E0327 another operand is not ready where the
    producer runs.
    """

    block: str

    def check(self, function: TensorFunction) -> tuple[BlockSite, BlockSite, Buffer]:
        """The consumer, the producer and the buffer between them."""
        site = locate_block(self, function, self.block)
        store = _elementwise(self, function, site)
        found = self._producer(function, site)
        if found is None:
            raise self.refuse(
                function,
                site.node,
                "E0323",
                f"block '{self.block}' reads nothing that one block writes for it alone",
                hint="use reverse_compute_at to run it near its producer",
            )
        producer, buffer = found
        own = _elementwise(self, function, producer)
        if own.mask is not None:
            raise self.refuse(
                function, own, "E0320", f"the store of block '{producer.node.name}' is masked"
            )
        loads = [x for x in walk_loads(store.value) if x.buffer is buffer]
        _axes_as_indices(self, function, site, loads[0].indices, "E0326")
        if len(loads) > 1 or any(x.buffer is buffer for i in store.indices for x in walk_loads(i)):
            raise self.refuse(
                function, store, "E0326", f"'{buffer.name}' is read at more than one place"
            )
        known = {*axes(site.node, "spatial"), *symbols(function)}
        if any(v not in known for e in (*store.indices, store.value) for v in variables(e)):
            raise self.refuse(
                function, store, "E0320", f"block '{self.block}' is not a function of its axes"
            )
        check_order_kept(self, function, site)
        return site, producer, buffer

    def _producer(
        self, function: TensorFunction, site: BlockSite
    ) -> tuple[BlockSite, Buffer] | None:
        store = single_store(site.node)
        read = {x.buffer for x in walk_loads(store.value)} if store is not None else set()
        for other in reversed(block_sites(function)):
            for buffer in (
                b for b in sorted(read, key=lambda b: b.name) if is_internal(function, b)
            ):
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

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with one block in the place of two."""
        site, producer, buffer = self.check(function)
        store, own = single_store(site.node), single_store(producer.node)
        if store is None or own is None:
            raise InternalError(f"block '{self.block}' was checked to be one store")
        load = next(x for x in walk_loads(store.value) if x.buffer is buffer)
        point = {v: i for v, i in zip(load.indices, own.indices, strict=True) if isinstance(v, Var)}
        here = substitute(load, point)
        mask = None if load.mask is None else substitute(load.mask, point)
        value = _masked(own.value, mask)
        merged = Store(
            store.buffer,
            tuple(substitute(i, point) for i in store.indices),
            transform(substitute(store.value, point), lambda x: value if x is here else None),
            None if store.mask is None else substitute(store.mask, point),
            store.span,
        )
        block = replace_fields(
            producer.node,
            name=self.block,
            body=(merged,),
            where=self._where(function, site, producer, point),
        )
        after = replaced(function, (producer.node, (block,)), (site.node, ()))
        after = without_allocation(after, buffer)
        check_ready(self, function, site.node, after, (self.block,))
        return rescoped(after)

    def _where(
        self, function: TensorFunction, site: BlockSite, producer: BlockSite, point: dict[Var, Expr]
    ) -> Expr | None:
        """The producer's condition, and that its point lies in the consumer's domain."""
        facts = facts_at(function, producer.loops)
        for axis in producer.node.iters:
            facts = facts.with_range(axis.var, axis.extent)
        needed: list[Expr] = []
        for axis in site.node.iters:
            index = point[axis.var]
            inside = [c for c in (index >= 0, index < axis.extent) if not prove(c, facts)]
            needed.extend(substitute(c, producer.bindings) for c in inside)
        return conjunction((*conjuncts(producer.node.where), *needed))
