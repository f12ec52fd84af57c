"""A pool that is keyed by sizes: what it reuses, what it does not, and what it holds in the end."""

from benchmarks.common.size_pool import Request, SizePool, pool_bytes, requests_of
from hypothesis import given
from hypothesis import strategies as st

from treadle.expr.scalar import Var
from treadle.passes.legalize import legalize
from treadle.testing import ir

N = Var("n")


def test_a_free_block_serves_an_equal_size_and_no_other():
    pool = SizePool()
    pool.take(100)
    pool.give_back(100)
    pool.take(100)
    assert pool.total == 100
    pool.take(100)
    pool.give_back(100)
    pool.take(99)
    assert pool.total == 299


def test_values_that_follow_each_other_share_and_those_that_meet_do_not():
    after = [Request(N * 4, 0, 1), Request(N * 4, 2, 3)]
    beside = [Request(N * 4, 0, 2), Request(N * 4, 2, 3)]
    assert pool_bytes(after, [{N: 10}]) == 40
    assert pool_bytes(beside, [{N: 10}]) == 80


def test_the_same_call_again_takes_nothing_and_another_size_all():
    requests = [Request(N * 4, 0, 1), Request(N * 8, 1, 2)]
    once = pool_bytes(requests, [{N: 10}])
    assert pool_bytes(requests, [{N: 10}] * 5) == once
    assert pool_bytes(requests, [{N: 10}, {N: 11}]) == once + pool_bytes(requests, [{N: 11}])


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(1, 4)), max_size=8),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
)
def test_a_pool_holds_at_least_what_lives_at_once_and_never_shrinks(values, lengths):
    requests = [Request(N * size, made, made + more) for made, more, size in values]
    totals = [pool_bytes(requests, [{N: n} for n in lengths[: k + 1]]) for k in range(len(lengths))]
    assert totals == sorted(totals)
    at_once = [
        sum(size * max(lengths) for made, more, size in values if made <= t <= made + more)
        for t in range(16)
    ]
    assert totals[-1] >= max(at_once)


def test_views_inputs_and_results_ask_for_nothing():
    module = legalize(
        ir("""
@graph.function
def main(x: Tensor[(n, 4), f32]) -> (Tensor[(n, 4), f32],):
    a = exp(x)
    b = sum(a, axes=(0,))
    c = add(x, b)
    return c
""")
    )
    assert [(str(r.size), r.made, r.last) for r in requests_of(module)] == [
        ("n * 16", 0, 1),
        ("16", 1, 2),
    ]
