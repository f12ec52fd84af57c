"""Contractions of padded extents, through padded copies of the operands and a cropped result."""

from dataclasses import dataclass

from treadle.base.errors import ScheduleError
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, divisible, prove
from treadle.expr.scalar import Apply, Const, Expr, Var, ceildiv, eq, transform
from treadle.expr.simplify import simplify
from treadle.ir.analysis import fresh_name, names
from treadle.ir.loop_builder import guarded, identity
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    IterVar,
    Load,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.schedule.cache import renamed_axes
from treadle.schedule.dependence import Reduction, in_block, of_buffer, reduction_of, walk_loads
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    Body,
    block_sites,
    conjunction,
    facts_at,
    locate_block,
    replaced,
    rescoped,
)
from treadle.schedule.nests import nest_over
from treadle.schedule.regions import whole


def factors_of(term: Expr) -> tuple[Load, ...] | None:
    """The loads that a term multiplies, each as it is or cast; ``None`` for another term."""
    if isinstance(term, Load):
        return None if term.mask is not None else (term,)
    if not isinstance(term, Apply) or term.fn not in ("mul", "cast"):
        return None
    found = [factors_of(x) for x in term.args]
    if term.fn == "cast" and not (isinstance(term.args[0], Load | Apply) and len(found) == 1):
        return None
    return tuple(x for part in found if part is not None for x in part) if all(found) else None


@dataclass(frozen=True)
class PadEinsum(Instruction):
    """Run a contraction over extents rounded up to multiples: ``padding`` has one number for each
    axis of the block.

    The block adds up (or combines otherwise) a product of operands that are indexed by distinct
    axes. Operands with a padded axis are copied first, by blocks ``{operand}_pad``, to buffers of
    the same name that hold the neutral element of the combination in the padding (1 where products
    are multiplied up); the block writes ``{buffer}_pad``, and ``{block}_crop`` copies what was
    asked for. A padded step of the reduction adds nothing: every operand must have its axis, or an
    infinity of another one would make it NaN (for a sum of integers one operand is enough).

    Errors: E0320 the block runs under a condition; E0323 other writers; E0329 other statements in
    its loops; E0381 its loops are not its axes; E0382 the block is no contraction, or a step of the
    padding would count; E0383 the numbers.
    """

    block: str
    padding: tuple[int, ...]

    def check(self, function: TensorFunction) -> tuple[BlockSite, Reduction, tuple[Load, ...]]:
        """The block, its reduction and the operands."""
        site = locate_block(self, function, self.block)
        block = site.node
        if len(self.padding) != len(block.iters) or any(p < 1 for p in self.padding):
            raise self.refuse(
                function,
                block,
                "E0383",
                f"{self.padding} is not one positive number for each axis of '{self.block}'",
                notes=("the axes are " + ", ".join(str(a.var) for a in block.iters),),
                hint="give 1 for an axis that stays as it is",
            )
        found, operands = self._contraction(function, site)
        if block.where is not None or not all(isinstance(s, For) for s in site.above):
            raise self.refuse(
                function, block, "E0320", f"block '{self.block}' runs under a condition"
            )
        if any(not in_block(a, block) for a in of_buffer(function, found.buffer, "store")):
            raise self.refuse(function, block, "E0323", f"'{found.buffer.name}' has other writers")
        self._check_loops(function, site)
        self._check_neutral(function, site, found, operands)
        return site, found, operands

    def _contraction(
        self, function: TensorFunction, site: BlockSite
    ) -> tuple[Reduction, tuple[Load, ...]]:
        found = reduction_of(site.node)
        operands = None if found is None or found.init is None else factors_of(found.term)
        if found is None or operands is None or not _is_plain(site.node, found, operands):
            raise self.refuse(
                function,
                site.node,
                "E0382",
                f"block '{self.block}' is no contraction",
                hint="it combines a product of operands, each indexed by distinct axes",
            )
        return found, operands

    def _check_loops(self, function: TensorFunction, site: BlockSite) -> None:
        bindings = {a.binding: a for a in site.node.iters}
        for x in site.loops:
            if len(x.body) != 1:
                raise self.refuse(
                    function, x, "E0329", f"'{x.var}' runs more than block '{self.block}'"
                )
            axis = bindings.pop(x.var, None)
            facts = facts_at(function, site.loops)
            if axis is None or not prove(eq(x.extent, axis.extent), facts):
                raise self._not_an_axis(function, site, x)
        for axis in bindings.values():
            if not prove(axis.extent <= 1, facts_at(function, site.loops)):
                raise self._not_an_axis(function, site, axis)

    def _not_an_axis(
        self, function: TensorFunction, site: BlockSite, node: For | IterVar
    ) -> ScheduleError:
        return self.refuse(
            function,
            node if isinstance(node, For) else site.node,
            "E0381",
            f"'{node.var}' is not one axis of block '{self.block}' and its loop",
            hint="pad before loops are split or fused",
        )

    def _check_neutral(
        self,
        function: TensorFunction,
        site: BlockSite,
        found: Reduction,
        operands: tuple[Load, ...],
    ) -> None:
        for axis in _padded(self, function, site):
            if axis.kind != "reduce":
                continue
            having = [x for x in operands if axis.var in x.indices]
            product = found.combine == "add" and not any(
                x.dtype.is_float for x in (*operands, found.term)
            )
            if not having or (len(having) < len(operands) and not product):
                other = next(x for x in operands if x not in having)
                raise self.refuse(
                    function,
                    site.node,
                    "E0382",
                    f"a padded step of '{axis.var}' could change the result",
                    notes=(f"{other} does not have the axis",),
                    hint="leave the axis as it is: padding 1",
                )

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function over padded extents."""
        site, found, operands = self.check(function)
        padded = _padded(self, function, site)
        if not padded:
            return function
        facts = facts_at(function, ())
        extents = {
            a.var: _rounded(a.extent, p, facts) if a in padded else a.extent
            for a, p in zip(site.node.iters, self.padding, strict=True)
        }
        work = _Work(function, site, {a.var: a.extent for a in padded}, extents, facts)
        copies: dict[Expr, Expr] = {}
        before: list[Stmt] = []
        for operand in dict.fromkeys(operands):
            if any(i in work.limits for i in operand.indices):
                neutral = identity(found.combine, operand.dtype)
                copies[operand], stmts = work.copied(operand, neutral)
                before.extend(stmts)
        after: Body = ()
        result = found.buffer
        if any(i in work.limits for i in found.indices):
            result, declared, after = work.cropped(found)
            before.extend(declared)
        nest = site.path[0]
        padded_nest = work.nest(result, found, copies)
        return rescoped(replaced(function, (nest, (*before, *padded_nest, *after))))


def _is_plain(block: Block, found: Reduction, operands: tuple[Load, ...]) -> bool:
    """Whether all indices are distinct axes, the result's all spatial ones, and terms are products
    only where the combination has a zero or a one for them.
    """
    own = {a.var for a in block.iters}
    spatial = {a.var for a in block.iters if a.kind == "spatial"}
    return (
        (found.combine in ("add", "mul") or operands == (found.term,))
        and all(_distinct(x.indices, own) for x in operands)
        and set(found.indices) == spatial
        and _distinct(found.indices, own)
    )


def _distinct(indices: tuple[Expr, ...], own: set[Var]) -> bool:
    return len(set(indices)) == len(indices) and all(i in own for i in indices)


def _padded(rule: PadEinsum, function: TensorFunction, site: BlockSite) -> tuple[IterVar, ...]:
    """The axes whose extent is not shown to be a multiple already."""
    facts = facts_at(function, ())
    pairs = zip(site.node.iters, rule.padding, strict=True)
    return tuple(a for a, p in pairs if not divisible(a.extent, p, facts))


def _rounded(extent: Expr, multiple: int, facts: Facts) -> Expr:
    return simplify(ceildiv(extent, multiple) * multiple, facts)


class _Work:
    """Makes the statements of a padded contraction; ``limits`` are the old extents of the axes that
    are padded, ``extents`` the new ones of all.
    """

    def __init__(
        self,
        function: TensorFunction,
        site: BlockSite,
        limits: dict[Var, Expr],
        extents: dict[Var, Expr],
        facts: Facts,
    ) -> None:
        self.site, self.limits, self.extents, self.facts = site, limits, extents, facts
        self.taken = set(names(function))
        self.blocks = {s.node.name for s in block_sites(function)}
        self.axes = {a.var: a for a in site.node.iters}

    def copied(self, operand: Load, neutral: Const) -> tuple[Load, Body]:
        """The operand in a padded buffer, and the statements that fill that."""
        used = [self.axes[v] for v in operand.indices if isinstance(v, Var)]
        shape = tuple(self.extents[a.var] for a in used)
        copy = self._buffer(operand.buffer, shape)
        iters, new = renamed_axes(tuple(used), self.taken, copy.name)
        whole_axes = tuple(
            replace_fields(a, extent=d, kind="spatial") for a, d in zip(iters, shape, strict=True)
        )
        place = tuple(a.var for a in whole_axes)
        inside = conjunction(new[a.var] < self.limits[a.var] for a in used if a.var in self.limits)
        value: Expr = Load(operand.buffer, place)
        if inside is not None:
            value = guarded(inside, value, neutral)
        stmts = self._filled(whole_axes, Store(copy, place, value), copy.name)
        return Load(copy, operand.indices), (Allocate(copy), *stmts)

    def cropped(self, found: Reduction) -> tuple[Buffer, Body, Body]:
        """The padded result, its declaration, and the copy of what was asked for."""
        used = [self.axes[v] for v in found.indices if isinstance(v, Var)]
        padded = self._buffer(found.buffer, tuple(self.extents[a.var] for a in used))
        iters, _ = renamed_axes(tuple(used), self.taken, "crop")
        place = tuple(a.var for a in iters)
        store = Store(found.buffer, place, Load(padded, place))
        return (
            padded,
            (Allocate(padded),),
            self._filled(iters, store, f"{self.site.node.name}_crop"),
        )

    def nest(self, result: Buffer, found: Reduction, copies: dict[Expr, Expr]) -> Body:
        """The block over the new extents, in its loops."""
        block = self.site.node
        own = Load(found.buffer, found.indices)
        changes = copies | {own: Load(result, found.indices)}
        store, start = block.body[0], found.init
        assert isinstance(store, Store)
        assert start is not None
        value = transform(store.value, changes.get)
        limited = conjunction(
            v < self.limits[v] for v in found.indices if isinstance(v, Var) and v in self.limits
        )
        if limited is not None and walk_loads(start):
            start = guarded(limited, start, Const(0, start.dtype))
        inner = replace_fields(
            block,
            iters=tuple(replace_fields(a, extent=self.extents[a.var]) for a in block.iters),
            body=(Store(result, found.indices, value, None, store.span),),
            init=(Store(result, found.indices, start, None, store.span),),
        )
        body: Body = (inner,)
        bound = {a.binding: a.var for a in block.iters}
        for x in reversed(self.site.loops):
            body = (replace_fields(x, extent=self.extents[bound[x.var]], body=body),)
        return body

    def _buffer(self, like: Buffer, shape: tuple[Expr, ...]) -> Buffer:
        name = fresh_name(f"{like.name}_pad", self.taken)
        self.taken.add(name)
        return Buffer(name, shape, like.dtype)

    def _filled(self, iters: tuple[IterVar, ...], store: Store, name: str) -> Body:
        block = Block(fresh_name(name, self.blocks), iters, (store,))
        self.blocks.add(block.name)
        ranges = [whole(a.extent) for a in iters]
        return nest_over(iters, ranges, self.facts, self.taken).around(block)
