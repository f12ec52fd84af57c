"""The same through ``torch.compile(dynamic=True)``."""

from pathlib import Path

import torch

from .eager import Eager


class Compiled(Eager):
    """Inductor's code, for changing shapes."""

    def __init__(self, folder: Path, kind: str, threads: int) -> None:
        super().__init__(folder, kind, threads)
        self.model = torch.compile(self.model, dynamic=True)


PEER = Compiled
