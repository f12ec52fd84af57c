"""A language model: compiled once, run for any number of texts of any lengths."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakKeyDictionary

import ml_dtypes
import numpy as np

from treadle.base.errors import LanguageModelError, TreadleError
from treadle.driver import Executable, compile  # noqa: A004  (the word that users know)
from treadle.expr.dtype import DType, bf16, f16, f32
from treadle.language.cache import Batch, PagedCache
from treadle.language.checkpoint import read_json, read_weights
from treadle.language.config import DecoderConfig
from treadle.language.decoder import PAGE_SIZE, cache_names, decoder_module
from treadle.language.families import read_config
from treadle.language.quantize import QuantizedWeight, quantized
from treadle.language.sampling import GREEDY, Sampler, Sampling
from treadle.language.text_stream import TextStream
from treadle.language.weights import Weight, Weights, matrices, random_weights
from treadle.passes.pipeline import Progress
from treadle_runtime.donation import Bound

if TYPE_CHECKING:
    from treadle.language.tokenizer import Tokenizer

WeightFormat = Literal["f32", "bf16", "int8", "int4"]
RowFormat = Literal["f32", "i16", "i8"]
CacheFormat = Literal["f32", "bf16", "f16"]
_KEPT: Mapping[CacheFormat, DType] = {"f32": f32, "bf16": bf16, "f16": f16}
_ROW_BYTES: Mapping[RowFormat, int] = {"f32": 0, "i16": 2, "i8": 1}
CHUNK = 512
"""Tokens of a prompt that one step takes at most."""


class LanguageModel:
    """A decoder of text.

    ``config`` says what it is made of, ``tokenizer`` is that of its folder or ``None``, ``kept`` is
    the type of the keys and values of its caches, and ``executable`` is the one program that runs
    every step.
    """

    def __init__(
        self,
        config: DecoderConfig,
        weights: Weights,
        *,
        tokenizer: "Tokenizer | None" = None,
        cache_format: CacheFormat = "f32",
        threads: int | None = None,
        cache: bool = True,
        progress: Progress | None = None,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.kept = _KEPT[cache_format]
        self.executable: Executable = compile(
            decoder_module(config, weights, kept=self.kept, threads=threads),
            threads=threads,
            cache=cache,
            progress=progress,
        )
        self.executable.forget_weights()
        self._steps: WeakKeyDictionary[PagedCache, Bound] = WeakKeyDictionary()

    @classmethod
    def load(
        cls,
        source: str | PathLike[str] | Mapping[str, Any] | DecoderConfig,
        *,
        weights: str = "f32",
        rows: str = "f32",
        cache_format: str | None = None,
        random: bool = False,
        seed: int = 0,
        threads: int | None = None,
        cache: bool = True,
        progress: Progress | None = None,
    ) -> "LanguageModel":
        """Load a model and compile it.

        Args:
            source: a folder with ``config.json``, ``*.safetensors`` and ``tokenizer.json``; or a
                ``.gguf`` file, perhaps with ``tokenizer.json`` beside it; or the settings of a
                ``config.json``, or a ``DecoderConfig``, which have random weights.
            weights: how matrices are kept: ``f32``; ``bf16``, to which rows that meet them are
                rounded as well; ``int8``, a scale for each output; or
                ``int4``, a scale for each 32 inputs. Those of a file that are quantized stay so.
            rows: how the rows that meet quantized weights are multiplied: ``f32``; or rounded, in
                groups of 32, to ``i16`` or ``i8``, and multiplied in integers, which is faster.
            cache_format: how keys and values are kept, ``f32``, ``bf16`` or ``f16``: unless given,
                as other programs do, f16 beside quantized weights, else as the weights are.
            random: random weights even for a folder.
            seed: of random weights.
            threads: how many threads a step uses; all cores unless given.
            cache: whether machine code is kept on disk for the next time.
            progress: called with the name of each stage, its number, and how many there are.

        Raises:
            LanguageModelError: E0900 to E0902 for settings, E0910 to E0913 for files, E0914 for an
                unknown kind of weights, E0917 if a library is missing.
        """
        kind = _known("weights", weights, get_args(WeightFormat))
        row_format = _known("rows", rows, get_args(RowFormat))
        kept: CacheFormat | None = None
        if cache_format is not None:
            kept = _known("cache_format", cache_format, get_args(CacheFormat))
        config, found, tokenizer = _read(source, random, seed)
        packed = pack_weights(config, found, kind, row_format)
        return cls(
            config,
            packed,
            tokenizer=tokenizer,
            cache_format=kept or _cache_format(packed),
            threads=threads,
            cache=cache,
            progress=progress,
        )

    def new_cache(self, pages: int, *, share: bool = True) -> PagedCache:
        """A cache of ``pages`` × 16 tokens; with ``share``, equal beginnings of texts are computed
        once.
        """
        return PagedCache(self.config, pages, share=share, kept=self.kept)

    def step(self, batch: Batch) -> np.ndarray:
        """Run one step of ``PagedCache.append``: the logits (r, vocabulary), f32, that it wants.

        Raises:
            RuntimeFault: E0708 if memory is lacking; the sequences are as before then.
        """
        return self._run(batch)[0]

    def embed(self, tokens: Sequence[int], *, chunk: int = CHUNK) -> np.ndarray:
        """The mean of the last layer's results (width,), f32, over the tokens of a text.

        Raises:
            LanguageModelError: E0916 for no tokens, E0923 for more than the model has positions,
                E0924 for a token out of range.
        """
        tokens = self.tokens_of(tokens)
        cache = self.new_cache(-(-len(tokens) // PAGE_SIZE), share=False)
        sequence = cache.create()
        total = np.zeros(self.config.width, np.float64)
        for start in range(0, len(tokens), chunk):
            batch = cache.append([(sequence, tokens[start : start + chunk])], "none")
            total += self._run(batch)[1].sum(0, np.float64)
        return (total / len(tokens)).astype(np.float32)

    def _run(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The logits and the hidden states of a step."""
        cache = batch.cache
        step = self._steps.get(cache)
        if step is None:
            pages = dict(zip(cache_names(self.config), cache.arrays, strict=True))
            step = self._steps[cache] = self.executable.bind(**pages)
        try:
            logits, hidden, *arrays = step(*batch.arrays)
        except TreadleError:
            cache.undo(batch)
            raise
        cache.complete(batch, arrays)
        return logits, hidden

    def generate(
        self,
        prompt: str | Iterable[int],
        *,
        sampling: Sampling = GREEDY,
        max_tokens: int = 128,
        stop: Iterable[int] | None = None,
        cache: PagedCache | None = None,
        chunk: int = CHUNK,
    ) -> Iterator[int]:
        """The tokens that follow a prompt, one after another as they are computed.

        ``stop`` are the tokens that end the text, by default those of the model; such a token is
        not given. A ``cache`` that is passed in keeps the prompt for later calls.

        Raises:
            LanguageModelError: E0916 for text without a tokenizer, or an empty prompt; E0921 if the
                cache has too few pages, E0923 if the model has too few positions.
        """
        tokens = self.tokens_of(prompt)
        ends = frozenset(self.config.end_tokens if stop is None else stop)
        total = min(len(tokens) + max_tokens, self.config.max_positions)
        pages = cache or self.new_cache(-(-total // PAGE_SIZE))
        return self._generate(tokens, Sampler(sampling, tokens), max_tokens, ends, pages, chunk)

    def _generate(
        self,
        tokens: list[int],
        sampler: Sampler,
        count: int,
        ends: frozenset[int],
        cache: PagedCache,
        chunk: int,
    ) -> Iterator[int]:
        sequence = cache.create()
        try:
            for start in range(0, len(tokens) - chunk, chunk):
                self.step(cache.append([(sequence, tokens[start : start + chunk])], "none"))
            new = tokens[sequence.length :]
            for number in range(count):
                token = sampler.next(self.step(cache.append([(sequence, new)]))[0])
                if token in ends:
                    return
                yield token
                if sequence.length == self.config.max_positions or number == count - 1:
                    return
                new = [token]
        finally:
            cache.release(sequence)

    def stream(
        self,
        prompt: str | Iterable[int],
        **options: Any,  # noqa: ANN401  (of generate)
    ) -> Iterator[str]:
        """The text that follows a prompt, piece by piece; ``options`` are those of ``generate``.

        Raises:
            LanguageModelError: E0916 if the model has no tokenizer; what ``generate`` says.
        """
        text = self.text_stream()
        for token in self.generate(prompt, **options):
            piece = text.add(token)
            if piece:
                yield piece
        rest = text.finish()
        if rest:
            yield rest

    def text_stream(self) -> TextStream:
        """Text of tokens as they come.

        Raises:
            LanguageModelError: E0916 if the model has no tokenizer.
        """
        return self._tokenizer().stream()

    def tokens_of(self, prompt: str | Iterable[int]) -> list[int]:
        """A prompt as tokens.

        Raises:
            LanguageModelError: E0916 for text without a tokenizer, or an empty prompt.
        """
        tokens = self._tokenizer().encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not tokens and self.config.start_token is not None:
            tokens = [self.config.start_token]
        if not tokens:
            raise LanguageModelError(
                "E0916", "the prompt has no tokens", help="begin with at least one token"
            )
        return tokens

    def _tokenizer(self) -> "Tokenizer":
        if self.tokenizer is None:
            raise LanguageModelError(
                "E0916",
                "the model has no tokenizer",
                help="put tokenizer.json into its folder, or pass tokens instead of text",
            )
        return self.tokenizer


def _read(
    source: str | PathLike[str] | Mapping[str, Any] | DecoderConfig, random: bool, seed: int
) -> "tuple[DecoderConfig, Weights, Tokenizer | None]":
    """The configuration, weights and tokenizer of what ``LanguageModel.load`` takes."""
    if not isinstance(source, str | PathLike):
        config = source if isinstance(source, DecoderConfig) else read_config(source)
        return config, random_weights(config, seed), None
    path = Path(source)
    if path.suffix == ".gguf":
        _require("gguf", path)
        from treadle.language.gguf import read_gguf

        model = read_gguf(path)
        return model.config, model.weights, _read_tokenizer(path.parent)
    config = read_config(_settings(path))
    weights = random_weights(config, seed) if random else read_weights(path, config)
    return config, weights, _read_tokenizer(path)


def _settings(folder: Path) -> dict[str, Any]:
    """The settings of a folder. What ends a text is said best where generation is set up: models
    for conversations name the end of a turn only there.
    """
    settings = read_json(folder / "config.json")
    path = folder / "generation_config.json"
    ends = read_json(path).get("eos_token_id") if path.is_file() else None
    return settings if ends is None else {**settings, "eos_token_id": ends}


def _read_tokenizer(folder: Path) -> "Tokenizer | None":
    """The tokenizer of a folder, if it has one."""
    if not (folder / "tokenizer.json").is_file():
        return None
    for library in ("tokenizers", "jinja2"):
        _require(library, folder / "tokenizer.json")
    from treadle.language.tokenizer import Tokenizer

    return Tokenizer.read(folder)


def _require(library: str, path: Path) -> None:
    if find_spec(library) is None:
        raise LanguageModelError(
            "E0917",
            f"'{path}' is read by {library}, which is not installed",
            help="pip install 'treadle[language]'",
        )


def _known(what: str, given: str, formats: Sequence[Any]) -> Any:  # noqa: ANN401  (one of them)
    """``given``, if it is one of the formats; E0914 otherwise."""
    if given not in formats:
        raise LanguageModelError(
            "E0914",
            f"there is no kind of {what} {given!r}",
            help=f"use one of: {', '.join(formats)}",
        )
    return given


def _cache_format(weights: Weights) -> CacheFormat:
    """How keys and values are kept beside weights of some form."""
    arrays = [w for w in weights.values() if isinstance(w, np.ndarray)]
    if len(arrays) < len(weights):
        return "f16"
    return "bf16" if any(a.dtype == ml_dtypes.bfloat16 for a in arrays) else "f32"


def pack_weights(
    config: DecoderConfig, weights: Weights, kind: WeightFormat, rows: RowFormat = "f32"
) -> dict[str, Weight]:
    """Weights in the form that they are kept in: matrices as ``kind``, the rest in f32.

    An embedding that is not the head's stays in f32 unless it is bf16: it costs a row per token.
    What is quantized already stays as it is.
    """
    packed = {*matrices(config)}
    if not config.tied and kind != "bf16":
        packed.discard("embedding.weight")
    found: dict[str, Weight] = {}
    for name, array in weights.items():
        if isinstance(array, QuantizedWeight):
            found[name] = replace(array, row_bytes=_ROW_BYTES[rows])
        elif name not in packed or kind == "f32":
            found[name] = np.asarray(array, np.float32)
        elif kind == "bf16":
            found[name] = np.ascontiguousarray(array, ml_dtypes.bfloat16)
        else:
            found[name] = replace(quantized(array, kind), row_bytes=_ROW_BYTES[rows])
    return found
