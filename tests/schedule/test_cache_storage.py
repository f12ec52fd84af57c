"""storage_align and set_dtype: buffers lie otherwise, results are the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.ir.interpret import run_tensor
from treadle.ir.verify import verify_tensor_function
from treadle.schedule.cache import CacheRead
from treadle.schedule.cache_index import CacheIndex
from treadle.schedule.compute_at import ComputeAt
from treadle.schedule.loops import Vectorize
from treadle.schedule.split import Split
from treadle.schedule.storage import SetDtype, StorageAlign
from treadle.schedule.trace import apply_trace, parse_trace, trace_text
from treadle.testing import assert_same_ir, ir

TRANSPOSE = """
    @tensor.function
    def transpose(X: Buffer[(n, 5, 3), %s], Y: Output[(3, n, 5), %s]):
        T = alloc((n, 5, 3), %s)
        for a in range(n):
            for b in range(5):
                for c in range(3):
                    with block("T"):
                        ta = spatial(n, a)
                        tb = spatial(5, b)
                        tc = spatial(3, c)
                        T[ta, tb, tc] = X[ta, tb, tc] + X[ta, 4 - tb, tc]
        for i in range(3):
            for j in range(n):
                for k in range(5):
                    with block("Y"):
                        yi = spatial(3, i)
                        yj = spatial(n, j)
                        yk = spatial(5, k)
                        Y[yi, yj, yk] = T[yj, yk, yi] * T[yj, 4 - yk, yi]
"""
TABLE = """
    @tensor.function
    def table(X: Buffer[(200,), f32], Y: Output[(n, 8), f32]):
        assume(n >= 1)
        assume(n <= 100)
        T = alloc((n, 8), i64)
        for a in range(n):
            for b in range(8):
                with block("T"):
                    ta = spatial(n, a)
                    tb = spatial(8, b)
                    T[ta, tb] = ta + tb * 3
        for i in range(n):
            for j in range(8):
                with block("Y"):
                    yi = spatial(n, i)
                    yj = spatial(8, j)
                    Y[yi, yj] = X[T[yi, yj]]
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def transpose(dtype="f32"):
    return function_of(TRANSPOSE % (dtype, dtype, dtype))


def integers(n, dtype=np.float32):
    return [np.random.default_rng(n).integers(-4, 5, (n, 5, 3)).astype(dtype)]


def test_rows_get_the_least_distance_asked_for():
    after = str(StorageAlign("T", 0, 16, 1).apply(transpose()))
    assert "T = alloc((max(n * 17 - 2, 0),), f32)" in after
    assert "T[ta * 17 + tb * 3 + tc] = " in after
    inner = str(StorageAlign("T", 1, 4).apply(transpose()))
    assert "T = alloc((n, 19), f32)" in inner
    assert "T[ta, tb * 4 + tc] = " in inner


def test_a_table_of_small_integers_fits_into_fewer_bits():
    after = str(SetDtype("T", "i16").apply(function_of(TABLE)))
    assert "T = alloc((n, 8), i16)" in after
    assert "T[ta, tb] = cast(ta + tb * 3, i16)" in after
    assert "X[cast(T[yi, yj], i64)]" in after


def test_a_wider_type_changes_what_is_stored_not_what_is_computed():
    text = """
        @tensor.function
        def f(X: Buffer[(n,), f16], Y: Output[(n,), f16]):
            T = alloc((n,), %s)
            for i in range(n):
                with block("T"):
                    a = spatial(n, i)
                    T[a] = %s
            for j in range(n):
                with block("Y"):
                    b = spatial(n, j)
                    Y[b] = %s
    """
    assert_same_ir(
        SetDtype("T", "f32").apply(function_of(text % ("f16", "X[a] * X[a]", "T[b] + T[b]"))),
        function_of(text % ("f32", "cast(X[a] * X[a], f32)", "cast(T[b], f16) + cast(T[b], f16)")),
    )


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from((0, 1, 3, 5, 13)),
    st.tuples(st.integers(0, 1), st.integers(1, 17), st.integers(0, 16)),
    st.sampled_from(((), (ComputeAt("T", "j"),), (Split("j", (None, 2)), ComputeAt("T", "j_0")))),
    st.sampled_from((("f32", None), ("f32", "f64"), ("i8", "i32"), ("i8", "f16"), ("i32", "f64"))),
)
def test_storage_keeps_the_meaning(n, alignment, moves, types):
    axis, factor, offset = alignment
    dtype, other = types
    before = transpose(dtype)
    trace = [*moves, StorageAlign("T", axis, factor, offset % factor)]
    if other is not None:
        trace.append(SetDtype("T", other))
    after = apply_trace(before, trace)
    assert parse_trace(trace_text(trace)) == tuple(trace)
    verify_tensor_function(after)
    kinds = {"f32": np.float32, "i8": np.int8, "i32": np.int32}
    inputs = integers(n, kinds[dtype])
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], run_tensor(before, inputs)[0])


@pytest.mark.parametrize("n", [1, 7, 100])
@pytest.mark.parametrize("dtype", ["i16", "u16", "i32", "i64"])
def test_narrow_tables_look_up_the_same(n, dtype):
    before = function_of(TABLE)
    after = apply_trace(before, (CacheIndex("Y", "X", 0), SetDtype("T", dtype)))
    inputs = [np.arange(200, dtype=np.float32)]
    wanted = run_tensor(before, inputs, {"n": n})[0]
    np.testing.assert_array_equal(run_tensor(after, inputs, {"n": n})[0], wanted)


WIDE = TABLE.replace("assume(n <= 100)", "assume(n <= 200)")
LOADED = TABLE.replace("ta + tb * 3", "T[ta, tb] + 1")
PREFETCH = TABLE.replace("Y[yi, yj] = X", "prefetch(T[yi, yj])\n                    Y[yi, yj] = X")

REFUSALS = [
    ((StorageAlign("Z", 0, 4),), TABLE, "E0301"),
    ((StorageAlign("T", 0, 0),), TABLE, "E0303"),
    ((StorageAlign("T", 0, 4, 4),), TABLE, "E0303"),
    ((StorageAlign("T", 0, 4),), TABLE.replace("alloc((n, 8)", "alloc((n, n + 8)"), "E0305"),
    ((StorageAlign("X", 0, 4),), TABLE, "E0322"),
    ((CacheRead("Y", "X", "stack"), StorageAlign("X_stack", 0, 4)), TABLE, "E0340"),
    ((StorageAlign("T", 1, 4),), TABLE, "E0340"),
    ((StorageAlign("T", -1, 4),), TABLE, "E0340"),
    ((SetDtype("Z", "f32"),), TABLE, "E0301"),
    ((SetDtype("X", "f64"),), TABLE, "E0322"),
    ((SetDtype("T", "number"),), TABLE, "E0362"),
    ((SetDtype("T", "i8"),), WIDE, "E0362"),
    ((SetDtype("T", "u8"),), WIDE.replace("<= 200", "<= 300"), "E0362"),
    ((SetDtype("T", "f32"),), TABLE, "E0362"),
    ((SetDtype("T", "i16"),), LOADED, "E0362"),
    ((SetDtype("T", "i16"),), PREFETCH, "E0324"),
    ((Vectorize("b"), SetDtype("T", "bool")), TABLE, "E0362"),
]


@pytest.mark.parametrize(("trace", "text", "code"), REFUSALS)
def test_refusals(trace, text, code):
    with pytest.raises(ScheduleError) as caught:
        apply_trace(function_of(text), trace)
    assert caught.value.code == code
    assert caught.value.excerpt
