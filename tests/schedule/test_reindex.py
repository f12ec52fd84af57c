"""reindex, reindex_cache_read, reindex_cache_write, cache_index: blocks that access plainly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.expr.scalar import Var
from treadle.ir.interpret import run_tensor
from treadle.ir.verify import verify_tensor_function
from treadle.schedule.cache_index import CacheIndex
from treadle.schedule.index_map import IndexMap, index_map
from treadle.schedule.loops import Fuse, Reorder
from treadle.schedule.reindex import Reindex, ReindexCacheRead, ReindexCacheWrite
from treadle.schedule.split import Split
from treadle.schedule.trace import Schedule, apply_trace, parse_trace, trace_text
from treadle.testing import assert_same_ir, ir

CONV = """
    @tensor.function
    def conv(X: Buffer[(c, h), f32], W: Buffer[(o, c, 3), f32], Y: Output[(h, o), f32]):
        for x in range(o):
            for i in range(h):
                for k in range(c):
                    for r in range(3):
                        with block("Y"):
                            vx = spatial(o, x)
                            vi = spatial(h, i)
                            vk = reduction(c, k)
                            vr = reduction(3, r)
                            with init():
                                Y[vi, vx] = f32(0.0)
                            Y[vi, vx] = Y[vi, vx] + W[vx, vk, vr] * load(
                                X[vk, vi + vr - 1], mask=(vi + vr >= 1) & (vi + vr - 1 < h))
"""
FLIP = """
    @tensor.function
    def flip(X: Buffer[(6, n), f32], I: Buffer[(n,), i64], Y: Output[(12, n), f32]):
        for i in range(n):
            for j in range(6):
                with block("Y"):
                    vi = spatial(n, i)
                    vj = spatial(6, j)
                    Y[vj * 2, vi] = X[(vj * 5 + 1) % 6, n - 1 - vi]
"""


def function_of(text):
    return ir(text).tensor_functions[0]


def integers(rng, *shape):
    return rng.integers(-4, 5, shape).astype(np.float32)


def conv_inputs(c, h, o):
    rng = np.random.default_rng(c * h * o)
    return [integers(rng, c, h), integers(rng, o, c, 3)]


def flip_inputs(n):
    rng = np.random.default_rng(n)
    return [integers(rng, 6, n), rng.integers(0, max(n, 1), n)]


def test_reindex_of_a_load_copies_it_with_its_mask():
    after = str(Reindex("Y", "X").apply(function_of(CONV)))
    assert "X_reindex = alloc((h, c, 3), f32)" in after
    copy = "X_reindex[vi_X_reindex, vk_X_reindex, vr_X_reindex] = load(X[vk_X_reindex, "
    assert copy in after.replace("\n", " ")
    assert "W[vx, vk, vr] * X_reindex[vi, vk, vr]" in after


def test_reindex_of_a_store_copies_back_what_was_written():
    assert_same_ir(
        Reindex("Y", "Y").apply(function_of(FLIP)),
        function_of("""
            @tensor.function
            def flip(X: Buffer[(6, n), f32], I: Buffer[(n,), i64], Y: Output[(12, n), f32]):
                Y_reindex = alloc((n, 6), f32)
                for i in range(n):
                    for j in range(6):
                        with block("Y"):
                            vi = spatial(n, i)
                            vj = spatial(6, j)
                            Y_reindex[vi, vj] = X[(vj * 5 + 1) % 6, n - 1 - vi]
                for i_copy in range(n):
                    for j_copy in range(6):
                        with block("Y_copy"):
                            vi_copy = spatial(n, i_copy)
                            vj_copy = spatial(6, j_copy)
                            Y[vj_copy * 2, vi_copy] = Y_reindex[vi_copy, vj_copy]
        """),
    )


def test_the_place_of_a_copy_is_a_map_of_the_axes():
    s = Schedule(function_of(FLIP))
    s.reindex_cache_read("Y", "X", "stack", lambda i, j: (j, i // 4, i % 4))
    s.reindex_cache_write("Y", "stack", lambda i, j: (i * 6 + j,))
    text = str(s.function)
    assert 'X_stack = alloc((6, (n + 3) // 4, 4), f32, scope="stack")' in text
    assert "Y_stack[vi * 6 + vj] = X_stack[vj, vi // 4, vi % 4]" in text
    assert parse_trace(trace_text(s.trace)) == s.trace


def test_an_index_is_looked_up_in_a_table():
    assert_same_ir(
        CacheIndex("Y", "X", 0).apply(function_of(FLIP)),
        function_of("""
            @tensor.function
            def flip(X: Buffer[(6, n), f32], I: Buffer[(n,), i64], Y: Output[(12, n), f32]):
                X_index = alloc((6,), i64, scope="stack")
                for vj_X_index_1 in range(6):
                    with block("X_index"):
                        vj_X_index = spatial(6, vj_X_index_1)
                        X_index[vj_X_index] = (vj_X_index * 5 + 1) % 6
                for i in range(n):
                    for j in range(6):
                        with block("Y"):
                            vi = spatial(n, i)
                            vj = spatial(6, j)
                            Y[vj * 2, vi] = X[X_index[vj], n - 1 - vi]
        """),
    )


def test_an_index_that_is_loaded_goes_into_the_table():
    text = FLIP.replace("n - 1 - vi]", "I[vi]]")
    after = CacheIndex("Y", "X", 1).apply(function_of(text))
    inputs = flip_inputs(5)
    wanted = run_tensor(function_of(text), inputs)[0]
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], wanted)


# ---- The law


@st.composite
def places(draw, count, used):
    """A map of ``count`` axes that tells those at positions ``used`` apart."""
    params = tuple(f"p{i}" for i in range(count))
    parts = []
    for position in used:
        axis, tile = Var(params[position]), draw(st.integers(0, 4))
        parts.extend([axis // tile, axis % tile] if tile else [axis])
    return IndexMap(params, tuple(draw(st.permutations(parts))))


@st.composite
def conv_moves(draw):
    moves = [
        Split("i", (None, draw(st.integers(1, 4)))),
        Split("x", (None, draw(st.integers(1, 3)))),
        Reorder(("k", "i")),
        Fuse(("x", "i")),
        Reindex("Y", "X"),
        Reindex("Y", "W"),
        Reindex("Y", "Y"),
        CacheIndex("Y", "X", 1),
        ReindexCacheRead("Y", "X", "stack", draw(places(4, (1, 2, 3)))),
        ReindexCacheRead("Y", "W", "stack", draw(places(4, (0, 2, 3)))),
        ReindexCacheWrite("Y", "stack", draw(places(4, (0, 1)))),
    ]
    return draw(st.lists(st.sampled_from(moves), unique=True, min_size=1, max_size=5))


def applied(function, moves):
    trace = []
    for move in moves:
        try:
            function = move.apply(function)
        except ScheduleError:
            continue
        trace.append(move)
    return function, tuple(trace)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.sampled_from((1, 2, 3, 5))] * 3), conv_moves())
def test_copies_in_a_block_s_order_keep_the_meaning_of_a_convolution(sizes, moves):
    before = function_of(CONV)
    after, trace = applied(before, moves)
    assert parse_trace(trace_text(trace)) == trace
    verify_tensor_function(after)
    inputs = conv_inputs(*sizes)
    wanted = run_tensor(before, inputs)[0]
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], wanted)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from((0, 1, 4, 7, 11)),
    st.lists(
        st.sampled_from(
            (
                Split("i", (None, 4)), Split("j", (2, 3)), Fuse(("i", "j")),
                CacheIndex("Y", "X", 0), CacheIndex("Y", "X", 1),
                Reindex("Y", "X"), Reindex("Y", "Y"),
            )
        ),
        unique=True,
    ),
)  # fmt: skip
def test_copies_in_a_block_s_order_keep_the_meaning_of_a_permutation(n, moves):
    before = function_of(FLIP)
    after, trace = applied(before, moves)
    verify_tensor_function(after)
    inputs = flip_inputs(n)
    wanted = run_tensor(before, inputs)[0][::2]
    np.testing.assert_array_equal(run_tensor(after, inputs)[0][::2], wanted, trace_text(trace))


# ---- Refusals

SEVERAL = FLIP.replace("n - 1 - vi]", "n - 1 - vi] + X[vj, vi]")
UNKNOWN = FLIP.replace("n - 1 - vi]", "I[vi]]")
BEYOND = FLIP.replace("n - 1 - vi]", "n - vi]")
CONDITION = FLIP.replace(
    "                    Y[vj", "                    where(i < 3)\n                    Y[vj"
)
INNER = FLIP.replace(
    "                    Y[vj", "                    if vi > 3:\n                        Y[vj"
)
PREFETCH = FLIP.replace(
    "                    Y[vj", "                    prefetch(X[0, 0])\n                    Y[vj"
)
FOLDED = FLIP.replace("Y[vj * 2, vi]", "Y[vj // 2, vi]")
OTHER = (
    FLIP
    + """
        for k in range(n):
            with block("again"):
                wk = spatial(n, k)
                Y[0, wk] = f32(1.0)
"""
)
BACK = FLIP.replace("X[(vj", "Y[vj * 2 + 1, vi] + X[(vj")
TWISTED = """
    @tensor.function
    def twisted(X: Buffer[(6,), f32], Y: Output[(6,), f32]):
        for i in range(6):
            with block("Y"):
                vi = spatial(6, i)
                vk = reduction(6, i)
                with init():
                    Y[vi] = f32(0.0)
                Y[vi] = Y[vi] + X[vi]
"""
IDENTITY = index_map(lambda i, j: (i, j))

REFUSALS = [
    (Reindex("Z", "X"), FLIP, "E0301"),
    (Reindex("Y", "Z"), FLIP, "E0320"),
    (Reindex("Y", "X"), CONDITION, "E0320"),
    (Reindex("Y", "X"), SEVERAL, "E0324"),
    (Reindex("Y", "X"), PREFETCH, "E0324"),
    (Reindex("Y", "X"), INNER, "E0328"),
    (Reindex("Y", "X"), UNKNOWN, "E0360"),
    (Reindex("Y", "X"), BEYOND, "E0360"),
    (Reindex("Y", "Y"), FOLDED, "E0325"),
    (Reindex("Y", "Y"), OTHER, "E0323"),
    (Reindex("Y", "Y"), BACK, "E0324"),
    (Reindex("Y", "Y"), CONDITION, "E0320"),
    (Reindex("Y", "Y"), TWISTED, "E0311"),
    (ReindexCacheRead("Y", "X", "cupboard", IDENTITY), FLIP, "E0322"),
    (ReindexCacheRead("Y", "X", "stack", index_map(lambda i: (i,))), FLIP, "E0340"),
    (ReindexCacheRead("Y", "X", "stack", index_map(lambda i, j: (i,))), FLIP, "E0340"),
    (ReindexCacheRead("Y", "X", "stack", index_map(lambda i, j: (i, j // 2))), FLIP, "E0340"),
    (ReindexCacheRead("Y", "X", "stack", index_map(lambda i, j: (i, j - 1))), FLIP, "E0340"),
    (ReindexCacheRead("Y", "X", "stack", IDENTITY), SEVERAL, "E0324"),
    (ReindexCacheRead("Y", "X", "stack", IDENTITY), BEYOND, "E0360"),
    (ReindexCacheWrite("Y", "cupboard", IDENTITY), FLIP, "E0322"),
    (ReindexCacheWrite("Y", "stack", index_map(lambda i, j: (j,))), FLIP, "E0340"),
    (ReindexCacheWrite("Y", "stack", index_map(lambda x, i, k, r: (x, i, k))), CONV, "E0340"),
    (ReindexCacheWrite("Y", "stack", IDENTITY), FOLDED, "E0325"),
    (ReindexCacheWrite("Y", "stack", IDENTITY), OTHER, "E0323"),
    (CacheIndex("Y", "X", 0, "cupboard"), FLIP, "E0322"),
    (CacheIndex("Y", "X", 2), FLIP, "E0340"),
    (CacheIndex("Y", "X", -1), FLIP, "E0340"),
    (CacheIndex("Y", "Y", 0), FLIP, "E0320"),
    (CacheIndex("Y", "X", 0), SEVERAL, "E0324"),
    (CacheIndex("Y", "X", 0), CONDITION, "E0320"),
    (CacheIndex("Y", "X", 0), CONV, "E0363"),
]


@pytest.mark.parametrize(("instruction", "text", "code"), REFUSALS)
def test_refusals(instruction, text, code):
    with pytest.raises(ScheduleError) as caught:
        apply_trace(function_of(text), (instruction,))
    assert caught.value.code == code
    assert caught.value.excerpt
