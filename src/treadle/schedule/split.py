"""Split a loop, and what becomes of a rest that the factors leave."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, divisible, prove
from treadle.expr.scalar import Expr, Var, as_expr, eq, maximum
from treadle.expr.simplify import simplify
from treadle.ir.tensor import ONE, ZERO, For, TensorFunction
from treadle.schedule.copies import Names
from treadle.schedule.cut import Piece, cut
from treadle.schedule.dependence import weight_of
from treadle.schedule.digits import digits
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    Body,
    LoopSite,
    bind,
    blocks_below,
    facts_at,
    guarded_body,
    locate_loop,
    replaced,
    require_plain,
    uses,
)
from treadle.schedule.padding import padded

Tail = Literal["guard", "mask", "peel", "pad", "balanced"]
TAILS: tuple[Tail, ...] = ("guard", "mask", "peel", "pad", "balanced")


@dataclass(frozen=True)
class Split(Instruction):
    """Split one loop in several, the outermost first.

    ``for i in range(n)`` becomes ``for i_0 in range((n + 5) // 6): for i_1 in range(6)`` with ``i =
    i_0 * 6 + i_1`` for the factors ``(None, 6)``. One factor may be ``None``: it is inferred,
    rounded up. ``tail`` says what becomes of a rest, where the product cannot be shown to be ``n``:

    ``"guard"``: the blocks below run only where ``i < n``. Lowering gives full tiles a version
    without the condition, and short tiles of unrolled loops versions of their own.

    ``"mask"``: the same condition, and one version of the tile: lanes are masked. The innermost
    loop is annotated so.

    ``"peel"``: the loops run over full tiles only; a loop over the rest follows them, with copies
    of all that ``i`` runs (``i_rest``, and so on).

    ``"pad"``: there is no condition. Buffers of the function's own that are touched beyond ``n``
    are made larger; nothing outside the loop sees what is there.

    ``"balanced"``: parts whose sizes differ by one at most: 40 rows in parts of at most 16 are 14,
    13 and 13. The larger parts are one nest, the others follow in a nest of copies.

    Errors: E0302 the loop is not serial; E0303 factors that are not positive, more than one
    ``None``, too small, or without the ``None`` that the tail wants; E0312 the loop is an inner
    part of an axis, and the factors leave a rest; E0350 the loop is annotated; E0351 what is padded
    would be seen; E0352 the first part may not start a reduction.
    """

    loop: str
    factors: tuple[int | None, ...]
    tail: Tail = "guard"

    def check(self, function: TensorFunction) -> LoopSite:
        """The loop, if it may be split so."""
        site = locate_loop(self, function, self.loop)
        require_plain(self, function, site)
        self._check_factors(function, site)
        if not self._extents(function, site)[1] and self.tail in ("guard", "mask", "pad"):
            self._check_leading(function, site)
        return site

    def _check_factors(self, function: TensorFunction, site: LoopSite) -> None:
        known = [f for f in self.factors if f is not None]
        if len(self.factors) < 2 or any(f < 1 for f in known) or len(known) + 1 < len(self.factors):
            raise self.refuse(
                function,
                site.node,
                "E0303",
                f"{self.factors} are no factors",
                hint="give two or more positive factors; one of them may be None",
            )
        if self.tail not in TAILS:
            listed = ", ".join(f'"{t}"' for t in TAILS)
            raise self.refuse(
                function, site.node, "E0303", f"'{self.tail}' is no tail", hint=f"give {listed}"
            )
        if len(known) < len(self.factors):
            fits = self.tail != "balanced" or len(self.factors) == 2
        else:
            fits = self.tail not in ("peel", "balanced")
        if not fits:
            raise self.refuse(
                function,
                site.node,
                "E0303",
                f"{self.factors} are no factors for tail={self.tail!r}",
                hint="make one factor None; for balanced parts, one of two",
            )
        total = prod(known)
        if len(known) == len(self.factors) and not prove(
            site.node.extent <= total, facts_at(function, site.loops)
        ):
            raise self.refuse(
                function,
                site.node,
                "E0303",
                f"the factors of '{self.loop}' may be too small",
                notes=(f"the extent is {site.node.extent}, the product {total}",),
                hint="make one factor None",
            )

    def _check_leading(self, function: TensorFunction, site: LoopSite) -> None:
        """A loop that other loops outweigh in an axis must be split without a rest: steps beyond it
        belong to others.
        """
        for block in blocks_below(function, site.node):
            for axis in block.node.iters:
                weight = weight_of(axis.binding, site.node)
                outer = {x.var: x.extent for x in block.loops if x is not site.node}
                parts = digits(axis.binding, outer) if uses(axis.binding, (site.node.var,)) else ()
                if weight is None or parts is None or not parts:
                    continue
                facts = facts_at(function, block.loops)
                if any(prove(p.coefficient >= weight, facts) for p in parts):
                    raise self.refuse(
                        function,
                        site.node,
                        "E0312",
                        f"'{self.loop}' is an inner part of axis '{axis.var}', and cannot be "
                        "shown to divide",
                        notes=(f"the axis is {axis.binding}",),
                        hint="split the outer loop into all its parts at once",
                    )

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loop split."""
        site = self.check(function)
        extents, exact = self._extents(function, site)
        if not exact and self.tail == "peel":
            return self._peeled(function, site)
        if not exact and self.tail == "balanced":
            return self._balanced(function, site)
        loop = site.node
        if not exact and self.tail == "pad":
            function, loop = padded(self, function, site, simplify(prod(extents, start=ONE)))
        elif not exact:
            loop = replace_fields(loop, body=guarded_body(loop.body, loop.var < loop.extent))
        facts = facts_at(function, site.loops)
        tiled = _tiled(loop, extents, facts, Names(function))
        if not exact and self.tail == "mask":
            tiled = _annotated_innermost(tiled, len(extents))
        place = locate_loop(self, function, self.loop).node
        return replaced(function, (place, (tiled,)))

    def _extents(self, function: TensorFunction, site: LoopSite) -> tuple[tuple[Expr, ...], bool]:
        """The extents of the new loops, and whether their product is the old one."""
        facts, extent = facts_at(function, site.loops), site.node.extent
        total = prod(f for f in self.factors if f is not None)
        inferred = simplify((extent + (total - 1)) // total, facts)
        if None not in self.factors:
            exact = prove(eq(extent, total), facts)
        else:
            exact = divisible(extent, total, facts)
            inferred = simplify(extent // total, facts) if exact else inferred
        return tuple(inferred if f is None else as_expr(f) for f in self.factors), exact

    def _peeled(self, function: TensorFunction, site: LoopSite) -> TensorFunction:
        facts, extent = facts_at(function, site.loops), site.node.extent
        total = prod(f for f in self.factors if f is not None)
        count = simplify(extent // total, facts)
        extents = tuple(count if f is None else as_expr(f) for f in self.factors)
        return self._in_two(function, site, simplify(count * total, facts), extents, None)

    def _balanced(self, function: TensorFunction, site: LoopSite) -> TensorFunction:
        facts, extent = facts_at(function, site.loops), site.node.extent
        outer, inner = self.factors
        parts = as_expr(outer if outer is not None else 1)
        if inner is not None:
            parts = simplify((extent + (inner - 1)) // inner, facts)
            parts = parts if prove(parts >= 1, facts) else maximum(parts, 1)
        small, larger = simplify(extent // parts, facts), simplify(extent % parts, facts)
        return self._in_two(
            function,
            site,
            simplify(larger * (small + 1), facts),
            (larger, simplify(small + 1, facts)),
            (simplify(parts - larger, facts), small),
        )

    def _in_two(
        self,
        function: TensorFunction,
        site: LoopSite,
        middle: Expr,
        first: tuple[Expr, ...],
        second: tuple[Expr, ...] | None,
    ) -> TensorFunction:
        """The loop cut in the ``middle``, and the parts split exactly; ``None`` leaves a part."""
        facts = facts_at(function, site.loops)
        rest = site.node.extent - middle if second is None else prod(second, start=ONE)
        rest = simplify(rest, facts)
        pieces = [
            piece
            for piece in (Piece(ZERO, middle, ""), Piece(middle, rest, "_rest"))
            if not prove(piece.length <= 0, facts)
        ]
        loops = cut(self, function, site, pieces)
        extents = {"": first, "_rest": second}
        names = Names(replaced(function, (site.node, loops)))
        body: list[For] = []
        for piece, loop in zip(pieces, loops, strict=True):
            sizes = extents[piece.suffix]
            body.append(loop if sizes is None else _tiled(loop, sizes, facts, names))
        return replaced(function, (site.node, tuple(body)))


def _tiled(loop: For, extents: tuple[Expr, ...], facts: Facts, names: Names) -> For:
    """Loops of ``extents`` that take the steps of ``loop``."""
    variables = [Var(names.fresh(f"{loop.var.name}_{k}")) for k in range(len(extents))]
    index: Expr = ZERO
    stride: Expr = ONE
    for var, extent in zip(reversed(variables), reversed(extents), strict=True):
        index, stride = var * stride + index, stride * extent
    for var, extent in zip(variables, extents, strict=True):
        facts = facts.with_range(var, extent)
    body: Body = bind(loop.body, {loop.var: simplify(index)}, facts)
    result = loop
    for var, extent in zip(reversed(variables), reversed(extents), strict=True):
        result = For(var, extent, body, "serial", loop.span)
        body = (result,)
    return result


def _annotated_innermost(loop: For, depth: int) -> For:
    if depth == 1:
        return replace_fields(loop, annotations=(("tail", "mask"),))
    (inner,) = loop.body
    assert isinstance(inner, For)
    return replace_fields(loop, body=(_annotated_innermost(inner, depth - 1),))
