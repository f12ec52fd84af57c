"""Encoder–decoders with random weights, as transformers makes and runs them."""

import numpy as np
import torch
from torch import nn

from . import torchvision_operators  # noqa: F401  (before transformers)

from transformers import (  # isort: skip
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)


def t5_small() -> tuple[nn.Module, np.ndarray]:
    """The architecture of T5-small, and a source of 64 tokens."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8,
        decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    return model.eval(), np.random.default_rng(0).integers(3, 32000, 64)


def whisper_tiny() -> tuple[nn.Module, np.ndarray]:
    """The architecture of Whisper-tiny, and a spectrogram of 30 seconds."""
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=51865, d_model=384, encoder_layers=4, decoder_layers=4,
        encoder_attention_heads=6, decoder_attention_heads=6, encoder_ffn_dim=1536,
        decoder_ffn_dim=1536,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    return model.eval(), np.random.default_rng(0).standard_normal((80, 3000), np.float32)


PAIRS = {"t5_small": t5_small, "whisper_tiny": whisper_tiny}


def written(model: nn.Module, source: np.ndarray, count: int) -> list[int]:
    """The likeliest ``count`` tokens on a source, one after another, with the cache of
    transformers.
    """
    tokens = torch.tensor([[model.config.decoder_start_token_id]])
    past = None
    found: list[int] = []
    with torch.no_grad():
        read = model.get_encoder()(torch.from_numpy(source)[None])  # type: ignore[operator]
        for _ in range(count):
            result = model(
                encoder_outputs=read,
                decoder_input_ids=tokens,
                past_key_values=past,
                use_cache=True,
            )
            past = result.past_key_values
            tokens = result.logits[:, -1].argmax(-1, keepdim=True)
            found.append(int(tokens))
    return found
