"""Padding without conditions: the border is filled, the inside copied."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import (
    Apply,
    Const,
    Expr,
    Var,
    eq,
    int_value,
    maximum,
    minimum,
    substitute,
    transform,
    variables,
)
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import fresh_name, names, symbols
from treadle.ir.tensor import ZERO, Block, For, IterVar, Load, Store, TensorFunction
from treadle.schedule.dependence import axes, only_tails, single_store, walk_loads, weight_of
from treadle.schedule.digits import one_to_one
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    Body,
    LoopSite,
    block_sites,
    conjunction,
    conjuncts,
    facts_at,
    locate_block,
    locate_loop,
    replaced,
    uses,
)
from treadle.schedule.nests import inside_conditions

_Part = Literal["below", "inside", "above", "all"]


@dataclass(frozen=True, slots=True)
class Padding:
    """A block's store of ``inner`` where all of ``inside`` hold, and of ``pad`` elsewhere."""

    store: Store
    inside: tuple[Expr, ...]
    inner: Expr
    pad: Expr


def padding_of(block: Block) -> Padding | None:
    """The padding that a block is: ``select(inside, inner, pad)``, or a load that is masked."""
    store = single_store(block)
    if store is None or store.mask is not None or block.init or axes(block, "reduce"):
        return None
    value = store.value
    if isinstance(value, Load) and value.mask is not None:
        bare, zero = Load(value.buffer, value.indices), Const(0, value.dtype)
        return Padding(store, conjuncts(value.mask), bare, zero)
    if not isinstance(value, Apply) or value.fn != "select":
        return None
    condition, inner, pad = value.args
    if walk_loads(pad) or walk_loads(condition):
        return None
    inside = conjuncts(condition)
    return Padding(store, inside, _unmasked(inner, inside), pad)


def _unmasked(value: Expr, known: tuple[Expr, ...]) -> Expr:
    """A value whose loads need no mask where all of ``known`` hold."""

    def bare(x: Expr) -> Expr | None:
        if not isinstance(x, Load) or x.mask is None:
            return None
        rest = conjunction(c for c in conjuncts(x.mask) if c not in known)
        return Load(x.buffer, x.indices, rest)

    return transform(value, bare)


def bounds_of(claim: Expr, var: Var) -> tuple[Expr | None, Expr | None] | None:
    """From where, and up to where (not included), ``var`` makes a comparison true; ``None`` for
    another form.
    """
    if not isinstance(claim, Apply) or claim.fn not in ("lt", "le", "gt", "ge"):
        return None
    a, b = claim.args if claim.fn in ("ge", "gt") else claim.args[::-1]
    # Now a >= b, or a > b.
    split = split_linear(simplify(a - b - (1 if claim.fn in ("lt", "gt") else 0)), var)
    weight = None if split is None else int_value(split[0])
    if split is None or not weight:
        return None
    rest = split[1]
    if weight > 0:
        return simplify(ZERO - rest // weight), None
    return None, simplify(rest // -weight + 1)


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis, the loop inside that steps it, and its positions inside: from ``low`` to before
    ``high``.

    ``end``: that loop is the axis' position, and steps it from the first one to before this one.
    Where there is none, conditions say what loops say otherwise.
    """

    axis: IterVar
    loop: For | None
    end: Expr | None
    low: Expr
    high: Expr

    def ends(self, part: _Part) -> tuple[Expr, Expr]:
        """Where a part begins and ends."""
        end = self.axis.extent if self.end is None else self.end
        return {
            "below": (ZERO, self.low),
            "inside": (self.low, self.high),
            "above": (self.high, end),
            "all": (ZERO, end),
        }[part]

    def is_empty(self, part: _Part, facts: Facts) -> bool:
        """Whether a part is shown to have no positions."""
        begin, end = self.ends(part)
        return prove(end <= begin, facts)

    def conditions(self, part: _Part, binding: Expr) -> tuple[Expr, ...]:
        """What holds of the axis in a part."""
        begin, end = self.ends(part)
        return (binding >= begin, binding < end)


@dataclass(frozen=True)
class DecomposePadding(Instruction):
    """Make a block ``out = inner if inside else pad`` a copy of the inside, without a condition,
    after blocks that fill the border with ``pad``.

    ``inside`` says from where to where each axis goes. From ``loop`` on the block gets loops over
    the inside only; before it stands, for each side of each axis, a block ``{block}_pad`` over that
    side (of the axes before, only the inside), so that every element is written once. Of an axis
    that a loop around ``loop`` steps, conditions on that loop choose the side.

    Errors: E0302 a loop is not serial; E0320 a condition, or the block reads what it writes; E0325
    the store's indices; E0329 the loop is not around the block alone; E0380 the block is no
    padding; E0381 a loop that is not one axis.
    """

    block: str
    loop: str

    def check(self, function: TensorFunction) -> tuple[BlockSite, LoopSite, Padding]:
        """The block, the loop and the padding."""
        site = locate_block(self, function, self.block)
        loop = locate_loop(self, function, self.loop)
        block = site.node
        found = padding_of(block)
        if found is None:
            raise self.refuse(
                function,
                block,
                "E0380",
                f"block '{self.block}' does not store one value inside and another outside",
                hint="the store's value is select(inside, value, pad), or a load under a mask",
            )
        if not only_tails(function, site) or any(
            x.buffer is found.store.buffer for x in walk_loads(found.store.value)
        ):
            raise self.refuse(
                function,
                block,
                "E0320",
                f"block '{self.block}' runs under a condition of its own, or reads what it writes",
            )
        self._check_store(function, site, found)
        self._check_loops(function, site, loop)
        self._axes(function, site, loop, found)
        return site, loop, found

    def _check_store(self, function: TensorFunction, site: BlockSite, found: Padding) -> None:
        extents = {a.var: a.extent for a in site.node.iters}
        facts = _with_axes(facts_at(function, site.loops), site.node.iters)
        if not one_to_one(found.store.indices, extents, facts):
            raise self.refuse(
                function,
                found.store,
                "E0325",
                f"cannot show that block '{self.block}' stores each element once",
            )

    def _check_loops(self, function: TensorFunction, site: BlockSite, loop: LoopSite) -> None:
        if not any(s is loop.node for s in site.above):
            raise self.refuse(
                function, loop.node, "E0329", f"'{self.loop}' is not around block '{self.block}'"
            )
        inner = site.loops[len(loop.loops) :]
        for x in inner:
            if len(x.body) != 1:
                raise self.refuse(
                    function, x, "E0329", f"'{x.var}' runs more than block '{self.block}'"
                )
            if x.kind != "serial":
                raise self.refuse(function, x, "E0302", f"loop '{x.var}' is already {x.kind}")
            idle = not any(uses(a.binding, (x.var,)) for a in site.node.iters)
            if idle and prove(x.extent <= 1, facts_at(function, loop.loops)):
                continue
            if not _steps_one_axis(x, site.node, inner):
                raise self.refuse(
                    function,
                    x,
                    "E0381",
                    f"'{x.var}' is not what alone steps an axis of block '{self.block}'",
                    hint="choose a loop further in, or decompose before loops are split or fused",
                )

    def _axes(
        self, function: TensorFunction, site: BlockSite, loop: LoopSite, found: Padding
    ) -> tuple[_Axis, ...]:
        facts = facts_at(function, loop.loops)
        inner = site.loops[len(loop.loops) :]
        lows: dict[Var, Expr] = {a.var: ZERO for a in site.node.iters}
        highs: dict[Var, Expr] = {a.var: a.extent for a in site.node.iters}
        known = set(symbols(function))
        for claim in found.inside:
            used = [v for v in variables(claim) if v not in known]
            ends = bounds_of(claim, used[0]) if len(used) == 1 and used[0] in lows else None
            if ends is None:
                raise self.refuse(
                    function,
                    site.node,
                    "E0380",
                    f"{claim} does not bound one axis of block '{self.block}'",
                    hint="the condition joins comparisons of one axis with a bound each",
                )
            low, high = ends
            if low is not None:
                lows[used[0]] = _larger(lows[used[0]], low, facts)
            if high is not None:
                highs[used[0]] = _smaller(highs[used[0]], high, facts)
        result: list[_Axis] = []
        for axis in site.node.iters:
            step = next((x for x in inner if uses(axis.binding, (x.var,))), None)
            end = _stepped_to(step, axis, facts)
            # Outside of the domain there is nothing: low and high stay in it, in this order.
            last = axis.extent if end is None else end
            low = _smaller(lows[axis.var], last, facts)
            high = (
                highs[axis.var] if last is axis.extent else _smaller(highs[axis.var], last, facts)
            )
            high = _larger(high, low, facts)
            result.append(_Axis(axis, step, end, low, high))
        return tuple(result)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the border apart."""
        site, loop, found = self.check(function)
        facts = facts_at(function, loop.loops)
        own = self._axes(function, site, loop, found)
        inner = site.loops[len(loop.loops) :]
        build = _Builder(function, site.node, found, inner, facts)
        body: list[Body] = [build.side(own, parts) for parts in _sides(own, facts)]
        body.append(build.inside(own))
        return replaced(function, (loop.node, tuple(s for b in body for s in b)))


def _steps_one_axis(loop: For, block: Block, inner: tuple[For, ...]) -> bool:
    """Whether a loop moves one axis by one, alone among the inner loops, and none of their
    extents.
    """
    owners = [a for a in block.iters if uses(a.binding, (loop.var,))]
    if len(owners) != 1 or any(uses(x.extent, (loop.var,)) for x in inner):
        return False
    step = weight_of(owners[0].binding, loop)
    others = [x for x in inner if x is not loop and uses(owners[0].binding, (x.var,))]
    return step is not None and int_value(step) == 1 and not others


def _stepped_to(step: For | None, axis: IterVar, facts: Facts) -> Expr | None:
    """Where a loop that is the position on an axis ends, if that is shown to lie on the axis."""
    if step is None or axis.binding is not step.var:
        return None
    if prove(eq(step.extent, axis.extent), facts):
        return axis.extent
    return step.extent if prove(step.extent <= axis.extent, facts) else None


def _larger(a: Expr, b: Expr, facts: Facts) -> Expr:
    if prove(a <= b, facts):
        return b
    return a if prove(b <= a, facts) else maximum(a, b)


def _smaller(a: Expr, b: Expr, facts: Facts) -> Expr:
    if prove(a <= b, facts):
        return a
    return b if prove(b <= a, facts) else minimum(a, b)


def _sides(own: tuple[_Axis, ...], facts: Facts) -> Iterator[tuple[_Part, ...]]:
    """The parts of the border: for each axis what lies below and above, of the axes before it only
    the inside.
    """
    for position, axis in enumerate(own):
        sides: tuple[_Part, ...] = ("below", "above")
        for side in sides:
            if not axis.is_empty(side, facts):
                before: tuple[_Part, ...] = ("inside",) * position
                after: tuple[_Part, ...] = ("all",) * (len(own) - position - 1)
                yield (*before, side, *after)


class _Builder:
    """Makes the blocks of a decomposed padding, under names of their own."""

    def __init__(
        self,
        function: TensorFunction,
        block: Block,
        found: Padding,
        inner: tuple[For, ...],
        facts: Facts,
    ) -> None:
        self.block, self.found, self.inner, self.facts = block, found, inner, facts
        self.taken = set(names(function))
        self.blocks = {s.node.name for s in block_sites(function)}

    def inside(self, own: tuple[_Axis, ...]) -> Body:
        """The block over the inside, under the old names."""
        variables = {a.axis.var: a.axis.var for a in own} | {x.var: x.var for x in self.inner}
        return self._block(self.block.name, own, ("inside",) * len(own), variables)

    def side(self, own: tuple[_Axis, ...], parts: tuple[_Part, ...]) -> Body:
        """A block that fills one side of the border."""
        renamed = {v: self._fresh(f"{v.name}_pad") for v in (a.axis.var for a in own)}
        renamed |= {x.var: self._fresh(f"{x.var.name}_pad") for x in self.inner}
        name = fresh_name(f"{self.block.name}_pad", self.blocks)
        self.blocks.add(name)
        return self._block(name, own, parts, renamed)

    def _fresh(self, hint: str) -> Var:
        var = Var(fresh_name(hint, self.taken))
        self.taken.add(var.name)
        return var

    def _block(
        self,
        name: str,
        own: tuple[_Axis, ...],
        parts: tuple[_Part, ...],
        variables: dict[Var, Var],
    ) -> Body:
        iters: list[IterVar] = []
        conditions: list[Expr] = []
        values: dict[Var, Expr] = {}
        extents: dict[Var, Expr] = {x.var: x.extent for x in self.inner}
        for a, part in zip(own, parts, strict=True):
            var = variables[a.axis.var]
            if a.end is not None and a.loop is not None:
                begin, end = a.ends(part)
                extent = simplify(end - begin, self.facts)
                extents[a.loop.var] = extent
                iters.append(IterVar(var, extent, "spatial", variables[a.loop.var]))
                values[a.axis.var] = begin + var
            else:
                binding = substitute(a.axis.binding, variables)
                iters.append(IterVar(var, a.axis.extent, "spatial", binding))
                conditions += a.conditions(part, binding)
                values[a.axis.var] = var
        facts = self.facts
        for x in self.inner:
            facts = facts.with_range(variables[x.var], extents[x.var])
        outside = facts
        for claim in conditions:
            facts = facts.with_fact(claim)
        tails = inside_conditions(iters, [a.binding for a in iters], facts)
        block = replace_fields(
            self.block,
            name=name,
            iters=tuple(iters),
            body=(self._store(parts, values, tuple(iters)),),
            where=conjunction((*_needed(conditions, outside), *tails)),
        )
        body: Body = (block,)
        for x in reversed(self.inner):
            body = (replace_fields(x, var=variables[x.var], extent=extents[x.var], body=body),)
        return body

    def _store(
        self, parts: tuple[_Part, ...], values: dict[Var, Expr], iters: tuple[IterVar, ...]
    ) -> Store:
        facts = _with_axes(self.facts, iters)
        inside = all(p == "inside" for p in parts)
        value = substitute(self.found.inner if inside else self.found.pad, values)
        old = self.found.store
        return replace_fields(
            old,
            indices=tuple(simplify(substitute(i, values), facts) for i in old.indices),
            value=_simple_indices(value, facts),
        )


def _needed(conditions: Iterable[Expr], facts: Facts) -> tuple[Expr, ...]:
    return tuple(simplify(c, facts) for c in conditions if not prove(c, facts))


def _simple_indices(value: Expr, facts: Facts) -> Expr:
    def visit(x: Expr) -> Expr | None:
        if not isinstance(x, Load):
            return None
        return Load(x.buffer, tuple(simplify(i, facts) for i in x.indices), x.mask)

    return transform(value, visit)


def _with_axes(facts: Facts, iters: tuple[IterVar, ...]) -> Facts:
    for axis in iters:
        facts = facts.with_range(axis.var, axis.extent)
    return facts
