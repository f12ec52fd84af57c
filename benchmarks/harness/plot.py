"""A roofline: what each row reaches, below what the machine allows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from .result import OURS, Row

INTENSITIES = (0.05, 2000.0)


def roofline(rows: Sequence[Row], bandwidths: Mapping[str, float], path: Path) -> None:
    """Write a picture of operations a byte against operations a second, both from the run.

    ``bandwidths`` are GB/s by name. Rows without products or convolutions have no place in it.
    """
    heavy = [row for row in rows if row.flops and row.timed]
    figure, axes = plt.subplots(figsize=(10, 6.5), layout="constrained")
    peaks = {row.peak_kind: row.peak for row in heavy if row.peak}
    for kind, peak in peaks.items():
        axes.axhline(peak, color="black", linewidth=1)
        axes.text(
            INTENSITIES[1], peak, f"peak of {kind}: {peak:.0f} GFLOP/s ", ha="right", va="bottom"
        )
    top = max(peaks.values(), default=1.0)
    for name, bandwidth in bandwidths.items():
        ends = (INTENSITIES[0], top / bandwidth)
        axes.plot(ends, [x * bandwidth for x in ends], color="grey", linewidth=1, linestyle="--")
        axes.text(ends[0], ends[0] * bandwidth, f" {name}: {bandwidth:.0f} GB/s", va="bottom")
    for number, family in enumerate(dict.fromkeys(row.family for row in heavy)):
        own = [row for row in heavy if row.family == family]
        color = f"C{number}"
        _points(
            axes,
            [(row, OURS) for row in own if OURS in row.timed],
            f"{family}: Treadle",
            color,
            "o",
        )
        peers = [(row, row.best_peer("minimum")) for row in own]
        _points(axes, [(r, p) for r, p in peers if p], f"{family}: best peer", color, "x")
    axes.set(xscale="log", yscale="log", xlim=INTENSITIES)
    axes.set(xlabel="operations for each byte touched", ylabel="GFLOP/s")
    axes.set_title("What each row reaches, and what the machine allows")
    axes.legend(loc="lower right")
    axes.grid(True, which="both", linewidth=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _points(
    axes: plt.Axes, points: Sequence[tuple[Row, str]], label: str, color: str, marker: str
) -> None:
    x = [row.flops / row.touched for row, _ in points]
    y = [row.gflops(backend) for row, backend in points]
    axes.scatter(x, y, s=28, color=color, marker=marker, label=label)
