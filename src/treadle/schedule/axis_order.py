"""The order in which a block names its axes."""

from dataclasses import dataclass

from treadle.base.rewrite import replace_fields
from treadle.ir.tensor import TensorFunction
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import BlockSite, locate_block, replaced


@dataclass(frozen=True)
class ReorderBlockIterVar(Instruction):
    """Name the axes of a block in another order: ``order`` gives their old positions.

    The loops stay, and so does what the block computes; new loops that other instructions make for
    the block follow this order.

    Errors: E0301 no such block; E0353 the order is no permutation.
    """

    block: str
    order: tuple[int, ...]

    def check(self, function: TensorFunction) -> BlockSite:
        """The block."""
        site = locate_block(self, function, self.block)
        count = len(site.node.iters)
        if sorted(self.order) != list(range(count)):
            raise self.refuse(
                function,
                site.node,
                "E0353",
                f"{self.order} is no order of the {count} axes of block '{self.block}'",
                notes=("the axes are " + ", ".join(str(a.var) for a in site.node.iters),),
                hint="name each position from 0 on once",
            )
        return site

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the axes in their new order."""
        block = self.check(function).node
        iters = tuple(block.iters[p] for p in self.order)
        return replaced(function, (block, (replace_fields(block, iters=iters),)))
