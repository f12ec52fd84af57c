"""Positions as often as values say."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import i32, i64
from treadle.expr.scalar import Expr, ExprLike, maximum, minimum
from treadle.ir.calls import AssertTrue
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import ZERO, For, Let, Stmt, Store, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import check_dims, check_dtype, check_is, check_rank, operands, tensor_type
from treadle.ops._sizes import POSITIONS, DataSized, bind_size
from treadle.ops.compare import GreaterEqual
from treadle.ops.create import known_shape
from treadle.ops.elementwise import Cast
from treadle.ops.reduce import All, Sum
from treadle.ops.scan import CumSum


@dataclass(frozen=True)
class Repeated(Op):
    """Each position k as often as ``repeats[k]`` says, from ``starts[k]`` on, in all ``size``.

    Shapes:  repeats: (n,) of i64, starts: (n,) of i64 -> (size,) of i64.
    Errors:  E0103; E0107.
    """

    size: ExprLike

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """As many positions as the field says."""
        for t, what in zip(operands(self, types, 2), ("the repeats", "the starts"), strict=True):
            check_is(self, t.dtype, i64, what)
            check_rank(self, t, 1, 1, what)
        check_dims(self, (self.size,))
        return tensor_type((self.size,), i64)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.repeat."""
        repeats, _ = arrays
        found = np.repeat(np.arange(len(repeats), dtype=np.int64), np.maximum(repeats, 0))
        return found[: known_shape((self.size,))[0]]

    def lower(self, *types: TensorType) -> TensorFunction:
        """A run of stores for each position."""
        f = LoopBuilder(self.op_name())
        repeats, starts = (f.input(t) for t in types)
        found = f.output((self.size,), i64)
        size = found.shape[0]
        j, first, count = (f.variable() for _ in range(3))

        def body(k: Expr) -> tuple[Stmt, ...]:
            return (
                Let(first, maximum(starts[k], ZERO)),
                Let(count, minimum(repeats[k], size - first)),
                For(j, count, (Store(found, (first + j,), k),)),
            )

        f.block("repeat", repeats.shape, body)
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Of nothing, what is surely there."""
        yield cls(0), (example(i64, 3, low=0, high=1), example(i64, 3, low=0, high=1))


@dataclass(frozen=True)
class RepeatEach(DataSized):
    """Each position k as often as ``repeats[k]`` says: numpy.repeat of 0, 1, …

    The program stops if a number is negative (E0707).

    Shapes:  repeats: (n,) of integers -> (u,) of i64, where u is the sum of the values.
    Errors:  E0103; E0107.
    """

    def infer(self, *types: TensorType) -> TensorType:
        """Only the rank is known."""
        (repeats,) = operands(self, types, 1)
        check_dtype(self, repeats.dtype, "int", "the repeats")
        check_rank(self, repeats, 1, 1, "the repeats")
        return POSITIONS

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.repeat."""
        return np.repeat(np.arange(len(arrays[0]), dtype=np.int64), arrays[0])

    def decompose(self, *args: Traced) -> Traced:
        """The sum is the size, and running sums are where each run starts."""
        (repeats,) = args
        if repeats.dtype is not i64:
            repeats = Cast(i64)(repeats)
        natural = All((0,))(GreaterEqual()(repeats, repeats.builder.literal(0, i64)))
        cure = "pass numbers of zero or more"
        AssertTrue("repeat_each: a number of repetitions is negative", cure)(natural)
        size = bind_size(Sum((0,))(repeats), "total")
        return Repeated(size)(repeats, CumSum(0, exclusive=True)(repeats))

    @classmethod
    def samples(cls) -> Samples:
        """Some, none, symbolic sizes."""
        yield cls(), (example(i64, 7, low=0, high=4),)
        yield cls(), (example(i32, "n", low=0, high=3),)
        yield cls(), (example(i64, 5, low=0, high=1),)
        yield cls(), (example(i64, 0, low=0, high=1),)
