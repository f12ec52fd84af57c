import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.base.errors import InternalError
from treadle.language.quantize import (
    GROUP,
    KINDS,
    Kind,
    QuantizedWeight,
    dequantized,
    packed_nibbles,
    quantization_error,
    quantized,
    unpacked_nibbles,
)

SIZES = st.integers(1, 70)
# Half the distance of neighbouring codes, as a part of the largest magnitude of a group; an f16
# scale adds its rounding, as often as there are codes.
HALF_STEPS = {"int8": 1 / 254, "int8_grouped": 1 / 254, "int4": 1 / 8, "int4_affine": 1 / 15}


def random(outputs: int, inputs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((outputs, inputs), np.float32)


@pytest.mark.parametrize("kind", KINDS)
@given(outputs=SIZES, inputs=SIZES, seed=st.integers(0, 99))
def test_values_are_off_by_half_a_step_at_most(kind: Kind, outputs: int, inputs: int, seed: int):
    weight = random(outputs, inputs, seed)
    error = np.abs(dequantized(quantized(weight, kind)) - weight)
    largest = np.abs(weight).max(axis=1, keepdims=True)
    assert np.all(error <= largest * (HALF_STEPS[kind] + 2e-3))


@given(rows=st.integers(0, 5), groups=st.integers(1, 4), seed=st.integers(0, 99))
def test_unpacking_nibbles_reverses_packing(rows: int, groups: int, seed: int):
    codes = np.random.default_rng(seed).integers(0, 16, (rows, groups, GROUP), np.uint8)
    assert np.array_equal(
        unpacked_nibbles(packed_nibbles(codes)), codes.reshape(rows, groups * GROUP)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_quantizing_again_changes_nothing(kind: Kind):
    once = dequantized(quantized(random(5, 96), kind))
    again = dequantized(quantized(once, kind))
    np.testing.assert_allclose(again, once, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_zeros(kind: Kind):
    assert not dequantized(quantized(np.zeros((3, 40), np.float32), kind)).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_any_float_is_quantized(kind: Kind, dtype: type):
    weight = random(4, 33).astype(dtype)
    wide = quantized(weight.astype(np.float32), kind)
    assert np.array_equal(quantized(weight, kind).codes, wide.codes)


def test_rows_in_pieces_are_rows_at_once(monkeypatch: pytest.MonkeyPatch):
    weight = random(37, 64)
    whole = quantized(weight, "int4")
    monkeypatch.setattr("treadle.language.quantize._ROWS_AT_ONCE", 200)
    pieces = quantized(weight, "int4")
    assert np.array_equal(pieces.codes, whole.codes)
    assert np.array_equal(pieces.scales, whole.scales)


@pytest.mark.parametrize(
    ("kind", "bits", "relative"),
    [("int8", 8.2, 0.01), ("int8_grouped", 8.5, 0.01), ("int4", 4.5, 0.1), ("int4_affine", 5, 0.1)],
)
def test_figures_of_error_say_bits_and_loss(kind: Kind, bits: float, relative: float):
    weight = random(64, 256)
    found = quantization_error(quantized(weight, kind), weight)
    assert found.bits <= bits
    assert 0 < found.relative < relative
    assert found.largest == np.abs(dequantized(quantized(weight, kind)) - weight).max()


def test_figures_of_error_of_nothing_are_zero():
    weight = np.zeros((2, 32), np.float32)
    found = quantization_error(quantized(weight, "int8"), weight)
    assert (found.largest, found.relative) == (0, 0)


def test_rows_are_taken_with_their_scales():
    weight = quantized(random(6, 64), "int4_affine")
    rows = np.array([4, 0, 0])
    assert np.array_equal(dequantized(weight.taken(rows)), dequantized(weight)[rows])


def test_parts_of_wrong_shapes_are_a_bug():
    with pytest.raises(InternalError, match="int4 weight"):
        QuantizedWeight("int4", 2, 32, np.zeros((2, 32), np.uint8), np.zeros((2, 1), np.float16))
