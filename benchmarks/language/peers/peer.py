"""What one who runs a model must do."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

PLACES = 1024
"""Tokens that a cache must hold."""


class Unable(Exception):
    """A peer has no such kind of weights."""


class Peer(Protocol):
    """Loads weights of one kind from a folder, and runs one text."""

    def __init__(self, folder: Path, kind: str, threads: int) -> None: ...

    def begin(self) -> None:
        """Forget the text."""

    def take(self, tokens: Sequence[int]) -> np.ndarray:
        """Add tokens to the text; the logits (vocabulary,) of the last."""
        ...


def timed(peer: Peer, prompt: int, count: int, seed: int = 0) -> tuple[float, list[float]]:
    """The seconds of a prompt, and of each of ``count`` tokens after it."""
    tokens = np.random.default_rng(seed).integers(3, 500, prompt + count).tolist()
    peer.begin()
    start = time.perf_counter()
    peer.take(tokens[:prompt])
    first = time.perf_counter() - start
    later: list[float] = []
    for token in tokens[prompt:]:
        start = time.perf_counter()
        peer.take([token])
        later.append(time.perf_counter() - start)
    return first, later
