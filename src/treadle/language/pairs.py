"""The families of encoder–decoders: T5 and Whisper."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from treadle.base.errors import LanguageModelError
from treadle.language.checkpoint import Tensors, check_shape, missing_tensors
from treadle.language.config import DecoderConfig, EncoderDecoderConfig, Learned, Relative
from treadle.language.errors import unsupported
from treadle.language.settings import Settings
from treadle.language.weights import encoder_decoder_shapes

_ENDLESS = 2**31 - 1
_ATTENTION = ("query", "key", "value", "output")
_T5_LAYER = {
    **{p: f"layer.0.SelfAttention.{p[0]}" for p in _ATTENTION},
    "attention_norm": "layer.0.layer_norm",
    **{f"cross_{p}": f"layer.1.EncDecAttention.{p[0]}" for p in _ATTENTION},
    "cross_norm": "layer.1.layer_norm",
}
_T5_LAST = {"gate": "wi_0", "up": "wi", "down": "wo"}
_WHISPER_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
_WHISPER_LAYER = {
    **{p: f"self_attn.{n}" for p, n in _WHISPER_ATTENTION.items()},
    "attention_norm": "self_attn_layer_norm",
    **{f"cross_{p}": f"encoder_attn.{n}" for p, n in _WHISPER_ATTENTION.items()},
    "cross_norm": "encoder_attn_layer_norm",
    "feed_forward_norm": "final_layer_norm",
    "up": "fc1",
    "down": "fc2",
}
_WHISPER_OUTER = {
    "embedding": "embed_tokens",
    "positions": "embed_positions",
    "final_norm": "layer_norm",
    "first": "conv1",
    "second": "conv2",
}
_ONLY_TRAINING = (
    "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "classifier_proj_size",
    "mask_time_prob", "mask_time_length", "mask_time_min_masks", "mask_feature_prob",
    "mask_feature_length", "mask_feature_min_masks", "apply_spec_augment", "median_filter_width",
    "max_initial_timestamp_index", "forced_decoder_ids", "alignment_heads",
)  # fmt: skip
"""Settings of Whisper that say nothing about logits."""


def read_pair_config(values: Mapping[str, Any]) -> EncoderDecoderConfig:
    """The configuration that a ``config.json`` says.

    Raises:
        LanguageModelError: E0900 for a family that is not known, E0901 for a setting that is
            missing or wrong, E0902 for one that is not supported.
    """
    settings = Settings(values)
    family = settings.find("model_type")
    readers = {"t5": _t5, "whisper": _whisper}
    if family not in readers:
        raise LanguageModelError(
            "E0900",
            f"there is no family of encoder–decoders '{family}'",
            help=f"use one of: {', '.join(readers)}",
        )
    return readers[family](settings)


def _ends(settings: Settings) -> tuple[int, ...]:
    ends = settings.find("eos_token_id", default=())
    return (ends,) if isinstance(ends, int) else tuple(ends)


def _t5(settings: Settings) -> EncoderDecoderConfig:
    settings.find(
        "dropout_rate", "initializer_factor", "is_gated_act", "dense_act_fn", "n_positions"
    )
    kind = settings.find("feed_forward_proj", default="relu")
    gated = kind.startswith("gated-")
    # The first version wrote "gelu" where it meant the approximation.
    activation = {"relu": "relu", "gelu": "gelu_tanh", "gelu_new": "gelu_tanh", "silu": "silu"}.get(
        kind.removeprefix("gated-")
    )
    if activation is None:
        raise unsupported("feed_forward_proj", kind, "use relu, gated-gelu or gated-silu")
    width, heads = settings.count("d_model"), settings.count("num_heads")
    layers = settings.count("num_layers")
    tied = settings.flag("tie_word_embeddings", True)
    scaled = settings.flag("scale_decoder_outputs", tied)
    decoder = DecoderConfig(
        family="t5",
        vocabulary=settings.count("vocab_size"),
        width=width,
        layers=settings.count("num_decoder_layers", default=layers),
        heads=heads,
        shared_heads=heads,
        head_width=settings.count("d_kv", default=64),
        hidden=settings.count("d_ff"),
        activation=activation,  # type: ignore[arg-type]  (of the table above)
        gated=gated,
        norm="rms",
        norm_eps=settings.number("layer_norm_epsilon", default=1e-6),
        position=Relative(
            settings.count("relative_attention_num_buckets", default=32),
            settings.count("relative_attention_max_distance", default=128),
        ),
        max_positions=_ENDLESS,
        score_scale=1.0,
        windows=(None,) * settings.count("num_decoder_layers", default=layers),
        tied=tied,
        logit_scale=width**-0.5 if scaled else 1.0,
        cross=True,
        start_token=settings.find("decoder_start_token_id", "pad_token_id", default=0),
        end_tokens=_ends(settings),
    )
    settings.finish()
    encoder = replace(decoder, layers=layers, windows=(None,) * layers, cross=False, tied=True)
    return EncoderDecoderConfig(encoder, decoder)


def _whisper(settings: Settings) -> EncoderDecoderConfig:
    settings.find(*_ONLY_TRAINING)
    settings.require("use_weighted_layer_sum", False)
    settings.require("scale_embedding", False)
    width, heads = settings.count("d_model"), settings.count("decoder_attention_heads")
    layers, inner = settings.count("decoder_layers"), settings.count("encoder_layers")
    decoder = DecoderConfig(
        family="whisper",
        vocabulary=settings.count("vocab_size"),
        width=width,
        layers=layers,
        heads=heads,
        shared_heads=heads,
        head_width=width // heads,
        hidden=settings.count("decoder_ffn_dim"),
        activation=settings.activation("activation_function", default="gelu"),
        gated=False,
        norm="layer",
        norm_eps=1e-5,
        position=Learned(),
        max_positions=settings.count("max_target_positions", default=448),
        score_scale=(width // heads) ** -0.5,
        windows=(None,) * layers,
        attention_bias=True,
        key_bias=False,
        output_bias=True,
        feed_forward_bias=True,
        tied=True,
        cross=True,
        deviation=settings.number("init_std", default=0.02),
        start_token=settings.find("decoder_start_token_id", default=50257),
        end_tokens=_ends(settings),
    )
    encoder_heads = settings.count("encoder_attention_heads", default=heads)
    encoder = replace(
        decoder,
        layers=inner,
        windows=(None,) * inner,
        heads=encoder_heads,
        shared_heads=encoder_heads,
        head_width=width // encoder_heads,
        score_scale=(width // encoder_heads) ** -0.5,
        hidden=settings.count("encoder_ffn_dim"),
        max_positions=settings.count("max_source_positions", default=1500),
        cross=False,
    )
    bands = settings.count("num_mel_bins", default=80)
    settings.finish()
    return EncoderDecoderConfig(encoder, decoder, bands)


def read_pair_weights(folder: Path, config: EncoderDecoderConfig) -> dict[str, np.ndarray]:
    """The weights of a folder by the names that ``encoder_decoder_shapes`` has.

    Raises:
        LanguageModelError: E0911 for a file that is missing or damaged, E0912 for tensors that are
            missing, E0913 for one of another shape or dtype than expected.
    """
    tensors = Tensors(folder)
    wanted = encoder_decoder_shapes(config)
    named = _t5_name if config.decoder.family == "t5" else _whisper_name
    sources = {name: named(name, config) for name in wanted}
    missing_tensors(folder, [s for s in sources.values() if s not in tensors], "lacks")
    return {n: check_shape(n, s, tensors[s], wanted[n]) for n, s in sources.items()}


def _t5_name(name: str, config: EncoderDecoderConfig) -> str:
    half, rest = ("encoder", name[8:]) if name.startswith("encoder.") else ("decoder", name)
    *layer, part, kind = rest.split(".")
    if layer:
        last = f"layer.{1 if half == 'encoder' else 2}"
        if part == "feed_forward_norm":
            where = f"{last}.layer_norm"
        elif part in _T5_LAST:
            gated_up = part == "up" and config.decoder.gated
            where = f"{last}.DenseReluDense.{'wi_1' if gated_up else _T5_LAST[part]}"
        else:
            where = _T5_LAYER[part]
        return f"{half}.block.{layer[1]}.{where}.{kind}"
    if part == "relative":
        return f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.{kind}"
    outer = {"embedding": "shared", "head": "lm_head"}
    return f"{outer[part]}.{kind}" if part in outer else f"{half}.final_layer_norm.{kind}"


def _whisper_name(name: str, config: EncoderDecoderConfig) -> str:
    half, rest = ("encoder", name[8:]) if name.startswith("encoder.") else ("decoder", name)
    *layer, part, kind = rest.split(".")
    if layer:
        return f"model.{half}.layers.{layer[1]}.{_WHISPER_LAYER[part]}.{kind}"
    return f"model.{half}.{_WHISPER_OUTER[part]}.{kind}"
