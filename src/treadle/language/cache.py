"""Keys and values of many sequences, kept in pages of one memory."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import prod

import numpy as np

from treadle.base.errors import LanguageModelError
from treadle.expr.dtype import DType, f32
from treadle.language.config import DecoderConfig
from treadle.language.decoder import PAGE_SIZE, cache_shapes
from treadle.language.pages import NOTHING, Digest, PageTable, digest
from treadle_runtime.array import Slab

_RELEASED = -1

Wanted = str | Sequence[str]


@dataclass(slots=True, eq=False)
class CachedSequence:
    """A text whose keys and values are in a cache: a handle, which its cache changes.

    ``pages`` are the numbers of its pages; those that no window reaches any more are -1.
    """

    tokens: list[int] = field(default_factory=list[int])
    pages: list[int] = field(default_factory=list[int])
    digests: list[Digest] = field(default_factory=list[Digest])
    is_released: bool = False

    @property
    def length(self) -> int:
        """The number of its tokens."""
        return len(self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step: new tokens of some sequences, as the arrays that the program takes.

    ``added`` counts the tokens that each of ``parts`` has grown by.

    Shapes:  tokens, positions, sequences, slots: (t,); table: (b, m); wanted: (r,); all i64.
    """

    cache: "PagedCache"
    parts: tuple[CachedSequence, ...]
    added: tuple[int, ...]
    tokens: np.ndarray
    positions: np.ndarray
    sequences: np.ndarray
    slots: np.ndarray
    table: np.ndarray
    wanted: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The program's inputs before the cache."""
        return (
            self.tokens,
            self.positions,
            self.sequences,
            self.slots,
            self.table,
            self.wanted,
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """What is to be appended to a sequence: ``known`` pages hold its beginning already."""

    sequence: CachedSequence
    tokens: Sequence[int]
    wanted: str
    known: list[int]

    @property
    def computed(self) -> int:
        """How many tokens are left to compute."""
        return len(self.tokens) - len(self.known) * PAGE_SIZE

    @property
    def pages(self) -> int:
        """How many pages the sequence will have."""
        return -(-(self.sequence.length + len(self.tokens)) // PAGE_SIZE)


class PagedCache:
    """Memory for the keys and values of ``pages`` × 16 tokens, shared by all sequences.

    Sequences take pages as they grow. Pages of equal beginnings of texts are computed once: what is
    appended takes full pages that another sequence has, or had, computed. A page that several
    sequences hold is copied before one of them writes to it. Not for several threads at once.
    """

    def __init__(
        self, config: DecoderConfig, pages: int, *, share: bool = True, kept: DType = f32
    ) -> None:
        if pages < 1:
            raise LanguageModelError(
                "E0921", f"a cache of {pages} pages holds nothing", help="use at least one page"
            )
        self.config = config
        self.pages = pages
        self.arrays = new_pages(config, pages, kept)
        self._table = PageTable(pages)
        self._share = share
        self._window = config.window

    @property
    def page_size(self) -> int:
        """The tokens of one page."""
        return PAGE_SIZE

    @property
    def free_pages(self) -> int:
        """The pages that no sequence holds."""
        return self._table.free

    @property
    def nbytes(self) -> int:
        """Bytes of all pages."""
        return sum(a.nbytes for a in self.arrays)

    def create(self) -> CachedSequence:
        """An empty sequence, which holds no page."""
        return CachedSequence()

    def fork(self, sequence: CachedSequence) -> CachedSequence:
        """A sequence of the same tokens, which shares their pages.

        Raises:
            LanguageModelError: E0922 if the sequence was released.
        """
        _check_alive(sequence)
        for page in sequence.pages:
            if page != _RELEASED:
                self._table.hold(page)
        return CachedSequence(list(sequence.tokens), list(sequence.pages), list(sequence.digests))

    def pop(self, sequence: CachedSequence, count: int) -> None:
        """Take away the last ``count`` tokens.

        Raises:
            LanguageModelError: E0922 if the sequence was released, has fewer tokens, or a window
                has dropped the tokens that would be seen again.
        """
        _check_alive(sequence)
        length = sequence.length - count
        if not 0 <= count <= sequence.length:
            raise LanguageModelError(
                "E0922",
                f"cannot take {count} tokens from a sequence of {sequence.length}",
                help="take at most as many as there are",
            )
        dropped = self._dropped(length)
        if _RELEASED in sequence.pages[dropped : -(-length // PAGE_SIZE)]:
            raise LanguageModelError(
                "E0922",
                f"cannot take {count} tokens from a sequence of {sequence.length}",
                notes=("tokens that would be seen again have left the sliding window",),
                help="fork the sequence before it grows past what may be taken back",
            )
        kept = -(-length // PAGE_SIZE)
        for page in sequence.pages[kept:]:
            self._table.give_back(page)
        del sequence.pages[kept:]
        del sequence.tokens[length:]
        del sequence.digests[length // PAGE_SIZE :]

    def release(self, sequence: CachedSequence) -> None:
        """Give the pages of a sequence back; it cannot be used any more.

        Raises:
            LanguageModelError: E0922 if that has happened before.
        """
        _check_alive(sequence)
        for page in reversed(sequence.pages):
            if page != _RELEASED:
                self._table.give_back(page)
        sequence.pages.clear()
        sequence.is_released = True

    def append(
        self,
        parts: Sequence[tuple[CachedSequence, Sequence[int]]],
        wanted: Wanted = "last",
    ) -> Batch:
        """Add tokens to sequences: the step that computes them, for ``LanguageModel.step``.

        ``wanted`` says, for all parts or for each, of which tokens logits are asked for: "last",
        "all" or "none". Of equal beginnings only what is not there yet is computed, but always the
        last token; with "all" every token is.

        Raises:
            LanguageModelError: E0921 if there are too few free pages: nothing has changed then;
                E0922 for a sequence that was released, is named twice or gets no token; E0923 for
                more tokens than the model has positions; E0924 for a token out of range.
        """
        choices = [wanted] * len(parts) if isinstance(wanted, str) else list(wanted)
        self._check(parts, choices)
        planned = [
            _Part(s, tokens, w, self._known(s, tokens) if w != "all" else [])
            for (s, tokens), w in zip(parts, choices, strict=True)
        ]
        self._check_room(planned)
        # Pages that are there already must not be taken for what is new.
        for part in planned:
            for page in part.known:
                self._table.hold(page)
        for part in planned:
            self._grow(part)
        return self._batch(planned)

    def _check(
        self, parts: Sequence[tuple[CachedSequence, Sequence[int]]], choices: list[str]
    ) -> None:
        if not parts or len({id(s) for s, _ in parts}) < len(parts):
            raise LanguageModelError(
                "E0922",
                "a step needs sequences, each named once",
                help="put all tokens of a sequence into one part",
            )
        if len(choices) != len(parts) or not {*choices} <= {"last", "all", "none"}:
            raise LanguageModelError(
                "E0922",
                f"wanted is {choices!r} for {len(parts)} parts",
                help='use "last", "all" or "none", for all parts or for each',
            )
        for sequence, tokens in parts:
            _check_alive(sequence)
            if not len(tokens):
                raise LanguageModelError(
                    "E0922",
                    "a sequence gets no token",
                    help="leave out sequences that do not grow",
                )
            if sequence.length + len(tokens) > self.config.max_positions:
                raise LanguageModelError(
                    "E0923",
                    f"{sequence.length + len(tokens)} tokens are more than the model has "
                    f"positions, {self.config.max_positions}",
                    help="use a shorter text",
                )
            wrong = [t for t in tokens if not 0 <= t < self.config.vocabulary]
            if wrong:
                raise LanguageModelError(
                    "E0924",
                    f"the model has no token {wrong[0]}",
                    help=f"use tokens from 0 to {self.config.vocabulary - 1}",
                )

    def _known(self, sequence: CachedSequence, tokens: Sequence[int]) -> list[int]:
        """Full pages that hold the first of ``tokens`` after those of the sequence."""
        found: list[int] = []
        digests = len(sequence.digests)
        if not self._share or sequence.length != digests * PAGE_SIZE:
            return found
        name = sequence.digests[-1] if digests else NOTHING
        for start in range(0, len(tokens) - PAGE_SIZE, PAGE_SIZE):
            name = digest(name, tokens[start : start + PAGE_SIZE])
            page = self._table.find(name)
            if page is None:
                break
            found.append(page)
        return found

    def _check_room(self, planned: list[_Part]) -> None:
        if sum(part.pages for part in planned) <= self._table.free:
            return  # even without those that they have
        idle = {p for part in planned for p in part.known if self._table.is_idle(p)}
        copied: Counter[int] = Counter()
        needed = 0
        for part in planned:
            needed += part.pages - len(part.sequence.pages) - len(part.known)
            page = _partial(part.sequence)
            if page is not None and self._table.holders(page) - copied[page] > 1:
                copied[page] += 1
                needed += 1
        free = self._table.free - len(idle)
        if needed > free:
            raise LanguageModelError(
                "E0921",
                f"the step needs {needed} pages and {free} are free",
                notes=(f"the cache has {self.pages} pages of {PAGE_SIZE} tokens",),
                help="release sequences, append fewer tokens, or make a cache of more pages",
            )

    def _grow(self, part: _Part) -> None:
        """Give a sequence its pages and tokens."""
        sequence = part.sequence
        page = _partial(sequence)
        if page is not None and self._table.holders(page) > 1:
            new = self._table.take()
            for array in self.arrays:
                array[new] = array[page]
            self._table.give_back(page)
            sequence.pages[-1] = new
        elif page is not None:
            self._table.forget(page)
        sequence.pages += part.known
        sequence.pages += [self._table.take() for _ in range(part.pages - len(sequence.pages))]
        sequence.tokens += [int(t) for t in part.tokens]
        self._name_pages(sequence, len(sequence.digests) + len(part.known))

    def _name_pages(self, sequence: CachedSequence, count: int) -> None:
        """Work out the digests of the first ``count`` pages."""
        for i in range(len(sequence.digests), count):
            before = sequence.digests[-1] if i else NOTHING
            tokens = sequence.tokens[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
            sequence.digests.append(digest(before, tokens))

    def _batch(self, planned: list[_Part]) -> Batch:
        """The arrays of a step, all in one memory: making few arrays takes the least time."""
        width = max(p.pages for p in planned)
        tokens, positions, sequences, slots, wanted, table = (list[int]() for _ in range(6))
        for row, part in enumerate(planned):
            pages, length = part.sequence.pages, part.sequence.length
            new = range(length - part.computed, length)
            tokens += part.sequence.tokens[new.start :]
            positions += new
            sequences += [row] * len(new)
            slots += [pages[i // PAGE_SIZE] * PAGE_SIZE + i % PAGE_SIZE for i in new]
            table += [p if p > 0 else 0 for p in pages]
            table += [0] * (width - len(pages))
            asked = {"all": len(new), "last": 1, "none": 0}[part.wanted]
            wanted += range(len(tokens) - asked, len(tokens))
        rows = (tokens, positions, sequences, slots, wanted, table)
        memory = np.array([x for row in rows for x in row], np.int64)
        ends = [0, *accumulate(map(len, rows))]
        found = [memory[a:b] for a, b in pairwise(ends)]
        return Batch(
            self,
            tuple(part.sequence for part in planned),
            tuple(len(part.tokens) for part in planned),
            tokens=found[0],
            positions=found[1],
            sequences=found[2],
            slots=found[3],
            table=found[5].reshape(len(planned), width),
            wanted=found[4],
        )

    def undo(self, batch: Batch) -> None:
        """Take back what was appended for a step that failed."""
        for sequence, count in zip(batch.parts, batch.added, strict=True):
            self.pop(sequence, count)

    def complete(self, batch: Batch, arrays: Sequence[np.ndarray]) -> None:
        """Take over the arrays that a step left: its full pages may be shared from now on, and
        pages that no window reaches are given back.
        """
        self.arrays = list(arrays)
        for sequence in batch.parts:
            if sequence.is_released:
                continue
            named, full = len(sequence.digests), sequence.length // PAGE_SIZE
            if full > named:
                self._name_pages(sequence, full)
                found = zip(sequence.pages[named:full], sequence.digests[named:], strict=True)
                for page, name in found:
                    if self._share and page != _RELEASED:
                        self._table.know(page, name)
            for i in range(min(self._dropped(sequence.length), len(sequence.pages))):
                if sequence.pages[i] != _RELEASED:
                    self._table.give_back(sequence.pages[i])
                    sequence.pages[i] = _RELEASED

    def _dropped(self, length: int) -> int:
        """How many pages no later token sees."""
        window = self._window
        return 0 if window is None else max(0, (length - window + 1) // PAGE_SIZE)


def _partial(sequence: CachedSequence) -> int | None:
    """The page that the next token joins, if it has tokens already."""
    return sequence.pages[-1] if sequence.length % PAGE_SIZE else None


def _check_alive(sequence: CachedSequence) -> None:
    if sequence.is_released:
        raise LanguageModelError(
            "E0922", "the sequence was released", help="create a new one for another text"
        )


def new_pages(config: DecoderConfig, pages: int, kept: DType = f32) -> list[np.ndarray]:
    """Memory for keys and values of all layers; it is taken when it is first written."""
    memory = Slab(pages * page_bytes(config, kept))
    return [memory.zeros(s, kept.numpy) for s in cache_shapes(config, pages)]


def page_bytes(config: DecoderConfig, kept: DType = f32) -> int:
    """Bytes of the keys and values of one page of all layers."""
    return sum(prod(s) for s in cache_shapes(config, 1)) * kept.bytes
