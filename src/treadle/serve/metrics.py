"""What the engine counts, and how it is shown."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field

_SPAN = 10.0


@dataclass(slots=True)
class Counts:
    """Running totals, written by the engine's thread; reading them elsewhere is harmless."""

    steps: int = 0
    step_seconds: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter[str])
    refused: int = 0
    _recent: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def step(self, seconds: float, computed: int, generated: int) -> None:
        """Count one step: its time, the tokens of prompts in it, and the tokens that it gave."""
        self.steps += 1
        self.step_seconds += seconds
        self.prompt_tokens += computed
        self.generated_tokens += generated
        now = time.monotonic()
        self._recent.append((now, generated))
        while self._recent[0][0] < now - _SPAN:
            self._recent.popleft()

    def rate(self) -> float:
        """Generated tokens per second over the last seconds."""
        now = time.monotonic()
        recent = [(at, tokens) for at, tokens in tuple(self._recent) if at >= now - _SPAN]
        return sum(tokens for _, tokens in recent) / _SPAN


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an engine at one time."""

    running: int
    waiting: int
    pages: int
    free_pages: int
    preemptions: int
    alive: bool
    stopping: bool


def peak_memory() -> int:
    """The most bytes that this process has had resident."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def prometheus(counts: Counts, now: Snapshot) -> str:
    """The text that Prometheus reads."""
    lines: list[str] = []

    def add(name: str, kind: str, help_text: str, *values: tuple[str, float]) -> None:
        lines.append(f"# HELP treadle_{name} {help_text}")
        lines.append(f"# TYPE treadle_{name} {kind}")
        lines.extend(f"treadle_{name}{labels} {value:g}" for labels, value in values)

    finished = sorted(counts.finished.items())
    reasons = [(f'{{reason="{reason}"}}', float(value)) for reason, value in finished]
    add("requests_running", "gauge", "Sequences that are computed.", ("", now.running))
    add("requests_waiting", "gauge", "Requests that wait for a place.", ("", now.waiting))
    add("cache_pages", "gauge", "Pages of the cache.", ("", now.pages))
    add("cache_pages_free", "gauge", "Pages that are free.", ("", now.free_pages))
    add("tokens_per_second", "gauge", "Tokens a second, lately.", ("", counts.rate()))
    add("peak_memory_bytes", "gauge", "Most resident memory so far.", ("", peak_memory()))
    add("steps_total", "counter", "Steps of the model.", ("", counts.steps))
    add("step_seconds_total", "counter", "Time of all steps.", ("", counts.step_seconds))
    add("prompt_tokens_total", "counter", "Tokens of prompts.", ("", counts.prompt_tokens))
    add("generated_tokens_total", "counter", "Tokens written.", ("", counts.generated_tokens))
    add("preemptions_total", "counter", "Sequences sent back.", ("", now.preemptions))
    add("refused_total", "counter", "Requests refused when full.", ("", counts.refused))
    add("finished_total", "counter", "Sequences by how they ended.", *reasons)
    return "\n".join(lines) + "\n"
