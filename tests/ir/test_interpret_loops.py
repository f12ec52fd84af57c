"""The interpreter of loop programs: plain loops are the meaning, and array execution agrees with
them bit for bit.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import RuntimeFault
from treadle.expr.dtype import bf16, f16, f32, f64, i8, i32, i64
from treadle.expr.scalar import Const, Var, cast, const
from treadle.ir.interpret import run_tensor
from treadle.ir.interpret.nest import find_nest
from treadle.ir.loop_builder import LoopBuilder, guarded
from treadle.ir.parser import parse_function
from treadle.ir.tensor import For
from treadle.ir.types import tensor
from treadle.testing import random_inputs, tensor_functions

N = Var("n")


def both(function, inputs, symbols=None):
    """The results, having seen that both ways agree in every bit."""
    fast = run_tensor(function, inputs, symbols or {})
    slow = run_tensor(function, inputs, symbols or {}, vectorize=False)
    for a, b in zip(fast, slow, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    return fast


def text(body, params="X: Buffer[(n,), f32], Y: Output[(n,), f32]"):
    lines = "\n".join("    " + line for line in body.strip("\n").split("\n"))
    return parse_function(f"@tensor.function\ndef f({params}):\n{lines}\n")


@given(tensor_functions(), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_array_execution_agrees_with_plain_loops(function, seed):
    both(function, random_inputs(function, seed=seed))


@pytest.mark.parametrize("dtype", [f16, bf16, f32, f64, i8, i32, i64], ids=str)
@pytest.mark.parametrize("combine", ["add", "mul", "max", "min"])
def test_a_reduction_combines_in_the_order_of_its_loops(dtype, combine):
    builder = LoopBuilder("f")
    x = builder.input(tensor((N, 40), dtype))
    y = builder.output((N,), dtype)
    builder.reduce(y, (40,), lambda i, k: x[i, k], combine)
    both(builder.build(), random_inputs(builder.build(), seed=1))


@pytest.mark.parametrize("order", ["ijk", "kij", "ikj"])
def test_a_matrix_product_is_one_in_any_order_of_loops(order):
    extents = {"i": 5, "j": 7, "k": 9}
    lines = ["    " * d + f"for {v} in range({extents[v]}):" for d, v in enumerate(order)]
    block = """with block("Y"):
    vi = spatial(5, i)
    vj = spatial(7, j)
    vk = reduction(9, k)
    with init():
        Y[vi, vj] = 0.0
    Y[vi, vj] += A[vi, vk] * B[vk, vj]"""
    lines += [" " * 12 + line for line in block.split("\n")]
    params = "A: Buffer[(5, 9), f32], B: Buffer[(9, 7), f32], Y: Output[(5, 7), f32]"
    function = text("\n".join(lines), params)
    a, b = random_inputs(function)
    (y,) = both(function, (a, b))
    np.testing.assert_allclose(y, a @ b, rtol=1e-5)
    assert find_nest(function.body[0]) is not None


def test_tiles_and_a_guarded_tail_cover_every_element():
    function = text("""
for io in range((n + 3) // 4):
    for ii in range(4):
        with block("Y"):
            v = spatial(n, io * 4 + ii)
            where(io * 4 + ii < n)
            Y[v] = X[v] * 2.0
""")
    for size in (1, 4, 7):
        x = np.arange(size, dtype=np.float32)
        (y,) = both(function, (x,))
        np.testing.assert_array_equal(y, 2 * x)


def test_an_argmax_carries_two_buffers():
    function = text(
        """
for i in range(n):
    for k in range(6):
        with block("best"):
            v = spatial(n, i)
            r = reduction(6, k)
            with init():
                V[v] = f32("-inf")
                I[v] = 0
            better = let(X[v, r] > V[v])
            if better:
                I[v] = r
            V[v] = max(V[v], X[v, r])
""",
        "X: Buffer[(n, 6), f32], V: Output[(n,), f32], I: Output[(n,), i64]",
    )
    (x,) = random_inputs(function, {"n": 5})
    values, indices = both(function, (x,))
    np.testing.assert_array_equal(values, x.max(1))
    np.testing.assert_array_equal(indices, x.argmax(1))


def test_a_scatter_to_equal_elements_keeps_the_order_of_the_loops():
    builder = LoopBuilder("f")
    indices = builder.input(tensor((N,), i64), "I")
    updates = builder.input(tensor((N,), f32), "U")
    y = builder.output((4,), f32)
    builder.compute(y, lambda i: Const(0.0, f32), name="zero")
    builder.scatter(y, (N,), lambda i: ((indices[i],), updates[i]))
    i = np.array([1, 3, 1, 0, 3], np.int64)
    u = np.arange(5, dtype=np.float32) + 1
    (result,) = both(builder.build(), (i, u))
    np.testing.assert_array_equal(result, [4, 3, 0, 5])


def test_a_scatter_to_distinct_elements_runs_as_arrays():
    builder = LoopBuilder("f")
    x = builder.input(tensor((4, 6), f32))
    y = builder.output((24,), f32)
    builder.place(y, (4, 6), lambda i, j: ((j * 4 + i,), x[i, j]))
    (a,) = random_inputs(builder.build())
    (result,) = both(builder.build(), (a,))
    np.testing.assert_array_equal(result, a.T.ravel())


def test_a_masked_load_touches_no_memory_outside():
    builder = LoopBuilder("f")
    x = builder.input(tensor((N,), f32))
    y = builder.output((N,), f32)
    builder.compute(y, lambda i: guarded((i >= 1) & (i < 3), x[i * 1000 - 999], -1.0))
    x_value = np.array([5, 6, 7, 8], np.float32)
    with pytest.raises(RuntimeFault, match=r"X0\[1001\] is out of bounds of the shape \(4,\)"):
        run_tensor(builder.build(), (x_value,))
    other = LoopBuilder("f")
    x = other.input(tensor((N,), f32))
    y = other.output((N,), f32)
    other.compute(y, lambda i: guarded(i < 1, x[i * 1000], -1.0))
    (result,) = both(other.build(), (x_value,))
    np.testing.assert_array_equal(result, [5, -1, -1, -1])
    (empty,) = both(other.build(), (np.zeros(0, np.float32),))
    assert empty.shape == (0,)


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("index", ["i + 1", "i - 1", "0 - n"])
def test_an_access_out_of_bounds_never_wraps(index, vectorize):
    for line in (f"Y[v] = X[{index}]", f"Y[{index}] = X[v]"):
        index_line = line.replace("i", "v")
        function = text(f"""
for i in range(n):
    with block("Y"):
        v = spatial(n, i)
        {index_line}
""")
        with pytest.raises(RuntimeFault) as caught:
            run_tensor(function, (np.ones(3, np.float32),), vectorize=vectorize)
        assert caught.value.code == "E0761"


def test_vectors_registers_masks_and_lets():
    function = text(
        """
T = alloc((2, 2), f32x4, scope="register")
for i in range(2):
    x = let(X[ramp(i * 4, 1, i64x4)])
    T[i, 0] = x * f32x4(2.0)
    T[i, 1] = broadcast(reduce_add(x), f32x4)
    prefetch(X[i])
m = let(ramp(0, 1, i64x4) < broadcast(k, i64x4))
store(Y[ramp(0, 1, i64x4)], T[0, 0], mask=m)
Y[ramp(4, 1, i64x4)] = load(X[ramp(7, -1, i64x4)], mask=m)
Y[ramp(8, 1, i64x4)] = T[1, 1]
if k > 100:
    Y[12] = 1.0
else:
    Y[12] = reduce_max(T[1, 0])
Y[ramp(13, 2, i64x2)] = load(X[ramp(100, 1, i64x2)], mask=False)
Y[14] = fmuladd(X[0], X[1], X[2])
""",
        "X: Buffer[(8,), f32], k: i64, Y: Output[(16,), f32]",
    )
    x = np.arange(1, 9, dtype=np.float32)
    (y,) = both(function, (x,), {"k": 3})
    nan = np.nan
    expected = [2, 4, 6, nan, 8, 7, 6, 0, 26, 26, 26, 26, 16, 0, 5, 0]
    np.testing.assert_array_equal(y, np.array(expected, np.float32))


def test_vector_masks_over_buffers_of_vectors():
    function = text(
        """
T = alloc((1,), f32x4, scope="register")
T[0] = f32x4(5.0)
m = let(ramp(0, 1, i64x4) < broadcast(2, i64x4))
store(T[0], X[ramp(0, 1, i64x4)], mask=m)
Y[ramp(0, 1, i64x4)] = load(T[0], mask=m)
Y[ramp(4, 1, i64x4)] = T[0]
""",
        "X: Buffer[(4,), f32], Y: Output[(8,), f32]",
    )
    (y,) = both(function, (np.array([1, 2, 3, 4], np.float32),))
    np.testing.assert_array_equal(y, [1, 2, 0, 0, 1, 2, 5, 5])


def test_integers_wrap_in_their_type():
    builder = LoopBuilder("f")
    x = builder.input(tensor((N,), i8))
    y = builder.output((N,), i8)
    z = builder.output((N,), i64)
    builder.compute(y, lambda i: x[i] * x[i] + 1)
    builder.compute(z, lambda i: (cast(x[i], i64) + (2**63 - 1)) - const(-1))
    x_value = np.array([12, -128, 127], np.int8)
    narrow, wide = both(builder.build(), (x_value,))
    np.testing.assert_array_equal(narrow, (x_value * x_value + 1).astype(np.int8))
    np.testing.assert_array_equal(wide, x_value.astype(np.int64) + np.iinfo(np.int64).min)


def test_undefined_contents_show():
    function = text("""
T = alloc((n,), f32)
for i in range(n):
    with block("Y"):
        v = spatial(n, i)
        Y[v] = T[v]
""")
    (y,) = both(function, (np.ones(3, np.float32),))
    assert np.isnan(y).all()


@pytest.mark.parametrize(
    ("code", "shapes"),
    [("E0762", [(3, 4)]), ("E0762", [(4,), (4,)]), ("E0762", [(7,)]), ("E0762", [()])],
)
def test_shapes_that_do_not_fit_are_refused(code, shapes):
    body = "with block('b'):\n    pass"
    function = text(body, "X: Buffer[(2 * n,), f32], Y: Output[(n,), f32]")
    with pytest.raises(RuntimeFault) as caught:
        run_tensor(function, [np.ones(s, np.float32) for s in shapes])
    assert caught.value.code == code


def test_symbols_are_solved_from_linear_dimensions():
    function = text(
        """
for i in range(m):
    with block("Y"):
        v = spatial(m, i)
        Y[v] = cast(n, f32)
""",
        "X: Buffer[(2 * n + m, m), f32], Y: Output[(m,), f32]",
    )
    (y,) = both(function, (np.ones((11, 3), np.float32),))
    np.testing.assert_array_equal(y, [4, 4, 4])


def test_a_symbol_that_no_shape_tells_must_be_given():
    function = text("pass", "X: Buffer[(n // 2,), f32], Y: Output[(n,), f32]")
    with pytest.raises(RuntimeFault) as caught:
        run_tensor(function, (np.ones(2, np.float32),))
    assert caught.value.code == "E0763"
    (y,) = run_tensor(function, (np.ones(2, np.float32),), {"n": 5})
    assert y.shape == (5,)


def test_final_loops_address_memory_by_one_index():
    function = text(
        """
for i in range(n * m):
    Y[i] = X[i] + 1.0
""",
        "X: Buffer[(n * m,), f32], Y: Output[(n * m,), f32], n: i64, m: i64",
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (flat,) = run_tensor(function, (x,), {"n": 2, "m": 3})
    np.testing.assert_array_equal(flat, x.ravel() + 1)
    (shaped,) = run_tensor(function, (x,), {"n": 2, "m": 3}, out_shapes=[(2, 3)])
    np.testing.assert_array_equal(shaped, x + 1)


def test_an_assumption_is_checked():
    function = text("assume(n % 4 == 0)")
    with pytest.raises(RuntimeFault) as caught:
        run_tensor(function, (np.ones(3, np.float32),))
    assert caught.value.code == "E0765"


def test_a_wrong_element_type_is_refused():
    with pytest.raises(RuntimeFault, match="holds f32"):
        run_tensor(text("pass"), (np.ones(3),))


def test_nests_that_must_run_in_order_are_left_to_the_plain_loops():
    function = text("""
for i in range(n):
    with block("Y"):
        v = reduction(n, i)
        Y[v] = X[v] + load(Y[v - 1], mask=v >= 1)
""")
    (loop,) = function.body
    assert isinstance(loop, For)
    assert find_nest(loop) is None
    x = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(both(function, (x,))[0], np.cumsum(x))
