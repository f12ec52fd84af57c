"""What is served: a model with its engine, its tokenizer and its name."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from treadle.base.errors import OptionError
from treadle.language.cache import page_bytes
from treadle.language.decoder import PAGE_SIZE
from treadle.language.model import LanguageModel
from treadle.serve.engine import Engine
from treadle.serve.model import Tokenizer
from treadle.serve.schedule import Limits

CACHE_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Service:
    """What is served, and to whom.

    ``embed`` gives the vector (width,) of a list of tokens, on the engine's thread; it is ``None``
    if the model has none. With an ``api_key`` every request must bring it.
    """

    engine: Engine
    tokenizer: Tokenizer
    name: str
    vocabulary: int
    end_tokens: frozenset[int]
    embed: Callable[[Sequence[int]], np.ndarray] | None = None
    api_key: str | None = None
    body_bytes: int = 8 << 20
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        *,
        name: str,
        cache_bytes: int = CACHE_BYTES,
        context: int | None = None,
        limits: Limits | None = None,
        api_key: str | None = None,
    ) -> Service:
        """A service of a model, with a cache of at most so many bytes.

        Raises:
            OptionError: E0861 without a tokenizer, E0860 for a cache that has no room for a page.
        """
        if model.tokenizer is None:
            raise OptionError(
                "E0861",
                f"the model '{name}' has no tokenizer, and a server is asked in text",
                help="put tokenizer.json into its folder",
            )
        limits = Limits() if limits is None else limits
        config = model.config
        longest = config.max_positions if context is None else min(context, config.max_positions)
        engine = Engine(
            model,
            pages=_pages(model, cache_bytes, longest, limits),
            context=longest,
            limits=limits,
        )
        return cls(
            engine,
            model.tokenizer,
            name,
            config.vocabulary,
            frozenset(config.end_tokens),
            embed=lambda tokens: _unit(model.embed(tokens)),
            api_key=api_key,
        )


def _pages(model: LanguageModel, room: int, longest: int, limits: Limits) -> int:
    """The pages of a cache: as many as could be of use, if there is room for them."""
    page = page_bytes(model.config, model.kept)
    pages = min(room // page, limits.running * -(-longest // PAGE_SIZE))
    if pages < 1:
        raise OptionError(
            "E0860",
            f"a cache of {room} bytes has no room for a page of {page}",
            help="give the cache more room",
        )
    return pages


def _unit(vector: np.ndarray) -> np.ndarray:
    """A vector of length one, as clients expect who compare by products."""
    length = np.linalg.norm(vector)
    return vector / length if length else vector
