"""Encoder–decoder models: a source is read once, then any number of tokens are written."""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from treadle.base.errors import LanguageModelError
from treadle.driver import Executable, compile  # noqa: A004  (the word that users know)
from treadle.language.cache import Batch, CachedSequence, PagedCache, new_pages
from treadle.language.checkpoint import read_json
from treadle.language.config import DecoderConfig, EncoderDecoderConfig
from treadle.language.decoder import PAGE_SIZE, decoder_module
from treadle.language.encoder import encoder_module
from treadle.language.pages import PageTable
from treadle.language.pairs import read_pair_config, read_pair_weights
from treadle.language.sampling import GREEDY, Sampler, Sampling
from treadle.language.weights import Weights


class SourceCache:
    """Keys and values of texts that are written, and of their sources, which are read once."""

    def __init__(self, config: DecoderConfig, pages: int, source_pages: int) -> None:
        # Equal beginnings of texts have other keys and values where the sources differ.
        self.texts = PagedCache(config, pages, share=False)
        self.arrays = new_pages(config, source_pages)
        self._table = PageTable(source_pages)
        self._sources: dict[CachedSequence, tuple[list[int], int]] = {}

    @property
    def free_source_pages(self) -> int:
        """The pages that no source holds."""
        return self._table.free

    def create(self, length: int) -> CachedSequence:
        """A text without tokens, whose source has ``length`` positions.

        Raises:
            LanguageModelError: E0921 if there are too few pages for the source.
        """
        count = -(-length // PAGE_SIZE)
        if count > self._table.free:
            raise LanguageModelError(
                "E0921",
                f"the source needs {count} pages and {self._table.free} are free",
                help="release texts that are done, or make a cache of more pages",
            )
        sequence = self.texts.create()
        self._sources[sequence] = ([self._table.take() for _ in range(count)], length)
        return sequence

    def fork(self, sequence: CachedSequence) -> CachedSequence:
        """A text of the same tokens and the same source."""
        other = self.texts.fork(sequence)
        pages, length = self._sources[sequence]
        for page in pages:
            self._table.hold(page)
        self._sources[other] = (list(pages), length)
        return other

    def release(self, sequence: CachedSequence) -> None:
        """Give the pages of a text and its source back."""
        self.texts.release(sequence)
        for page in self._sources.pop(sequence)[0]:
            self._table.give_back(page)

    def slots(self, sequence: CachedSequence, count: int) -> np.ndarray:
        """Where the positions of a source go, (count,); those beyond its end nowhere."""
        pages, length = self._sources[sequence]
        places = np.arange(count)
        rows = np.asarray(pages)[np.minimum(places // PAGE_SIZE, len(pages) - 1)]
        return np.where(places < length, rows * PAGE_SIZE + places % PAGE_SIZE, -1)

    def seen(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The pages of each part's source (b, n), and the last place of each token's (t,)."""
        found = [self._sources[s] for s in batch.parts]
        table = np.zeros((len(found), max(len(pages) for pages, _ in found)), np.int64)
        for row, (pages, _) in zip(table, found, strict=True):
            row[: len(pages)] = pages
        last = np.array([length - 1 for _, length in found], np.int64)
        return table, last[batch.sequences]


class EncoderDecoder:
    """A model that reads a source, text or sound, and writes text.

    ``encoder`` and ``decoder`` are its two programs, each compiled once for all lengths.
    """

    def __init__(
        self,
        config: EncoderDecoderConfig,
        weights: Weights,
        *,
        threads: int | None = None,
        cache: bool = True,
    ) -> None:
        self.config = config
        self.encoder: Executable = compile(
            encoder_module(config, weights), threads=threads, cache=cache
        )
        self.decoder: Executable = compile(
            decoder_module(config.decoder, weights, threads=threads), threads=threads, cache=cache
        )
        self.encoder.forget_weights()
        self.decoder.forget_weights()

    @classmethod
    def load(
        cls, source: str | PathLike[str], *, threads: int | None = None, cache: bool = True
    ) -> "EncoderDecoder":
        """Load a folder with ``config.json`` and ``*.safetensors``, and compile it.

        Raises:
            LanguageModelError: E0900 to E0902 for settings, E0910 to E0913 for files.
        """
        config = read_pair_config(read_json(Path(source) / "config.json"))
        found = read_pair_weights(Path(source), config)
        weights = {name: np.asarray(a, np.float32) for name, a in found.items()}
        return cls(config, weights, threads=threads, cache=cache)

    def new_cache(self, pages: int, source_pages: int) -> SourceCache:
        """A cache of ``pages`` × 16 tokens and ``source_pages`` × 16 positions of sources."""
        return SourceCache(self.config.decoder, pages, source_pages)

    def read(self, cache: SourceCache, sources: Sequence[Any]) -> list[CachedSequence]:
        """Read sources, lists of tokens or arrays (bands, frames) of sound: a text for each, still
        empty.

        Raises:
            LanguageModelError: E0916 for an empty source, E0921 if the cache has too few pages,
                E0925 for sound of another shape than the model's, E0924 for a token out of range.
        """
        inputs = self._tokens(sources) if self.config.bands is None else self._sound(sources)
        lengths = [self._length(s) for s in sources]
        texts: list[CachedSequence] = []
        try:
            for length in lengths:
                texts.append(cache.create(length))
        except LanguageModelError:
            for text in texts:
                cache.release(text)
            raise
        count = max(lengths)
        slots = np.stack([cache.slots(text, count) for text in texts])
        self.encoder(*inputs, slots, *cache.arrays)
        return texts

    def _length(self, source: Sequence[int]) -> int:
        return len(source) if self.config.bands is None else self.config.encoder.max_positions

    def _tokens(self, sources: Sequence[Sequence[int]]) -> tuple[np.ndarray, ...]:
        lengths = np.array([len(s) for s in sources], np.int64)
        if not len(lengths) or not lengths.all():
            raise LanguageModelError(
                "E0916", "a source has no tokens", help="begin with at least one token"
            )
        tokens = np.zeros((len(sources), lengths.max()), np.int64)
        for row, source in zip(tokens, sources, strict=True):
            row[: len(source)] = source
        if tokens.min() < 0 or tokens.max() >= self.config.encoder.vocabulary:
            wrong = tokens.min() if tokens.min() < 0 else tokens.max()
            raise LanguageModelError(
                "E0924",
                f"the model has no token {wrong}",
                help=f"use tokens from 0 to {self.config.encoder.vocabulary - 1}",
            )
        return tokens, lengths

    def _sound(self, sources: Sequence[np.ndarray]) -> tuple[np.ndarray]:
        wanted = (self.config.bands, self.config.frames)
        for source in sources:
            if np.shape(source) != wanted:
                raise LanguageModelError(
                    "E0925",
                    f"the sound has shape {np.shape(source)}",
                    help=f"pass arrays of {wanted[0]} bands and {wanted[1]} frames, filled up with "
                    "silence",
                )
        return (np.stack(sources).astype(np.float32),)

    def step(self, cache: SourceCache, batch: Batch) -> np.ndarray:
        """Run one step of ``cache.texts.append``: the logits (r, vocabulary), f32."""
        texts = cache.texts
        logits, _, *arrays = self.decoder(
            *batch.arrays, *texts.arrays, *cache.seen(batch), *cache.arrays
        )
        texts.complete(batch, arrays)
        return logits

    def generate(
        self,
        sources: Sequence[Any],
        *,
        start: Sequence[int] | None = None,
        sampling: Sampling = GREEDY,
        max_tokens: int = 128,
        stop: Iterable[int] | None = None,
    ) -> list[list[int]]:
        """What the model writes for each source, all of them at the same time.

        ``start`` are the tokens that each text begins with, by default the model's; they are not
        given, nor is the token that ends a text.

        Raises:
            LanguageModelError: what ``read`` says; E0923 if the model has too few positions.
        """
        config = self.config.decoder
        first = list(start) if start is not None else [config.start_token or 0]
        ends = frozenset(config.end_tokens if stop is None else stop)
        total = min(len(first) + max_tokens, config.max_positions)
        lengths = [self._length(s) for s in sources]
        source_pages = sum(-(-n // PAGE_SIZE) for n in lengths)
        cache = self.new_cache(len(sources) * -(-total // PAGE_SIZE), source_pages)
        texts = self.read(cache, sources)
        samplers = [Sampler(sampling, first) for _ in texts]
        written: list[list[int]] = [[] for _ in texts]
        new = {i: first for i in range(len(texts))}
        for _ in range(min(max_tokens, config.max_positions - len(first) + 1)):
            batch = cache.texts.append([(texts[i], tokens) for i, tokens in new.items()])
            rows = zip(new, self.step(cache, batch), strict=True)
            found = {i: samplers[i].next(row) for i, row in rows}
            new = {i: [token] for i, token in found.items() if token not in ends}
            for i, (token,) in new.items():
                written[i].append(token)
            if not new:
                break
        return written
