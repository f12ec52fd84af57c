"""Decoders of all families with random weights, as transformers makes and runs them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from . import torchvision_operators  # noqa: F401  (before transformers)

from transformers import AutoConfig, AutoModelForCausalLM  # isort: skip

_USUAL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 99,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {
        **_USUAL,
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "qwen2": {
        **_USUAL,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "mistral": {**_USUAL, "num_key_value_heads": 2, "head_dim": 24, "sliding_window": 20},
    "gemma": {**_USUAL, "num_key_value_heads": 1, "head_dim": 32},
    "gemma2": {
        **_USUAL,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 20,
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 8.0,
    },
    "phi": {**_USUAL},
    "gpt2": {
        "vocab_size": 99,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gpt_neox": {**_USUAL, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    "opt": {
        "vocab_size": 99,
        "hidden_size": 64,
        "ffn_dim": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 64,
        "max_position_embeddings": 512,
    },
    "opt_after": {
        "vocab_size": 99,
        "hidden_size": 64,
        "ffn_dim": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 48,
        "do_layer_norm_before": False,
        "max_position_embeddings": 512,
    },
    "bloom": {"vocab_size": 99, "hidden_size": 48, "n_layer": 2, "n_head": 6},
}
"""Small settings of each family, chosen so that each of its parts counts."""


def decoder(family: str, seed: int = 0, **changes: Any) -> nn.Module:  # noqa: ANN401  (settings)
    """A model of a family, in evaluation mode; all weights random, those of norms too, and large
    enough that its choices are clear.
    """
    torch.manual_seed(seed)
    settings = {"initializer_range": 0.2, **SETTINGS[family], **changes}
    if "rope_parameters" in settings:
        settings["rope_parameters"] = {"rope_theta": 10000.0} | settings["rope_parameters"]
    settings.pop("initializer_range") if family.startswith("opt") else None
    config = AutoConfig.for_model(family.partition("_after")[0], **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.1 if p.ndim == 1 else 0.02))
    return model


def saved(model: nn.Module, folder: Path) -> Path:
    """The folder, with the model in it."""
    model.save_pretrained(folder)  # type: ignore[operator]  (a method of transformers)
    return folder


def logits_of(model: nn.Module, tokens: Sequence[int]) -> np.ndarray:
    """The logits (t, vocabulary) of every token of a text."""
    with torch.no_grad():
        return model(torch.tensor([list(tokens)])).logits[0].numpy()


def continued(model: nn.Module, tokens: Sequence[int], count: int) -> list[int]:
    """The likeliest ``count`` tokens after a text, one after another."""
    with torch.no_grad():
        result = model.generate(  # type: ignore[operator]
            torch.tensor([list(tokens)]),
            attention_mask=torch.ones(1, len(tokens), dtype=torch.int64),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            num_beams=1,
            eos_token_id=None,
            pad_token_id=0,
        )
    return result[0, len(tokens) :].tolist()
