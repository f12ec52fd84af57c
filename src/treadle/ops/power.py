"""Powers: above the logarithm, which their gradient needs."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.ir.graph_builder import Traced
from treadle.ops._pointwise import Binary, gradients, number
from treadle.ops.binary import Mul, Sub
from treadle.ops.compare import Equal, Where
from treadle.ops.elementwise import Log


@dataclass(frozen=True)
class Pow(Binary):
    """a to the power of b. Of integers, b must not be negative; of floats, NaN for a < 0 unless b
    is whole."""

    left: ClassVar[tuple[float, float]] = (0.3, 3.0)
    right: ClassVar[tuple[float, float]] = (0.0, 4.0)
    scalar, meaning = "pow", np.power

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """dy · b · a^(b - 1), zero for b = 0, and dy · y · ln a, zero for a = 0."""
        (a, b), (y,), (dy,) = args, outs, douts
        zero, unit = number(a, 0), number(a, 1)
        slope = Mul()(b, Pow()(a, Sub()(b, unit)))
        base = Mul()(dy, Where()(Equal()(b, zero), zero, slope))
        log = Log()(Where()(Equal()(a, zero), unit, a))
        return gradients(args, base, Mul()(dy, Mul()(y, log)))
