"""New loops for a block: over boxes of its axes, or like the loops that another block has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Expr, Var, int_value, substitute
from treadle.expr.simplify import simplify
from treadle.ir.analysis import fresh_name
from treadle.ir.tensor import ZERO, Block, For, IterVar, LoopKind, TensorFunction
from treadle.schedule.dependence import steps
from treadle.schedule.nest import BlockSite, Body, conjunction, facts_at, tidied, uses
from treadle.schedule.regions import Range, whole

Loops = tuple[tuple[Var, Expr, LoopKind], ...]


@dataclass(frozen=True, slots=True)
class Nest:
    """Loops (variable, extent, kind), outermost first, and what the axes of a block are bound to in
    them.
    """

    loops: Loops
    bindings: tuple[Expr, ...]
    conditions: tuple[Expr, ...]

    def around(self, block: Block) -> Body:
        """The block in these loops."""
        pairs = zip(block.iters, self.bindings, strict=True)
        iters = tuple(replace_fields(axis, binding=binding) for axis, binding in pairs)
        body: Body = (replace_fields(block, iters=iters, where=conjunction(self.conditions)),)
        for var, extent, kind in reversed(self.loops):
            body = (For(var, extent, body, kind, block.span),)
        return body


def nest_over(
    iters: Sequence[IterVar], ranges: Sequence[Range], facts: Facts, taken: set[str]
) -> Nest:
    """A loop for each axis over its range; conditions keep the axis in its domain where that is not
    shown.

    ``taken`` are names in use; those of the new loops are added.
    """
    loops: list[tuple[Var, Expr, LoopKind]] = []
    bindings: list[Expr] = []
    for axis, wanted in zip(iters, ranges, strict=True):
        around = whole(axis.extent) if prove(wanted.extent >= axis.extent, facts) else wanted
        if int_value(around.extent) == 1:
            bindings.append(around.low)
            continue
        var = Var(fresh_name(axis.var.name, taken))
        taken.add(var.name)
        loops.append((var, around.extent, "serial"))
        facts = facts.with_range(var, around.extent)
        bindings.append(var if around.low is ZERO else around.low + var)
    conditions = inside_conditions(iters, bindings, facts)
    return Nest(tuple(loops), tuple(bindings), conditions)


def inside_conditions(
    iters: Sequence[IterVar], bindings: Sequence[Expr], facts: Facts
) -> tuple[Expr, ...]:
    """What keeps axes in their domains, as far as it does not follow from ``facts``."""
    pairs = zip(iters, bindings, strict=True)
    claims = (c for axis, binding in pairs for c in (binding >= 0, binding < axis.extent))
    return tuple(simplify(c, facts) for c in claims if not prove(c, facts))


def mirrored_loops(
    loops: Sequence[For], used: Sequence[Expr], suffix: str, taken: set[str]
) -> tuple[Mapping[Var, Var], Loops]:
    """Copies of the loops that some expressions mention: the new name of each, and the loops.

    ``taken`` are names in use; those of the new loops are added.
    """
    renamed: dict[Var, Var] = {}
    copies: list[tuple[Var, Expr, LoopKind]] = []
    for loop in loops:
        if any(uses(e, (loop.var,)) for e in used):
            var = Var(fresh_name(f"{loop.var.name}_{suffix}", taken))
            taken.add(var.name)
            renamed[loop.var] = var
            copies.append((var, substitute(loop.extent, renamed), loop.kind))
    return renamed, tuple(copies)


def mirrored(
    function: TensorFunction,
    site: BlockSite,
    depth: int,
    iters: Sequence[IterVar],
    suffix: str,
    taken: set[str],
) -> Nest | None:
    """Loops like those of a block from ``depth`` on, for axes bound as its spatial ones are.

    ``None`` when one of those loops also steps a reduction.
    """
    inner = site.loops[depth:]
    used = [axis.binding for axis in iters]
    for loop in inner:
        if any(uses(e, (loop.var,)) for e in used) and steps(loop, site.node, "reduce"):
            return None
    renamed, loops = mirrored_loops(inner, used, suffix, taken)
    facts = facts_at(function, site.loops[:depth])
    for var, extent, _ in loops:
        facts = facts.with_range(var, extent)
    bindings = tuple(tidied(substitute(e, renamed), facts) for e in used)
    return Nest(loops, bindings, inside_conditions(iters, bindings, facts))
