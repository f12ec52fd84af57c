"""Normalizations by channel: of a batch, of groups, of instances, and of neighbouring channels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from treadle.expr.dtype import f16, f32
from treadle.expr.scalar import Expr, Var, as_expr, cast
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._compose import along, converted, widened
from treadle.ops._pointwise import number
from treadle.ops._shapes import (
    check_dtype,
    check_field,
    check_rank,
    check_same_dim,
    check_same_dtype,
    dim,
    is_one,
    one,
    operands,
    product,
    wide,
)
from treadle.ops._sums import summed
from treadle.ops._window import check_groups, plus
from treadle.ops.binary import Add, Mul, Sub
from treadle.ops.broadcast import Sum
from treadle.ops.elementwise import Rsqrt, Square
from treadle.ops.normalize import (
    affine,
    affine_array,
    moments,
    normal_array,
    normalized,
    normalized_gradient,
)
from treadle.ops.pool import AvgPool
from treadle.ops.power import Pow
from treadle.ops.reshape import reshaped


def _check_channels(op: Op, types: tuple[TensorType, ...], least: int, most: int) -> TensorType:
    """The operand's type; each of the others has one element for each channel."""
    x, *rest = operands(op, types, least, most)
    check_dtype(op, check_same_dtype(op, types), "float")
    check_rank(op, x, 2)
    for t in rest:
        check_rank(op, t, 1, 1, "each parameter")
        if t.shape is not None and x.shape is not None:
            check_same_dim(op, t.dims[0], x.dims[1], "the channels and the parameters")
    return x


def _channel_sums(x: Traced) -> Traced:
    return Sum((0, *range(2, x.ndim)))(x)


def _by_channel(x: np.ndarray) -> tuple[int, ...]:
    return (-1, *[1] * (x.ndim - 2))


@dataclass(frozen=True)
class BatchNorm(Op):
    """Normalize each channel (axis 1) by given statistics, as at inference.

    Shapes:  x: (n, c, *any), weight, bias, mean, variance: (c,) -> that of x.
    Dtypes:  any float, all the same. Computed in f32 for 16-bit floats.
    Errors:  E0101, E0102, E0103, E0106, E0107.
    """

    eps: float = 1e-5

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        return _check_channels(self, types, 5, 5)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        x, weight, bias, mean, var = map(summed, arrays)
        shape = _by_channel(x)
        scale = weight / np.sqrt(var + np.asarray(self.eps, x.dtype))
        return ((x - mean.reshape(shape)) * scale.reshape(shape) + bias.reshape(shape)).astype(
            arrays[0].dtype
        )

    def decompose(self, *args: Traced) -> Traced:
        """A factor and a summand for each channel: constants, when the statistics are."""
        x, weight, bias, mean, var = map(widened, args)
        scale = Mul()(weight, Rsqrt()(Add()(var, number(var, self.eps))))
        shift = Sub()(bias, Mul()(mean, scale))
        y = Add()(Mul()(x, along(scale, 1, x.ndim)), along(shift, 1, x.ndim))
        return converted(y, args[0].dtype)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """Of every operand, the statistics included."""
        dtype = args[0].dtype
        x, weight, _, mean, var = map(widened, args)
        dy = widened(douts[0])
        root = Rsqrt()(Add()(var, number(var, self.eps)))
        scale = Mul()(weight, root)
        moved = _channel_sums(Mul()(dy, Sub()(x, along(mean, 1, x.ndim))))
        total = _channel_sums(dy)
        dx = Mul()(dy, along(scale, 1, x.ndim))
        dmean = Mul()(number(x, -1), Mul()(total, scale))
        dvar = Mul()(number(x, -0.5), Mul()(moved, Mul()(scale, Square()(root))))
        return tuple(converted(d, dtype) for d in (dx, Mul()(moved, root), total, dmean, dvar))

    @classmethod
    def samples(cls) -> Samples:
        """Images, and rows without spatial axes."""
        for dtype, dims in ((f32, ("n", 3, 4, 5)), (f32, (5, 7)), (f16, (2, 3, 5))):
            channel = example(dtype, dims[1])
            yield (
                cls(),
                (
                    example(dtype, *dims),
                    channel,
                    channel,
                    channel,
                    example(dtype, dims[1], low=0.5, high=2),
                ),
            )


def _lower_groups(
    op: Op, types: tuple[TensorType, ...], rows: tuple[Expr, ...], inner: Expr | None, eps: float
) -> TensorFunction:
    """Normalize every row: a group of ``inner`` channels of an element of the batch, or with
    ``None`` one channel.
    """
    b = LoopBuilder(op.op_name())
    x, *rest = (b.input(t, name) for t, name in zip(types, ("X", "weight", "bias"), strict=False))
    out = b.output(x.shape, x.dtype)
    dtype = wide(x.dtype)
    over = x.shape[2:] if inner is None else (inner, *x.shape[2:])

    def element(n: Var, g: Var, *i: Var) -> Expr:
        if inner is None:
            return cast(x[(n, g, *i)], dtype)
        return cast(x[(n, plus(g * inner, i[0]), *i[1:])], dtype)

    found = moments(b, rows, over, dtype, eps, element)

    def value(*i: Var) -> Expr:
        row = (i[0], i[1] if inner is None else i[1] // inner)
        parameters = [p[i[1]] for p in rest]
        normal = (cast(x[i], dtype) - found.mean[row]) * found.scale[row]
        weight = parameters[0] if parameters else None
        return cast(
            affine(normal, weight, parameters[1] if len(parameters) > 1 else None), out.dtype
        )

    b.compute(out, value)
    return b.build()


def _group_gradients(
    args: tuple[Traced, ...],
    dy: Traced,
    eps: float,
    axes: tuple[int, ...],
    split: Callable[[Traced], Traced],
) -> tuple[Traced | None, ...]:
    """The gradients of a normalization over ``axes`` of what ``split`` makes of the operand."""
    x, *rest = args
    values, scale = normalized(split(widened(x)), axes, eps, True)
    g = widened(dy)
    inner = Mul()(g, along(widened(rest[0]), 1, x.ndim)) if rest else g
    dx = reshaped(normalized_gradient(values, scale, split(inner), axes, True), x.shape)
    sums = (Mul()(g, reshaped(values, x.shape)), g)
    found = (dx, *(_channel_sums(s) for s, _ in zip(sums, rest, strict=False)))
    return tuple(converted(d, x.dtype) for d in found)


@dataclass(frozen=True)
class GroupNorm(Op):
    """Normalize groups of neighbouring channels of each element of the batch to mean 0 and
    deviation 1.

    Shapes:  x: (n, c, *any) [, weight: (c,) [, bias: (c,)]] -> that of x.
    Dtypes:  any float, all the same. Computed in f32 for 16-bit floats.
    Errors:  E0101, E0102, E0103, E0106, E0107; E0108 if ``groups`` does not divide the channels.
    """

    groups: int
    eps: float = 1e-5

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x = _check_channels(self, types, 1, 3)
        check_groups(self, self.groups, *(x.dims[1:2] if x.shape is not None else ()))
        return x

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        x, *rest = arrays
        split = summed(x).reshape(x.shape[0], self.groups, x.shape[1] // self.groups, *x.shape[2:])
        y = normal_array(split, tuple(range(2, split.ndim)), self.eps).reshape(x.shape)
        return affine_array(y, rest, _by_channel(x), x.dtype)

    def lower(self, *types: TensorType) -> TensorFunction:
        """The mean and the mean of squared deviations of each group, then every element."""
        n, c = types[0].dims[:2]
        inner = dim(c // self.groups)
        return _lower_groups(
            self, types, (n, as_expr(self.groups)), None if is_one(inner) else inner, self.eps
        )

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """As of ``LayerNorm``, group by group."""
        x = args[0]
        rest = product((dim(x.shape[1] // self.groups), *x.shape[2:]))
        shape = (x.shape[0], as_expr(self.groups), rest)
        return _group_gradients(args, douts[0], self.eps, (2,), lambda t: reshaped(t, shape))

    @classmethod
    def samples(cls) -> Samples:
        """Some groups, one, and as many as channels."""
        yield cls(2), (example(f32, "n", 4, 3, 2), example(f32, 4), example(f32, 4))
        yield cls(1), (example(f32, 2, 3, 5), example(f32, 3))
        yield cls(3, 1e-3), (example(f32, 2, 3, 5),)
        yield cls(2), (example(f16, 1, 4, 5), example(f16, 4), example(f16, 4))


@dataclass(frozen=True)
class InstanceNorm(Op):
    """Normalize every channel of each element of the batch over its spatial axes.

    Shapes:  x: (n, c, *size) [, weight: (c,) [, bias: (c,)]] -> that of x.
    Dtypes:  any float, all the same. Computed in f32 for 16-bit floats.
    Errors:  E0101, E0102, E0103, E0106, E0107.
    """

    eps: float = 1e-5

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x = _check_channels(self, types, 1, 3)
        check_rank(self, x, 3)
        return x

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        x, *rest = arrays
        y = normal_array(summed(x), tuple(range(2, x.ndim)), self.eps)
        return affine_array(y, rest, _by_channel(x), x.dtype)

    def lower(self, *types: TensorType) -> TensorFunction:
        """The mean and the mean of squared deviations of each channel, then every element."""
        return _lower_groups(self, types, types[0].dims[:2], None, self.eps)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """As of ``LayerNorm``, channel by channel."""
        axes = tuple(range(2, args[0].ndim))
        return _group_gradients(args, douts[0], self.eps, axes, lambda t: t)

    @classmethod
    def samples(cls) -> Samples:
        """With and without parameters."""
        yield cls(), (example(f32, "n", 3, 4, 2), example(f32, 3), example(f32, 3))
        yield cls(1e-3), (example(f32, 2, 3, 7),)


@dataclass(frozen=True)
class Lrn(Op):
    """Divide by a power of the sum of squares over ``size`` neighbouring channels: ``x / (bias +
    alpha / size Σ x²)^beta``.

    Of an even number of neighbours one more lies behind than before.

    Shapes:  x: (n, c, *any) -> the same.
    Dtypes:  any float.
    Errors:  E0101, E0103, E0107, E0108.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x = one(self, types)
        check_dtype(self, x.dtype, "float")
        check_rank(self, x, 2)
        check_field(self, self.size >= 1, f"size must be positive, not {self.size}")
        return x

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        x = summed(arrays[0])
        before = (self.size - 1) // 2
        total = np.zeros_like(x)
        for c in range(x.shape[1]):
            total[:, c] = (x[:, max(0, c - before) : c - before + self.size] ** 2).sum(1)
        return (x / (self.bias + self.alpha / self.size * total) ** self.beta).astype(
            arrays[0].dtype
        )

    def decompose(self, *args: Traced) -> Traced:
        """A pool over the channels and a power."""
        (x,) = args
        return Mul()(x, Pow()(self._base(x), number(x, -self.beta)))

    def _base(self, x: Traced) -> Traced:
        summands = self._neighbours(Square()(x), reverse=False)
        return Add()(Mul()(summands, number(x, self.alpha / self.size)), number(x, self.bias))

    def _neighbours(self, x: Traced, reverse: bool) -> Traced:
        """The sum over the neighbours of each channel; with ``reverse`` over those whose neighbour
        it is.
        """
        before = (self.size - 1) // 2
        after = self.size - 1 - before
        pads = (after, before) if reverse else (before, after)
        image = (x.shape[0], as_expr(1), x.shape[1], product(x.shape[2:]))
        pool = AvgPool((self.size, 1), (1, 1), (pads, (0, 0)), divisor=1)
        return reshaped(pool(reshaped(x, image)), x.shape)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """``dx = dy s^-β - 2 α β / size x Σ dy x s^(-β - 1)``."""
        (x,), (dy,) = args, douts
        base = self._base(x)
        shared = Mul()(dy, Pow()(base, number(x, -self.beta)))
        spread = self._neighbours(
            Mul()(x, Mul()(dy, Pow()(base, number(x, -self.beta - 1)))), reverse=True
        )
        factor = number(x, 2 * self.alpha * self.beta / self.size)
        return (Sub()(shared, Mul()(factor, Mul()(x, spread))),)

    @classmethod
    def samples(cls) -> Samples:
        """Odd and even numbers of neighbours."""
        yield cls(3, 0.5), (example(f32, "n", 5, 2, 3),)
        yield cls(2, 0.3, 0.5, 2.0), (example(f32, 2, 4, 3),)
