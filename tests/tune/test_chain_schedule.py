"""Products that share rows, as in attention, run as one kernel and give what the parts give."""

import logging
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
from treadle.driver.executable import Executable
from treadle.driver.pipelines import graph_pipeline, loop_pipeline
from treadle.ir.analysis import blocks
from treadle.ir.calls import CallTensor
from treadle.ir.interpret import run
from treadle.ir.tensor import TensorFunction
from treadle.passes.chains import row_chain
from treadle.target import Target
from treadle.testing import ir

MASKS = {
    "none": "",
    "causal": "",
    "keys": "Tensor[(b, 1, 1, t), bool]",
    "pairs": "Tensor[(b, 1, s, t), bool]",
    "added": "Tensor[(h, s, t), f32]",
    "flat": "Tensor[(s, t), f32]",
}


def attention(
    mask: str, heads: int, shared: int, width: int, value: int, dtype: str = "f32"
) -> str:
    """Attention over symbolic batches and lengths."""
    mask_type = MASKS[mask].replace("h,", f"{heads},").replace("f32", dtype)
    extra = f", m: {mask_type}" if mask_type else ""
    given_mask = ", m" if mask_type else ""
    causal = ", causal=True" if mask == "causal" else ""
    return f"""
@graph.function
def main(
    q: Tensor[(b, {heads}, s, {width}), {dtype}], k: Tensor[(b, {shared}, t, {width}), {dtype}],
    v: Tensor[(b, {shared}, t, {value}), {dtype}]{extra},
) -> (Tensor[(b, {heads}, s, {value}), {dtype}],):
    y = attention(q, k, v{given_mask}{causal})
    return y
"""


@cache
def compiled(text: str, threads: int = 1) -> Executable:
    """The program, compiled once."""
    return treadle.compile(ir(text), threads=threads)


def kernels(text: str, *, strict: bool = False, threads: int = 1) -> list[TensorFunction]:
    """The tensor functions that the entry calls, scheduled."""
    module = graph_pipeline().run(ir(text))
    module = loop_pipeline(Target.native(), threads, strict=strict).run(module)
    called = [b.op for f in module.graph_functions for b in f.body]
    return [module.tensor(op.function) for op in called if isinstance(op, CallTensor)]


def operands(
    mask: str, b: int, heads: int, shared: int, s: int, t: int, d: int, e: int, seed: int = 0
) -> list[np.ndarray]:
    """Values for ``attention``."""
    rng = np.random.default_rng(seed)
    f = lambda *shape: rng.standard_normal(shape, dtype=np.float32)  # noqa: E731
    found: list[np.ndarray] = [f(b, heads, s, d), f(b, shared, t, d), f(b, shared, t, e)]
    if mask == "keys":
        found.append(rng.random((b, 1, 1, t)) > 0.3)
    elif mask == "pairs":
        found.append(rng.random((b, 1, s, t)) > 0.5)
    elif mask == "added":
        found.append(np.where(rng.random((heads, s, t)) > 0.2, f(heads, s, t), -np.inf))
    elif mask == "flat":
        found.append(f(s, t))
    return found


def check(text: str, inputs: list[np.ndarray], threads: int = 1, tolerance: float = 2e-5) -> None:
    """Machine code agrees with the reference of the operations."""
    (expected,) = run(ir(text), "main", *inputs)
    with np.errstate(all="raise"):
        result = compiled(text, threads)(*inputs)
    actual = np.asarray(result[0] if isinstance(result, tuple | list) else result)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mask", MASKS)
def test_attention_is_one_kernel_that_has_a_schedule(
    mask: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "treadle.tune"):
        found = kernels(attention(mask, 4, 4, 32, 32))
    assert len(found) == 1
    assert not caplog.records
    assert "unrolled(4)" in str(found[0])


def test_heads_that_share_keys_are_one_kernel() -> None:
    # The axis of those heads goes again at the end, where the result leaves the program.
    whole, *views = kernels(attention("pairs", 8, 2, 16, 16))
    assert len(blocks(whole)) > 2
    assert all(len(blocks(f)) == 1 for f in views)


def test_strict_numerics_keep_the_parts() -> None:
    found = kernels(attention("none", 4, 4, 32, 32), strict=True)
    assert len(found) > 1
    assert all(row_chain(f) is None for f in found)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("s", "t"), [(1, 1), (1, 70), (7, 5), (33, 64), (50, 197)])
def test_every_mask_and_length_gives_the_reference(mask: str, s: int, t: int) -> None:
    check(attention(mask, 2, 2, 16, 16), operands(mask, 2, 2, 2, s, t, 16, 16))


@pytest.mark.parametrize("width", [8, 16, 32, 64, 80, 96, 128])
def test_every_head_size_has_a_schedule_and_gives_the_reference(
    width: int, caplog: pytest.LogCaptureFixture
) -> None:
    text = attention("keys", 2, 2, width, width)
    with caplog.at_level(logging.INFO, "treadle.tune"):
        assert len(kernels(text)) == 1
    assert not caplog.records
    check(text, operands("keys", 1, 2, 2, 29, 83, width, width))


@pytest.mark.parametrize(("s", "t"), [(2, 3), (5, 5), (6, 16), (24, 64), (197, 197)])
def test_fixed_lengths_have_a_schedule_and_give_the_reference(
    s: int, t: int, caplog: pytest.LogCaptureFixture
) -> None:
    text = attention("none", 3, 3, 16, 16)
    text = text.replace(" s, ", f" {s}, ").replace(" t, ", f" {t}, ")
    with caplog.at_level(logging.INFO, "treadle.tune"):
        assert len(kernels(text)) == 1
    assert not caplog.records
    check(text, operands("none", 2, 3, 3, s, t, 16, 16))


@pytest.mark.parametrize("heads", [1, 4, 8])
@pytest.mark.parametrize("mask", ["none", "keys"])
def test_two_threads_give_the_reference(mask: str, heads: int) -> None:
    inputs = operands(mask, 3, heads, heads, 40, 65, 32, 32)
    check(attention(mask, heads, heads, 32, 32), inputs, threads=2)


def test_a_single_query_keeps_the_parts() -> None:
    text = attention("none", 3, 3, 16, 16).replace(" s, ", " 1, ")
    assert all(row_chain(f) is None for f in kernels(text))
    check(text, operands("none", 2, 3, 3, 1, 70, 16, 16))


@pytest.mark.parametrize(("heads", "loop"), [(1, "(s + 23) // 24"), (16, "16")])
def test_threads_share_heads_or_where_these_are_few_groups_of_rows(heads: int, loop: str) -> None:
    (kernel,) = kernels(attention("none", heads, heads, 32, 32), threads=2)
    assert f"in parallel({loop})" in str(kernel)


def test_rows_that_see_nothing_are_zero() -> None:
    q, k, v, m = operands("keys", 2, 2, 2, 9, 21, 16, 16)
    m[1] = False
    text = attention("keys", 2, 2, 16, 16)
    check(text, [q, k, v, m])
    assert not np.asarray(compiled(text)(q, k, v, m))[1].any()


def test_infinite_scores_and_nan_stay_in_their_rows() -> None:
    q, k, v = operands("none", 1, 2, 2, 9, 21, 16, 16)
    q[0, 0, 3, 0] = np.nan
    q[0, 1, 5] = np.inf
    text = attention("none", 2, 2, 16, 16)
    (expected,) = run(ir(text), "main", q, k, v)
    actual = np.asarray(compiled(text)(q, k, v))
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("empty", ["b", "s", "t"])
def test_empty_dimensions_give_empty_or_zero_results(empty: str) -> None:
    sizes = {"b": 2, "s": 5, "t": 7} | {empty: 0}
    inputs = operands("keys", sizes["b"], 2, 2, sizes["s"], sizes["t"], 16, 16)
    check(attention("keys", 2, 2, 16, 16), inputs)


def test_doubles_run_as_one_kernel() -> None:
    text = attention("none", 2, 2, 16, 16, "f64")
    assert len(kernels(text)) == 1
    inputs = [x.astype(np.float64) for x in operands("none", 1, 2, 2, 19, 37, 16, 16)]
    check(text, inputs, tolerance=1e-12)


SCORES = """
@graph.function
def main(
    q: Tensor[(b, 2, s, 16), f32], k: Tensor[(b, 2, 16, t), f32], v: Tensor[(b, 2, t, 24), f32],
) -> (Tensor[(b, 2, s, 24), f32],):
    scores = matmul(q, k)
{middle}
    y = matmul(weights, v)
{end}
"""
MIDDLES = {
    "nothing": "    weights = relu(scores)",
    "no block": "    weights = neg(scores)",
    "mean": "    mean = mean(scores, axes=(3,), keepdims=True)\n    weights = sub(scores, mean)",
    "twice": "    a = softmax(scores)\n    b2 = exp(a)\n    weights = softmax(b2)",
}


@pytest.mark.parametrize("middle", MIDDLES)
def test_other_programs_of_rows_give_the_reference(middle: str) -> None:
    text = SCORES.format(middle=MIDDLES[middle], end="    return y")
    q, _, v = operands("none", 2, 2, 2, 21, 45, 16, 24)
    k = np.random.default_rng(1).standard_normal((2, 2, 16, 45), dtype=np.float32)
    check(text, [q, k, v], tolerance=1e-4)


def test_what_follows_elementwise_is_part_of_the_kernel(
    caplog: pytest.LogCaptureFixture,
) -> None:
    end = "    z = relu(y)\n    return z"
    text = SCORES.format(middle="    weights = softmax(scores)", end=end)
    with caplog.at_level(logging.INFO, "treadle.tune"):
        assert len(kernels(text)) == 1
    assert not caplog.records
    q, _, v = operands("none", 2, 2, 2, 21, 45, 16, 24)
    k = np.random.default_rng(1).standard_normal((2, 2, 16, 45), dtype=np.float32)
    check(text, [q, k, v])


def test_scores_that_leave_the_program_keep_the_parts() -> None:
    text = """
@graph.function
def main(
    q: Tensor[(b, 2, s, 16), f32], k: Tensor[(b, 2, 16, t), f32], v: Tensor[(b, 2, t, 24), f32],
) -> (Tensor[(b, 2, s, 24), f32], Tensor[(b, 2, s, t), f32]):
    scores = matmul(q, k)
    weights = softmax(scores)
    y = matmul(weights, v)
    return y, weights
"""
    assert len(kernels(text)) > 1


def test_layers_with_weights_keep_the_parts() -> None:
    text = """
@graph.function
def main(
    x: Tensor[(n, 64), f32], a: Tensor[(64, 256), f32], b: Tensor[(256, 64), f32],
) -> (Tensor[(n, 64), f32],):
    u = matmul(x, a)
    r = relu(u)
    y = matmul(r, b)
    return y
"""
    assert len(kernels(text)) == 2


@settings(max_examples=25, deadline=None)
@given(
    mask=st.sampled_from(tuple(MASKS)),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]),
    b=st.integers(1, 3),
    s=st.integers(1, 70),
    t=st.integers(1, 200),
    seed=st.integers(0, 2**16),
)
def test_attention_of_any_size_gives_the_reference(
    mask: str, heads: tuple[int, int], b: int, s: int, t: int, seed: int
) -> None:
    many, few = heads
    text = attention(mask, many, few, 24, 20)
    check(text, operands(mask, b, many, few, s, t, 24, 20, seed))
