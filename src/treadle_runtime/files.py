"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

from treadle_runtime.errors import RuntimeFault


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it over ``path``.

    On any failure the old file, or its absence, stays. Raises ``RuntimeFault`` E0710 if the system
    refuses; what ``write`` raises comes through.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name[:64]}.{uuid.uuid4().hex}.tmp")
    try:
        _fill_and_rename(target, temporary, write)
    except OSError as error:
        raise RuntimeFault(
            "E0710",
            f"cannot write '{target}'",
            notes=(error.strerror or str(error),),
            help="name a file in a folder that exists and that you may write to",
        ) from error


def _fill_and_rename(target: Path, temporary: Path, write: Callable[[IO[bytes]], object]) -> None:
    with open(temporary, "xb") as file:
        try:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            # After the rename there is nothing left to remove.
            temporary.unlink(missing_ok=True)
