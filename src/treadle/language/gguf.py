"""Models in GGUF, the file format of llama.cpp: settings, packed weights, tokenizer.

Weights in blocks of 32 (Q4_0, Q4_1, Q8_0) keep their codes: only the order in memory changes. The
layouts are those of the format's description in ggml; files are read with the ``gguf`` package.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType as Stored
from gguf import GGUFReader, ReaderTensor, dequantize

from treadle.base.errors import LanguageModelError
from treadle.language.config import DecoderConfig, Rotary
from treadle.language.errors import unsupported
from treadle.language.families import read_config
from treadle.language.positions import frequencies
from treadle.language.quantize import GROUP, Kind, QuantizedWeight
from treadle.language.weights import Weight, shapes

_SETTINGS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
"""What GGUF calls the settings of a model, after the architecture, and what config.json does."""

_OUTER = {"embedding": "token_embd", "final_norm": "output_norm", "head": "output"}
_LAYER = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
_ARCHITECTURES = ("llama", "qwen2")
_TURNED_IN_PAIRS = ("llama",)
"""Architectures whose files turn neighbouring elements of queries and keys, not halves."""
_FREQUENCIES = "rope_freqs.weight"
_BLOCKS: Mapping[Stored, tuple[Kind, int]] = {
    Stored.Q4_0: ("int4", 18),
    Stored.Q4_1: ("int4_affine", 20),
    Stored.Q8_0: ("int8_grouped", 34),
}
"""Kinds of weights, and the bytes of a block of 32: the scale, the offset if any, the codes."""
_FLOATS = (Stored.F32, Stored.F16)


@dataclass(frozen=True, slots=True)
class GgufModel:
    """What a file holds: the configuration, the weights by the names of ``weights.shapes``, and all
    settings as the file has them.
    """

    config: DecoderConfig
    weights: Mapping[str, Weight]
    metadata: Mapping[str, Any]


def read_gguf(path: str | Path) -> GgufModel:
    """Read a model.

    Blocks of Q4_0, Q4_1 and Q8_0 become weights of int4, int4_affine and int8_grouped with the same
    values; F32, F16 and BF16 stay as they are, and other types become F16.

    Raises:
        LanguageModelError: E0911 for a file that is missing or damaged, E0900 to E0902 for
            settings, E0912 and E0913 for tensors that do not fit them.
    """
    try:
        reader = GGUFReader(path)
        metadata = {name: f.contents() for name, f in reader.fields.items()}
    except (OSError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise LanguageModelError(
            "E0911",
            f"cannot read weights from '{path}'",
            notes=(str(error).partition("\n")[0],),
            help="name a file of GGUF, version 2 or 3, or copy it again",
        ) from error
    tensors = {t.name: t for t in reader.tensors}
    config = gguf_config(metadata, tensors)
    return GgufModel(config, _Tensors(str(path), config, metadata, tensors).read(), metadata)


def gguf_config(metadata: Mapping[str, Any], tensors: Mapping[str, ReaderTensor]) -> DecoderConfig:
    """The configuration that a file's settings and the names of its tensors say.

    Raises:
        LanguageModelError: E0900 to E0902.
    """
    arch = metadata.get("general.architecture")
    if arch not in _ARCHITECTURES:
        raise LanguageModelError(
            "E0900",
            f"there is no family of language models '{arch}' in GGUF",
            help=f"use one of: {', '.join(_ARCHITECTURES)}",
        )
    given = {
        ours: metadata[f"{arch}.{theirs}"]
        for theirs, ours in _SETTINGS.items()
        if f"{arch}.{theirs}" in metadata
    }
    token = "tokenizer.ggml."
    ends = [metadata.get(f"{token}{name}_token_id") for name in ("eos", "eot")]
    embedding = tensors.get("token_embd.weight")
    values = {
        **given,
        "model_type": arch,
        "vocab_size": None if embedding is None else int(embedding.shape[1]),
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": metadata.get(f"{token}bos_token_id"),
        "eos_token_id": [e for e in dict.fromkeys(ends) if e is not None],
        "rope_scaling": _scaling(metadata, arch, tensors, given),
    }
    if arch == "llama":
        values["attention_bias"] = "blk.0.attn_q.bias" in tensors
    width = given.get("hidden_size", 0) // max(given.get("num_attention_heads", 1), 1)
    turned = metadata.get(f"{arch}.rope.dimension_count", given.get("head_dim", width))
    if turned != given.get("head_dim", width):
        raise unsupported("rope.dimension_count", turned, "use a model that turns whole heads")
    return read_config(values)


def _scaling(
    metadata: Mapping[str, Any],
    arch: str,
    tensors: Mapping[str, ReaderTensor],
    given: Mapping[str, Any],
) -> dict[str, Any] | None:
    """The scaling of angles, as config.json says it."""
    table = tensors.get(_FREQUENCIES)
    if table is not None:
        return _scaling_of_table(np.asarray(table.data, np.float32), given)
    kind = metadata.get(f"{arch}.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind != "linear":
        raise unsupported("rope.scaling.type", kind, "use one of: none, linear")
    return {"rope_type": "linear", "factor": metadata.get(f"{arch}.rope.scaling.factor", 1.0)}


def _scaling_of_table(divisors: np.ndarray, given: Mapping[str, Any]) -> dict[str, Any]:
    """The scaling of Llama 3, recognized by what it divides the angles' frequencies by: the file
    has these numbers, but not what they were computed from.
    """
    theta, factor = float(given.get("rope_theta", 10000.0)), float(divisors.max())
    for original in (8192, 4096, 16384):
        scaled = Rotary(2 * divisors.size, theta, "llama3", factor, 1.0, 4.0, original)
        plain = Rotary(2 * divisors.size, theta)
        if np.allclose(frequencies(plain) / frequencies(scaled), divisors, rtol=1e-3):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            }
    raise unsupported(_FREQUENCIES, divisors.tolist(), "use a model with the scaling of Llama 3")


@dataclass(frozen=True, slots=True)
class _Tensors:
    """Reads the tensors of a file as the weights of a configuration."""

    path: str
    config: DecoderConfig
    metadata: Mapping[str, Any]
    tensors: Mapping[str, ReaderTensor]

    def read(self) -> dict[str, Weight]:
        wanted = shapes(self.config)
        sources = {name: gguf_name(name) for name in wanted}
        self.check_names(set(sources.values()))
        found: dict[str, Weight] = {}
        for name, shape in wanted.items():
            tensor = self.tensors[sources[name]]
            stored = tuple(int(d) for d in reversed(tensor.shape))
            if stored != shape:
                raise LanguageModelError(
                    "E0913",
                    f"the tensor '{tensor.name}' has shape {stored}, where '{name}' has {shape}",
                    notes=("the file's own settings say so",),
                    help="use a file that was converted as a whole",
                )
            found[name] = self.ordered(name, gguf_weight(tensor))
        return found

    def check_names(self, used: set[str]) -> None:
        extra = [n for n in self.tensors if n not in used and n != _FREQUENCIES]
        missing = sorted(used - set(self.tensors))
        for what, names in (("lacks", missing), ("has, of no use to the model,", extra)):
            if names:
                raise LanguageModelError(
                    "E0912",
                    f"'{self.path}' {what} {len(names)} of the model's tensors",
                    notes=(", ".join(names[:5]),),
                    help="use a file that was converted as a whole",
                )

    def ordered(self, name: str, weight: Weight) -> Weight:
        """A weight with the rows of queries and keys in halves, as our programs turn them."""
        part, config = name.split(".")[-2], self.config
        if config.family not in _TURNED_IN_PAIRS or part not in ("query", "key"):
            return weight
        heads = config.heads if part == "query" else config.shared_heads
        rows = halves_from_pairs(heads, config.head_width)
        return weight.taken(rows) if isinstance(weight, QuantizedWeight) else weight[rows]


def halves_from_pairs(heads: int, width: int) -> np.ndarray:
    """For each row of a projection to heads whose first half is turned against the second, its
    number in one that turns neighbours.
    """
    rows = np.arange(heads * width).reshape(heads, width // 2, 2)
    return rows.swapaxes(1, 2).reshape(-1)


def gguf_name(name: str) -> str:
    """What GGUF calls a weight of ``weights.shapes``."""
    *outer, part, kind = name.split(".")
    return f"blk.{outer[1]}.{_LAYER[part]}.{kind}" if outer else f"{_OUTER[part]}.{kind}"


def gguf_weight(tensor: ReaderTensor) -> Weight:
    """A tensor of a file: packed where there is a kind of weights like it, else an array."""
    stored = Stored(tensor.tensor_type)
    if stored in _BLOCKS and len(tensor.shape) == 2:
        return _packed(np.asarray(tensor.data), *_BLOCKS[stored])
    if stored in _FLOATS:
        return np.asarray(tensor.data)
    if stored == Stored.BF16:
        data = np.ascontiguousarray(tensor.data)
        return data.view(ml_dtypes.bfloat16).reshape(tuple(reversed(tensor.shape)))
    return dequantize(tensor.data, stored).astype(np.float16)


def _packed(data: np.ndarray, kind: Kind, size: int) -> QuantizedWeight:
    """Blocks (outputs, bytes) taken apart: scales, offsets and codes by themselves."""
    outputs = len(data)
    blocks = data.reshape(outputs, -1, size)
    numbers = 2 * (1 + (kind == "int4_affine"))
    heads = np.ascontiguousarray(blocks[..., :numbers]).view(np.float16)
    codes = np.ascontiguousarray(blocks[..., numbers:]).reshape(outputs, -1)
    offsets = np.ascontiguousarray(heads[..., 1]) if numbers > 2 else None
    return QuantizedWeight(
        kind,
        outputs,
        blocks.shape[1] * GROUP,
        codes.view(np.int8) if kind == "int8_grouped" else codes,
        np.ascontiguousarray(heads[..., 0]),
        offsets,
    )
