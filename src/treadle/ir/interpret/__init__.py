"""The meaning of programs: an interpreter of both kinds of function, on NumPy."""

from treadle.ir.interpret.graph import run
from treadle.ir.interpret.loops import run_tensor

__all__ = ["run", "run_tensor"]
