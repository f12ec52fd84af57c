"""How much memory an executable and its process use."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None


@dataclass(frozen=True)
class MemoryUse:
    """Bytes that an executable uses.

    ``weights`` are its constants; ``arena`` its scratch memory in one call; ``live`` the most of
    it that holds values at one time, below which no plan for these values can go; ``peak`` weights,
    arena, inputs and outputs together in that call; ``process`` all that the process holds in RAM.
    """

    weights: int
    arena: int
    live: int
    peak: int
    process: int

    def __str__(self) -> str:
        lines = [
            f"{name:<8}{getattr(self, name) / 2**20:>12.3f} MiB"
            for name in ("weights", "arena", "peak", "process")
        ]
        if self.live:
            lines[1] += f"  ({self.arena / self.live:.3f} of what lives at once)"
        return "\n".join(lines)


def process_memory() -> int:
    """Bytes of RAM that this process holds; its highest so far where the system tells only that."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if resource is None:
        return 0
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024
