"""A consumer computed where its producer stores: at a reduction's last step, or at its start."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.expr.dtype import f32, i32
from treadle.expr.scalar import Var, maximum, minimum
from treadle.ir.interpret import run_tensor
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.schedule.reverse_inline import FuseReductionEpilogue, ReverseComputeInline
from treadle.schedule.trace import Schedule
from treadle.testing import assert_same_ir, ir

EPILOGUE = """
    @tensor.function
    def epilogue(A: Buffer[(m, 9), f32], B: Buffer[(9, n), f32], C: Buffer[(n,), f32], Y: Output[(m,
    n), f32]):
        T = alloc((m, n), f32)
        for i in range(m):
            for j in range(n):
                for k in range(9):
                    with block("T"):
                        vi = spatial(m, i)
                        vj = spatial(n, j)
                        vk = reduction(9, k)
                        with init():
                            T[vi, vj] = f32(0.0)
                        T[vi, vj] = T[vi, vj] + A[vi, vk] * B[vk, vj]
        for p in range(m):
            for q in range(n):
                with block("Y"):
                    yp = spatial(m, p)
                    yq = spatial(n, q)
                    Y[yp, yq] = max(T[yp, yq] + C[yq], f32(0.0))
"""
PLAIN = EPILOGUE.replace("max(T[yp, yq] + C[yq], f32(0.0))", "T[yp, yq] + C[yq]")
CLIPPED = EPILOGUE.replace("T[yp, yq] + C[yq]", "T[yp, yq]")


def function_of(text):
    return ir(text).tensor_functions[0]


def test_a_reduction_ends_with_what_the_consumer_makes_of_it():
    assert_same_ir(
        ReverseComputeInline("Y").apply(function_of(EPILOGUE)),
        function_of("""
            @tensor.function
            def epilogue(A: Buffer[(m, 9), f32], B: Buffer[(9, n), f32], C: Buffer[(n,), f32], Y:
            Output[(m, n), f32]):
                for i in range(m):
                    for j in range(n):
                        for k in range(9):
                            with block("Y"):
                                vi = spatial(m, i)
                                vj = spatial(n, j)
                                vk = reduction(9, k)
                                with init():
                                    Y[vi, vj] = f32(0.0)
                                Y[vi, vj] = Y[vi, vj] + A[vi, vk] * B[vk, vj]
                                if vk == 8:
                                    Y[vi, vj] = max(Y[vi, vj] + C[vj], f32(0.0))
        """),
    )


def test_a_bias_becomes_the_start():
    after = str(FuseReductionEpilogue("T", "Y", reassociate=True).apply(function_of(PLAIN)))
    assert "Y[vi, vj] = C[vj]" in after
    assert "Y[vi, vj] = Y[vi, vj] + A[vi, vk] * B[vk, vj]" in after
    assert "alloc" not in after


def product(dtype, combine, epilogue):
    b = LoopBuilder("product")
    m, n, k = Var("m"), Var("n"), Var("k")
    a, w = b.input(tensor((m, k), dtype), "A"), b.input(tensor((k, n), dtype), "B")
    c = b.input(tensor((n,), dtype), "C")
    y = b.output((n, m), dtype, "Y")
    t = b.temp((m, n), dtype, "T")
    b.reduce(t, (k,), lambda i, j, p: a[i, p] * w[p, j], combine)
    b.compute(y, lambda j, i: epilogue(t[i, j], c[j]))
    return b.build()


EPILOGUES = {
    "add": lambda t, c: t + c,
    "max": maximum,
    "min": lambda t, c: minimum(c, t),
    "clip": lambda t, c: minimum(maximum(t, 0), 6),
    "square": lambda t, c: t * t,
}


def arrays(m, n, k, dtype):
    rng = np.random.default_rng(m * 31 + n * 7 + k)
    return [rng.integers(-4, 5, s).astype(dtype.numpy) for s in ((m, k), (k, n), (n,))]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(EPILOGUES)),
    st.sampled_from(["add", "max", "min"]),
    st.sampled_from([f32, i32]),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.sampled_from([None, 2, 3]),
    st.booleans(),
)
def test_an_epilogue_at_the_last_step_keeps_the_meaning(name, combine, dtype, sizes, tile, outer):
    before = product(dtype, combine, EPILOGUES[name])
    s = Schedule(before)
    i, j, k = s.loops()[:3]
    if tile:
        s.split(k, (None, tile))
        k = f"{k}_0"
    if outer:
        s.reorder(k, i, j)
    s.reverse_compute_inline("Y")
    verify_tensor_function(s.function)
    inputs = arrays(*sizes, dtype)
    np.testing.assert_array_equal(run_tensor(s.function, inputs)[0], run_tensor(before, inputs)[0])


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(EPILOGUES)),
    st.sampled_from(["add", "max", "min"]),
    st.sampled_from([f32, i32]),
    st.tuples(*[st.integers(1, 7)] * 3),
)
def test_an_epilogue_at_the_start_keeps_the_meaning_or_is_refused(name, combine, dtype, sizes):
    before = product(dtype, combine, EPILOGUES[name])
    fuse = FuseReductionEpilogue("T", "Y", reassociate=True)
    if name != combine:
        with pytest.raises(ScheduleError) as caught:
            fuse.apply(before)
        assert caught.value.code == "E0385"
        return
    after = fuse.apply(before)
    inputs = arrays(*sizes, dtype)
    # The operands are small integers, whose sums are exact in any order.
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], run_tensor(before, inputs)[0])


@pytest.mark.parametrize("text", [EPILOGUE, CLIPPED])
def test_a_clip_within_the_accumulation_is_refused(text):
    # max(max(0 + 3, 0) - 5, 0) + ... is not max(3 - 5 + ..., 0).
    with pytest.raises(ScheduleError) as caught:
        FuseReductionEpilogue("T", "Y", reassociate=True).apply(function_of(text))
    assert caught.value.code == "E0385"
    assert "reverse_compute_inline" in (caught.value.help or "")


def test_another_rounding_must_be_accepted():
    with pytest.raises(ScheduleError) as caught:
        FuseReductionEpilogue("T", "Y").apply(function_of(PLAIN))
    assert caught.value.code == "E0308"
    exact = product(i32, "add", EPILOGUES["add"])
    assert "T" not in str(FuseReductionEpilogue("T", "Y").apply(exact)).replace("Tensor", "")


def test_a_consumer_of_part_of_the_result_guards_the_rest():
    text = EPILOGUE.replace("range(m):\n            for q", "range(m - 1):\n            for q")
    text = text.replace("spatial(m, p)", "spatial(m - 1, p)").replace(
        "Y: Output[(m,\n    n), f32]", "Y: Output[(m - 1, n), f32]"
    )
    text = text.replace("Output[(m,\n    n), f32]", "Output[(m - 1, n), f32]")
    before = function_of(text)
    after = ReverseComputeInline("Y").apply(before)
    inputs = arrays(4, 5, 9, f32)
    np.testing.assert_array_equal(run_tensor(after, inputs)[0], run_tensor(before, inputs)[0])


OVERWRITTEN = (
    EPILOGUE.replace(
        "        for p in",
        """        for o in range(n):
            with block("again"):
                vo = spatial(n, o)
                D[vo] = C[vo]
        for p in""",
    )
    .replace("Y: Output", "D: Output[(n,), f32], Y: Output")
    .replace("+ C[yq]", "+ D[yq]")
)
REFUSALS = [
    (EPILOGUE.replace("spatial(n, q)", "spatial(n, q)\n                    where(m > 2)"), "E0320"),
    (EPILOGUE.replace("T[vi, vj] = f32(0.0)", "T[vi, vj] = f32(0.0)\n                            "
                      "T[vi, vj] = f32(1.0)"), "E0320"),
    (EPILOGUE.replace("Y[yp, yq] =", "Y[yp, yq] = Y[yp, yq] +"), "E0320"),
    (EPILOGUE.replace("T = alloc((m, n), f32)", "T = alloc((m, n), f64)")
     .replace("T[vi, vj] = f32(0.0)", "T[vi, vj] = f64(0.0)")
     .replace("A[vi, vk] * B[vk, vj]", "cast(A[vi, vk], f64)")
     .replace("max(T[yp, yq] + C[yq], f32(0.0))", "cast(T[yp, yq], f32)"), "E0320"),
    (EPILOGUE.replace("Y[yp, yq] =", "store(Y[yp, yq], C[yq] + T[yp, yq], mask=yq > 1)#"), "E0320"),
    (EPILOGUE.replace("T[yp, yq] + C[yq]", "T[yp, yq] + T[0, yq]"), "E0326"),
    (EPILOGUE.replace("T[yp, yq] + C[yq]", "T[yp, 0] + C[yq]"), "E0326"),
    (EPILOGUE.replace("Y[yp, yq] =", "Y[yp, 0] ="), "E0325"),
    (EPILOGUE.replace("T[yp, yq] + C[yq]", "C[yq]"), "E0323"),
    (OVERWRITTEN, "E0327"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code"), REFUSALS)
def test_refusals_of_both(text, code):
    for rule in (ReverseComputeInline("Y"), FuseReductionEpilogue("T", "Y", reassociate=True)):
        if code == "E0327" and isinstance(rule, FuseReductionEpilogue):
            text = text.replace("max(T[yp, yq] + D[yq], f32(0.0))", "T[yp, yq] + D[yq]")
        with pytest.raises(ScheduleError) as caught:
            rule.apply(function_of(text))
        assert caught.value.code == code
        assert caught.value.excerpt


def test_a_result_that_is_used_elsewhere_is_refused():
    text = EPILOGUE.replace(
        "T = alloc((m, n), f32)",
        """T = alloc((m, n), f32)
        for s in range(m):
            with block("S"):
                vs = spatial(m, s)
                Y[vs, 0] = f32(1.0)""",
    )
    with pytest.raises(ScheduleError) as caught:
        ReverseComputeInline("Y").apply(function_of(text))
    assert caught.value.code == "E0324"


def test_the_last_step_must_run_last():
    s = Schedule(function_of(EPILOGUE))
    s.split("k", (None, 4))
    s.reorder("k_1", "k_0", reassociate=True)
    with pytest.raises(ScheduleError) as caught:
        s.reverse_compute_inline("Y")
    assert caught.value.code == "E0308"


def test_blocks_that_are_no_pair_are_refused():
    with pytest.raises(ScheduleError) as caught:
        FuseReductionEpilogue("Y", "Y").apply(function_of(PLAIN))
    assert caught.value.code == "E0323"
