"""Blocked reductions: the tile that a loop's body updates, held near the machine while it does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Apply, Expr, Var, apply, as_expr, eq, ne, substitute, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access, accesses, fresh_name, names, statements, symbols
from treadle.ir.tensor import (
    ONE,
    ZERO,
    Allocate,
    Block,
    Buffer,
    For,
    Intrinsic,
    Load,
    Scope,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.schedule.cache import block_name, check_scope, renamed_axes
from treadle.schedule.cache_at import locate_around
from treadle.schedule.dependence import (
    axes,
    covers,
    in_block,
    is_internal,
    of_buffer,
    only_tails,
    steps,
    under,
)
from treadle.schedule.digits import one_to_one
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    Body,
    LoopSite,
    conjunction,
    facts_at,
    locate_loop,
    map_exprs,
    replaced,
    rescoped,
    uses,
    with_buffers,
    without_allocation,
)
from treadle.schedule.nests import Nest, mirrored
from treadle.schedule.regions import access_region


@dataclass(frozen=True, slots=True)
class Tile:
    """What a loop's body updates of a reduction's result.

    ``first`` says when the reduction starts in the body, by what must be zero then (nothing:
    always), ``kept`` when the tile must be written back (``None``: always; ``False``: never),
    ``chunks`` are the loops around the body, its own included, that step the reduction.
    """

    site: BlockSite
    loop: LoopSite
    store: Access
    first: tuple[Expr, ...]
    kept: Expr | Literal[False] | None
    chunks: tuple[For, ...]

    @property
    def depth(self) -> int:
        """The number of loops that stand still while the body runs."""
        return len(self.loop.loops) + 1


@dataclass(frozen=True)
class CacheInplace(Instruction):
    """Hold the tile of a reduction that the body of ``loop`` updates in a buffer of ``scope``.

    In the first chunk of the reduction the tile is started, in the others it is read; it is
    written back at the end of the body. Between chunks the partial results lie in the buffer
    itself, so loops that step the reduction may stand outside of those that step its result.
    Blocks in the loop that read the result after it is made read the tile. Where nothing else reads
    a buffer of the function's own, the last chunk is not written back; with a single chunk the
    buffer disappears.

    The tile is called ``{buffer}_{scope}``; the new blocks ``{block}_start``, ``{block}_load`` and
    ``{block}_store`` stand in copies of the loops in ``loop`` that step the result.

    Errors: E0302 the loop is vectorized; E0311 the loops in ``loop`` visit a result twice, or step
    a result and the reduction at once; E0320 the block's form; E0321 not a reduction with a start;
    E0322 no such scope; E0323 other writers; E0324 a reader in the loop that runs before the block,
    takes an address or reads more than the tile; E0327 the start reads what the loop writes; E0329
    ``loop`` is not around the block.
    """

    block: str
    loop: str
    scope: Scope = "register"

    def check(self, function: TensorFunction) -> Tile:
        """What there is to hold."""
        check_scope(self, function, self.scope)
        site, loop, _ = locate_around(self, function, self.block, self.loop)
        store = self._check_block(function, site)
        self._check_once(function, site, loop, store)
        self._check_readers(function, site, loop, store)
        first = self._first(function, site, loop)
        chunks = tuple(x for x in _around(loop) if steps(x, site.node, "reduce"))
        kept = needed_after(function, site, loop, store, chunks)
        return Tile(site, loop, store, first, kept, chunks)

    def _check_block(self, function: TensorFunction, site: BlockSite) -> Access:
        block = site.node
        if not block.init or not axes(block, "reduce"):
            raise self.refuse(
                function,
                block,
                "E0321",
                f"block '{self.block}' is not a reduction with a start",
                hint="cache_write serves other blocks",
            )
        own = accesses((block,))
        store = [a for a in own if a.kind == "store"][-1]
        known = {*axes(block, "spatial"), *symbols(function)}
        if (
            any(a.buffer is not store.buffer for a in own if a.kind == "store")
            or any(a.indices != store.indices for a in own if a.buffer is store.buffer)
            or any(v not in known for i in store.indices for v in variables(i))
            or any(x.dtype.lanes > 1 or _loads(x) for x in store.indices)
            or not only_tails(function, site)
        ):
            raise self.refuse(
                function,
                block,
                "E0320",
                f"block '{self.block}' does not update one element at every point of its axes",
            )
        for a in of_buffer(function, store.buffer, "store"):
            if not in_block(a, block):
                raise self.refuse(
                    function, a.stmt, "E0323", f"'{store.buffer.name}' has another writer"
                )
        return store

    def _check_once(
        self, function: TensorFunction, site: BlockSite, loop: LoopSite, store: Access
    ) -> None:
        inner = site.loops[len(loop.loops) + 1 :]
        for x in inner:
            if steps(x, site.node, "reduce") and steps(x, site.node, "spatial"):
                raise self.refuse(
                    function, x, "E0311", f"'{x.var}' steps an axis and a reduction at once"
                )
        moving = {x.var: x.extent for x in inner if not steps(x, site.node, "reduce")}
        others = [x.var for x in inner if x.var not in moving]
        loose = any(uses(extent, others) for extent in moving.values())
        places = [substitute(i, site.bindings) for i in store.indices]
        if loose or not one_to_one(places, moving, facts_at(function, site.loops)):
            raise self.refuse(
                function,
                loop.node,
                "E0311",
                f"cannot show that the loops in '{self.loop}' visit each result once",
                hint="choose a loop further in",
            )

    def _check_readers(
        self, function: TensorFunction, site: BlockSite, loop: LoopSite, store: Access
    ) -> None:
        found = accesses(function.body)
        place = next(p for p, a in enumerate(found) if in_block(a, site.node))
        write = next(a for a in found if a.kind == "store" and in_block(a, site.node))
        for position, a in enumerate(found):
            if a.buffer is not store.buffer or in_block(a, site.node) or not under(a, loop.node):
                continue
            early = position < place or isinstance(a.stmt, Intrinsic)
            if early or not _inside_tile(function, loop, write, a):
                raise self.refuse(
                    function,
                    a.stmt,
                    "E0324",
                    f"'{store.buffer.name}' is read here: not after its tile, or not inside of it",
                    hint="choose a loop around more of the result, or move the reader out of it",
                )

    def _first(self, function: TensorFunction, site: BlockSite, loop: LoopSite) -> tuple[Expr, ...]:
        """What is zero when the reduction starts in the body: at every point, in its first step
        there.
        """
        facts = facts_at(function, site.loops)
        written = {a.buffer for a in accesses((loop.node,)) if a.kind == "store"}
        for a in accesses(site.node.init):
            if a.kind == "load" and a.buffer in written:
                raise self.refuse(
                    function,
                    site.node,
                    "E0327",
                    f"the start reads '{a.buffer.name}', which '{self.loop}' writes",
                )
        still: dict[Var, Expr] = {x.var: ZERO for x in site.loops[len(loop.loops) + 1 :]}
        needed: list[Expr] = []
        for axis in (a for a in site.node.iters if a.kind == "reduce"):
            begin = simplify(substitute(axis.binding, still), facts)
            if not prove(begin >= 0, facts) or not prove(axis.binding >= begin, facts):
                raise self.refuse(
                    function,
                    site.node,
                    "E0320",
                    f"cannot show that '{axis.var}' grows with the loops in '{self.loop}'",
                    notes=(f"it is bound to {axis.binding}",),
                )
            if not prove(eq(begin, 0), facts):
                needed.append(_stripped(begin, facts))
        return tuple(needed)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the tile in a buffer of its own."""
        tile = self.check(function)
        old = tile.store.buffer
        taken = set(names(function))
        cache = Buffer(
            fresh_name(f"{old.name}_{self.scope}", taken), old.shape, old.dtype, self.scope
        )
        taken.add(cache.name)
        begun = with_buffers(tile.site.node.init, {old: cache})
        first = conjunction(eq(x, 0) for x in tile.first)
        later = _any(ne(x, 0) for x in tile.first)
        before = self._nest(function, tile, "start", begun, first, taken)
        if later is not None:
            load: Body = (Store(cache, tile.store.indices, Load(old, tile.store.indices)),)
            before += self._nest(function, tile, "load", load, later, taken)
        after: Body = ()
        if tile.kept is not False:
            back: Body = (Store(old, tile.store.indices, Load(cache, tile.store.indices)),)
            after = self._nest(function, tile, "store", back, tile.kept, taken)
        update = replace_fields(tile.site.node, init=())
        changed = replaced(function, (tile.site.node, (update,)))
        declared, changed = self._declaration(changed, tile)
        inner = locate_loop(self, changed, self.loop).node
        place = next(p for p, s in enumerate(inner.body) if _holds(s, update))
        body = with_buffers(inner.body, {old: cache})
        body = (*body[:place], Allocate(cache), *before, *body[place:], *after)
        new = replace_fields(inner, body=body)
        changed = replaced(changed, (inner, (new,)))
        if declared is not None:
            outer = locate_loop(self, changed, declared.var.name).node
            changed = replaced(changed, (outer, (Allocate(old), outer)))
        return rescoped(changed)

    def _declaration(
        self, function: TensorFunction, tile: Tile
    ) -> tuple[For | None, TensorFunction]:
        """The loop that the buffer is to be declared before, if not where it is, and the function
        without the declaration then.

        That is where chunks hand it on, if they alone use it; nowhere if it is not used any more.
        """
        old, loop = tile.store.buffer, tile.loop.node
        inside = any(isinstance(s, Allocate) and s.buffer is old for s in statements(loop.body))
        if tile.kept is None and not inside:
            return None, function
        chunk = loop if tile.kept is None else next(iter(tile.chunks), loop)
        return None if tile.kept is False else chunk, without_allocation(function, old)

    def _nest(
        self,
        function: TensorFunction,
        tile: Tile,
        suffix: str,
        body: Body,
        condition: Expr | None,
        taken: set[str],
    ) -> Body:
        """A block over the points of the tile, in copies of the loops that step them."""
        spatial = tuple(a for a in tile.site.node.iters if a.kind == "spatial")
        iters, new = renamed_axes(spatial, taken, suffix)
        values: dict[Var, Expr] = dict.fromkeys(axes(tile.site.node, "reduce"), ZERO)
        values |= new
        block = Block(
            block_name(function, f"{self.block}_{suffix}"),
            iters,
            map_exprs(body, lambda e: substitute(e, values)),
        )
        nest = mirrored(function, tile.site, tile.depth, iters, suffix, taken)
        if nest is None:
            raise InternalError(
                f"loops of block '{self.block}' step an axis and a reduction, though that was "
                "checked"
            )
        conditions = nest.conditions if condition is None else (condition, *nest.conditions)
        return Nest(nest.loops, nest.bindings, conditions).around(block)


def _around(loop: LoopSite) -> tuple[For, ...]:
    return (*loop.loops, loop.node)


def needed_after(
    function: TensorFunction,
    site: BlockSite,
    loop: LoopSite,
    store: Access,
    chunks: Sequence[For],
) -> Expr | Literal[False] | None:
    """When what a block has stored is read after the body of a loop: ``None`` for always (as far as
    is shown), ``False`` for never.

    ``chunks`` are the loops around the body that come back to the same elements; reads inside of
    the body are known to be of the elements that it stores.
    """
    elsewhere = any(
        not under(a, loop.node) and not in_block(a, site.node)
        for a in of_buffer(function, store.buffer, "load")
    )
    if elsewhere or not is_internal(function, store.buffer):
        return None
    facts = facts_at(function, site.loops)
    inner = [x for x in site.loops[len(_around(loop)) :] if not steps(x, site.node, "reduce")]
    moving = [*(x for x in _around(loop) if not any(x is y for y in chunks)), *inner]
    places = [substitute(i, site.bindings) for i in store.indices]
    if any(steps(x, site.node, "spatial") for x in chunks) or not one_to_one(
        places, {x.var: x.extent for x in moving}, facts
    ):
        return None
    running = (x for x in chunks if x.extent is not ONE)
    more = _any(ne(x.var, simplify(x.extent - 1, facts)) for x in running)
    return False if more is None else more


def _any(claims: Iterable[Expr]) -> Expr | None:
    """That one of some claims holds; ``None`` if there are none."""
    result: Expr | None = None
    for claim in claims:
        result = claim if result is None else apply("or", result, claim)
    return result


def _stripped(e: Expr, facts: Facts) -> Expr:
    """A multiple of something, as far as the multiple decides whether it is zero."""
    if isinstance(e, Apply) and e.fn == "mul" and prove(e.args[1] >= 1, facts):
        return e.args[0]
    return e


def _inside_tile(function: TensorFunction, loop: LoopSite, write: Access, read: Access) -> bool:
    """Whether a body reads only elements that it has updated."""
    fixed = (*loop.loops, loop.node)
    still = [x.var for x in fixed]
    facts = facts_at(function, read.loops)
    if not covers(write, read, still, facts):
        return False
    # The box around the elements has no holes if it has no more elements than there are steps.
    inner = write.loops[len(fixed) :]
    block = write.blocks[0]
    count = prod((x.extent for x in inner if steps(x, block, "spatial")), start=as_expr(1))
    region = access_region(write, still, facts_at(function, write.loops))
    size = prod((r.extent for r in region), start=as_expr(1))
    return prove(simplify(size - count, facts) <= 0, facts)


def _loads(e: Expr) -> bool:
    return isinstance(e, Load) or any(_loads(x) for x in e.children)


def _holds(stmt: Stmt, inner: Stmt) -> bool:
    return any(s is inner for s in statements((stmt,)))
