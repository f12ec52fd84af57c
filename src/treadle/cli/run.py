"""``treadle run``: a model on arrays from files, or on random ones."""

import zipfile
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from treadle.base.errors import OptionError
from treadle.cli.inputs import Arrays, Given, make_inputs, parse_dims, parse_shapes, read_arrays
from treadle.cli.models import compiled
from treadle.cli.parameters import Dims, LibraryNames, Model, Numerics, Seed, Target, Threads
from treadle.cli.report import out
from treadle_runtime.array import dtype_name
from treadle_runtime.files import write_atomically

_SHOWN = 4


def run(
    model: Model,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES]", help="Inputs: .npy in order, .npz by name."),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=2x128", help="A random input of this shape."),
    ] = None,
    dims: Dims = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the results to this .npz file.")
    ] = None,
    target: Target = "native",
    threads: Threads = None,
    numerics: Numerics = "default",
    libraries: LibraryNames = None,
) -> None:
    """Run MODEL once and show, or write, its results."""
    if output is not None and output.suffix != ".npz":
        raise OptionError(
            "E0844", f"'{output}' is no .npz file", help="name a file that ends in .npz"
        )
    named, listed = read_arrays(files or [])
    given = Given(named, listed, parse_shapes(shapes), parse_dims(dims))
    exe = compiled(model, target=target, threads=threads, numerics=numerics, libraries=libraries)
    results = exe(**make_inputs(exe.entry, given, seed))
    arrays = results if isinstance(results, tuple) else (results,)
    found = dict(zip((spec.name for spec in exe.entry.outputs), arrays, strict=True))
    _show(found)
    if output is not None:
        write_atomically(output, lambda file: _write_npz(file, found))
        out().print(f"wrote {output}", markup=False)


def _write_npz(file: IO[bytes], arrays: Arrays) -> None:
    """As ``numpy.savez``, which takes names as keywords and so not every name."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _show(results: Arrays) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("result", "dtype", "shape", "first values"):
        table.add_column(heading)
    for name, array in results.items():
        values = ", ".join(f"{float(v):.6g}" for v in array.reshape(-1)[:_SHOWN])
        more = ", …" if array.size > _SHOWN else ""
        table.add_row(Text(name), dtype_name(array.dtype), str(array.shape), values + more)
    out().print(table)
