"""The constants of a module that was loaded: what is large stays in the file."""

from collections.abc import Iterator, Mapping

import numpy as np

from treadle.ir.module import Constant

_KEPT_BYTES = 4096


class StoredConstants(Mapping[str, Constant]):
    """Constants of which the large ones are read from ``stored`` whenever they are asked for.

    An executable holds its weights in the layouts that its kernels read; the plain ones are needed
    again only to be printed or saved.
    """

    def __init__(self, constants: Mapping[str, Constant], stored: Mapping[str, np.ndarray]) -> None:
        self._stored = stored
        self._types = {name: c.type for name, c in constants.items()}
        self._kept = {
            name: c
            for name, c in constants.items()
            if c.array.nbytes <= _KEPT_BYTES or name not in stored
        }

    def __getitem__(self, name: str) -> Constant:
        if name in self._kept:
            return self._kept[name]
        return Constant(self._types[name], self._stored[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)
