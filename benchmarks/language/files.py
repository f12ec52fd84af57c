"""The same random weights as files: a folder as transformers writes it, and GGUF."""

from pathlib import Path

import gguf
import numpy as np
import torch

from ..common import torchvision_operators  # noqa: F401  (before transformers)
from .sizes import SIZES

from transformers import LlamaConfig, LlamaForCausalLM  # isort: skip

_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_STORED = {
    "f32": gguf.GGMLQuantizationType.F32,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "int8": gguf.GGMLQuantizationType.Q8_0,
    "int4": gguf.GGMLQuantizationType.Q4_0,
}


def write_folder(size: str, folder: Path) -> Path:
    """A folder with config.json and safetensors in f32, of weights with a fixed seed."""
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**SIZES[size])).float().save_pretrained(folder)
    return folder


def write_gguf(folder: Path, kind: str) -> Path:
    """The weights of a folder as a GGUF file without a vocabulary."""
    path = folder / f"{kind}.gguf"
    if path.exists():
        return path
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        stored = _name(name)
        array = weight.numpy()
        part = stored.split(".")[-2]
        if part in heads:
            array = _in_pairs(array, heads[part])
        to = _STORED[kind] if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quantize(np.ascontiguousarray(array), to)
        writer.add_tensor(stored, data, raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _name(name: str) -> str:
    """What GGUF calls a weight of transformers."""
    if name in _OUTER:
        return _OUTER[name]
    _, _, number, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{number}.{_PARTS[part]}.weight"


def _in_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order for a rotation of neighbours, which llama.cpp does."""
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)
