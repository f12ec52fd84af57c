"""Random graphs: machine code, on one thread and on two, agrees with the graph interpreter."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle.base.errors import TypeMismatch
from treadle.expr.dtype import DType, f16, f32, f64, i32, i64
from treadle.expr.scalar import Expr, Var, as_expr, const, int_value
from treadle.ir.analysis import shape_symbols
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ir.types import tensor
from treadle.ops import (
    Abs,
    Add,
    Attention,
    AvgPool,
    Cast,
    Clip,
    Concat,
    Conv,
    ConvTranspose,
    CumSum,
    Expand,
    Flip,
    Gather,
    Gelu,
    GreaterEqual,
    LayerNorm,
    LogSoftmax,
    Matmul,
    Max,
    Maximum,
    MaxPool,
    Mean,
    Min,
    Minimum,
    Mul,
    Neg,
    Pad,
    Permute,
    Relu,
    Reshape,
    RmsNorm,
    Roll,
    ScatterElements,
    Sigmoid,
    Slice,
    Softmax,
    Sort,
    Sub,
    Sum,
    Tanh,
    Tile,
    TopK,
    Triangular,
    Variance,
    Where,
)
from treadle.testing import compiled_here, constant_dims

SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 33, 48, 64, 67)
N = Var("n")
Step = Callable[[st.DrawFn, "Graph", Traced], Traced | None]


@dataclass(eq=False)
class Graph:
    """A graph function under construction, and values for its inputs."""

    n: int
    seed: int
    builder: GraphBuilder = field(default_factory=lambda: GraphBuilder("main"))
    values: list[Traced] = field(default_factory=list[Traced])
    arrays: list[np.ndarray] = field(default_factory=list[np.ndarray])

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def size(self, dim: Expr) -> int:
        return constant_dims((dim,), {N: self.n})[0]

    def numbers(self, shape: tuple[Expr, ...], dtype: DType, high: int = 3) -> np.ndarray:
        """Few different values, so that sums are nearly exact and there are ties."""
        sizes = tuple(self.size(d) for d in shape)
        low = 0 if dtype == i64 else -high
        drawn = self.random.integers(low, high + 1, sizes)
        return np.asarray(drawn / 2 if dtype.is_float else drawn).astype(dtype.numpy)

    def input(self, shape: tuple[Expr, ...], dtype: DType = f32, high: int = 3) -> Traced:
        self.arrays.append(self.numbers(shape, dtype, high))
        return self.builder.input("x", tensor(shape, dtype))

    def operand(
        self, draw: st.DrawFn, shape: tuple[Expr, ...], dtype: DType = f32, high: int = 3
    ) -> Traced:
        """A new input, or a constant where the shape is known."""
        if any(int_value(d) is None for d in shape) or draw(st.booleans()):
            return self.input(shape, dtype, high)
        return self.builder.constant("w", self.numbers(shape, dtype, high))

    def same(self, draw: st.DrawFn, x: Traced) -> Traced:
        """A value of the same type, perhaps ``x`` itself."""
        found = [v for v in self.values if v.type == x.type]
        return draw(st.sampled_from(found))


def axis_of(draw: st.DrawFn, x: Traced) -> int:
    return draw(st.integers(-x.ndim, x.ndim - 1))


def small_axis(draw: st.DrawFn, x: Traced) -> int | None:
    """An axis of constant, positive size."""
    found = [i for i, d in enumerate(x.shape) if (int_value(d) or 0) > 0]
    return draw(st.sampled_from(found)) if found else None


def unary(draw: st.DrawFn, g: Graph, x: Traced) -> Traced:
    ops = (Neg(), Abs(), Relu(), Tanh(), Sigmoid(), Gelu(), Clip(-1.0, 0.75))
    return draw(st.sampled_from(ops))(x)


def binary(draw: st.DrawFn, g: Graph, x: Traced) -> Traced:
    op = draw(st.sampled_from((Add(), Sub(), Mul(), Maximum(), Minimum())))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        other = g.same(draw, x)
    elif kind == 1:
        other = x.builder.literal(draw(st.sampled_from((0.5, -2.0, 0.0))), x.dtype)
    else:
        dims = [d if draw(st.booleans()) else const(1) for d in x.shape]
        other = g.operand(draw, tuple(dims[draw(st.integers(0, x.ndim)) :]))
    return op(other, x) if draw(st.booleans()) else op(x, other)


def outer(draw: st.DrawFn, g: Graph, x: Traced) -> Traced:
    """Broadcasting that enlarges: ones of ``x`` meet longer dimensions, or it gains some."""
    ones = [draw(st.sampled_from(SIZES)) if int_value(d) == 1 else d for d in x.shape]
    lead = draw(st.lists(st.sampled_from((1, 2, 3)), max_size=max(0, 3 - x.ndim)))
    return Add()(x, g.operand(draw, tuple(as_expr(d) for d in (*lead, *ones))))


def where(draw: st.DrawFn, g: Graph, x: Traced) -> Traced:
    other = g.same(draw, x)
    return Where()(GreaterEqual()(x, g.builder.literal(0.25, x.dtype)), other, x)


def reduce(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    if not x.ndim:
        return None
    axes = tuple(draw(st.sets(st.integers(0, x.ndim - 1), min_size=1)))
    keep = draw(st.booleans())
    filled = all(g.size(x.shape[a]) > 1 for a in axes)
    ops = (Sum, Mean, Max, Min, Variance) if filled else (Sum,)
    return draw(st.sampled_from(ops))(axes, keep)(x)


def normalize(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    axis = small_axis(draw, x)
    if axis is None:
        return None
    kind = draw(st.integers(0, 3))
    if kind < 2:
        return (Softmax, LogSoftmax)[kind](axis)(x)
    if any(not int_value(d) for d in x.shape[axis:]):
        return None
    weights = [g.operand(draw, x.shape[axis:]) for _ in range(draw(st.integers(0, 4 - kind)))]
    return (LayerNorm, RmsNorm)[kind - 2](axis, 1e-2)(x, *weights)


def matmul(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    if x.ndim < 2:
        return None
    width = as_expr(draw(st.sampled_from(SIZES)))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        other = g.builder.emit(Permute((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)), x)
    elif kind == 1:
        other = g.operand(draw, (*x.shape[:-2], x.shape[-1], width))
    else:
        other = g.operand(draw, (x.shape[-1], width))
    y = Matmul()(x, other)
    return Mul()(y, g.builder.literal(0.125, x.dtype))


def attention(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    if x.ndim != 4 or any(g.size(d) == 0 for d in x.shape):
        return None
    return Attention(draw(st.booleans()))(x, g.same(draw, x), x)


def convolve(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    if x.ndim not in (3, 4) or any(not (int_value(d) or 0) for d in x.shape[1:]):
        return None
    channels = int_value(x.shape[1]) or 0
    spatial = [int_value(d) or 0 for d in x.shape[2:]]
    groups = draw(st.sampled_from([k for k in (1, 2, channels) if channels % k == 0]))
    out = groups * draw(st.sampled_from((1, 3, 8)))
    kernel = [draw(st.sampled_from([k for k in (1, 2, 3) if k <= s])) for s in spatial]
    pads = tuple((draw(st.integers(0, 1)), draw(st.integers(0, 1))) for _ in spatial)
    stride = tuple(draw(st.sampled_from((1, 1, 2))) for _ in spatial)
    ones = (1,) * len(spatial)
    if groups == 1 and draw(st.integers(0, 4)) == 0:
        w = g.operand(draw, tuple(map(const, (channels, 3, *kernel))), high=1)
        zeros = ((0, 0),) * len(spatial)
        return ConvTranspose(stride, zeros, (0,) * len(spatial), ones)(x, w)
    w = g.operand(draw, tuple(map(const, (out, channels // groups, *kernel))), high=1)
    bias = [g.operand(draw, (const(out),))] if draw(st.booleans()) else []
    return Conv(stride, pads, ones, groups)(x, w, *bias)


def pool(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    if x.ndim not in (3, 4) or any((int_value(d) or 0) < 2 for d in x.shape[2:]):
        return None
    spatial = x.ndim - 2
    kernel, stride = (2,) * spatial, (draw(st.integers(1, 2)),) * spatial
    pads = ((draw(st.integers(0, 1)), 0),) * spatial
    if draw(st.booleans()):
        return MaxPool(kernel, stride, pads, (1,) * spatial)(x)
    return AvgPool(kernel, stride, pads)(x)


def reshape(draw: st.DrawFn, g: Graph, x: Traced) -> Traced:
    dims = list(x.shape)
    if len(dims) >= 2 and draw(st.booleans()):
        at = draw(st.integers(0, len(dims) - 2))
        dims[at : at + 2] = [dims[at] * dims[at + 1]]
    elif dims:
        at = draw(st.integers(0, len(dims) - 1))
        size = int_value(dims[at]) or 0
        factor = next((k for k in (4, 3, 2) if size and size % k == 0), 1)
        dims[at : at + 1] = [dims[at] // factor, const(factor)]
    else:
        dims = [const(1)]
    return Reshape(tuple(dims))(x)


def permute(draw: st.DrawFn, g: Graph, x: Traced) -> Traced:
    return Permute(tuple(draw(st.permutations(range(x.ndim)))))(x)


def concat(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    if not x.ndim:
        return None
    axis = axis_of(draw, x)
    dims = list(x.shape)
    dims[axis] = as_expr(draw(st.sampled_from((0, 1, 3, 16))))
    parts = [x, g.same(draw, x), g.operand(draw, tuple(dims))]
    return g.builder.emit(Concat(axis), *draw(st.permutations(parts))[: draw(st.integers(1, 3))])


def slice_(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    axis = small_axis(draw, x)
    if axis is None:
        return None
    size = int_value(x.shape[axis]) or 0
    start = draw(st.integers(0, size))
    stop = draw(st.integers(start, size))
    return Slice(axis, const(start), const(stop), draw(st.integers(1, 3)))(x)


def gather(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    axis = small_axis(draw, x)
    if axis is None:
        return None
    shape = draw(st.sampled_from(((), (N,), (const(5),), (const(2), const(3)))))
    high = min(3, (int_value(x.shape[axis]) or 1) - 1)
    return Gather(axis)(x, g.operand(draw, shape, i64, high))


def scatter(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    axis = small_axis(draw, x)
    if axis is None or x.ndim > 2:
        return None
    high = min(3, (int_value(x.shape[axis]) or 1) - 1)
    indices = g.operand(draw, x.shape, i64, high)
    return ScatterElements(axis, "add")(x, indices, g.operand(draw, x.shape))


def pad(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    if not x.ndim:
        return None
    enough = all((int_value(d) or 0) > 2 for d in x.shape)
    modes = ("constant", "reflect", "edge") if enough else ("constant",)
    amounts = st.tuples(st.integers(0, 2), st.integers(0, 2))
    pads = tuple(draw(amounts) for _ in x.shape)
    return Pad(pads, draw(st.sampled_from(modes)), 0.5)(x)


def move(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    if not x.ndim:
        return None
    axis = draw(st.integers(0, x.ndim - 1))
    repeats = tuple(draw(st.integers(1, 2)) for _ in x.shape)
    ops = [Flip((axis,)), Tile(repeats), CumSum(axis)]
    if g.size(x.shape[axis]):
        ops.append(Roll((draw(st.integers(-3, 3)),), (axis,)))
    if x.ndim >= 2:
        ops.append(Triangular(draw(st.booleans()), draw(st.integers(-1, 1))))
    y = g.builder.emit(draw(st.sampled_from(ops)), x)
    return Tanh()(y) if isinstance(ops, CumSum) else y


def order(draw: st.DrawFn, g: Graph, x: Traced) -> Traced | None:
    axis = small_axis(draw, x)
    if axis is None:
        return None
    size = int_value(x.shape[axis]) or 0
    op = Sort(axis) if draw(st.booleans()) else TopK(draw(st.integers(1, size)), axis)
    return g.builder.emit_all(op, x)[0]


def cast(draw: st.DrawFn, g: Graph, x: Traced) -> Traced:
    """There and back through another dtype."""
    other = draw(st.sampled_from((f64, f64, f16, i32)))
    y = Cast(other)(Clip(-100.0, 100.0)(x))
    return Cast(f32)(Abs()(y) if draw(st.booleans()) else y)


def expand(draw: st.DrawFn, g: Graph, x: Traced) -> Traced:
    dims = [as_expr(draw(st.sampled_from((1, 4, 9)))) if int_value(d) == 1 else d for d in x.shape]
    return Expand(tuple(dims))(x)


STEPS: tuple[Step, ...] = (
    unary, unary, unary, binary, binary, binary, outer, where, reduce, reduce, normalize, normalize,
    matmul, matmul, attention, convolve, convolve, pool, reshape, permute, concat, slice_, gather,
    scatter, pad, move, order, cast, expand,
)  # fmt: skip
MAX_ELEMENTS = 40_000


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    g = Graph(draw(st.sampled_from((0, 1, 2, 3, 5, 7, 17))), draw(st.integers(0, 2**16)))
    rank = draw(st.integers(1, 4))
    dims = [draw(st.sampled_from((*SIZES, 0)[: 12 if rank > 2 else 17])) for _ in range(rank)]
    symbolic = draw(st.booleans())
    first = tuple(N if symbolic and i == 0 else const(d) for i, d in enumerate(dims))
    g.values.append(g.input((N,)))
    g.values.append(g.input(first))
    for _ in range(draw(st.integers(3, 12))):
        recent = g.values[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(g.values))
        g.values.extend(stepped(draw, g, recent))
    if draw(st.booleans()):
        g.values.append(g.builder.constant("k", g.numbers((const(3),), f32)))
    return g


def stepped(draw: st.DrawFn, g: Graph, x: Traced) -> Iterator[Traced]:
    """One more operation, unless it does not fit or becomes too large."""
    kept = len(g.builder.body)
    try:
        y = draw(st.sampled_from(STEPS))(draw, g, x)
    except TypeMismatch:
        y = None
    if y is not None and np.prod([g.size(d) for d in y.shape]) <= MAX_ELEMENTS and y.ndim <= 5:
        yield y
    else:
        del g.builder.body[kept:]


def agree(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * max(1.0, scale))


def check(g: Graph, results: list[Traced], threads: int) -> None:
    function = g.builder.finish(*results)
    assert set(shape_symbols(function)) <= {N}
    module = Module({"main": function}, g.builder.constants)
    kept = [a.copy() for a in g.arrays]
    expected = run(module, "main", *g.arrays)
    found = compiled_here(module, threads=threads)(*g.arrays)
    for a, b in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        agree(a, b)
    for a, b in zip(g.arrays, kept, strict=True):
        np.testing.assert_array_equal(a, b)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Graph, list[Traced], int]:
    g = draw(graphs())
    others = draw(st.lists(st.sampled_from(g.values), max_size=3))
    return g, [g.values[-1], *others], draw(st.sampled_from((1, 2)))


QUIET = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(QUIET, max_examples=60)
@given(cases())
def test_machine_code_of_random_graphs_agrees_with_the_interpreter(case):
    check(*case)


@pytest.mark.slow
@settings(QUIET, max_examples=2000)
@given(cases())
def test_machine_code_of_many_random_graphs_agrees_with_the_interpreter(case):
    check(*case)
