"""``treadle generate``: a language model continues a text."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.base.errors import OptionError
from treadle.cli.language import CacheFormat, Folder, RandomWeights, Rows, Weights, load_model
from treadle.cli.parameters import Threads
from treadle.cli.report import err

if TYPE_CHECKING:
    from treadle.language import LanguageModel


def generate(
    folder: Folder,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="The text that is to be continued.")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", metavar="1,2,3", help="The prompt as tokens; tokens come out."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is what a user says in a conversation.")
    ] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Tokens at most.")] = 128,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0 takes the likeliest token every time.")
    ] = 0.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", help="Choose among the k likeliest tokens.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Among the likeliest that sum up to p.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option("--min-p", help="Among those at least p as likely as the best.")
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option("--repetition-penalty", help="Above 1: tokens that were there less.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the choices.")] = None,
    weights: Weights = "f32",
    rows: Rows = "f32",
    cache_format: CacheFormat = None,
    random: RandomWeights = False,
    threads: Threads = None,
) -> None:
    """Continue a text with the language model of FOLDER, and show how fast that went."""
    from treadle.language import Sampling

    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    model = load_model(folder, weights, rows, cache_format, random, threads)
    start = model.tokens_of(_prompt(model, prompt, tokens, chat))
    began = time.perf_counter()
    first = began
    count = 0
    text = None if tokens is not None else model.text_stream()
    for token in model.generate(start, sampling=sampling, max_tokens=max_tokens):
        count += 1
        if count == 1:
            first = time.perf_counter()
        typer.echo(f"{token} " if text is None else text.add(token), nl=False)
    ended = time.perf_counter()
    typer.echo("" if text is None else text.finish())
    err().print(_speed(len(start), first - began, count, ended - first), style="dim")


def _prompt(
    model: "LanguageModel", prompt: str | None, tokens: str | None, chat: bool
) -> str | list[int]:
    if tokens is not None:
        return parse_tokens(tokens)
    text = prompt or ""
    if chat and model.tokenizer is not None:
        return model.tokenizer.chat([{"role": "user", "content": text}])
    return text


def parse_tokens(text: str) -> list[int]:
    """``"1,2,3"`` as numbers.

    Raises:
        OptionError: E0848 for anything else.
    """
    parts = [p.strip() for p in text.split(",")]
    if not all(p.isascii() and p.isdigit() for p in parts):
        raise OptionError("E0848", f"'{text}' does not list tokens", help="write --tokens 1,2,3")
    return [int(p) for p in parts]


def _speed(prompt: int, before: float, count: int, after: float) -> str:
    """What was computed, and in which time."""
    line = f"prompt: {prompt} tokens, first token after {1000 * before:.0f} ms"
    if count > 1 and after > 0:
        line += f"; then {(count - 1) / after:.1f} tokens per second"
    return f"{line}; {count} tokens in all"
