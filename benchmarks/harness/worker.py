"""A process that runs the works of one backend when it is told to.

It reads a line of JSON for each request and answers with one. An error ends the process: its last
answer is what went wrong. ``serve`` writes answers to a copy of the standard output that libraries
do not know of; what they print goes to the standard error.
"""

import argparse
import ctypes
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any

from .. import backends
from ..backends.backend import Backend, Job, Prepared, Unsupported, store
from ..common.memory_child import clear_mark, settle, status

SAMPLE = 20e-6
WARM = 2e-3
_PDEATHSIG = 1
Answer = dict[str, Any]
CLOCKS: Mapping[str, Callable[[], float]] = MappingProxyType(
    {"wall": time.perf_counter, "cpu": time.process_time}
)


class Session:
    """The work that the process holds at the moment."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.prepared: Prepared | None = None
        self.inner = 1
        self.base = 0

    @property
    def ready(self) -> Prepared:
        """What was prepared."""
        if self.prepared is None:
            raise RuntimeError("nothing is prepared")
        return self.prepared

    def hello(self) -> Answer:
        """Who answers."""
        return {"version": self.backend.version}

    def prepare(self, result: str, **job: Any) -> Answer:  # noqa: ANN401
        """Make a work ready, run it once, and store what it computes."""
        self.prepared = None
        self.base = settle()
        try:
            prepared = self.backend.prepare(Job(**job))
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        start = time.perf_counter()
        first = prepared.call()
        seconds = {**prepared.stages, "first call": time.perf_counter() - start}
        store(Path(result), prepared.arrays(first))
        del first
        self.prepared = prepared
        self.inner = repeats(prepared.call)
        settle()
        clear_mark()
        return {"seconds": seconds}

    def burst(self, seconds: float, clock: str = "wall") -> Answer:
        """Time calls for so long, after some that do not count; the seconds of all and their work.

        The work, ``cpu``, falls short of ``wall`` where another process took the core.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        samples = burst(self.ready.call, seconds, self.inner, CLOCKS[clock])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"samples": samples, "wall": wall, "cpu": cpu}

    def memory(self) -> Answer:
        """The highest resident memory of calls above that before preparing, in bytes."""
        return {"bytes": max(status("VmHWM") - self.base, 0)}

    def profile(self) -> Answer:
        """Where a call's time goes."""
        profile = self.ready.profile
        return {"text": profile() if profile else ""}


def repeats(call: Callable[[], object]) -> int:
    """How many calls take as long as a sample should."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return max(1, int(SAMPLE / max(best, 1e-9)) + 1) if best < SAMPLE else 1


def burst(
    call: Callable[[], object],
    seconds: float,
    inner: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """The seconds of a call, sample by sample, after at least one call that warms the caches."""
    samples: list[float] = []
    gc.disable()
    try:
        warm = clock() + WARM
        call()
        while clock() < warm:
            call()
        end = clock() + seconds
        while not samples or clock() < end:
            start = clock()
            for _ in range(inner):
                call()
            samples.append((clock() - start) / inner)
    finally:
        gc.enable()
    return samples


def serve(make: Callable[[], object], requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until there are no more; ``{"do": name, ...}`` calls the method ``name`` of
    what ``make`` gives."""

    def answer(content: Answer) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    def last_words(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        sys.__excepthook__(kind, error, trace)
        lines = str(error).strip().splitlines() or [""]
        answer({"error": f"{kind.__name__}: {lines[0]}"})

    sys.excepthook = last_words
    session = make()
    for line in requests:
        request = json.loads(line)
        answer(getattr(session, request.pop("do"))(**request))


def private_output() -> IO[str]:
    """The standard output for answers alone; from now on, what is printed goes to the error."""
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def pin(cores: list[int]) -> None:
    """Keep this process, and the threads it will have, on these cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def end_with_parent() -> None:
    """Have this process killed when its parent ends; one that stands still would stay for ever."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve one backend."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backend")
    parser.add_argument("--cores", type=json.loads, required=True)
    options = parser.parse_args()
    pin(options.cores)
    answers = private_output()
    serve(lambda: Session(backends.load_backend(options.backend)), sys.stdin, answers)


if __name__ == "__main__":
    main()
