"""Rows: every backend in a process of its own, in turns, between two looks at the peaks."""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..backends import variables
from ..backends.backend import Job, stored
from ..works.work import Work
from .child import Child, ChildError
from .result import OURS, Outcome, Row

PACKAGE = __package__
ROUNDS = 5
MOST_ROUNDS = 200
BURST = 0.01
COPIED: Mapping[str, int] = MappingProxyType({"0.5 MiB": 2**19, "8 MiB": 2**23, "512 MiB": 2**29})
ONNX = ("onnxruntime", "openvino")
WHOLE_LIMIT = 1200.0


@dataclass(frozen=True)
class Settings:
    """How to measure: seconds for each row, all sides together; ``caches`` holds their caches.

    The ``clock`` is "wall", or "cpu" for the time that the processes had a core.
    """

    backends: tuple[str, ...]
    threads: int
    seconds: float
    caches: Path
    log: Path
    profile: bool = False
    clock: str = "wall"

    def variables(self) -> dict[str, str]:
        """The environment of every child: the same threads and caches of its own."""
        return {
            **variables(self.threads),
            "TREADLE_CACHE": str(self.caches / "treadle"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.caches / "inductor"),
        }


def cores(count: int) -> list[int]:
    """The last cores of those that this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[-count:]


class Crew:
    """The processes of a run: one for each backend, one that writes works, one for the peaks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pinned = ["--cores", str(cores(settings.threads))]
        self.workers: dict[str, Child] = {}
        self.versions: dict[str, str] = {}
        self.author = self._start("author", [])
        self.machine = self._start("machine", self.pinned)

    def _start(self, module: str, arguments: list[str]) -> Child:
        settings = self.settings
        name = f"{PACKAGE}.{module}"
        return Child(name, arguments, settings.variables(), settings.log)

    def worker(self, backend: str) -> Child:
        """The backend's process, started anew if it has ended.

        Raises:
            ChildError: if it cannot start.
        """
        child = self.workers.get(backend)
        if child is None or not child.alive:
            child = self._start("worker", [backend, *self.pinned])
            self.workers[backend] = child
            self.versions[backend] = child.ask("hello")["version"]
        return child

    def write(self, work: Work, folder: Path) -> dict[str, Any]:
        """Have the work written down.

        Raises:
            ChildError: if PyTorch cannot run it. A model that it cannot export is not there.
        """
        onnx = any(name in ONNX for name in self.settings.backends)
        request = {"family": work.family, "name": work.name, "folder": str(folder)}
        try:
            return self._ask_author({**request, "onnx": onnx})
        except ChildError:
            if not onnx:
                raise
            return self._ask_author({**request, "onnx": False})

    def _ask_author(self, request: dict[str, Any]) -> dict[str, Any]:
        if not self.author.alive:
            self.author = self._start("author", [])
        return self.author.ask("write", **request)

    def peaks(self, kind: str, touched: int) -> tuple[float, float]:
        """The peak and the copy bandwidth of one core, now; a peak it lacks is 0."""
        try:
            peak = self.machine.ask("peak", kind=kind)["gflops"]
        except ChildError:
            self.machine = self._start("machine", self.pinned)
            peak = 0.0
        return peak, self.machine.ask("copy", touched=touched)["gbytes"]

    def bandwidths(self) -> dict[str, float]:
        """GB/s of copying on all used cores together, in the caches and in memory."""
        count = self.settings.threads
        return {n: count * self.machine.ask("copy", touched=b)["gbytes"] for n, b in COPIED.items()}

    def dismiss(self) -> None:
        """End the backends' processes; those that are asked again start afresh."""
        for child in self.workers.values():
            child.stop()

    def close(self) -> None:
        """End all processes."""
        self.dismiss()
        self.author.stop()
        self.machine.stop()


def measure(crew: Crew, work: Work) -> Row:
    """Measure one work on every backend.

    Raises:
        ChildError: if PyTorch cannot run the work at all.
    """
    settings = crew.settings
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        facts = crew.write(work, folder)
        outcomes = {b: prepare(crew, b, work, folder) for b in settings.backends}
    before = crew.peaks(work.peak, facts["bytes"])
    turns = _take_turns(crew, outcomes)
    after = crew.peaks(work.peak, facts["bytes"])
    peak, copy = (max(pair) * settings.threads for pair in zip(before, after, strict=True))
    finished = {b: _finish(crew, b, outcomes[b], turns.get(b, _Turns())) for b in outcomes}
    profile = ""
    if settings.profile and OURS in finished and finished[OURS].samples:
        profile = crew.worker(OURS).ask("profile")["text"]
    if work.whole:
        crew.dismiss()
    return Row(
        work.family,
        work.name,
        work.bar,
        work.peak,
        facts["flops"],
        facts["bytes"],
        peak,
        copy,
        finished,
        profile,
    )


def prepare(crew: Crew, backend: str, work: Work, folder: Path) -> Outcome:
    """Make a work ready in the backend's process, and compare its result; nothing is timed yet."""
    job = Job(
        work.family,
        work.name,
        work.kernel,
        str(folder),
        crew.settings.threads,
        dict(work.attributes),
    )
    result = folder / f"{backend}.npz"
    try:
        worker = crew.worker(backend)
        answer = worker.ask("prepare", WHOLE_LIMIT, result=str(result), **asdict(job))
    except ChildError as failure:
        return Outcome(failure=str(failure))
    if "unsupported" in answer:
        return Outcome(failure=answer["unsupported"], unsupported=True)
    error = distance(stored(result), stored(folder / "expected.npz"))
    return Outcome(stages=answer["seconds"], error=error, wrong=not error <= work.tolerance)


@dataclass
class _Turns:
    """What the turns of one backend brought so far."""

    samples: list[float] = field(default_factory=list)
    wall: float = 0.0
    cpu: float = 0.0

    def add(self, answer: Mapping[str, Any]) -> None:
        """Take in a burst."""
        self.samples += answer["samples"]
        self.wall += answer["wall"]
        self.cpu += answer["cpu"]


def _take_turns(crew: Crew, outcomes: Mapping[str, Outcome]) -> dict[str, _Turns]:
    order = [name for name, outcome in outcomes.items() if not outcome.failure]
    turns = {name: _Turns() for name in order}
    clock = crew.settings.clock
    start = time.perf_counter()
    for number in range(MOST_ROUNDS):
        if number >= ROUNDS and time.perf_counter() - start > crew.settings.seconds:
            break
        for name in tuple(order):
            try:
                turns[name].add(crew.worker(name).ask("burst", seconds=BURST, clock=clock))
            except ChildError:
                order.remove(name)
                turns[name] = _Turns()
        order.reverse()
    return turns


def _finish(crew: Crew, backend: str, outcome: Outcome, turns: _Turns) -> Outcome:
    if outcome.failure:
        return outcome
    if not turns.samples:
        return Outcome(failure="ended while it was measured")
    memory = crew.worker(backend).ask("memory")["bytes"]
    share = turns.cpu / turns.wall
    return replace(outcome, samples=tuple(turns.samples), memory=memory, share=share)


def distance(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest difference over the largest magnitude; infinite for other shapes or NaNs."""
    if [x.shape for x in found] != [x.shape for x in expected]:
        return float("inf")
    worst = 0.0
    for actual, wanted in zip(found, expected, strict=True):
        if not wanted.size:
            continue
        gap = np.abs(actual.astype(np.float64) - wanted.astype(np.float64)).max()
        scale = max(float(np.abs(wanted).max()), float(np.finfo(np.float32).tiny))
        worst = max(worst, float("inf") if np.isnan(gap) else float(gap) / scale)
    return worst
