"""What the commands that run language models share: their options, and how a model is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.cli.progress import progress

if TYPE_CHECKING:
    from treadle.language import LanguageModel

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="A folder with config.json, *.safetensors and tokenizer.json."
    ),
]
Weights = Annotated[
    str, typer.Option("--weights", help="How matrices are kept: f32, bf16, int8 or int4.")
]
Rows = Annotated[
    str,
    typer.Option("--rows", help="What meets quantized weights: f32, or rounded to i16 or i8."),
]
CacheFormat = Annotated[
    str | None,
    typer.Option(
        "--cache-format",
        help="How keys and values are kept: f32, bf16 or f16; f16 beside quantized weights, else "
        "as the weights.",
    ),
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Do not read weights; draw them.")
]


def load_model(
    folder: Path,
    weights: str,
    rows: str,
    cache_format: str | None,
    random: bool,
    threads: int | None,
) -> "LanguageModel":
    """Load a language model and compile it, showing how far that is; for the arguments and errors
    see ``LanguageModel.load``.
    """
    from treadle.language import LanguageModel

    with progress(f"compiling {folder.name}") as report:
        return LanguageModel.load(
            folder,
            weights=weights,
            rows=rows,
            cache_format=cache_format,
            random=random,
            threads=threads,
            progress=report,
        )
