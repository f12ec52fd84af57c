"""Primitives on loops: split, fuse, reorder, and what runs a loop at once: vectorize, unroll,
parallel.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import divisible, prove
from treadle.expr.scalar import Expr, Var, as_expr, eq, int_value
from treadle.expr.simplify import simplify
from treadle.ir.analysis import fresh_name, names
from treadle.ir.tensor import ONE, ZERO, For, LoopKind, TensorFunction
from treadle.schedule.dependence import (
    check_blocks_only,
    check_order,
    check_stages,
    check_steps,
    is_distinct,
    is_private,
    reduction_of,
    steps,
    weight_of,
    written_below,
)
from treadle.schedule.digits import digits
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    LoopSite,
    bind,
    blocks_below,
    facts_at,
    guarded_body,
    locate_loop,
    replaced,
    uses,
)


def _require_serial(rule: Instruction, function: TensorFunction, site: LoopSite) -> None:
    if site.node.kind != "serial":
        name, kind = site.node.var.name, site.node.kind
        raise rule.refuse(
            function,
            site.node,
            "E0302",
            f"loop '{name}' is already {kind}",
            hint=f"{rule.name()} the loop before it is made {kind}",
        )


@dataclass(frozen=True)
class Split(Instruction):
    """Split one loop in several, the outermost first.

    ``for i in range(n)`` becomes ``for i_0 in range((n + 5) // 6): for i_1 in range(6)`` with ``i =
    i_0 * 6 + i_1`` for the factors ``(None, 6)``. One factor may be ``None``: it is inferred,
    rounded up. Where the product may exceed ``n``, the blocks below run only where ``i < n``.

    Errors: E0302 the loop is not serial; E0303 factors that are not positive, more than one
    ``None``, or too small; E0312 the loop is an inner part of an axis, and the factors leave a
    rest.
    """

    loop: str
    factors: tuple[int | None, ...]

    def check(self, function: TensorFunction) -> LoopSite:
        """The loop, if it may be split so."""
        site = locate_loop(self, function, self.loop)
        _require_serial(self, function, site)
        known = [f for f in self.factors if f is not None]
        if len(self.factors) < 2 or any(f < 1 for f in known) or len(known) + 1 < len(self.factors):
            raise self.refuse(
                function,
                site.node,
                "E0303",
                f"{self.factors} are no factors",
                hint="give two or more positive factors; one of them may be None",
            )
        if len(known) == len(self.factors):
            total = prod(known)
            if not prove(site.node.extent <= total, facts_at(function, site.loops)):
                raise self.refuse(
                    function,
                    site.node,
                    "E0303",
                    f"the factors of '{self.loop}' may be too small",
                    notes=(f"the extent is {site.node.extent}, the product {total}",),
                    hint="make one factor None",
                )
        if not self._extents(site.node, function, site)[1]:
            self._check_leading(function, site)
        return site

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
        loop, facts = site.node, facts_at(function, site.loops)
        extents, exact = self._extents(loop, function, site)
        taken = set(names(function))
        variables: list[Var] = []
        for number in range(len(extents)):
            variables.append(Var(fresh_name(f"{self.loop}_{number}", taken)))
            taken.add(variables[-1].name)
        index: Expr = ZERO
        stride: Expr = ONE
        for var, extent in zip(reversed(variables), reversed(extents), strict=True):
            index, stride = var * stride + index, stride * extent
        for var, extent in zip(variables, extents, strict=True):
            facts = facts.with_range(var, extent)
        index = simplify(index)
        body = loop.body if exact else guarded_body(loop.body, loop.var < loop.extent)
        body = bind(body, {loop.var: index}, facts)
        for var, extent in zip(reversed(variables), reversed(extents), strict=True):
            body = (For(var, extent, body, "serial", loop.span),)
        return replaced(function, (loop, body))

    def _extents(
        self, loop: For, function: TensorFunction, site: LoopSite
    ) -> tuple[tuple[Expr, ...], bool]:
        facts = facts_at(function, site.loops)
        total = prod(f for f in self.factors if f is not None)
        inferred = simplify((loop.extent + (total - 1)) // total, facts)
        if None not in self.factors:
            exact = prove(eq(loop.extent, total), facts)
        else:
            exact = divisible(loop.extent, total, facts)
            inferred = simplify(loop.extent // total, facts) if exact else inferred
        return tuple(inferred if f is None else as_expr(f) for f in self.factors), exact


@dataclass(frozen=True)
class Fuse(Instruction):
    """Make one loop of a perfect nest: ``i`` over n and ``j`` over m become ``i_j`` over ``n * m``.

    Errors: E0302 a loop is not serial; E0304 the loops do not follow each other directly, or an
    extent depends on an outer loop.
    """

    loops: tuple[str, ...]

    def check(self, function: TensorFunction) -> tuple[LoopSite, ...]:
        """The loops, outermost first."""
        sites = tuple(locate_loop(self, function, name) for name in self.loops)
        if len(sites) < 2:
            node = sites[0].node if sites else None
            raise self.refuse(function, node, "E0304", "two or more loops are needed")
        for outer, inner in pairwise(sites):
            _require_serial(self, function, inner)
            if len(outer.node.body) != 1 or outer.node.body[0] is not inner.node:
                raise self.refuse(
                    function,
                    inner.node,
                    "E0304",
                    f"'{inner.node.var}' is not all that '{outer.node.var}' runs",
                    hint="fuse loops that follow each other directly, outermost first",
                )
            if uses(inner.node.extent, (s.node.var for s in sites)):
                raise self.refuse(
                    function,
                    inner.node,
                    "E0304",
                    f"the extent of '{inner.node.var}' depends on an outer loop",
                )
        _require_serial(self, function, sites[0])
        return sites

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loops fused."""
        sites = self.check(function)
        facts = facts_at(function, sites[0].loops)
        var = Var(fresh_name("_".join(self.loops), names(function)))
        values: dict[Var, Expr] = {}
        stride: Expr = ONE
        for site in reversed(sites):
            index = var if stride is ONE else var // stride
            values[site.node.var] = index if site is sites[0] else index % site.node.extent
            stride = simplify(site.node.extent * stride, facts)
        facts = facts.with_range(var, stride)
        body = bind(sites[-1].node.body, values, facts)
        loop = For(var, stride, body, "serial", sites[0].node.span)
        return replaced(function, (sites[0].node, (loop,)))


@dataclass(frozen=True)
class Reorder(Instruction):
    """Put loops of one nest in another order; loops between them that are not named stay where they
    are.

    The steps of a floating-point reduction keep their order; ``reassociate=True`` accepts another
    one, which changes rounding as another order of summation does.

    Errors: E0304 the loops are not in one chain, or an extent depends on a loop that would go
    inside; E0307 blocks below depend on each other across iterations; E0308 a reduction would
    change its order; E0310 statements outside blocks.
    """

    loops: tuple[str, ...]
    reassociate: bool = False

    def check(self, function: TensorFunction) -> tuple[For, ...]:
        """The chain, from the outermost named loop to the innermost."""
        sites = [locate_loop(self, function, name) for name in self.loops]
        if len({id(s.node) for s in sites}) != len(sites) or not sites:
            raise self.refuse(function, None, "E0304", "a loop is named twice, or none is")
        deepest = max(sites, key=lambda s: len(s.above))
        highest = min(sites, key=lambda s: len(s.above))
        chain = deepest.path[len(highest.above) :]
        for site in sites:
            if not any(s is site.node for s in chain):
                raise self.refuse(
                    function,
                    site.node,
                    "E0304",
                    f"'{site.node.var}' is not in one nest with '{deepest.node.var}'",
                )
        for outer in chain[:-1]:
            if not isinstance(outer, For) or len(outer.body) != 1:
                raise self.refuse(
                    function,
                    outer,
                    "E0304",
                    "other statements stand between the loops",
                    hint="move them into loops of their own first, as decompose_reduction does",
                )
        loops = tuple(s for s in chain if isinstance(s, For))
        self._check_extents(function, loops)
        after = self._ordered(loops)
        below = blocks_below(function, loops[-1])
        check_blocks_only(self, function, loops[-1])
        if after != loops:
            check_stages(self, function, loops, deepest)
            for site in below:
                check_order(self, function, site, loops, after, self.reassociate)
        return loops

    def _check_extents(self, function: TensorFunction, chain: tuple[For, ...]) -> None:
        for loop in chain:
            if uses(loop.extent, (other.var for other in chain)):
                raise self.refuse(
                    function,
                    loop,
                    "E0304",
                    f"the extent of '{loop.var}' depends on a loop of the nest",
                )

    def _ordered(self, chain: tuple[For, ...]) -> tuple[For, ...]:
        wanted = {name: loop for loop in chain for name in self.loops if loop.var.name == name}
        order = iter(self.loops)
        return tuple(wanted[next(order)] if loop.var.name in wanted else loop for loop in chain)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loops in their new order."""
        chain = self.check(function)
        body = chain[-1].body
        for loop in reversed(self._ordered(chain)):
            body = (replace_fields(loop, body=body),)
        return replaced(function, (chain[0], body))


@dataclass(frozen=True)
class _Bound(Instruction):
    """Common to what gives a loop a kind."""

    loop: str

    def _mark(self, function: TensorFunction, site: LoopSite, kind: LoopKind) -> TensorFunction:
        return replaced(function, (site.node, (replace_fields(site.node, kind=kind),)))

    def _require_constant(self, function: TensorFunction, site: LoopSite) -> None:
        if int_value(site.node.extent) is None:
            raise self.refuse(
                function,
                site.node,
                "E0305",
                f"the extent of '{self.loop}' is not a constant",
                notes=(f"the extent is {site.node.extent}",),
                hint=f'split("{self.loop}", (None, 16)) first, and {self.name()} the inner loop',
            )

    def _require_apart(
        self, function: TensorFunction, site: LoopSite, kind: LoopKind, why: str
    ) -> None:
        inner = (s for s, _ in _loops_below(site.node) if s.kind == kind)
        other = next((s for s in (*site.loops, *inner) if s.kind == kind), None)
        if other is not None:
            raise self.refuse(
                function,
                site.node,
                "E0309",
                f"'{self.loop}' {why} '{other.var}'",
                notes=(f"both would be {kind}",),
            )


_LANES_COMBINE = frozenset({"add", "mul", "min", "max"})


def _combines_lanes(function: TensorFunction, loop: For) -> bool:
    """Whether a loop steps nothing but one reduction whose start stands elsewhere."""
    below = blocks_below(function, loop)
    if len(below) != 1 or len(loop.body) != 1 or loop.body[0] is not below[0].node:
        return False
    block = below[0].node
    found = reduction_of(block)
    steps_only = steps(loop, block, "reduce") and not steps(loop, block, "spatial")
    return (
        found is not None and found.init is None and found.combine in _LANES_COMBINE and steps_only
    )


def _loops_below(loop: For) -> list[tuple[For, int]]:
    found: list[tuple[For, int]] = []
    stack = [(s, 1) for s in loop.body]
    while stack:
        stmt, depth = stack.pop()
        if isinstance(stmt, For):
            found.append((stmt, depth))
        for body in (getattr(stmt, "body", ()), getattr(stmt, "orelse", ())):
            stack.extend((s, depth + 1) for s in body)
    return found


@dataclass(frozen=True)
class Unroll(_Bound):
    """Repeat the body of a loop of constant extent.

    Errors: E0302 the loop is not serial; E0305 the extent is not a constant.
    """

    def check(self, function: TensorFunction) -> LoopSite:
        """The loop."""
        site = locate_loop(self, function, self.loop)
        _require_serial(self, function, site)
        self._require_constant(function, site)
        return site

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loop marked."""
        return self._mark(function, self.check(function), "unrolled")


@dataclass(frozen=True)
class Vectorize(_Bound):
    """Run the iterations of a loop of constant extent as the lanes of vectors.

    The loop must step spatial axes only: lanes of a reduction are combined by ``rfactor`` first.
    Every lane must write elements of its own. With ``reassociate``, the loop may instead be the
    innermost one of a reduction without init: the lanes are combined with each other before the
    result is, which for floats rounds in another order.

    Errors: E0302, E0305, E0306 (the loop steps a reduction), E0307, E0309 (another vectorized
    loop), E0310, E0311.
    """

    reassociate: bool = False

    def check(self, function: TensorFunction) -> LoopSite:
        """The loop."""
        site = locate_loop(self, function, self.loop)
        _require_serial(self, function, site)
        self._require_constant(function, site)
        self._require_apart(function, site, "vectorized", "is in one nest with the vectorized loop")
        check_blocks_only(self, function, site.node)
        if self.reassociate and _combines_lanes(function, site.node):
            return site
        check_steps(self, function, site, hint=f'rfactor("{self.loop}") first')
        check_stages(self, function, (site.node,), site)
        for block, store in written_below(function, site.node):
            if not is_distinct(function, block, store, site.node):
                raise self.refuse(
                    function,
                    block.node,
                    "E0311",
                    f"lanes of '{self.loop}' would write the same elements of "
                    f"'{store.buffer.name}'",
                    hint="vectorize a loop that steps an axis of the result",
                )
        return site

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loop marked."""
        return self._mark(function, self.check(function), "vectorized")


@dataclass(frozen=True)
class Parallel(_Bound):
    """Run the iterations of a loop on all threads.

    The loop must step spatial axes only. Two iterations may write the same elements only of a
    buffer that is used nowhere else: each iteration then has its own, which the compaction of
    storage places inside the loop.

    Errors: E0302, E0306 (the loop steps a reduction), E0307, E0309 (another parallel loop, or
    inside a vectorized one), E0310, E0311.
    """

    def check(self, function: TensorFunction) -> LoopSite:
        """The loop."""
        site = locate_loop(self, function, self.loop)
        _require_serial(self, function, site)
        self._require_apart(function, site, "parallel", "is in one nest with the parallel loop")
        if any(loop.kind == "vectorized" for loop in site.loops):
            raise self.refuse(
                function, site.node, "E0309", f"'{self.loop}' runs inside a vectorized loop"
            )
        check_blocks_only(self, function, site.node)
        check_steps(
            self,
            function,
            site,
            hint="parallelize a loop that steps an axis of the result, or rfactor first",
        )
        check_stages(self, function, (site.node,), site)
        for block, store in written_below(function, site.node):
            if not is_distinct(function, block, store, site.node) and not is_private(
                function, store.buffer, site.node
            ):
                raise self.refuse(
                    function,
                    block.node,
                    "E0311",
                    f"iterations of '{self.loop}' would write the same elements of "
                    f"'{store.buffer.name}'",
                    hint="parallelize a loop that steps an axis of the result",
                )
        return site

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loop marked."""
        return self._mark(function, self.check(function), "parallel")
