"""Memory of values is planned though sizes are symbolic: values share where sizes are equal, and
where one is shown to be at most the other; with upper bounds of the symbols the plan is constant
and memory is taken once (Relax, arXiv 2311.02103, §4.3, Alg. 3).
"""

import numpy as np
import pytest

import treadle
from treadle.base.errors import LoweringError, OptionError, RuntimeFault
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Expr, Var, int_value
from treadle.passes.plan_memory import ArenaPlan
from treadle.testing import ir

N, M = Var("n"), Var("m")
SIZES = (N >= 1, M >= 1)


def arena_of(*sizes: Expr, facts=SIZES) -> Expr:
    """The arena of values that live one after another."""
    plan = ArenaPlan(Facts.of(facts))
    for size in sizes:
        plan.give_back(plan.take(size))
    return plan.layout()[1]


def test_equal_sizes_share_memory_however_they_are_written():
    assert str(arena_of(N * M * 64, M * 64 * N)) == "m * n * 64"


def test_a_smaller_value_lies_in_the_memory_of_a_larger_one_where_that_is_shown():
    assert str(arena_of(N * 256, N * 64)) == "n * 256"
    assert str(arena_of(N * 64, N * 64 + 640)) == "n * 64 + 640"
    assert str(arena_of(N * 64, M * 64, facts=(*SIZES, N <= M))) == "m * 64"


def test_sizes_that_cannot_be_compared_share_the_larger_of_both():
    assert str(arena_of(N * 64, M * 64)) in ("max(m * 64, n * 64)", "max(n * 64, m * 64)")


def test_values_that_live_together_do_not_share():
    plan = ArenaPlan(Facts.of(SIZES))
    a = plan.take(N * 256)
    b = plan.take(N * 64)
    plan.give_back(a)
    plan.give_back(b)
    assert str(plan.layout()[1]) == "n * 320"


STEPS = """
@graph.function
def main(x: Tensor[(n, 64), f32], w: Tensor[(64, 256), f32]) -> (Tensor[(n, 64), f32],):
    a = matmul(x, w)
    b = cum_sum(a, axis=0)
    c = cum_sum(b, axis=0)
    d = max(c, axes=(1,), keepdims=True)
    e = add(x, d)
    f = cum_sum(e, axis=0)
    return f
"""


def inputs(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return (
        rng.uniform(-1, 1, (n, 64)).astype(np.float32),
        rng.uniform(-1, 1, (64, 256)).astype(np.float32),
    )


def test_with_upper_bounds_the_arena_is_a_constant_and_taken_once():
    dynamic = treadle.compile(ir(STEPS), threads=1)
    static = treadle.compile(ir(STEPS), threads=1, static_memory=True, bounds={"n": 128})
    assert int_value(dynamic.build.host.arena) is None
    arena = int_value(static.build.host.arena)
    assert arena == dynamic.memory(n=128).arena
    frames = set()
    for n in (128, 1, 7, 64, 128):
        np.testing.assert_allclose(static(*inputs(n)), dynamic(*inputs(n)), rtol=1e-5)
        assert static.memory(n=n).arena == arena
        frames.add(static._frames[-1].pointer)
    assert len(frames) == 1


def test_a_call_above_a_bound_is_refused():
    exe = treadle.compile(ir(STEPS), threads=1, bounds={"n": 16})
    exe(*inputs(16))
    with pytest.raises(RuntimeFault, match="E0706"):
        exe(*inputs(17))


def test_static_memory_needs_a_bound_for_every_symbol():
    with pytest.raises(LoweringError, match="E0423"):
        treadle.compile(ir(STEPS), threads=1, static_memory=True)
    bounded = STEPS.replace("    a = matmul", "    assume(n <= 128)\n    a = matmul")
    exe = treadle.compile(ir(bounded), threads=1, static_memory=True)
    assert int_value(exe.build.host.arena) is not None


@pytest.mark.parametrize("bounds", [{"k": 3}, {"n": -1}, {"n": "many"}])
def test_a_bound_that_does_not_fit_is_refused(bounds):
    with pytest.raises(OptionError, match="E0834"):
        treadle.compile(ir(STEPS), threads=1, bounds=bounds)


def test_a_saved_model_keeps_its_static_memory(tmp_path):
    exe = treadle.compile(ir(STEPS), threads=1, static_memory=True, bounds={"n": 128})
    exe.save(tmp_path / "model.treadle")
    again = treadle.load(tmp_path / "model.treadle", threads=1)
    assert again.memory(n=1).arena == exe.memory(n=1).arena
    np.testing.assert_array_equal(again(*inputs(9)), exe(*inputs(9)))


def test_a_size_that_depends_on_data_is_bounded_by_what_it_is_taken_from():
    text = """
@graph.function
def main(x: Tensor[(n,), f32]):
    places = nonzero(x)
    a = cast(places, dtype=f32)
    b = cum_sum(a, axis=0)
    c = cum_sum(b, axis=0)
    return c
"""
    exe = treadle.compile(ir(text), threads=1, static_memory=True, bounds={"n": 64})
    sizes = (exe.build.host.arena, *exe.build.host.later)
    assert all(int_value(size) is not None for size in sizes)
    x = np.array([0, 1, 0, 2, 3], np.float32)
    np.testing.assert_array_equal(exe(x), np.array([[1], [5], [13]], np.float32))
