"""cache_inplace: blocked reductions keep their meaning, and their inner loops ask nothing."""

import ctypes
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.codegen.llvm.kernel import kernel_symbol, kernel_text, module_text
from treadle.codegen.llvm.object import compile_here
from treadle.ir.interpret import run_tensor
from treadle.ir.tensor import TensorFunction
from treadle.ir.verify import verify_tensor_function
from treadle.passes.flatten_buffers import flatten_buffers
from treadle.passes.lower_loops import LOOP_PASSES, lower_loops
from treadle.schedule.cache_at import WriteAt
from treadle.schedule.cache_inplace import CacheInplace
from treadle.schedule.compute_at import ReverseComputeAt
from treadle.schedule.loops import Reorder, Vectorize
from treadle.schedule.split import Split
from treadle.schedule.trace import Schedule, apply_trace, parse_trace, trace_text
from treadle.target import Target
from treadle.testing import assert_same_ir, ir
from treadle_runtime.loader import load
from treadle_runtime.threads import runtime_symbols

SUMS = """
    @tensor.function
    def sums(X: Buffer[(n, 12), f32], Y: Output[(n,), f32]):
        for i in range(n):
            for k in range(12):
                with block("Y"):
                    vi = spatial(n, i)
                    vk = reduction(12, k)
                    with init():
                        Y[vi] = f32(0.0)
                    Y[vi] = Y[vi] + X[vi, vk]
"""

LINEAR = """
    @tensor.function
    def linear(A: Buffer[(m, k), f32], B: Buffer[(k, n), f32], b: Buffer[(n,), f32],
               Z: Output[(m, n), f32]):
        Y = alloc((m, n), f32)
        for i in range(m):
            for j in range(n):
                for l in range(k):
                    with block("Y"):
                        vi = spatial(m, i)
                        vj = spatial(n, j)
                        vk = reduction(k, l)
                        with init():
                            Y[vi, vj] = f32(0.0)
                        Y[vi, vj] = Y[vi, vj] + A[vi, vk] * B[vk, vj]
        for p in range(m):
            for q in range(n):
                with block("Z"):
                    zp = spatial(m, p)
                    zq = spatial(n, q)
                    Z[zp, zq] = max(Y[zp, zq] + b[zq], f32(0.0))
"""


def function_of(text: str) -> TensorFunction:
    return ir(text).tensor_functions[0]


def linear(m: object = "m", n: object = "n", k: object = "k") -> TensorFunction:
    sizes = {"m": str(m), "n": str(n), "k": str(k)}
    return function_of(re.sub(r"\b[mnk]\b", lambda x: sizes[x[0]], LINEAR))


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-4, 5, shape).astype(np.float32)


def operands(m: int, n: int, k: int) -> list[np.ndarray]:
    rng = np.random.default_rng(m * n * k)
    return [integers(rng, m, k), integers(rng, k, n), integers(rng, n)]


BLOCKED = (Split("k", (3, 4)), Reorder(("k_0", "i", "k_1")))


def test_a_chunk_starts_or_reads_its_tile_and_writes_it_back():
    assert_same_ir(
        apply_trace(function_of(SUMS), (*BLOCKED, CacheInplace("Y", "i"))),
        function_of("""
            @tensor.function
            def sums(X: Buffer[(n, 12), f32], Y: Output[(n,), f32]):
                for k_0 in range(3):
                    for i in range(n):
                        Y_register = alloc((n,), f32, scope="register")
                        with block("Y_start"):
                            vi_start = spatial(n, i)
                            where(k_0 == 0)
                            Y_register[vi_start] = f32(0.0)
                        with block("Y_load"):
                            vi_load = spatial(n, i)
                            where(k_0 != 0)
                            Y_register[vi_load] = Y[vi_load]
                        for k_1 in range(4):
                            with block("Y"):
                                vi = spatial(n, i)
                                vk = reduction(12, k_0 * 4 + k_1)
                                Y_register[vi] = Y_register[vi] + X[vi, vk]
                        with block("Y_store"):
                            vi_store = spatial(n, i)
                            Y[vi_store] = Y_register[vi_store]
        """),
    )


def test_with_one_chunk_there_is_nothing_to_read():
    after = str(CacheInplace("Y", "i", "stack").apply(function_of(SUMS)))
    assert 'Y_stack = alloc((n,), f32, scope="stack")' in after
    assert "Y_start" in after
    assert "Y_load" not in after


def tiles(rows: int, columns: int, chunk: int | None, chunks: int | None):
    return (
        Split("i", (None, rows)),
        Split("j", (None, 2, columns)),
        Split("l", (chunks, chunk)),
        Reorder(("j_0", "l_0", "i_0", "l_1", "i_1", "j_1", "j_2")),
    )


EPILOGUE_FIRST = (ReverseComputeAt("Z", "i_0"), CacheInplace("Y", "i_0"))
EPILOGUE_LAST = (CacheInplace("Y", "i_0"), ReverseComputeAt("Z", "i_0"))


@pytest.mark.parametrize("rest", [EPILOGUE_FIRST, EPILOGUE_LAST])
def test_what_only_the_epilogue_reads_lies_in_memory_between_chunks_only(rest):
    after = str(apply_trace(linear(), (*tiles(2, 4, 3, None), *rest)))
    panel = after.index("for j_0 in")
    assert panel < after.index("Y = alloc((m, n), f32)") < after.index("for l_0 in")
    assert "where((l_0 == (k + 2) // 3 - 1) & " in after
    assert "where((l_0 != (k + 2) // 3 - 1) & " in after
    assert "Z[zp, zq] = max(Y_register[zp, zq] + b[zq], f32(0.0))" in after


def test_one_chunk_with_its_epilogue_needs_no_memory_at_all():
    moves = (ReverseComputeAt("Z", "i"), CacheInplace("Y", "i"))
    for rest in (moves, moves[::-1]):
        after = str(apply_trace(linear(), (Reorder(("j", "i", "l")), *rest)))
        assert "Y = alloc" not in after
        assert "Y_store" not in after


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(*[st.sampled_from((1, 2, 3, 5, 7, 13))] * 3),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.sampled_from((EPILOGUE_FIRST, EPILOGUE_LAST, EPILOGUE_LAST[:1])),
    st.booleans(),
)
def test_a_blocked_product_with_its_epilogue_keeps_the_meaning(sizes, factors, rest, symbolic):
    before = linear() if symbolic else linear(*sizes)
    rows, columns, chunk = factors
    trace = (*tiles(rows, columns, chunk, None), *rest)
    after = apply_trace(before, trace)
    assert parse_trace(trace_text(trace)) == trace
    verify_tensor_function(after)
    inputs = operands(*sizes)
    wanted = run_tensor(before, inputs)[0]
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], wanted)
    for step in LOOP_PASSES[: LOOP_PASSES.index(flatten_buffers)]:
        after = step(after)
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], wanted)


def test_a_buffer_of_the_loop_that_its_tile_replaces_is_declared_no_more():
    trace = (WriteAt("Y", "i", "stack"), CacheInplace("Y", "i"))
    after = apply_trace(function_of(SUMS), trace)
    verify_tensor_function(after)
    assert str(after).count("alloc(") == 1
    inputs = [integers(np.random.default_rng(0), 5, 12)]
    wanted = run_tensor(function_of(SUMS), inputs)[0]
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], wanted)


# ---- Machine code


def scheduled(rest, m: object = 64) -> Schedule:
    """A product in two chunks as contractions are scheduled: lanes, unrolled rows, threads."""
    s = Schedule(linear(m, 64, 512))
    before = frozenset(s.loops())
    for instruction in (*tiles(6, 16, 256, 2), *rest):
        s.apply(instruction)
    for name in s.loops():
        if name in before or name[:3] not in ("i_1", "j_1", "j_2"):
            continue
        (s.vectorize if name.startswith("j_2") else s.unroll)(name)
    s.parallel("j_0")
    return s


def run(function: TensorFunction, inputs: list[np.ndarray], rows: int) -> np.ndarray:
    target = Target.native()
    text = module_text([kernel_text(lower_loops(function), target)], "", target)
    symbol = kernel_symbol(function.name)
    code = load(compile_here(text, target), [symbol], runtime_symbols())
    result = np.zeros((rows, 64), np.float32)
    symbols = [] if "64" in str(function.buffers[0].shape[0]) else [rows]
    kinds = [ctypes.c_void_p] * (2 + len(inputs)) + [ctypes.c_int64] * len(symbols)
    call = ctypes.CFUNCTYPE(None, *kinds)(code[symbol])
    call(None, *(x.ctypes.data for x in inputs), result.ctypes.data, *symbols)
    return result


@pytest.mark.parametrize("rest", [EPILOGUE_FIRST, EPILOGUE_LAST])
@pytest.mark.parametrize("rows", [64, 1, 6, 17])
def test_two_chunks_compiled_agree_with_the_interpreter(rest, rows):
    m = 64 if rows == 64 else "m"
    s = scheduled(rest, m)
    inputs = operands(rows, 64, 512)
    wanted = np.maximum(inputs[0] @ inputs[1] + inputs[2], 0)
    if rows < 8:
        np.testing.assert_array_equal(run_tensor(s.function, inputs)[0], wanted)
    np.testing.assert_array_equal(run(s.function, inputs, rows), wanted)


def test_the_hot_loop_has_no_condition_and_constant_registers():
    text = str(lower_loops(scheduled(EPILOGUE_FIRST).function))
    hot = re.search(r"( +)for l_1 in range\(256\):\n((?:\1    .*\n)+)", text)
    assert hot is not None
    assert hot[2].count("Y_register[") == 24
    assert " if " not in hot[2]
    assert "select" not in hot[2]
    assert 'Y_register = alloc((6, 2), f32x16, scope="register")' in text
    start, _, after = text.partition("if l_0 == 0:")
    assert start.count("Y_register[") == 0
    assert after.index("else:") < after.index("for l_1")


# ---- Refusals

EARLY = SUMS.replace(
    "            for k in",
    """
            with block("early"):
                wi = spatial(n, i)
                Z[wi] = Y[wi]
            for k in""",
).replace("Y: Output", "Z: Output[(n,), f32], Y: Output")
PLAIN = SUMS.replace("with init():\n                        Y[vi] = f32(0.0)", "")
TWICE = """
    @tensor.function
    def twice(X: Buffer[(n, 4), f32], Y: Output[(n,), f32]):
        for r in range(3):
            for s in range(2):
                for i in range(n):
                    for k in range(4):
                        with block("Y"):
                            vi = spatial(n, i)
                            vk = reduction(4, k)
                            with init():
                                Y[vi] = f32(0.0)
                            Y[vi] = Y[vi] + X[vi, vk]
"""
BACKWARD = SUMS.replace("reduction(12, k)", "reduction(12, 11 - k)")
STARTED = SUMS.replace("Y[vi] = f32(0.0)", "Y[vi] = Y[vi] * f32(2.0)")
CONDITIONAL = SUMS.replace("with init", "where(k < 5)\n                    with init")
BESIDE = (
    SUMS
    + """
        for i2 in range(n):
            for k2 in range(3):
                with block("Z"):
                    wi = spatial(n, i2)
                    wk = reduction(3, k2)
                    with init():
                        Z[wi] = f32(0.0)
                    Z[wi] = Z[wi] + X[wi, wk]
"""
)
BESIDE = BESIDE.replace("Y: Output", "Z: Output[(n,), f32], Y: Output")
SHARED = (
    SUMS
    + """
        for i2 in range(n):
            with block("again"):
                wi = spatial(n, i2)
                Y[wi] = f32(1.0)
"""
)
BOTH = """
    @tensor.function
    def both(X: Buffer[(12, 12), f32], Y: Output[(12,), f32]):
        for i in range(1):
            for k in range(12):
                with block("Y"):
                    vi = spatial(12, k)
                    vk = reduction(12, k)
                    with init():
                        Y[vi] = f32(0.0)
                    Y[vi] = Y[vi] + X[vi, vk]
"""

REFUSALS = [
    ((CacheInplace("Y", "i", "cupboard"),), SUMS, "E0322"),
    ((CacheInplace("Z", "i"),), SUMS, "E0301"),
    ((CacheInplace("Y", "j"),), SUMS, "E0301"),
    ((Split("i", (None, 4)), Vectorize("i_1"), CacheInplace("Y", "i_1")), SUMS, "E0302"),
    ((CacheInplace("Y", "r"),), TWICE, "E0311"),
    ((CacheInplace("Y", "i"),), PLAIN, "E0321"),
    ((CacheInplace("Y", "i"),), SUMS.replace("Y[vi] = Y[vi] +", "Y[vi] = Y[0] +"), "E0320"),
    ((CacheInplace("Y", "i"),), CONDITIONAL, "E0320"),
    ((CacheInplace("Y", "i2"),), BESIDE, "E0329"),
    ((CacheInplace("Y", "i"),), SHARED, "E0323"),
    ((CacheInplace("Y", "i"),), BOTH, "E0311"),
    ((CacheInplace("Y", "i"),), BACKWARD, "E0320"),
    ((CacheInplace("Y", "i"),), STARTED, "E0327"),
    ((CacheInplace("Y", "i"),), EARLY, "E0324"),
]


@pytest.mark.parametrize(("trace", "text", "code"), REFUSALS)
def test_refusals(trace, text, code):
    with pytest.raises(ScheduleError) as caught:
        apply_trace(function_of(text), trace)
    assert caught.value.code == code
    assert caught.value.excerpt
