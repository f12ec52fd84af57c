"""The command line of the harness."""

import argparse
import importlib
import json
import shlex
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from .. import works
from ..backends import MODULES, missing
from ..works.work import Work
from .child import ChildError
from .compile_time import Compilation, compile_table, compile_twice
from .measure import Crew, Settings, cores, measure
from .report import detail, disturbance, means, summary, verdicts
from .result import Row
from .worker import CLOCKS

DEFAULT_BACKENDS = "treadle,torch,compile,onnxruntime,openvino,jax"
WIDTH = 170
IDLE = 0.03


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description="Treadle beside its peers.")
    add = found.add_argument
    names = ", ".join(works.FAMILIES)
    add("families", nargs="*", help=f"of {names}; default: {', '.join(works.DEFAULT)}")
    add("--only", action="append", default=[], metavar="TEXT", help="rows with this in the name")
    add("--backends", default=DEFAULT_BACKENDS, help=f"of {', '.join(MODULES)}, or all")
    add("--threads", type=int, default=1, choices=(1, 2))
    add("--seconds", type=float, default=1.5, help="measured time of a row, all sides together")
    add("--clock", default="wall", choices=CLOCKS, help="cpu: for one thread on a busy machine")
    add("--check", action="store_true", help="exit status 1 if a bar is missed")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--plot", type=Path, metavar="FILE", help="write a roofline of the rows, a PNG")
    add("--profile", action="store_true", help="print the time of each of Treadle's kernels")
    add("--caches", type=Path, metavar="FOLDER", help="keep what backends compiled for next time")
    add("--brief", action="store_true", help="print only the summary")
    add("--list", action="store_true", help="print the rows")
    return found


def select(families: Sequence[str], only: Sequence[str]) -> list[Work]:
    """The works to measure; ``only`` without families looks through all of them.

    A name that is given whole selects that row alone.

    Raises:
        SystemExit: for an unknown family.
    """
    unknown = [family for family in families if family not in works.FAMILIES]
    if unknown:
        raise SystemExit(f"no family {', '.join(unknown)}; there are {', '.join(works.FAMILIES)}")
    chosen = families or (works.FAMILIES if only else works.DEFAULT)
    every = [work for family in chosen for work in works.family(family)]
    if not only:
        return every
    wanted = [plain(text) for text in only]
    whole = {plain(work.name) for work in every}.intersection(wanted)
    return [
        work
        for work in every
        if any(plain(work.name) == t or (t not in whole and t in plain(work.name)) for t in wanted)
    ]


def plain(text: str) -> str:
    """A name as it is compared: × is x, → is ->, and case does not matter."""
    return text.lower().replace("×", "x").replace("→", "->")


def backends_of(text: str) -> tuple[str, ...]:
    """The backends of a list with commas.

    Raises:
        SystemExit: for an unknown one.
    """
    names = tuple(MODULES) if text == "all" else tuple(text.split(","))
    unknown = [name for name in names if name not in MODULES]
    if unknown:
        raise SystemExit(f"no backend {', '.join(unknown)}; there are {', '.join(MODULES)}")
    return names


@dataclass(frozen=True)
class Found:
    """What a run found."""

    rows: list[Row]
    compilations: list[Compilation]
    bandwidths: dict[str, float]

    def missed(self) -> list[str]:
        """The bars that were missed; means count for families that were measured completely."""
        counts = Counter(row.family for row in self.rows)
        complete = {name: count == len(works.family(name)) for name, count in counts.items()}
        found = verdicts(self.rows, complete)
        return found + [
            f"{c.name}: {', '.join(c.missed())}" for c in self.compilations if c.missed()
        ]


def usable(names: Sequence[str], console: Console) -> tuple[str, ...]:
    """The backends that are installed; what is missing is printed."""
    found: list[str] = []
    for name in names:
        lack = missing(name)
        if lack:
            console.print(f"[yellow]without {name}: {lack}[/yellow]")
        else:
            found.append(name)
    return tuple(found)


def run(options: argparse.Namespace, chosen: Sequence[Work], console: Console) -> Found:
    """Measure the works, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(
            usable(backends_of(options.backends), console),
            options.threads,
            options.seconds,
            options.caches.resolve() if options.caches else Path(name) / "caches",
            Path(name) / "log.txt",
            options.profile,
            options.clock,
        )
        settings.caches.mkdir(parents=True, exist_ok=True)
        crew = Crew(settings)
        try:
            return _run(crew, chosen, console)
        finally:
            crew.close()


def _run(crew: Crew, chosen: Sequence[Work], console: Console) -> Found:
    found = Found([], [], crew.bandwidths())
    family = ""
    with console.status("starting") as status:
        for number, work in enumerate(chosen, 1):
            status.update(f"{number} of {len(chosen)}: {work.name}")
            if work.family != family:
                crew.dismiss()
                family = work.family
            try:
                _one(crew, work, found, console)
            except ChildError as failure:
                console.print(f"[red]{work.name}: {failure}[/red]")
    versions = ", ".join(f"{name} {version}" for name, version in crew.versions.items())
    settings = crew.settings
    console.print(f"{versions}; {settings.threads} threads on cores {cores(settings.threads)}")
    return found


def _one(crew: Crew, work: Work, found: Found, console: Console) -> None:
    if work.family == "compile":
        found.compilations.append(compile_twice(crew.settings, work, crew.versions))
        return
    row = measure(crew, work)
    found.rows.append(row)
    if row.profile:
        console.print(row.profile, markup=False, highlight=False)


def warn_of_others(found: Found, options: argparse.Namespace, console: Console) -> None:
    """Say it if the machine was not idle; with more threads, they wait for each other as well."""
    taken = disturbance(found.rows)
    if options.threads == 1 and taken > IDLE:
        advice = "the times leave that out" if options.clock == "cpu" else "trust minima"
        console.print(f"[yellow]other processes took {taken:.0%} of the core: {advice}[/yellow]")


def print_report(found: Found, brief: bool, console: Console) -> None:
    """Print the tables, and what was missed."""
    if found.rows:
        if not brief:
            console.print(detail(found.rows))
        console.print(summary(found.rows))
    if found.compilations:
        console.print(compile_table(found.compilations))
    for kind in sorted({row.peak_kind for row in found.rows}):
        peaks = [row.peak for row in found.rows if row.peak_kind == kind]
        console.print(f"peak of {kind}: {min(peaks):.0f} to {max(peaks):.0f} GFLOP/s")
    copies = ", ".join(f"{speed:.0f} in {name}" for name, speed in found.bandwidths.items())
    console.print(f"GB/s of copying: {copies}")
    for family, mean in means(found.rows).items():
        console.print(f"{family}: geometric mean of the speed over the best peer {mean:.2f}")
    for line in found.missed():
        console.print(f"missed: {line}", markup=False, highlight=False)
    names = [row.name for row in found.rows] + [row.name for row in found.compilations]
    if names:
        again = f"--only {shlex.quote(names[0])}"
        console.print(f"a row by itself: python benchmarks/run.py {again}", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the harness; the exit status."""
    options = parser().parse_args(arguments)
    console = Console(width=WIDTH)
    chosen = select(options.families, options.only)
    if not chosen:
        raise SystemExit(f"no row has {' or '.join(options.only)} in its name")
    if options.list:
        for work in chosen:
            console.print(f"{work.family:8} {work.name}", markup=False, highlight=False)
        return 0
    found = run(options, chosen, console)
    print_report(found, options.brief, console)
    warn_of_others(found, options, console)
    if options.json:
        everything = [row.as_json() for row in (*found.rows, *found.compilations)]
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    if options.plot:
        plot = importlib.import_module(".plot", __package__)  # only where it is asked for
        plot.roofline(found.rows, found.bandwidths, options.plot)
    return 1 if options.check and found.missed() else 0
