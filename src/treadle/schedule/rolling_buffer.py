"""Circular buffers: what overlapping windows share is kept, not computed again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treadle.base.rewrite import Rewriter, replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.dtype import i64
from treadle.expr.scalar import (
    Expr,
    Var,
    apply,
    eq,
    substitute,
    transform,
    variables,
)
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import Access, accesses, fresh_name, names, statements, symbols
from treadle.ir.tensor import (
    ONE,
    ZERO,
    Allocate,
    Block,
    Buffer,
    For,
    If,
    Intrinsic,
    IterVar,
    Load,
    Store,
    TensorFunction,
)
from treadle.schedule.cache import locate_internal
from treadle.schedule.dependence import (
    axes,
    covers,
    in_block,
    is_determined,
    only_tails,
    steps,
    under,
)
from treadle.schedule.digits import digits
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    conjunction,
    conjuncts,
    facts_at,
    locate_block,
    map_exprs,
    replaced,
    uses,
    with_body,
)
from treadle.schedule.regions import access_region


@dataclass(frozen=True, slots=True)
class Window:
    """What an iteration of ``loop`` writes along dimension ``dim`` of a buffer: ``extent``
    elements from ``step * loop + start``; ``axis`` of the block is that index.
    """

    loop: For
    dim: int
    start: Expr
    step: Expr
    extent: Expr
    axis: IterVar


@dataclass(frozen=True)
class RollingBuffer(Instruction):
    """Keep in a circular buffer what consecutive iterations of a loop both need.

    ``block`` computes, in each iteration of the innermost loop around it and all readers, a window
    of ``buffer`` that overlaps the one before, as ``compute_at`` leaves it. The dimension along
    which the window moves shrinks to the window, its indices count modulo that, and but for the
    first iteration the block computes only what is new. The loop becomes a step of a reduction to
    the block, since its iterations now depend on each other.

    Errors: E0302 the loop is not serial; E0320 the block's form; E0322 the buffer is a parameter;
    E0323 the block is not its one writer; E0324 a use that takes an address or a vector; E0325 the
    store's indices; E0327 what the block reads changes between iterations; E0329 no loop is around
    all uses; E0384 windows that do not move along one dimension, overlap, and cover what is read.
    """

    block: str
    buffer: str

    def check(self, function: TensorFunction) -> tuple[BlockSite, Buffer, Window]:
        """The block, the buffer and the window."""
        site = locate_block(self, function, self.block)
        buffer = locate_internal(self, function, self.buffer)
        uses_of = [a for a in accesses(function.body) if a.buffer is buffer]
        writes = [a for a in uses_of if a.kind == "store"]
        if not writes or not all(in_block(a, site.node) for a in writes):
            raise self.refuse(
                function,
                site.node,
                "E0323",
                f"block '{self.block}' is not what alone writes '{self.buffer}'",
            )
        self._check_block(function, site, buffer)
        reads = [a for a in uses_of if a.kind == "load" and not in_block(a, site.node)]
        for a in uses_of:
            if isinstance(a.stmt, Intrinsic) or any(i.dtype.lanes > 1 for i in a.indices):
                raise self.refuse(
                    function, a.stmt, "E0324", f"'{self.buffer}' is not used one by one here"
                )
        loop = self._loop(function, site, uses_of)
        window = self._window(function, site, writes[-1], loop)
        self._check_reads(function, window, writes[-1], reads)
        self._check_sources(function, site, loop)
        return site, buffer, window

    def _check_block(self, function: TensorFunction, site: BlockSite, buffer: Buffer) -> None:
        block = site.node
        stores = [a for a in accesses((block,)) if a.kind == "store"]
        own = {a.var for a in block.iters} | set(symbols(function))
        own |= {s.var for s in statements(block.body) if isinstance(s, For)}
        inner = [a for a in accesses((*block.body, *block.init)) if a.kind == "load"]
        foreign = [v for a in (*inner, *stores) for i in a.indices for v in variables(i)]
        if (
            not only_tails(function, site)
            or {a.buffer for a in stores} != {buffer}
            or len({a.indices for a in stores}) != 1
            or not is_determined(stores[-1], function)
            or any(a.buffer is buffer and a.indices != stores[-1].indices for a in inner)
            or (any(a.buffer is buffer for a in inner) and not block.init)
            or any(v not in own for v in foreign)
        ):
            raise self.refuse(
                function,
                block,
                "E0320",
                f"block '{self.block}' does not compute one element of '{self.buffer}' at each "
                "point of its axes",
            )

    def _loop(self, function: TensorFunction, site: BlockSite, found: Sequence[Access]) -> For:
        around = [x for x in site.loops if all(under(a, x) for a in found)]
        if not around or all(in_block(a, site.node) for a in found):
            raise self.refuse(
                function,
                site.node,
                "E0329",
                f"no loop is around block '{self.block}' and all that reads '{self.buffer}'",
                hint="compute_at the block in a loop of its consumer first",
            )
        if around[-1].kind != "serial":
            raise self.refuse(
                function, around[-1], "E0302", f"loop '{around[-1].var}' is {around[-1].kind}"
            )
        return around[-1]

    def _window(
        self, function: TensorFunction, site: BlockSite, write: Access, loop: For
    ) -> Window:
        depth = next(p for p, x in enumerate(site.loops) if x is loop) + 1
        fixed = [x.var for x in site.loops[:depth]]
        facts = facts_at(function, site.loops[:depth])
        region = access_region(write, fixed, facts)
        if any(steps(x, site.node, "reduce") for x in site.loops[:depth]):
            raise self.refuse(
                function,
                site.node,
                "E0320",
                f"block '{self.block}' is not complete in one iteration of '{loop.var}'",
            )
        moving = [
            d
            for d, r in enumerate(region)
            if uses(r.low, (loop.var,)) or uses(r.extent, (loop.var,))
        ]
        moved = [a for a in site.node.iters if uses(a.binding, (loop.var,))]
        if len(moving) != 1 or len(moved) != 1 or moved[0].kind != "spatial":
            raise self._no_window(function, loop, "it moves along more than one axis, or none")
        dim, axis = moving[0], moved[0]
        if write.indices[dim] is not axis.var or any(
            uses(i, (axis.var,)) for d, i in enumerate(write.indices) if d != dim
        ):
            raise self.refuse(
                function,
                site.node,
                "E0325",
                f"block '{self.block}' does not store at the axis '{axis.var}' itself",
            )
        inner = {x.var: x.extent for x in site.loops[depth:]}
        if not _has_no_holes(axis.binding, inner, facts_at(function, site.loops)):
            raise self._no_window(function, loop, f"{axis.binding} leaves elements out")
        split, box = split_linear(region[dim].low, loop.var), region[dim]
        if split is None or uses(box.extent, (loop.var,)):
            raise self._no_window(function, loop, f"its first index is {box.low}")
        if not (prove(split[0] > 0, facts) and prove(box.extent > split[0], facts)):
            raise self._no_window(
                function, loop, f"each has {box.extent} elements, and steps by {split[0]}"
            )
        return Window(loop, dim, split[1], split[0], box.extent, axis)

    def _no_window(self, function: TensorFunction, loop: For, why: str) -> Exception:
        return self.refuse(
            function,
            loop,
            "E0384",
            f"the windows of '{self.buffer}' in '{loop.var}' do not overlap along one dimension",
            notes=(why,),
            hint="choose a loop whose step is smaller than the window that it reads",
        )

    def _check_reads(
        self, function: TensorFunction, window: Window, write: Access, reads: Sequence[Access]
    ) -> None:
        found = accesses(function.body)
        for read in reads:
            position = next(p for p, x in enumerate(write.loops) if x is window.loop)
            still = [x.var for x in write.loops[: position + 1]]
            facts = facts_at(function, read.loops)
            later = found.index(read) > found.index(write)
            if not later or not covers(write, read, still, facts):
                raise self.refuse(
                    function,
                    read.blocks[0] if read.blocks else read.stmt,
                    "E0384",
                    f"cannot show that an iteration of '{window.loop.var}' reads only what it "
                    f"writes of '{self.buffer}'",
                )

    def _check_sources(self, function: TensorFunction, site: BlockSite, loop: For) -> None:
        """What the block reads must be the same in every iteration that would read it."""
        found = [a for a in accesses(function.body) if under(a, loop)]
        waiting = {a.buffer for a in found if a.kind == "load" and in_block(a, site.node)}
        seen: set[Buffer] = set()
        while waiting:
            source = waiting.pop()
            seen.add(source)
            for write in (a for a in found if a.kind == "store" and a.buffer is source):
                if not is_determined(write, function):
                    raise self.refuse(
                        function,
                        site.node,
                        "E0327",
                        f"'{source.name}', which block '{self.block}' reads, changes in "
                        f"'{loop.var}'",
                    )
                block = write.blocks[0]
                more = {a.buffer for a in found if a.kind == "load" and in_block(a, block)}
                waiting |= more - seen

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the circular buffer."""
        site, old, window = self.check(function)
        shape = (*old.shape[: window.dim], window.extent, *old.shape[window.dim + 1 :])
        new = Buffer(old.name, shape, old.dtype, old.scope)
        rolled = self._rolled(function, site, window)
        after = replaced(function, (site.node, (rolled,)))
        place = _Circular(old, new, window.dim)
        after = with_body(after, place.rewrite(after.body))
        return _hoisted(after, new, window.loop.var)

    def _rolled(self, function: TensorFunction, site: BlockSite, window: Window) -> Block:
        """The block, its axis in two: the steps of the loop, and the place in the window."""
        block, loop = site.node, window.loop
        taken = set(names(function))
        facts = facts_at(function, site.loops)
        step = IterVar(Var(fresh_name(f"v_{loop.var}", taken)), loop.extent, "reduce", loop.var)
        moved = window.step * loop.var
        fixed = not any(uses(window.start, (x.var,)) for x in site.loops)
        base = window.start if fixed else ZERO
        extent = window.extent if fixed else window.axis.extent
        inside = simplify(window.axis.binding - moved - base, facts)
        if not prove(inside >= 0, facts):
            raise self._no_window(function, loop, f"{inside} may be negative")
        value = window.step * step.var + window.axis.var + base
        iters = tuple(
            replace_fields(a, extent=extent, binding=inside) if a is window.axis else a
            for a in block.iters
        )
        known = facts.with_range(step.var, loop.extent).with_range(window.axis.var, extent)

        def moved_axis(e: Expr) -> Expr:
            changed = substitute(e, {window.axis.var: value})
            return e if changed is e else _tidied(changed, known)

        body = map_exprs(block.body, moved_axis)
        start = map_exprs(block.init, moved_axis)
        if start:
            first = conjunction(eq(v, 0) for v in axes(block, "reduce"))
            body = (*start, *body) if first is None else (If(first, start), *body)
        new = window.axis.binding >= moved + window.start + (window.extent - window.step)
        fresh = apply("or", loop.var <= 0, simplify(new, facts))
        where = conjunction((fresh, *conjuncts(block.where)))
        return replace_fields(block, iters=(step, *iters), body=body, init=(), where=where)


def _has_no_holes(binding: Expr, inner: Mapping[Var, Expr], facts: Facts) -> bool:
    """Whether the values of a binding, while ``inner`` loops run, follow each other by one."""
    parts = digits(binding, inner)
    if parts is None or len({d.source for d in parts}) != len(parts):
        return False
    reach: Expr = ONE
    waiting = list(parts)
    while waiting:
        found = next((d for d in waiting if prove(d.coefficient <= reach, facts)), None)
        if found is None or found.source not in inner or not prove(found.coefficient > 0, facts):
            return False
        waiting.remove(found)
        assert isinstance(found.source, Var)
        size = found.size(inner[found.source])
        reach = simplify(reach + found.coefficient * (size - 1), facts)
    return True


def _tidied(e: Expr, facts: Facts) -> Expr:
    """An expression whose loads have simple indices."""

    def visit(x: Expr) -> Expr | None:
        if not isinstance(x, Load):
            return None
        return Load(x.buffer, tuple(simplify(i, facts) for i in x.indices), x.mask)

    return simplify(e, facts) if e.dtype == i64 else transform(e, visit)


class _Circular(Rewriter):
    """Exchange a buffer for one whose indices along ``dim`` count modulo its extent."""

    def __init__(self, old: Buffer, new: Buffer, dim: int) -> None:
        self.old, self.new, self.dim = old, new, dim

    def rewrite_buffer(self, node: Buffer) -> Buffer:
        return self.new if node is self.old else node

    def rewrite_expr(self, node: Expr) -> Expr:
        return transform(node, self._load)

    def rewrite_store(self, node: Store) -> Store:
        changed = self.generic(node)
        if node.buffer is not self.old:
            return changed
        return replace_fields(changed, indices=self._moved(changed.indices))

    def _load(self, x: Expr) -> Expr | None:
        if isinstance(x, Load) and x.buffer is self.old:
            return Load(self.new, self._moved(x.indices), x.mask)
        return None

    def _moved(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        extent = self.new.shape[self.dim]
        return tuple(i % extent if d == self.dim else i for d, i in enumerate(indices))


def _hoisted(function: TensorFunction, buffer: Buffer, inside: Var) -> TensorFunction:
    """The function with a buffer declared before the loop whose iterations share it."""
    loop = next(s for s in statements(function.body) if isinstance(s, For) and s.var is inside)
    declared = next(
        (s for s in statements(loop.body) if isinstance(s, Allocate) and s.buffer is buffer), None
    )
    if declared is None:
        return function
    without = replaced(function, (declared, ()))
    loop = next(s for s in statements(without.body) if isinstance(s, For) and s.var is inside)
    return replaced(without, (loop, (Allocate(buffer), loop)))
