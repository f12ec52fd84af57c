"""Scaled dot-product attention."""

from dataclasses import dataclass
from math import inf

import numpy as np

from treadle.expr.dtype import boolean, f16, f32
from treadle.expr.scalar import Expr, apply, as_expr, cast, int_value
from treadle.ir.graph_builder import Traced
from treadle.ir.op import Op, Samples, example
from treadle.ir.types import TensorType
from treadle.ops._compose import counted, transposed
from treadle.ops._pointwise import number
from treadle.ops._shapes import (
    broadcast_shapes,
    check_dtype,
    check_field,
    check_is,
    check_rank,
    check_same_dim,
    check_same_dtype,
    dim,
    is_one,
    operands,
    same_dim,
    tensor_type,
    wide,
)
from treadle.ops._sums import summed
from treadle.ops.binary import Add, Mul, Sub
from treadle.ops.broadcast import Sum, unbroadcast
from treadle.ops.compare import GreaterEqual, Where
from treadle.ops.contraction import Matmul
from treadle.ops.normalize import Softmax
from treadle.ops.reshape import reshaped


@dataclass(frozen=True)
class Attention(Op):
    """Averages of values, weighted by the softmax of scaled products of queries and keys.

    ``scale`` is one over the root of the width unless given. ``causal`` lets query i see the keys
    up to i. Where a query may see nothing its result is zero. If there are fewer heads of keys
    than of queries, neighbouring query heads share one.

    Shapes:  q: (*batch, heads, s, d), k: (*batch, shared heads, t, d), v: (*batch, shared heads,
             t, e) [, mask, which broadcasts to (*batch, heads, s, t): true where a query may see a
             key, or floats that are added] -> (*batch, heads, s, e). The heads may be missing.
    Dtypes:  any float, all the same; the mask may be bool.
    Errors:  E0101, E0102, E0103, E0105, E0106, E0107; E0108 if the numbers of heads do not divide.
    """

    causal: bool = False
    scale: float | None = None

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        q, k, v, *rest = operands(self, types, 3, 4)
        dtype = check_dtype(self, check_same_dtype(self, types[:3]), "float")
        for t in (q, k, v):
            check_rank(self, t, 2)
            check_rank(self, t, q.ndim, q.ndim, "each of query, key and value")
        for mask in rest:
            if mask.dtype != boolean:
                check_is(self, mask.dtype, dtype, "a mask that is not bool")
        if any(t.shape is None for t in types):
            return TensorType(None, q.ndim, dtype)
        check_same_dim(self, q.dims[-1], k.dims[-1], "the widths of queries and keys")
        check_same_dim(self, k.dims[-2], v.dims[-2], "the numbers of keys and values")
        for a, b in zip(k.dims[:-2], v.dims[:-2], strict=True):
            check_same_dim(self, a, b, "the batches of keys and values")
        for a, b in zip(q.dims[:-3], k.dims[:-3], strict=True):
            check_same_dim(self, a, b, "the batches of queries and keys")
        if q.ndim > 2:
            self._repeats(q.dims[-3], k.dims[-3])
        for mask in rest:
            broadcast_shapes(self, (*q.dims[:-1], k.dims[-2]), mask.dims)
        return tensor_type((*q.dims[:-1], v.dims[-1]), dtype)

    def _repeats(self, heads: Expr, shared: Expr) -> int:
        """How many query heads share one of keys."""
        if same_dim(heads, shared):
            return 1
        many, few = int_value(heads), int_value(shared)
        fits = many is not None and few is not None and few > 0 and many % few == 0
        check_field(self, fits, f"{heads} heads of queries cannot share {shared} of keys")
        return (many or 0) // (few or 1)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        q, k, v = map(summed, arrays[:3])
        if q.ndim > 2 and q.shape[-3] != k.shape[-3]:
            k, v = (np.repeat(x, q.shape[-3] // k.shape[-3], -3) for x in (k, v))
        scores = q @ k.swapaxes(-1, -2) * np.asarray(self._factor(q.shape[-1]), q.dtype)
        if self.causal:
            scores = np.where(np.tri(q.shape[-2], k.shape[-2], dtype=bool), scores, -np.inf)
        for mask in arrays[3:]:
            scores = (
                np.where(mask, scores, -np.inf)
                if mask.dtype == bool
                else scores + mask.astype(scores.dtype)
            )
        largest = scores.max(-1, keepdims=True, initial=-np.inf)
        e = np.exp(scores - np.where(largest == -np.inf, 0, largest))
        total = e.sum(-1, keepdims=True)
        return ((e / np.where(total == 0, 1, total)) @ v).astype(arrays[0].dtype)

    def _factor(self, width: int) -> float:
        return width**-0.5 if self.scale is None else self.scale

    def decompose(self, *args: Traced) -> Traced:
        """Two products of matrices and a softmax between them."""
        q, k, v, *masks = args
        heads = self._heads(q, k)
        weights = self._weights(heads, q, k, masks)
        return reshaped(Matmul()(weights, heads.shared(v)), (*q.shape[:-1], v.shape[-1]))

    def _heads(self, q: Traced, k: Traced) -> "_Heads":
        repeats = self._repeats(q.shape[-3], k.shape[-3]) if q.ndim > 2 else 1
        return _Heads(repeats)

    def _scale_of(self, q: Traced) -> Traced:
        width = int_value(q.shape[-1])
        if self.scale is not None or width is not None:
            return number(q, self._factor(width or 1))
        root = apply("rsqrt", cast(q.shape[-1], wide(q.dtype)))
        return q.builder.literal(cast(root, q.dtype), q.dtype)

    def _weights(self, heads: "_Heads", q: Traced, k: Traced, masks: list[Traced]) -> Traced:
        """The share of each key in each query's result."""
        queries = Mul()(heads.split(q), self._scale_of(q))
        scores = Matmul()(queries, transposed(heads.shared(k)))
        never = number(q, -inf)
        if self.causal:
            s, t = q.shape[-2], k.shape[-2]
            seen = GreaterEqual()(counted(q.builder, s, 0, 2), counted(q.builder, t, 1, 2))
            scores = Where()(seen, scores, never)
        for mask in masks:
            aligned = heads.split_mask(mask)
            scores = (
                Where()(aligned, scores, never) if mask.dtype == boolean else Add()(scores, aligned)
            )
        return Softmax(blind_rows=bool(masks))(scores)

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """Through both products and the softmax, whose result is computed again."""
        q, k, v, *masks = args
        heads = self._heads(q, k)
        weights = self._weights(heads, q, k, masks)
        queries, keys, values, dy = (
            heads.split(q),
            heads.shared(k),
            heads.shared(v),
            heads.split(douts[0]),
        )
        dv = unbroadcast(Matmul()(transposed(weights), dy), values.shape)
        dweights = Matmul()(dy, transposed(values))
        dot = Sum((-1,), keepdims=True)(Mul()(dweights, weights))
        dscores = Mul()(Sub()(dweights, dot), weights)
        scaled = Mul()(dscores, self._scale_of(q))
        dq = Matmul()(scaled, keys)
        dk = unbroadcast(Matmul()(transposed(scaled), queries), keys.shape)
        whole = reshaped(dscores, (*q.shape[:-1], k.shape[-2]))
        dmasks = (None if m.dtype == boolean else unbroadcast(whole, m.shape) for m in masks)
        return (reshaped(dq, q.shape), reshaped(dk, k.shape), reshaped(dv, v.shape), *dmasks)

    @classmethod
    def samples(cls) -> Samples:
        """Masks of both kinds, shared heads, more keys than queries."""
        q, k = example(f32, "n", 2, 3, 4), example(f32, "n", 2, 5, 4)
        yield cls(), (q, k, example(f32, "n", 2, 5, 3))
        yield cls(causal=True), (q, k, k)
        yield cls(scale=0.3), (q, k, k, example(boolean, 3, 5))
        yield (
            cls(),
            (example(f32, 3, 4), example(f32, 5, 4), example(f32, 5, 2), example(f32, 3, 5)),
        )
        shared = example(f32, 1, 2, 5, 4)
        yield cls(causal=True), (example(f32, 1, 6, 5, 4), shared, shared)
        yield cls(), (example(f32, 1, 4, 3, 4), shared, shared, example(f32, 1, 4, 3, 5))
        yield cls(), (example(f16, 2, 3, 4), example(f16, 2, 5, 4), example(f16, 2, 5, 4))


@dataclass(frozen=True, slots=True)
class _Heads:
    """How tensors are viewed where ``repeats`` heads of queries share one of keys: an axis of its
    own for those.
    """

    repeats: int

    def split(self, x: Traced) -> Traced:
        """(…, heads, s, d) as (…, shared, repeats, s, d)."""
        if self.repeats == 1:
            return x
        *batch, heads, rows, width = x.shape
        return reshaped(x, (*batch, dim(heads // self.repeats), as_expr(self.repeats), rows, width))

    def shared(self, x: Traced) -> Traced:
        """(…, shared, t, d) as (…, shared, 1, t, d)."""
        if self.repeats == 1:
            return x
        return reshaped(x, (*x.shape[:-2], as_expr(1), *x.shape[-2:]))

    def split_mask(self, mask: Traced) -> Traced:
        """A mask as one for the scores of split queries."""
        if self.repeats == 1 or mask.ndim < 3:
            return mask
        return self.shared(mask) if is_one(mask.shape[-3]) else self.split(mask)
