"""What the server needs of a language model and of its cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Cache(Protocol):
    """Pages of keys and values, handed out to sequences.

    A sequence and a batch are whatever the cache makes of them; the server only hands them on.
    """

    @property
    def page_size(self) -> int:
        """The tokens of one page."""
        ...

    @property
    def free_pages(self) -> int:
        """The pages that no sequence holds."""
        ...

    def create(self) -> Any:  # noqa: ANN401
        """An empty sequence."""
        ...

    def fork(self, sequence: Any) -> Any:  # noqa: ANN401
        """A sequence with the same tokens, which shares their pages."""
        ...

    def release(self, sequence: Any) -> None:  # noqa: ANN401
        """Give the pages of a sequence back."""
        ...

    def append(self, parts: Sequence[tuple[Any, Sequence[int]]], wanted: Sequence[str]) -> Any:  # noqa: ANN401
        """A step that adds tokens to sequences; of each, logits of its "last" token, or "none".

        Raises:
            TreadleError: when there are too few pages.
        """
        ...


class Model(Protocol):
    """A compiled decoder."""

    def new_cache(self, pages: int) -> Any:  # noqa: ANN401
        """An empty ``Cache``."""
        ...

    def step(self, batch: Any) -> np.ndarray:  # noqa: ANN401
        """Logits (rows, vocabulary) of what the batch asks for, in order; float32."""
        ...


class Tokenizer(Protocol):
    """Text to tokens and back."""

    def encode(self, text: str) -> Sequence[int]:
        """The tokens of a text, with what the model expects at its beginning."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; broken UTF-8 becomes U+FFFD, special tokens are left out."""
        ...

    def chat(self, messages: Sequence[Mapping[str, str]]) -> Sequence[int]:
        """The tokens of a conversation after which the model is to speak.

        Raises:
            TreadleError: when the model has no template for it, or it refuses these messages.
        """
        ...
