"""A part of a nest as one step: the loops from one inwards, with their block, become a block."""

from collections.abc import Mapping
from dataclasses import dataclass

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, divisible
from treadle.expr.scalar import Const, Expr, Var, int_value, substitute
from treadle.expr.simplify import simplify
from treadle.ir.analysis import fresh_name, names
from treadle.ir.tensor import ZERO, Block, For, IterVar, TensorFunction
from treadle.schedule.cache import block_name
from treadle.schedule.digits import one_to_one
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    Body,
    LoopSite,
    blocks_below,
    conjunction,
    conjuncts,
    facts_at,
    locate_loop,
    map_exprs,
    replaced,
    uses,
)
from treadle.schedule.regions import index_range


@dataclass(frozen=True, slots=True)
class Division:
    """An axis as tiles: ``outer * extent + inner``, with ``inner`` below ``extent``.

    ``outer`` is over the loops outside, ``inner`` over those inside; an ``extent`` of 1 says that
    the loops inside do not move the axis.
    """

    axis: IterVar
    outer: Expr
    inner: Expr
    extent: int


@dataclass(frozen=True, slots=True)
class Subspace:
    """A block divided: its loops outside and inside, the axes, and the conditions of either."""

    site: BlockSite
    inside: tuple[For, ...]
    divisions: tuple[Division, ...]
    outer_conditions: tuple[Expr, ...]
    inner_conditions: tuple[Expr, ...]


def subspace(rule: Instruction, function: TensorFunction, loop: LoopSite) -> Subspace:
    """The division of the one block in a loop by that loop.

    Raises:
        ScheduleError: E0371 if the loop holds other statements than one block in a nest; E0372 if
            an axis cannot be shown to be made of tiles.
    """
    site, inside = _chain(rule, function, loop)
    facts = facts_at(function, site.loops)
    moving = {x.var: x.extent for x in inside}
    divisions = tuple(_divided(rule, function, site, axis, moving, facts)
                      for axis in site.node.iters)  # fmt: skip
    count = 1
    for x in inside:
        extent = int_value(simplify(x.extent, facts))
        if extent is None:
            raise rule.refuse(
                function, x, "E0372", f"the extent of '{x.var}' is not a constant",
                hint=f'split("{x.var}", (None, 16)) first',
            )  # fmt: skip
        count *= extent
    tile = 1
    for d in divisions:
        tile *= d.extent
    if tile != count or not one_to_one([d.inner for d in divisions], moving, facts):
        raise rule.refuse(
            function,
            loop.node,
            "E0372",
            f"the loops from '{loop.node.var}' inwards do not run over a tile of axes",
            notes=(f"they take {count} steps, and move the axes over {tile} points",),
        )
    conditions = conjuncts(site.node.where)
    inner = tuple(c for c in conditions if uses(c, moving))
    return Subspace(site, inside, divisions, tuple(c for c in conditions if c not in inner), inner)


def _chain(
    rule: Instruction, function: TensorFunction, loop: LoopSite
) -> tuple[BlockSite, tuple[For, ...]]:
    inside = [loop.node]
    while len(inside[-1].body) == 1 and isinstance(inside[-1].body[0], For):
        inside.append(inside[-1].body[0])
    below = blocks_below(function, loop.node)
    body = inside[-1].body
    if len(below) != 1 or len(body) != 1 or body[0] is not below[0].node:
        raise rule.refuse(
            function,
            loop.node,
            "E0371",
            f"'{loop.node.var}' does not hold one block alone",
            hint="take the start of a reduction out with decompose_reduction, or a loop further in",
        )
    return below[0], tuple(inside)


def _divided(
    rule: Instruction,
    function: TensorFunction,
    site: BlockSite,
    axis: IterVar,
    moving: Mapping[Var, Expr],
    facts: Facts,
) -> Division:
    """One axis as tiles."""
    if not uses(axis.binding, moving):
        return Division(axis, axis.binding, ZERO, 1)
    still: dict[Var, Expr] = {v: Const(0, v.dtype) for v in moving}
    outside = simplify(substitute(axis.binding, still), facts)
    inside = simplify(axis.binding - outside, facts)
    found = index_range(inside, moving, facts)
    extent = None if found is None or found.low is not ZERO else int_value(found.extent)
    outer = {x.var for x in site.loops} - set(moving)
    if extent is None or uses(inside, outer) or not divisible(outside, extent, facts):
        raise rule.refuse(
            function,
            axis,
            "E0372",
            f"axis '{axis.var}' is not made of tiles that the loops inside run over",
            notes=(f"it is {axis.binding}", "the loops inside are " + ", ".join(map(str, moving))),
            hint="split the loop that the axis is bound to, and take the inner part",
        )
    return Division(axis, simplify(outside // extent, facts), inside, extent)


@dataclass(frozen=True, slots=True)
class Divided:
    """A divided block, about to be built: axes outside and inside, and the old axes over both."""

    outer: tuple[IterVar, ...]
    inner: tuple[IterVar, ...]
    values: Mapping[Var, Expr]


def divided_axes(function: TensorFunction, found: Subspace, taken: set[str]) -> Divided:
    """New axes for the block and what is inside of it; ``taken`` are names in use, added to."""
    facts = facts_at(function, ())
    outer: list[IterVar] = []
    inner: list[IterVar] = []
    values: dict[Var, Expr] = {}
    for d in found.divisions:
        axis = d.axis
        if d.extent == 1:
            outer.append(replace_fields(axis, binding=d.outer))
            continue
        count = simplify((axis.extent + (d.extent - 1)) // d.extent, facts)
        index: Expr = ZERO
        if int_value(count) != 1:
            var = _fresh(f"{axis.var.name}_o", taken)
            outer.append(IterVar(var, count, axis.kind, d.outer))
            index = var * d.extent
        var = _fresh(f"{axis.var.name}_i", taken)
        inner.append(IterVar(var, Const(d.extent, axis.var.dtype), axis.kind, d.inner))
        values[axis.var] = simplify(index + var)
    return Divided(tuple(outer), tuple(inner), values)


def _fresh(hint: str, taken: set[str]) -> Var:
    var = Var(fresh_name(hint, taken))
    taken.add(var.name)
    return var


@dataclass(frozen=True)
class Blockize(Instruction):
    """Make one block ``{block}_o`` of a loop and all in it; the block that was there is inside.

    The loop must hold one block in a perfect nest of constant extents, and each axis of that must
    be made of tiles that these loops run over: ``vi`` bound to ``i_0 * 16 + i_1`` becomes ``vi_o``
    bound to ``i_0`` outside and ``vi_i`` bound to ``i_1`` inside. The start of a reduction that
    goes on outside becomes the start of the new block.

    Errors: E0301 no such loop; E0371 other statements in the loop; E0372 no tile; E0373 a start
    together with a condition on the loops inside.
    """

    loop: str

    def check(self, function: TensorFunction) -> Subspace:
        """The division."""
        found = subspace(self, function, locate_loop(self, function, self.loop))
        if found.site.node.init and found.inner_conditions:
            raise self.refuse(
                function,
                found.site.node,
                "E0373",
                f"block '{found.site.node.name}' starts a reduction under a condition on the loops "
                "inside",
                hint="decompose_reduction first",
            )
        return found

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the block."""
        return _built(function, self.check(function))[0]


def blockized(rule: Instruction, function: TensorFunction, loop: str) -> tuple[TensorFunction, str]:
    """The function with the block that ``blockize`` makes of a loop, and its name; a start stays
    inside.

    Raises:
        ScheduleError: in the name of ``rule``, what ``blockize`` refuses.
    """
    found = subspace(rule, function, locate_loop(rule, function, loop))
    if found.site.node.init:
        raise rule.refuse(
            function,
            found.site.node,
            "E0373",
            f"block '{found.site.node.name}' starts its reduction itself",
            hint="decompose_reduction first",
        )
    return _built(function, found)


def _built(function: TensorFunction, found: Subspace) -> tuple[TensorFunction, str]:
    taken = set(names(function))
    made = divided_axes(function, found, taken)
    old = found.site.node
    body = map_exprs(old.body, lambda e: substitute(e, made.values))
    init = map_exprs(old.init, lambda e: substitute(e, made.values))
    goes_on = any(a.kind == "reduce" for a in made.outer)
    inner = replace_fields(
        old,
        iters=made.inner,
        body=body,
        init=() if goes_on else init,
        where=conjunction(found.inner_conditions),
    )
    nest: Body = (inner,)
    for loop in reversed(found.inside):
        nest = (replace_fields(loop, body=nest),)
    start = _start(function, old, made, init, taken) if goes_on and init else ()
    name = block_name(function, f"{old.name}_o")
    where = conjunction(found.outer_conditions)
    outer = Block(name, made.outer, nest, start, where, old.span)
    return replaced(function, (found.inside[0], (outer,))), name


def _start(
    function: TensorFunction, old: Block, made: Divided, init: Body, taken: set[str]
) -> Body:
    """The start of a reduction at every point of a tile."""
    renamed: dict[Var, Expr] = {}
    axes: list[IterVar] = []
    loops: list[tuple[Var, Expr]] = []
    for axis in made.inner:
        if axis.kind == "spatial":
            loop, var = _fresh(f"{axis.var.name}_s", taken), _fresh(f"{axis.var.name}_init", taken)
            renamed[axis.var] = var
            axes.append(IterVar(var, axis.extent, "spatial", loop))
            loops.append((loop, axis.extent))
    changed = map_exprs(init, lambda e: substitute(e, renamed))
    body: Body = (Block(block_name(function, f"{old.name}_init"), tuple(axes), changed),)
    for var, extent in reversed(loops):
        body = (For(var, extent, body, "serial", old.span),)
    return body
