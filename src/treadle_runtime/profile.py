"""Profiles: how long each kernel took, how fast it was, and a trace to look at."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treadle_runtime.dims import evaluate
from treadle_runtime.files import write_atomically
from treadle_runtime.manifest import CallSpec

_HEADINGS = ("kernel", "calls", "time us", "GFLOP/s", "GB/s", "share")


@dataclass(frozen=True)
class ProfileRow:
    """One kernel over one run: calls, seconds, floating-point operations, bytes moved, and share.

    ``seconds`` is the mean over the measured runs; ``share`` is the part of all kernels' time.
    """

    label: str
    calls: int
    seconds: float
    flops: int
    bytes: int
    share: float

    @property
    def gflops(self) -> float:
        """Speed of arithmetic in GFLOP/s; 0 where the clock saw no time pass."""
        return self.flops / self.seconds / 1e9 if self.seconds > 0 else 0.0

    @property
    def bandwidth(self) -> float:
        """Speed of memory traffic in GB/s; 0 where the clock saw no time pass."""
        return self.bytes / self.seconds / 1e9 if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Profile:
    """Measured times of an entry's kernel calls.

    ``times`` has, for each run, start and end of each call in nanoseconds; ``symbols`` are the
    values that the symbolic dimensions had; ``total`` is the seconds of one whole call from Python,
    mean over the runs.
    """

    entry: str
    calls: tuple[CallSpec, ...]
    symbols: Mapping[str, int]
    times: tuple[tuple[tuple[int, int], ...], ...]
    total: float

    @property
    def rows(self) -> tuple[ProfileRow, ...]:
        """One row per kernel label, the slowest first.

        Raises ``RuntimeFault`` E0721 if the manifest's flops or bytes cannot be evaluated.
        """
        groups: dict[str, list[int]] = {}
        for index, call in enumerate(self.calls):
            groups.setdefault(call.label, []).append(index)
        spent = [
            sum(run[i][1] - run[i][0] for run in self.times) / max(len(self.times), 1) / 1e9
            for i in range(len(self.calls))
        ]
        whole = sum(spent)
        rows = [self._row(label, members, spent, whole) for label, members in groups.items()]
        return tuple(sorted(rows, key=lambda row: (-row.seconds, row.label)))

    def _row(
        self, label: str, members: Sequence[int], spent: Sequence[float], whole: float
    ) -> ProfileRow:
        seconds = sum(spent[i] for i in members)
        return ProfileRow(
            label=label,
            calls=len(members),
            seconds=seconds,
            flops=sum(evaluate(self.calls[i].flops, self.symbols) for i in members),
            bytes=sum(evaluate(self.calls[i].bytes, self.symbols) for i in members),
            share=seconds / whole if whole > 0 else 0.0,
        )

    def __str__(self) -> str:
        rows = self.rows
        cells = [
            (
                row.label,
                str(row.calls),
                f"{row.seconds * 1e6:.2f}",
                f"{row.gflops:.1f}",
                f"{row.bandwidth:.1f}",
                f"{row.share:.1%}",
            )
            for row in rows
        ]
        widths = [max(len(line[i]) for line in (_HEADINGS, *cells)) for i in range(len(_HEADINGS))]
        inside = sum(row.seconds for row in rows)
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in (_HEADINGS, tuple("-" * width for width in widths), *cells)
        ]
        symbols = ", ".join(f"{name} = {value}" for name, value in self.symbols.items())
        where = f" at {symbols}" if symbols else ""
        lines.append(
            f"{self.entry}{where}: {self.total * 1e6:.2f} us a call, {inside * 1e6:.2f} us in "
            f"kernels; mean of {len(self.times)} runs"
        )
        return "\n".join(lines)

    def to_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write all runs in the format that ``chrome://tracing`` and Perfetto open.

        The file appears whole or not at all. Raises ``RuntimeFault`` E0710 if it cannot be written.
        """
        first = min((start for run in self.times for start, _ in run), default=0)
        events = [
            {
                "name": call.label,
                "cat": "kernel",
                "ph": "X",
                "pid": 1,
                "tid": 1,
                "ts": (start - first) / 1e3,
                "dur": (end - start) / 1e3,
                "args": {
                    "kernel": call.kernel,
                    "run": number,
                    "flops": evaluate(call.flops, self.symbols),
                    "bytes": evaluate(call.bytes, self.symbols),
                },
            }
            for number, run in enumerate(self.times)
            for call, (start, end) in zip(self.calls, run, strict=True)
        ]
        text = json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})
        write_atomically(path, lambda file: file.write(text.encode()))
