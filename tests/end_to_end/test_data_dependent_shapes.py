"""Results as large as values say: one compilation, exact sizes, for any values."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import treadle
from treadle.base.errors import LoweringError
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.testing import compiled_here, ir
from treadle_runtime.errors import RuntimeFault

SELECT = """
    @graph.function
    def main(x: Tensor[(n, 3), f32], w: Tensor[(3, k), f32]):
        f = slice(x, axis=1, start=0, stop=1)
        g = reshape(f, shape=(n,))
        m = greater(g, f32(0.0))
        p = flat_nonzero(m)
        q = match_cast(p, type=Tensor[(u,), i64])
        rows = gather(x, q, axis=0)
        y = matmul(rows, w)
        z = relu(y)
        s = softmax(z, axis=0)
        t = sum(x, axes=(0,))
        return z, s, t, q
"""


@cache
def selecting() -> tuple[Module, object]:
    module = ir(SELECT)
    return module, compiled_here(module)


def expected(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.maximum(x[x[:, 0] > 0] @ w, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([0, 1, 2, 7, 31, 1023, 1024, 1025, 2053]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_what_a_mask_selects_goes_on_through_products_in_one_compilation(n, share, seed):
    _, program = selecting()
    random = np.random.default_rng(seed)
    x = random.uniform(0.1, 1, (n, 3)).astype(np.float32)
    x[random.random(n) >= share, 0] = -1
    w = random.standard_normal((3, 5)).astype(np.float32)
    z, s, t, q = program(x, w)
    np.testing.assert_array_equal(q, np.flatnonzero(x[:, 0] > 0))
    np.testing.assert_allclose(z, expected(x, w), rtol=1e-5, atol=1e-5)
    assert s.shape == z.shape
    np.testing.assert_allclose(s.sum(0), np.ones(5) * (len(z) > 0), rtol=1e-4)
    np.testing.assert_allclose(t, x.sum(0), rtol=1e-3, atol=1e-3)


def test_the_interpreter_and_the_machine_code_agree():
    module, program = selecting()
    x = np.array([[1, 2, 3], [-1, 0, 0], [2, 2, 2]], np.float32)
    w = np.ones((3, 2), np.float32)
    for a, b in zip(run(module, "main", x, w), program(x, w), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_memory_follows_the_sizes_that_values_give():
    _, program = selecting()
    w = np.ones((3, 64), np.float32)
    x = np.ones((4096, 3), np.float32)
    x[10:, 0] = -1
    program(x, w)
    few = program.memory()
    x[:, 0] = 1
    program(x, w)
    assert few.arena < program.memory().arena / 3
    assert program.memory(n=4096, k=64, size=10).arena == few.arena


def test_bounds_of_the_inputs_bound_the_memory_of_what_is_selected():
    bounds = "assume(n <= 512)\n        assume(k <= 16)\n        f = slice"
    text = SELECT.replace("f = slice", bounds)
    program = treadle.compile(ir(text), threads=1, static_memory=True)
    x, w = np.ones((7, 3), np.float32), np.ones((3, 5), np.float32)
    np.testing.assert_allclose(program(x, w)[0], expected(x, w))
    few = program.memory().arena
    program(np.ones((512, 3), np.float32), w)
    assert program.memory().arena == few


def test_calls_from_several_threads_do_not_share_sizes():
    _, program = selecting()
    w = np.eye(3, dtype=np.float32)

    def holds(seed: int) -> bool:
        x = np.random.default_rng(seed).standard_normal((50 + seed, 3)).astype(np.float32)
        z, *_ = program(x, w)
        return np.allclose(z, expected(x, w), atol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(holds, range(60)))


def test_profiles_count_the_kernels_of_all_stages():
    _, program = selecting()
    x, w = np.ones((8, 3), np.float32), np.ones((3, 2), np.float32)
    profile = program.profile(x, w, runs=2)
    assert profile.symbols["size"] == 8
    assert len(profile.times[0]) == len(program.entry.calls)


def test_a_saved_program_keeps_its_stages(tmp_path):
    program = treadle.compile(ir(SELECT), threads=1)
    program.save(tmp_path / "model.treadle")
    loaded = treadle.load(tmp_path / "model.treadle", threads=1)
    x, w = np.ones((5, 3), np.float32), np.ones((3, 2), np.float32)
    assert loaded.signature == program.signature
    np.testing.assert_array_equal(loaded(x, w)[3], np.arange(5))


def test_results_are_given_in_the_shape_that_values_say_without_a_cast():
    program = compiled_here(
        ir("""
        @graph.function
        def main(x: Tensor[(n, m), i64]):
            p = nonzero(x)
            v, first, inverse, counts = unique(x)
            return p, v, first, inverse, counts
        """)
    )
    x = np.array([[0, 3, 3], [1, 0, 3]])
    p, v, first, inverse, counts = program(x)
    np.testing.assert_array_equal(p, np.argwhere(x))
    wanted = np.unique(x, return_index=True, return_inverse=True, return_counts=True)
    for a, b in zip((v, first, inverse, counts), wanted, strict=True):
        np.testing.assert_array_equal(a, b.ravel())


@cache
def uniques(options: str) -> object:
    return compiled_here(
        ir(f"""
        @graph.function
        def main(x: Tensor[(n, m), f32]):
            v, first, inverse, counts = unique(x{options})
            return v, first, inverse, counts
        """)
    )


VALUES = st.sampled_from([0.0, -0.0, 1.0, 2.0, np.nan, np.inf, -1.0])


@settings(max_examples=30, deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.sampled_from([1, 2, 7, 13]), st.sampled_from([1, 2])),
        elements=VALUES,
    )
)
def test_distinct_elements_are_those_of_numpy_and_nans_are_one(x):
    found = uniques("")(x)
    wanted = np.unique(x, return_index=True, return_inverse=True, return_counts=True)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b.ravel())


@settings(max_examples=30, deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.sampled_from([1, 3, 11]), st.sampled_from([1, 2, 3])),
        elements=st.sampled_from([0.0, 1.0, 2.0]),
    )
)
def test_distinct_rows_are_those_of_numpy(x):
    found = uniques(", axis=0")(x)
    wanted = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=0)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b.reshape(a.shape))


@settings(max_examples=20, deadline=None)
@given(arrays(np.float32, st.tuples(st.just(13), st.just(2)), elements=VALUES))
def test_distinct_elements_in_order_of_appearance_ascend_by_where_they_stood_first(x):
    values, first, inverse, counts = uniques(", sorted=False")(x)
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(values[inverse], x.ravel())
    np.testing.assert_array_equal(x.ravel()[first], values)
    np.testing.assert_array_equal(np.bincount(inverse), counts)


def test_positions_are_listed_by_several_threads():
    program = treadle.compile(
        ir("""
        @graph.function
        def main(x: Tensor[(n,), bool]):
            p = flat_nonzero(x)
            return p
        """),
        threads=2,
    )
    for n in (0, 1, 1 << 17, (1 << 17) + 1):
        x = np.random.default_rng(n).random(n) < 0.5
        np.testing.assert_array_equal(program(x), np.flatnonzero(x))


def test_a_size_that_breaks_what_the_program_needs_is_told():
    program = compiled_here(
        ir("""
        @graph.function
        def main(x: Tensor[(n,), f32], k: Tensor[(), i64]):
            b = bind_symbol(k, symbol=u)
            y = slice(x, axis=0, start=0, stop=u)
            return y
        """)
    )
    x = np.arange(5, dtype=np.float32)
    for k in (0, 3, 5):
        np.testing.assert_array_equal(program(x, np.int64(k)), x[:k])
    for k in (-1, 6, 1 << 40):
        with pytest.raises(RuntimeFault, match="E0707") as error:
            program(x, np.int64(k))
        assert "does not hold of sizes that depend on data" in error.value.message
    np.testing.assert_array_equal(program(x, np.int64(2)), x[:2])


def test_a_cast_to_a_size_that_values_do_not_have_is_told():
    program = compiled_here(
        ir("""
        @graph.function
        def main(x: Tensor[(n,), f32], y: Tensor[(m,), f32]):
            p = flat_nonzero(x)
            q = match_cast(p, type=Tensor[(m,), i64])
            z = gather(x, q, axis=0)
            r = add(z, y)
            return r
        """)
    )
    x = np.array([0, 2, 0, 3], np.float32)
    np.testing.assert_array_equal(program(x, np.ones(2, np.float32)), [3, 4])
    with pytest.raises(RuntimeFault, match="E0707"):
        program(x, np.ones(3, np.float32))


def test_sizes_of_functions_that_are_called_twice_are_their_own():
    program = compiled_here(
        ir("""
        @graph.function
        def total(x: Tensor[(n,), f32]):
            p = flat_nonzero(x)
            q = match_cast(p, type=Tensor[(u,), i64])
            y = gather(x, q, axis=0)
            s = sum(y, axes=(0,))
            return s

        @graph.function
        def main(x: Tensor[(n,), f32], y: Tensor[(m,), f32]):
            a = call(total, x, out=(Tensor[(), f32],))
            b = call(total, y, out=(Tensor[(), f32],))
            c = add(a, b)
            return c
        """)
    )
    assert program(np.array([1, 0, 2], np.float32), np.array([0, 5], np.float32)) == 8


def test_equal_masks_are_counted_once():
    program = compiled_here(
        ir("""
        @graph.function
        def main(x: Tensor[(n,), f32], y: Tensor[(n,), f32]):
            p = flat_nonzero(x)
            q = match_cast(p, type=Tensor[(u,), i64])
            r = nonzero(x)
            s = match_cast(r, type=Tensor[(v, 1), i64])
            a = gather(y, q, axis=0)
            return a, s
        """)
    )
    assert len(program.entry.sizes) == 1


def test_a_size_inside_of_a_branch_is_refused():
    with pytest.raises(LoweringError, match="E0422"):
        compiled_here(
            ir("""
            @graph.function
            def positive(x: Tensor[(n,), f32]):
                p = flat_nonzero(x)
                q = match_cast(p, type=Tensor[(u,), i64])
                y = gather(x, q, axis=0)
                s = sum(y, axes=(0,))
                return s

            @graph.function
            def whole(x: Tensor[(n,), f32]):
                s = sum(x, axes=(0,))
                return s

            @graph.function
            def main(c: Tensor[(), bool], x: Tensor[(n,), f32]):
                y = cond(c, x, then=positive, orelse=whole, out=(Tensor[(), f32],))
                return y
            """)
        )
