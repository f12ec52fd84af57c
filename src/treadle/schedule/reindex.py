"""Copies in the order of a block's own axes, so that the block accesses them plainly."""

from collections.abc import Iterable
from dataclasses import dataclass

from treadle.base.errors import ScheduleError
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Expr, Var, substitute, transform, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access, accesses, fresh_name, names, symbols
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    Intrinsic,
    IterVar,
    Load,
    Scope,
    Store,
    TensorFunction,
)
from treadle.schedule.cache import (
    axis_boxes,
    block_name,
    check_scope,
    only_reads,
    own_nest,
    renamed_axes,
    sole_store,
    written_through,
)
from treadle.schedule.dependence import axes, only_tails, steps
from treadle.schedule.digits import one_to_one
from treadle.schedule.index_map import IndexMap
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    conjuncts,
    facts_at,
    locate_block,
    map_exprs,
    replaced,
    rescoped,
)
from treadle.schedule.nests import nest_over
from treadle.schedule.regions import index_range


@dataclass(frozen=True, slots=True)
class Point:
    """The one place of a buffer, over its axes, that a block accesses."""

    site: BlockSite
    access: Access

    def axes(self, *more: Expr) -> tuple[IterVar, ...]:
        """The axes of the block that the place, its mask, or ``more`` depend on."""
        mask = () if self.access.mask is None else (self.access.mask,)
        used = set(variables(*self.access.indices, *mask, *more))
        return tuple(a for a in self.site.node.iters if a.var in used)


def domain_facts(function: TensorFunction, iters: Iterable[IterVar]) -> Facts:
    """What is known while axes are in their domains."""
    facts = facts_at(function, ())
    for axis in iters:
        facts = facts.with_range(axis.var, axis.extent)
    return facts


def read_point(rule: Instruction, function: TensorFunction, block: str, buffer: str) -> Point:
    """The one place where a block reads a buffer, all over its domain.

    Raises:
        ScheduleError: E0301, E0320, E0324, E0328, E0360.
    """
    site, own = only_reads(rule, function, block, buffer)
    if not only_tails(function, site):
        raise rule.refuse(
            function, site.node, "E0320", f"block '{block}' runs under a condition of its own"
        )
    if len({(a.indices, a.mask) for a in own}) != 1 or is_special(own[0]):
        raise rule.refuse(
            function,
            site.node,
            "E0324",
            f"block '{block}' does not read '{buffer}' at one place",
            notes=tuple(", ".join(map(str, a.indices)) for a in own),
            hint=f'cache_read("{block}", "{buffer}", ...) copies it as it is',
        )
    point = Point(site, own[0])
    # A block's own condition bounds its axes; one more inside it may keep a load from happening.
    if any(len(a.conditions) > (site.node.where is not None) or a.lets for a in own):
        raise rule.refuse(
            function, site.node, "E0328", f"block '{block}' reads '{buffer}' under a condition"
        )
    _check_readable(rule, function, point)
    return point


def is_special(access: Access) -> bool:
    """Whether an access is of a vector, or takes an address."""
    lanes = any(i.dtype.lanes > 1 for i in access.indices)
    return lanes or isinstance(access.stmt, Intrinsic)


def _check_readable(rule: Instruction, function: TensorFunction, point: Point) -> None:
    access, site = point.access, point.site
    known = {a.var for a in site.node.iters} | set(symbols(function))
    facts = domain_facts(function, site.node.iters)
    for condition in conjuncts(access.mask):
        facts = facts.with_fact(condition)
    for index, extent in zip(access.indices, access.buffer.shape, strict=True):
        local = all(v in known for v in variables(index))
        if not local or not prove(index >= 0, facts) or not prove(index < extent, facts):
            raise rule.refuse(
                function,
                site.node,
                "E0360",
                f"cannot show that {index} is inside of '{access.buffer.name}' all over the domain "
                f"of block '{site.node.name}'",
                notes=(f"the extent is {extent}",),
                hint="copy the buffer as it is with cache_read",
            )


def write_point(rule: Instruction, function: TensorFunction, block: str) -> Point:
    """The one place where a block writes, another for every point of its spatial axes.

    Raises:
        ScheduleError: E0301, E0311, E0320, E0323, E0324, E0325.
    """
    site, store = sole_store(rule, function, block)
    point = Point(site, store)
    own = accesses((site.node,))
    if any(a.buffer is store.buffer and a.indices != store.indices for a in own):
        raise rule.refuse(
            function,
            site.node,
            "E0324",
            f"block '{block}' reads '{store.buffer.name}' where it does not write it",
        )
    spatial = tuple(a for a in site.node.iters if a.kind == "spatial")
    facts = domain_facts(function, site.node.iters)
    if not one_to_one(store.indices, {a.var: a.extent for a in spatial}, facts):
        raise rule.refuse(
            function,
            site.node,
            "E0325",
            f"cannot show that block '{block}' writes another element at every point of its axes",
            notes=("the indices are " + ", ".join(map(str, store.indices)),),
        )
    _, around = own_nest(function, site)
    for x in site.loops[len(around) :]:
        if steps(x, site.node, "reduce") and steps(x, site.node, "spatial"):
            raise rule.refuse(
                function, x, "E0311", f"'{x.var}' steps an axis and a reduction at once"
            )
    return point


def own_cache(
    function: TensorFunction, point: Point, name: str, shape: tuple[Expr, ...], scope: Scope
) -> Buffer:
    """The buffer for a copy."""
    name = fresh_name(name, names(function))
    return Buffer(name, shape, point.access.buffer.dtype, scope)


def read_in_order(
    function: TensorFunction, point: Point, cache: Buffer, place: tuple[Expr, ...]
) -> TensorFunction:
    """Let a block read ``cache`` at ``place`` (over its axes), copied before the largest nest that
    holds it alone.
    """
    site, access = point.site, point.access
    taken = {*names(function), cache.name}
    used = tuple(replace_fields(a, kind="spatial") for a in point.axes(*place))
    nest, around = own_nest(function, site)
    iters, new = renamed_axes(used, taken, cache.name)
    values: dict[Var, Expr] = dict(new)
    load = Load(access.buffer, access.indices, access.mask)
    copied = Store(cache, tuple(substitute(e, values) for e in place), substitute(load, values))
    copy = Block(block_name(function, cache.name), iters, (copied,))
    boxes = axis_boxes(function, site, used, around)
    copies = nest_over(iters, boxes, facts_at(function, around), taken).around(copy)
    there = Load(cache, place)
    block = map_exprs((site.node,), lambda e: transform(e, lambda x: there if x is load else None))
    changed = replaced(function, (nest, (Allocate(cache), *copies, nest)))
    return rescoped(replaced(changed, (site.node, block)))


@dataclass(frozen=True)
class Reindex(Instruction):
    """Let a block access a buffer at its axes, in their order, through a copy.

    The copy ``{buffer}_reindex`` has a dimension for every axis that the access depends on (for a
    store: for every spatial axis). What is read is copied before the largest nest that holds the
    block alone, what is written after it. A mask of the load goes into the copy.

    Errors: E0311 a loop steps an axis and a reduction at once; E0320 the block's form; E0323 other
    writers; E0324 it accesses the buffer at several places; E0325 the store's indices; E0328 it
    reads under a condition; E0360 an index not shown to be inside of the buffer.
    """

    block: str
    buffer: str

    def check(self, function: TensorFunction) -> Point:
        """The block and its access."""
        site = locate_block(self, function, self.block)
        stores = [a.buffer.name for a in accesses((site.node,)) if a.kind == "store"]
        if self.buffer in stores:
            return write_point(self, function, self.block)
        return read_point(self, function, self.block, self.buffer)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the copy."""
        point = self.check(function)
        writes = point.access.kind == "store"
        block = point.site.node
        own = tuple(a for a in block.iters if a.kind == "spatial") if writes else point.axes()
        place = tuple(a.var for a in own)
        shape = tuple(a.extent for a in own)
        cache = own_cache(function, point, f"{self.buffer}_reindex", shape, "global")
        if writes:
            return written_through(self, function, point.site, point.access, cache, place)
        return read_in_order(function, point, cache, place)


@dataclass(frozen=True)
class ReindexCacheRead(Instruction):
    """Let a block read a buffer through a copy whose layout is a map of the block's axes.

    ``place`` takes every axis of the block, in order, and gives the indices of the copy
    ``{buffer}_{scope}``. Two points that read different elements must have different places.

    Errors: E0320 the block's form; E0322 no such scope; E0324 it reads the buffer at several
    places; E0328 it reads under a condition; E0340 the map; E0360 an index not shown to be inside
    of the buffer.
    """

    block: str
    buffer: str
    scope: Scope
    place: IndexMap

    def check(self, function: TensorFunction) -> Point:
        """The block and its access."""
        check_scope(self, function, self.scope)
        point = read_point(self, function, self.block, self.buffer)
        _mapped(self, function, point.site, self.place, {a.var for a in point.axes()})
        return point

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the copy."""
        point = self.check(function)
        needed = {a.var for a in point.axes()}
        place, shape = _mapped(self, function, point.site, self.place, needed)
        cache = own_cache(function, point, f"{self.buffer}_{self.scope}", shape, self.scope)
        return read_in_order(function, point, cache, place)


@dataclass(frozen=True)
class ReindexCacheWrite(Instruction):
    """Let a block write a buffer through another whose layout is a map of the block's axes.

    ``place`` takes every axis of the block, in order, and gives the indices of the new buffer
    ``{buffer}_{scope}``, from which the block ``{block}_copy`` fills the one that was written. Two
    points must have different places; axes of a reduction have no part in them.

    Errors: E0311 a loop steps an axis and a reduction at once; E0320 the block's form; E0322 no
    such scope; E0323 other writers; E0324 it reads the buffer elsewhere; E0325 the store's indices;
    E0340 the map.
    """

    block: str
    scope: Scope
    place: IndexMap

    def check(self, function: TensorFunction) -> Point:
        """The block and its store."""
        check_scope(self, function, self.scope)
        point = write_point(self, function, self.block)
        self._mapped(function, point)
        return point

    def _mapped(
        self, function: TensorFunction, point: Point
    ) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
        spatial = set(axes(point.site.node, "spatial"))
        place, shape = _mapped(self, function, point.site, self.place, spatial)
        if any(v not in spatial for v in variables(*place)):
            raise _refuse_map(
                self, function, point.site, self.place, "an axis of the reduction is used"
            )
        return place, shape

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the copy."""
        point = self.check(function)
        place, shape = self._mapped(function, point)
        name = f"{point.access.buffer.name}_{self.scope}"
        cache = own_cache(function, point, name, shape, self.scope)
        return written_through(self, function, point.site, point.access, cache, place)


def _mapped(
    rule: Instruction,
    function: TensorFunction,
    site: BlockSite,
    place: IndexMap,
    needed: set[Var],
) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """The indices that a map gives over a block's axes, and the shape that they fill.

    Raises:
        ScheduleError: E0340 if it does not tell points apart by the axes ``needed``.
    """
    iters = site.node.iters
    if len(place.params) != len(iters):
        raise _refuse_map(
            rule, function, site, place, f"the block has {len(iters)} axes, the map takes others"
        )
    named: dict[Var, Expr] = dict(zip(place.variables, (a.var for a in iters), strict=True))
    if any(v not in named for v in variables(*place.results)):
        raise _refuse_map(rule, function, site, place, "it uses more than its parameters")
    results = tuple(substitute(r, named) for r in place.results)
    extents = {a.var: a.extent for a in iters}
    facts = domain_facts(function, iters)
    shape: list[Expr] = []
    for result in results:
        found = index_range(result, extents, facts_at(function, ()))
        if found is None or not prove(found.low >= 0, facts):
            raise _refuse_map(
                rule, function, site, place, f"{result} may be negative or has no known bound"
            )
        shape.append(simplify(found.end, facts))
    if not one_to_one(results, {v: e for v, e in extents.items() if v in needed}, facts):
        raise _refuse_map(rule, function, site, place, "two points may get one place")
    return results, tuple(shape)


def _refuse_map(
    rule: Instruction, function: TensorFunction, site: BlockSite, place: IndexMap, why: str
) -> ScheduleError:
    names_ = ", ".join(a.var.name for a in site.node.iters)
    return rule.refuse(
        function,
        site.node,
        "E0340",
        f"the map does not fit: {why}",
        notes=(f"the map is {place}", f"the axes are {names_}"),
        hint="give a one-to-one map of the block's axes made of +, *, // and % by constants",
    )
