"""What the next step computes: who waits, who runs, who gives way.

All running sequences that have a token to go on from take part in every step. What is left of the
step's tokens goes to prompts, in chunks, the oldest first; then to those that wait, in order, while
there are places and pages. When pages run out, the youngest gives its own back and waits at the
front; it is computed anew later, with what it has written so far as part of its prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any

from treadle.base.errors import OptionError
from treadle.serve.job import Job
from treadle.serve.model import Cache


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the server takes on.

    ``running`` sequences are computed together, ``waiting`` more may wait, a step computes at most
    ``step_tokens`` tokens; a prompt has at most ``prompt_tokens``, an answer ``answer_tokens``.

    Raises:
        OptionError: E0860 for a limit that lets nothing through.
    """

    running: int = 32
    waiting: int = 256
    step_tokens: int = 512
    prompt_tokens: int | None = None
    answer_tokens: int | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            least = self.running if one.name == "step_tokens" else 1
            if value is not None and value < least:
                raise OptionError("E0860", f"{one.name} is {value}", help=f"use at least {least}")


@dataclass(eq=False, slots=True)
class Task:
    """One sequence: a choice of a job, or all of its choices until the prompt is computed."""

    job: Job
    choices: tuple[int, ...]
    order: int
    tokens: list[int]
    written: int = 0
    sequence: Any = None
    cached: int = 0
    shared: bool = field(default=False)

    @property
    def choice(self) -> int:
        """The choice of this sequence, the first where it stands for several."""
        return self.choices[0]

    @property
    def pending(self) -> int:
        """The tokens that are not in the cache yet."""
        return len(self.tokens) - self.cached


@dataclass(frozen=True, slots=True)
class Part:
    """A task's share in a step: so many of its tokens."""

    task: Task
    count: int

    @property
    def completes(self) -> bool:
        """Whether the logits after it are those of the next token."""
        return self.count == self.task.pending

    @property
    def tokens(self) -> list[int]:
        """The tokens to be computed."""
        start = self.task.cached
        return self.task.tokens[start : start + self.count]


class Scheduler:
    """Waiting and running sequences of one cache; used by one thread."""

    def __init__(self, cache: Cache, limits: Limits) -> None:
        self._cache = cache
        self._limits = limits
        self._orders = count()
        self.waiting: deque[Task] = deque()
        self.running: list[Task] = []
        self.preemptions = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.waiting and not self.running

    @property
    def slots(self) -> int:
        """The sequences that run or are about to be forked from those that do."""
        return sum(len(task.choices) for task in self.running)

    def add(self, job: Job) -> None:
        """Let a job wait."""
        choices = tuple(range(len(job.samplers)))
        self.waiting.append(Task(job, choices, next(self._orders), list(job.prompt)))

    def plan(self) -> list[Part]:
        """The parts of the next step; empty only if nothing runs or waits."""
        while True:
            parts = self._plan_once()
            if parts or not self.running:
                return parts
            self._preempt(self._youngest())

    def split(self, task: Task) -> list[Task]:
        """Give each choice of a task a sequence of its own, once its prompt is in the cache."""
        if len(task.choices) == 1:
            return [task]
        others = [
            Task(
                task.job,
                (choice,),
                task.order,
                list(task.tokens),
                sequence=self._cache.fork(task.sequence),
                cached=task.cached,
                shared=True,
            )
            for choice in task.choices[1:]
        ]
        task.choices = task.choices[:1]
        task.shared = True
        place = self.running.index(task) + 1
        self.running[place:place] = others
        return [task, *others]

    def remove(self, tasks: Iterable[Task]) -> None:
        """Forget tasks and give their pages back."""
        for task in tasks:
            if task in self.running:
                self.running.remove(task)
            else:
                self.waiting.remove(task)
            self._release(task)

    def _plan_once(self) -> list[Part]:
        self._make_room()
        free = self._cache.free_pages
        decoding = [task for task in self.running if task.pending == 1]
        parts = [Part(task, 1) for task in decoding]
        free -= sum(self._pages(part.task, 1) for part in parts)
        budget = self._limits.step_tokens - len(parts)
        for task in self.running:
            if task.pending > 1:
                size = self._chunk(task, min(budget, self._fitting(task, free)))
                if size > 0:
                    parts.append(Part(task, size))
                    budget -= size
                    free -= self._pages(task, size)
        promised = sum(self._pages(task, task.pending) for task in self.running)
        parts.extend(self._admit(budget, self._cache.free_pages - promised))
        return parts

    def _make_room(self) -> None:
        """Preempt until all that decode can go on; the last that is left always can."""
        while True:
            decoding = [task for task in self.running if task.pending == 1]
            if sum(self._pages(task, 1) for task in decoding) <= self._cache.free_pages:
                return
            self._preempt(self._youngest())

    def _admit(self, budget: int, free: int) -> list[Part]:
        parts: list[Part] = []
        while self.waiting and budget > 0:
            task = self.waiting[0]
            if self.slots + len(task.choices) > self._limits.running:
                break
            # A page for the next tokens of each: who is let in should not have to leave at once.
            growth = self.slots + len(task.choices)
            need = self._pages(task, task.pending)
            if self.running and need + growth > free:
                break
            self.waiting.popleft()
            task.sequence = self._cache.create()
            self.running.append(task)
            self.running.sort(key=_age)
            size = self._chunk(task, budget)
            parts.append(Part(task, size))
            budget -= size
            free -= need
        return parts

    def _youngest(self) -> Task:
        return self.running[-1]

    def _preempt(self, task: Task) -> None:
        self.running.remove(task)
        self._release(task)
        self.preemptions += 1
        self.waiting.appendleft(task)

    def _release(self, task: Task) -> None:
        if task.sequence is not None:
            self._cache.release(task.sequence)
        task.sequence = None
        task.cached = 0
        task.shared = False

    def _pages(self, task: Task, size: int) -> int:
        """The pages that so many more tokens of a task may take."""
        page = self._cache.page_size
        held = -(-task.cached // page)
        copied = 1 if task.shared and task.cached % page else 0
        return -(-(task.cached + size) // page) - held + copied

    def _chunk(self, task: Task, most: int) -> int:
        """How many of a task's tokens to compute now.

        What does not end a prompt ends a page if it can: only whole pages are shared.
        """
        if task.pending <= most:
            return task.pending
        beyond = (task.cached + most) % self._cache.page_size
        return most - beyond if beyond < most else most

    def _fitting(self, task: Task, free: int) -> int:
        """The tokens of a task for which there are pages."""
        page = self._cache.page_size
        rest = -task.cached % page
        return max(0, rest + free * page)


def _age(task: Task) -> tuple[int, int]:
    return task.order, task.choice
