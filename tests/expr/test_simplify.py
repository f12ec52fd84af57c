import pytest

from treadle.expr.bounds import Facts
from treadle.expr.dtype import boolean, f16, f32, f64, i8, i32, i64, u8
from treadle.expr.facts import EMPTY
from treadle.expr.scalar import (
    Const,
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
from treadle.expr.simplify import simplify, simplify_all

b, c, f, h, i, j, k, m, n, w, x, y = map(Var, "b c f h i j k m n w x y".split())
i0, i1 = Var("i0"), Var("i1")
a32, b32 = Var("a", f32), Var("b", f32)
nonnegative = Facts.of([n >= 0, m >= 0])
flat = ((b * 64 + c) * m + h) * k + w
image = Facts.of([], {b: n, c: 64, h: m, w: k})
fused = Facts.of([n >= 0, m >= 0, k >= 0], {f: n * m * k})
lanes = i64.vector(4)


def ramp(base, stride):
    return apply("ramp", base, stride, dtype=lanes)


def spread(value):
    return apply("broadcast", value, dtype=lanes)


SPLIT_AND_FUSED = [
    ((i0 * 4 + i1) // 4, Facts.of(ranges={i1: 4}), i0),
    ((i0 * 4 + i1) % 4, Facts.of(ranges={i1: 4}), i1),
    ((i0 * 6 + i1) // 2, Facts.of(ranges={i1: 6}), i0 * 3 + i1 // 2),
    (f // n * n + f % n, EMPTY, f),
    (f // (m + 1) * (m + 1) + f % (m + 1), EMPTY, f),
    (x // 12 * 12 + (x % 12) // 4 * 4 + x % 4, EMPTY, x),
    ((i * n + j) // n, Facts.of(ranges={i: m, j: n}), i),
    ((i * n + j) % n, Facts.of(ranges={i: m, j: n}), j),
    ((i * (m + 1) + j) // (m + 1), Facts.of(ranges={j: m + 1}), i),
    ((i * (m + 1) + j) % (m + 1), Facts.of(ranges={j: m + 1}), j),
    ((i * n + j) // (n * 2), Facts.of(ranges={j: n}), i // 2),
    (flat // (m * k * 64), image, b),
    (flat // (m * k) % 64, image, c),
    (flat // k % m, image, h),
    (flat % (m * k) // k, image, h),
    (flat % k, image, w),
    (flat // k // m, image, b * 64 + c),
    (f // (m * k) * (m * k) + f % (m * k) // k * k + f % k, fused, f),
    (f // k // m * m * k + f // k % m * k + f % k, fused, f),
    (minimum(16, n - i0 * 16), Facts.of(ranges={i0: n // 16}), Const(16, i64)),
    (minimum(i0 * 16 + 16, n) - i0 * 16, Facts.of(ranges={i0: n // 16}), Const(16, i64)),
    (ceildiv(ceildiv(n, 4), 6), EMPTY, ceildiv(n, 24)),
]

DIVISION = [
    ((x * 12 + y) // 4, EMPTY, x * 3 + y // 4),
    (x // 4 // 3, EMPTY, x // 12),
    (x % 12 % 4, EMPTY, x % 4),
    ((x % 12) // 4, EMPTY, x // 4 % 3),
    ((x + 7) // 4, EMPTY, (x + 3) // 4 + 1),
    (x * 4 % 12, EMPTY, x % 3 * 4),
    (x * n // n, EMPTY, x),
    (x * n // (n * 4), EMPTY, x // 4),
    (n * (m + 1) // (m + 1), EMPTY, n),
    (x // 1 + x % 1, EMPTY, x),
    (x // -4, EMPTY, -x // 4),
    ((i * 4 + j) // 8, Facts.of(ranges={j: 4}), i // 2),
    ((i * 4 + j) % 8, Facts.of(ranges={j: 4}), i % 2 * 4 + j),
    (i % n, Facts.of(ranges={i: n}), i),
    ((i + n) % n, Facts.of(ranges={i: n}), i),
    ((i - n) // n, Facts.of(ranges={i: n}), Const(-1, i64)),
    (apply("truncdiv", i, 4), Facts.of(ranges={i: n}), i // 4),
    (apply("truncmod", i, 4), Facts.of(ranges={i: n}), i % 4),
    (n // 4 * 4, Facts.of([eq(n % 4, 0)]), n),
    ((n + 3) // 4, Facts.of([eq(n % 4, 0)]), n // 4),
    (n * 3 % 8, Facts.of([eq(n % 8, 0)]), Const(0, i64)),
    (n // 4 % 2, Facts.of([eq(n % 8, 0)]), Const(0, i64)),
    ((n + m) % 4, Facts.of([eq((n + m) % 4, 1)]), Const(1, i64)),
]

SUMS = [
    (4 * n * (m + 1) - 4 * n * m, EMPTY, n * 4),
    ((n + 1) * (n - 1), EMPTY, n * n - 1),
    (n * 64 * 4, EMPTY, n * 256),
    (-(x - y), EMPTY, y - x),
    (minimum(x, x + 4), EMPTY, x),
    (maximum(maximum(n * 4, n * 8), n * 2), nonnegative, n * 8),
    (minimum(i, n - 1), Facts.of(ranges={i: n}), i),
    (minimum(maximum(i, 0), n - 1), Facts.of(ranges={i: n}), i),
    (minimum(maximum(i - 1, 0), n - 1), Facts.of(ranges={i: n}), maximum(i - 1, 0)),
    (minimum(minimum(x, 8), 4), EMPTY, minimum(x, 4)),
    (apply("abs", i), Facts.of(ranges={i: n}), i),
    (i + j, Facts.of(ranges={i: 1, j: n}), j),
]

CLAIMS = [
    (i + 3 < 10, EMPTY, i < 7),
    (x + y - 3 < x + n, EMPTY, y < n + 3),
    (x * 4 + 8 < y * 4, EMPTY, x + 2 < y),
    (n > 0, EMPTY, n >= 1),
    (x <= y, EMPTY, x <= y),
    (y > x - 1, EMPTY, x <= y),
    (eq(n * 4, m * 4), EMPTY, eq(m, n)),
    (eq(n * 4, m * 4 + 2), EMPTY, Const(False, boolean)),
    (ne(i, n), Facts.of(ranges={i: n}), Const(True, boolean)),
    ((x < y) & (x < y), EMPTY, x < y),
    ((i < 8) & (i < 4), EMPTY, i < 4),
    ((i < 8) | (i < 4), EMPTY, i < 8),
    ((i >= 8) & (i < 4), EMPTY, Const(False, boolean)),
    ((i >= 4) | (i < 8), EMPTY, Const(True, boolean)),
    ((i >= 0) & (i + 2 < n + 2), Facts.of(ranges={i: n}), Const(True, boolean)),
    (~(x < y), EMPTY, y <= x),
    (~((x < y) & Var("p", boolean)), EMPTY, ~Var("p", boolean) | (y <= x)),
    (Var("p", boolean) & True, EMPTY, Var("p", boolean)),
    (Var("p", boolean) | Var("q", boolean), Facts.of([Var("p", boolean)]), Const(True, boolean)),
    (select(i < n, a32, b32), Facts.of(ranges={i: n}), a32),
    (select(i < n, select(i < n, a32, b32), b32), EMPTY, select(i < n, a32, b32)),
    (select(x < y, True, False), EMPTY, x < y),
]

NARROW = [
    (Var("q", i32) * 4 + Var("q", i32) * 0, EMPTY, Var("q", i32) * 4),
    (cast(cast(Var("a", f16), f32), f16), EMPTY, Var("a", f16)),
    (cast(cast(Var("q", u8), i32), i64), EMPTY, cast(Var("q", u8), i64)),
    (cast(cast(Var("q", i64), i32), i8), EMPTY, cast(Var("q", i64), i8)),
    (a32 * 1.0, EMPTY, a32),
    (a32 - 0.0, EMPTY, a32),
    (a32 / 4.0, EMPTY, a32 * 0.25),
    (a32 * -1.0, EMPTY, -a32),
]

KEPT = [
    a32 + 0.0,
    a32 * 0.0,
    a32 - a32,
    a32 + b32 - b32,
    (a32 * 3.0) * 5.0,
    a32 / 3.0,
    eq(a32, a32),
    maximum(a32, minimum(a32, b32)),
    cast(cast(a32, f16), f32),
    cast(cast(Var("q", i32), f32), i32),
    cast(cast(Var("d", f64), f32), f16),
    cast(cast(Var("q", i32), u8), i32),
    Var("q", u8) * 2 // 2,
    (Var("q", i8) + 1) > Var("q", i8),
    x // 4 * 4,
    x % 4,
    (x + y) // 4,
    ceildiv(n, 6) * 6,
    n // m,
    x // n // m,
]

VECTORS = [
    (ramp(x * 1, 1) + spread(y), EMPTY, ramp(x + y, 1)),
    (ramp(x, 1) * spread(y), EMPTY, ramp(x * y, y)),
    (ramp(x, 2) * 3 + 5, EMPTY, ramp(x * 3 + 5, 6)),
    (ramp(x, 1) - ramp(y, 1), EMPTY, spread(x - y)),
    (spread(x) * spread(y) + 0, EMPTY, spread(x * y)),
    (spread(Const(3, i64)), EMPTY, Const(3, lanes)),
]


@pytest.mark.parametrize(
    ("before", "facts", "after"),
    SPLIT_AND_FUSED + DIVISION + SUMS + CLAIMS + NARROW + VECTORS,
    ids=lambda v: str(v) if isinstance(v, Expr) else "",
)
def test_simplify_finds_the_short_form(before, facts, after):
    # Both sides are written in the normal form; ``facts`` decide only the left.
    assert simplify(before, facts) is simplify(after)


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_simplify_keeps_what_has_no_exact_short_form(kept):
    assert simplify(kept) is kept


def test_equal_sums_become_the_same_object():
    assert simplify((x + y) * 2 + n) is simplify(n + y * 2 + 2 * x)


def test_simplify_all_treats_each_expression():
    assert simplify_all((i % n, 3, n - n), Facts.of(ranges={i: n})) == (
        i,
        Const(3, i64),
        Const(0, i64),
    )


def test_long_sums_are_simplified_without_recursion():
    total = x
    for _ in range(5000):
        total = total + y
    assert simplify(total) is simplify(x + y * 5000)


def test_long_float_expressions_are_simplified_without_recursion():
    total = a32 * 1.0
    for _ in range(5000):
        total = total + b32
    expected = a32
    for _ in range(5000):
        expected = expected + b32
    assert simplify(total) is expected
