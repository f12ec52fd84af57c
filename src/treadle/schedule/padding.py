"""Let a loop run beyond its end: buffers that are touched there are made larger."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from treadle.base.errors import ScheduleError
from treadle.base.rewrite import Rewriter, replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Apply, Const, Expr, Var, eq, int_value, variables, walk
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access, accesses, expressions, statements, symbols
from treadle.ir.tensor import Block, Buffer, For, IterVar, TensorFunction
from treadle.schedule.cut import led_axes
from treadle.schedule.dependence import check_blocks_only, is_internal, weight_of
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    LoopSite,
    blocks_below,
    facts_at,
    locate_loop,
    uses,
    with_body,
    with_buffers,
)

_DIVISIONS = ("floordiv", "mod", "truncdiv", "truncmod")


def padded(
    rule: Instruction, function: TensorFunction, site: LoopSite, total: Expr
) -> tuple[TensorFunction, For]:
    """The function with axes and buffers large enough for ``total`` iterations, and the loop in it,
    which has its old extent still.

    Raises:
        ScheduleError: E0310 for statements outside blocks; E0312 as ``led_axes`` says; E0351 where
            the steps beyond the end would touch a parameter, reach an element that others see, or
            not be harmless.
    """
    check_blocks_only(rule, function, site.node)
    for stmt in statements(site.node.body):
        if isinstance(stmt, For) and uses(stmt.extent, (site.node.var,)):
            raise rule.refuse(
                function,
                stmt,
                "E0351",
                f"beyond the end of '{site.node.var}', '{stmt.var}' would run longer too",
                hint='use tail="guard"',
            )
    padding = _Padding(rule, function, site.node, simplify(total - site.node.extent))
    axes: dict[IterVar, Expr] = {}
    for block in blocks_below(function, site.node):
        axes |= padding.block(block)
    body = _Wider(axes).rewrite(function.body)
    larger = padding.buffers()
    after = with_body(function, with_buffers(body, larger))
    return after, locate_loop(rule, after, site.node.var.name).node


class _Wider(Rewriter):
    """Axes over larger domains."""

    def __init__(self, axes: Mapping[IterVar, Expr]) -> None:
        self.axes = axes

    def rewrite_iter_var(self, node: IterVar) -> IterVar:
        extent = self.axes.get(node)
        return node if extent is None else replace_fields(node, extent=extent)


@dataclass(eq=False)
class _Padding:
    """What the steps of a loop beyond its end touch."""

    rule: Instruction
    function: TensorFunction
    loop: For
    added: Expr
    reach: dict[tuple[Buffer, int], Expr] = field(default_factory=dict[tuple[Buffer, int], Expr])

    def block(self, site: BlockSite) -> dict[IterVar, Expr]:
        """The new extents of a block's axes."""
        led = led_axes(self.rule, self.function, site, self.loop)
        if not led:
            raise self._refuse(site.node, f"'{self.loop.var}' steps no axis of it")
        facts = facts_at(self.function, site.loops)
        found: dict[IterVar, Expr] = {}
        for axis in site.node.iters:
            if axis.var not in led:
                continue
            if axis.kind == "reduce":
                raise self._refuse(
                    site.node, f"values beyond the end would enter the sum over '{axis.var}'"
                )
            if not prove(eq(axis.extent, led[axis.var] * self.loop.extent), facts):
                raise self._refuse(site.node, f"'{axis.var}' ends before the loop does")
            found[axis] = simplify(axis.extent + led[axis.var] * self.added, facts)
        self._check_harmless(site.node, led)
        for axis, extent in found.items():
            for access in accesses((site.node,)):
                inside = _with_axes(facts, site.node, {axis.var: extent})
                self._access(site.node, access, axis, simplify(extent - axis.extent), inside)
        return found

    def _check_harmless(self, block: Block, led: Iterable[Var]) -> None:
        """Nothing but plain values may follow from what lies beyond the end."""
        for stmt in statements((*block.init, *block.body)):
            if isinstance(stmt, For) and uses(stmt.extent, led):
                raise self._refuse(block, f"the extent of '{stmt.var}' depends on its axes")
            for x in walk(*expressions(stmt)):
                if (
                    isinstance(x, Apply)
                    and x.fn in _DIVISIONS
                    and x.dtype.is_int
                    and not isinstance(x.args[1], Const)
                ):
                    raise self._refuse(block, f"{x} may divide by zero beyond the end")

    def _access(
        self, block: Block, access: Access, axis: IterVar, added: Expr, facts: Facts
    ) -> None:
        past = facts.with_fact(axis.var >= axis.extent)
        if access.mask is not None and _never(access.mask, past):
            return
        beyond = False
        for dim, index in enumerate(access.indices):
            if uses(index, (self.loop.var,)):
                raise self._refuse(block, f"it uses '{self.loop.var}' directly")
            if not uses(index, (axis.var,)):
                continue
            roomy = prove(index < access.buffer.shape[dim], facts) and prove(index >= 0, facts)
            if access.kind == "load" and roomy:
                continue  # a layout with room for whole tiles
            weight = weight_of(index, For(axis.var, axis.extent, ()))
            count = None if weight is None else int_value(weight)
            if count is None or count <= 0 or not is_internal(self.function, access.buffer):
                what = "a parameter" if count is not None and count > 0 else f"accessed at {index}"
                raise self._refuse(block, f"'{access.buffer.name}' is {what}")
            self._enlarge(block, access.buffer, dim, simplify(added * count))
            beyond = beyond or prove(index >= access.buffer.shape[dim], past)
        if access.kind == "store" and not beyond:
            raise self._refuse(
                block, f"elements of '{access.buffer.name}' that others see would be written again"
            )

    def _enlarge(self, block: Block, buffer: Buffer, dim: int, added: Expr) -> None:
        known = symbols(self.function)
        old = self.reach.get((buffer, dim))
        if any(v not in known for v in variables(added)) or old not in (None, added):
            raise self._refuse(block, f"the size of '{buffer.name}' cannot be told")
        self.reach[buffer, dim] = added

    def buffers(self) -> dict[Buffer, Buffer]:
        """Each buffer that is touched beyond its end, and what it becomes."""
        found: dict[Buffer, Buffer] = {}
        for buffer in dict.fromkeys(b for b, _ in self.reach):
            shape = tuple(
                extent if (grown := self.reach.get((buffer, dim))) is None else extent + grown
                for dim, extent in enumerate(buffer.shape)
            )
            shape = tuple(simplify(extent) for extent in shape)
            found[buffer] = Buffer(buffer.name, shape, buffer.dtype, buffer.scope)
        return found

    def _refuse(self, block: Block, why: str) -> ScheduleError:
        return self.rule.refuse(
            self.function,
            block,
            "E0351",
            f"block '{block.name}' cannot run beyond the end of '{self.loop.var}': {why}",
            hint='cache what it reads in a buffer of its own first, or use tail="guard"',
        )


def _never(mask: Expr, facts: Facts) -> bool:
    return getattr(simplify(mask, facts), "value", None) is False


def _with_axes(facts: Facts, block: Block, extents: Mapping[Var, Expr]) -> Facts:
    for axis in block.iters:
        facts = facts.with_range(axis.var, extents.get(axis.var, axis.extent))
    return facts
