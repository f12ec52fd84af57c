"""Loop programs that the tests of schedules work on."""

import numpy as np

from treadle.expr.dtype import f32
from treadle.expr.scalar import Const, Expr, ExprLike, Var, apply, as_expr, maximum, select
from treadle.ir.loop_builder import LoopBuilder, guarded
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType


def _type(*dims: ExprLike) -> TensorType:
    shape = tuple(as_expr(d) for d in dims)
    return TensorType(shape, len(shape), f32)


def matmul_epilogue(m: ExprLike, n: ExprLike, k: ExprLike, combine: str = "add") -> TensorFunction:
    """T = A @ B; S = T + b; Y = max(S, 0)."""
    b = LoopBuilder("matmul_epilogue")
    a, w, bias = b.input(_type(m, k), "A"), b.input(_type(k, n), "B"), b.input(_type(n), "bias")
    y = b.output((m, n), f32, "Y")
    t, s = b.temp((m, n), f32, "T"), b.temp((m, n), f32, "S")
    b.reduce(t, (k,), lambda i, j, p: a[i, p] * w[p, j], combine)  # type: ignore[arg-type]
    b.compute(s, lambda i, j: t[i, j] + bias[j])
    b.compute(y, lambda i, j: maximum(s[i, j], 0.0))
    return b.build()


def softmax(m: ExprLike, n: ExprLike) -> TensorFunction:
    """M = max, E = exp(X - M), S = sum, Y = E / S, along rows."""
    b = LoopBuilder("softmax")
    x = b.input(_type(m, n), "X")
    y = b.output((m, n), f32, "Y")
    top, e, s = b.temp((m,), f32, "M"), b.temp((m, n), f32, "E"), b.temp((m,), f32, "S")
    b.reduce(top, (n,), lambda i, j: x[i, j], "max")
    b.compute(e, lambda i, j: apply("exp", x[i, j] - top[i]))
    b.reduce(s, (n,), lambda i, j: e[i, j])
    b.compute(y, lambda i, j: e[i, j] / s[i])
    return b.build()


def convolution(c: ExprLike, h: ExprLike, w: ExprLike, o: ExprLike) -> TensorFunction:
    """A 3×3 convolution of an input padded by one, then bias and relu."""
    b = LoopBuilder("convolution")
    x, k, bias = (
        b.input(_type(c, h, w), "X"),
        b.input(_type(o, c, 3, 3), "K"),
        b.input(_type(o), "bias"),
    )
    y = b.output((o, h, w), f32, "Y")
    height, width = as_expr(h), as_expr(w)
    p, t = b.temp((c, height + 2, width + 2), f32, "P"), b.temp((o, h, w), f32, "T")

    def padded(ci: Expr, i: Expr, j: Expr) -> Expr:
        inside = (i >= 1) & (i < height + 1) & (j >= 1) & (j < width + 1)
        return guarded(inside, x[ci, i - 1, j - 1], Const(0.0, f32))

    b.compute(p, padded)
    b.reduce(t, (c, 3, 3), lambda oi, i, j, ci, di, dj: p[ci, i + di, j + dj] * k[oi, ci, di, dj])
    b.compute(y, lambda oi, i, j: select(t[oi, i, j] + bias[oi] > 0.0, t[oi, i, j] + bias[oi], 0.0))
    return b.build()


def small_floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Small integers as floats: sums of their products are exact in any order."""
    return rng.integers(-3, 4, shape).astype(np.float32)


N, M, K = Var("n"), Var("m"), Var("k")
