"""How long compiling takes: a first time, and again in a new process with the caches of the first.

Processes may use all cores of this one. What PyTorch takes to export a model is not counted.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from rich.box import SIMPLE
from rich.table import Table

from ..works.work import Work
from .measure import Crew, Settings, cores, prepare
from .report import duration
from .result import OURS, Outcome

COLD: Mapping[str, float] = MappingProxyType(
    {"compile ResNet-50": 20.0, "compile BERT-base 128": 15.0}
)
WARM = 1.0
SKIPPED = ("torch", "numpy")  # they compile nothing


@dataclass(frozen=True)
class Compilation:
    """One model: each backend's first and second compilation."""

    name: str
    cold: Mapping[str, Outcome]
    warm: Mapping[str, Outcome]

    def missed(self) -> list[str]:
        """What Treadle does not reach."""
        if OURS not in self.cold:
            return []
        cold, warm = self.cold[OURS], self.warm[OURS]
        if cold.failure or warm.failure:
            return ["no result"]
        limit = COLD.get(self.name, float("inf"))
        found = [f"cold {seconds(cold):.1f} s > {limit:.0f} s"] if seconds(cold) > limit else []
        if seconds(warm) > WARM:
            found.append(f"warm {seconds(warm):.2f} s > {WARM:.0f} s")
        return found

    def as_json(self) -> dict[str, object]:
        """All of it in plain values."""
        return {
            "family": "compile",
            "name": self.name,
            "missed": self.missed(),
            "backends": {
                name: {
                    "cold": dict(outcome.stages),
                    "warm": dict(self.warm[name].stages),
                    "failure": outcome.failure or self.warm[name].failure,
                }
                for name, outcome in self.cold.items()
            },
        }


def seconds(outcome: Outcome) -> float:
    """The seconds of compiling, without export and first call."""
    return outcome.stages.get("compile", 0.0)


def compile_twice(settings: Settings, work: Work, versions: dict[str, str]) -> Compilation:
    """Compile on every backend that compiles, starting without caches; ``versions`` gets theirs.

    Raises:
        ChildError: if PyTorch cannot run the work at all.
    """
    names = tuple(name for name in settings.backends if name not in SKIPPED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        caches = folder / "caches"
        every = len(cores(sys.maxsize)) or 1
        crew = Crew(replace(settings, backends=names, threads=every, caches=caches))
        try:
            crew.write(work, folder)
            found: list[dict[str, Outcome]] = []
            for _ in ("cold", "warm"):
                found.append({backend: prepare(crew, backend, work, folder) for backend in names})
                crew.dismiss()
            versions.update(crew.versions)
        finally:
            crew.close()
    return Compilation(work.name, *found)


def compile_table(rows: Sequence[Compilation]) -> Table:
    """A line for each model and backend."""
    table = Table("work", "by", "cold", "warm", "export", "first call", "", box=SIMPLE)
    for row in rows:
        title = row.name
        for backend, cold in row.cold.items():
            warm = row.warm[backend]
            table.add_row(
                title,
                backend,
                *(duration(seconds(x)) if x.stages else "–" for x in (cold, warm)),
                *(duration(cold.stages[s]) if s in cold.stages else "" for s in PARTS),
                cold.failure or warm.failure,
            )
            title = ""
    return table


PARTS = ("export", "first call")
