"""Whatever a schedule accepts keeps the meaning: random instructions on products, softmax,
convolution and generated loops.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.expr.dtype import f32
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import Const, Expr, ExprLike, Var, apply, as_expr, maximum, select
from treadle.ir.analysis import accesses, blocks, enclosing_loops, statements
from treadle.ir.interpret import run_tensor
from treadle.ir.loop_builder import LoopBuilder, guarded
from treadle.ir.tensor import THREAD_AXES, For, TensorFunction
from treadle.ir.types import TensorType
from treadle.ir.verify import verify_tensor_function
from treadle.schedule.annotate import Annotate, Unannotate
from treadle.schedule.axis_order import ReorderBlockIterVar
from treadle.schedule.block_layout import TransformBlockLayout
from treadle.schedule.cache import CacheRead, CacheWrite, SetScope
from treadle.schedule.cache_at import ReadAt, WriteAt
from treadle.schedule.cache_index import CacheIndex
from treadle.schedule.cache_inplace import CacheInplace
from treadle.schedule.compute_at import ComputeAt, ReverseComputeAt
from treadle.schedule.decompose_padding import DecomposePadding
from treadle.schedule.index_map import IndexMap
from treadle.schedule.inline import ComputeInline
from treadle.schedule.instruction import Instruction
from treadle.schedule.layout import TransformLayout
from treadle.schedule.loops import Fuse, Parallel, Reorder, Unroll, Vectorize
from treadle.schedule.merge import Merge
from treadle.schedule.pad_einsum import PadEinsum
from treadle.schedule.partition import LoopPartition
from treadle.schedule.prefetch import Prefetch
from treadle.schedule.reduction import DecomposeReduction, RFactor
from treadle.schedule.reindex import Reindex, ReindexCacheRead, ReindexCacheWrite
from treadle.schedule.reverse_inline import FuseReductionEpilogue, ReverseComputeInline
from treadle.schedule.rolling_buffer import RollingBuffer
from treadle.schedule.split import TAILS, Split
from treadle.schedule.storage import SetDtype, StorageAlign
from treadle.schedule.thread_axes import Bind
from treadle.schedule.trace import parse_trace, trace_text
from treadle.schedule.unit_loop import AddUnitLoop
from treadle.testing import random_inputs, tensor_functions


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

SCOPES = ("stack", "register", "global")
MOVES = (
    "split", "split", "split", "fuse", "reorder", "reorder", "kind", "inline", "reverse_inline",
    "at", "at", "at", "at", "reverse_at", "reverse_at", "reverse_at", "reverse_at",
    "tail", "tail", "merge", "partition", "unit", "axes", "note", "unnote", "bind", "prefetch",
    "copy", "copy", "copy", "copy", "copy", "copy", "copy", "copy", "copy", "copy",
    "read", "write", "scope", "decompose", "decompose", "rfactor", "rfactor", "layout",
    "domain", "domain", "domain", "domain",
)  # fmt: skip


def random_instruction(function: TensorFunction, rng: np.random.Generator) -> Instruction:
    """An instruction over names of the function; it need not apply."""
    loops = [s.var.name for s in statements(function.body) if isinstance(s, For)]
    names = [b.name for b in blocks(function)]
    buffers = sorted({a.buffer for a in accesses(function.body)}, key=lambda b: b.name)

    def pick(items):
        return items[int(rng.integers(len(items)))]

    def factors():
        sizes = [int(rng.integers(1, 6)) for _ in range(int(rng.integers(1, 3)))]
        sizes.insert(int(rng.integers(len(sizes) + 1)), None)
        return tuple(sizes)

    def nest():
        """Some loops around one block, in any order."""
        chain = _chains(function)
        own = pick(chain) if chain else loops[:1]
        some = [x for x in own if rng.random() < 0.7]
        return tuple(str(x) for x in rng.permutation(some))

    def adjacent():
        own = pick(_chains(function))
        start = int(rng.integers(len(own)))
        return tuple(own[start : start + 2])

    def partition():
        count = int(rng.integers(1, 3))
        return tuple(sorted({int(x) for x in rng.integers(1, 6, count)}))

    def axes():
        block = pick(blocks(function))
        return ReorderBlockIterVar(
            block.name, tuple(int(p) for p in rng.permutation(len(block.iters)))
        )

    def siblings():
        """Loops of one depth in nests that follow each other, as far as that is easily seen."""
        outer = [s for s in function.body if isinstance(s, For)]
        start = int(rng.integers(max(1, len(outer) - 1)))
        found = outer[start : start + 2]
        for _ in range(int(rng.integers(3))):
            if all(len(x.body) == 1 and isinstance(x.body[0], For) for x in found):
                found = [x.body[0] for x in found]
        return tuple(x.var.name for x in found)

    def layout():
        buffer = pick(buffers)
        params = tuple(f"p{d}" for d in range(buffer.ndim))
        at, tile = int(rng.integers(max(1, buffer.ndim))), int(rng.integers(2, 5))
        old = [Var(p) for p in params]
        new = [x // tile if d == at else x for d, x in enumerate(old)]
        new = [*(new[i] for i in rng.permutation(len(new))), *([old[at] % tile] if old else [])]
        return TransformLayout(buffer.name, IndexMap(params, tuple(new)))

    make = {
        "split": lambda: Split(pick(loops), factors()),
        "tail": lambda: Split(pick(loops), factors(), pick(TAILS)),
        "merge": lambda: Merge(siblings()),
        "partition": lambda: LoopPartition(pick(loops), partition()),
        "unit": lambda: AddUnitLoop(pick([*loops, *names])),
        "axes": axes,
        "note": lambda: Annotate(pick([*loops, *names]), pick(("a", "b")), pick((1, True, "x"))),
        "unnote": lambda: Unannotate(pick([*loops, *names]), pick(("a", "b"))),
        "bind": lambda: Bind(pick(loops), pick(THREAD_AXES), bool(rng.random() < 0.3)),
        "prefetch": lambda: Prefetch(pick(buffers).name, pick(loops), int(rng.integers(1, 4))),
        "fuse": lambda: Fuse(adjacent()),
        "reorder": lambda: Reorder(nest(), bool(rng.random() < 0.3)),
        "kind": lambda: pick((Vectorize, Unroll, Parallel))(pick(loops)),
        "inline": lambda: ComputeInline(pick(names)),
        "reverse_inline": lambda: ReverseComputeInline(pick(names)),
        "at": lambda: ComputeAt(pick(names), pick(loops)),
        "reverse_at": lambda: ReverseComputeAt(pick(names), pick(loops)),
        "read": lambda: CacheRead(pick(names), pick(buffers).name, pick(SCOPES)),
        "write": lambda: CacheWrite(pick(names), pick(SCOPES)),
        "copy": lambda: random_copy(function, rng),
        "scope": lambda: SetScope(pick(buffers).name, pick(SCOPES)),
        "decompose": lambda: DecomposeReduction(pick(names), pick(loops)),
        "rfactor": lambda: RFactor(pick(loops)),
        "layout": layout,
        "domain": lambda: random_domain(function, rng),
    }
    return make[pick(MOVES)]()


def random_domain(function: TensorFunction, rng: np.random.Generator) -> Instruction:
    """An instruction that gives a block other axes, a padded domain, windows, or an epilogue."""
    loops = [s.var.name for s in statements(function.body) if isinstance(s, For)]
    names = [b.name for b in blocks(function)]
    buffers = sorted({a.buffer.name for a in accesses(function.body)})

    def pick(items):
        return items[int(rng.integers(len(items)))]

    def other_axes():
        block = pick(blocks(function))
        params = tuple(f"p{d}" for d in range(len(block.iters)))
        at, tile = int(rng.integers(max(1, len(params)))), int(rng.integers(1, 4))
        split = [
            (Var(p) // tile, Var(p) % tile) if d == at else (Var(p),) for d, p in enumerate(params)
        ]
        return TransformBlockLayout(block.name, IndexMap(params, sum(split, ())))  # fmt: skip

    def padded():
        block = pick(blocks(function))
        return PadEinsum(block.name, tuple(int(x) for x in rng.integers(1, 5, len(block.iters))))

    def rolled():
        # A producer near its consumer, so that there are windows.
        return RollingBuffer(pick(names), pick(buffers))

    make = (
        other_axes,
        padded,
        rolled,
        rolled,
        lambda: DecomposePadding(pick(names), pick(loops)),
        lambda: FuseReductionEpilogue(pick(names), pick(names), True),
    )
    return pick(make)()


def random_copy(function: TensorFunction, rng: np.random.Generator) -> Instruction:
    """An instruction that puts a buffer elsewhere, or another in its place."""

    def pick(items):
        return items[int(rng.integers(len(items)))]

    block, scope, number = pick(blocks(function)), pick(SCOPES), int(rng.integers(1, 9))
    name, count, buffer = block.name, len(block.iters), pick(accesses((block,))).buffer.name
    loops = enclosing_loops(function, block) or [s for s in function.body if isinstance(s, For)]
    loop = pick([*(x.var.name for x in loops), "none"])
    params, parts = tuple(f"p{d}" for d in range(count)), []
    for d in rng.permutation(count):
        old, tile = Var(params[d]), int(rng.integers(4))
        parts.extend((old // tile, old % tile) if tile else (old,))
    place = IndexMap(params, tuple(parts))
    kinds = (
        CacheInplace(name, loop, scope),
        CacheInplace(name, loop, scope),
        CacheInplace(name, loop, scope),
        ReadAt(name, buffer, loop, scope),
        WriteAt(name, loop, scope),
        Reindex(name, buffer),
        ReindexCacheRead(name, buffer, scope, place),
        ReindexCacheWrite(name, scope, place),
        CacheIndex(name, buffer, number % 2, scope),
        SetDtype(buffer, pick(("f64", "i64", "f32"))),
        StorageAlign(buffer, number % 2, number),
    )
    return pick(kinds)


def _chains(function: TensorFunction) -> list[list[str]]:
    found = []

    def visit(body, above):
        for stmt in body:
            if isinstance(stmt, For):
                visit(stmt.body, [*above, stmt.var.name])
            elif hasattr(stmt, "iters"):
                found.append(above)

    visit(function.body, [])
    return [c for c in found if c]


def random_trace(
    function: TensorFunction, rng: np.random.Generator, attempts: int
) -> tuple[TensorFunction, list[Instruction]]:
    """Try instructions; what was accepted, and the function that it gives."""
    trace: list[Instruction] = []
    for _ in range(attempts):
        instruction = random_instruction(function, rng)
        try:
            function = instruction.apply(function)
        except ScheduleError:
            continue
        trace.append(instruction)
    return function, trace


# ---- The law


SHAPES = {
    "matmul": (lambda: matmul_epilogue(M, N, K), lambda m, n, k: [(m, k), (k, n), (n,)]),
    "matmul of constant shape": (
        lambda: matmul_epilogue(5, 7, 6),
        lambda m, n, k: [(5, 6), (6, 7), (7,)],
    ),
    "softmax": (lambda: softmax(M, N), lambda m, n, k: [(m, n)]),
    "softmax of constant shape": (lambda: softmax(4, 11), lambda m, n, k: [(4, 11)]),
    "convolution": (
        lambda: convolution(2, M, N, K),
        lambda m, n, k: [(2, m, n), (k, 2, 3, 3), (k,)],
    ),
    "convolution of constant shape": (
        lambda: convolution(2, 3, 5, 3),
        lambda m, n, k: [(2, 3, 5), (3, 2, 3, 3), (3,)],
    ),
}
SIZES = ((1, 1, 1), (3, 5, 2), (7, 4, 5))


def symbols_of(function: TensorFunction, inputs: list[np.ndarray]) -> dict[Var, int]:
    pairs = zip(function.input_buffers, inputs, strict=True)
    return {
        d: n for b, a in pairs for d, n in zip(b.shape, a.shape, strict=True) if isinstance(d, Var)
    }


def packed(
    before: TensorFunction,
    trace: list[Instruction],
    arrays: dict[str, np.ndarray],
    known: dict[Var, int],
) -> list[np.ndarray]:
    """Parameters by name as a caller of the scheduled function packs them."""
    result, function = dict(arrays), before
    for instruction in trace:
        if isinstance(instruction, TransformLayout) and instruction.buffer in result:
            shape = tuple(int(evaluate(d, known)) for d in instruction.new_shape(function))
            array = result[instruction.buffer]
            result[instruction.buffer] = instruction.layout.pack(array, shape)
        function = instruction.apply(function)
    return list(result.values())


def keeps_meaning(
    before: TensorFunction, seed: int, attempts: int, cases: list[list[np.ndarray]]
) -> int:
    after, trace = random_trace(before, np.random.default_rng(seed), attempts)
    exact = not any(
        isinstance(i, RFactor | FuseReductionEpilogue) or (isinstance(i, Reorder) and i.reassociate)
        for i in trace
    )
    said = trace_text(trace)
    assert parse_trace(said) == tuple(trace)
    for inputs in cases:
        known = symbols_of(before, inputs)
        results = run_tensor(before, inputs, known)
        arrays = zip((b.name for b in before.buffers), (*inputs, *results), strict=True)
        ready = packed(before, trace, dict(arrays), known)
        wanted = ready[len(inputs) :]
        found = run_tensor(after, ready[: len(inputs)], known)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=0 if exact else 1e-5, atol=0, err_msg=said)
    return len(trace)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", range(6))
def test_random_traces_keep_the_meaning(name, seed):
    build, shapes = SHAPES[name]
    rng = np.random.default_rng(seed)
    cases = [[small_floats(rng, *s) for s in shapes(*sizes)] for sizes in SIZES]
    assert keeps_meaning(build(), seed, 14, cases) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", range(100, 130))
def test_long_random_traces_keep_the_meaning(name, seed):
    build, shapes = SHAPES[name]
    rng = np.random.default_rng(seed)
    cases = [[small_floats(rng, *s) for s in shapes(*sizes)] for sizes in SIZES]
    assert keeps_meaning(build(), seed, 30, cases) > 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tensor_functions(), st.integers(0, 1 << 30))
def test_random_traces_keep_the_meaning_of_generated_loops(function, seed):
    inputs = list(random_inputs(function, seed=seed % 7))
    assert keeps_meaning(function, seed, 10, [inputs]) >= 0


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 13), st.integers(1, 13), st.integers(1, 7), st.integers(1, 7), st.integers(1, 5)
)
def test_a_tiled_product_with_its_epilogue_is_right_at_ragged_sizes(m, n, k, tile_m, tile_n):
    before = matmul_epilogue(M, N, K)
    trace = (
        ComputeInline("S"),
        Split("i0", (None, tile_m)),
        Split("i1", (None, tile_n, 2)),
        Split("i2", (None, 3)),
        Reorder(("i1_0", "i0_0", "i2_0", "i2_1", "i0_1", "i1_1", "i1_2")),
        ReverseComputeAt("Y", "i0_0"),
        CacheWrite("T", "register"),
        DecomposeReduction("T", "i2_0"),
        Vectorize("i1_2"),
        Unroll("i0_1"),
        Parallel("i1_0"),
    )
    after = before
    for instruction in trace:
        after = instruction.apply(after)
    verify_tensor_function(after)
    rng = np.random.default_rng(m * n * k)
    inputs = [small_floats(rng, m, k), small_floats(rng, k, n), small_floats(rng, n)]
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], run_tensor(before, inputs)[0])
