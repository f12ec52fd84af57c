"""A request to the engine, and what it hears of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from treadle.serve.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Picked:
    """A chosen token; with logarithms of probabilities where they were asked for.

    ``logprob`` is that of the token under the model's own distribution, ``top`` the likeliest
    tokens with theirs, best first.
    """

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a choice: "stop" (the model ended it), "length" or "cancelled"."""

    reason: str


Event = Picked | Finished | Refusal
Listener = Callable[[int, Event], None]


class Sampler(Protocol):
    """Chooses tokens for one choice, with the state that takes."""

    def pick(self, logits: np.ndarray) -> Picked:
        """A token from the logits (vocabulary,) that follow all tokens so far."""
        ...


class Job:
    """Continuations of one prompt.

    There is one sampler for each choice. ``listener`` is called with the number of a choice and an
    event, on the engine's thread, so it must be quick and must not block. After a ``Finished`` or a
    ``Refusal`` nothing more is heard of a choice.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        samplers: Sequence[Sampler],
        *,
        max_tokens: int,
        end_tokens: frozenset[int] = frozenset(),
        listener: Listener,
    ) -> None:
        self.prompt = tuple(prompt)
        self.samplers = tuple(samplers)
        self.max_tokens = max_tokens
        self.end_tokens = end_tokens
        self.listener = listener
        self.cancelled: set[int] = set()
