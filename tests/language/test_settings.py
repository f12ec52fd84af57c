"""What a ``config.json`` says is understood or refused by name."""

import numpy as np
import pytest
from benchmarks.common import torchvision_operators  # noqa: F401  (before transformers)
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from treadle.base.errors import LanguageModelError
from treadle.language import read_config
from treadle.language.config import Rotary
from treadle.language.positions import frequencies, slopes

LLAMA = {
    "model_type": "llama", "vocab_size": 20, "hidden_size": 64, "intermediate_size": 12,
    "num_hidden_layers": 4, "num_attention_heads": 2,
}  # fmt: skip


def test_old_and_new_spellings_of_rotary_embeddings_mean_the_same():
    old = {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}
    new = {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}}
    assert read_config(LLAMA | old) == read_config(LLAMA | new)
    assert read_config(LLAMA | new).position == Rotary(32, 5e5, "linear", 4.0)


def test_the_rotated_part_may_be_said_in_either_place():
    phi = LLAMA | {"model_type": "phi"}
    a = read_config(phi | {"partial_rotary_factor": 0.25})
    b = read_config(phi | {"rope_parameters": {"partial_rotary_factor": 0.25}})
    assert a == b
    assert read_config(phi).position == Rotary(16)


def test_windows_are_those_of_the_layers():
    assert read_config(LLAMA | {"model_type": "mistral", "sliding_window": 8}).window == 8
    assert read_config(LLAMA | {"model_type": "mistral", "sliding_window": None}).window is None
    gemma2 = read_config(LLAMA | {"model_type": "gemma2", "sliding_window": 8})
    assert gemma2.windows == (8, None, 8, None)
    assert gemma2.window is None
    qwen2 = LLAMA | {"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 3}
    assert read_config(qwen2).windows == (None,) * 4
    assert read_config(qwen2 | {"use_sliding_window": True}).windows == (None, None, None, 8)


def test_several_tokens_may_end_a_text():
    assert read_config(LLAMA | {"eos_token_id": [2, 3]}).end_tokens == (2, 3)
    assert read_config(LLAMA | {"eos_token_id": 2}).end_tokens == (2,)
    assert read_config(LLAMA).end_tokens == ()


@pytest.mark.parametrize(
    ("code", "name", "change"),
    [
        ("E0900", "mamba", {"model_type": "mamba"}),
        ("E0901", "vocab_size", {"vocab_size": None}),
        ("E0901", "hidden_size", {"hidden_size": "wide"}),
        ("E0901", "num_attention_heads", {"num_attention_heads": 3}),
        ("E0901", "attention_bias", {"attention_bias": 1}),
        ("E0901", "rope_parameters", {"rope_scaling": 3}),
        ("E0902", "hidden_act", {"hidden_act": "mish"}),
        ("E0902", "rope_parameters.rope_type", {"rope_scaling": {"rope_type": "longrope"}}),
        ("E0902", "rope_parameters.extra", {"rope_scaling": {"extra": 2}}),
        ("E0902", "partial_rotary_factor", {"partial_rotary_factor": 0.1}),
        ("E0902", "quantization_config", {"quantization_config": {"bits": 4}}),
        ("E0902", "num_experts", {"num_experts": 8}),
        ("E0902", "qk_layernorm", {"model_type": "phi", "qk_layernorm": True}),
    ],
)
def test_what_is_not_understood_is_refused_by_name(code, name, change):
    with pytest.raises(LanguageModelError) as caught:
        read_config(LLAMA | change)
    assert caught.value.code == code
    assert f"'{name}'" in str(caught.value)


def test_settings_that_are_off_are_accepted():
    off = {"num_experts": None, "use_something": False, "list_of_things": []}
    assert read_config(LLAMA | off) == read_config(LLAMA)


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12, 71])
def test_slopes_fall_geometrically_in_two_series(heads):
    found = slopes(heads)
    assert found.shape == (heads,)
    power = 2 ** int(np.log2(heads))
    first = found[:power].astype(np.float64)
    np.testing.assert_allclose(first, 2.0 ** (-8 / power * np.arange(1, power + 1)), rtol=1e-5)
    assert len(set(found.tolist())) == heads


def test_frequencies_of_llama3_keep_the_fast_and_divide_the_slow():
    plain = frequencies(Rotary(64))
    scaled = frequencies(Rotary(64, scaling="llama3", factor=8.0, original=256))
    ratio = plain / scaled
    np.testing.assert_allclose(ratio[2 * np.pi / plain < 64], 1.0)
    np.testing.assert_allclose(ratio[2 * np.pi / plain > 256], 8.0, rtol=1e-6)
    assert (np.diff(ratio) >= -1e-5).all()


@pytest.mark.parametrize(
    "given",
    [
        {"factor": 4.0, "original_max_position_embeddings": 64},
        {"factor": 8.0, "beta_fast": 16, "beta_slow": 2, "original_max_position_embeddings": 512},
        {"factor": 40.0, "mscale": 0.707, "mscale_all_dim": 0.9, "truncate": False},
        {"factor": 2.0, "attention_factor": 1.25, "original_max_position_embeddings": 8},
    ],
)
def test_yarn_is_that_of_transformers(given):
    given = {"rope_type": "yarn", "rope_theta": 1e4, **given}
    settings = {**LLAMA, "head_dim": 64, "rope_parameters": given}
    found = read_config(settings).position
    config = LlamaConfig(**{k: v for k, v in settings.items() if k != "model_type"})
    wanted, gain = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    np.testing.assert_allclose(frequencies(found), wanted.numpy(), rtol=1e-5)
    assert found.gain == pytest.approx(gain)
