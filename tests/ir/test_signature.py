"""Symbols are found from dimensions, and what is found or claimed is true of the dimensions."""

from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.expr.dtype import f32
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import Expr, Var
from treadle.ir.signature import Fit, match, solve
from treadle.ir.types import tensor

A, B, C = Var("a"), Var("b"), Var("c")
FORMS = (
    A, B, C, A * 2, B * 3 + 1, A + B, A + 5, A * B, B * C + A, A * 2 + B * 4, (A + 3) // 4, A % 2,
)  # fmt: skip
TYPE = f32
RAW = [Var(f"d{k}") for k in range(5)]


def value(x: Expr, values: dict[Var, int]) -> int:
    return int(evaluate(x, values))


@given(
    st.lists(st.sampled_from(FORMS), min_size=1, max_size=5),
    st.tuples(*[st.integers(1, 9)] * 3),
)
@settings(deadline=None)
def test_what_is_solved_gives_back_the_symbols(dims, sizes):
    """Dimensions computed from symbols: each symbol that is found is the one they came from."""
    symbols = dict(zip((A, B, C), sizes, strict=True))
    raw = {d: value(x, symbols) for d, x in zip(RAW, dims, strict=False)}
    found = solve(list(zip(dims, RAW, strict=False)))
    assert all(value(c, symbols) for c in found.conditions)
    for v, x in found.values.items():
        assert value(x, raw) == symbols[v]


@given(
    st.lists(st.sampled_from(FORMS), min_size=1, max_size=4),
    st.lists(st.integers(0, 12), min_size=4, max_size=4),
)
@settings(deadline=None)
def test_claims_hold_exactly_where_the_dimensions_fit(dims, actual):
    """Any sizes: where all claims hold, the symbols found make the dimensions what they are."""
    raw = dict(zip(RAW, actual, strict=False))
    found = match((tensor(RAW[: len(dims)], TYPE),), (tensor(dims, TYPE),))
    if found.open:
        assert found.fit <= Fit.CHECKED
        return
    symbols = {v: value(x, raw) for v, x in found.symbols.items()}
    holds = all(value(c, raw) for c in found.claims)
    fits = all(value(x, symbols) == size for x, size in zip(dims, actual, strict=False))
    if holds:
        assert fits
        assert all(size >= 0 for size in symbols.values())
