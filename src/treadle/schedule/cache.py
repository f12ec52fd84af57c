"""Copies: a block reads or writes through a buffer near the machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from treadle.base.rewrite import Rewriter, replace_fields
from treadle.expr.scalar import Expr, Var, substitute, transform
from treadle.ir.analysis import Access, accesses, fresh_name, names
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    IterVar,
    Load,
    Scope,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.schedule.dependence import axes, in_block, is_internal, of_buffer, only_tails, steps
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    block_sites,
    blocks_below,
    facts_at,
    locate_block,
    locate_loop,
    replaced,
    rescoped,
    uses,
    with_body,
    with_buffers,
)
from treadle.schedule.nests import mirrored, nest_over
from treadle.schedule.regions import Range, access_region, index_range, union, whole


def home(site: BlockSite, suits: Callable[[Stmt], bool]) -> tuple[Stmt, tuple[For, ...]]:
    """The outermost statement around a block (or the block) that ``suits``, and the loops around
    it.
    """
    for position, stmt in enumerate(site.path):
        if suits(stmt):
            return stmt, tuple(s for s in site.path[:position] if isinstance(s, For))
    return site.node, site.loops


def own_nest(function: TensorFunction, site: BlockSite) -> tuple[Stmt, tuple[For, ...]]:
    """The largest nest that holds no other block, and the loops around it."""
    return home(site, lambda stmt: len(blocks_below(function, stmt)) == 1 or stmt is site.node)


def block_name(function: TensorFunction, hint: str) -> str:
    """A name for a new block."""
    return fresh_name(hint, frozenset(s.node.name for s in block_sites(function)))


def axis_boxes(
    function: TensorFunction, site: BlockSite, iters: tuple[IterVar, ...], around: tuple[For, ...]
) -> tuple[Range, ...]:
    """What axes of a block run over while the loops ``around`` stand still."""
    facts = facts_at(function, around)
    inner = {loop.var: loop.extent for loop in site.loops[len(around) :]}
    if not around:
        return tuple(whole(axis.extent) for axis in iters)
    found = ((axis, index_range(axis.binding, inner, facts)) for axis in iters)
    return tuple(whole(axis.extent) if r is None else r for axis, r in found)


def renamed_axes(
    iters: tuple[IterVar, ...], taken: set[str], suffix: str
) -> tuple[tuple[IterVar, ...], dict[Var, Var]]:
    """Copies of axes under fresh names, and the new name of each."""
    names_of: dict[Var, Var] = {}
    for axis in iters:
        names_of[axis.var] = Var(fresh_name(f"{axis.var.name}_{suffix}", taken))
        taken.add(names_of[axis.var].name)
    return tuple(replace_fields(a, var=names_of[a.var]) for a in iters), names_of


@dataclass(frozen=True)
class CacheWrite(Instruction):
    """Let a block write a new buffer of ``scope``, of the same shape, and copy that to the one it
    wrote.

    The new buffer is ``{buffer}_{scope}``; the block ``{block}_copy`` stands right after the
    largest nest that holds the block alone. The buffer shrinks to what is used when storage is
    compacted.

    Errors: E0320 the block's form; E0322 no such scope; E0323 several writers.
    """

    block: str
    scope: Scope

    def check(self, function: TensorFunction) -> tuple[BlockSite, Access]:
        """The block and its store."""
        check_scope(self, function, self.scope)
        return sole_store(self, function, self.block)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the copy."""
        site, store = self.check(function)
        cache = cache_of(function, store.buffer, self.scope)
        return written_through(self, function, site, store, cache, store.indices)


@dataclass(frozen=True)
class CacheRead(Instruction):
    """Let a block read a buffer through a copy of ``scope``, of the same shape, named
    ``{buffer}_{scope}`` like its block.

    The copy stands before the largest nest around the block in which nothing writes the buffer.
    Where writers share loops with the block, there is one, and it has written before the block
    reads: the blocks are stages of a pipeline.

    Errors: E0320 the block writes the buffer, or does not read it; E0322 no such scope; E0323
    several writers share loops with the block; E0327 the block reads what another iteration writes.
    """

    block: str
    buffer: str
    scope: Scope

    def check(self, function: TensorFunction) -> tuple[BlockSite, tuple[Access, ...]]:
        """The block and its loads of the buffer."""
        check_scope(self, function, self.scope)
        site, reads = only_reads(self, function, self.block, self.buffer)
        self._check_stages(function, site, reads)
        return site, reads

    def _check_stages(
        self, function: TensorFunction, site: BlockSite, reads: Sequence[Access]
    ) -> None:
        found = accesses(function.body)
        near = [
            (position, a)
            for position, a in enumerate(found)
            if a.kind == "store" and a.buffer is reads[0].buffer and _shares_loops(a, site)
        ]
        place = next(p for p, a in enumerate(found) if in_block(a, site.node))
        late = next((a for p, a in near if p > place), None)
        if late is not None:
            raise self.refuse(
                function,
                late.stmt,
                "E0327",
                f"'{self.buffer}' is written here, after block '{self.block}' has read it in the "
                "same iteration",
                hint="give the two blocks loops of their own",
            )
        if len({a.blocks[:1] for _, a in near}) > 1:
            raise self.refuse(
                function,
                site.node,
                "E0323",
                f"several blocks write '{self.buffer}' in the loops of block '{self.block}'",
                hint="give the blocks that write it loops of their own",
            )

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the copy."""
        site, reads = self.check(function)
        nest, around = home(site, lambda stmt: writes_nothing(stmt, reads[0].buffer))
        return read_through(function, site, reads, self.scope, nest, around)


def _shares_loops(access: Access, site: BlockSite) -> bool:
    return any(x is y for x in access.loops for y in site.loops)


def writes_nothing(stmt: Stmt, buffer: Buffer) -> bool:
    """Whether no store below a statement is to a buffer."""
    return not any(a.kind == "store" and a.buffer is buffer for a in accesses((stmt,)))


def sole_store(rule: Instruction, function: TensorFunction, name: str) -> tuple[BlockSite, Access]:
    """The block called ``name`` and its store, of one element at every point; nothing else writes
    the buffer.

    Raises:
        ScheduleError: E0301, E0320, E0323.
    """
    site = locate_block(rule, function, name)
    stores = [a for a in accesses((site.node,)) if a.kind == "store"]
    loose = {s.var for s in site.loops} | set(axes(site.node, "reduce"))
    if (
        len({(a.buffer, a.indices) for a in stores}) != 1
        or any(a.mask is not None or a.lets or a.loops for a in stores)
        or any(uses(i, loose) for i in stores[0].indices)
        or any(isinstance(i, Load) for i in stores[0].indices)
        or not only_tails(function, site)
    ):
        raise rule.refuse(
            function,
            site.node,
            "E0320",
            f"block '{name}' does not write one element at every point of its axes",
        )
    if any(not in_block(a, site.node) for a in of_buffer(function, stores[0].buffer, "store")):
        raise rule.refuse(
            function, site.node, "E0323", f"'{stores[0].buffer.name}' has other writers"
        )
    return site, stores[-1]


def only_reads(
    rule: Instruction, function: TensorFunction, name: str, buffer: str
) -> tuple[BlockSite, tuple[Access, ...]]:
    """The block called ``name`` and its loads of a buffer, which it does not write.

    Raises:
        ScheduleError: E0301, E0320.
    """
    site = locate_block(rule, function, name)
    own = [a for a in accesses(function.body) if a.buffer.name == buffer and in_block(a, site.node)]
    reads = tuple(a for a in own if a.kind == "load")
    if len(own) != len(reads) or not reads:
        raise rule.refuse(
            function, site.node, "E0320", f"block '{name}' does not only read '{buffer}'"
        )
    return site, reads


def cache_of(function: TensorFunction, buffer: Buffer, scope: Scope) -> Buffer:
    """A new buffer of ``scope`` like another, named after both."""
    name = fresh_name(f"{buffer.name}_{scope}", names(function))
    return Buffer(name, buffer.shape, buffer.dtype, scope)


def read_through(
    function: TensorFunction,
    site: BlockSite,
    reads: Sequence[Access],
    scope: Scope,
    nest: Stmt,
    around: tuple[For, ...],
) -> TensorFunction:
    """Let a block read one buffer through a copy of the box that ``reads`` touch, made right before
    ``nest`` while the loops ``around`` it stand still.
    """
    source = reads[0].buffer
    cache = cache_of(function, source, scope)
    taken = {*names(function), cache.name}
    facts = facts_at(function, around)
    region = tuple(whole(d) for d in source.shape)
    if around:
        region = union(
            (access_region(a, (x.var for x in around), facts) for a in reads), source, facts
        )
    iters: list[IterVar] = []
    for number, extent in enumerate(source.shape):
        var = Var(fresh_name(f"{cache.name}_v{number}", taken))
        taken.add(var.name)
        iters.append(IterVar(var, extent, "spatial", var))
    point = tuple(axis.var for axis in iters)
    copy = Block(
        block_name(function, cache.name), tuple(iters), (Store(cache, point, Load(source, point)),)
    )
    copies = nest_over(iters, region, facts, taken).around(copy)
    block = with_buffers((site.node,), {source: cache})
    changed = replaced(function, (nest, (Allocate(cache), *copies, nest)))
    return rescoped(replaced(changed, (site.node, block)))


def written_through(
    rule: Instruction,
    function: TensorFunction,
    site: BlockSite,
    store: Access,
    cache: Buffer,
    place: tuple[Expr, ...],
) -> TensorFunction:
    """Let a block write ``cache`` at ``place`` (over its axes), and copy from there what it wrote,
    right after the largest nest that holds it alone.
    """
    taken = {*names(function), cache.name}
    nest, around = own_nest(function, site)
    spatial = tuple(a for a in site.node.iters if a.kind == "spatial")
    iters, new = renamed_axes(spatial, taken, "copy")
    copy = copy_back(function, site, store, cache, place, iters, new)
    loops = mirrored(function, site, len(around), iters, "copy", taken)
    if loops is None:
        boxes = axis_boxes(function, site, spatial, around)
        loops = nest_over(iters, boxes, facts_at(function, around), taken)
    moved = _Through(store.buffer, store.indices, cache, place)
    inner = moved.rewrite((nest,))
    after = replaced(function, (nest, (*inner, *loops.around(copy))))
    # What a reduction gathers must outlive the loops that step it.
    stepping = [x.var.name for x in around if steps(x, site.node, "reduce")]
    first = locate_loop(rule, after, stepping[0]).node if stepping else inner[0]
    return rescoped(replaced(after, (first, (Allocate(cache), first))))


def copy_back(
    function: TensorFunction,
    site: BlockSite,
    store: Access,
    cache: Buffer,
    place: tuple[Expr, ...],
    iters: tuple[IterVar, ...],
    new: dict[Var, Expr] | dict[Var, Var],
) -> Block:
    """The block ``{block}_copy`` that copies from a cache to where another block has written."""
    values: dict[Var, Expr] = dict(new)
    target = tuple(substitute(i, values) for i in store.indices)
    value = Load(cache, tuple(substitute(i, values) for i in place))
    name = block_name(function, f"{site.node.name}_copy")
    return Block(name, iters, (Store(store.buffer, target, value),))


class _Through(Rewriter):
    """Accesses of a buffer go to another; those at ``indices`` to ``place`` there."""

    def __init__(
        self, old: Buffer, indices: tuple[Expr, ...], new: Buffer, place: tuple[Expr, ...]
    ) -> None:
        self.old, self.indices, self.new, self.place = old, indices, new, place

    def moved(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return self.place if indices == self.indices else indices

    def rewrite_expr(self, node: Expr) -> Expr:
        return transform(node, self._load)

    def _load(self, x: Expr) -> Expr | None:
        if isinstance(x, Load) and x.buffer is self.old:
            return Load(self.new, self.moved(x.indices), x.mask)
        return None

    def rewrite_store(self, node: Store) -> Store:
        changed = self.generic(node)
        if node.buffer is not self.old:
            return changed
        return replace_fields(changed, buffer=self.new, indices=self.moved(node.indices))


@dataclass(frozen=True)
class SetScope(Instruction):
    """Place a buffer of the function's own in ``global``, ``stack`` or ``register`` memory.

    Errors: E0322 the buffer is a parameter, or there is no such scope.
    """

    buffer: str
    scope: Scope

    def check(self, function: TensorFunction) -> Buffer:
        """The buffer."""
        check_scope(self, function, self.scope)
        return locate_internal(self, function, self.buffer)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the buffer elsewhere."""
        old = self.check(function)
        new = Buffer(old.name, old.shape, old.dtype, self.scope)
        return with_body(function, with_buffers(function.body, {old: new}))


def locate_buffer(rule: Instruction, function: TensorFunction, name: str) -> Buffer:
    """The buffer called ``name``.

    Raises:
        ScheduleError: E0301 if there is none.
    """
    known = dict.fromkeys((*function.buffers, *(a.buffer for a in accesses(function.body))))
    found = next((b for b in known if b.name == name), None)
    if found is None:
        hint = "the buffers are " + ", ".join(b.name for b in known)
        raise rule.refuse(function, None, "E0301", f"there is no buffer '{name}'", hint=hint)
    return found


def locate_internal(rule: Instruction, function: TensorFunction, name: str) -> Buffer:
    """The buffer called ``name``, which is the function's own.

    Raises:
        ScheduleError: E0301 if there is none; E0322 if it is a parameter.
    """
    found = locate_buffer(rule, function, name)
    if not is_internal(function, found):
        raise rule.refuse(
            function,
            found,
            "E0322",
            f"'{name}' is a parameter",
            hint="cache_read or cache_write makes a buffer of your own",
        )
    return found


def check_scope(rule: Instruction, function: TensorFunction, scope: str) -> None:
    """Refuse (E0322) a scope that there is not."""
    if scope not in get_args(Scope):
        raise rule.refuse(
            function,
            None,
            "E0322",
            f"there is no scope '{scope}'",
            hint="the scopes are " + ", ".join(get_args(Scope)),
        )
