import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle_runtime.dims import evaluate, variables
from treadle_runtime.errors import RuntimeFault

NAMES = ("n", "m", "seq_len")
ENVIRONMENT = st.fixed_dictionaries({name: st.integers(-50, 10**6) for name in NAMES})


def texts():
    leaves = st.one_of(st.integers(0, 100).map(str), st.sampled_from(NAMES))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({' '.join(t)})"),
            st.tuples(inner, st.sampled_from(["//", "%"]), st.integers(1, 9)).map(
                lambda t: f"({t[0]} {t[1]} {t[2]})"
            ),
            st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(
                lambda t: f"{t[0]}({t[1]}, {t[2]})"
            ),
            inner.map(lambda t: f"(-{t})"),
        ),
        max_leaves=8,
    )


@given(text=texts(), environment=ENVIRONMENT)
def test_the_value_is_that_of_python(text, environment):
    assert evaluate(text, environment) == eval(text, {}, environment)
    assert variables(text) <= set(NAMES)


@pytest.mark.parametrize(
    ("text", "value"),
    [("2*n + 1", 15), ("(n + 3) // 4", 2), ("ceildiv(n, 4)", 2), ("-n // 2", -4), (12, 12),
     (" n ", 7), ("n % 4", 3), ("1" + "0" * 30, 10**30)],
)  # fmt: skip
def test_examples(text, value):
    assert evaluate(text, {"n": 7}) == value


@pytest.mark.parametrize(
    "text",
    ["", "n +", "k", "n // 0", "n % 0", "n / 2", "2 ** 99999999", "n.real", "n[0]", "f(n)",
     "min()", "min(n)", "ceildiv(1, 2, 3)", "min(n, key=n)", "True", "'a' * 9", "1.5", "n < 3",
     "__import__('os')", "(lambda: 1)()", "[n]", "\0", "n\nm", "(" * 500 + "n" + ")" * 500,
     "-" * 5000 + "n", "+".join(["n"] * 30000)],
)  # fmt: skip
def test_everything_else_is_refused(text):
    with pytest.raises(RuntimeFault, match="E0721"):
        evaluate(text, {"n": 7})
