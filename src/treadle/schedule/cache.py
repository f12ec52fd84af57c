"""Copies: a block reads or writes through a buffer near the machine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Var, substitute
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

    Errors: E0320 the block's form; E0323 several writers.
    """

    block: str
    scope: Scope

    def check(self, function: TensorFunction) -> tuple[BlockSite, Access]:
        """The block and its store."""
        _check_scope(self, function, self.scope)
        site = locate_block(self, function, self.block)
        stores = [a for a in accesses((site.node,)) if a.kind == "store"]
        loose = {v for s in site.loops for v in (s.var,)} | set(axes(site.node, "reduce"))
        if (
            len({(a.buffer, a.indices) for a in stores}) != 1
            or any(a.mask is not None or a.lets or a.loops for a in stores)
            or any(uses(i, loose) for i in stores[0].indices)
            or any(isinstance(i, Load) for i in stores[0].indices)
            or not only_tails(function, site)
        ):
            raise self.refuse(
                function,
                site.node,
                "E0320",
                f"block '{self.block}' does not write one element at every point of its axes",
            )
        if any(not in_block(a, site.node) for a in of_buffer(function, stores[0].buffer, "store")):
            raise self.refuse(
                function, site.node, "E0323", f"'{stores[0].buffer.name}' has other writers"
            )
        return site, stores[-1]

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the copy."""
        site, store = self.check(function)
        taken = set(names(function))
        cache = Buffer(
            fresh_name(f"{store.buffer.name}_{self.scope}", taken),
            store.buffer.shape,
            store.buffer.dtype,
            self.scope,
        )
        taken.add(cache.name)
        nest, around = own_nest(function, site)
        spatial = tuple(a for a in site.node.iters if a.kind == "spatial")
        iters, new = renamed_axes(spatial, taken, "copy")
        indices = tuple(substitute(i, new) for i in store.indices)
        copy = Block(
            block_name(function, f"{self.block}_copy"),
            iters,
            (Store(store.buffer, indices, Load(cache, indices)),),
        )
        loops = mirrored(function, site, len(around), iters, "copy", taken)
        if loops is None:
            boxes = axis_boxes(function, site, spatial, around)
            loops = nest_over(iters, boxes, facts_at(function, around), taken)
        copies = loops.around(copy)
        inner = with_buffers((nest,), {store.buffer: cache})
        after = replaced(function, (nest, (*inner, *copies)))
        # What a reduction gathers must outlive the loops that step it.
        stepping = [x.var.name for x in around if steps(x, site.node, "reduce")]
        first = locate_loop(self, after, stepping[0]).node if stepping else inner[0]
        return rescoped(replaced(after, (first, (Allocate(cache), first))))


@dataclass(frozen=True)
class CacheRead(Instruction):
    """Let a block read a buffer through a copy of ``scope``, of the same shape, named
    ``{buffer}_{scope}`` like its block.

    The copy stands before the largest nest around the block in which nothing writes the buffer.

    Errors: E0320 the block writes the buffer, or does not read it.
    """

    block: str
    buffer: str
    scope: Scope

    def check(self, function: TensorFunction) -> tuple[BlockSite, tuple[Access, ...]]:
        """The block and its loads of the buffer."""
        _check_scope(self, function, self.scope)
        site = locate_block(self, function, self.block)
        own = [
            a
            for a in accesses(function.body)
            if a.buffer.name == self.buffer and in_block(a, site.node)
        ]
        reads = tuple(a for a in own if a.kind == "load")
        if len(own) != len(reads) or not reads:
            raise self.refuse(
                function,
                site.node,
                "E0320",
                f"block '{self.block}' does not only read '{self.buffer}'",
            )
        return site, reads

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the copy."""
        site, reads = self.check(function)
        source = reads[0].buffer
        taken = set(names(function))
        cache = Buffer(
            fresh_name(f"{self.buffer}_{self.scope}", taken), source.shape, source.dtype, self.scope
        )
        taken.add(cache.name)
        nest, around = home(site, lambda stmt: _writes_nothing(stmt, source))
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
            block_name(function, cache.name),
            tuple(iters),
            (Store(cache, point, Load(source, point)),),
        )
        copies = nest_over(iters, region, facts, taken).around(copy)
        block = with_buffers((site.node,), {source: cache})
        changed = replaced(function, (nest, (Allocate(cache), *copies, nest)))
        return rescoped(replaced(changed, (site.node, block)))


def _writes_nothing(stmt: Stmt, buffer: Buffer) -> bool:
    return not any(a.kind == "store" and a.buffer is buffer for a in accesses((stmt,)))


@dataclass(frozen=True)
class SetScope(Instruction):
    """Place a buffer of the function's own in ``global``, ``stack`` or ``register`` memory.

    Errors: E0322 the buffer is a parameter, or there is no such scope.
    """

    buffer: str
    scope: Scope

    def check(self, function: TensorFunction) -> Buffer:
        """The buffer."""
        _check_scope(self, function, self.scope)
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


def _check_scope(rule: Instruction, function: TensorFunction, scope: str) -> None:
    if scope not in get_args(Scope):
        raise rule.refuse(
            function,
            None,
            "E0322",
            f"there is no scope '{scope}'",
            hint="the scopes are " + ", ".join(get_args(Scope)),
        )
