"""The next token from its logits."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from treadle.base.errors import LanguageModelError

_FEW = 256
_MORE = 16


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. Without a temperature the likeliest token is taken.

    ``top_k`` keeps the k likeliest tokens, ``top_p`` the fewest whose probabilities reach p,
    ``min_p`` those at least so likely relative to the likeliest; each applies to what the one
    before left. ``repetition_penalty`` divides positive logits of tokens that came before and
    multiplies negative ones. The same ``seed`` gives the same tokens; without one, each sampler
    draws its own.

    Raises:
        LanguageModelError: E0920 for a value out of range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, fits, range_ in (
            ("temperature", 0 <= self.temperature < float("inf"), "zero or more"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above 0"),
            ("seed", self.seed is None or self.seed >= 0, "zero or more"),
        ):
            if not fits:
                raise LanguageModelError(
                    "E0920",
                    f"{name} is {getattr(self, name)!r}",
                    help=f"use a value that is {range_}",
                )


GREEDY = Sampling()
"""The likeliest token every time."""


class Sampler:
    """Chooses tokens for one sequence; ``history`` are its tokens so far."""

    def __init__(self, sampling: Sampling = GREEDY, history: Iterable[int] = ()) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._seen = set(history)

    def next(self, logits: np.ndarray) -> int:
        """The token after those so far, from its logits (vocabulary,); it joins the history."""
        scores = self._penalized(logits)
        if self.sampling.temperature == 0:
            token = int(np.argmax(scores))
        else:
            token = self._drawn(scores.astype(np.float64) / self.sampling.temperature)
        self._seen.add(token)
        return token

    def _penalized(self, logits: np.ndarray) -> np.ndarray:
        penalty = self.sampling.repetition_penalty
        if penalty == 1 or not self._seen:
            return logits
        scores = logits.copy()
        seen = np.fromiter(self._seen, np.int64)
        found = scores[seen]
        scores[seen] = np.where(found > 0, found / penalty, found * penalty)
        return scores

    def _drawn(self, scores: np.ndarray) -> int:
        sampling = self.sampling
        if sampling.top_k is None and sampling.top_p in (None, 1) and not sampling.min_p:
            # All tokens may come: their order, which is costly for many, does not matter.
            sums = np.cumsum(np.exp(scores - scores.max()))
            return int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))
        tokens, weights = candidates(scores, sampling)
        return int(tokens[self._random.choice(len(tokens), p=weights)])


def candidates(scores: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may come next, likeliest first, and their probabilities.

    ``scores`` (vocabulary,) are logits over the temperature.
    """
    share = 1.0 if sampling.top_p is None else sampling.top_p
    if sampling.top_k is None and share < 1:
        tokens, weights = _nucleus(scores, share)
    else:
        count = len(scores) if sampling.top_k is None else min(sampling.top_k, len(scores))
        tokens = _likeliest(scores, count)
        weights = np.exp(scores[tokens] - scores[tokens[0]])
        weights /= weights.sum()
    if share < 1:
        count = int(np.searchsorted(np.cumsum(weights), share)) + 1
        tokens, weights = tokens[:count], weights[:count] / weights[:count].sum()
    if sampling.min_p is not None:
        keep = weights >= sampling.min_p * weights[0]
        tokens, weights = tokens[keep], weights[keep] / weights[keep].sum()
    return tokens, weights


def _likeliest(scores: np.ndarray, count: int) -> np.ndarray:
    """The tokens of the ``count`` highest scores, highest first."""
    found = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else None
    tokens = np.arange(len(scores)) if found is None else found
    return tokens[np.argsort(-scores[tokens], kind="stable")]


def _nucleus(scores: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest tokens, at least so many that they reach a share, with probabilities.

    Few tokens do, most of the time: more are only put in order when those do not.
    """
    total = np.exp(scores - scores.max()).sum()
    count = _FEW
    while True:
        tokens = _likeliest(scores, min(count, len(scores)))
        weights = np.exp(scores[tokens] - scores[tokens[0]]) / total
        if len(tokens) == len(scores) or weights.sum() > share:
            return tokens, weights
        count *= _MORE
