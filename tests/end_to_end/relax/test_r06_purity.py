"""Pure computations are dropped, shared and moved freely; calls that say they are not pure, and
tests, are not (Relax, arXiv 2311.02103, §3.1).
"""

import numpy as np
import pytest

import treadle
from treadle.base.errors import RuntimeFault
from treadle.ir.calls import AssertTrue, CallLibrary
from treadle.ir.effects import Effect, effects
from treadle.passes.canonicalize import canonicalize
from treadle.testing import ir

LOGGED = """
@graph.function
def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    a = call_library(log, x, out=(Tensor[(n,), f32],), pure={pure})
    y = neg(x)
    b = call_library(log, y, out=(Tensor[(n,), f32],), pure={pure})
    c = call_library(log, x, out=(Tensor[(n,), f32],), pure={pure})
    z = relu(x)
    return z
"""
X = np.array([1.0, -2.0], np.float32)


def logged(text: str) -> list[float]:
    seen: list[float] = []

    def log(x):
        seen.append(float(x[0]))
        return x

    treadle.compile(ir(text), threads=1, libraries={"log": log})(X)
    return seen


def test_pure_calls_nobody_needs_do_not_run():
    assert logged(LOGGED.format(pure=True)) == []


def test_impure_calls_run_as_often_and_in_the_order_in_which_they_are_written():
    assert logged(LOGGED.format(pure=False)) == [1.0, -1.0, 1.0]


def test_equal_pure_calls_are_one_and_equal_impure_ones_are_two():
    text = """
@graph.function
def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    a = call_library(log, x, out=(Tensor[(n,), f32],), pure={pure})
    b = call_library(log, x, out=(Tensor[(n,), f32],), pure={pure})
    c = add(a, b)
    return c
"""
    assert logged(text.format(pure=True)) == [1.0]
    assert logged(text.format(pure=False)) == [1.0, 1.0]


BRANCHES = """
@graph.function
def noted(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    a = call_library(log, x, out=(Tensor[(n,), f32],), pure=False)
    return x

@graph.function
def quiet(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    y = neg(x)
    return y

@graph.function
def main(c: Tensor[(), bool], x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    unused = cond(c, x, then=noted, orelse=quiet)
    again = cond(c, x, then=noted, orelse=quiet)
    z = relu(x)
    return z
"""


def test_a_branch_with_an_impure_call_runs_though_its_result_is_not_used():
    seen: list[float] = []

    def log(x):
        seen.append(float(x[0]))
        return x

    exe = treadle.compile(ir(BRANCHES), threads=1, libraries={"log": log})
    exe(np.array(True), X)
    assert seen == [1.0, 1.0]
    exe(np.array(False), X)
    assert seen == [1.0, 1.0]


def test_the_effect_of_a_function_is_the_largest_of_what_it_calls():
    found = effects(ir(BRANCHES))
    assert found == {"noted": Effect.IMPURE, "quiet": Effect.PURE, "main": Effect.IMPURE}


def test_a_test_stays_though_its_result_is_not_used():
    text = """
@graph.function
def main(x: Tensor[(), f32]) -> (Tensor[(), f32],):
    ok = greater(x, f32(0.0))
    held = assert_true(ok, message="x is positive")
    same = assert_true(ok, message="x is positive")
    y = neg(x)
    return y
"""
    module = canonicalize(ir(text))
    assert sum(isinstance(b.op, AssertTrue) for b in module.graph("main").body) == 1
    exe = treadle.compile(ir(text), threads=1)
    assert exe(np.float32(2.0)) == -2.0
    with pytest.raises(RuntimeFault, match="x is positive"):
        exe(np.float32(-1.0))


def test_dead_and_equal_pure_operations_go():
    module = canonicalize(
        ir("""
@graph.function
def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    a = exp(x)
    b = exp(x)
    dead = call_library(slow, x, out=(Tensor[(n,), f32],))
    c = add(a, b)
    return c
""")
    )
    body = module.graph("main").body
    assert [b.op.op_name() for b in body] == ["exp", "add"]
    assert not any(isinstance(b.op, CallLibrary) for b in body)
