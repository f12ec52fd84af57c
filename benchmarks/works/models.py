"""Whole models of the zoo, of fixed shapes: images of 224 × 224, 128 tokens."""

from ..common.match import sized_inputs
from ..common.zoo import ZOO
from .work import Bar, Case, Work

TOKENS = 128
MODELS = (
    ("ResNet-18", "resnet18", 1),
    ("ResNet-50", "resnet50", 1),
    ("MobileNetV2", "mobilenetv2", 1),
    ("EfficientNet-B0", "efficientnet_b0", 1),
    ("BERT-base 128", "bert_base", 1),
    ("ViT-B/16", "vit_b16", 1),
    ("GPT-2 prefill 128", "gpt2_small", 1),
    ("MiniLM batch 1", "minilm", 1),
    ("MiniLM batch 8", "minilm", 8),
)
"""As the table calls it, as the zoo does, and the batch."""


def model(name: str, key: str, batch: int) -> Work:
    """A model of the zoo."""

    def build() -> Case:
        entry = ZOO[key]()
        sizes = {"batch": batch, "seq": TOKENS, "target": TOKENS}
        return Case(entry.model, sized_inputs(entry, sizes))

    return Work("models", name, build, bar=Bar(speedup=1.0), tolerance=1e-3, whole=True)


WORKS = tuple(model(*each) for each in MODELS)
