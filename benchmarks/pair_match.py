"""T5-small and Whisper-tiny beside transformers: the same greedy tokens, and the time that takes.

Weights are random, of a fixed seed, in f32. A source is read and 64 tokens are written, by Treadle
and by PyTorch eager in turns, on one thread; the table has the shortest times of the processor. The
exit status is 1 if a token differs, or Treadle is less than 1.2 times as fast.

    python benchmarks/pair_match.py
    python benchmarks/pair_match.py whisper_tiny --tokens 16
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from common.decoders import saved
from common.pairs import PAIRS, written
from rich.console import Console
from rich.table import Table

from treadle.language.pair import EncoderDecoder

WANTED = 1.2


@dataclass(frozen=True)
class Outcome:
    """What came of one model."""

    name: str
    same: bool
    ours: float
    theirs: float

    @property
    def passed(self) -> bool:
        """Whether the tokens agree and came in less time."""
        return self.same and self.theirs / self.ours >= WANTED


def outcome(name: str, count: int, runs: int) -> Outcome:
    """Compile one model and compare."""
    model, source = PAIRS[name]()
    with tempfile.TemporaryDirectory() as folder:
        compiled = EncoderDecoder.load(saved(model, Path(folder)), threads=1)
    tokens: dict[str, list[int]] = {}
    times: dict[str, float] = {"ours": float("inf"), "theirs": float("inf")}
    calls: dict[str, Callable[[], list[int]]] = {
        "ours": lambda: compiled.generate([source], max_tokens=count, stop=())[0],
        "theirs": lambda: written(model, source, count),
    }
    for _ in range(runs):
        for who, call in calls.items():
            start = time.thread_time()
            tokens[who] = call()
            times[who] = min(times[who], time.thread_time() - start)
    return Outcome(name, tokens["ours"] == tokens["theirs"], **times)


def main() -> int:
    """Compare and print; 1 if anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(PAIRS))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = [outcome(name, options.tokens, options.runs) for name in options.names]
    table = Table(title=f"a source read and {options.tokens} tokens written, seconds of one thread")
    for heading in ("model", "same tokens", "Treadle", "PyTorch eager", "times as fast"):
        table.add_column(heading, justify="right")
    for o in outcomes:
        table.add_row(
            o.name, "yes" if o.same else "no", f"{o.ours:.3f}", f"{o.theirs:.3f}",
            f"{o.theirs / o.ours:.2f}",
        )  # fmt: skip
    Console().print(table)
    return 0 if all(o.passed for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
