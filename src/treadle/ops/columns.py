"""Windows as columns, and columns added back to where they came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as points

import numpy as np

from treadle.expr.dtype import f32
from treadle.expr.scalar import Expr, Var, as_expr, cast, eq, int_value
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder, guarded
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import ZERO, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import (
    check_dtype,
    check_field,
    check_rank,
    check_same_dim,
    dim,
    one,
    product,
    tensor_type,
)
from treadle.ops._sums import accumulator, rounded, summed
from treadle.ops._window import (
    Dims,
    Pads,
    all_of,
    check_counts,
    check_windows,
    inside,
    plus,
    scaled,
    unraveled,
    window_counts,
    windows,
)


@dataclass(frozen=True)
class Im2col(Op):
    """The windows of a tensor as columns (PyTorch's unfold).

    Shapes:  x: (n, c, *size) -> (n, c * kernel elements, windows).
    Dtypes:  any.
    Errors:  E0101, E0107; E0108 for fields that do not fit.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x = one(self, types)
        check_rank(self, x, 2 + len(self.kernel), 2 + len(self.kernel))
        check_windows(self, len(self.kernel), self.stride, self.padding, self.dilation)
        if x.shape is None:
            return TensorType(None, 3, x.dtype)
        counts = self._counts(x.dims[2:])
        check_counts(self, counts)
        return tensor_type(
            (x.dims[0], product((x.dims[1], *self.kernel)), product(counts)), x.dtype
        )

    def _counts(self, size: Sequence[Expr | int]) -> Dims:
        return window_counts(size, self.kernel, self.stride, self.padding, self.dilation)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        (x,) = arrays
        rank = len(self.kernel)
        counts = [int_value(c) or 0 for c in self._counts(x.shape[2:])]
        view = windows(x, self.kernel, self.stride, self.padding, self.dilation, counts)
        order = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
        return view.transpose(order).reshape(
            x.shape[0], x.shape[1] * int(np.prod(self.kernel)), int(np.prod(counts))
        )

    def lower(self, *types: TensorType) -> TensorFunction:
        """One element at a time, zero in the padding."""
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        x = b.input(types[0], "X")
        counts = self._counts(x.shape[2:])

        def value(n: Var, row: Var, column: Var) -> Expr:
            c, *taps = unraveled(row, (x.shape[1], *map(as_expr, self.kernel)))
            starts = unraveled(column, counts)
            conditions: list[Expr] = []
            source: list[Expr] = []
            for axis, (p, k) in enumerate(zip(starts, taps, strict=True)):
                before, after = self.padding[axis]
                index = plus(scaled(p, self.stride[axis]), scaled(k, self.dilation[axis]))
                source.append(index - before if before else index)
                conditions += inside(source[-1], x.shape[axis + 2], before > 0, after > 0)
            element = x[(n, c, *source)]
            return guarded(all_of(conditions), element, 0) if conditions else element

        b.compute(b.output(result.dims, result.dtype), value)
        return b.build()

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """The columns are added where they came from."""
        size = tuple(d if (k := int_value(d)) is None else k for d in args[0].shape[2:])
        return (Col2im(size, self.kernel, self.stride, self.padding, self.dilation)(douts[0]),)

    @classmethod
    def samples(cls) -> Samples:
        """Overlapping and dilated windows."""
        yield cls((2, 3), (1, 2), ((0, 0), (1, 1)), (1, 1)), (example(f32, "n", 2, 4, 5),)
        yield cls((2,), (1,), ((1, 0),), (2,)), (example(f32, 2, 3, 5),)


@dataclass(frozen=True)
class Col2im(Op):
    """Columns added where ``Im2col`` takes them from (PyTorch's fold).

    Shapes:  x: (n, c * kernel elements, windows) -> (n, c, *size).
    Dtypes:  any numbers.
    Errors:  E0101, E0103, E0107; E0106 if the columns are not those of such a tensor; E0108 for
             fields that do not fit.
    """

    size: tuple[Expr | int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x = one(self, types)
        check_rank(self, x, 3, 3)
        check_dtype(self, x.dtype, "number")
        check_windows(self, len(self.kernel), self.stride, self.padding, self.dilation)
        if x.shape is None:
            return TensorType(None, 2 + len(self.kernel), x.dtype)
        check_same_dim(
            self, x.dims[2], product(self._counts()), "the columns and the number of windows"
        )
        taps = product(self.kernel)
        rows = int_value(x.dims[1])
        check_field(
            self,
            rows is None or rows % (int_value(taps) or 1) == 0,
            f"{rows} rows do not hold kernels of {taps}",
        )
        return tensor_type((x.dims[0], dim(x.dims[1] // taps), *map(as_expr, self.size)), x.dtype)

    def _counts(self) -> Dims:
        return window_counts(self.size, self.kernel, self.stride, self.padding, self.dilation)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        (x,) = arrays
        counts = [int_value(c) or 0 for c in self._counts()]
        size = [int_value(d) or 0 for d in self.size]
        values = summed(x).reshape(x.shape[0], -1, *self.kernel, *counts)
        y = np.zeros(
            (
                x.shape[0],
                values.shape[1],
                *(n + a + c for n, (a, c) in zip(size, self.padding, strict=True)),
            ),
            values.dtype,
        )
        for tap in points(*map(range, self.kernel)):
            axes = zip(tap, self.dilation, counts, self.stride, strict=True)
            places = tuple(slice(t * d, t * d + (c - 1) * s + 1, s) for t, d, c, s in axes)
            y[(slice(None), slice(None), *places)] += values[(slice(None), slice(None), *tap)]
        kept = tuple(slice(p[0], p[0] + n) for n, p in zip(size, self.padding, strict=True))
        return y[(slice(None), slice(None), *kept)].astype(x.dtype)

    def lower(self, *types: TensorType) -> TensorFunction:
        """For every element of the result, the sum over the windows that cover it."""
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        x = b.input(types[0], "X")
        out = b.output(result.dims, result.dtype)
        counts = self._counts()
        total = accumulator(b, out)

        def value(n: Var, c: Var, *rest: Var) -> Expr:
            conditions: list[Expr] = []
            row: Expr = c
            column: Expr = ZERO
            for axis, stride in enumerate(self.stride):
                p, k = rest[axis], rest[axis + len(self.kernel)]
                offset = p + self.padding[axis][0] - scaled(k, self.dilation[axis])
                window = offset // stride
                conditions += [eq(offset % stride, 0)] * (stride > 1) + inside(window, counts[axis])
                row = row * self.kernel[axis] + k
                column = column * counts[axis] + window
            return guarded(all_of(conditions), cast(x[n, row, column], total.dtype), 0)

        b.reduce(total, self.kernel, value)
        rounded(b, total, out)
        return b.build()

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """The columns of the gradient."""
        return (Im2col(self.kernel, self.stride, self.padding, self.dilation)(douts[0]),)

    @classmethod
    def samples(cls) -> Samples:
        """Overlapping and dilated windows."""
        yield cls((4, 5), (2, 3), (1, 2), ((0, 0), (1, 1)), (1, 1)), (example(f32, "n", 12, 9),)
        yield cls((5,), (2,), (1,), ((1, 0),), (2,)), (example(f32, 2, 6, 4),)
