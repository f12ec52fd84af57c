"""Choosing tokens as a request asks: penalties and biases, and what was likely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from treadle.language.sampling import Sampler, Sampling
from treadle.serve.job import Picked
from treadle.serve.requests import Generation

_SEEDS = 1 << 63


class RequestSampler:
    """Chooses the tokens of one choice.

    ``choose`` takes logits (vocabulary,) and gives a token. Before, tokens that were written
    already lose ``presence``, and ``frequency`` for each time they were, and ``biases`` are added.
    ``top`` is how many of the likeliest tokens are told along with the chosen one; none if
    ``None``. Their logarithms of probabilities are the model's own, before all of this.
    """

    def __init__(
        self,
        choose: Callable[[np.ndarray], int],
        *,
        presence: float = 0.0,
        frequency: float = 0.0,
        biases: Mapping[int, float] | None = None,
        top: int | None = None,
    ) -> None:
        self._choose = choose
        self._presence = presence
        self._frequency = frequency
        self._added = dict(biases or {})
        self._top = top
        self._written: Counter[int] = Counter()

    def pick(self, logits: np.ndarray) -> Picked:
        """A token from the logits (vocabulary,) float that follow all tokens so far."""
        token = int(self._choose(self._adjusted(logits)))
        if self._presence or self._frequency:
            self._written[token] += 1
        if self._top is None:
            return Picked(token)
        logprobs = _log_softmax(logits)
        top = likeliest(logprobs, self._top)
        return Picked(token, float(logprobs[token]), tuple((t, float(logprobs[t])) for t in top))

    def _adjusted(self, logits: np.ndarray) -> np.ndarray:
        if not self._added and not self._written:
            return logits
        adjusted = np.array(logits, np.float32)
        for token, times in self._written.items():
            adjusted[token] -= self._presence + self._frequency * times
        for token, value in self._added.items():
            adjusted[token] += value
        return adjusted


def make_sampler(
    request: Generation, top: int | None, prompt: Sequence[int], choice: int
) -> RequestSampler:
    """The sampler of a choice; ``top`` likeliest tokens are told along, none if ``None``.

    Choices with the same seed differ, and are the same each time.
    """
    temperature = 1.0 if request.temperature is None else request.temperature
    seed = None if request.seed is None else (request.seed + choice) % _SEEDS
    penalty = 1.0 if request.repetition_penalty is None else request.repetition_penalty
    sampling = Sampling(temperature, request.top_k, request.top_p, request.min_p, penalty, seed)
    return RequestSampler(
        Sampler(sampling, prompt).next,
        presence=request.presence_penalty or 0.0,
        frequency=request.frequency_penalty or 0.0,
        biases=request.biases,
        top=top,
    )


def likeliest(values: np.ndarray, count: int) -> list[int]:
    """The places of the ``count`` largest values, largest first."""
    count = min(count, len(values))
    if not count:
        return []
    found = np.argpartition(-values, count - 1)[:count]
    return [int(place) for place in found[np.argsort(-values[found], kind="stable")]]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
