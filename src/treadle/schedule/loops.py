"""Primitives on loops: fuse, reorder, and what runs a loop at once: vectorize, unroll, parallel."""

from dataclasses import dataclass
from itertools import pairwise

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, int_value
from treadle.expr.simplify import simplify
from treadle.ir.analysis import fresh_name, names
from treadle.ir.tensor import ONE, THREAD_AXES, For, LoopKind, TensorFunction
from treadle.schedule.dependence import (
    check_blocks_only,
    check_order,
    check_own_reads,
    check_stages,
    check_steps,
    is_distinct,
    is_private,
    reduction_of,
    steps,
    written_below,
)
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    LoopSite,
    bind,
    blocks_below,
    facts_at,
    locate_loop,
    replaced,
    require_plain,
    require_serial,
    uses,
)


@dataclass(frozen=True)
class Fuse(Instruction):
    """Make one loop of a perfect nest: ``i`` over n and ``j`` over m become ``i_j`` over ``n * m``.

    Errors: E0302 a loop is not serial; E0304 the loops do not follow each other directly, or an
    extent depends on an outer loop; E0350 a loop is annotated.
    """

    loops: tuple[str, ...]

    def check(self, function: TensorFunction) -> tuple[LoopSite, ...]:
        """The loops, outermost first."""
        sites = tuple(locate_loop(self, function, name) for name in self.loops)
        if len(sites) < 2:
            node = sites[0].node if sites else None
            raise self.refuse(function, node, "E0304", "two or more loops are needed")
        for outer, inner in pairwise(sites):
            require_plain(self, function, inner)
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
        require_plain(self, function, sites[0])
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


def _check_points(rule: Instruction, function: TensorFunction, loop: For) -> None:
    for below in blocks_below(function, loop):
        moved = [a.var for a in below.node.iters if uses(a.binding, (loop.var,))]
        check_own_reads(rule, function, below, moved)


def check_independent(
    rule: Instruction, function: TensorFunction, site: LoopSite, hint: str, *, hints: bool = False
) -> None:
    """Refuse (E0307, E0310, E0311) a loop whose iterations cannot run at once: blocks depend on
    each other across them, or two write one element of what is used outside of the loop. With
    ``hints``, it may ask for memory.
    """
    check_blocks_only(rule, function, site.node, hints=hints)
    check_stages(rule, function, (site.node,), site)
    _check_points(rule, function, site.node)
    for block, store in written_below(function, site.node):
        if not is_distinct(function, block, store, site.node) and not is_private(
            function, store.buffer, site.node
        ):
            raise rule.refuse(
                function,
                block.node,
                "E0311",
                f"iterations of '{site.node.var}' would write the same elements of "
                f"'{store.buffer.name}'",
                hint=hint,
            )


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

    To repeat the body a few times only, split the loop and unroll the inner one:
    ``split("i", (None, 4), tail="peel")``, then ``unroll("i_1")``.

    Errors: E0302 the loop is not serial; E0305 the extent is not a constant.
    """

    def check(self, function: TensorFunction) -> LoopSite:
        """The loop."""
        site = locate_loop(self, function, self.loop)
        require_serial(self, function, site)
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
        require_serial(self, function, site)
        self._require_constant(function, site)
        self._require_apart(function, site, "vectorized", "is in one nest with the vectorized loop")
        check_blocks_only(self, function, site.node)
        if self.reassociate and _combines_lanes(function, site.node):
            return site
        check_steps(self, function, site, hint=f'rfactor("{self.loop}") first')
        check_stages(self, function, (site.node,), site)
        _check_points(self, function, site.node)
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
    inside a vectorized one or one over threads), E0310, E0311.
    """

    def check(self, function: TensorFunction) -> LoopSite:
        """The loop."""
        site = locate_loop(self, function, self.loop)
        require_serial(self, function, site)
        self._require_apart(function, site, "parallel", "is in one nest with the parallel loop")
        around = next((x for x in site.loops if x.kind in ("vectorized", *THREAD_AXES)), None)
        if around is not None:
            raise self.refuse(
                function,
                site.node,
                "E0309",
                f"'{self.loop}' runs inside the loop '{around.var}', which is {around.kind}",
            )
        check_steps(
            self,
            function,
            site,
            hint="parallelize a loop that steps an axis of the result, or rfactor first",
        )
        check_independent(
            self,
            function,
            site,
            "parallelize a loop that steps an axis of the result",
            hints=True,
        )
        return site

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loop marked."""
        return self._mark(function, self.check(function), "parallel")
