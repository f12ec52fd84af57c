"""Decoders beside transformers: the same greedy tokens, and the same logits at all sizes.

Weights are random, of a fixed seed, and everything is computed in f32. For each family a model is
compiled once. Greedy decoding of 256 tokens must give the tokens of transformers; then random
triples of batch, length and length of the cache are run on the one executable, and their logits
compared with those of the whole texts. Whatever is compiled meanwhile is counted. The exit status
is 1 if a token differs, a result is outside of the tolerance, or anything is compiled again.

    python benchmarks/language_match.py                       # five families, 200 triples in all
    python benchmarks/language_match.py llama --triples 20    # some, fewer
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common.decoders import continued, decoder, saved
from rich.console import Console
from rich.table import Table
from torch import nn

from treadle.driver import compile as compiling
from treadle.language import LanguageModel

FAMILIES = ("llama", "qwen2", "gemma2", "gpt2", "bloom")
_WIDE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "vocab_size": 1000,
}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 256, "n_layer": 4, "n_head": 8, "vocab_size": 1000, "n_positions": 512},
    "bloom": {"hidden_size": 256, "n_layer": 4, "n_head": 8, "vocab_size": 1000},
    "opt": {**_WIDE, "ffn_dim": 512, "word_embed_proj_dim": 256},
}
PROMPT, TOKENS = 16, 256
MOST_BATCH, MOST_NEW, MOST_KEPT = 6, 48, 160
RELATIVE, ABSOLUTE = 1e-3, 1e-4


@dataclass(frozen=True)
class Outcome:
    """What came of one family."""

    family: str
    compile: float
    same: int
    triples: int
    close: int
    worst: float
    compiled: int

    @property
    def passed(self) -> bool:
        """Whether all was as it must be."""
        return self.same == TOKENS and self.close == self.triples and not self.compiled


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The list of what is compiled inside the block."""
    module = sys.modules[compiling.__module__]
    build, seen = module.build, []

    def counted(*args: Any, **options: Any) -> Any:  # noqa: ANN401  (of build)
        seen.append("main")
        return build(*args, **options)

    module.build = counted
    try:
        yield seen
    finally:
        module.build = build


def outcome(family: str, triples: int, threads: int) -> Outcome:
    """Compile one family's model and compare."""
    theirs = decoder(family, initializer_range=0.08, **SIZES.get(family, _WIDE))
    random = np.random.default_rng(0)
    prompt = random.integers(3, 1000, PROMPT).tolist()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        ours = LanguageModel.load(saved(theirs, Path(folder)), threads=threads)
        spent = time.perf_counter() - start
    with compilations() as seen:
        tokens = list(ours.generate(prompt, max_tokens=TOKENS, stop=()))
        wanted = continued(theirs, prompt, TOKENS)
        pairs = enumerate(zip(tokens, wanted, strict=True))
        same = next((i for i, (a, b) in pairs if a != b), len(tokens))
        errors = [difference(theirs, ours, random) for _ in range(triples)]
    close = sum(e <= 1 for e in errors)
    return Outcome(family, spent, same, triples, close, max(errors, default=0.0), len(seen))


def difference(theirs: nn.Module, ours: LanguageModel, random: np.random.Generator) -> float:
    """The largest difference of logits of one random triple, in units of the tolerance."""
    batch = int(random.integers(1, MOST_BATCH + 1))
    new = int(random.integers(1, MOST_NEW + 1))
    kept = int(random.integers(0, MOST_KEPT + 1))
    texts = random.integers(3, 1000, (batch, kept + new))
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(texts)).logits[:, kept:].numpy()
    cache = ours.new_cache(batch * (-(-(kept + new) // 16)))
    sequences = [cache.create() for _ in range(batch)]
    if kept:
        parts = [(s, t[:kept].tolist()) for s, t in zip(sequences, texts, strict=True)]
        ours.step(cache.append(parts, "none"))
    parts = [(s, t[kept:].tolist()) for s, t in zip(sequences, texts, strict=True)]
    found = ours.step(cache.append(parts, "all")).reshape(wanted.shape)
    allowed = ABSOLUTE + RELATIVE * np.abs(wanted)
    return float((np.abs(found - wanted) / allowed).max())


def table(outcomes: list[Outcome]) -> Table:
    """A row for each family."""
    found = Table(title=f"{TOKENS} greedy tokens and random triples, against transformers")
    for heading in ("family", "compile s", "same tokens", "close", "worst / tolerance", "compiled"):
        found.add_column(heading, justify="right")
    for o in outcomes:
        found.add_row(
            o.family, f"{o.compile:.1f}", f"{o.same} / {TOKENS}", f"{o.close} / {o.triples}",
            f"{o.worst:.2g}", str(o.compiled),
        )  # fmt: skip
    return found


def main() -> int:
    """Compare and print; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=FAMILIES)
    parser.add_argument("--triples", type=int, default=200, help="over all families")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    each = -(-options.triples // len(options.families))
    outcomes = [outcome(family, each, options.threads) for family in options.families]
    Console().print(table(outcomes))
    return 0 if all(o.passed for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
