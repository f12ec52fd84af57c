"""Weights that stay in their artifact until somebody asks for them."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from treadle_runtime.array import storage_dtype
from treadle_runtime.artifact import SAFETENSORS, WEIGHTS
from treadle_runtime.errors import RuntimeFault

# Before a member's data in a zip stands a header of this length, then its name and extra field,
# whose lengths are the header's last two numbers.
_LOCAL_HEADER = 30


@dataclass(frozen=True)
class _Place:
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    bytes: int


class StoredWeights(Mapping[str, np.ndarray]):
    """The weights of an artifact that ``artifact.read`` has checked, each read when it is asked for
    and not kept: arrays are read-only, of ``storage_dtype``.

    Asking raises ``RuntimeFault``: E0711 if the file cannot be read any more, E0714 if it is not
    the one that it was when this was made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).resolve()
        with self._opened() as file:
            self._identity = _identity(file)
            self._places = _places(file)

    def __getitem__(self, name: str) -> np.ndarray:
        place = self._places[name]
        with self._opened() as file:
            if _identity(file) != self._identity:
                raise RuntimeFault(
                    "E0714",
                    f"'{self._path}' changed after it was loaded",
                    help="load the model again",
                )
            file.seek(place.offset)
            data = file.read(place.bytes)
        return np.frombuffer(data, place.dtype).reshape(place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _opened(self) -> IO[bytes]:
        try:
            return open(self._path, "rb")
        except OSError as error:
            raise RuntimeFault(
                "E0711",
                f"cannot read '{self._path}'",
                notes=(error.strerror or str(error),),
                help="put the file back: its weights are read when they are needed",
            ) from error


def _identity(file: IO[bytes]) -> tuple[int, int, int, int]:
    """What tells a file from another in its place, and from itself after a change."""
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _places(file: IO[bytes]) -> dict[str, _Place]:
    """Where each weight lies: the member is stored as it is, and begins with a table in JSON."""
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo(WEIGHTS).header_offset
    file.seek(start)
    name, extra = struct.unpack("<2H", file.read(_LOCAL_HEADER)[-4:])
    start += _LOCAL_HEADER + name + extra
    file.seek(start)
    (length,) = struct.unpack("<Q", file.read(8))
    table = json.loads(file.read(length))
    table.pop("__metadata__", None)
    places: dict[str, _Place] = {}
    for key, entry in table.items():
        begin, end = entry["data_offsets"]
        dtype = storage_dtype(SAFETENSORS[entry["dtype"]])
        places[key] = _Place(dtype, tuple(entry["shape"]), start + 8 + length + begin, end - begin)
    return places
