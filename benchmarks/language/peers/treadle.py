"""Treadle: one executable for every step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from treadle.language import LanguageModel

from ..files import write_gguf
from .peer import PLACES


class Treadle:
    """Rows that meet quantized weights are rounded to bytes, as llama.cpp does."""

    def __init__(self, folder: Path, kind: str, threads: int) -> None:
        quantized = kind in ("int8", "int4")
        source = write_gguf(folder, kind) if quantized else folder
        options = {"rows": "i8"} if quantized else {"weights": kind}
        self.model = LanguageModel.load(source, threads=threads, **options)
        self.cache = self.model.new_cache(PLACES // 16, share=False)
        self.sequence = self.cache.create()

    def begin(self) -> None:
        self.cache.release(self.sequence)
        self.sequence = self.cache.create()

    def take(self, tokens: Sequence[int]) -> np.ndarray:
        return self.model.step(self.cache.append([(self.sequence, list(tokens))]))[0]


PEER = Treadle
