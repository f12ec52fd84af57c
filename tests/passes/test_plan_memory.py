"""Values that live at the same time never share memory, and the arena is no larger than needed."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.expr.bounds import Facts
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import Expr, Var, const
from treadle.passes.plan_memory import ALIGNMENT, ArenaPlan, Block, padded

N = Var("n")
FACTS = Facts.of((N >= 1,), {})
SIZES: tuple[Expr, ...] = (
    const(0), const(4), const(64), const(100), const(4096), N * 4, N * 64, N * 64 + 4, N * N * 8,
)  # fmt: skip


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[Expr, int, int]]:
    """Sizes of values with the steps at which they begin and end to live."""
    count = draw(st.integers(1, 12))
    spans = [(draw(st.integers(0, 15)), draw(st.integers(0, 8))) for _ in range(count)]
    return [(draw(st.sampled_from(SIZES)), begin, begin + length) for begin, length in spans]


def planned(values: list[tuple[Expr, int, int]]) -> tuple[ArenaPlan, dict[int, Block]]:
    """The plan, and the block of each value: what ends at a step is free from the next on."""
    plan, blocks = ArenaPlan(FACTS), dict[int, Block]()
    for step in range(26):
        for k, (_, _, end) in enumerate(values):
            if end == step - 1:
                plan.give_back(blocks[k])
        for k, (size, begin, _) in enumerate(values):
            if begin == step:
                blocks[k] = plan.take(size)
    return plan, blocks


def bytes_of(x: Expr, n: int) -> int:
    return int(evaluate(x, {N: n}))


@given(lives(), st.integers(1, 50))
@settings(deadline=None)
def test_values_that_live_together_do_not_overlap(values, n):
    plan, blocks = planned(values)
    offsets, total = plan.layout()
    for step in range(26):
        live = [(blocks[k], v[0]) for k, v in enumerate(values) if v[1] <= step <= v[2]]
        starts = sorted(
            (bytes_of(offsets[b.offset], n), bytes_of(offsets[b.offset] + s, n)) for b, s in live
        )
        used = [span for span in starts if span[0] != span[1]]
        assert all(end <= begin for (_, end), (begin, _) in pairwise(used))
        assert all(end <= bytes_of(total, n) for _, end in used)
        assert all(begin % ALIGNMENT == 0 for begin, _ in used)


@given(lives(), st.integers(1, 50))
@settings(deadline=None)
def test_the_arena_lies_between_the_largest_sum_of_lives_and_the_sum_of_all(values, n):
    plan, _ = planned(values)
    total = bytes_of(plan.layout()[1], n)
    sizes = [bytes_of(padded(size, FACTS), n) for size, _, _ in values]
    at_once = [
        sum(s for s, (_, begin, end) in zip(sizes, values, strict=True) if begin <= t <= end)
        for t in range(26)
    ]
    assert max(at_once) <= total <= sum(sizes)


@given(lives(), st.integers(1, 50))
@settings(deadline=None)
def test_the_live_sets_are_what_no_plan_can_do_without(values, n):
    plan, _ = planned(values)
    most = max((bytes_of(size, n) for size in plan.live()), default=0)
    at_once = [
        sum(bytes_of(size, n) for size, begin, end in values if begin <= t <= end)
        for t in range(26)
    ]
    assert most == max(at_once)
    assert most <= bytes_of(plan.layout()[1], n)


@given(st.sampled_from(SIZES), st.sampled_from(SIZES))
def test_values_one_after_another_share_where_one_is_shown_to_be_larger(a, b):
    plan = ArenaPlan(FACTS)
    plan.give_back(plan.take(a))
    plan.give_back(plan.take(b))
    offsets, total = plan.layout()
    assert {str(offset) for offset in offsets.values()} == {"0"}
    assert bytes_of(total, 9) == max(bytes_of(padded(x, FACTS), 9) for x in (a, b))


def test_small_values_fill_what_a_large_one_leaves():
    plan = ArenaPlan(FACTS)
    large = plan.take(const(1024))
    plan.give_back(large)
    halves = [plan.take(const(512)) for _ in range(2)]
    offsets, total = plan.layout()
    assert sorted(str(offsets[h.offset]) for h in halves) == ["0", "512"]
    assert str(total) == "1024"
