"""Give every tensor function of a module its schedule."""

from treadle.ir.module import Module
from treadle.target import Target


def apply_schedules(module: Module, *, target: Target, threads: int) -> Module:
    """Schedule the tensor functions of ``module`` for ``target``."""
    return module
