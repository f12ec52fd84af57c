"""Padding and cropping at both ends of every axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce as fold
from typing import Literal

import numpy as np

from treadle.expr.dtype import boolean, f16, f32, f64, i64
from treadle.expr.scalar import Const, Expr, ExprLike, Var, as_expr, int_value, maximum, minimum
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder, clamp, guarded
from treadle.ir.op import Op, Samples, example, fail
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import check_field, dim, one, replaced, tensor_type
from treadle.ops.broadcast import expanded
from treadle.ops.create import Arange, Full
from treadle.ops.index import ScatterElements
from treadle.ops.reshape import reshaped

Mode = Literal["constant", "reflect", "edge", "wrap"]
Pads = tuple[tuple[ExprLike, ExprLike], ...]


@dataclass(frozen=True)
class Pad(Op):
    """Add ``pads[k] = (before, after)`` elements to dimension k; negative numbers crop.

    What is added is ``value``, the mirror image without the edge ("reflect"), the edge, or the
    other end ("wrap").

    Shapes:  x: (d, …) -> (before + d + after, …).
    Errors:  E0107 unless there is one pair per dimension; E0108 for a mode that there is not, for
             cropping more than there is, and for reflecting, repeating or wrapping nothing.
    """

    pads: Pads
    mode: Mode = "constant"
    value: float = 0.0

    def infer(self, *types: TensorType) -> TensorType:
        """The padded shape."""
        x = one(self, types)
        check_field(
            self,
            self.mode in ("constant", "reflect", "edge", "wrap"),
            f"there is no mode {self.mode!r}",
        )
        if len(self.pads) != x.ndim:
            raise fail(
                self,
                "E0107",
                f"{len(self.pads)} pairs of pads for rank {x.ndim}",
                "give one pair for each dimension",
            )
        if x.shape is None:
            return TensorType(None, x.ndim, x.dtype)
        dims = [
            dim(d + before + after) for d, (before, after) in zip(x.dims, self.pads, strict=True)
        ]
        for d, padded in zip(x.dims, dims, strict=True):
            check_field(
                self, (int_value(padded) or 0) >= 0, f"pads {self.pads} crop more than there is"
            )
            empty = self.mode != "constant" and int_value(d) == 0
            check_field(self, not empty, f"nothing to {self.mode} in an empty dimension")
        return tensor_type(dims, x.dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.pad, then a slice for negative pads."""
        (x,) = arrays
        if x.ndim == 0:
            return x.copy()
        pads = [(int_value(b) or 0, int_value(a) or 0) for b, a in self.pads]
        grown = [(max(b, 0), max(a, 0)) for b, a in pads]
        if self.mode == "constant":
            y = np.pad(x, grown, constant_values=np.asarray(self.value).astype(x.dtype))
        else:
            y = np.pad(x, grown, mode=self.mode)
        crops = [slice(max(-b, 0), d - max(-a, 0)) for d, (b, a) in zip(y.shape, pads, strict=True)]
        return y[tuple(crops)]

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy by index arithmetic."""
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])
        y = f.output(self.infer(*types).dims, x.dtype)
        f.compute(y, lambda *i: self._element(x, i))
        return f.build()

    def _element(self, x: Buffer, indices: Sequence[Expr]) -> Expr:
        inside: list[Expr] = []
        source: list[Expr] = []
        for i, d, (before, after) in zip(indices, x.shape, self.pads, strict=True):
            position = dim(i - before)
            if int_value(before) == 0 and int_value(after) == 0:
                source.append(i)
            elif self.mode == "constant":
                source.append(position)
                # A test that cannot fail is left out, so that a mere crop is a mere copy.
                inside += (
                    []
                    if (int_value(before) or 1) < 0 or int_value(before) == 0
                    else [position >= 0]
                )
                inside += (
                    [] if (int_value(after) or 1) < 0 or int_value(after) == 0 else [position < d]
                )
            else:
                source.append(_folded(position, d, self.mode))
        found = x[tuple(source)]
        if not inside:
            return found
        return guarded(fold(lambda a, b: a & b, inside), found, Const(self.value, x.dtype))

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """Crop what was added; in other modes add it where it was taken from."""
        (x,), (dy,) = args, douts
        if self.mode == "constant":
            return (Pad(tuple((dim(-as_expr(b)), dim(-as_expr(a))) for b, a in self.pads))(dy),)
        for axis, pads in enumerate(self.pads):
            if int_value(pads[0]) == 0 and int_value(pads[1]) == 0:
                continue
            steps = x.builder.emit(Arange(0, x.shape[axis], 1, i64))
            row = Pad((pads,), self.mode)(steps)
            column = reshaped(
                row, tuple(row.shape[0] if k == axis else as_expr(1) for k in range(x.ndim))
            )
            zeros = x.builder.emit(Full(replaced(dy.shape, axis, x.shape[axis]), 0, x.dtype))
            dy = ScatterElements(axis, "add")(zeros, expanded(column, dy.shape), dy)
        return (dy,)

    @classmethod
    def samples(cls) -> Samples:
        """All modes; pads beyond the size, negative, none; empty and symbolic shapes."""
        n = Var("n")
        yield cls(((1, 2), (0, 3))), (example(f32, "n", 3),)
        yield cls(((-1, 2), (1, -2)), "constant", 1.5), (example(f64, 3, 5),)
        yield cls(((2, 1),), "constant", 7), (example(i64, 0, low=-9, high=9),)
        yield cls(((0, 0), (-1, -1))), (example(f16, 2, 5),)
        yield cls(((n, 0),)), (example(f32, "n"),)
        yield cls(((1, 1),), "constant", 1), (example(boolean, 3),)
        yield cls(((2, 1), (1, 0)), "reflect"), (example(f32, 3, "n"),)
        yield cls(((7, 5),), "reflect"), (example(f32, 3),)
        yield cls(((1, 2), (-1, 3)), "edge"), (example(f32, 1, 3),)
        yield cls(((1, 2), (5, 4)), "wrap"), (example(f32, 2, 3),)
        yield cls(()), (example(f32),)


def _folded(position: Expr, extent: Expr, mode: Mode) -> Expr:
    """Where in [0, extent) the element comes from that stands at ``position``, maybe outside."""
    if mode == "edge":
        return clamp(position, 0, extent - 1)
    if mode == "wrap":
        return position % extent
    period = dim((extent - 1) * 2)
    step = position % maximum(period, 1)
    return minimum(step, period - step)


def one_axis(ndim: int, axis: int, pads: tuple[ExprLike, ExprLike]) -> Pads:
    """Pads of one axis, none of the others."""
    return tuple(pads if k == axis else (0, 0) for k in range(ndim))
