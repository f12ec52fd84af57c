"""The axes that a block counts its points by."""

from dataclasses import dataclass
from math import prod

from treadle.base.errors import ScheduleError
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Expr, Var, as_expr, eq, substitute, transform, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import accesses, fresh_name, names
from treadle.ir.tensor import ZERO, For, IterKind, IterVar, Load, TensorFunction
from treadle.schedule.dependence import reduction_of
from treadle.schedule.digits import one_to_one
from treadle.schedule.index_map import IndexMap
from treadle.schedule.instruction import Instruction
from treadle.schedule.inverse import inverse
from treadle.schedule.nest import BlockSite, Body, facts_at, locate_block, map_exprs, replaced, uses
from treadle.schedule.regions import index_range


@dataclass(frozen=True)
class TransformBlockLayout(Instruction):
    """Count the points of a block by other axes: ``lambda i, j: (i * 8 + j,)`` makes one axis of
    two, ``lambda i: (i // 4, i % 4)`` two of one.

    The map is one-to-one and onto. The block's loops become one for each new axis, in the map's
    order; an axis that the map passes on keeps its name and that of its loop. New axes are made of
    spatial axes only, or of reduced ones, whose steps keep their order unless the result cannot
    tell.

    Errors: E0302 a loop is not serial; E0307 points of the block depend on each other; E0308 a
    reduction in another order; E0311 several points that write one element; E0320 a condition;
    E0329 other statements in the loops; E0340 the map; E0381 loops that are not the block's axes.
    """

    block: str
    layout: IndexMap

    def check(self, function: TensorFunction) -> tuple[BlockSite, tuple[Expr, ...]]:
        """The block, and the extents of its new axes."""
        site = locate_block(self, function, self.block)
        self._check_loops(function, site)
        shape = self._shape(function, site)
        for result in self._results(site):
            self._kind(function, site, result)
        self._check_points(function, site)
        self._check_order(function, site, shape)
        return site, shape

    def _results(self, site: BlockSite) -> tuple[Expr, ...]:
        """The new axes, over the old ones."""
        pairs = zip(self.layout.variables, site.node.iters, strict=True)
        own = {v: a.var for v, a in pairs}
        return tuple(substitute(r, own) for r in self.layout.results)

    def _check_loops(self, function: TensorFunction, site: BlockSite) -> None:
        block = site.node
        if block.where is not None or not all(isinstance(s, For) for s in site.above):
            raise self.refuse(
                function, block, "E0320", f"block '{self.block}' runs under a condition"
            )
        facts = facts_at(function, site.loops)
        bound = {a.binding: a for a in block.iters}
        for x in site.loops:
            if len(x.body) != 1:
                raise self.refuse(
                    function, x, "E0329", f"'{x.var}' runs more than block '{self.block}'"
                )
            if x.kind != "serial":
                raise self.refuse(function, x, "E0302", f"loop '{x.var}' is already {x.kind}")
            axis = bound.pop(x.var, None)
            if axis is None and prove(eq(x.extent, 1), facts):
                continue  # it runs once, and steps nothing
            if axis is None or not prove(eq(x.extent, axis.extent), facts):
                raise self._not_axes(function, x)
        if any(a.binding is not ZERO or not prove(a.extent <= 1, facts) for a in bound.values()):
            raise self._not_axes(function, block)

    def _not_axes(self, function: TensorFunction, node: object) -> ScheduleError:
        return self.refuse(
            function,
            node if isinstance(node, For) else None,
            "E0381",
            f"the loops of block '{self.block}' are not its axes, one each",
            hint="transform the block before its loops",
        )

    def _shape(self, function: TensorFunction, site: BlockSite) -> tuple[Expr, ...]:
        block = site.node
        if len(self.layout.params) != len(block.iters):
            raise self._refuse_map(function, site, f"'{self.block}' has {len(block.iters)} axes")
        old = {a.var: a.extent for a in block.iters}
        facts = _ranged(facts_at(function, ()), block.iters)
        shape: list[Expr] = []
        results = self._results(site)
        for result in results:
            found = index_range(result, old, facts)
            if any(v not in old for v in variables(result)):
                raise self._refuse_map(function, site, f"{result} is no expression of the axes")
            if found is None or not prove(found.low >= 0, facts):
                raise self._refuse_map(
                    function, site, f"{result} may be negative or has no bound that can be shown"
                )
            shape.append(simplify(found.end, facts))
        onto = eq(prod(shape, start=as_expr(1)), prod(old.values(), start=as_expr(1)))
        one = one_to_one(results, old, facts) or inverse(results, old, results, facts) is not None
        if not one or not prove(simplify(onto, facts), facts):
            raise self._refuse_map(function, site, "it is not shown to be one-to-one and onto")
        if inverse(results, old, results, facts) is None:
            raise self._refuse_map(function, site, "it cannot be solved for the axes")
        return tuple(shape)

    def _refuse_map(self, function: TensorFunction, site: BlockSite, why: str) -> ScheduleError:
        extents = ", ".join(str(a.extent) for a in site.node.iters)
        return self.refuse(
            function,
            site.node,
            "E0340",
            f"the map does not fit: {why}",
            notes=(f"the map is {self.layout}", f"the axes have extents {extents}"),
            hint="pad_einsum makes extents multiples of what the map divides by",
        )

    def _kind(self, function: TensorFunction, site: BlockSite, result: Expr) -> IterKind:
        kinds = {a.kind for a in site.node.iters if uses(result, (a.var,))}
        if len(kinds) > 1:
            raise self._refuse_map(
                function, site, f"{result} mixes axes of the result with steps of a reduction"
            )
        return "reduce" if "reduce" in kinds else "spatial"

    def _check_points(self, function: TensorFunction, site: BlockSite) -> None:
        """Points of the spatial axes must be independent: each writes an element of its own, and
        reads back no other.
        """
        block = site.node
        found = accesses((*block.init, *block.body))
        spatial = {a.var: a.extent for a in block.iters if a.kind == "spatial"}
        facts = _ranged(facts_at(function, ()), block.iters)
        for write in (a for a in found if a.kind == "store"):
            if not one_to_one(write.indices, spatial, facts):
                raise self.refuse(
                    function,
                    write.stmt,
                    "E0311",
                    f"cannot show that points of block '{self.block}' write different elements",
                )
            for read in (a for a in found if a.kind == "load" and a.buffer is write.buffer):
                if read.indices != write.indices:
                    raise self.refuse(
                        function,
                        block,
                        "E0307",
                        f"block '{self.block}' reads elements of '{write.buffer.name}' that other "
                        "points write",
                    )

    def _check_order(
        self, function: TensorFunction, site: BlockSite, shape: tuple[Expr, ...]
    ) -> None:
        block = site.node
        reduced = {a.binding: a for a in block.iters if a.kind == "reduce"}
        before: Expr = ZERO
        for x in site.loops:
            if x.var in reduced:
                before = before * x.extent + reduced[x.var].var
        after: Expr = ZERO
        for result, extent in zip(self._results(site), shape, strict=True):
            if self._kind(function, site, result) == "reduce":
                after = after * extent + result
        found = reduction_of(block)
        facts = _ranged(facts_at(function, ()), block.iters)
        kept = simplify(after - before, facts) is ZERO or prove(eq(after, before), facts)
        if not kept and not (found is not None and found.is_exact):
            raise self.refuse(
                function,
                block,
                "E0308",
                f"the steps of the reduction in block '{self.block}' would run in another order",
                hint="keep their order in the map",
            )

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The block over its new axes."""
        site, shape = self.check(function)
        block, results = site.node, self._results(site)
        taken = set(names(function))
        old = {a.var: a for a in block.iters}
        iters: list[IterVar] = []
        loops: list[For] = []
        for result, extent in zip(results, shape, strict=True):
            kept = old.get(result) if isinstance(result, Var) else None
            loop = next((x for x in site.loops if kept is not None and kept.binding is x.var), None)
            if kept is None or loop is None:
                axis_var = self._fresh(f"v_{self.block}", taken)
                loop_var = self._fresh(f"{self.block}_axis", taken)
            else:
                axis_var, loop_var = kept.var, loop.var
            iters.append(IterVar(axis_var, extent, self._kind(function, site, result), loop_var))
            loops.append(For(loop_var, extent, (), "serial", block.span))
        facts = facts_at(function, ())
        extents = {a.var: a.extent for a in block.iters}
        places = tuple(a.var for a in iters)
        values = inverse(results, extents, places, _ranged(facts, block.iters))
        assert values is not None
        inner = _ranged(facts, iters)
        changed = replace_fields(
            block,
            iters=tuple(iters),
            body=map_exprs(block.body, lambda e: _exchanged(e, values, inner)),
            init=map_exprs(block.init, lambda e: _exchanged(e, values, inner)),
        )
        body: Body = (changed,)
        for x in reversed(loops):
            body = (replace_fields(x, body=body),)
        return replaced(function, (site.path[0], body))

    def _fresh(self, hint: str, taken: set[str]) -> Var:
        var = Var(fresh_name(hint, taken))
        taken.add(var.name)
        return var


def _exchanged(e: Expr, values: dict[Var, Expr], facts: Facts) -> Expr:
    """An expression over the new axes, its indices simplified."""
    changed = substitute(e, values)
    if changed is e:
        return e

    def tidy(x: Expr) -> Expr | None:
        if not isinstance(x, Load):
            return None
        return Load(x.buffer, tuple(simplify(i, facts) for i in x.indices), x.mask)

    return transform(changed, tidy) if any_load(changed) else simplify(changed, facts)


def any_load(e: Expr) -> bool:
    """Whether an expression loads."""
    return isinstance(e, Load) or any(any_load(x) for x in e.children)


def _ranged(facts: Facts, iters: tuple[IterVar, ...] | list[IterVar]) -> Facts:
    for axis in iters:
        facts = facts.with_range(axis.var, axis.extent)
    return facts
