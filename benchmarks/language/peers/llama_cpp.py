"""llama.cpp on the same GGUF."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from llama_cpp import Llama

from ..files import write_gguf
from .peer import PLACES


class LlamaCpp:
    """llama.cpp on the same GGUF."""

    def __init__(self, folder: Path, kind: str, threads: int) -> None:
        self.model = Llama(
            str(write_gguf(folder, kind)),
            n_ctx=PLACES,
            n_batch=512,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )

    def begin(self) -> None:
        self.model.reset()

    def take(self, tokens: Sequence[int]) -> np.ndarray:
        self.model.eval(list(tokens))
        return np.ctypeslib.as_array(self.model._ctx.get_logits(), (self.model.n_vocab(),)).copy()


PEER = LlamaCpp
