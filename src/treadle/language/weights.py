"""The weights that a decoder has, by names that are the same for all families.

Matrices are (outputs, inputs); the embedding is (vocabulary, width).
"""

from collections.abc import Iterator, Mapping

import numpy as np

from treadle.language.config import DecoderConfig, EncoderDecoderConfig, Learned, Relative
from treadle.language.quantize import QuantizedWeight

Weight = np.ndarray | QuantizedWeight
Weights = Mapping[str, Weight]
Shapes = dict[str, tuple[int, ...]]


def shapes(config: DecoderConfig) -> Shapes:
    """The shape of each weight, in the order of their use."""
    outside = config.embedding_width or config.width
    found: Shapes = {"embedding.weight": (config.vocabulary, outside)}
    if config.embedding_width is not None:
        found["project_in.weight"] = (config.width, outside)
    if isinstance(config.position, Learned):
        found["positions.weight"] = (config.max_positions, config.width)
    if isinstance(config.position, Relative):
        found["relative.weight"] = (config.position.buckets, config.heads)
    if config.embedding_norm:
        found.update(_norm("embedding_norm", config))
    for layer in range(config.layers):
        found.update({f"layers.{layer}.{n}": s for n, s in _layer(config)})
    if config.final_norm:
        found.update(_norm("final_norm", config))
    if config.embedding_width is not None:
        found["project_out.weight"] = (outside, config.width)
    if not config.tied:
        found["head.weight"] = (config.vocabulary, outside)
    if config.head_bias:
        found["head.bias"] = (config.vocabulary,)
    return found


def encoder_decoder_shapes(config: EncoderDecoderConfig) -> Shapes:
    """The shape of each weight: those of the decoder, then those of the encoder, which begin with
    ``encoder.``.
    """
    found = shapes(config.decoder)
    encoder = shapes(config.encoder)
    if config.bands is not None:
        width = config.encoder.width
        del encoder["embedding.weight"]
        encoder["first.weight"], encoder["first.bias"] = (width, config.bands, 3), (width,)
        encoder["second.weight"], encoder["second.bias"] = (width, width, 3), (width,)
    found.update({f"encoder.{name}": shape for name, shape in encoder.items()})
    return found


def matrices(config: DecoderConfig) -> tuple[str, ...]:
    """The weights that are matrices, the head and the embedding among them."""
    return tuple(
        name
        for name, shape in shapes(config).items()
        if len(shape) == 2 and name not in ("positions.weight", "relative.weight")
    )


def _norm(name: str, config: DecoderConfig) -> Shapes:
    found: Shapes = {f"{name}.weight": (config.width,)}
    if config.norm == "layer":
        found[f"{name}.bias"] = (config.width,)
    return found


def _linear(name: str, outputs: int, inputs: int, bias: bool) -> Shapes:
    found: Shapes = {f"{name}.weight": (outputs, inputs)}
    if bias:
        found[f"{name}.bias"] = (outputs,)
    return found


def _layer(config: DecoderConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, hidden = config.width, config.hidden
    queries, keys = config.heads * config.head_width, config.shared_heads * config.head_width
    bias, inner = config.attention_bias, config.feed_forward_bias
    parts = [
        _norm("attention_norm", config),
        _linear("query", queries, width, bias),
        _linear("key", keys, width, bias and config.key_bias),
        _linear("value", keys, width, bias),
        _linear("output", width, queries, config.output_bias),
    ]
    if config.cross:
        parts += [
            _norm("cross_norm", config),
            _linear("cross_query", queries, width, bias),
            _linear("cross_key", keys, width, bias and config.key_bias),
            _linear("cross_value", keys, width, bias),
            _linear("cross_output", width, queries, config.output_bias),
        ]
    if config.norm_place == "around":
        parts += [_norm("attention_after_norm", config), _norm("feed_forward_after_norm", config)]
    if config.residual != "parallel_shared":
        parts.append(_norm("feed_forward_norm", config))
    if config.gated:
        parts.append(_linear("gate", hidden, width, inner))
    parts += [_linear("up", hidden, width, inner), _linear("down", width, hidden, inner)]
    for part in parts:
        yield from part.items()


def random_weights(config: DecoderConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights as training starts from: normal, with ones for norms and zeros for biases; f32.

    The same seed gives the same weights.
    """
    random = np.random.default_rng(seed)
    return {name: _random(config, random, name, s) for name, s in shapes(config).items()}


def _random(
    config: DecoderConfig, random: np.random.Generator, name: str, shape: tuple[int, ...]
) -> np.ndarray:
    part, kind = name.split(".")[-2:]
    if kind == "bias":
        return np.zeros(shape, np.float32)
    if part.endswith("norm"):
        return np.ones(shape, np.float32)
    deviation = config.deviation * (config.output_scale if part in ("output", "down") else 1.0)
    values = random.standard_normal(shape, np.float32)
    values *= np.float32(deviation)
    return values
