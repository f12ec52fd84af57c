"""PyTorch with the model of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...common import torchvision_operators  # noqa: F401  (before transformers)
from .peer import Unable

from transformers import DynamicCache, LlamaForCausalLM  # isort: skip

_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Eager:
    """PyTorch with the model of transformers."""

    def __init__(self, folder: Path, kind: str, threads: int) -> None:
        if kind not in _DTYPES:
            raise Unable(kind)
        torch.set_num_threads(threads)
        self.model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=_DTYPES[kind]).eval()
        self.begin()

    def begin(self) -> None:
        self.past = DynamicCache()

    def take(self, tokens: Sequence[int]) -> np.ndarray:
        with torch.no_grad():
            given = torch.tensor([list(tokens)])
            found = self.model(given, past_key_values=self.past, logits_to_keep=1)
        return found.logits[0, -1].float().numpy()


PEER = Eager
