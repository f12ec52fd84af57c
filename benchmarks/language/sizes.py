"""The models that are compared: Llamas with random weights, as settings of ``config.json``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny": {
            **_COMMON,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 512,
        },
        "110m": {
            **_COMMON,
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "num_key_value_heads": 12,
        },
        "1.1b": {
            **_COMMON,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
        },
    }
)
"""``110m`` is as wide as BERT-base; ``1.1b`` is TinyLlama (arXiv 2401.02385, table 1)."""

KINDS = ("f32", "bf16", "int8", "int4")
"""How weights are kept: int8 as Q8_0, int4 as Q4_0, both in blocks of 32."""
