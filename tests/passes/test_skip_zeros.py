"""Terms of sums that are zero by a condition are left out."""

from treadle.passes.skip_zeros import skip_zeros
from treadle.testing import assert_same_ir, ir


def function_of(text):
    return ir(text).tensor_functions[0]


GUARDED = """
    @tensor.function
    def f(X: Buffer[(9,), f32], W: Buffer[(3,), f32], Y: Buffer[(7,), f32], Z: Output[(7,), f32]):
        for i in range(7):
            Z[i] = f32(0.0)
            for k in range(3):
                Z[i] = Z[i] + {term}
"""


def test_a_term_that_is_zero_by_a_condition_is_added_under_that_condition():
    term = "select((i + k >= 1) & (i + k < 8), X[i + k] * W[k], f32(0.0))"
    assert_same_ir(
        skip_zeros(function_of(GUARDED.format(term=term))),
        function_of("""
            @tensor.function
            def f(
                X: Buffer[(9,), f32],
                W: Buffer[(3,), f32],
                Y: Buffer[(7,), f32],
                Z: Output[(7,), f32],
            ):
                for i in range(7):
                    Z[i] = f32(0.0)
                    for k in range(3):
                        if i + k >= 1:
                            if i + k < 8:
                                Z[i] = Z[i] + X[i + k] * W[k]
        """),
    )


def test_other_terms_stay():
    for term in (
        "X[i + k] * W[k]",
        "select(i + k >= 1, X[i + k], f32(1.0))",
        "select(Y[i] > f32(0.0), X[i + k] * W[k], f32(0.0))",
    ):
        function = function_of(GUARDED.format(term=term))
        assert skip_zeros(function) is function
