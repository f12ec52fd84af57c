"""Every loop-level pass keeps the meaning of scheduled programs, and what the verifier asks."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.ir.analysis import blocks, enclosing_loops, shape_symbols, statements
from treadle.ir.interpret import run_tensor
from treadle.ir.tensor import For, TensorFunction
from treadle.ir.verify import verify_tensor_function
from treadle.passes.lower_loops import LOOP_PASSES
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.testing import ir, random_inputs, tensor_functions
from treadle.tune.default import default_schedule

MATMUL = """
    @tensor.function
    def f(X: Buffer[(n, 3), f32], W: Buffer[(3, 11), f32], Y: Output[(n, 11), f32]):
        T = alloc((n, 11), f32)
        for i in range(n):
            for j in range(11):
                for k in range(3):
                    with block("T"):
                        vi = spatial(n, i)
                        vj = spatial(11, j)
                        vk = reduction(3, k)
                        with init():
                            T[vi, vj] = f32(0.0)
                        T[vi, vj] = T[vi, vj] + X[vi, vk] * W[vk, vj]
        for p in range(n):
            for q in range(11):
                with block("Y"):
                    vp = spatial(n, p)
                    vq = spatial(11, q)
                    Y[vp, vq] = max(T[vp, vq], f32(0.0))
"""
SOFTMAX = """
    @tensor.function
    def f(X: Buffer[(n, 9), f32], Y: Output[(n, 9), f32]):
        M = alloc((n,), f32)
        for i in range(n):
            for j in range(9):
                with block("M"):
                    vi = spatial(n, i)
                    vj = reduction(9, j)
                    with init():
                        M[vi] = f32("-inf")
                    M[vi] = max(M[vi], X[vi, vj])
        for p in range(n):
            for q in range(9):
                with block("Y"):
                    vp = spatial(n, p)
                    vq = spatial(9, q)
                    Y[vp, vq] = X[vp, vq] - M[vp]
"""
PROGRAMS = tuple(ir(text).tensor_functions[0] for text in (MATMUL, SOFTMAX))
MOST_LOOPS = 7
"""Every split may visit points for nothing, which takes the interpreter long."""
SIZES = st.integers(0, 6)
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))


def whole_numbers(function: TensorFunction, sizes: dict[str, int]) -> list[np.ndarray]:
    """Inputs whose sums are exact in any order."""
    drawn = random_inputs(function, sizes, seed=sum(sizes.values()))
    return [np.trunc(a * 2).astype(a.dtype) for a in drawn]


def assert_each_pass_keeps_meaning(function: TensorFunction, n: int, m: int) -> None:
    names = {v.name for v in shape_symbols(function)}
    sizes = {name: size for name, size in (("n", n), ("m", m)) if name in names}
    arrays = whole_numbers(function, sizes)
    expected = run_tensor(function, arrays, sizes)
    for step in LOOP_PASSES:
        function = step(function)
        flat = [np.ravel(a) for a in arrays]
        pairs = zip(function.input_buffers, arrays, flat, strict=True)
        fitting = [a if b.ndim == a.ndim else one for b, a, one in pairs]
        for a, b in zip(run_tensor(function, fitting, sizes), expected, strict=True):
            np.testing.assert_array_equal(a, b.reshape(a.shape), err_msg=step.__name__)
    verify_tensor_function(function)


def attempt(draw: st.DrawFn, s: Schedule) -> None:
    """One instruction at random; most of them are refused."""
    loops = [x for x in statements(s.function.body) if isinstance(x, For)]
    names = [b.name for b in blocks(s.function)]
    loop, block = draw(st.sampled_from(loops)).var.name, draw(st.sampled_from(names))
    chain = [x.var.name for b in blocks(s.function) for x in enclosing_loops(s.function, b)]
    factors = draw(st.sampled_from(((None, 3), (None, 4), (None, 2, 4), (2, None))))
    few = len(loops) <= MOST_LOOPS
    moves = (
        lambda: s.split(loop, factors) if few else s.unroll(loop),
        lambda: s.reorder(*draw(st.permutations(sorted(set(chain))))[:2]),
        lambda: s.vectorize(loop),
        lambda: s.unroll(loop),
        lambda: s.parallel(loop),
        lambda: s.compute_at(block, loop),
        lambda: s.reverse_compute_at(block, loop),
        lambda: s.decompose_reduction(block, loop),
        lambda: s.rfactor(loop),
        lambda: s.cache_write(block, draw(st.sampled_from(("register", "stack")))),
    )
    try:
        draw(st.sampled_from(moves))()
    except ScheduleError:
        return


@st.composite
def scheduled(draw: st.DrawFn) -> TensorFunction:
    s = Schedule(draw(st.sampled_from(PROGRAMS) | tensor_functions()))
    for _ in range(draw(st.integers(0, 10))):
        attempt(draw, s)
    return s.function


@settings(QUIET, max_examples=60)
@given(scheduled(), SIZES, SIZES)
def test_passes_keep_the_meaning_of_random_schedules(function, n, m):
    assert_each_pass_keeps_meaning(function, n, m)


@pytest.mark.slow
@settings(QUIET, max_examples=1500)
@given(scheduled(), SIZES, SIZES)
def test_passes_keep_the_meaning_of_many_random_schedules(function, n, m):
    assert_each_pass_keeps_meaning(function, n, m)


@settings(QUIET, max_examples=20)
@given(tensor_functions(), st.sampled_from(("x86-64-v2", "x86-64-v4")), SIZES, SIZES)
def test_passes_keep_the_meaning_of_default_schedules(function, target, n, m):
    s = default_schedule(function, Target.parse(target), 2, frozenset())
    assert_each_pass_keeps_meaning(s.function, n, m)


@pytest.mark.parametrize("function", PROGRAMS)
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v4"])
def test_passes_keep_the_meaning_of_default_tiles(function, target):
    s = default_schedule(function, Target.parse(target), 2, frozenset())
    for n in (0, 1, 7, 13):
        assert_each_pass_keeps_meaning(s.function, n, 1)


SHORT_SELECT = """
    @tensor.function
    def f(X: Buffer[(m,), f32], Y: Output[(m,), f32]):
        for i in range((m + 2) // 3):
            for j in unrolled(3):
                if i * 3 + j < m:
                    Y[i * 3 + j] = select(
                        i * 3 + j + 2 < m, load(X[i * 3 + j + 2], mask=i * 3 + j + 2 < m), f32(0.0)
                    )
"""
BESIDE_A_LIMIT = """
    @tensor.function
    def f(X: Buffer[(m,), f32], Y: Output[(m,), f32], Z: Output[(6,), f32]):
        for i in range(2):
            for j in unrolled(3):
                Z[i * 3 + j] = f32(1.0)
                if i * 3 + j < m:
                    Y[i * 3 + j] = X[i * 3 + j]
        for k in range(m):
            if k >= 6:
                Y[k] = X[k]
"""
NESTED_COPIES = """
    @tensor.function
    def f(X: Buffer[(8, m), f32], Y: Output[(8, m), f32]):
        for i in unrolled(4):
            for j in unrolled(2):
                for k in range(m):
                    Y[i * 2 + j, k] = X[i * 2 + j, k]
"""
TEMPORARY_OF_A_LANE = """
    @tensor.function
    def f(X: Buffer[(m, 5), f32], Y: Output[(m, 5), f32]):
        for i in range(m):
            for j in vectorized(5):
                T = alloc((m, 5), f32, scope="stack")
                with block("T"):
                    vi = spatial(m, i)
                    vj = spatial(5, j)
                    T[vi, vj] = X[vi, vj] + f32(1.0)
                with block("Y"):
                    vp = spatial(m, i)
                    vq = spatial(5, j)
                    Y[vp, vq] = T[vp, vq]
"""
LOOP_IN_A_LANE = """
    @tensor.function
    def f(X: Buffer[(8, m), f32], Y: Output[(8, m), f32]):
        for i in vectorized(3):
            for j in range(3):
                if i * 3 + j < 8:
                    for k in range(m):
                        Y[i * 3 + j, k] = X[i * 3 + j, k]
"""


@pytest.mark.parametrize("m", [0, 1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize(
    "text", [SHORT_SELECT, BESIDE_A_LIMIT, NESTED_COPIES, TEMPORARY_OF_A_LANE, LOOP_IN_A_LANE]
)
def test_passes_keep_the_meaning_of_programs_that_failed_once(text, m):
    assert_each_pass_keeps_meaning(ir(text).tensor_functions[0], 0, m)
