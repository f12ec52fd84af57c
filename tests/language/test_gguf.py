from dataclasses import replace
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest

from treadle.base.errors import LanguageModelError
from treadle.language.config import DecoderConfig, Rotary
from treadle.language.families import read_config
from treadle.language.gguf import gguf_name, halves_from_pairs, read_gguf
from treadle.language.model import LanguageModel
from treadle.language.positions import frequencies
from treadle.language.quantize import QuantizedWeight, dequantized
from treadle.language.weights import random_weights

Stored = gguf.GGMLQuantizationType
PACKED = {"int4": Stored.Q4_0, "int4_affine": Stored.Q4_1, "int8_grouped": Stored.Q8_0}
ARRAYS = (Stored.F32, Stored.F16, Stored.BF16)


def config_of(family: str, *, tied: bool = False) -> DecoderConfig:
    return read_config(
        {
            "model_type": family,
            "vocab_size": 96,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "rms_norm_eps": 2.0**-17,
            "rope_theta": 10000.0,
            "tie_word_embeddings": tied,
            "bos_token_id": 1,
            "eos_token_id": [2, 3],
        }
    )


def in_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows as the converter of llama.cpp orders them for its rotation of neighbours."""
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write(
    path: Path,
    config: DecoderConfig,
    stored: Stored,
    *,
    table: np.ndarray | None = None,
    without: str = "",
    change: str = "",
) -> dict[str, np.ndarray]:
    """A file of random weights; what they are in f32 before they are stored."""
    weights = random_weights(config, 5)
    writer = gguf.GGUFWriter(path, config.family)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.shared_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_width)
    assert isinstance(config.position, Rotary)
    writer.add_rope_freq_base(config.position.theta)
    if change == "scaling":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    if change == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(3)
    for name, weight in weights.items():
        if name == without:
            continue
        array, part = weight, name.split(".")[-2]
        if config.family == "llama" and part in ("query", "key"):
            array = in_pairs(array, config.heads if part == "query" else config.shared_heads)
        if change == "shape" and part == "down":
            array = np.concatenate((array, array))
        kind = stored if array.ndim == 2 else Stored.F32
        data = gguf.quantize(np.ascontiguousarray(array), kind)
        writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
    if table is not None:
        writer.add_tensor("rope_freqs.weight", table)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def restored(weight: object) -> np.ndarray:
    return dequantized(weight) if isinstance(weight, QuantizedWeight) else np.asarray(weight)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("kind", sorted(PACKED))
def test_blocks_keep_their_values(tmp_path: Path, family: str, kind: str):
    config, path = config_of(family), tmp_path / "m.gguf"
    weights = write(path, config, PACKED[kind])
    model = read_gguf(path)
    assert model.config == config
    assert model.weights.keys() == weights.keys()
    for name, weight in weights.items():
        found = model.weights[name]
        assert isinstance(found, QuantizedWeight) == (weight.ndim == 2)
        expected = weight
        if weight.ndim == 2:
            assert isinstance(found, QuantizedWeight)
            assert found.kind == kind
            expected = gguf.dequantize(gguf.quantize(weight, PACKED[kind]), PACKED[kind])
        np.testing.assert_allclose(restored(found), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("stored", ARRAYS, ids=str)
def test_floats_stay_as_they_are_stored(tmp_path: Path, stored: Stored):
    path = tmp_path / "m.gguf"
    weights = write(path, config_of("llama", tied=True), stored)
    model = read_gguf(path)
    dtypes = {Stored.F32: np.float32, Stored.F16: np.float16, Stored.BF16: ml_dtypes.bfloat16}
    assert model.config.tied
    for name, weight in weights.items():
        if weight.ndim == 2:
            assert restored(model.weights[name]).dtype == dtypes[stored]
            np.testing.assert_array_equal(model.weights[name], weight.astype(dtypes[stored]))


def test_other_types_become_f16(tmp_path: Path):
    path = tmp_path / "m.gguf"
    weights = write(path, config_of("llama"), Stored.Q5_0)
    found = restored(read_gguf(path).weights["layers.0.up.weight"])
    assert found.dtype == np.float16
    up = weights["layers.0.up.weight"]
    np.testing.assert_allclose(found, up, atol=np.abs(up).max() / 15)


def test_pairs_become_halves():
    rows = np.arange(24)
    np.testing.assert_array_equal(in_pairs(rows, 3)[halves_from_pairs(3, 8)], rows)


@pytest.mark.parametrize("original", [8192, 4096])
def test_the_scaling_of_llama_3_is_recognized(tmp_path: Path, original: int):
    scaled = Rotary(16, 10000.0, "llama3", 8.0, 1.0, 4.0, original)
    config = replace(config_of("llama"), position=scaled)
    divisors = frequencies(Rotary(16)) / frequencies(scaled)
    write(tmp_path / "m.gguf", config, Stored.F32, table=divisors)
    assert read_gguf(tmp_path / "m.gguf").config == config


def test_linear_scaling_is_read(tmp_path: Path):
    write(tmp_path / "m.gguf", config_of("qwen2"), Stored.F32, change="linear")
    position = read_gguf(tmp_path / "m.gguf").config.position
    assert position == Rotary(16, 10000.0, "linear", 4.0)


def test_a_packed_model_gives_the_logits_of_its_values(tmp_path: Path):
    config, path = config_of("llama"), tmp_path / "m.gguf"
    write(path, config, Stored.Q4_0)
    loaded = read_gguf(path)
    plain = {n: restored(w).astype(np.float32) for n, w in loaded.weights.items()}
    logits = []
    for weights in (loaded.weights, plain):
        model = LanguageModel(config, weights, threads=1)
        cache = model.new_cache(4)
        logits.append(model.step(cache.append([(cache.create(), [1, 5, 9])])))
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("code", "family", "options"),
    [
        ("E0900", "starcoder", {}),
        ("E0902", "llama", {"change": "scaling"}),
        ("E0902", "llama", {"table": np.linspace(1, 3, 8, dtype=np.float32)}),
        ("E0912", "llama", {"without": "layers.1.up.weight"}),
        ("E0913", "llama", {"change": "shape"}),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, code: str, family: str, options: dict):
    config = replace(config_of("llama"), family=family)
    write(tmp_path / "m.gguf", config, Stored.F32, **options)
    with pytest.raises(LanguageModelError) as caught:
        read_gguf(tmp_path / "m.gguf")
    assert caught.value.code == code


@pytest.mark.parametrize("size", [0, 3, 100, 2000])
def test_a_damaged_file_is_refused(tmp_path: Path, size: int):
    path = tmp_path / "m.gguf"
    write(path, config_of("llama"), Stored.F32)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LanguageModelError) as caught:
        read_gguf(path)
    assert caught.value.code == "E0911"


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(LanguageModelError, match="cannot read weights"):
        read_gguf(tmp_path / "none.gguf")
