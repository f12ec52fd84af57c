"""Conditions leave the loops that do not decide them."""

from treadle.passes.hoist_conditions import hoist_conditions
from treadle.testing import assert_same_ir, ir


def function_of(text):
    return ir(text).tensor_functions[0]


def test_a_condition_goes_around_the_loops_that_do_not_decide_it():
    assert_same_ir(
        hoist_conditions(
            function_of("""
                @tensor.function
                def f(X: Buffer[(n, 4), f32], Y: Output[(n, 4), f32]):
                    for k in range(2):
                        for i in range(n):
                            for j in unrolled(4):
                                if k == 1:
                                    if i < 3:
                                        Y[i, j] = X[i, j]
            """)
        ),
        function_of("""
            @tensor.function
            def f(X: Buffer[(n, 4), f32], Y: Output[(n, 4), f32]):
                for k in range(2):
                    if k == 1:
                        for i in range(n):
                            if i < 3:
                                for j in unrolled(4):
                                    Y[i, j] = X[i, j]
        """),
    )


def test_two_conditions_of_which_one_holds_become_branches():
    assert_same_ir(
        hoist_conditions(
            function_of("""
                @tensor.function
                def f(X: Buffer[(4,), f32], Y: Output[(4,), f32]):
                    for k in range(3):
                        for i in range(4):
                            if k == 0:
                                Y[i] = f32(0.0)
                        for j in range(4):
                            if k != 0:
                                Y[j] = Y[j] + X[j]
            """)
        ),
        function_of("""
            @tensor.function
            def f(X: Buffer[(4,), f32], Y: Output[(4,), f32]):
                for k in range(3):
                    if k == 0:
                        for i in range(4):
                            Y[i] = f32(0.0)
                    else:
                        for j in range(4):
                            Y[j] = Y[j] + X[j]
        """),
    )


def test_what_statements_can_change_stays_where_it_is():
    text = """
        @tensor.function
        def f(X: Buffer[(4,), i64], Y: Output[(4,), i64]):
            for i in range(4):
                if Y[0] < 3:
                    Y[0] = X[i]
            if Y[0] < 3:
                Y[1] = X[1]
            if Y[0] >= 3:
                Y[2] = X[2]
    """
    assert_same_ir(hoist_conditions(function_of(text)), function_of(text))


def test_conditions_beside_other_statements_stay():
    text = """
        @tensor.function
        def f(X: Buffer[(4,), f32], Y: Output[(4,), f32]):
            for k in range(2):
                for i in range(4):
                    if k == 0:
                        Y[i] = X[i]
                    Y[i] = Y[i] + X[i]
    """
    assert_same_ir(hoist_conditions(function_of(text)), function_of(text))


def test_a_division_by_what_may_be_zero_stays_in_the_loop_that_then_never_runs():
    text = """
        @tensor.function
        def f(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
            for k in range(7):
                for i in range(n):
                    if k % n == 0:
                        Y[i] = X[i]
    """
    assert_same_ir(hoist_conditions(function_of(text)), function_of(text))
