"""A loop of one iteration, as a place for others."""

from dataclasses import dataclass

from treadle.expr.scalar import Var
from treadle.ir.analysis import fresh_name, names
from treadle.ir.tensor import ONE, Block, For, TensorFunction
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import locate_target, replaced


@dataclass(frozen=True)
class AddUnitLoop(Instruction):
    """Put a loop or a block into a loop of one iteration, ``<name>_unit``: a place for
    ``compute_at``, a thread axis, or a target's annotation.

    Errors: E0301 there is no loop and no block of this name.
    """

    target: str

    def check(self, function: TensorFunction) -> "For | Block":
        """The loop, or the block where no loop has this name."""
        return locate_target(self, function, self.target)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the new loop."""
        node = self.check(function)
        var = Var(fresh_name(f"{self.target}_unit", names(function)))
        return replaced(function, (node, (For(var, ONE, (node,), "serial", node.span),)))
