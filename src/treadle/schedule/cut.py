"""Cut a loop in pieces that run one after the other; each piece is a nest of its own.

The axes that the loop leads are cut with it: every copy of a block runs over all of a domain of its
own, counted from zero, so that what is known of blocks holds for the copies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.base.rewrite import Rewriter, replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Expr, Var, eq, maximum, minimum, substitute
from treadle.expr.simplify import simplify
from treadle.ir.tensor import ZERO, Block, For, IterVar, TensorFunction
from treadle.schedule.copies import Names, copied
from treadle.schedule.dependence import weight_of
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    LoopSite,
    blocks_below,
    facts_at,
    simplified_where,
    tidied,
    uses,
)
from treadle.schedule.regions import index_range


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` iterations from ``start`` on; what the copies define is named with ``suffix``."""

    start: Expr
    length: Expr
    suffix: str


def led_axes(
    rule: Instruction, function: TensorFunction, site: BlockSite, loop: For
) -> dict[Var, Expr]:
    """The axes of a block that a loop steps, and by how much.

    Raises:
        ScheduleError: E0312 where a step of the loop does not skip all that the other loops reach
            in the axis: then a part of the loop is no part of the axis.
    """
    others = {x.var: x.extent for x in site.loops if x is not loop}
    facts = facts_at(function, site.loops)
    found: dict[Var, Expr] = {}
    for axis in site.node.iters:
        if not uses(axis.binding, (loop.var,)):
            continue
        weight = weight_of(axis.binding, loop)
        rest = None
        fixed = not uses(axis.extent, (loop.var, *others))
        if weight is not None and fixed and not uses(weight, (loop.var, *others)):
            rest = index_range(substitute(axis.binding, {loop.var: ZERO}), others, facts)
        if (
            weight is None
            or rest is None
            or not prove(rest.low >= 0, facts)
            or not prove(rest.end <= weight, facts)
        ):
            raise rule.refuse(
                function,
                loop,
                "E0312",
                f"a part of '{loop.var}' is no part of axis '{axis.var}' of block "
                f"'{site.node.name}'",
                notes=(f"the axis is {axis.binding}",),
                hint=f"{rule.name()} the loop that steps the axis before it is split or fused",
            )
        found[axis.var] = weight
    return found


def cut(
    rule: Instruction, function: TensorFunction, site: LoopSite, pieces: Sequence[Piece]
) -> tuple[For, ...]:
    """A loop for each piece, in order; the first keeps the names.

    Raises:
        ScheduleError: E0312 as ``led_axes`` says; E0352 where the loop steps a reduction that its
            first piece might not start.
    """
    loop = site.node
    led = {b.node: led_axes(rule, function, b, loop) for b in blocks_below(function, loop)}
    facts = facts_at(function, site.loops)
    if not prove(pieces[0].length >= 1, facts):
        _refuse_starts(rule, function, led)
    taken = Names(function)
    result: list[For] = []
    for piece in pieces:
        first = piece is pieces[0]
        var = loop.var if first else Var(taken.fresh(f"{loop.var.name}{piece.suffix}"))
        moved = _Moved(loop, var, piece, led, facts, last=piece is pieces[-1])
        body = moved.rewrite(loop.body)
        body = body if first else copied(body, piece.suffix, taken)
        result.append(For(var, piece.length, body, "serial", loop.span))
    return tuple(result)


def _refuse_starts(
    rule: Instruction, function: TensorFunction, led: dict[Block, dict[Var, Expr]]
) -> None:
    for block, axes in led.items():
        if block.init and any(a.kind == "reduce" and a.var in axes for a in block.iters):
            raise rule.refuse(
                function,
                block,
                "E0352",
                f"the first part of the loop may be empty, and would not start the reduction of "
                f"block '{block.name}'",
                hint=f'decompose_reduction("{block.name}", ...) first',
            )


class _Moved(Rewriter):
    """The body of one piece."""

    def __init__(
        self,
        loop: For,
        var: Var,
        piece: Piece,
        led: dict[Block, dict[Var, Expr]],
        facts: Facts,
        last: bool,
    ) -> None:
        self.loop, self.piece, self.led, self.last = loop, piece, led, last
        self.var = var
        self.whole = facts
        self.facts = facts.with_range(var, piece.length)
        self.values: dict[Var, Expr] = {loop.var: simplify(piece.start + var, self.facts)}

    def rewrite_expr(self, node: Expr) -> Expr:
        return substitute(node, self.values)

    def rewrite_for(self, node: For) -> For:
        outer = self.facts
        extent = substitute(node.extent, self.values)
        self.facts = outer.with_range(node.var, extent)
        body = self.rewrite(node.body)
        self.facts = outer
        return replace_fields(node, body=body, extent=extent)

    def rewrite_block(self, node: Block) -> Block:
        axes = self.led.get(node)
        if axes is None:
            return self.generic(node)
        outer = self.values
        iters = tuple(self._axis(axis, axes.get(axis.var)) for axis in node.iters)
        where = None if node.where is None else substitute(node.where, outer)
        shifts = {v: v + simplify(w * self.piece.start, self.whole) for v, w in axes.items()}
        self.values = outer if self.piece.start is ZERO else {**outer, **shifts}
        reduces = any(a.kind == "reduce" and a.var in axes for a in node.iters)
        started = reduces and self.piece.start is not ZERO
        body, init = self.rewrite(node.body), () if started else self.rewrite(node.init)
        self.values = outer
        return replace_fields(
            node,
            iters=iters,
            body=body,
            init=init,
            where=None if where is None else simplified_where(where, self.facts),
        )

    def _axis(self, axis: IterVar, weight: Expr | None) -> IterVar:
        if weight is None:
            return self.generic(axis)
        binding = substitute(axis.binding, {self.loop.var: self.var})
        return replace_fields(
            axis, binding=tidied(binding, self.facts), extent=self._extent(axis, weight)
        )

    def _extent(self, axis: IterVar, weight: Expr) -> Expr:
        """The part of a domain that the piece steps through."""
        start = simplify(weight * self.piece.start, self.whole)
        left = simplify(axis.extent - start, self.whole)
        if not prove(left >= 0, self.whole):
            left = maximum(left, 0)
        own = simplify(weight * self.piece.length, self.whole)
        if self.last:
            whole = prove(eq(axis.extent, weight * self.loop.extent), self.whole)
            return own if whole else left
        return own if prove(own <= left, self.whole) else simplify(minimum(own, left), self.whole)
