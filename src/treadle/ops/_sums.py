"""Where sums are kept: in f32 for 16-bit floats, and rounded to the result's dtype at the end."""

import numpy as np

from treadle.expr.scalar import cast
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.tensor import Buffer
from treadle.ops._shapes import wide


def accumulator(b: LoopBuilder, out: Buffer) -> Buffer:
    """Where sums for ``out`` are kept: there, or in a wider copy where it would lose digits."""
    dtype = wide(out.dtype)
    return out if dtype == out.dtype else b.temp(out.shape, dtype, "total")


def rounded(b: LoopBuilder, total: Buffer, out: Buffer) -> None:
    """Write to ``out`` what was summed in ``total``, unless they are the same buffer."""
    if total is not out:
        b.compute(out, lambda *i: cast(total[i], out.dtype))


def summed(x: np.ndarray) -> np.ndarray:
    """An array in the dtype that sums are computed in: f32 for 16-bit floats."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind not in "iu" else x
