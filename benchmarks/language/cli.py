"""The comparison: one kind of weights after another, all peers in turns, and one table."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import MappingProxyType

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ..backends import variables
from ..harness.child import Child, ChildError
from ..harness.measure import cores
from .files import write_folder
from .peers import PEERS
from .sizes import KINDS, SIZES

OURS = "treadle"
PROMPT = 512
CONTEXT = 64
COPIED = 2**29
_BYTES: Mapping[str, float] = MappingProxyType(
    {"f32": 4.0, "bf16": 2.0, "int8": 34 / 32, "int4": 18 / 32}
)
"""Bytes of a weight, its share of the scale included."""
_BARS = MappingProxyType({"f32": 1.2, "bf16": 1.2, "int8": 1.0, "int4": 1.0})
"""Decode's speed over the best peer's."""
_PREFILL_BAR = 1.2
_COPY_BAR = 0.8


@dataclass
class Figures:
    """What was measured of one peer, in seconds."""

    prompts: list[float] = field(default_factory=list[float])
    tokens: list[float] = field(default_factory=list[float])
    failure: str = ""


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="110m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of weights")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=32, help="tokens after each prompt")
    parser.add_argument("--folder", type=Path, help="where weights are kept between runs")
    parser.add_argument("--check", action="store_true", help="fail if a bar is missed")
    return parser.parse_args()


def main() -> int:
    """Measure, print, and say whether all bars hold."""
    given = options()
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_folder(given.size, (given.folder or Path(scratch)) / given.size)
        log = Path(scratch) / "log"
        copy = _copy(given.threads, log)
        missed: list[str] = []
        for kind in given.kinds.split(","):
            found = _measure(given, kind, folder, log)
            console.print(_table(given.size, kind, given.threads, found, copy))
            missed += _missed(given.size, kind, found, copy)
    for line in missed:
        console.print(f"missed: {line}", highlight=False)
    return int(bool(missed) and given.check)


def _copy(threads: int, log: Path) -> float:
    """GB/s of copying far memory, read and written bytes counted, on one core."""
    arguments = ["--cores", str(cores(threads))]
    child = Child("benchmarks.harness.machine", arguments, variables(1), log)
    try:
        return child.ask("copy", touched=COPIED)["gbytes"]
    finally:
        child.stop()


def _measure(given: argparse.Namespace, kind: str, folder: Path, log: Path) -> dict[str, Figures]:
    """All peers on one kind of weights, in turns."""
    names = given.peers.split(",")
    found = {name: Figures() for name in names}
    arguments = {name: [name, "--cores", str(cores(given.threads))] for name in names}
    settings = variables(given.threads)
    children = {n: Child("benchmarks.language.worker", arguments[n], settings, log) for n in names}
    texts: dict[str, np.ndarray] = {}
    try:
        for name, child in children.items():
            try:
                answer = child.ask("load", folder=str(folder), kind=kind, threads=given.threads)
                if "unable" in answer:
                    found[name].failure = "–"
                    continue
                tokens = np.random.default_rng(1).integers(3, 500, 40).tolist()
                texts[name] = np.array(child.ask("logits", tokens=tokens)["logits"])
                child.ask("burst", prompt=PROMPT, count=2)
            except ChildError as error:
                found[name].failure = str(error)
        for _ in range(given.rounds):
            for name, child in children.items():
                if found[name].failure:
                    continue
                long = child.ask("burst", prompt=PROMPT, count=0)
                short = child.ask("burst", prompt=CONTEXT, count=given.count)
                found[name].prompts.append(long["first"])
                found[name].tokens += short["later"]
    finally:
        for child in children.values():
            child.stop()
    _agree(kind, texts, found)
    return found


def _agree(kind: str, texts: Mapping[str, np.ndarray], found: Mapping[str, Figures]) -> None:
    """Note who computes something else."""
    tolerance = {"f32": 1e-3, "bf16": 5e-2, "int8": 5e-2, "int4": 5e-2}[kind]
    for name, logits in texts.items():
        reference = texts[OURS] if OURS in texts else logits
        error = np.abs(logits - reference).max() / np.abs(reference).max()
        if error > tolerance:
            found[name].failure = f"other results: {error:.1e}"


def weight_bytes(size: str, kind: str) -> float:
    """Bytes of weights that a token reads: all but the embedding."""
    s = SIZES[size]
    width, hidden = s["hidden_size"], s["intermediate_size"]
    shared = width * s["num_key_value_heads"] // s["num_attention_heads"]
    layer = width * (2 * width + 2 * shared) + 3 * width * hidden
    return (s["num_hidden_layers"] * layer + width * s["vocab_size"]) * _BYTES[kind]


def _best(found: Mapping[str, Figures], what: str) -> tuple[str, float] | None:
    others = [
        (name, median(getattr(f, what)))
        for name, f in found.items()
        if name != OURS and getattr(f, what) and not f.failure
    ]
    return min(others, key=lambda x: x[1], default=None)


def _table(size: str, kind: str, threads: int, found: Mapping[str, Figures], copy: float) -> Table:
    """A line for each peer."""
    table = Table(
        *("by", f"prefill {PROMPT}", "tokens/s", "decode", "tokens/s", "GB/s of weights"),
        *("of copy", "Treadle's speed"),
        title=f"Llama {size}, {kind}, {threads} threads",
        caption=f"copying: {copy:.1f} GB/s on a core; medians; speed: prefill / decode",
        box=SIMPLE,
    )
    ours = found.get(OURS)
    for name, f in found.items():
        if not f.tokens:
            table.add_row(name, f.failure)
            continue
        prompt, token = median(f.prompts), median(f.tokens)
        rate = weight_bytes(size, kind) / token / 1e9
        speed = ""
        if ours is not None and ours.tokens and name != OURS:
            speed = f"{prompt / median(ours.prompts):.2f} / {token / median(ours.tokens):.2f}"
        table.add_row(
            *(name, f"{prompt * 1e3:.1f} ms", f"{PROMPT / prompt:.0f}"),
            *(f"{token * 1e3:.2f} ms", f"{1 / token:.1f}", f"{rate:.1f}"),
            *(f"{rate / copy:.0%}", speed or f.failure),
        )
    return table


def _missed(size: str, kind: str, found: Mapping[str, Figures], copy: float) -> Sequence[str]:
    """The bars that do not hold."""
    ours = found.get(OURS)
    if ours is None or not ours.tokens:
        return [f"{kind}: Treadle has no figures"]
    missed: list[str] = []
    for what, bar, title in (
        ("prompts", _PREFILL_BAR, "prefill"),
        ("tokens", _BARS[kind], "decode"),
    ):
        best = _best(found, what)
        if best is not None:
            speed = best[1] / median(getattr(ours, what))
            if speed < bar:
                missed.append(f"{kind} {title}: {speed:.2f} of {best[0]} < {bar}")
    rate = weight_bytes(size, kind) / median(ours.tokens) / 1e9
    if kind in ("int8", "int4") and rate < _COPY_BAR * copy:
        missed.append(f"{kind} decode: {rate:.1f} GB/s < {_COPY_BAR:.0%} of {copy:.1f}")
    return missed
