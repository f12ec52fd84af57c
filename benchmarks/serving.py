"""Many streams at once against one after another, through the server.

A Llama with random weights (by default of 110 million parameters) is served by ``treadle serve`` in
a process of its own. Prompts of random tokens are completed greedily, all at the same time, and
then one after another. Every stream is compared with what its prompt gives alone. Where two tokens
are equally likely up to rounding, either may follow: a stream that takes the other at such a place
is a tie, and any other is different.

Printed are the tokens per second of both runs, the time to the first token, and the peak memory of
the server. The exit status is 1 if a stream is different or lost, or if all at the same time give
less than 4 times the tokens per second.

    python benchmarks/serving.py
"""

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common.child import environment
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers

BAR = 4.0
TIE = 1e-4
SHORTEST, LONGEST = 16, 64
VOCABULARY = {False: 32000, True: 512}
SETTINGS = {
    False: {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
    },
    True: {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


@dataclass(frozen=True)
class Stream:
    """What one request gave: its tokens as words, and seconds to the first and to the last.

    ``gaps`` are by how much each token was likelier than the next best, where that was asked for.
    """

    words: list[str]
    first: float
    last: float
    gaps: list[float]


def write_model(folder: Path, tiny: bool) -> None:
    """A folder with the settings of a model, and a tokenizer with a word for every token."""
    size = VOCABULARY[tiny]
    config = {
        "model_type": "llama",
        "vocab_size": size,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        **SETTINGS[tiny],
    }
    (folder / "config.json").write_text(json.dumps(config))
    words = {f"t{i}": i for i in range(size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))


@contextmanager
def server(folder: Path, *options: str) -> Generator[str]:
    """A server of the folder's model; its URL."""
    start = [sys.executable, "-c", "from treadle.cli import app; app()", "serve", str(folder)]
    command = [*start, "--random-weights", "--name", "model", "--port", "0", *options]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"at (http\S+)/v1", said)
            if found is None:
                raise SystemExit(f"the server did not start: {said}")
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


async def events(url: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """The events of a stream.

    Written out here, since OpenAI's client takes longer over a token than the server does, and the
    two share the processor.
    """
    address = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    try:
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                yield json.loads(line.removeprefix(b"data: "))
    finally:
        writer.close()


async def stream(url: str, prompt: list[int], count: int, *, gaps: bool = False) -> Stream | None:
    """Complete a prompt greedily; ``None`` if the request is refused or lost."""
    body = {
        "model": "model",
        "prompt": prompt,
        "max_tokens": count,
        "temperature": 0,
        "stream": True,
        "logprobs": 2 if gaps else None,
        "ignore_eos": True,
    }
    begin = time.perf_counter()
    first = 0.0
    words: list[str] = []
    found: list[float] = []
    ended = False
    async with aclosing(events(url, body)) as pieces:
        async for piece in pieces:
            first = first or time.perf_counter() - begin
            for choice in piece.get("choices", ()):
                words += choice["text"].split()
                ended |= choice["finish_reason"] == "length"
                for top in (choice["logprobs"] or {}).get("top_logprobs", ()):
                    best, second = sorted(top.values(), reverse=True)
                    found.append(best - second)
    return Stream(words, first, time.perf_counter() - begin, found) if ended else None


@dataclass(frozen=True)
class Measured:
    """Both runs, with the seconds that each took; what became of every stream."""

    alone: list[Stream | None]
    alone_seconds: float
    together: list[Stream | None]
    together_seconds: float
    verdicts: list[str]


async def measure(url: str, prompts: list[list[int]], count: int) -> Measured:
    """All prompts at once, and one after another.

    The second run may find beginnings of prompts in the server's cache, which is to the advantage
    of one after another.
    """
    await stream(url, prompts[0][:1], 2)
    begin = time.perf_counter()
    together = await asyncio.gather(*(stream(url, prompt, count) for prompt in prompts))
    middle = time.perf_counter()
    alone = [await stream(url, prompt, count) for prompt in prompts]
    end = time.perf_counter()
    verdicts: list[str] = []
    for prompt, one, other in zip(prompts, alone, together, strict=True):
        verdict = compare(one, other)
        if verdict == "different":
            verdict = compare(await stream(url, prompt, count, gaps=True), other)
        verdicts.append(verdict)
    return Measured(alone, end - middle, list(together), middle - begin, verdicts)


def compare(alone: Stream | None, together: Stream | None) -> str:
    """Whether two streams are "equal", "different", or "lost"; with gaps, also "tie"."""
    if alone is None or together is None:
        return "lost"
    if alone.words == together.words:
        return "equal"
    pairs = zip(alone.words, together.words, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    tie = place is not None and len(alone.gaps) > place and alone.gaps[place] < TIE
    return "tie" if tie else "different"


def metric(url: str, name: str) -> float:
    """A figure that the server tells."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        found = re.search(rf"^treadle_{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description="Measure a server of many streams.")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--weights", default="f32")
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the script")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    sizes = random.integers(SHORTEST, LONGEST, options.streams, endpoint=True)
    prompts = [random.integers(0, VOCABULARY[options.tiny], n).tolist() for n in sizes]
    arguments = ["--weights", options.weights, "--running", str(options.streams)]
    if options.threads is not None:
        arguments += ["--threads", str(options.threads)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, options.tiny)
        with server(folder, *arguments) as url:
            found = asyncio.run(measure(url, prompts, options.tokens))
            peak = metric(url, "peak_memory_bytes")
    return report(found, peak, options.streams * options.tokens)


def report(found: Measured, peak: float, wanted: int) -> int:
    """Print the table; the exit status."""
    table = Table("", "tokens", "seconds", "tokens/s", "first token, median", "slowest")
    speeds: list[float] = []
    for name, streams, seconds in (
        ("one after another", found.alone, found.alone_seconds),
        ("all at once", found.together, found.together_seconds),
    ):
        done = [one for one in streams if one is not None]
        tokens = sum(len(one.words) for one in done)
        speeds.append(tokens / seconds)
        first = sorted(one.first for one in done) or [0.0]
        table.add_row(
            name,
            f"{tokens} of {wanted}",
            f"{seconds:.1f}",
            f"{speeds[-1]:.1f}",
            f"{1000 * first[len(first) // 2]:.0f} ms",
            f"{1000 * first[-1]:.0f} ms",
        )
    ratio = speeds[1] / speeds[0]
    verdicts = Counter(found.verdicts)
    console = Console(width=110)
    console.print(table)
    console.print(f"all at once against one after another: {ratio:.2f}× (bar: {BAR:.0f}×)")
    console.print("streams: " + ", ".join(f"{count} {what}" for what, count in verdicts.items()))
    console.print(f"peak memory of the server: {peak / 2**20:.0f} MiB")
    right = not verdicts["different"] and not verdicts["lost"]
    return 0 if right and ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
