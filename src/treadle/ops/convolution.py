"""Convolutions in one to three dimensions, their transposes, and windows as columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product as points

import numpy as np

from treadle.expr.dtype import bf16, f16, f32
from treadle.expr.scalar import Const, Expr, Var, as_expr, cast, int_value, select
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import ZERO, Buffer, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._compose import cropped, difference
from treadle.ops._phases import Phases
from treadle.ops._shapes import (
    check_dtype,
    check_field,
    check_rank,
    check_same_dim,
    check_same_dtype,
    dim,
    is_one,
    operands,
    product,
    tensor_type,
    wide,
)
from treadle.ops._sums import accumulator, summed
from treadle.ops._window import (
    Dims,
    Pads,
    all_of,
    bordered,
    check_counts,
    check_groups,
    check_windows,
    plus,
    scaled,
    window_counts,
    windows,
)
from treadle.ops.broadcast import Sum
from treadle.ops.create import Full
from treadle.ops.pad import Pad
from treadle.ops.reshape import reshaped
from treadle.ops.shape import Permute

_SHORT_ROW = 14
"""Results that a row may have for the positions of all of them to be known in a tile."""


@dataclass(frozen=True, slots=True)
class _Contraction:
    """The loops of a convolution: Y[n, o, p…] = Σ over c, k… of X[n, c, p·stride + k·dilation…] ·
    W(o, c, k…).
    """

    groups: int
    outs: Expr  # channels of the result in a group
    ins: Expr  # channels of the operand in a group
    counts: Dims
    kernel: Dims
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    zeros: Pads = ()

    def emit(self, b: LoopBuilder, total: Buffer, x: Buffer, weight: Callable[..., Expr]) -> None:
        """Add the reduction. ``weight`` takes group, channel within, input channel within and the
        taps.

        Axes of one element are left out, so that a depthwise convolution has no loops over
        channels but one.
        """
        grouped = self.groups > 1
        has_out = not (grouped and is_one(self.outs))
        taps = [not is_one(k) for k in self.kernel]
        has_in = not is_one(self.ins) or not any(taps)
        spatial = (
            x.shape[0],
            *([as_expr(self.groups)] * grouped),
            *([self.outs] * has_out),
            *self.counts,
        )
        reduced = (
            *([self.ins] * has_in),
            *(k for k, kept in zip(self.kernel, taps, strict=True) if kept),
        )

        def channel(g: Expr, o: Expr) -> Expr:
            return plus(g * self.outs if has_out else g, o) if grouped else o

        def split(point: tuple[Var, ...]) -> tuple[Expr, Expr, Expr, list[Expr], Expr, list[Expr]]:
            given = iter(point)
            n = next(given)
            g = next(given) if grouped else ZERO
            o = next(given) if has_out else ZERO
            p = [next(given) for _ in self.counts]
            c = next(given, ZERO) if has_in else ZERO
            return n, g, o, list(p), c, [next(given, ZERO) if kept else ZERO for kept in taps]

        def at(*point: Var) -> tuple[Expr, ...]:
            n, g, o, p, _, _ = split(point)
            return (n, channel(g, o), *p)

        def term(*point: Var) -> Expr:
            n, g, o, p, c, k = split(point)
            source = plus(g * self.ins if has_in else g, c) if grouped else c
            steps = zip(p, self.stride, k, self.dilation, strict=True)
            places = [plus(scaled(i, s), scaled(j, d)) for i, s, j, d in steps]
            element = x[(n, source, *places)]
            found = cast(element, total.dtype) * cast(weight(g, o, c, k), total.dtype)
            within = [
                claim
                for place, size, (before, after) in zip(
                    places, x.shape[2:], self.zeros, strict=False
                )
                for claim in _within(place, size, before, after)
            ]
            return select(all_of(within), found, Const(0, total.dtype)) if within else found

        b.reduce_at(total, spatial, reduced, at, term)


def _within(place: Expr, size: Expr, before: int, after: int) -> list[Expr]:
    """What holds of a place along an axis that is not in the border."""
    low = [place >= before] if before else []
    return [*low, place < size - after] if after else low


def _accumulator(b: LoopBuilder, out: Buffer, bias: Buffer | None) -> Buffer:
    """Where sums are kept: apart from the result if a bias is still to come."""
    return accumulator(b, out) if bias is None else b.temp(out.shape, wide(out.dtype), "total")


def _finish(
    b: LoopBuilder,
    total: Buffer,
    out: Buffer,
    bias: Buffer | None,
    kept: Callable[[tuple[Var, ...]], tuple[Expr, ...]] = tuple,
) -> TensorFunction:
    """Add the bias of each channel, and round to the dtype of the result; ``kept`` says where in
    ``total`` an element of the result lies.
    """

    def value(*i: Var) -> Expr:
        found = total[kept(i)]
        return cast(found if bias is None else found + cast(bias[i[1]], total.dtype), out.dtype)

    if total is not out:
        b.compute(out, value)
    return b.build()


def _check_operands(
    op: Op, types: tuple[TensorType, ...]
) -> tuple[TensorType, TensorType, TensorType | None]:
    x, w, *rest = operands(op, types, 2, 3)
    check_dtype(op, check_same_dtype(op, types), "number")
    check_rank(op, x, 3, what="the operand")
    check_rank(op, w, x.ndim, x.ndim, "the weight")
    if rest:
        check_rank(op, rest[0], 1, 1, "the bias")
    return x, w, rest[0] if rest else None


def _with_bias(y: np.ndarray, bias: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    for v in bias:
        y = y + v.astype(y.dtype).reshape(-1, *[1] * (y.ndim - 2))
    return y.astype(dtype)


@dataclass(frozen=True)
class Conv(Op):
    """Slide a kernel over the spatial axes and sum products (cross-correlation, as the field calls
    convolution).

    Shapes:  x: (n, c, *size), weight: (o, c / groups, *kernel) [, bias: (o,)] -> (n, o, *count),
             where along each axis count = (size + before + after - dilation (kernel - 1) - 1) //
             stride + 1.
    What lies in the border of the operand, ``zeros`` elements before and after along each axis,
    counts as zero, so that its products need not be computed.

    Dtypes:  any numbers, all the same. f16 and bf16 are summed in f32.
    Errors:  E0101, E0102, E0103, E0107; E0106 if channels do not fit; E0108 for fields that do not.
    """

    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]
    groups: int = 1
    zeros: Pads = ()

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x, w, bias = _check_operands(self, types)
        check_windows(self, x.ndim - 2, self.stride, self.padding, self.dilation)
        fits = not self.zeros or (len(self.zeros) == x.ndim - 2 and not any(map(any, self.padding)))
        check_field(self, fits, "zeros must have a pair for each axis, and stand without padding")
        if any(t.shape is None for t in types):
            return TensorType(None, x.ndim, x.dtype)
        check_groups(self, self.groups, x.dims[1], w.dims[0])
        check_same_dim(self, x.dims[1], w.dims[1] * self.groups, "channels of operand and weight")
        if bias is not None:
            check_same_dim(
                self, bias.dims[0], w.dims[0], "the bias and the weight's first dimension"
            )
        counts = self._counts(x.dims[2:], w.dims[2:])
        check_counts(self, counts)
        return tensor_type((x.dims[0], w.dims[0], *counts), x.dtype)

    def _counts(self, size: Dims, kernel: Dims) -> Dims:
        return window_counts(size, kernel, self.stride, self.padding, self.dilation)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        x, w, *bias = arrays
        rank = x.ndim - 2
        kernel = w.shape[2:]
        if any(map(any, self.zeros)):
            inner = tuple(
                slice(p[0], n - p[1]) for n, p in zip(x.shape[2:], self.zeros, strict=True)
            )
            x = np.pad(x[(..., *inner)], ((0, 0), (0, 0), *self.zeros))
        axes = zip(x.shape[2:], kernel, self.stride, self.padding, self.dilation, strict=True)
        counts = [(n + p[0] + p[1] - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]
        view = windows(summed(x), kernel, self.stride, self.padding, self.dilation, counts)
        weight = summed(w)
        outs, ins = w.shape[0] // self.groups, w.shape[1]
        axes_of_view = (1, *range(2 + rank, 2 + 2 * rank))
        parts = [
            np.tensordot(
                view[:, g * ins : (g + 1) * ins],
                weight[g * outs : (g + 1) * outs],
                (axes_of_view, tuple(range(1, 2 + rank))),
            )
            for g in range(self.groups)
        ]
        return _with_bias(np.moveaxis(np.concatenate(parts, -1), -1, 1), bias, x.dtype)

    def lower(self, *types: TensorType) -> TensorFunction:
        """A copy with the padding if there is any, the contraction, then the bias."""
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        x, w, *rest = (b.input(t, name) for t, name in zip(types, ("X", "W", "bias"), strict=False))
        bias = rest[0] if rest else None
        out = b.output(result.dims, result.dtype)
        sizes = [
            plus(n, as_expr(p[0] + p[1])) for n, p in zip(x.shape[2:], self.padding, strict=True)
        ]
        padded = bordered(b, x, [p[0] for p in self.padding], sizes, 0)
        total = _accumulator(b, out, bias)
        outs = dim(w.shape[0] // self.groups)
        loops = _Contraction(
            self.groups,
            outs,
            w.shape[1],
            result.dims[2:],
            w.shape[2:],
            self.stride,
            self.dilation,
            self.zeros,
        )

        def weight(g: Expr, o: Expr, c: Expr, k: list[Expr]) -> Expr:
            channel = o if self.groups == 1 else g if is_one(outs) else plus(g * outs, o)
            return w[(channel, c, *k)]

        loops.emit(b, total, padded, weight)
        return _finish(b, total, out, bias)

    def unpadded(self, *types: TensorType) -> tuple[Pads, float, Op] | None:
        """The border of zeros, of which products are left out.

        Along the last axis, where a row of results is computed at once, that pays only if the row
        is short.
        """
        if not any(map(any, self.padding)) or types[0].shape is None or types[1].shape is None:
            return None
        none = ((0, 0),) * len(self.padding)
        *_, columns = self._counts(types[0].dims[2:], types[1].dims[2:])
        short = (int_value(columns) or _SHORT_ROW + 1) <= _SHORT_ROW
        zeros = self.padding if short else (*self.padding[:-1], (0, 0))
        return ((0, 0), (0, 0), *self.padding), 0.0, replace(self, padding=none, zeros=zeros)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """A transposed convolution for the operand, a convolution of operand and gradient for the
        weight.
        """
        x, w, *bias = args
        (dy,) = douts
        if any(map(any, self.zeros)):
            inner = Pad(((0, 0), (0, 0), *((-a, -b) for a, b in self.zeros)))(x)
            padded = replace(self, padding=self.zeros, zeros=())
            dx, *others = padded.vjp((inner, w, *bias), outs, douts)
            return (dx and Pad(((0, 0), (0, 0), *self.zeros))(dx), *others)
        dx = _transpose_to(x.shape, dy, w, self)
        dw = _weight_gradient(x, dy, w.shape, self)
        return (dx, dw, *(_channel_sum(dy) for _ in bias))

    @classmethod
    def samples(cls) -> Samples:
        """One to three dimensions; strides, dilations, groups, depthwise, padding on one side."""
        none, same = (0, 0), (1, 1)
        yield (
            cls((1, 1), (none, none), (1, 1)),
            (example(f32, "n", 3, 5, 6), example(f32, 4, 3, 2, 3)),
        )
        yield (
            cls((2, 1), (same, (0, 1)), (1, 2)),
            (example(f32, 2, 3, 7, 6), example(f32, 5, 3, 3, 2), example(f32, 5)),
        )
        yield cls((2,), (same,), (1,)), (example(f32, "n", 2, 7), example(f32, 3, 2, 3))
        yield (
            cls((1, 1), (none, none), (1, 1)),
            (example(f32, 1, 3, 4, 4), example(f32, 2, 3, 1, 1)),
        )
        yield (
            cls((1, 1), (same, same), (1, 1), 2),
            (example(f32, 2, 4, 4, 3), example(f32, 6, 2, 3, 3)),
        )
        yield (
            cls((2, 2), (same, same), (1, 1), 3),
            (example(f32, "n", 3, 5, 4), example(f32, 3, 1, 3, 3), example(f32, 3)),
        )
        yield cls((1,), (none,), (1,), 2), (example(f32, 1, 2, 5), example(f32, 4, 1, 2))
        yield (
            cls((1, 2, 1), (same, none, same), (1, 1, 1)),
            (example(f32, 1, 2, 3, 4, 2), example(f32, 2, 2, 2, 3, 3)),
        )
        yield cls((1,), (none,), (1,)), (example(f32, 0, 2, 5), example(f32, 3, 2, 2))
        yield (
            cls((1,), (same,), (1,)),
            (example(f16, 1, 5, 5), example(f16, 3, 5, 3), example(f16, 3)),
        )
        yield cls((1,), (same,), (1,)), (example(bf16, 1, 5, 5), example(bf16, 3, 5, 3))
        yield (
            cls((2, 1), (none, none), (1, 1), 1, (same, (0, 1))),
            (example(f32, "n", 3, 6, 5), example(f32, 4, 3, 3, 2)),
        )


@dataclass(frozen=True)
class ConvTranspose(Op):
    """The gradient of a convolution as an operation: every element adds a kernel's worth to the
    result.

    Shapes:  x: (n, c, *size), weight: (c, o / groups, *kernel) [, bias: (o,)] -> (n, o, *count),
             where along each axis count = (size - 1) stride - before - after + dilation (kernel -
             1) + 1 + output_padding.
    Dtypes:  any numbers, all the same. f16 and bf16 are summed in f32.
    Errors:  E0101, E0102, E0103, E0107; E0106 if channels do not fit; E0108 for fields that do not.
    """

    stride: tuple[int, ...]
    padding: Pads
    output_padding: tuple[Expr | int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x, w, bias = _check_operands(self, types)
        check_windows(self, x.ndim - 2, self.stride, self.padding, self.dilation)
        check_field(
            self,
            len(self.output_padding) == x.ndim - 2,
            f"output_padding must have {x.ndim - 2} values",
        )
        if any(t.shape is None for t in types):
            return TensorType(None, x.ndim, x.dtype)
        check_groups(self, self.groups, x.dims[1])
        check_same_dim(self, x.dims[1], w.dims[0], "channels of operand and weight")
        channels = dim(w.dims[1] * self.groups)
        if bias is not None:
            check_same_dim(self, bias.dims[0], channels, "the bias and the channels of the result")
        counts = _transposed_counts(
            x.dims[2:], w.dims[2:], self.stride, self.padding, self.dilation, self.output_padding
        )
        check_counts(self, counts)
        return tensor_type((x.dims[0], channels, *counts), x.dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        x, w, *bias = arrays
        values, weight = summed(x), summed(w)
        size, kernel = x.shape[2:], w.shape[2:]
        axes = list(zip(size, kernel, self.stride, self.padding, self.dilation, strict=True))
        extra = self._extra_of(x.shape)
        full = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, _, d in axes]
        whole = [n + max(e, 0) for n, e in zip(full, extra, strict=True)]
        ins, outs = w.shape[0] // self.groups, w.shape[1]
        y = np.zeros((x.shape[0], outs * self.groups, *whole), values.dtype)
        for g in range(self.groups):
            for tap in points(*map(range, kernel)):
                term = np.tensordot(
                    values[:, g * ins : (g + 1) * ins],
                    weight[(slice(g * ins, (g + 1) * ins), slice(None), *tap)],
                    (1, 0),
                )
                places = tuple(
                    slice(t * d, t * d + (n - 1) * s + 1, s)
                    for t, (n, _, s, _, d) in zip(tap, axes, strict=True)
                )
                y[(slice(None), slice(g * outs, (g + 1) * outs), *places)] += np.moveaxis(
                    term, -1, 1
                )
        kept = tuple(
            slice(p[0], n + e - p[1]) for n, e, p in zip(full, extra, self.padding, strict=True)
        )
        return _with_bias(y[(slice(None), slice(None), *kept)], bias, x.dtype)

    def _extra_of(self, shape: tuple[int, ...]) -> list[int]:
        known = [int_value(e) for e in self.output_padding]
        check_field(
            self, None not in known, f"output_padding is not known for an operand of {shape}"
        )
        return [e or 0 for e in known]

    def lower(self, *types: TensorType) -> TensorFunction:
        """A copy with the border, the contraction of every phase, then crop and bias."""
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        x, w, *rest = (b.input(t, name) for t, name in zip(types, ("X", "W", "bias"), strict=False))
        bias = rest[0] if rest else None
        out = b.output(result.dims, result.dtype)
        phases = Phases.of(
            self.groups, w, result.dims[2:], self.stride, self.padding, self.dilation
        )
        padded = phases.operand(b, x)
        if phases.whole:
            total = _accumulator(b, out, bias)
        else:
            total = b.temp((*out.shape[:2], *phases.sizes()), wide(out.dtype), "total")
        phases.emit(b, total, padded, w)
        return _finish(b, total, out, bias, phases.kept)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """A convolution for the operand, a convolution of gradient and operand for the weight."""
        x, w, *bias = args
        (dy,) = douts
        forward = Conv(self.stride, self.padding, self.dilation, self.groups)
        dx = cropped(forward(dy, w), x.shape)
        dw = _weight_gradient(dy, x, w.shape, forward)
        return (dx, dw, *(_channel_sum(dy) for _ in bias))

    @classmethod
    def samples(cls) -> Samples:
        """One to three dimensions; strides, dilations, groups, output padding."""
        none, same = (0, 0), (1, 1)
        yield (
            cls((2, 2), (none, none), (0, 0), (1, 1)),
            (example(f32, "n", 3, 3, 2), example(f32, 3, 4, 2, 2)),
        )
        yield (
            cls((2, 3), (same, (0, 1)), (1, 0), (1, 2)),
            (example(f32, 2, 3, 3, 4), example(f32, 3, 2, 3, 2), example(f32, 2)),
        )
        yield cls((1,), (same,), (0,), (1,)), (example(f32, "n", 2, 5), example(f32, 2, 3, 3))
        yield (
            cls((2, 1), (same, same), (1, 0), (1, 1), 2),
            (example(f32, 1, 4, 3, 3), example(f32, 4, 3, 3, 3)),
        )
        yield cls((2,), (none,), (1,), (1,), 3), (example(f32, 1, 3, 4), example(f32, 3, 1, 3))
        yield (
            cls((1, 1), (none, none), (0, 0), (1, 1)),
            (example(f32, 1, 3, 2, 2), example(f32, 3, 2, 1, 1)),
        )
        yield (
            cls((1, 2, 1), (none, same, none), (0, 0, 0), (1, 1, 1)),
            (example(f32, 1, 2, 2, 3, 2), example(f32, 2, 2, 2, 3, 1)),
        )
        yield (
            cls((2,), (none,), (0,), (1,)),
            (example(f16, 1, 5, 4), example(f16, 5, 2, 2), example(f16, 2)),
        )


def _transposed_counts(
    size: Sequence[Expr],
    kernel: Sequence[Expr],
    stride: Sequence[int],
    padding: Pads,
    dilation: Sequence[int],
    extra: Sequence[Expr | int],
) -> Dims:
    axes = zip(size, kernel, stride, padding, dilation, extra, strict=True)
    return tuple(
        dim((n - 1) * s + (k - 1) * d + (1 - p[0] - p[1]) + e) for n, k, s, p, d, e in axes
    )


def _transpose_to(shape: Dims, dy: Traced, w: Traced, op: Conv) -> Traced:
    """The transposed convolution of ``dy`` whose result has the spatial dimensions of ``shape``."""
    bare = _transposed_counts(
        dy.shape[2:], w.shape[2:], op.stride, op.padding, op.dilation, (0,) * len(op.stride)
    )
    extra = tuple(difference(want, have) for want, have in zip(shape[2:], bare, strict=True))
    plain = tuple(e if (k := int_value(e)) is None else k for e in extra)
    return ConvTranspose(op.stride, op.padding, plain, op.dilation, op.groups)(dy, w)


def spread_windows(
    dy: Traced,
    shape: Dims,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Pads,
    dilation: tuple[int, ...],
) -> Traced:
    """For every element of a tensor of ``shape``, the sum of ``dy`` over the windows that hold
    it.
    """
    unit, rows = as_expr(1), product(shape[:2])
    ones = dy.builder.emit(Full((unit, unit, *map(as_expr, kernel)), 1, dy.dtype))
    # Channels are rows of their own: no need for as many groups.
    flat = reshaped(dy, (rows, unit, *dy.shape[2:]))
    found = _transpose_to((rows, unit, *shape[2:]), flat, ones, Conv(stride, padding, dilation))
    return reshaped(found, shape)


def _weight_gradient(x: Traced, dy: Traced, shape: Dims, op: Conv) -> Traced:
    """The gradient of the weight: the operand convolved by the result's gradient, batch and
    channels exchanged.
    """
    groups = op.groups
    rest = tuple(range(2, x.ndim))
    swap = Permute((1, 0, *rest))
    if groups == 1:
        batched = swap(x)
    else:
        inner = dim(x.shape[1] // groups)
        parts = reshaped(x, (x.shape[0], as_expr(groups), inner, *x.shape[2:]))
        turned = Permute((2, 1, 0, *(r + 1 for r in rest)))(parts)
        batched = reshaped(turned, (inner, dim(x.shape[0] * groups), *x.shape[2:]))
    # A step of the kernel is a step of the operand, so stride and dilation change places.
    found = Conv(op.dilation, op.padding, op.stride, groups)(batched, swap(dy))
    return cropped(swap(found), shape)


def _channel_sum(dy: Traced) -> Traced:
    return Sum((0, *range(2, dy.ndim)))(dy)
