"""Loops spread over the threads of a GPU."""

from dataclasses import dataclass

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import prove
from treadle.expr.scalar import eq
from treadle.ir.analysis import paths
from treadle.ir.tensor import THREAD_AXES, For, Stmt, TensorFunction, ThreadAxis
from treadle.schedule.dependence import check_blocks_only, check_steps, reduction_of, steps
from treadle.schedule.instruction import Instruction
from treadle.schedule.loops import check_independent
from treadle.schedule.nest import (
    LoopSite,
    blocks_below,
    facts_at,
    locate_loop,
    replaced,
    require_serial,
)

_AXES: dict[str, ThreadAxis] = {axis: axis for axis in THREAD_AXES}


@dataclass(frozen=True)
class Bind(Instruction):
    """Spread the iterations of a loop over a thread axis of a GPU: ``blockIdx``, ``threadIdx`` or
    ``vthread``, each ``.x``, ``.y`` or ``.z``.

    What holds for ``parallel`` holds here: the loop steps spatial axes only, and its iterations
    write different elements, except of a buffer that is used inside the loop only. A ``threadIdx``
    loop may instead step a reduction and nothing else, if the block is an associative reduction
    whose result does not depend on the order (integers, maxima and minima; other floats with
    ``reassociate``): the threads combine their parts.

    One axis stands for one loop in a nest, and loops of one axis inside one outermost thread loop
    run equally often: they share the threads of a kernel. The interpreter runs thread loops one
    iteration after the other; targets without threads of this kind refuse them (E0404).

    Errors: E0302, E0306 (the loop steps a reduction), E0307, E0308 (the order of a reduction),
    E0309 (a loop of this axis or a parallel one in the same nest, or a vectorized loop around),
    E0310, E0311, E0355 no such axis, or another extent than that of the axis.
    """

    loop: str
    axis: str
    reassociate: bool = False

    def check(self, function: TensorFunction) -> tuple[LoopSite, ThreadAxis]:
        """The loop and the axis."""
        site = locate_loop(self, function, self.loop)
        axis = _AXES.get(self.axis)
        if axis is None:
            raise self.refuse(
                function,
                site.node,
                "E0355",
                f"'{self.axis}' is no thread axis",
                hint="give " + ", ".join(THREAD_AXES),
            )
        require_serial(self, function, site)
        self._check_nest(function, site, axis)
        self._check_extent(function, site, axis)
        if self._reduces(site, function):
            self._check_reduction(function, site)
            return site, axis
        check_steps(
            self, function, site, hint="bind a loop that steps an axis of the result, or rfactor"
        )
        check_independent(self, function, site, "bind a loop that steps an axis of the result")
        return site, axis

    def _check_nest(self, function: TensorFunction, site: LoopSite, axis: ThreadAxis) -> None:
        nest = (*site.loops, *(s for s, above in paths(function.body) if site.node in above))
        loops = (s for s in nest if isinstance(s, For))
        apart = next((s for s in loops if s.kind in (axis, "parallel")), None)
        other = apart or next((s for s in site.loops if s.kind == "vectorized"), None)
        if other is not None:
            raise self.refuse(
                function,
                site.node,
                "E0309",
                f"'{self.loop}' is in one nest with the {other.kind} loop '{other.var}'",
                notes=(f"it would be {axis}",),
            )

    def _check_extent(self, function: TensorFunction, site: LoopSite, axis: ThreadAxis) -> None:
        kernel = next((s for s in site.path if _is_thread(s)), site.node)
        for stmt, above in paths(function.body):
            if not isinstance(stmt, For) or stmt.kind != axis or kernel not in above:
                continue
            if not prove(eq(stmt.extent, site.node.extent), facts_at(function, site.loops)):
                raise self.refuse(
                    function,
                    site.node,
                    "E0355",
                    f"'{self.loop}' does not run as often as '{stmt.var}', which is {axis} too",
                    notes=(f"the extents are {site.node.extent} and {stmt.extent}",),
                    hint="split the loop so that its inner part has the extent of the axis",
                )

    def _reduces(self, site: LoopSite, function: TensorFunction) -> bool:
        below = blocks_below(function, site.node)
        return self.axis.startswith("threadIdx") and any(
            steps(site.node, b.node, "reduce") for b in below
        )

    def _check_reduction(self, function: TensorFunction, site: LoopSite) -> None:
        check_blocks_only(self, function, site.node)
        below = blocks_below(function, site.node)
        found = reduction_of(below[0].node) if len(below) == 1 else None
        if found is None or steps(site.node, below[0].node, "spatial"):
            raise self.refuse(
                function,
                site.node,
                "E0306",
                f"'{self.loop}' steps more than one associative reduction",
                hint="bind a loop that steps the reduction of one block only",
            )
        if not found.is_exact and not self.reassociate:
            raise self.refuse(
                function,
                below[0].node,
                "E0308",
                f"threads would combine the parts of block '{below[0].node.name}' in another order",
                hint="pass reassociate=True to accept another order of summation",
            )

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loop marked."""
        site, axis = self.check(function)
        return replaced(function, (site.node, (replace_fields(site.node, kind=axis),)))


def _is_thread(stmt: Stmt) -> bool:
    return isinstance(stmt, For) and stmt.kind in THREAD_AXES
