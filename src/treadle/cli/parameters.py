"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="An .onnx, .pt2, .treadle or .py file.")
]
Target = Annotated[
    str, typer.Option("--target", help="native, or an architecture level such as x86-64-v3.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="Threads that a call uses; all cores by default.")
]
Numerics = Annotated[str, typer.Option("--numerics", help="default, fast or strict.")]
LibraryNames = Annotated[
    list[str] | None,
    typer.Option(
        "--library",
        metavar="NAME",
        help="A library that may compute parts of the model: openblas, or FILE.py:NAME.",
    ),
]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", metavar="NAME=SIZE", help="The value of a symbolic dimension."),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the random inputs.")]
