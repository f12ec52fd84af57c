"""What a run found: rows of outcomes, and figures that follow from them."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..works.work import Bar, Peak

OURS = "treadle"


@dataclass(frozen=True)
class Outcome:
    """What came of one backend in one row.

    ``samples`` are seconds of one call; ``error`` is the largest difference from PyTorch eager over
    the largest magnitude; ``failure`` says why there are no samples; ``unsupported`` is a work that
    the backend cannot express. ``share`` is the time that its process had the core, of the time
    that it wanted it.
    """

    samples: tuple[float, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)
    memory: int = 0
    share: float = 1.0
    error: float = 0.0
    wrong: bool = False
    failure: str = ""
    unsupported: bool = False

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.samples)

    @property
    def minimum(self) -> float:
        """The least of the seconds."""
        return min(self.samples)

    @property
    def preparation(self) -> float:
        """The seconds until the first result."""
        return sum(self.stages.values())


@dataclass(frozen=True)
class Row:
    """One work beside all backends.

    ``peak`` in GFLOP/s and ``copy`` in GB/s are those of all used cores together, measured around
    the row; ``profile`` is where Treadle's time went, if that was asked for.
    """

    family: str
    name: str
    bar: Bar
    peak_kind: Peak
    flops: int
    touched: int
    peak: float
    copy: float
    outcomes: Mapping[str, Outcome]
    profile: str = ""

    @property
    def timed(self) -> dict[str, Outcome]:
        """The outcomes that have samples."""
        return {name: found for name, found in self.outcomes.items() if found.samples}

    def best_peer(self, figure: str) -> str | None:
        """The fastest of the others by "median" or "minimum"; wrong results do not count."""
        peers = {n: o for n, o in self.timed.items() if n != OURS and not o.wrong}
        return min(peers, key=lambda n: getattr(peers[n], figure)) if peers else None

    def speedup(self, backend: str, figure: str) -> float | None:
        """The best peer's time over that of a backend; ``None`` where one is missing."""
        best = self.best_peer(figure)
        if best is None or backend not in self.timed:
            return None
        return getattr(self.timed[best], figure) / getattr(self.timed[backend], figure)

    def gflops(self, backend: str) -> float:
        """Thousand millions of operations a second, from the minimum."""
        return 1e-9 * self.flops / self.timed[backend].minimum

    def of_peak(self, backend: str) -> float:
        """The share of the peak of multiply-adds, from the minimum."""
        return self.gflops(backend) / self.peak

    def of_copy(self, backend: str) -> float:
        """The share of the copy bandwidth, from the minimum; every byte counts once."""
        return 1e-9 * self.touched / self.timed[backend].minimum / self.copy

    def missed(self) -> list[str]:
        """The parts of the bar that Treadle does not reach, with what it reaches."""
        ours = self.outcomes.get(OURS)
        if ours is None:
            return []
        if ours.failure or ours.unsupported:
            return ["no result"]
        found = ["wrong result"] if ours.wrong else []
        if self.of_peak(OURS) < self.bar.of_peak:
            found.append(f"{self.of_peak(OURS):.1%} of peak < {self.bar.of_peak:.0%}")
        if self.of_copy(OURS) < self.bar.of_copy:
            found.append(f"{self.of_copy(OURS):.1%} of copy < {self.bar.of_copy:.0%}")
        speedup = self.fair_speedup()
        if speedup is not None and speedup < self.bar.speedup:
            found.append(f"{speedup:.3f}× < {self.bar.speedup:.2f}×")
        return found

    def fair_speedup(self) -> float | None:
        """Treadle's speedup by medians or minima, whichever is larger.

        Medians suffer from what else the machine does; minima from a single lucky call.
        """
        found = [self.speedup(OURS, figure) for figure in ("median", "minimum")]
        return max((x for x in found if x is not None), default=None)

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values."""
        return {
            "family": self.family,
            "name": self.name,
            "flops": self.flops,
            "bytes": self.touched,
            "peak_kind": self.peak_kind,
            "peak_gflops": self.peak,
            "copy_gbytes": self.copy,
            "bar": str(self.bar),
            "missed": self.missed(),
            "speedup_median": self.speedup(OURS, "median"),
            "speedup_minimum": self.speedup(OURS, "minimum"),
            "backends": {name: self._outcome_json(name) for name in self.outcomes},
        }

    def _outcome_json(self, name: str) -> dict[str, Any]:
        found = self.outcomes[name]
        if not found.samples:
            return {"failure": found.failure, "unsupported": found.unsupported}
        return {
            "median": found.median,
            "minimum": found.minimum,
            "samples": len(found.samples),
            "gflops": self.gflops(name),
            "stages": dict(found.stages),
            "memory": found.memory,
            "share": found.share,
            "error": found.error,
            "wrong": found.wrong,
        }


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean; 1 of nothing."""
    logs = [math.log(x) for x in values]
    return math.exp(sum(logs) / len(logs)) if logs else 1.0
