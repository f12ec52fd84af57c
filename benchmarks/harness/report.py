"""Tables of rows."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.table import Table

from ..works import MEANS
from .result import OURS, Outcome, Row, geometric_mean

MEBI = 2**20


def duration(seconds: float) -> str:
    """Seconds with three digits and a unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def ratio(value: float | None) -> str:
    """A speedup."""
    return "–" if value is None else f"{value:.2f}"


def detail(rows: Sequence[Row]) -> Table:
    """A line for each row and backend, with everything that was measured."""
    table = Table(
        *("work", "by", "median", "minimum", "GFLOP/s", "of peak", "of copy", "speed"),
        *("compile", "memory", "error"),
        box=SIMPLE,
        caption="speed: the best peer's time over this one's, by medians / by minima; "
        "error: largest difference from PyTorch eager over the largest magnitude",
    )
    for row in rows:
        title = row.name
        for backend, outcome in row.outcomes.items():
            table.add_row(title, *_line(row, backend, outcome))
            title = ""
        table.add_section()
    for column in table.columns[:9]:
        column.no_wrap = True
    return table


def _line(row: Row, backend: str, outcome: Outcome) -> tuple[str, ...]:
    if not outcome.samples:
        mark = "–" if outcome.unsupported else "failed"
        return backend, mark, "", "", "", "", "", "", "", outcome.failure
    heavy = bool(row.flops)
    speeds = (ratio(row.speedup(backend, figure)) for figure in ("median", "minimum"))
    return (
        backend,
        duration(outcome.median),
        duration(outcome.minimum),
        f"{row.gflops(backend):.0f}" if heavy else "",
        f"{row.of_peak(backend):.0%}" if heavy and row.peak else "",
        f"{row.of_copy(backend):.0%}",
        " / ".join(speeds),
        duration(outcome.preparation),
        f"{outcome.memory / MEBI:.0f} MiB",
        f"{outcome.error:.0e}" + (" WRONG" if outcome.wrong else ""),
    )


def summary(rows: Sequence[Row]) -> Table:
    """A line for each row: medians of all, and what became of the bar."""
    backends = list(dict.fromkeys(name for row in rows for name in row.outcomes))
    table = Table("work", *backends, "of peak", "best peer", "speed", "bar", "", box=SIMPLE)
    for row in rows:
        heavy = row.flops and row.peak and OURS in row.timed
        speeds = [ratio(row.speedup(OURS, figure)) for figure in ("median", "minimum")]
        table.add_row(
            row.name,
            *(_cell(row.outcomes.get(name)) for name in backends),
            f"{row.of_peak(OURS):.0%}" if heavy else "",
            row.best_peer("median") or "–",
            " / ".join(speeds),
            str(row.bar),
            "[red]missed[/red]" if row.missed() else "met",
        )
    for column in table.columns:
        column.no_wrap = True
    return table


def _cell(outcome: Outcome | None) -> str:
    if outcome is None or outcome.unsupported:
        return "–"
    if not outcome.samples:
        return "failed"
    return duration(outcome.median) + ("!" if outcome.wrong else "")


def disturbance(rows: Sequence[Row]) -> float:
    """The share of the core that other processes took from the measured ones on average."""
    shares = [outcome.share for row in rows for outcome in row.timed.values()]
    return max(0.0, 1 - sum(shares) / len(shares)) if shares else 0.0


def means(rows: Sequence[Row]) -> dict[str, float]:
    """The geometric mean of the speedups over the best peer, by family."""
    found: dict[str, list[float]] = {}
    for row in rows:
        speedup = row.fair_speedup()
        if speedup is not None and OURS in row.timed:
            found.setdefault(row.family, []).append(speedup)
    return {family: geometric_mean(speedups) for family, speedups in found.items()}


def verdicts(rows: Sequence[Row], complete: Mapping[str, bool]) -> list[str]:
    """What was missed, row by row, and the means of families that were measured completely."""
    found = [f"{row.name}: {', '.join(row.missed())}" for row in rows if row.missed()]
    for family, mean in means(rows).items():
        limit = MEANS.get(family, 0.0)
        if complete.get(family) and mean < limit:
            found.append(f"{family}: geometric mean {mean:.2f}× < {limit:.2f}×")
    return found
