from itertools import permutations

import pytest

from treadle.expr.bounds import EMPTY, Facts, Interval, divisible, interval, prove
from treadle.expr.dtype import i8, i64, u8
from treadle.expr.scalar import (
    Expr,
    Var,
    apply,
    cast,
    ceildiv,
    eq,
    maximum,
    minimum,
    ne,
    select,
)

f, h, i, j, k, m, n, p, s = map(Var, "f h i j k m n p s".split())
i0, i1, i2 = map(Var, ("i0", "i1", "i2"))
sizes = Facts.of([n >= 0, m >= 0, k >= 0])
fused = Facts.of(sizes.claims, {f: n * m * k})
tail = Facts.of(ranges={i0: ceildiv(n, 16), i1: 16}).with_fact(i0 * 16 + i1 < n)

PROVED = [
    (ceildiv(n, 6) * 6 >= n, EMPTY),
    (ceildiv(ceildiv(n, 4), 6) * 24 >= n, EMPTY),
    (m // 6 * 6 <= m, EMPTY),
    (m % 6 < 6, EMPTY),
    (m % n < n, Facts.of([n >= 1])),
    (i0 * 6 + i1 < m, Facts.of(ranges={i0: m // 6, i1: 6})),
    ((i0 * 6 + i1) * 4 + i2 < n + 24, Facts.of(ranges={i0: ceildiv(n, 24), i1: 6, i2: 4})),
    (i0 * 16 + i1 < n, tail),
    (i0 * 16 + i1 >= 0, tail),
    (minimum(n - i0 * 6, 6) >= 1, Facts.of(ranges={i0: ceildiv(n, 6)})),
    (minimum(n - i0 * 6, 6) + i0 * 6 <= n, EMPTY),
    (
        i0 * 6 + i1 < n,
        Facts.of(ranges={i0: ceildiv(n, 6), i1: minimum(6, n - i0 * 6)}),
    ),
    (i0 * 4 + i1 < n, Facts.of([eq(n % 4, 0)], {i0: n // 4, i1: 4})),
    (i0 * 4 + i1 < m, Facts.of([n <= m], {i0: n // 4, i1: 4})),
    (i // 4 < ceildiv(n, 4), Facts.of(ranges={i: n})),
    (i * n + j < n * m, Facts.of([n >= 0], {i: m, j: n})),
    ((i * n + j) * k + p < n * m * k, Facts.of(ranges={i: m, j: n, p: k})),
    (f // (m * k) < n, fused),
    (f // k % m < m, fused),
    (f % k < k, fused),
    (f // k < n * m, fused),
    (i * 2 + j < h, Facts.of([h >= 3], {i: (h - 3) // 2 + 1, j: 3})),
    (i * s + j < h + 2 * p, Facts.of([s >= 1], {i: (h + 2 * p - k) // s + 1, j: k})),
    (4 * n * m <= 4 * n * (m + 1), sizes),
    (eq(n * 64 * 4, 256 * n), EMPTY),
    (maximum(4 * n, 8 * m) <= 8 * maximum(n, m), sizes),
    (4 * n <= maximum(4 * n, 256), EMPTY),
    (
        (4 * n + 63) // 64 * 64 <= (4 * n * m + 63) // 64 * 64,
        Facts.of([n >= 0, m >= 1]),
    ),
    (n * n >= n, Facts.of([n >= 1])),
    (i * i >= 0, EMPTY),
    (n * m >= n, Facts.of([n >= 0, m >= 1])),
    (n >= 4, Facts.of([eq(n % 4, 0), n >= 1])),
    (n * 4 + 4 <= m * 4, Facts.of([n < m])),
    (n // 2 * 2 + 1 <= m * 2, Facts.of([n < m * 2])),
    (eq(minimum(n, m) + maximum(n, m), n + m), EMPTY),
    (ne(n, 0), Facts.of(ranges={i: n})),
    (n >= 1, Facts.of(ranges={i: n})),
    (select(n > 3, n, 3) >= 3, EMPTY),
    (apply("abs", n) >= 0, EMPTY),
    (cast(Var("q", u8), i64) < 256, EMPTY),
    ((n <= m) | (m < n), EMPTY),
    ((i < n) & (i >= 0), Facts.of(ranges={i: n})),
]

NOT_PROVED = [
    (n < m, sizes),
    (n * m >= n, sizes),
    (n >= 0, EMPTY),
    (i + j - 1 < h, Facts.of([h >= 1], {i: h, j: 3})),
    (f // (m * k) < n, Facts.of(ranges={f: n * m * k})),
    (Var("q", i8) + 1 > Var("q", i8), EMPTY),
    (eq(n % 4, 0), Facts.of([eq(n % 2, 0)])),
]


@pytest.mark.parametrize(
    ("claim", "facts"), PROVED, ids=lambda v: str(v) if isinstance(v, Expr) else ""
)
def test_claim_is_proved(claim, facts):
    assert prove(claim, facts)


@pytest.mark.parametrize(
    ("claim", "facts"), NOT_PROVED, ids=lambda v: str(v) if isinstance(v, Expr) else ""
)
def test_claim_that_need_not_hold_is_not_proved(claim, facts):
    assert not prove(claim, facts)


@pytest.mark.parametrize(
    ("x", "k", "facts"),
    [
        (16 * n + 32, 16, EMPTY),
        (n * m * 48, 16, EMPTY),
        (ceildiv(n, 8) * 8 * m, 8, EMPTY),
        (n * 16, n, EMPTY),
        (n * m, m, EMPTY),
        (n * 3, 12, Facts.of([eq(n % 4, 0)])),
        (n - 1, 2, Facts.of([eq(n % 2, 1)])),
    ],
    ids=str,
)
def test_multiples_are_divisible(x, k, facts):
    assert divisible(x, k, facts)


def test_what_may_leave_a_remainder_is_not_divisible():
    assert not divisible(n + 8, 8)
    assert not divisible(n, m)


@pytest.mark.parametrize(
    ("x", "facts", "bounds"),
    [
        (i * 4 + j, Facts.of(ranges={i: 10, j: 4}), Interval(0, 39)),
        (i - i + 3, EMPTY, Interval(3, 3)),
        (n % 8, EMPTY, Interval(0, 7)),
        (i // 3, Facts.of(ranges={i: 10}), Interval(0, 3)),
        (-(i // 3), Facts.of(ranges={i: 10}), Interval(-3, 0)),
        (n, Facts.of([n >= 2, n < 9, eq(n % 4, 1)]), Interval(5, 5)),
        (n * 2, Facts.of([n * 3 >= 7]), Interval(6, None)),
        (minimum(n, 4), EMPTY, Interval(None, 4)),
        (select(n > 3, i, 20), Facts.of(ranges={i: 10}), Interval(0, 20)),
        (cast(Var("q", u8), i64) - 1, EMPTY, Interval(-1, 254)),
        (Var("q", u8) + 1, EMPTY, Interval(0, 255)),
        (n & 7, EMPTY, Interval(0, 7)),
        (i >> 1, Facts.of(ranges={i: 10}), Interval(0, 4)),
        (n < m, EMPTY, Interval(0, 1)),
    ],
    ids=str,
)
def test_interval_is_tight(x, facts, bounds):
    assert interval(x, facts) == bounds


def test_facts_are_extended_without_change():
    facts = Facts.of([n >= 1])
    more = facts.with_range(i, n).with_fact(i >= 2)
    assert prove(i >= 2, more)
    assert not prove(i >= 2, facts)
    assert repr(more) == "Facts(n >= 1, i >= 2, 0 <= i < n)"


def test_facts_that_mention_one_another_do_not_go_round():
    facts = Facts.of([n < m, m < k, k < n + 5, i < j, j < i + 3])
    assert prove(n + 2 <= k, facts)
    assert not prove(n + 3 <= k, facts)


@pytest.mark.parametrize("other", [Interval(), Interval(3), Interval(None, 3), Interval(None, -3)])
def test_product_with_an_empty_interval_ends(other):
    contradiction = Interval(5, -3)  # as facts give for a case that cannot be
    assert contradiction * other == other * contradiction == Interval()


def test_intervals_do_not_depend_on_what_was_asked_before():
    n, u, v = Var("n"), Var("u"), Var("v")
    facts = (n >= 0, n <= 64, u >= 0, u <= n, v <= u, v >= 0)
    expected = Interval(0, 64)
    for order in permutations((n, u, v)):
        known = Facts.of(facts)
        assert [interval(x, known) for x in order] == [expected] * 3
