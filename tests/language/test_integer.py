import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
from treadle.base.errors import LanguageModelError
from treadle.expr.dtype import f32
from treadle.expr.scalar import Var
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ir.types import tensor
from treadle.language.integer import integer_product, rounded_rows
from treadle.language.model import LanguageModel
from treadle.language.quantize import GROUP, KINDS, Kind, QuantizedWeight, dequantized, quantized
from treadle.ops import Round
from treadle.passes.canonicalize import canonicalize

# What rounding a row may change a product by, as a part of the largest element and the weights.
LOST = {1: 1 / 254, 2: 1 / 65000}


def product(kind: Kind, digits: int, inputs: int, outputs: int) -> tuple[Module, QuantizedWeight]:
    rng = np.random.default_rng(inputs * 1000 + outputs)
    weight = quantized(rng.standard_normal((outputs, inputs), np.float32), kind)
    b = GraphBuilder("main")
    y = integer_product(b, b.input("x", tensor([Var("t"), inputs], f32)), weight, digits=digits)
    return Module({**b.functions, "main": b.finish(y)}, b.constants), weight


def rows_of(count: int, inputs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, inputs), np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("digits", [1, 2])
@settings(max_examples=4, deadline=None)
@given(
    count=st.integers(1, 5),
    inputs=st.sampled_from([1, 31, 32, 33, 64, 97]),
    outputs=st.sampled_from([1, 5, 63, 64, 65]),
)
def test_products_are_off_by_what_rounding_the_rows_loses(
    kind: Kind, digits: int, count: int, inputs: int, outputs: int
):
    module, weight = product(kind, digits, inputs, outputs)
    x = rows_of(count, inputs)
    (found,) = run(module, "main", x)
    values = dequantized(weight)
    exact = x.astype(np.float64) @ values.T
    limit = LOST[digits] * np.abs(x).max() * np.abs(values).sum(axis=1) + 1e-4
    assert found.shape == (count, outputs)
    assert np.all(np.abs(found - exact) <= limit)


@given(scale=st.floats(1e-6, 1e6), digits=st.sampled_from([1, 2]), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_digits_add_up_to_the_rows(scale: float, digits: int, seed: int):
    b = GraphBuilder("main")
    parts = rounded_rows(b.input("x", tensor([2, 70], f32)), digits)
    module = Module({"main": b.finish(*parts)}, b.constants)
    x = rows_of(2, 70, seed) * np.float32(scale)
    x[0, :GROUP] = 0
    codes, scales, sums = run(module, "main", x)
    assert codes.shape == (2, 3, digits, GROUP)
    np.testing.assert_array_equal(sums, codes.sum(axis=3, dtype=np.int32))
    weights = np.array([256, 1][2 - digits :], np.int64)
    whole = np.einsum("tgdk,d->tgk", codes.astype(np.int64), weights)
    back = (whole * scales[..., None]).reshape(2, -1)[:, :70]
    assert np.abs(back - x).max() <= np.abs(x).max() * LOST[digits]


def test_halves_of_a_digit_are_carried():
    """128 of the lower digit is one of the higher and -128: a byte cannot hold it."""
    b = GraphBuilder("main")
    codes, _, _ = rounded_rows(b.input("x", tensor([1, 32], f32)), 2)
    module = Module({"main": b.finish(codes)}, b.constants)
    largest = 127 * 256 + 127
    x = np.zeros((1, 32), np.float32)
    x[0, :5] = [largest, 128, -128, 127.5, -largest]
    (found,) = run(module, "main", x)
    whole = found[0, 0, 0].astype(int) * 256 + found[0, 0, 1]
    assert list(whole[:5]) == [largest, 128, -128, 128, -largest]


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_compiled_products_agree_with_the_interpreter(kind: Kind):
    module, _ = product(kind, 2, 70, 67)
    exe = treadle.compile(module, threads=2)
    for count in (1, 3, 9):
        x = rows_of(count, 70)
        (expected,) = run(module, "main", x)
        np.testing.assert_allclose(exe(x), expected, rtol=1e-5, atol=1e-5)


def test_products_of_one_row_share_its_rounding():
    rng = np.random.default_rng(0)
    b = GraphBuilder("main")
    x = b.input("x", tensor([1, 64], f32))
    weights = [quantized(rng.standard_normal((64, 64), np.float32), "int4") for _ in range(2)]
    results = [integer_product(b, x, w) for w in weights]
    module = canonicalize(Module({**b.functions, "main": b.finish(*results)}, b.constants))
    ops = [binding.op for binding in module.graph("main").body]
    assert len([op for op in ops if isinstance(op, Round)]) == 1


def test_models_with_rounded_rows_give_nearly_the_same_logits():
    settings = {
        "model_type": "llama",
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    logits: list[np.ndarray] = []
    for rows in ("f32", "i16"):
        model = LanguageModel.load(settings, weights="int4", rows=rows, threads=1)
        cache = model.new_cache(4)
        logits.append(model.step(cache.append([(cache.create(), [1, 5, 9])])))
    size = np.abs(logits[0]).max()
    assert 0 < np.abs(logits[1] - logits[0]).max() < 1e-3 * size


def test_unknown_rows_are_refused():
    with pytest.raises(LanguageModelError, match="no kind of rows 'i4'"):
        LanguageModel.load({}, rows="i4")
