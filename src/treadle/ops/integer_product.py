"""Products of matrices of bytes, summed in 32 bits."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import DType, i8, i32, u8
from treadle.ir.op import Samples, example, fail
from treadle.ir.types import TensorType
from treadle.ops._shapes import operands
from treadle.ops.contraction import Matmul

BYTES: tuple[DType, ...] = (u8, i8)


@dataclass(frozen=True)
class IntegerMatmul(Matmul):
    """The product of matrices of bytes, as ``matmul`` of the operands converted to i32 gives it.

    Shapes:  a: (*batch, m, k), b: (*batch, k, n) -> (*batch, m, n), as for ``matmul``.
    Dtypes:  u8 or i8 each -> i32; sums wrap.
    Errors:  E0101; E0103 for other dtypes; E0105, E0106 and E0107 as for ``matmul``.
    """

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        for t in operands(self, types, 2):
            if t.dtype not in BYTES:
                raise fail(self, "E0103", f"the operands hold u8 or i8, not {t.dtype}")
        return super().infer(*(TensorType(t.shape, t.ndim, i32) for t in types))

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        a, b = (x.astype(np.int32) for x in arrays)
        return np.asarray(np.matmul(a, b))

    @classmethod
    def samples(cls) -> Samples:
        """All pairs of dtypes; steps that make no whole group; a batch, a vector, sums of none."""
        for left in BYTES:
            for right in BYTES:
                low = [0 if x is u8 else -128 for x in (left, right)]
                high = [256 if x is u8 else 128 for x in (left, right)]
                yield (
                    cls(),
                    (
                        example(left, "n", 8, low=low[0], high=high[0]),
                        example(right, 8, 5, low=low[1], high=high[1]),
                    ),
                )
        yield cls(), (example(u8, 3, 7, low=0, high=256), example(i8, 7, 20, low=-128, high=128))
        yield cls(), (example(u8, 2, 3, 4, low=0, high=256), example(i8, 4, low=-128, high=128))
        yield cls(), (example(i8, 2, 3, 0), example(i8, 2, 0, 4))
