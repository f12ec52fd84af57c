"""Statements in machine code do what the loop program says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import CodegenError, InternalError
from treadle.codegen.llvm.kernel import kernel_text, module_text
from treadle.codegen.llvm.object import assembly
from treadle.expr.dtype import DTYPES, DType, boolean, f32, f64, i32, i64, u8
from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Const, Expr, Var, apply, cast, const, eq, select
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    If,
    Intrinsic,
    Let,
    Load,
    Store,
    TensorFunction,
    loop,
)
from treadle.target import Target
from treadle_runtime.threads import Pool

n, m, i, j, k = (Var(name) for name in "nmijk")


def ramp(start: Expr, lanes: int, step: int = 1) -> Expr:
    return apply("ramp", start, const(step), dtype=i64.vector(lanes))


def broadcast(x: Expr, lanes: int) -> Expr:
    return apply("broadcast", x, dtype=x.dtype.vector(lanes))


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_symbols_and_scalars_follow_the_buffers(run_kernel):
    a = Var("a", f32)
    x, y = Buffer("X", (n, m), f32), Buffer("Y", (n, m), f32)
    body = loop("i", n, loop("j", m, Store(y, (i, j), x[i, j] * a + 1.0)))
    source, result = random(5, 7), np.zeros((5, 7), np.float32)
    function = TensorFunction("k", (x, y, a), 1, (body,))
    run_kernel(function, source, result, symbols=(5, 7), scalars=(np.float32(3),))
    np.testing.assert_allclose(result, source * 3 + 1, rtol=1e-6)


def test_a_kernel_may_be_called_like_a_function_of_the_c_library(run_kernel):
    x, y = Buffer("X", (4,), f64), Buffer("Y", (4,), f64)
    value = apply("truncmod", x[i], Const(0.75, f64))
    source, result = np.linspace(-3, 3, 4), np.zeros(4)
    function = TensorFunction("fmod", (x, y), 1, (loop("i", 4, Store(y, (i,), value)),))
    run_kernel(function, source, result)
    np.testing.assert_array_equal(result, np.fmod(source, 0.75))


def test_an_empty_loop_does_nothing(run_kernel):
    y = Buffer("Y", (n,), f32)
    function = TensorFunction("k", (y,), 1, (loop("i", n, Store(y, (i,), const(1.0))),))
    result = np.zeros(4, np.float32)
    run_kernel(function, result, symbols=(0,))
    assert (result == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_every_dtype_is_copied_bit_by_bit(run_kernel, dtype: DType, lanes: int):
    x, y = Buffer("X", (32,), dtype), Buffer("Y", (32,), dtype)
    at = i if lanes == 1 else ramp(i * lanes, lanes)
    source = np.arange(-16, 16).astype(dtype.numpy)
    result = np.zeros(32, dtype.numpy)
    body = loop("i", 32 // lanes, Store(y, (at,), Load(x, (at,))))
    run_kernel(TensorFunction("k", (x, y), 1, (body,)), source, result)
    assert (result == source).all()


@pytest.mark.parametrize("step", [-3, -1, 0, 1, 2, 5])
def test_vector_loads_and_stores_of_any_stride(run_kernel, step: int):
    x, y = Buffer("X", (64,), f32), Buffer("Y", (64,), f32)
    start = const(50 if step < 0 else 3)
    body = (
        Store(y, (ramp(const(0), 8),), Load(x, (ramp(start, 8, step),))),
        Store(y, (ramp(const(40), 8, -2),), Load(x, (ramp(start, 8, step),))),
        Store(y, (ramp(const(63), 8, -1),), Load(x, (ramp(start, 8, step),))),
    )
    source, result = random(64), np.zeros(64, np.float32)
    run_kernel(TensorFunction("k", (x, y), 1, body), source, result)
    lanes = source[start.value + step * np.arange(8)]
    expected = np.zeros(64, np.float32)
    expected[:8], expected[40 - 2 * np.arange(8)], expected[63 - np.arange(8)] = lanes, lanes, lanes
    assert (result == expected).all()


def test_a_vector_along_an_outer_dimension_uses_its_symbolic_stride(run_kernel):
    x, y = Buffer("X", (n, m), f32), Buffer("Y", (m, n), f32)
    body = loop("j", m, Store(y, (j, ramp(const(0), 4)), Load(x, (ramp(const(0), 4), j))))
    source, result = random(4, 7), np.zeros((7, 4), np.float32)
    run_kernel(TensorFunction("k", (x, y), 1, (body,)), source, result, symbols=(4, 7))
    assert (result == source.T).all()


@pytest.mark.parametrize("index", [i32, i64], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_gather_and_scatter_follow_index_vectors(run_kernel, index: DType, masked: bool):
    x, at, y = Buffer("X", (20, 3), f32), Buffer("I", (8,), index), Buffer("Y", (20, 3), f32)
    lanes = ramp(const(0), 8)
    mask = apply("lt", lanes, broadcast(const(5), 8)) if masked else None
    where = Load(at, (lanes,))
    value = Load(x, (where, const(1)), mask)
    body = Store(y, (where, const(2)), value + broadcast(const(1.0), 8), mask)
    source, result = random(20, 3), np.zeros((20, 3), np.float32)
    indices = np.array([3, 19, 0, 7, 4, 11, 2, 9], index.numpy)
    run_kernel(TensorFunction("k", (x, at, y), 1, (body,)), source, indices, result)
    kept = indices[:5] if masked else indices
    expected = np.zeros((20, 3), np.float32)
    expected[kept, 2] = source[kept, 1] + 1
    assert (result == expected).all()


@pytest.mark.parametrize("dtype", [f32, f64, u8, boolean], ids=str)
def test_masked_lanes_are_neither_read_nor_written(run_kernel, dtype: DType):
    x, y = Buffer("X", (n,), dtype), Buffer("Y", (n,), dtype)
    at = ramp(i * 16, 16)
    mask = apply("lt", at, broadcast(n, 16))
    body = loop("i", (n + 15) // 16, Store(y, (at,), Load(x, (at,), mask), mask))
    source, result = np.ones(24, dtype.numpy), np.zeros(24, dtype.numpy)
    run_kernel(TensorFunction("k", (x, y), 1, (body,)), source, result, symbols=(21,))
    assert (result[:21] == 1).all()
    assert (result[21:] == 0).all()


def test_masked_scalars_stay_away_from_their_address(run_kernel):
    x, y = Buffer("X", (4,), f32), Buffer("Y", (4,), f32)
    inside = i < 4
    far = select(inside, i, const(1 << 40))
    body = loop("i", 8, Store(y, (far,), Load(x, (far,), inside) + 1.0, inside))
    source, result = random(4), np.zeros(4, np.float32)
    run_kernel(TensorFunction("k", (x, y), 1, (body,)), source, result)
    np.testing.assert_array_equal(result, source + 1)


def test_a_masked_scalar_load_is_zero_where_the_mask_is_false(run_kernel):
    x, y = Buffer("X", (4,), f32), Buffer("Y", (8,), f32)
    body = loop("i", 8, Store(y, (i,), Load(x, (i,), i < 4)))
    source, result = random(4), np.ones(8, np.float32)
    run_kernel(TensorFunction("k", (x, y), 1, (body,)), source, result)
    np.testing.assert_array_equal(result, np.append(source, np.zeros(4, np.float32)))


def test_branches_take_the_right_side(run_kernel):
    y = Buffer("Y", (10,), i64)
    inner = If(eq(i % 2, 0), (Store(y, (i,), i // 3),), (Store(y, (i,), -i),))
    body = loop("i", 10, If(i < 7, (inner,)))
    result = np.full(10, 99)
    run_kernel(TensorFunction("k", (y,), 1, (body,)), result)
    assert list(result) == [0, -1, 0, -3, 1, -5, 2, 99, 99, 99]


def test_a_value_of_one_branch_does_not_leak_into_the_next(run_kernel):
    y = Buffer("Y", (6, 2), f32)
    costly = apply("exp", cast(i, f32))
    first = If(i < 3, (Store(y, (i, const(0)), costly + 1.0),), (Store(y, (i, const(0)), costly),))
    second = If(i > 1, (Store(y, (i, const(1)), costly + 1.0),))
    result = np.zeros((6, 2), np.float32)
    run_kernel(TensorFunction("k", (y,), 1, (loop("i", 6, first, second),)), result)
    e, steps = np.exp(np.arange(6)), np.arange(6)
    expected = np.stack([np.where(steps < 3, e + 1, e), np.where(steps > 1, e + 1, 0)], 1)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_an_index_computed_in_a_branch_is_not_used_outside(run_kernel):
    x, y = Buffer("X", (8, 8), f32), Buffer("Y", (8, 8), f32)
    row = (i * 5) // m
    store = Store(y, (row, j), x[row, j])
    body = loop("i", 8, loop("j", 8, If(j < 4, (store,)), If(j >= 4, (store,))))
    source, result = random(8, 8), np.zeros((8, 8), np.float32)
    scalars = (np.int64(5),)
    run_kernel(TensorFunction("k", (x, y, m), 1, (body,)), source, result, scalars=scalars)
    np.testing.assert_array_equal(result, source)


def test_let_names_a_value_as_it_was(run_kernel):
    y = Buffer("Y", (2,), f32)
    old = Var("old", f32)
    zero, one = const(0), const(1)
    body = (Let(old, y[zero]), Store(y, (zero,), y[one]), Store(y, (one,), old))
    result = np.array([1, 2], np.float32)
    run_kernel(TensorFunction("k", (y,), 1, body), result)
    assert list(result) == [2, 1]


@pytest.mark.parametrize("scope", ["stack", "register", "global"])
@pytest.mark.parametrize("size", [8, 100_000])
def test_allocated_memory_holds_what_is_stored(run_kernel, scope, size: int):
    y, t = Buffer("Y", (4, size), f32), Buffer("T", (size,), f32, scope)
    fill = loop("j", size, Store(t, (j,), cast(i * 10 + j, f32)))
    copy = For(k, const(size), (Store(y, (i, k), t[k]),))
    result = np.zeros((4, size), np.float32)
    body = loop("i", 4, Allocate(t), fill, copy)
    run_kernel(TensorFunction("k", (y,), 1, (body,)), result)
    np.testing.assert_array_equal(result, np.arange(4)[:, None] * 10 + np.arange(size)[None])


def test_memory_whose_size_depends_on_a_loop_lives_for_one_iteration(run_kernel):
    y, t = Buffer("Y", (n,), i64), Buffer("T", (i + 1,), i64)
    fill = loop("j", i + 1, Store(t, (j,), j * j))
    body = loop("i", n, Allocate(t), fill, Store(y, (i,), t[i]))
    result = np.zeros(50, np.int64)
    function = TensorFunction("k", (y,), 1, (body,))
    run_kernel(function, result, symbols=(50,))
    np.testing.assert_array_equal(result, np.arange(50) ** 2)
    text = kernel_text(function, Target.native()).definitions[-1]
    assert text.count("@aligned_alloc") == text.count("@free") == 1


@pytest.mark.parametrize("kind", ["float", "int"])
@pytest.mark.parametrize("how", ["add", "mul", "min", "max"])
def test_horizontal_reductions_combine_all_lanes(run_kernel, how: str, kind: str):
    dtype = f32 if kind == "float" else i32
    x, y = Buffer("X", (16,), dtype), Buffer("Y", (1,), dtype)
    value = apply(f"reduce_{how}", Load(x, (ramp(const(0), 16),)), dtype=dtype)
    source, result = (
        np.arange(-3, 13).astype(dtype.numpy) + dtype.numpy.type(1),
        np.zeros(1, dtype.numpy),
    )
    run_kernel(TensorFunction("k", (x, y), 1, (Store(y, (const(0),), value),)), source, result)
    numpy = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}
    np.testing.assert_allclose(result[0], numpy[how].reduce(source))


@pytest.mark.parametrize("how", ["min", "max", "add"])
def test_a_reduction_of_a_nan_is_nan(run_kernel, how: str):
    x, y = Buffer("X", (8,), f32), Buffer("Y", (1,), f32)
    value = apply(f"reduce_{how}", Load(x, (ramp(const(0), 8),)), dtype=f32)
    function = TensorFunction("k", (x, y), 1, (Store(y, (const(0),), value),))
    for lane in range(8):
        source, result = np.arange(8, dtype=np.float32), np.zeros(1, np.float32)
        source[lane] = np.nan
        run_kernel(function, source, result)
        assert np.isnan(result[0])


def parallel_sum() -> TensorFunction:
    """Rows of X, scaled by a scalar and shifted by an outer loop variable, in parallel within a
    serial loop.
    """
    x, y, a = Buffer("X", (n, m), f32), Buffer("Y", (3, n), f32), Var("a", f32)
    acc, outer = Buffer("acc", (1,), f32, "register"), Var("o")
    zero = const(0)
    row = For(j, m, (Store(acc, (zero,), acc[zero] + x[i, j] * a),))
    total = acc[zero] + cast(outer, f32)
    body = (Allocate(acc), Store(acc, (zero,), const(0.0)), row, Store(y, (outer, i), total))
    nest = For(outer, const(3), (For(i, n, body, "parallel"),))
    return TensorFunction("k", (x, y, a), 1, (nest,))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_parallel_loops_give_the_same_on_any_number_of_threads(run_kernel, threads: int):
    source, result = random(301, 500), np.zeros((3, 301), np.float32)
    with Pool(threads) as pool:
        scalars = (np.float32(2),)
        run_kernel(
            parallel_sum(), source, result, symbols=(301, 500), scalars=scalars, pool=pool.address
        )
    expected = 2 * source.sum(1)[None] + np.arange(3)[:, None]
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)


def test_a_parallel_loop_in_a_parallel_loop_is_serial(run_kernel):
    y = Buffer("Y", (8, 9), i64)
    inner = For(j, const(9), (Store(y, (i, j), i * j),), "parallel")
    function = TensorFunction("k", (y,), 1, (For(i, const(8), (inner,), "parallel"),))
    result = np.zeros((8, 9), np.int64)
    run_kernel(function, result)
    np.testing.assert_array_equal(result, np.outer(np.arange(8), np.arange(9)))
    texts = kernel_text(function, Target.native()).definitions
    assert sum(text.count("call void @treadle.parallel_for") for text in texts) == 1


def gemm_tile(rows: int, vectors: int, lanes: int, depth: int) -> TensorFunction:
    a, b = Buffer("A", (rows, depth), f32), Buffer("B", (depth, vectors * lanes), f32)
    c = Buffer("C", (rows, vectors * lanes), f32)
    acc = Buffer("acc", (rows, vectors), f32.vector(lanes), "register")
    points = [(const(r), const(v)) for r in range(rows) for v in range(vectors)]

    def cells(p: tuple[Const, Const]) -> tuple[Expr, Expr]:
        return p[0], ramp(p[1] * lanes, lanes)

    products = tuple(
        Store(acc, p, broadcast(a[p[0], k], lanes) * Load(b, (k, cells(p)[1])) + acc[p])
        for p in points
    )
    body = (
        Allocate(acc),
        *(Intrinsic("prefetch", (c[p[0], p[1] * lanes],)) for p in points),
        *(Store(acc, p, Load(c, cells(p))) for p in points),
        For(k, const(depth), products),
        *(Store(c, cells(p), acc[p]) for p in points),
    )
    return TensorFunction("tile", (a, b, c), 1, body)


@pytest.mark.parametrize("name", ["native", "x86-64-v2", "x86-64-v3"])
def test_a_register_tile_multiplies_matrices(run_kernel, name: str):
    a, b, c = random(6, 40), random(40, 64), np.ones((6, 64), np.float32)
    run_kernel(gemm_tile(6, 4, 16, 40), a, b, c, target=Target.parse(name))
    np.testing.assert_allclose(c, a @ b + 1, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "shape"), [("x86-64-v4", (6, 4, 16)), ("x86-64-v3", (6, 2, 8))])
def test_a_register_tile_stays_in_registers(name: str, shape: tuple[int, int, int]):
    target = Target.parse(name)
    text = module_text([kernel_text(gemm_tile(*shape, 512), target)], "", target)
    code = assembly(text, target)
    assert code.count("vfmadd") == shape[0] * shape[1]
    assert "(%rsp" not in code


def test_a_parallel_body_may_loop_to_a_limit_that_it_computes(run_kernel):
    at, y = Buffer("I", (6,), i64), Buffer("Y", (6, 8), i64)
    limit = Var("limit")
    body = (Let(limit, at[i]), For(j, limit, (Store(y, (i, j), j),)))
    function = TensorFunction("k", (at, y), 1, (For(i, const(6), body, "parallel"),))
    limits, result = np.array([0, 3, 8, 1, 0, 5]), np.full((6, 8), -1)
    run_kernel(function, limits, result)
    steps = np.arange(8)[None]
    np.testing.assert_array_equal(result, np.where(steps < limits[:, None], steps, -1))


def test_a_loop_name_may_be_used_again_at_another_depth(run_kernel):
    y = Buffer("Y", (4, 5), i64)
    deep = loop("i", 4, loop("j", 5, Store(y, (i, j), j * 3 + i)))
    shallow = loop("j", 4, Store(y, (j, const(0)), j * 3))
    result = np.zeros((4, 5), np.int64)
    run_kernel(TensorFunction("k", (y,), 1, (deep, shallow)), result)
    expected = np.arange(4)[:, None] + 3 * np.arange(5)[None]
    expected[:, 0] = 3 * np.arange(4)
    np.testing.assert_array_equal(result, expected)


def test_registers_hold_vectors_of_truth_values(run_kernel):
    x, y = Buffer("X", (2, 8), f32), Buffer("Y", (2, 8), f32)
    mask = Buffer("M", (2,), boolean.vector(8), "register")
    lanes = ramp(const(0), 8)
    body: list[Allocate | Store] = [Allocate(mask)]
    for row in (const(0), const(1)):
        value = Load(x, (row, lanes))
        body.append(Store(mask, (row,), apply("gt", value, broadcast(const(0.0), 8))))
    for row in (const(0), const(1)):
        body.append(Store(y, (row, lanes), Load(x, (row, lanes)), mask[row]))
    source, result = random(2, 8), np.zeros((2, 8), np.float32)
    run_kernel(TensorFunction("k", (x, y), 1, tuple(body)), source, result)
    np.testing.assert_array_equal(result, np.maximum(source, 0))


def test_kernels_in_one_module_share_what_they_declare():
    target = Target.native()
    x, y = Buffer("X", (16,), f32), Buffer("Y", (16,), f32)
    value = apply("exp", Load(x, (ramp(const(0), 16),)))
    store = Store(y, (ramp(const(0), 16),), value)
    kernels = [kernel_text(TensorFunction(f, (x, y), 1, (store,)), target) for f in ("f", "g")]
    extra = "declare void @other()\n\ndefine void @h() {\n  ret void\n}"
    text = module_text(kernels, extra, target)
    assert text.count('define internal <16 x float> @"treadle.exp.v16f32"') == 1
    code = assembly(text, target)
    assert all(f"{name}.kernel:" in code for name in "fg")
    assert "h:" in code


def test_a_block_does_not_reach_code_generation():
    y = Buffer("Y", (1,), f32)
    block = Block("Y", (), (Store(y, (const(0),), const(1.0)),))
    with pytest.raises(InternalError, match="block Y"):
        kernel_text(TensorFunction("k", (y,), 1, (block,)), Target.native())


def test_a_function_without_machine_code_is_refused():
    y = Buffer("Y", (1,), f32)
    store = Store(y, (const(0),), apply("and", y[const(0)], y[const(0)]))
    with pytest.raises(CodegenError) as caught:
        kernel_text(TensorFunction("k", (y,), 1, (store,)), Target.native())
    assert caught.value.code == "E0501"


def test_an_unknown_intrinsic_is_refused():
    y = Buffer("Y", (1,), f32)
    with pytest.raises(CodegenError) as caught:
        kernel_text(TensorFunction("k", (y,), 1, (Intrinsic("halt", ()),)), Target.native())
    assert caught.value.code == "E0503"


def test_text_does_not_depend_on_who_asked_before():
    texts = [kernel_text(parallel_sum(), Target.native()) for _ in range(2)]
    assert texts[0] == texts[1]


def test_address_arithmetic_leaves_the_inner_loop():
    x, y = Buffer("X", (n, m, m), f32), Buffer("Y", (n, m, m), f32)
    store = Store(y, (i, j, k), x[i, j, k])
    function = TensorFunction("k", (x, y), 1, (loop("i", n, loop("j", m, loop("k", m, store))),))
    lines = kernel_text(function, Target.native()).definitions[-1].splitlines()
    start = next(p for p, line in enumerate(lines) if " load " in line)
    labels = [p for p, line in enumerate(lines) if line.endswith(":") and p < start]
    inner = lines[
        labels[-1] : next(p for p, line in enumerate(lines) if "br i1" in line and p > start)
    ]
    assert not [line for line in inner if " mul " in line]


@st.composite
def index_programs(draw: st.DrawFn) -> tuple[Expr, int, int]:
    """An index into 64 elements over two loops, of sums, products, quotients and remainders."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    x: Expr = draw(st.sampled_from([i, j, i + j, i * 3 + j]))
    for _ in range(draw(st.integers(0, 4))):
        fn = draw(st.sampled_from(["add", "sub", "mul", "floordiv", "mod", "min", "max"]))
        other = draw(st.sampled_from([i, j, const(2), const(3), const(5), const(-4), const(7)]))
        x = apply(fn, x, other)
    return x % 64, rows, columns


@given(index_programs())
@settings(max_examples=40, deadline=None)
def test_index_arithmetic_agrees_with_python(run_kernel, program):
    index, rows, columns = program
    y = Buffer("Y", (n, m), i64)
    function = TensorFunction("k", (y,), 1, (loop("i", n, loop("j", m, Store(y, (i, j), index))),))
    result = np.zeros((rows, columns), np.int64)
    run_kernel(function, result, symbols=(rows, columns))
    a, b = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    with np.errstate(all="ignore"):
        expected = np.broadcast_to(evaluate(index, {i: a, j: b}), result.shape)
    np.testing.assert_array_equal(result, expected)


def evaluate(x: Expr, values: dict[Var, np.ndarray]) -> np.ndarray:
    """What an expression is on arrays of its variables."""
    if isinstance(x, Const):
        return np.asarray(x.value)
    if isinstance(x, Var):
        return values[x]
    return FUNCTIONS[x.fn].evaluate(*(evaluate(c, values) for c in x.children))
