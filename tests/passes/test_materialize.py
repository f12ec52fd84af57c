"""Scalars that the host must have in memory get some."""

import numpy as np

import treadle
from treadle.passes.materialize import materialize
from treadle.testing import assert_same_ir, ir


def test_scalar_operands_and_results_of_functions_become_values_shared_by_equal_ones():
    before = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32], c: Tensor[(), bool]) -> (Tensor[(), i64], Tensor[(), i64]):
        a = cond(c, i64(1), literal(n + 1), then=first, orelse=second, out=(Tensor[(), i64],))
        b = cond(c, i64(1), a, then=first, orelse=second, out=(Tensor[(), i64],))
        s = add(a, i64(1))
        return b, s

    @graph.function
    def first(p: Tensor[(), i64], q: Tensor[(), i64]) -> (Tensor[(), i64],):
        return i64(7)

    @graph.function
    def second(p: Tensor[(), i64], q: Tensor[(), i64]) -> (Tensor[(), i64],):
        return q
    """)
    after = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32], c: Tensor[(), bool]) -> (Tensor[(), i64], Tensor[(), i64]):
        scalar = expand(i64(1), shape=())
        scalar_1 = expand(literal(n + 1), shape=())
        a = cond(c, scalar, scalar_1, then=first, orelse=second, out=(Tensor[(), i64],))
        b = cond(c, scalar, a, then=first, orelse=second, out=(Tensor[(), i64],))
        s = add(a, i64(1))
        return b, s

    @graph.function
    def first(p: Tensor[(), i64], q: Tensor[(), i64]) -> (Tensor[(), i64],):
        scalar = expand(i64(7), shape=())
        return scalar

    @graph.function
    def second(p: Tensor[(), i64], q: Tensor[(), i64]) -> (Tensor[(), i64],):
        return q
    """)
    assert_same_ir(materialize(before), after)


def test_a_function_whose_operands_have_memory_stays_as_it_is():
    module = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
        y = add(x, f32(1.0))
        return y
    """)
    assert materialize(module).graph("main") is module.graph("main")


def test_a_library_function_takes_numbers():
    module = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
        y = call_library(scaled, x, f32(3.0), literal(n + 1), out=(Tensor[(n,), f32],))
        return y
    """)

    def scaled(x, factor, size):
        assert size == len(x) + 1
        return x * factor

    exe = treadle.compile(module, threads=1, libraries={"scaled": scaled})
    np.testing.assert_array_equal(exe(np.ones(4, np.float32)), np.full(4, 3.0, np.float32))
