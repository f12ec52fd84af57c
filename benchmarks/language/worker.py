"""A process that runs a model for one peer when it is told to."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ..harness.worker import pin, private_output, serve
from .peers import load_peer
from .peers.peer import Peer, Unable, timed


class Session:
    """A loaded model."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.model: Peer | None = None

    def load(self, folder: str, kind: str, threads: int) -> dict[str, Any]:
        """Load weights of a kind."""
        start = time.perf_counter()
        try:
            self.model = load_peer(self.peer)(Path(folder), kind, threads)
        except Unable:
            return {"unable": True}
        return {"seconds": time.perf_counter() - start}

    def logits(self, tokens: list[int]) -> dict[str, Any]:
        """What comes after a text, to see that all compute the same."""
        assert self.model is not None
        self.model.begin()
        return {"logits": self.model.take(tokens).tolist()}

    def burst(self, prompt: int, count: int) -> dict[str, Any]:
        """Seconds of a prompt and of tokens after it."""
        assert self.model is not None
        first, later = timed(self.model, prompt, count)
        return {"first": first, "later": later}


if __name__ == "__main__":
    PARSER = argparse.ArgumentParser()
    PARSER.add_argument("peer")
    PARSER.add_argument("--cores", type=json.loads, required=True)
    OPTIONS = PARSER.parse_args()
    pin(OPTIONS.cores)
    OUTPUT = private_output()
    serve(lambda: Session(OPTIONS.peer), sys.stdin, OUTPUT)
