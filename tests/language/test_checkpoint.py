"""Folders are read in all their layouts, and what does not fit is refused by name."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from treadle.base.errors import LanguageModelError
from treadle.language import read_config
from treadle.language.checkpoint import read_json, read_weights
from treadle.language.weights import random_weights, shapes

LLAMA = {
    "model_type": "llama", "vocab_size": 20, "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
NEOX = {
    "model_type": "gpt_neox", "vocab_size": 20, "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 1, "num_attention_heads": 2, "rotary_pct": 1.0,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "vocab_size": 20, "n_embd": 8, "n_layer": 1, "n_head": 2}
PARTS = {
    "attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm",
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
    "output": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}  # fmt: skip


def llama_tensors(seed=0):
    """Random weights under the names of the hub."""
    names = {"embedding.weight": "model.embed_tokens.weight", "final_norm.weight":
             "model.norm.weight", "head.weight": "lm_head.weight"}  # fmt: skip
    found = {}
    for name, array in random_weights(read_config(LLAMA), seed).items():
        if name in names:
            found[names[name]] = array
        else:
            _, layer, part, kind = name.split(".")
            found[f"model.layers.{layer}.{PARTS[part]}.{kind}"] = array
    return found


def save(tensors, folder, file="model.safetensors"):
    safetensors.numpy.save_file(
        {n: np.ascontiguousarray(a) for n, a in tensors.items()}, folder / file
    )


def refused(code, folder, settings=LLAMA):
    with pytest.raises(LanguageModelError) as caught:
        read_weights(folder, read_config(settings))
    assert caught.value.code == code
    return str(caught.value)


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_one_file_is_read(tmp_path):
    save(llama_tensors(), tmp_path)
    config = read_config(LLAMA)
    assert_equal(read_weights(tmp_path, config), random_weights(config))


def test_shards_are_found_by_the_index(tmp_path):
    tensors = llama_tensors()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        save({n: tensors[n] for n in part}, tmp_path, file)
    index = {"weight_map": {n: file for file, part in shards.items() for n in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    config = read_config(LLAMA)
    assert_equal(read_weights(tmp_path, config), random_weights(config))


def test_files_without_the_prefix_are_read(tmp_path):
    save({n.removeprefix("model."): a for n, a in llama_tensors().items()}, tmp_path)
    config = read_config(LLAMA)
    assert_equal(read_weights(tmp_path, config), random_weights(config))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_short_floats_are_kept(tmp_path, dtype):
    save({n: a.astype(dtype) for n, a in llama_tensors().items()}, tmp_path)
    found = read_weights(tmp_path, read_config(LLAMA))
    assert {a.dtype for a in found.values()} == {np.dtype(dtype)}


def test_queries_keys_and_values_of_one_tensor_are_taken_apart(tmp_path):
    """GPT-2 has them one after another, in columns; GPT-NeoX head by head, in rows."""
    rows = np.arange(24 * 8, dtype=np.float32).reshape(24, 8)
    config = read_config(NEOX)
    tensors = {
        "gpt_neox.embed_in.weight": np.zeros((20, 8), np.float32),
        "embed_out.weight": np.ones((20, 8), np.float32),
        "gpt_neox.final_layer_norm.weight": np.zeros(8, np.float32),
        "gpt_neox.final_layer_norm.bias": np.zeros(8, np.float32),
    }
    parts = {
        "attention.query_key_value": rows, "attention.dense": np.zeros((8, 8), np.float32),
        "mlp.dense_h_to_4h": np.zeros((12, 8), np.float32),
        "mlp.dense_4h_to_h": np.zeros((8, 12), np.float32),
        "input_layernorm": np.zeros(8, np.float32),
        "post_attention_layernorm": np.zeros(8, np.float32),
    }  # fmt: skip
    for name, array in parts.items():
        tensors[f"gpt_neox.layers.0.{name}.weight"] = array
        tensors[f"gpt_neox.layers.0.{name}.bias"] = array[..., 0] if array.ndim > 1 else array
    tensors["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = np.zeros(2, np.float32)
    save(tensors, tmp_path)
    found = read_weights(tmp_path, config)
    head = [found[f"layers.0.{n}.weight"] for n in ("query", "key", "value")]
    np.testing.assert_array_equal(head[0], np.concatenate([rows[0:4], rows[12:16]]))
    np.testing.assert_array_equal(head[1], np.concatenate([rows[4:8], rows[16:20]]))
    np.testing.assert_array_equal(head[2], np.concatenate([rows[8:12], rows[20:24]]))
    assert found["layers.0.value.bias"].shape == (8,)
    assert (found["head.weight"] == 1).all()


def test_missing_and_extra_tensors_are_named(tmp_path):
    tensors = llama_tensors()
    less = {n: a for n, a in tensors.items() if "layers.1.mlp.up" not in n}
    save(less, tmp_path)
    assert "model.layers.1.mlp.up_proj.weight" in refused("E0912", tmp_path)
    save({**tensors, "model.layers.2.extra": np.zeros(2, np.float32)}, tmp_path)
    assert "model.layers.2.extra" in refused("E0912", tmp_path)


def test_a_tensor_of_another_shape_or_dtype_is_named(tmp_path):
    tensors = llama_tensors()
    save({**tensors, "model.norm.weight": np.ones(9, np.float32)}, tmp_path)
    assert "shape (9,) for 'final_norm.weight'" in refused("E0913", tmp_path)
    save({**tensors, "model.norm.weight": np.ones(8, np.int32)}, tmp_path)
    assert "a int32 of shape (8,)" in refused("E0913", tmp_path)


def test_damaged_files_are_refused(tmp_path):
    assert "has no weights" in refused("E0911", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    assert "cannot read weights" in refused("E0911", tmp_path)
    (tmp_path / "config.json").write_text("[1, 2]")
    for text in ("[1, 2]", "{"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(LanguageModelError) as caught:
            read_json(tmp_path / "config.json")
        assert caught.value.code == "E0910"


def test_random_weights_follow_the_seed_and_the_settings():
    config = read_config(GPT2 | {"initializer_range": 0.5, "n_embd": 64})
    a, b, c = (random_weights(config, seed) for seed in (0, 0, 1))
    assert_equal(a, b)
    assert {n: x.shape for n, x in a.items()} == shapes(config)
    assert (a["layers.0.up.weight"] != c["layers.0.up.weight"]).any()
    assert abs(a["layers.0.up.weight"].std() - 0.5) < 0.02
    assert abs(a["layers.0.down.weight"].std() - 0.5 * 2**-0.5) < 0.02
    assert (a["layers.0.attention_norm.weight"] == 1).all()
    assert (a["layers.0.up.bias"] == 0).all()
