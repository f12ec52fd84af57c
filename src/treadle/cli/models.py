"""Models by path, as the commands take them."""

import importlib.util
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from treadle.base.errors import ModelImportError
from treadle.cli.libraries import libraries_called
from treadle.cli.progress import progress
from treadle.driver.compile import compile as compile_model
from treadle.driver.compile import import_model
from treadle.driver.executable import Executable
from treadle.ir.module import Module

T = TypeVar("T")
PEER_OF = {".onnx": "onnxruntime", ".pt2": "torch"}


def load_model(path: Path) -> Any:  # noqa: ANN401  (whatever the front end takes)
    """The path itself, or for a ``.pt2`` file the program in it.

    Raises:
        ModelImportError: E0611 if the file does not exist, E0615 if it is no exported program or
            PyTorch is not installed.
    """
    if path.suffix != ".pt2":
        return path
    if not path.is_file():
        raise ModelImportError(
            "E0611", f"there is no file '{path}'", help="name a file that exists"
        )
    if importlib.util.find_spec("torch") is None:
        raise ModelImportError(
            "E0615",
            f"'{path}' is read by PyTorch, which is not installed",
            help="pip install 'treadle[torch]'",
        )
    # PyTorch reports a file that is no zip with a traceback of its own.
    if not zipfile.is_zipfile(path):
        raise _no_program(path, "it is no zip file, or cut short")
    import torch

    try:
        return torch.export.load(path)
    except (
        zipfile.BadZipFile,
        RuntimeError,
        ValueError,
        KeyError,
        AssertionError,
        EOFError,
    ) as error:
        raise _no_program(path, str(error).strip().partition("\n")[0]) from error


def _no_program(path: Path, why: str) -> ModelImportError:
    return ModelImportError(
        "E0615",
        f"'{path}' is not an exported program",
        notes=(why,),
        help="save it with torch.export.save, or copy the file again",
    )


def compiled(
    path: Path,
    *,
    target: str = "native",
    threads: int | None = None,
    numerics: str = "default",
    libraries: Sequence[str] | None = None,
    bounds: Mapping[str, int] = MappingProxyType({}),
    static_memory: bool = False,
) -> Executable:
    """Compile the model at ``path``, with a progress bar; ``libraries`` are the names of those that
    may compute parts of it, and the rest is as for ``treadle.compile``.

    Raises:
        TreadleError: what the front end and the compiler say.
    """
    given = libraries_called(libraries)
    with progress(f"compiling {path.name}") as report:
        return compile_model(
            load_model(path),
            target=target,
            threads=threads,
            numerics=numerics,
            libraries=given,
            bounds=bounds,
            static_memory=static_memory,
            progress=report,
        )


def imported(path: Path) -> Module:
    """The module of the model at ``path``, as its front end leaves it."""
    return import_model(load_model(path), None, None, None)[0]


def slowly(title: str, work: Callable[[], T]) -> T:
    """Do something that has no stages, with a bar if it takes long."""
    with progress(title):
        return work()
