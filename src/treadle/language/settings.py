"""The settings of a model's ``config.json``, read one by one so that none is overlooked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from treadle.base.errors import LanguageModelError
from treadle.language.config import Activation, Rotary
from treadle.language.errors import unsupported

# What says nothing about the results of inference.
_IGNORED = frozenset(
    {
        "_name_or_path", "_attn_implementation", "_attn_implementation_autoset", "architectures",
        "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "auto_map",
        "bad_words_ids", "begin_suppress_tokens", "cache_implementation", "chunk_size_feed_forward",
        "classifier_dropout", "cross_attention_hidden_size", "diversity_penalty", "do_sample",
        "dropout", "dtype", "early_stopping", "embd_pdrop", "exponential_decay_length_penalty",
        "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing",
        "hidden_dropout", "hidden_dropout_prob", "id2label", "initializer_range", "init_std",
        "is_decoder", "is_encoder_decoder", "label2id", "layerdrop", "length_penalty",
        "masked_softmax_fusion", "max_length", "min_length", "model_type", "n_ctx",
        "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
        "offset_alibi", "output_attentions", "output_hidden_states", "output_scores",
        "pad_token_id", "predict_special_tokens", "prefix", "pretraining_tp", "problem_type",
        "reorder_and_upcast_attn", "repetition_penalty", "resid_pdrop", "return_dict",
        "return_dict_in_generate", "sep_token_id", "seq_length", "skip_bias_add",
        "skip_bias_add_qkv", "slow_but_exact", "suppress_tokens", "summary_activation",
        "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
        "task_specific_params", "temperature", "tf_legacy_loss", "tokenizer_class", "top_k",
        "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p", "unk_index",
        "unk_token_id", "use_bfloat16", "use_cache", "bos_token_id", "eos_token_id",
        "tie_word_embeddings", "vocab_size", "decoder_start_token_id", "remove_invalid_values",
        "encoder_no_repeat_ngram_size", "pruned_heads", "tie_encoder_decoder",
        "bias_dropout_fusion",
        "n_embed", "num_hidden_layers", "n_layer", "attention_softmax_in_fp32",
    }
)  # fmt: skip

_ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The entries of a ``config.json``; what nobody asked for is refused by ``finish``."""

    values: Mapping[str, Any]
    known: set[str] = field(default_factory=set[str])

    def find(self, *names: str, default: Any = None) -> Any:  # noqa: ANN401  (whatever JSON holds)
        """The value of the first of ``names`` that is there and not null."""
        self.known.update(names)
        found = [self.values[n] for n in names if self.values.get(n) is not None]
        return found[0] if found else default

    def number(self, *names: str, default: float | None = None) -> float:
        """A number.

        Raises:
            LanguageModelError: E0901 if it is missing or no number.
        """
        found = self.find(*names, default=default)
        if not isinstance(found, int | float) or isinstance(found, bool):
            raise _wrong(names[0], found, "a number")
        return found

    def count(self, *names: str, default: int | None = None) -> int:
        """A whole number above zero.

        Raises:
            LanguageModelError: E0901 if it is missing or none.
        """
        found = self.find(*names, default=default)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise _wrong(names[0], found, "a whole number above 0")
        return found

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value."""
        found = self.find(name, default=default)
        if not isinstance(found, bool):
            raise _wrong(name, found, "true or false")
        return found

    def require(self, name: str, expected: object, default: object = None) -> None:
        """Refuse another value than ``expected``.

        Raises:
            LanguageModelError: E0902.
        """
        found = self.find(name, default=expected if default is None else default)
        if found != expected:
            raise unsupported(name, found, f"use a model with '{name}' = {expected!r}")

    def activation(self, *names: str, default: str) -> Activation:
        """The function between the products of the feed-forward part.

        Raises:
            LanguageModelError: E0902 for one that is not known.
        """
        name = self.find(*names, default=default)
        found = _ACTIVATIONS.get(name)
        if found is None:
            raise unsupported(names[0], name, f"use one of: {', '.join(_ACTIVATIONS)}")
        return found

    def rotary(self, head_width: int, longest: int, part: float = 1.0) -> Rotary:
        """The rotary embedding, in the spelling of any version of the format.

        Raises:
            LanguageModelError: E0902 for a scaling that is not known.
        """
        given = self.find("rope_parameters", "rope_scaling", default={})
        if not isinstance(given, dict):
            raise _wrong("rope_parameters", given, "a table")
        base = self.number("rope_theta", "rotary_emb_base", default=10000.0)
        share = self.number("partial_rotary_factor", "rotary_pct", default=part)
        rope = Settings(given)
        kind = rope.find("rope_type", "type", default="default")
        theta = rope.number("rope_theta", default=base)
        width = int(head_width * rope.number("partial_rotary_factor", default=share))
        if width % 2:
            raise unsupported("partial_rotary_factor", share, "turn an even number of elements")
        if kind in ("default", "dynamic"):
            # dynamic scaling begins after the longest sequence, where this program ends.
            rope.find("factor", "original_max_position_embeddings")
            rope.finish("rope_parameters.")
            return Rotary(width, theta)
        if kind == "linear":
            factor = rope.number("factor")
            rope.finish("rope_parameters.")
            return Rotary(width, theta, "linear", factor)
        if kind == "llama3":
            factor = rope.number("factor")
            low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
            original = rope.count("original_max_position_embeddings", default=longest)
            rope.finish("rope_parameters.")
            return Rotary(width, theta, "llama3", factor, low, high, original)
        if kind == "yarn":
            return rope.yarn(width, theta, longest)
        raise unsupported(
            "rope_parameters.rope_type", kind, "use one of: default, linear, llama3, yarn, dynamic"
        )

    def yarn(self, width: int, theta: float, longest: int) -> Rotary:
        """The scaling of YaRN, of which these are the settings.

        Source: Peng et al., arXiv 2309.00071, sections 3.2 and 3.4.
        """
        original = self.count("original_max_position_embeddings", default=longest)
        factor = self.number("factor", default=longest / original)
        low, high = self.number("beta_slow", default=1), self.number("beta_fast", default=32)
        parts = [self.number(name, default=0) for name in ("mscale", "mscale_all_dim")]
        inferred = _length(factor, parts[0]) / _length(factor, parts[1])
        gain = self.number("attention_factor", default=inferred if all(parts) else _length(factor))
        whole = self.flag("truncate", default=True)
        self.finish("rope_parameters.")
        return Rotary(width, theta, "yarn", factor, low, high, original, gain, whole)

    def finish(self, prefix: str = "") -> None:
        """Refuse settings that were not read, unless they are off.

        Raises:
            LanguageModelError: E0902.
        """
        for name, value in self.values.items():
            off = value is None or value is False or value in ({}, [])
            if name not in self.known and name not in _IGNORED and not off:
                raise unsupported(
                    prefix + name, value, "leave it out if the model's results do not depend on it"
                )


def _length(factor: float, scale: float = 1.0) -> float:
    """How many times as long queries and keys are made when texts are so many times as long."""
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0


def _wrong(name: str, found: object, expected: str) -> LanguageModelError:
    said = "is missing" if found is None else f"is {found!r}"
    return LanguageModelError(
        "E0901", f"the setting '{name}' {said}", help=f"give {expected} in config.json"
    )
