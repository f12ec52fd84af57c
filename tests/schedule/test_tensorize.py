"""Tiles as blocks and as tensor intrinsics: their effect, their refusals, and that they keep the
meaning.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.expr.dtype import f32
from treadle.expr.scalar import Var, as_expr
from treadle.ir.interpret import run_tensor
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType
from treadle.ir.verify import verify_tensor_function
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.blockize import Blockize
from treadle.schedule.index_map import index_map
from treadle.schedule.intrinsics import define, find_intrinsic
from treadle.schedule.tensorize import Tensorize
from treadle.schedule.trace import Schedule, apply_trace, parse_trace, trace_text
from treadle.testing import assert_same_ir, ir

PACK = """
    @tensor.function
    def pack(K: Buffer[(n, 64), f32], P: Output[((n + 63) // 64, 64, 64), f32]):
        for jo in range((n + 3) // 4):
            for ko in range(16):
                for ji in range(4):
                    for ki in range(4):
                        with block("P"):
                            vj = spatial(n, jo * 4 + ji)
                            vk = spatial(64, ko * 4 + ki)
                            where(jo * 4 + ji < n)
                            P[vj // 64, vk, vj % 64] = K[vj, vk]
"""

PRODUCT = """
    @tensor.function
    def product(A: Buffer[(8, 64), f32], B: Buffer[(64, 32), f32], C: Output[(8, 32), f32]):
        for i in range(8):
            for k in range(64):
                for jo in range(2):
                    for ji in range(16):
                        with block("C"):
                            vi = spatial(8, i)
                            vj = spatial(32, jo * 16 + ji)
                            vk = reduction(64, k)
                            with init():
                                C[vi, vj] = f32(0.0)
                            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
"""


def schedule(text: str, name: str) -> Schedule:
    return Schedule(ir(text).tensor(name))


def refused(s: Schedule, *args: str, **options: bool) -> str:
    before = s.function
    with pytest.raises(ScheduleError) as caught:
        s.tensorize(*args, **options)  # type: ignore[arg-type]
    assert s.function is before
    assert any("^" in line for line in caught.value.excerpt)
    return caught.value.code


def test_blockize_divides_axes_into_tiles_and_starts_outside():
    s = schedule(PRODUCT, "product")
    assert s.blockize("ji") == "C_o"
    assert_same_ir(
        s.function,
        ir("""
    @tensor.function
    def product(A: Buffer[(8, 64), f32], B: Buffer[(64, 32), f32], C: Output[(8, 32), f32]):
        for i in range(8):
            for k in range(64):
                for jo in range(2):
                    with block("C_o"):
                        vi = spatial(8, i)
                        vj_o = spatial(2, jo)
                        vk = reduction(64, k)
                        with init():
                            for vj_i_s in range(16):
                                with block("C_init"):
                                    vj_i_init = spatial(16, vj_i_s)
                                    C[vi, vj_i_init + vj_o * 16] = f32(0.0)
                        for ji in range(16):
                            with block("C"):
                                vj_i = spatial(16, ji)
                                C[vi, vj_i + vj_o * 16] = C[vi, vj_i + vj_o * 16] + A[vi, vk] * B[vk, vj_i + vj_o * 16]
        """).tensor("product"),  # noqa: E501
    )


def test_tensorize_puts_the_implementation_over_the_programs_buffers():
    s = schedule(PRODUCT, "product")
    s.reorder("i", "jo", "k", "ji")
    s.decompose_reduction("C", "k")
    s.tensorize("ji", "fma_f32_1x16x1")
    assert_same_ir(
        s.function,
        ir("""
    @tensor.function
    def product(A: Buffer[(8, 64), f32], B: Buffer[(64, 32), f32], C: Output[(8, 32), f32]):
        for i in range(8):
            for jo in range(2):
                for ji_init in range(16):
                    with block("C_init"):
                        vi_init = spatial(8, i)
                        vj_init = spatial(32, ji_init + jo * 16)
                        C[vi_init, vj_init] = f32(0.0)
                for k in range(64):
                    with block("C"):
                        vi = spatial(8, i)
                        vj_o = spatial(2, jo)
                        vk = reduction(64, k)
                        b0 = let(B[vk, ramp(vj_o * 16, 1, i64x16)])
                        C[vi, ramp(vj_o * 16, 1, i64x16)] = C[vi, ramp(vj_o * 16, 1, i64x16)] + broadcast(A[vi, vk], f32x16) * b0
        """).tensor("product"),  # noqa: E501
    )


def test_a_block_that_blockize_made_is_tensorized_by_its_name():
    s = schedule(PRODUCT, "product")
    s.decompose_reduction("C", "k")
    block = s.blockize("ji")
    s.tensorize(block, "fma_f32_1x16x1")
    other = schedule(PRODUCT, "product")
    other.decompose_reduction("C", "k")
    other.tensorize("ji", "fma_f32_1x16x1")
    assert_same_ir(s.function, other.function)


@pytest.mark.parametrize("n", [1, 4, 7, 64, 70])
def test_tiles_that_are_not_whole_run_as_they_were(n: int):
    s = schedule(PACK, "pack")
    plain = s.function
    s.tensorize("ji", "transpose_f32_4x4")
    verify_tensor_function(s.function)
    x = np.arange(n * 64, dtype=np.float32).reshape(n, 64)
    (expected,) = run_tensor(plain, [x])
    (found,) = run_tensor(s.function, [x])
    (final,) = run_tensor(lower_loops(s.function), [x], {"n": n}, out_shapes=[expected.shape])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(final, expected)


def test_a_condition_on_outer_loops_alone_stays_with_the_block():
    text = PACK.replace("jo * 4 + ji < n", "jo * 4 < n - 3")
    s = schedule(text, "pack")
    s.tensorize("ji", "transpose_f32_4x4")
    assert "where(jo * 4 < n - 3)" in str(s.function)
    assert " if " not in str(s.function)


def test_a_trace_with_tiles_reads_back():
    s = schedule(PRODUCT, "product")
    s.decompose_reduction("C", "k")
    s.blockize("ji")
    s.tensorize("C_o", "fma_f32_1x16x1")
    again = apply_trace(ir(PRODUCT).tensor("product"), parse_trace(trace_text(s.trace)))
    assert_same_ir(again, s.function)


def test_an_intrinsic_of_ones_own_is_taken_as_a_value():
    doubled = define(
        "double_f32_8",
        """
@tensor.function
def double(X: Buffer[(8,), f32], Y: Output[(8,), f32]):
    for i in range(8):
        with block("Y"):
            vi = spatial(8, i)
            Y[vi] = X[vi] * f32(2.0)
""",
        """
@tensor.function
def double(X: Buffer[(8,), f32], Y: Output[(8,), f32]):
    x = let(X[ramp(0, 1, i64x8)])
    Y[ramp(0, 1, i64x8)] = x + x
""",
    )
    text = """
        @tensor.function
        def f(X: Buffer[(4, 8), f32], Y: Output[(4, 8), f32]):
            for i in range(4):
                for j in range(8):
                    with block("Y"):
                        vi = spatial(4, i)
                        vj = spatial(8, j)
                        Y[vi, vj] = f32(2.0) * X[vi, vj]
    """
    s = schedule(text, "f")
    plain = s.function
    s.tensorize("j", doubled)
    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    np.testing.assert_array_equal(run_tensor(s.function, [x]), run_tensor(plain, [x]))


# ---- Refusals


def test_an_unknown_intrinsic_is_refused():
    assert refused(schedule(PACK, "pack"), "ji", "transpose_f32_3x3") == "E0370"


def test_an_unknown_loop_is_refused():
    assert refused(schedule(PACK, "pack"), "zz", "transpose_f32_4x4") == "E0301"


def test_a_loop_with_other_statements_is_refused():
    s = schedule(PRODUCT, "product")
    s.decompose_reduction("C", "k")
    assert refused(s, "i", "fma_f32_1x16x1") == "E0371"


def test_an_axis_without_tiles_is_refused():
    text = PACK.replace("vj = spatial(n, jo * 4 + ji)", "vj = spatial(n, jo + ji * ((n + 3) // 4))")
    text = text.replace("where(jo * 4 + ji < n)", "where(jo + ji * ((n + 3) // 4) < n)")
    assert refused(schedule(text, "pack"), "ji", "transpose_f32_4x4") == "E0372"


def test_a_loop_of_symbolic_extent_is_refused():
    assert refused(schedule(PACK, "pack"), "jo", "transpose_f32_4x4") == "E0372"


def test_the_start_of_a_reduction_is_refused():
    assert refused(schedule(PRODUCT, "product"), "ji", "fma_f32_1x16x1") == "E0373"


def test_a_condition_without_a_corner_is_refused():
    text = PACK.replace("jo * 4 + ji < n)", "jo * 4 + ji * ji < n)")
    assert refused(schedule(text, "pack"), "ji", "transpose_f32_4x4") == "E0373"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("K[vj, vk]", "K[vj, vk] + f32(1.0)"),
        ("K[vj, vk]", "load(K[vj, vk], mask=vk > 3)"),
        ("K[vj, vk]", "K[vj, 63 - vk]"),
        ("f32", "f64"),
        ("P[vj // 64, vk, vj % 64] = K[vj, vk]", "P[vj // 64, vj % 64, vk] = K[vj, vk]"),
    ],
)
def test_another_computation_is_refused(old: str, new: str):
    s = schedule(PACK.replace(old, new), "pack")
    assert refused(s, "ji", "transpose_f32_4x4") == "E0374"


def test_other_extents_are_refused():
    assert refused(schedule(PACK, "pack"), "ji", "transpose_f32_8x8") == "E0374"


def test_elements_that_lie_apart_are_refused():
    text = PACK.replace("(n, 64), f32], P", "(n, 64, 2), f32], P").replace("vk]\n", "vk, 1]\n")
    assert refused(schedule(text, "pack"), "ji", "transpose_f32_4x4") == "E0375"


def test_a_result_that_is_an_operand_is_refused():
    text = """
        @tensor.function
        def turn(X: Output[(8, 4), f32]):
            for i in range(4):
                for j in range(4):
                    with block("X"):
                        vi = spatial(4, i)
                        vj = spatial(4, j)
                        X[4 + vj, vi] = X[vi, vj]
    """
    assert refused(schedule(text, "turn"), "i", "transpose_f32_4x4") == "E0375"


def test_a_scope_that_the_intrinsic_does_not_take_is_refused():
    known = find_intrinsic("transpose_f32_4x4")
    assert known is not None
    limited = define(
        "limited",
        str(known.description),
        str(known.implementation),
        scopes={"X": frozenset({"stack"})},
    )
    s = schedule(PACK, "pack")
    with pytest.raises(ScheduleError, match="E0375"):
        s.apply(Tensorize("ji", limited))


def test_another_order_of_a_sum_must_be_accepted():
    text = """
        @tensor.function
        def dot(A: Buffer[(4, 8), bf16], B: Buffer[(4, 32), bf16], C: Output[(4, 16), f32]):
            for i in range(4):
                for ko in range(4):
                    for j in range(16):
                        for ki in range(2):
                            with block("C"):
                                vi = spatial(4, i)
                                vj = spatial(16, j)
                                vk = reduction(8, ko * 2 + ki)
                                C[vi, vj] = C[vi, vj] + cast(A[vi, vk], f32) * cast(B[vk // 2, vj * 2 + vk % 2], f32)
    """  # noqa: E501
    s = schedule(text, "dot")
    assert refused(s, "j", "dot_bf16_1x16x2") == "E0308"
    s.tensorize("j", "dot_bf16_1x16x2", reassociate=True)
    assert "dot(" in str(s.function)


def test_blockize_refuses_a_start_under_a_condition_inside():
    text = PRODUCT.replace("with init():", "where(jo * 16 + ji < 30)\n" + 28 * " " + "with init():")
    text = text.replace("(64, 32), f32]", "(64, 30), f32]").replace("(8, 32)", "(8, 30)")
    text = text.replace("spatial(32", "spatial(30")
    s = schedule(text, "product")
    with pytest.raises(ScheduleError, match="E0373"):
        s.apply(Blockize("ji"))


# ---- Laws


def matmul(m: int, n: int, k: int) -> TensorFunction:
    b = LoopBuilder("matmul")
    x = b.input(TensorType((as_expr(m), as_expr(k)), 2, f32), "A")
    w = b.input(TensorType((as_expr(k), as_expr(n)), 2, f32), "B")
    y = b.output((m, n), f32, "C")
    b.reduce(y, (k,), lambda i, j, p: x[i, p] * w[p, j])
    return b.build()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    m=st.integers(1, 9),
    n=st.integers(1, 40),
    k=st.integers(1, 9),
    rows=st.integers(1, 4),
    lanes=st.sampled_from([4, 8, 16]),
    steps=st.integers(1, 3),
    packed=st.booleans(),
    seed=st.integers(0, 100),
)
def test_products_by_intrinsics_keep_their_values(
    m: int, n: int, k: int, rows: int, lanes: int, steps: int, packed: bool, seed: int
):
    plain = matmul(m, n, k)
    s = Schedule(plain)
    i, j, p = s.loops()[-3:]
    io, ii = s.split(i, (None, rows))
    jo, ji = s.split(j, (None, lanes))
    po, pi = s.split(p, (None, steps))
    s.reorder(io, jo, po, ii, ji, pi)
    (block,) = (b for b in ("C", "Y", "y") if f'block("{b}")' in str(s.function))
    s.decompose_reduction(block, po)
    s.tensorize(ii, f"fma_f32_{rows}x{lanes}x{steps}")
    if packed:
        refused_layout(s)
    verify_tensor_function(s.function)
    rng = np.random.default_rng(seed)
    a = rng.integers(-4, 5, (m, k)).astype(np.float32)
    w = rng.integers(-4, 5, (k, n)).astype(np.float32)
    for function in (s.function, lower_loops(s.function)):
        (found,) = run_tensor(function, [a, w], out_shapes=[(m, n)])
        np.testing.assert_array_equal(found, a @ w)


def refused_layout(s: Schedule) -> None:
    """Vectors of a buffer stay where they are."""
    if "ramp(" in str(s.function):
        with pytest.raises(ScheduleError, match="E0324"):
            s.transform_layout("B", index_map(lambda a, b: (b, a)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 6)),
    factor=st.integers(1, 8),
    depth=st.integers(0, 5),
    seed=st.integers(0, 100),
)
def test_blockize_keeps_the_meaning_or_refuses(
    shape: tuple[int, int, int], factor: int, depth: int, seed: int
):
    plain = matmul(*shape)
    s = Schedule(plain)
    s.split(s.loops()[-2], (None, factor))
    names, before = s.loops(), s.function
    try:
        s.blockize(names[min(depth, len(names) - 1)])
    except ScheduleError:
        assert s.function is before
        return
    verify_tensor_function(s.function)
    rng = np.random.default_rng(seed)
    a = rng.integers(-4, 5, (shape[0], shape[2])).astype(np.float32)
    w = rng.integers(-4, 5, (shape[2], shape[1])).astype(np.float32)
    for function in (s.function, lower_loops(s.function)):
        (found,) = run_tensor(function, [a, w], out_shapes=[(shape[0], shape[1])])
        np.testing.assert_array_equal(found, a @ w)


def test_symbols_are_extents_of_the_loops_around_a_tile():
    b = LoopBuilder("rows")
    n = Var("n")
    x = b.input(TensorType((n, as_expr(16)), 2, f32), "X")
    y = b.output((16, n), f32, "Y")
    b.compute(y, lambda i, j: x[j, i])
    s = Schedule(b.build())
    i, j = s.loops()
    _, ii = s.split(i, (None, 4))
    jo, ji = s.split(j, (None, 4))
    s.reorder(jo, ji, ii)
    s.tensorize(ji, "transpose_f32_4x4")
    for size in (1, 4, 9):
        a = np.arange(size * 16, dtype=np.float32).reshape(size, 16)
        np.testing.assert_array_equal(run_tensor(s.function, [a])[0], a.T)
