import pytest

from treadle.expr.dtype import i64
from treadle.expr.scalar import Const, Var
from treadle.expr.terms import divide, exact_quotient, from_poly, number, split_linear, to_poly

i, m, n = map(Var, "imn")


def test_normal_form_of_equal_sums_is_equal():
    assert to_poly(4 * n * (m + 1)) == to_poly(n * 4 + m * n * 4)
    assert to_poly((n + m) * (n - m)) == to_poly(n * n - m * m)


def test_terms_that_cancel_are_gone():
    assert not to_poly((n + m) - (m + n)).terms
    assert not to_poly((n - m) * 0).terms


def test_expression_of_a_normal_form_has_it():
    for x in (n - m, -n - m - 3, n * m * 4 - i + 7, Const(0, i64), -n, n * 2):
        assert to_poly(from_poly(to_poly(x))) == to_poly(x)


@pytest.mark.parametrize(
    ("x", "coefficient", "rest"),
    [
        (i * 4 + n, Const(4, i64), n),
        (i * n + i * 2 + 3, n + 2, Const(3, i64)),
        (n * 2, Const(0, i64), n * 2),
        ((n - i) * m, -m, m * n),
    ],
    ids=str,
)
def test_linear_expressions_split(x, coefficient, rest):
    assert split_linear(x, i) == (coefficient, rest)


@pytest.mark.parametrize("x", [i * i, i // 4, i + i % 3, n * (i // n)], ids=str)
def test_what_is_not_linear_does_not_split(x):
    assert split_linear(x, i) is None


@pytest.mark.parametrize("divisor", [Const(4, i64), n, n * 2, n + 1, n * m + m], ids=str)
@pytest.mark.parametrize(
    "x", [n * 4 + 7, n * m * 8 + m * 3, (n + 1) * i + m, n * m + m + 5], ids=str
)
def test_quotient_times_divisor_and_remainder_make_the_dividend(x, divisor):
    a, d = to_poly(x), to_poly(divisor)
    q, r = divide(a, d)
    assert q * d + r == a


def test_only_multiples_have_an_exact_quotient():
    assert exact_quotient(to_poly(n * m * 4), to_poly(n * 2)) == to_poly(m * 2)
    assert exact_quotient(to_poly(n + 1), to_poly(n)) is None
    assert exact_quotient(number(12), number(4)) == number(3)
