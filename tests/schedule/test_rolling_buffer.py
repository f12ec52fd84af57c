"""rolling_buffer: overlapping windows are kept, not computed again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.ir.interpret import run_tensor
from treadle.ir.verify import verify_tensor_function
from treadle.schedule.rolling_buffer import RollingBuffer
from treadle.schedule.trace import Schedule
from treadle.testing import assert_same_ir, compiled_here, ir

STENCIL = """
    @tensor.function
    def stencil(X: Buffer[(n + 2,), f32], sizes: Buffer[(n,), f32], Y: Output[(n,), f32]):
        T = alloc((n + 2,), f32)
        for i in range(n + 2):
            with block("T"):
                ti = spatial(n + 2, i)
                T[ti] = X[ti] * f32(3.0)
        for j in range(n):
            with block("Y"):
                yj = spatial(n, j)
                Y[yj] = T[yj] + T[yj + 2]
"""

ROWS = """
    @tensor.function
    def rows(X: Buffer[(n, m), f32], Y: Output[(n, m), f32]):
        P = alloc((n + 2, m), f32)
        S = alloc((n + 2,), f32)
        for a in range(n + 2):
            for b in range(m):
                with block("P"):
                    pa = spatial(n + 2, a)
                    pb = spatial(m, b)
                    P[pa, pb] = load(X[pa - 1, pb], mask=(pa - 1 >= 0) & (pa - 1 < n))
        for c in range(n):
            for d in range(m):
                for k in range(3):
                    with block("Y"):
                        yc = spatial(n, c)
                        yd = spatial(m, d)
                        yk = reduction(3, k)
                        with init():
                            Y[yc, yd] = f32(0.0)
                        Y[yc, yd] = Y[yc, yd] + P[yc + yk, yd]
"""

SUMS = """
    @tensor.function
    def sums(X: Buffer[(n, 4), f32], Y: Output[(n - 2,), f32]):
        assume(n >= 3)
        S = alloc((n,), f32)
        for a in range(n):
            for b in range(4):
                with block("S"):
                    sa = spatial(n, a)
                    sb = reduction(4, b)
                    with init():
                        S[sa] = f32(0.0)
                    S[sa] = S[sa] + X[sa, sb]
        for c in range(n - 2):
            with block("Y"):
                yc = spatial(n - 2, c)
                Y[yc] = S[yc] * S[yc + 2]
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def rolled(text, producer, consumer_loop, tile, buffer=None):
    s = Schedule(function_of(text))
    loop = s.split(consumer_loop, (None, tile))[0] if tile else consumer_loop
    s.compute_at(producer, loop)
    s.rolling_buffer(producer, buffer or producer)
    return s.function


def test_only_what_is_new_is_computed_and_indices_count_modulo_the_window():
    assert_same_ir(
        rolled(STENCIL, "T", "j", 4),
        function_of("""
            @tensor.function
            def stencil(X: Buffer[(n + 2,), f32], sizes: Buffer[(n,), f32], Y: Output[(n,), f32]):
                T = alloc((6,), f32)
                for j_0 in range((n + 3) // 4):
                    for ti_1 in range(6):
                        with block("T"):
                            v_j_0 = reduction((n + 3) // 4, j_0)
                            ti = spatial(6, ti_1)
                            where(((j_0 <= 0) | (ti_1 >= 2)) & (j_0 * 4 + ti_1 < n + 2))
                            T[(ti + v_j_0 * 4) % 6] = X[ti + v_j_0 * 4] * f32(3.0)
                    for j_1 in range(4):
                        with block("Y"):
                            yj = spatial(n, j_0 * 4 + j_1)
                            where(j_0 * 4 + j_1 < n)
                            Y[yj] = T[yj % 6] + T[(yj + 2) % 6]
        """),
    )


def arrays_for(text, n, m):
    rng = np.random.default_rng(n * 7 + m)
    shapes = {STENCIL: [(n + 2,), (n,)], ROWS: [(n, m)], SUMS: [(n + 2, 4)]}[text]
    return [rng.integers(-4, 5, s).astype(np.float32) for s in shapes]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(STENCIL, "T", "j"), (ROWS, "P", "c"), (SUMS, "S", "c")]),
    st.integers(1, 11),
    st.integers(1, 4),
    st.sampled_from([None, 1, 2, 3, 5]),
)
def test_a_circular_buffer_keeps_the_meaning(case, n, m, tile):
    text, producer, loop = case
    after = rolled(text, producer, loop, tile)
    verify_tensor_function(after)
    arrays = arrays_for(text, n, m)
    np.testing.assert_array_equal(
        run_tensor(after, arrays)[0], run_tensor(function_of(text), arrays)[0]
    )


def test_compiled_code_keeps_the_buffer_between_iterations():
    after = rolled(ROWS, "P", "c", 2)
    module = ir(f"""{after}
@graph.function
def main(X: Tensor[(7, 5), f32]) -> (Tensor[(7, 5), f32],):
    y = call_tensor(rows, X, out=(Tensor[(7, 5), f32],))
    return y
""")
    arrays = arrays_for(ROWS, 7, 5)
    wanted = run_tensor(function_of(ROWS), arrays)[0]
    np.testing.assert_array_equal(compiled_here(module)(*arrays), wanted)


def test_later_instructions_see_that_iterations_depend_on_each_other():
    s = Schedule(function_of(STENCIL))
    s.compute_at("T", "j")
    s.rolling_buffer("T", "T")
    for attempt in (s.parallel, s.vectorize):
        with pytest.raises(ScheduleError):
            attempt("j")


def placed(text=STENCIL, producer="T", loop="j"):
    s = Schedule(function_of(text))
    s.compute_at(producer, loop)
    return s


def test_a_buffer_before_a_loop_of_its_consumer_is_refused():
    with pytest.raises(ScheduleError) as caught:
        RollingBuffer("T", "T").apply(function_of(STENCIL))
    assert caught.value.code == "E0329"
    assert "compute_at" in (caught.value.help or "")


def test_windows_that_do_not_overlap_are_refused():
    text = STENCIL.replace("T[yj] + T[yj + 2]", "T[yj] + T[yj]")
    with pytest.raises(ScheduleError) as caught:
        placed(text).rolling_buffer("T", "T")
    assert caught.value.code == "E0384"


def test_a_parallel_loop_is_refused():
    s = placed()
    s.parallel("j")
    with pytest.raises(ScheduleError) as caught:
        s.rolling_buffer("T", "T")
    assert caught.value.code == "E0302"


@pytest.mark.parametrize(
    ("block", "buffer", "code"),
    [("T", "Y", "E0322"), ("Y", "T", "E0323"), ("T", "Q", "E0301"), ("Z", "T", "E0301")],
)
def test_other_blocks_and_buffers_are_refused(block, buffer, code):
    with pytest.raises(ScheduleError) as caught:
        placed().rolling_buffer(block, buffer)
    assert caught.value.code == code
    assert caught.value.excerpt


STRIDED = """
    @tensor.function
    def strided(X: Buffer[(32,), f32], Y: Output[(8,), f32]):
        T = alloc((32,), f32)
        for l in range(8):
            for a in range(4):
                with block("T"):
                    t = spatial(32, a * 8 + l)
                    %s
            with block("Y"):
                y = spatial(8, l)
                Y[y] = T[%s] + T[y + 8]
"""


GUARD = "where(X[0] > f32(0.0))\n                    T[t] = X[t]"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (STRIDED % ("T[t] = X[t]", "y"), "E0384"),
        (STRIDED % (GUARD, "y"), "E0320"),
        (STRIDED % ("T[31 - t] = X[t]", "23 - y"), "E0325"),
        (STRIDED.replace("Y[y] =", "prefetch(T[0])\n                Y[y] =")
         % ("T[t] = X[t]", "y"), "E0324"),
    ],
)  # fmt: skip
def test_windows_with_holes_and_other_forms_are_refused(text, code):
    with pytest.raises(ScheduleError) as caught:
        RollingBuffer("T", "T").apply(function_of(text))
    assert caught.value.code == code


def test_a_source_that_changes_meanwhile_is_refused():
    text = """
        @tensor.function
        def changing(X: Buffer[(8,), f32], Y: Output[(6,), f32]):
            C = alloc((1,), f32)
            T = alloc((8,), f32)
            for l in range(6):
                with block("C"):
                    c = spatial(6, l)
                    C[0] = X[c]
                for a in range(3):
                    with block("T"):
                        t = spatial(8, l + a)
                        T[t] = X[t] + C[0]
                with block("Y"):
                    y = spatial(6, l)
                    Y[y] = T[y] + T[y + 2]
    """
    with pytest.raises(ScheduleError) as caught:
        RollingBuffer("T", "T").apply(function_of(text))
    assert caught.value.code == "E0327"
