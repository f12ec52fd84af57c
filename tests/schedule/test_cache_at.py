"""Copies of regions at loops, and what cache_read and cache_write ask of the blocks around."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.ir.interpret import run_tensor
from treadle.ir.verify import verify_tensor_function
from treadle.schedule.cache import CacheRead, CacheWrite
from treadle.schedule.cache_at import ReadAt, WriteAt
from treadle.schedule.loops import Reorder, Vectorize
from treadle.schedule.split import Split
from treadle.schedule.trace import apply_trace, parse_trace, trace_text
from treadle.testing import assert_same_ir, ir

BLUR = """
    @tensor.function
    def blur(X: Buffer[(n + 2, 6), f32], Y: Output[(n, 6), f32]):
        for i in range(n):
            for j in range(6):
                with block("Y"):
                    vi = spatial(n, i)
                    vj = spatial(6, j)
                    Y[vi, vj] = X[vi, vj] + X[vi + 2, 5 - vj] * f32(2.0)
"""
SUMS = """
    @tensor.function
    def sums(X: Buffer[(n, 6), f32], Y: Output[(n,), f32]):
        for i in range(n):
            for k in range(6):
                with block("Y"):
                    vi = spatial(n, i)
                    vk = reduction(6, k)
                    with init():
                        Y[vi] = f32(0.0)
                    Y[vi] = Y[vi] + X[vi, vk]
"""
PAIR = """
    @tensor.function
    def pair(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        T = alloc((n,), f32)
        for i in range(n):
            for j in range(1):
                with block("T"):
                    ti = spatial(n, i)
                    T[ti] = X[ti] + f32(1.0)
                with block("Y"):
                    yi = spatial(n, i)
                    Y[yi] = T[yi] * f32(2.0)
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def integers(*shape):
    return np.random.default_rng(sum(shape)).integers(-4, 5, shape).astype(np.float32)


def test_read_at_copies_the_box_that_an_iteration_reads():
    trace = (Split("i", (None, 4)), ReadAt("Y", "X", "i_0", "stack"))
    assert_same_ir(
        apply_trace(function_of(BLUR), trace),
        function_of("""
            @tensor.function
            def blur(X: Buffer[(n + 2, 6), f32], Y: Output[(n, 6), f32]):
                for i_0 in range((n + 3) // 4):
                    X_stack = alloc((n + 2, 6), f32, scope="stack")
                    for X_stack_v0_1 in range(6):
                        for X_stack_v1_1 in range(6):
                            with block("X_stack"):
                                X_stack_v0 = spatial(n + 2, i_0 * 4 + X_stack_v0_1)
                                X_stack_v1 = spatial(6, X_stack_v1_1)
                                where(X_stack_v0_1 + i_0 * 4 < n + 2)
                                X_stack[X_stack_v0, X_stack_v1] = X[X_stack_v0, X_stack_v1]
                    for i_1 in range(4):
                        for j in range(6):
                            with block("Y"):
                                vi = spatial(n, i_0 * 4 + i_1)
                                vj = spatial(6, j)
                                where(i_0 * 4 + i_1 < n)
                                Y[vi, vj] = X_stack[vi, vj] + X_stack[vi + 2, 5 - vj] * f32(2.0)
        """),
    )


def test_write_at_copies_the_box_that_an_iteration_has_written():
    trace = (Split("i", (None, 4)), WriteAt("Y", "i_0", "stack"))
    assert_same_ir(
        apply_trace(function_of(SUMS), trace),
        function_of("""
            @tensor.function
            def sums(X: Buffer[(n, 6), f32], Y: Output[(n,), f32]):
                for i_0 in range((n + 3) // 4):
                    Y_stack = alloc((n,), f32, scope="stack")
                    for i_1 in range(4):
                        for k in range(6):
                            with block("Y"):
                                vi = spatial(n, i_0 * 4 + i_1)
                                vk = reduction(6, k)
                                where(i_0 * 4 + i_1 < n)
                                with init():
                                    Y_stack[vi] = f32(0.0)
                                Y_stack[vi] = Y_stack[vi] + X[vi, vk]
                    for vi_copy_1 in range(4):
                        with block("Y_copy"):
                            vi_copy = spatial(n, i_0 * 4 + vi_copy_1)
                            where(i_0 * 4 + vi_copy_1 < n)
                            Y[vi_copy] = Y_stack[vi_copy]
        """),
    )


SIZES = st.sampled_from((0, 1, 2, 5, 7, 13))
PLACES = st.lists(st.sampled_from(("read i_0", "read i_1", "write i_0", "write i_1", "read j")))


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(1, 5), PLACES, st.sampled_from((BLUR, SUMS, PAIR)))
def test_copies_at_loops_keep_the_meaning(n, tile, places, text):
    before = function_of(text)
    after, trace = Split("i", (None, tile)).apply(before), [Split("i", (None, tile))]
    for place in places:
        kind, loop = place.split()
        wanted = ReadAt("Y", "X", loop, "stack") if kind == "read" else WriteAt("Y", loop, "stack")
        try:
            after = wanted.apply(after)
        except ScheduleError:
            continue
        trace.append(wanted)
    assert parse_trace(trace_text(trace)) == tuple(trace)
    verify_tensor_function(after)
    shapes = {BLUR: (n + 2, 6), SUMS: (n, 6), PAIR: (n,)}
    inputs = [integers(*shapes[text])]
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], run_tensor(before, inputs)[0])


CHUNKS = (Split("k", (2, 3)), Reorder(("k_0", "i", "k_1")))
STRIDED = (Split("i", (4, None)), Reorder(("i_1", "i_0")))
LATE = """
    @tensor.function
    def late(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        T = alloc((n + 1,), f32)
        for i in range(n):
            with block("Y"):
                yi = spatial(n, i)
                Y[yi] = load(T[yi], mask=yi > 0)
            with block("T"):
                ti = spatial(n, i)
                T[ti + 1] = X[ti]
"""
SEVERAL = PAIR.replace(
    '                with block("Y"):',
    """                with block("again"):
                    ai = spatial(n, i)
                    T[ai] = X[ai] + f32(5.0)
                with block("Y"):""",
)
CONDITIONAL = SUMS.replace("with init", "where(k < 5)\n                    with init")

BESIDE = (
    PAIR
    + """
        for i2 in range(n):
            with block("Z"):
                zi = spatial(n, i2)
                Z[zi] = X[zi]
"""
)
BESIDE = BESIDE.replace("Y: Output", "Z: Output[(n,), f32], Y: Output")

REFUSALS = [
    ((ReadAt("Y", "X", "j", "cupboard"),), BLUR, "E0322"),
    ((ReadAt("Y", "Z", "j", "stack"),), BLUR, "E0320"),
    ((ReadAt("Y", "Y", "j", "stack"),), BLUR, "E0320"),
    ((ReadAt("Y", "X", "l", "stack"),), BLUR, "E0301"),
    ((ReadAt("T", "X", "i2", "stack"),), BESIDE, "E0329"),
    ((Vectorize("j"), ReadAt("Y", "X", "j", "stack")), BLUR, "E0302"),
    ((ReadAt("Y", "T", "i", "stack"),), PAIR, "E0327"),
    ((WriteAt("Y", "i", "cupboard"),), SUMS, "E0322"),
    ((*CHUNKS, WriteAt("Y", "i", "stack")), SUMS, "E0306"),
    ((WriteAt("Y", "i", "stack"),), CONDITIONAL, "E0320"),
    ((WriteAt("T", "j", "stack"),), SEVERAL, "E0323"),
    ((WriteAt("T", "i", "stack"),), PAIR, "E0324"),
    ((*STRIDED, WriteAt("Y", "i_1", "stack")), SUMS, "E0361"),
    ((CacheRead("Y", "T", "stack"),), LATE, "E0327"),
    ((CacheRead("Y", "T", "stack"),), SEVERAL, "E0323"),
    ((CacheRead("Y", "Y", "stack"),), PAIR, "E0320"),
    ((CacheWrite("T", "stack"),), SEVERAL, "E0323"),
    ((CacheWrite("Y", "stack"),), CONDITIONAL, "E0320"),
    ((CacheWrite("Y", "cupboard"),), SUMS, "E0322"),
]


@pytest.mark.parametrize(("trace", "text", "code"), REFUSALS)
def test_refusals(trace, text, code):
    with pytest.raises(ScheduleError) as caught:
        apply_trace(function_of(text), trace)
    assert caught.value.code == code
    assert caught.value.excerpt
