"""Whatever is simplified, bounded or proved is so for every value that the facts allow."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.expr.bounds import Facts, divisible, interval, prove
from treadle.expr.dtype import DTYPES, boolean, f32, i8, i64, u8
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import (
    Apply,
    Const,
    Expr,
    Var,
    apply,
    cast,
    eq,
    maximum,
    minimum,
    ne,
    select,
    walk,
)
from treadle.expr.simplify import simplify

N, M = Var("n"), Var("m")
L, J, K = Var("i"), Var("j"), Var("k")
SYMBOLS = (N, M, L, J, K)
ORDER = ("lt", "le", "gt", "ge")
SAMPLES = 400


def index(source: Random, depth: int) -> Expr:
    """A random integer expression such as index arithmetic is made of."""
    if depth == 0 or source.random() < 0.15:
        leaf = source.choice((*SYMBOLS, *SYMBOLS, Const(source.randint(-6, 13), i64)))
        return leaf
    kind = source.choice(
        "add add sub mul scale scale div div mod mod symbolic min max neg abs select truncdiv"
        " truncmod".split()
    )
    a, b = index(source, depth - 1), index(source, depth - 1)
    size = source.choice((1, 2, 3, 4, 6, 8, 12, -4))
    if kind in ("add", "sub", "min", "max"):
        return apply(kind, a, b)
    if kind == "mul":
        return source.choice((N, M)) * b
    if kind == "scale":
        return a * size
    if kind in ("div", "truncdiv"):
        return a // size if kind == "div" else apply("truncdiv", a, size)
    if kind in ("mod", "truncmod"):
        return a % size if kind == "mod" else apply("truncmod", a, size)
    if kind == "symbolic":
        d = source.choice((N, M, N * 4, N * M, M + 1, a))
        return b // d if source.random() < 0.5 else b % d
    if kind == "select":
        return select(claim(source, 1), a, b)
    return apply(kind, a)


def claim(source: Random, depth: int) -> Expr:
    """A random claim about integers."""
    kind = source.choice(("order", "order", "order", "eq", "ne", "and", "or", "not"))
    if kind == "order" or depth == 0:
        return apply(source.choice(ORDER), index(source, depth), index(source, depth))
    if kind in ("eq", "ne"):
        return apply(kind, index(source, depth), index(source, depth))
    if kind == "not":
        return ~claim(source, depth - 1)
    return apply(kind, claim(source, depth - 1), claim(source, depth - 1))


def random_facts(source: Random) -> Facts:
    claims: list[Expr] = []
    for _ in range(source.randint(0, 2)):
        size = source.choice((2, 3, 4, 8))
        claims.append(
            source.choice(
                (
                    N >= source.randint(0, 3),
                    N <= M * source.randint(1, 3),
                    eq(N % size, source.randint(0, 1)),
                    eq(M % size, 0),
                    M >= 1,
                    M < source.randint(1, 20),
                    L * size + J < N,
                    claim(source, 1),
                )
            )
        )
    extents = (N, M, N // 4, (N + 5) // 6, minimum(N, 6), Const(source.randint(1, 9), i64), N * M)
    variables = source.sample((L, J, K), source.randint(0, 3))
    return Facts.of(claims, {v: source.choice(extents) for v in variables})


def sample(facts: Facts, exprs: tuple[Expr, ...], source: Random) -> dict[Var, np.ndarray]:
    """Values under which the facts hold and no divisor of ``exprs`` is zero."""
    rng = np.random.default_rng(source.randrange(1 << 30))
    env = {v: rng.integers(-7, 14, SAMPLES) for v in SYMBOLS}
    for var, extent in facts.ranges:
        size = evaluate(extent, env)
        env[var] = rng.integers(0, np.maximum(size, 1), SAMPLES)
    keep = np.ones(SAMPLES, bool)
    for var, extent in facts.ranges:
        keep &= (env[var] >= 0) & (env[var] < evaluate(extent, env))
    for fact in facts.claims:
        keep &= evaluate(fact, env)
    for e in walk(*exprs, *facts.claims):
        if isinstance(e, Apply) and e.fn in ("floordiv", "mod", "truncdiv", "truncmod"):
            keep &= evaluate(e.args[1], env) != 0
    return {v: values[keep] for v, values in env.items()}


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_simplify_keeps_the_value_of_integers(source):
    facts, x = random_facts(source), index(source, 4)
    env = sample(facts, (x,), source)
    np.testing.assert_array_equal(
        np.broadcast_to(evaluate(simplify(x, facts), env), env[N].shape),
        evaluate(x, env) + 0 * env[N],
    )


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_simplify_keeps_the_truth_of_claims(source):
    facts, x = random_facts(source), claim(source, 3)
    env = sample(facts, (x,), source)
    np.testing.assert_array_equal(
        evaluate(simplify(x, facts), env) | (env[N] != env[N]),
        evaluate(x, env) | (env[N] != env[N]),
    )


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_interval_holds_every_value(source):
    facts, x = random_facts(source), index(source, 3)
    env = sample(facts, (x,), source)
    bounds = interval(x, facts)
    values = np.asarray(evaluate(x, env)) + 0 * env[N]
    assert all(int(v) in bounds for v in values)


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_what_is_proved_is_true(source):
    facts, x = random_facts(source), claim(source, 2)
    env = sample(facts, (x,), source)
    for statement in (x, ~x):
        if prove(statement, facts):
            assert np.all(evaluate(statement, env) | (env[N] != env[N]))


@given(st.randoms(use_true_random=False), st.sampled_from((2, 3, 4, 8, 16)))
@settings(max_examples=60, deadline=None)
def test_what_is_divisible_leaves_no_remainder(source, k):
    facts, x = random_facts(source), index(source, 2) * source.choice((1, k))
    env = sample(facts, (x,), source)
    if divisible(x, k, facts):
        assert not np.any(evaluate(x, env) % k)


@given(st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_simplify_of_what_is_simple_changes_nothing(source):
    x = simplify(index(source, 3))
    assert simplify(x) is x


def narrow(source: Random, dtype, depth: int) -> Expr:
    """A random expression of a type that wraps around or rounds."""
    if depth == 0:
        special = (0.0, -0.0, 1.0, -1.0, 2.0) if dtype.is_float else (0, 1, -1, 2, 7, 100)
        return source.choice(
            (Var("x", dtype), Var("y", dtype), Const(source.choice(special), dtype))
        )
    a, b = narrow(source, dtype, depth - 1), narrow(source, dtype, depth - 1)
    kind = source.choice(
        ("add", "sub", "mul", "min", "max", "neg", "abs", "select", "cast", "extra")
    )
    if kind == "select":
        relation = source.choice(("lt", "le", "eq", "ne", "gt", "ge"))
        return select(apply(relation, b, narrow(source, dtype, 0)), a, b)
    if kind == "cast":
        middle = source.choice(
            [t for t in DTYPES if t.is_float == dtype.is_float and not t.is_bool]
        )
        return cast(cast(a, middle), dtype)
    if kind == "extra":
        if dtype.is_float:
            return apply(source.choice(("floor", "trunc", "sqrt")), a)
        return apply(source.choice(("and", "or", "xor")), a, b)
    return apply(kind, a) if kind in ("neg", "abs") else apply(kind, a, b)


@pytest.mark.parametrize("dtype", [u8, i8, f32], ids=str)
@given(source=st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_simplify_keeps_every_bit_of_narrow_integers_and_floats(dtype, source):
    x = narrow(source, dtype, 3)
    rng = np.random.default_rng(source.randrange(1 << 30))
    if dtype.is_float:
        pool = np.array([0.0, -0.0, 1, -1, 0.5, np.inf, -np.inf, np.nan, 3.7, 1e30], np.float32)
        env = {Var(v, dtype): rng.choice(pool, 50) for v in "xy"}
    else:
        low, high = (0, 256) if dtype is u8 else (-128, 128)
        env = {Var(v, dtype): rng.integers(low, high, 50).astype(dtype.numpy) for v in "xy"}
    before, after = evaluate(x, env), evaluate(simplify(x), env)
    zeros = np.zeros(50, dtype.numpy)
    before, after = np.broadcast_arrays(before, zeros)[0], np.broadcast_arrays(after, zeros)[0]
    np.testing.assert_array_equal(after, before)
    if dtype.is_float:
        number = ~np.isnan(before)
        np.testing.assert_array_equal(np.signbit(after[number]), np.signbit(before[number]))


def lanes(source: Random, depth: int) -> Expr:
    t = i64.vector(4)
    if depth == 0:
        if source.random() < 0.5:
            return apply("ramp", index(source, 1), source.choice((Const(1, i64), N)), dtype=t)
        return apply("broadcast", index(source, 1), dtype=t)
    a, b = lanes(source, depth - 1), lanes(source, depth - 1)
    return source.choice((a + b, a - b, a * b, minimum(a, b), maximum(a, b), a + 3, a * 1))


@given(st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_simplify_keeps_every_lane(source):
    facts, x = random_facts(source), lanes(source, 2)
    x = source.choice((x, apply("reduce_add", x, dtype=i64), select(ne(x, x), x, x * 2)))
    env = sample(facts, (x,), source)
    before, after = evaluate(x, env), evaluate(simplify(x, facts), env)
    assert simplify(x, facts).dtype is x.dtype
    if len(env[N]):
        np.testing.assert_array_equal(*np.broadcast_arrays(after, before))


def test_truth_vectors_simplify_lane_by_lane():
    t = i64.vector(4)
    ramp = apply("ramp", L, Const(1, i64), dtype=t)
    x = (ramp < 3) & Const(True, boolean.vector(4))
    assert simplify(x) is (ramp < Const(3, t))
