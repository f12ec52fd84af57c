"""The interpreter of graph functions: references, calls, symbols and control flow."""

import numpy as np
import pytest
from hypothesis import given, settings

from treadle.base.errors import InternalError, RuntimeFault
from treadle.ir.interpret import run
from treadle.testing import ir, modules, random_inputs

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@given(modules())
@settings(deadline=None, max_examples=50)
def test_a_generated_module_runs_and_its_results_have_their_types(module):
    main = module.graph("main")
    results = run(module, "main", *random_inputs(main, seed=1))
    for array, atom in zip(results, main.results, strict=True):
        assert array.ndim == atom.type.ndim
        assert array.dtype == atom.type.dtype.numpy


def test_operations_constants_and_literals():
    module = ir("""
        w = constant(Tensor[(3,), f32], [1.0, 2.0, 3.0])

        @graph.function
        def main(x: Tensor[(n, 3), f32]):
            a = mul(x, constants.w)
            b = add(a, f32(0.5))
            c = cast(literal(n + 1), dtype=f32)
            d = mul(b, c)
            return d, constants.w, True
    """)
    y, w, flag = run(module, "main", X)
    np.testing.assert_array_equal(y, (X * [1, 2, 3] + 0.5) * 3)
    np.testing.assert_array_equal(w, [1, 2, 3])
    assert flag == np.True_


CALLEES = """
    @tensor.function
    def scale(A: Buffer[(p, q), f32], B: Output[(p, q), f32], by: f32):
        for i in range(p):
            for j in range(q):
                with block("B"):
                    vi = spatial(p, i)
                    vj = spatial(q, j)
                    B[vi, vj] = A[vi, vj] * by

    @tensor.function
    def iota(Y: Output[(p,), f32]):
        for i in range(p):
            with block("Y"):
                v = spatial(p, i)
                Y[v] = cast(v, f32)

    @graph.function
    def twice(a: Tensor[(m, k), f32]):
        b = add(a, a)
        return b

    @graph.function
    def same(a: Tensor[(m, k), f32]):
        return a
"""


def test_calls_of_both_kinds_of_function():
    module = ir(
        CALLEES
        + """
    @graph.function
    def main(x: Tensor[(n, 3), f32]):
        a = call(twice, x, out=(Tensor[(n, 3), f32],))
        b = call_tensor(scale, a, out=(Tensor[(n, 3), f32],), symbols=(f32(0.5),))
        c = call_tensor(iota, out=(Tensor[(n + 1,), f32],))
        d = call_library(shift, b, out=(Tensor[(n, 3), f32],))
        return b, c, d
    """
    )
    b, c, d = run(module, "main", X, libraries={"shift": lambda x: x + 1})
    np.testing.assert_array_equal(b, X)
    np.testing.assert_array_equal(c, [0, 1, 2])
    np.testing.assert_array_equal(d, X + 1)
    with pytest.raises(RuntimeFault) as caught:
        run(module, "main", X)
    assert caught.value.code == "E0766"
    (direct,) = run(module, "twice", X)
    np.testing.assert_array_equal(direct, X + X)


def test_branches_and_loops():
    module = ir(
        CALLEES
        + """
    @graph.function
    def small(a: Tensor[(m, k), f32], limit: Tensor[(), f32]):
        t = max(a, axes=(0, 1))
        c = less(t, limit)
        return c

    @graph.function
    def double(a: Tensor[(m, k), f32], limit: Tensor[(), f32]):
        b = add(a, a)
        return b

    @graph.function
    def main(x: Tensor[(n, 3), f32], flag: Tensor[(), bool]):
        a = cond(flag, x, then=twice, orelse=same, out=(Tensor[(n, 3), f32],))
        b = while_loop(
            a, f32(100.0), condition=small, body=double, carried=1, out=(Tensor[(n, 3), f32],)
        )
        return a, b
    """
    )
    a, b = run(module, "main", X, np.array(True))
    np.testing.assert_array_equal(a, 2 * X)
    np.testing.assert_array_equal(b, 32 * X)
    a, b = run(module, "main", X, np.array(False))
    np.testing.assert_array_equal(a, X)
    np.testing.assert_array_equal(b, 32 * X)


def test_match_cast_binds_symbols_and_checks_the_rest():
    module = ir("""
        @graph.function
        def main(x: Tensor[ndim(2), f32], s: Shape[(p,)]):
            assume(p >= 1)
            y = match_cast(x, type=Tensor[(p, m), f32])
            z = sum(y, axes=(0,))
            w = add(z, z)
            return w, literal(m), shape(m, p)
    """)
    w, m, shape = run(module, "main", X, np.array([2]))
    np.testing.assert_array_equal(w, 2 * X.sum(0))
    assert m == 3
    np.testing.assert_array_equal(shape, [3, 2])
    with pytest.raises(RuntimeFault) as caught:
        run(module, "main", X, np.array([4]))
    assert caught.value.code == "E0762"
    with pytest.raises(RuntimeFault) as caught:
        run(module, "main", X, np.array([0]))
    assert caught.value.code == "E0765"


@pytest.mark.parametrize(
    "arrays", [(), (X, X), (X.astype(np.float64),), (X[0],), (X.T,)], ids=range(5)
)
def test_arrays_that_do_not_fit_are_refused(arrays):
    module = ir("""
        @graph.function
        def main(x: Tensor[(n, 3), f32]):
            return x
    """)
    with pytest.raises(RuntimeFault) as caught:
        run(module, "main", *arrays)
    assert caught.value.code == "E0762"


def test_an_operation_that_breaks_its_recorded_type_is_our_error():
    module = ir("""
        @graph.function
        def main(x: Tensor[(n, 3), f32]):
            y: Tensor[(n, 4), f32] = relu(x)
            return y
    """)
    with pytest.raises(InternalError, match="relu gave float32 of shape"):
        run(module, "main", X)
