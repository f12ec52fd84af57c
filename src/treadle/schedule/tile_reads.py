"""A consumer on a tile reads the tile, not what the tile was copied to."""

from treadle.base.rewrite import replace_fields
from treadle.ir.analysis import Access, accesses, statements
from treadle.ir.tensor import Allocate, For, Load, Store, TensorFunction
from treadle.schedule.cache_inplace import needed_after
from treadle.schedule.dependence import in_block, of_buffer, single_store, steps, under
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    LoopSite,
    conjunction,
    conjuncts,
    facts_at,
    locate_block,
    locate_loop,
    replaced,
    rescoped,
    with_buffers,
    without_allocation,
)
from treadle.schedule.regions import access_region, contains


def read_from_tile(
    rule: Instruction, function: TensorFunction, block: str, loop: str, producer: str
) -> TensorFunction:
    """Let a block at the end of a loop's body read the elements that ``producer`` has just copied
    where they were copied from, if that is a buffer of the body.

    The copy is then left out where nothing else reads it: in the last of the iterations that copy
    the same elements.
    """
    copy, body = locate_block(rule, function, producer), locate_loop(rule, function, loop)
    store = _plain_copy(function, copy, body)
    if store is None:
        return function
    tile = store.value.buffer if isinstance(store.value, Load) else store.buffer
    reader = locate_block(rule, function, block).node
    after = replaced(function, (reader, with_buffers((reader,), {store.buffer: tile})))
    return _copied_less(
        rule, after, locate_block(rule, after, producer), locate_loop(rule, after, loop)
    )


def _plain_copy(function: TensorFunction, copy: BlockSite, loop: LoopSite) -> Store | None:
    """The store of a block that copies from a buffer of the loop's body which does not change
    later.
    """
    store = single_store(copy.node)
    load = None if store is None else store.value
    if store is None or store.mask is not None or not isinstance(load, Load):
        return None
    declared = any(isinstance(s, Allocate) and s.buffer is load.buffer for s in loop.node.body)
    if not declared or load.mask is not None or load.indices != store.indices:
        return None
    found = accesses(function.body)
    place = next(p for p, a in enumerate(found) if a.stmt is store)
    changed = any(a.kind == "store" and a.buffer is load.buffer for a in found[place:])
    alone = all(in_block(a, copy.node) for a in of_buffer(function, store.buffer, "store"))
    return store if alone and not changed else None


def _copied_less(
    rule: Instruction, function: TensorFunction, copy: BlockSite, loop: LoopSite
) -> TensorFunction:
    write = next(a for a in accesses(function.body) if a.kind == "store" and in_block(a, copy.node))
    reads = [a for a in of_buffer(function, write.buffer, "load") if under(a, loop.node)]
    around = (*loop.loops, loop.node)
    again = [x for x in around if not steps(x, copy.node, "spatial")]
    chunks = [x for x in again if x.kind in ("serial", "unrolled")]
    kept = needed_after(function, copy, loop, write, chunks)
    if kept is None or not all(_is_inside(function, a, write, around) for a in reads):
        return function
    if kept is False:
        if reads:
            return function
        return without_allocation(replaced(function, (copy.node, ())), write.buffer)
    where = conjunction((kept, *conjuncts(copy.node.where)))
    changed = replaced(function, (copy.node, (replace_fields(copy.node, where=where),)))
    first = locate_loop(rule, changed, chunks[0].var.name).node
    if any(isinstance(s, Allocate) and s.buffer is write.buffer for s in statements(first.body)):
        return changed
    without = without_allocation(changed, write.buffer)
    first = locate_loop(rule, without, chunks[0].var.name).node
    return rescoped(replaced(without, (first, (Allocate(write.buffer), first))))


def _is_inside(
    function: TensorFunction, read: Access, write: Access, around: tuple[For, ...]
) -> bool:
    still = [x.var for x in around]
    facts = facts_at(function, around)
    regions = access_region(write, still, facts), access_region(read, still, facts)
    return contains(*regions, write.buffer, facts)
