"""Fair timing: one core, turns, medians."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ROUNDS_LIMIT = 1000


@dataclass(frozen=True)
class Timing:
    """The times of one action in seconds."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The time that half of the samples do not exceed."""
        return statistics.median(self.samples)

    @property
    def minimum(self) -> float:
        """The shortest time."""
        return min(self.samples)


def pin_to_one_core() -> int | None:
    """Keep this process on one of its cores and return that; ``None`` where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def interleaved(
    actions: Mapping[str, Callable[[], object]], *, rounds: int = 10, seconds: float = 3.0
) -> dict[str, Timing]:
    """Time actions that take turns, in an order that is turned round each time.

    Each runs twice before it counts, and then at least ``rounds`` times, and for as long as all of
    them together have taken less than ``seconds``. What disturbs the machine meets all alike.
    """
    samples: dict[str, list[float]] = {name: [] for name in actions}
    order = list(actions)
    for name in order * 2:
        actions[name]()
    gc.collect()
    gc.disable()
    try:
        spent = 0.0
        done = 0
        while done < rounds or (spent < seconds and done < ROUNDS_LIMIT):
            for name in order:
                start = time.perf_counter()
                actions[name]()
                samples[name].append(time.perf_counter() - start)
                spent += samples[name][-1]
            order.reverse()
            done += 1
    finally:
        gc.enable()
    return {name: Timing(tuple(found)) for name, found in samples.items()}
