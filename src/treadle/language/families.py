"""The families of decoders: their settings as a ``DecoderConfig``, and what their files call the
weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from treadle.base.errors import LanguageModelError
from treadle.language.config import Alibi, DecoderConfig, Learned
from treadle.language.settings import Settings

Names = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    ``configure`` reads the settings. ``prefix`` begins the names of a file's tensors (but for the
    head), and may be missing there. ``outer`` and ``layer`` say what the file calls a part;
    ``query|key|value`` stands for a tensor of all three. ``interleaved``: these three alternate
    from head to head, and do not come one after another. ``transposed``: matrices are stored as
    (inputs, outputs). ``one_added``: norms multiply by one more than their weight.
    ``skipped_positions``: so many rows of the positions' table come before the first.
    """

    configure: Callable[[Settings, "Base"], DecoderConfig]
    prefix: str
    outer: Names
    layers: str
    layer: Names
    interleaved: bool = False
    transposed: bool = False
    one_added: bool = False
    skipped_positions: int = 0


@dataclass(frozen=True, slots=True)
class Base:
    """What all families say alike."""

    family: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    start_token: int | None
    end_tokens: tuple[int, ...]

    def config(self, settings: Settings, **rest: Any) -> DecoderConfig:  # noqa: ANN401  (of DecoderConfig)
        """The configuration, with defaults for what most families share."""
        values: dict[str, Any] = {
            "shared_heads": self.heads,
            "head_width": self.width // self.heads,
            "windows": (None,) * self.layers,
            "tied": settings.flag("tie_word_embeddings", rest.pop("usually_tied", False)),
            "deviation": settings.number("initializer_range", "init_std", default=0.02),
        }
        values.update(rest)
        values.setdefault("score_scale", values["head_width"] ** -0.5)
        settings.finish()
        return DecoderConfig(
            family=self.family,
            vocabulary=self.vocabulary,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            start_token=self.start_token,
            end_tokens=self.end_tokens,
            **values,
        )


def read_config(values: Mapping[str, Any]) -> DecoderConfig:
    """The configuration that a ``config.json`` says.

    Raises:
        LanguageModelError: E0900 for a family that is not known, E0901 for a setting that is
            missing or wrong, E0902 for one that is not supported.
    """
    settings = Settings(values)
    name = settings.find("model_type")
    family = FAMILIES.get(name)
    if family is None:
        raise LanguageModelError(
            "E0900",
            f"there is no family of language models '{name}'",
            help=f"use one of: {', '.join(FAMILIES)}",
        )
    ends = settings.find("eos_token_id", default=())
    width = settings.count("hidden_size", "n_embd", "n_embed")
    heads = settings.count("num_attention_heads", "n_head")
    if width % heads and settings.find("head_dim") is None:
        raise LanguageModelError(
            "E0901",
            f"the setting 'num_attention_heads' is {heads}",
            notes=(f"the width is {width}",),
            help="give a number that divides the width",
        )
    base = Base(
        name,
        settings.count("vocab_size"),
        width,
        settings.count("num_hidden_layers", "n_layer"),
        heads,
        settings.find("bos_token_id"),
        (ends,) if isinstance(ends, int) else tuple(ends),
    )
    return family.configure(settings, base)


def _windows(settings: Settings, layers: int, used: bool) -> tuple[int | None, ...]:
    """The window of each layer, by the list of the layers' kinds or for all alike."""
    size = settings.find("sliding_window")
    kinds = settings.find("layer_types", default=[])
    if not used or size is None:
        return (None,) * layers
    if kinds:
        return tuple(size if k == "sliding_attention" else None for k in kinds)
    return (size,) * layers


def _gated(settings: Settings, base: Base, **rest: Any) -> DecoderConfig:  # noqa: ANN401
    """Llama and what descends from it: RMS norms, rotary embedding, a gated feed-forward part."""
    head_width = settings.count("head_dim", default=base.width // base.heads)
    longest = settings.count("max_position_embeddings", default=2048)
    values: dict[str, Any] = {
        "shared_heads": settings.count("num_key_value_heads", default=base.heads),
        "head_width": head_width,
        "hidden": settings.count("intermediate_size"),
        "activation": "silu",
        "gated": True,
        "norm": "rms",
        "norm_eps": settings.number("rms_norm_eps", default=1e-6),
        "position": settings.rotary(head_width, longest),
        "max_positions": longest,
    }
    return base.config(settings, **{**values, **rest})


def _llama(settings: Settings, base: Base) -> DecoderConfig:
    bias = settings.flag("attention_bias")
    return _gated(
        settings,
        base,
        activation=settings.activation("hidden_act", default="silu"),
        attention_bias=bias,
        output_bias=bias,
        feed_forward_bias=settings.flag("mlp_bias"),
    )


def _mistral(settings: Settings, base: Base) -> DecoderConfig:
    return _gated(
        settings,
        base,
        activation=settings.activation("hidden_act", default="silu"),
        windows=_windows(settings, base.layers, True),
    )


def _qwen2(settings: Settings, base: Base) -> DecoderConfig:
    used = settings.flag("use_sliding_window")
    first = settings.find("max_window_layers", default=28)
    windows = _windows(settings, base.layers, used)
    if settings.find("layer_types") is None:
        windows = tuple(w if i >= first else None for i, w in enumerate(windows))
    return _gated(
        settings,
        base,
        activation=settings.activation("hidden_act", default="silu"),
        attention_bias=True,
        windows=windows,
    )


def _gemma(settings: Settings, base: Base, **rest: Any) -> DecoderConfig:  # noqa: ANN401
    settings.require("use_bidirectional_attention", False)
    bias = settings.flag("attention_bias")
    activation = settings.activation("hidden_activation", "hidden_act", default="gelu_pytorch_tanh")
    # The first version wrote "gelu" where it meant the approximation.
    return _gated(
        settings,
        base,
        head_width=settings.count("head_dim", default=256),
        activation="gelu_tanh" if activation == "gelu" else activation,
        attention_bias=bias,
        output_bias=bias,
        usually_tied=True,
        embedding_scale=base.width**0.5,
        **rest,
    )


def _gemma2(settings: Settings, base: Base) -> DecoderConfig:
    kinds = settings.find("layer_types")
    windows = _windows(settings, base.layers, True)
    if kinds is None:
        windows = tuple(None if i % 2 else w for i, w in enumerate(windows))
    return _gemma(
        settings,
        base,
        norm_place="around",
        windows=windows,
        score_scale=settings.number("query_pre_attn_scalar", default=256) ** -0.5,
        score_softcap=settings.find("attn_logit_softcapping"),
        logit_softcap=settings.find("final_logit_softcapping"),
    )


def _phi(settings: Settings, base: Base) -> DecoderConfig:
    settings.require("qk_layernorm", False)
    longest = settings.count("max_position_embeddings", default=2048)
    return base.config(
        settings,
        shared_heads=settings.count("num_key_value_heads", default=base.heads),
        hidden=settings.count("intermediate_size"),
        activation=settings.activation("hidden_act", default="gelu_new"),
        gated=False,
        norm="layer",
        norm_eps=settings.number("layer_norm_eps", default=1e-5),
        position=settings.rotary(base.width // base.heads, longest, 0.5),
        max_positions=longest,
        residual="parallel_shared",
        attention_bias=True,
        output_bias=True,
        feed_forward_bias=True,
        head_bias=True,
    )


def _gpt_neox(settings: Settings, base: Base) -> DecoderConfig:
    longest = settings.count("max_position_embeddings", default=2048)
    bias = settings.flag("attention_bias", True)
    return base.config(
        settings,
        hidden=settings.count("intermediate_size"),
        activation=settings.activation("hidden_act", default="gelu"),
        gated=False,
        norm="layer",
        norm_eps=settings.number("layer_norm_eps", default=1e-5),
        position=settings.rotary(base.width // base.heads, longest, 0.25),
        max_positions=longest,
        residual="parallel" if settings.flag("use_parallel_residual", True) else "sequential",
        attention_bias=bias,
        output_bias=bias,
        feed_forward_bias=True,
    )


def _gpt2(settings: Settings, base: Base) -> DecoderConfig:
    settings.require("add_cross_attention", False)
    settings.require("scale_attn_by_inverse_layer_idx", False)
    scaled = settings.flag("scale_attn_weights", True)
    return base.config(
        settings,
        hidden=settings.count("n_inner", default=4 * base.width),
        activation=settings.activation("activation_function", default="gelu_new"),
        gated=False,
        norm="layer",
        norm_eps=settings.number("layer_norm_epsilon", default=1e-5),
        position=Learned(),
        max_positions=settings.count("n_positions", "max_position_embeddings", default=1024),
        attention_bias=True,
        output_bias=True,
        feed_forward_bias=True,
        score_scale=(base.width // base.heads) ** -0.5 if scaled else 1.0,
        usually_tied=True,
        output_scale=(2 * base.layers) ** -0.5,
    )


def _opt(settings: Settings, base: Base) -> DecoderConfig:
    settings.require("layer_norm_elementwise_affine", True)
    before = settings.flag("do_layer_norm_before", True)
    removed = settings.flag("_remove_final_layer_norm")
    bias = settings.flag("enable_bias", True)
    outside = settings.count("word_embed_proj_dim", default=base.width)
    return base.config(
        settings,
        hidden=settings.count("ffn_dim", default=4 * base.width),
        activation=settings.activation("activation_function", default="relu"),
        gated=False,
        norm="layer",
        norm_eps=1e-5,
        norm_place="before" if before else "after",
        position=Learned(),
        max_positions=settings.count("max_position_embeddings", default=2048),
        attention_bias=bias,
        output_bias=bias,
        feed_forward_bias=bias,
        final_norm=before and not removed,
        embedding_width=None if outside == base.width else outside,
        usually_tied=True,
    )


def _bloom(settings: Settings, base: Base) -> DecoderConfig:
    settings.require("apply_residual_connection_post_layernorm", False)
    return base.config(
        settings,
        hidden=4 * base.width,
        activation="gelu_tanh",
        gated=False,
        norm="layer",
        norm_eps=settings.number("layer_norm_epsilon", default=1e-5),
        position=Alibi(),
        # Nothing in this position scheme says where it ends.
        max_positions=2**31 - 1,
        attention_bias=True,
        output_bias=True,
        feed_forward_bias=True,
        embedding_norm=True,
        usually_tied=True,
    )


_LLAMA_LAYER = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_LLAMA_OUTER = {"embedding": "embed_tokens", "final_norm": "norm", "head": "lm_head"}


def _llama_like(
    configure: Callable[[Settings, Base], DecoderConfig],
    layer: Names = _LLAMA_LAYER,
    one_added: bool = False,
) -> Family:
    return Family(configure, "model.", _LLAMA_OUTER, "layers", layer, one_added=one_added)


FAMILIES: Mapping[str, Family] = {
    "llama": _llama_like(_llama),
    "mistral": _llama_like(_mistral),
    "qwen2": _llama_like(_qwen2),
    "gemma": _llama_like(_gemma, one_added=True),
    "gemma2": _llama_like(
        _gemma2,
        _LLAMA_LAYER
        | {
            "attention_after_norm": "post_attention_layernorm",
            "feed_forward_norm": "pre_feedforward_layernorm",
            "feed_forward_after_norm": "post_feedforward_layernorm",
        },
        one_added=True,
    ),
    "phi": Family(
        _phi,
        "model.",
        {"embedding": "embed_tokens", "final_norm": "final_layernorm", "head": "lm_head"},
        "layers",
        {
            "attention_norm": "input_layernorm",
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "output": "self_attn.dense",
            "up": "mlp.fc1",
            "down": "mlp.fc2",
        },
    ),
    "gpt_neox": Family(
        _gpt_neox,
        "gpt_neox.",
        {
            "embedding": "embed_in",
            "final_norm": "final_layer_norm",
            "head": "lm_head",
        },
        "layers",
        {
            "attention_norm": "input_layernorm",
            "query|key|value": "attention.query_key_value",
            "output": "attention.dense",
            "feed_forward_norm": "post_attention_layernorm",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
        interleaved=True,
    ),
    "gpt2": Family(
        _gpt2,
        "transformer.",
        {"embedding": "wte", "positions": "wpe", "final_norm": "ln_f", "head": "lm_head"},
        "h",
        {
            "attention_norm": "ln_1",
            "query|key|value": "attn.c_attn",
            "output": "attn.c_proj",
            "feed_forward_norm": "ln_2",
            "up": "mlp.c_fc",
            "down": "mlp.c_proj",
        },
        transposed=True,
    ),
    "opt": Family(
        _opt,
        "model.decoder.",
        {
            "embedding": "embed_tokens",
            "positions": "embed_positions",
            "project_in": "project_in",
            "project_out": "project_out",
            "final_norm": "final_layer_norm",
            "head": "lm_head",
        },
        "layers",
        {
            "attention_norm": "self_attn_layer_norm",
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "output": "self_attn.out_proj",
            "feed_forward_norm": "final_layer_norm",
            "up": "fc1",
            "down": "fc2",
        },
        skipped_positions=2,
    ),
    "bloom": Family(
        _bloom,
        "transformer.",
        {
            "embedding": "word_embeddings",
            "embedding_norm": "word_embeddings_layernorm",
            "final_norm": "ln_f",
            "head": "lm_head",
        },
        "h",
        {
            "attention_norm": "input_layernorm",
            "query|key|value": "self_attention.query_key_value",
            "output": "self_attention.dense",
            "feed_forward_norm": "post_attention_layernorm",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
        interleaved=True,
    ),
}
