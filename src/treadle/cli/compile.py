"""``treadle compile``: a model to an artifact."""

from pathlib import Path
from typing import Annotated

import typer

from treadle.cli.inputs import parse_dims
from treadle.cli.models import compiled
from treadle.cli.parameters import LibraryNames, Model, Numerics, Target, Threads
from treadle.cli.report import out, print_approximations, print_library_choices


def compile_model(
    model: Model,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: MODEL with .treadle.")
    ] = None,
    target: Target = "native",
    threads: Threads = None,
    numerics: Numerics = "default",
    libraries: LibraryNames = None,
    bounds: Annotated[
        list[str] | None,
        typer.Option("--bound", metavar="NAME=SIZE", help="The most that a dimension may be."),
    ] = None,
    static_memory: Annotated[
        bool,
        typer.Option("--static-memory", help="Take memory once, for the largest sizes."),
    ] = False,
) -> None:
    """Compile MODEL and write an artifact that loads quickly."""
    path = model.with_suffix(".treadle") if output is None else output
    exe = compiled(
        model,
        target=target,
        threads=threads,
        numerics=numerics,
        libraries=libraries,
        bounds=parse_dims(bounds),
        static_memory=static_memory,
    )
    exe.save(path)
    console = out()
    console.print(exe.signature, markup=False)
    print_approximations(console, exe)
    print_library_choices(console, exe)
    console.print(f"wrote {path} ({path.stat().st_size / 2**20:.2f} MiB)", markup=False)
