"""Layouts of buffers with padding, axes of blocks, and maps solved for their indices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.expr.dtype import f32, i32
from treadle.expr.evaluate import evaluate
from treadle.expr.facts import Facts
from treadle.expr.scalar import Var, as_expr
from treadle.ir.interpret import run_tensor
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.schedule.block_layout import TransformBlockLayout
from treadle.schedule.index_map import IndexMap, index_map
from treadle.schedule.inverse import inverse
from treadle.schedule.layout import TransformLayout
from treadle.schedule.trace import Schedule, parse_trace, trace_text
from treadle.testing import assert_same_ir, ir

SCALE = """
    @tensor.function
    def scale(X: Buffer[(n, 6), f32], Y: Output[(n, 6), f32]):
        T = alloc((n, 6), f32)
        for i in range(n):
            for j in range(6):
                with block("T"):
                    ti = spatial(n, i)
                    tj = spatial(6, j)
                    T[ti, tj] = X[ti, tj] * f32(2.0)
        for k in range(n):
            for l in range(6):
                with block("Y"):
                    yk = spatial(n, k)
                    yl = spatial(6, l)
                    Y[yk, yl] = T[yk, yl] + f32(1.0)
"""


def function_of(text):
    return ir(text).tensor_functions[0]


# ---- Maps


MAPS = {
    "tiles": (lambda i, j: (j // 4, i, j % 4), (3, 9)),
    "flat": (lambda i, j: (i * 7 + j,), (4, 7)),
    "fused and split": (lambda i, j: ((i * 6 + j) // 4, (i * 6 + j) % 4), (4, 6)),
    "skewed": (lambda i, j: (i, i + j), (4, 8)),
    "against a known index": (lambda i, j: (j - i + 3, i), (4, 8)),
    "mirrored": (lambda i: (9 - i,), (10,)),
    "mirrored tiles": (lambda i: (i // 4, 3 - i % 4), (10,)),
    "with holes": (lambda i: (i * 3 + 1,), (5,)),
    "three digits": (lambda i: (i // 12, i // 4 % 3, i % 4), (40,)),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_solved_for_its_indices(name):
    function, shape = MAPS[name]
    m = index_map(function)
    extents = {v: as_expr(n) for v, n in zip(m.variables, shape, strict=True)}
    facts = Facts.of((), {})
    for v, n in extents.items():
        facts = facts.with_range(v, n)
    places = [Var(f"p{k}") for k in range(len(m.results))]
    solved = inverse(m.results, extents, places, facts)
    assert solved is not None
    for index in np.ndindex(*shape):
        env = dict(zip(m.variables, index, strict=True))
        there = {p: evaluate(r, env) for p, r in zip(places, m.results, strict=True)}
        assert tuple(int(evaluate(solved[v], there)) for v in m.variables) == index


@pytest.mark.parametrize(
    "function", [lambda i, j: (i + j,), lambda i, j: (i // 2, j), lambda i, j: (i,)]
)
def test_a_map_that_loses_an_index_is_not_solved(function):
    m = index_map(function)
    extents = {v: as_expr(5) for v in m.variables}
    facts = Facts.of((), {})
    for v, n in extents.items():
        facts = facts.with_range(v, n)
    assert inverse(m.results, extents, [Var(f"p{k}") for k in range(len(m.results))], facts) is None


# ---- Buffers


def test_padding_gets_its_value_from_a_block_of_its_own():
    assert_same_ir(
        TransformLayout("T", index_map(lambda i, j: (i, j // 4, j % 4)), 7.0).apply(
            function_of(SCALE)
        ),
        function_of("""
            @tensor.function
            def scale(X: Buffer[(n, 6), f32], Y: Output[(n, 6), f32]):
                T = alloc((n, 2, 4), f32)
                for T_pad0_1 in range(n):
                    for T_pad1_1 in range(2):
                        for T_pad2_1 in range(4):
                            with block("T_pad"):
                                T_pad0 = spatial(n, T_pad0_1)
                                T_pad1 = spatial(2, T_pad1_1)
                                T_pad2 = spatial(4, T_pad2_1)
                                where(~(T_pad1_1 * 4 + T_pad2_1 < 6))
                                T[T_pad0, T_pad1, T_pad2] = f32(7.0)
                for i in range(n):
                    for j in range(6):
                        with block("T"):
                            ti = spatial(n, i)
                            tj = spatial(6, j)
                            T[ti, tj // 4, tj % 4] = X[ti, tj] * f32(2.0)
                for k in range(n):
                    for l in range(6):
                        with block("Y"):
                            yk = spatial(n, k)
                            yl = spatial(6, l)
                            Y[yk, yl] = T[yk, yl // 4, yl % 4] + f32(1.0)
        """),
    )


LAYOUTS = st.sampled_from(
    [
        index_map(lambda i, j: (j // 4, i, j % 4)),
        index_map(lambda i, j: (i // 3, j, i % 3)),
        index_map(lambda i, j: (i, 5 - j)),
        index_map(lambda i, j: (i, i + j)),
        index_map(lambda i, j: (i * 2, j)),
        index_map(lambda i, j: (i * 6 + j,)),
        index_map(lambda i, j: (j * Var("n") + i,)),
        index_map(lambda n, k: (n // 2, k // 4, n % 2, k % 4)),
    ]
)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["X", "T", "Y"]), LAYOUTS, st.integers(1, 9))
def test_a_layout_with_a_pad_value_keeps_the_meaning(buffer, layout, n):
    before = function_of(SCALE)
    change = TransformLayout(buffer, layout, 7.0)
    after = change.apply(before)
    verify_tensor_function(after)
    assert parse_trace(trace_text((change,))) == (change,)
    x = np.random.default_rng(n).integers(-4, 5, (n, 6)).astype(np.float32)
    wanted = run_tensor(before, [x])[0]
    shape = [int(evaluate(d, {Var("n"): n})) for d in change.new_shape(before)]
    given_x = change.pack(x, tuple(shape), {"n": n}) if buffer == "X" else x
    (found,) = run_tensor(after, [given_x], {"n": n})
    packed = change.pack(wanted, tuple(shape), {"n": n}) if buffer == "Y" else wanted
    np.testing.assert_array_equal(found, packed)


@pytest.mark.parametrize(
    ("buffer", "layout", "pad", "code"),
    [
        ("Y", lambda i, j: (i, j // 4, j % 4), None, "E0322"),
        ("T", lambda i, j: (i + j,), 0.0, "E0340"),
        ("T", lambda i: (i,), None, "E0340"),
        ("T", lambda i, j: (i, j - 6), None, "E0340"),
        ("T", lambda i, j: (i, j * Var("q")), None, "E0340"),
        ("Z", lambda i, j: (i, j), None, "E0301"),
    ],
)
def test_layouts_that_are_refused(buffer, layout, pad, code):
    with pytest.raises(ScheduleError) as caught:
        TransformLayout(buffer, index_map(layout), pad).apply(function_of(SCALE))
    assert caught.value.code == code
    assert caught.value.excerpt


def test_a_fraction_is_no_padding_of_integers():
    text = SCALE.replace("f32(2.0)", "2").replace("f32(1.0)", "1").replace("f32", "i64")
    with pytest.raises(ScheduleError) as caught:
        TransformLayout("T", index_map(lambda i, j: (i, j // 4, j % 4)), 0.5).apply(
            function_of(text)
        )
    assert caught.value.code == "E0340"


# ---- Blocks


def convolution(dtype=f32):
    b = LoopBuilder("convolution")
    n, c, o = Var("n"), 4, 6
    x = b.input(tensor((n + 2, 8 + 2, c), dtype), "X")
    k = b.input(tensor((3, 3, c, o), dtype), "K")
    y = b.output((n, 8, o), dtype, "Y")
    b.reduce(
        y,
        (3, 3, c),
        lambda i, j, f, di, dj, ci: x[i + di, j + dj, ci] * k[di, dj, ci, f],
    )
    return b.build()


GEMM = index_map(lambda i, j, f, di, dj, c: (i * 8 + j, f, di * 12 + dj * 4 + c))


def test_a_convolution_counts_its_points_as_a_product_does():
    s = Schedule(convolution())
    loops = s.transform_block_layout("Y", GEMM)
    assert len(loops) == 2
    text = str(s.function)
    assert "v_Y = spatial(n * 8, Y_axis)" in text
    assert "v_Y_1 = reduction(36, Y_axis_1)" in text
    verify_tensor_function(s.function)


BLOCK_MAPS = [
    GEMM,
    index_map(lambda i, j, f, di, dj, c: (f, i, j, di * 3 + dj, c)),
    index_map(lambda i, j, f, di, dj, c: (i, j // 4, f // 2, j % 4, f % 2, di, dj, c // 2, c % 2)),
    index_map(lambda i, j, f, di, dj, c: (i, 7 - j, f, di, dj, c)),
    index_map(lambda i, j, f, di, dj, c: (di, i, dj, c, j, f)),
]


@pytest.mark.parametrize("number", range(len(BLOCK_MAPS)))
@pytest.mark.parametrize("n", [0, 1, 3])
def test_other_axes_keep_the_meaning(number, n):
    before = convolution()
    after = TransformBlockLayout("Y", BLOCK_MAPS[number]).apply(before)
    verify_tensor_function(after)
    rng = np.random.default_rng(number)
    arrays = [rng.integers(-3, 4, s).astype(np.float32) for s in ((n + 2, 10, 4), (3, 3, 4, 6))]
    np.testing.assert_array_equal(run_tensor(after, arrays)[0], run_tensor(before, arrays)[0])


SWAPPED = index_map(lambda i, j, f, di, dj, c: (i, j, f, dj, di, c))


def test_steps_of_a_sum_of_floats_keep_their_order():
    with pytest.raises(ScheduleError) as caught:
        TransformBlockLayout("Y", SWAPPED).apply(convolution())
    assert caught.value.code == "E0308"
    assert "Y" in str(TransformBlockLayout("Y", SWAPPED).apply(convolution(i32)))


def refused(text, layout, block="Y"):
    with pytest.raises(ScheduleError) as caught:
        TransformBlockLayout(block, layout).apply(function_of(text))
    assert caught.value.excerpt
    return caught.value.code


SAME = IndexMap(("i", "j"), (Var("i"), Var("j")))


def test_block_layouts_that_are_refused():
    assert refused(SCALE, index_map(lambda i, j: (i, j // 4, j % 4))) == "E0340"
    assert refused(SCALE, index_map(lambda i, j: (i + j,))) == "E0340"
    assert refused(SCALE, index_map(lambda i: (i,))) == "E0340"
    assert refused(SCALE, SAME, "Z") == "E0301"
    assert refused(SCALE.replace("for l in range(6)", "for l in parallel(6)"), SAME) == "E0302"
    inner = "Y[yk, yl] = T"
    assert (
        refused(SCALE.replace(inner, "where(n > 3)\n                    " + inner), SAME) == "E0320"
    )
    assert refused(SCALE.replace("spatial(6, l)", "spatial(6, 5 - l)"), SAME) == "E0381"
    assert refused(SCALE.replace("Y[yk, yl]", "Y[yk, 0]"), SAME) == "E0311"
    assert refused(SCALE.replace("T[yk, yl] +", "Y[yk, 0] + T[yk, yl] +"), SAME) == "E0307"
    shared = SCALE.replace(
        '                with block("Y"):',
        '                with block("Z"):\n                    z = spatial(n, k)\n'
        "                    T[z, 0] = f32(0.0)\n"
        '                with block("Y"):',
    )
    assert refused(shared, SAME) == "E0329"
    mixed = index_map(lambda i, j, f, di, dj, c: (i, j, f * 3 + di, dj, c))
    with pytest.raises(ScheduleError) as caught:
        TransformBlockLayout("Y", mixed).apply(convolution())
    assert caught.value.code == "E0340"


def test_a_number_without_dimensions_is_packed_as_one():
    packed = index_map(lambda: ()).pack(np.float32(3.0).reshape(()), ())
    assert packed.shape == ()
    assert packed == 3.0
