"""Continuous batching: one thread steps the model for all requests together."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from treadle.base.errors import InternalError, TreadleError
from treadle.serve.job import Finished, Job
from treadle.serve.metrics import Counts, Snapshot
from treadle.serve.model import Cache, Model
from treadle.serve.refusal import INVALID, OVERLOADED, Refusal, failed, stopping
from treadle.serve.schedule import Limits, Part, Scheduler, Task

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_FAULTS = (TreadleError, InternalError, MemoryError)
_LONGEST_WAIT = 60


@dataclass(frozen=True, slots=True)
class _Errand:
    """A function to be called between two steps."""

    run: Callable[[], Any]
    done: Future[Any]


class Engine:
    """A model, its cache, and the thread that owns both.

    ``submit``, ``cancel``, ``call``, ``drain`` and ``snapshot`` may be called from any thread.
    ``context`` is the most tokens that one sequence may have.
    """

    def __init__(
        self, model: Model, *, pages: int, context: int | None = None, limits: Limits | None = None
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self._model = model
        self._cache: Cache = model.new_cache(pages=pages)
        self._pages = pages
        room = pages * self._cache.page_size
        self.context = room if context is None else min(room, context)
        self.counts = Counts()
        self._scheduler = Scheduler(self._cache, self.limits)
        self._changed = threading.Condition()
        self._inbox: deque[Job] = deque()
        self._errands: deque[_Errand] = deque()
        self._cancelled = False
        self._deadline: float | None = None
        self._over = False
        self._thread = threading.Thread(target=self._run, name="treadle-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let jobs wait for their turn, all of them or none.

        Raises:
            Refusal: 400 for one that can never be served, 429 when too many wait, 503 when the
                engine stops.
        """
        for job in jobs:
            self._check(job)
        if len(jobs) > self.limits.waiting:
            message = f"there are {len(jobs)} prompts; this server takes {self.limits.waiting}"
            raise Refusal(400, message, param="prompt")
        with self._changed:
            if self._deadline is not None or self._over:
                raise stopping()
            waiting = len(self._inbox) + len(self._scheduler.waiting)
            if waiting + len(jobs) > self.limits.waiting:
                self.counts.refused += 1
                raise self._full(waiting)
            self._inbox.extend(jobs)
            self._changed.notify()

    def cancel(self, job: Job, choice: int | None = None) -> None:
        """Stop a choice of a job, or all, at the next step; what is over already stays so."""
        with self._changed:
            job.cancelled.update(range(len(job.samplers)) if choice is None else (choice,))
            self._cancelled = True
            self._changed.notify()

    def call(self, run: Callable[[], T]) -> Future[T]:
        """Call a function on the engine's thread, between two steps.

        Raises:
            Refusal: 429 when too many wait, 503 when the engine stops.
        """
        done: Future[T] = Future()
        with self._changed:
            if self._deadline is not None or self._over:
                raise stopping()
            if len(self._errands) >= self.limits.waiting:
                self.counts.refused += 1
                raise self._full(len(self._errands))
            self._errands.append(_Errand(run, done))
            self._changed.notify()
        return done

    def drain(self, seconds: float) -> None:
        """Take nothing new, and stop when all is done, at the latest after so many seconds."""
        with self._changed:
            deadline = time.monotonic() + seconds
            self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
            self._changed.notify()

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the end of the thread; whether it has come."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def snapshot(self) -> Snapshot:
        """What is going on now."""
        with self._changed:
            return Snapshot(
                running=self._scheduler.slots,
                waiting=len(self._inbox) + len(self._scheduler.waiting),
                pages=self._pages,
                free_pages=self._cache.free_pages,
                preemptions=self._scheduler.preemptions,
                alive=self._thread.is_alive() and not self._over,
                stopping=self._deadline is not None,
            )

    def _check(self, job: Job) -> None:
        size, limits = len(job.prompt), self.limits
        if not size:
            raise Refusal(400, "the prompt has no tokens", param="prompt")
        if limits.prompt_tokens is not None and size > limits.prompt_tokens:
            message = f"the prompt has {size} tokens; this server takes {limits.prompt_tokens}"
            raise Refusal(400, message, code="context_length_exceeded", param="prompt")
        if size + job.max_tokens > self.context:
            message = (
                f"the context has {self.context} tokens, but {size + job.max_tokens} were asked for"
                f" ({size} in the prompt, {job.max_tokens} to be written)"
            )
            raise Refusal(400, message, code="context_length_exceeded", param="prompt")
        if len(job.samplers) > limits.running:
            message = f"n is {len(job.samplers)}; this server computes {limits.running} at a time"
            raise Refusal(400, message, kind=INVALID, param="n")

    def _full(self, waiting: int) -> Refusal:
        """An answer with the time in which about half of those that wait have had their turn."""
        done = sum(self.counts.finished.values())
        each = self.counts.step_seconds / done if done else 1.0
        seconds = min(_LONGEST_WAIT, max(1, math.ceil(each * (waiting + 1) / 2)))
        message = f"{waiting} requests wait already; try again in {seconds} s"
        return Refusal(
            429, message, kind=OVERLOADED, code="rate_limit_exceeded", retry_after=seconds
        )

    # What follows runs on the engine's thread.

    def _run(self) -> None:
        try:
            while self._wait():
                self._take()
                self._run_errand()
                self._step()
        finally:
            self._end()

    def _wait(self) -> bool:
        """Wait for something to do; whether to go on."""
        with self._changed:
            while True:
                busy = bool(self._inbox or self._errands or not self._scheduler.idle)
                if self._deadline is not None:
                    return busy and time.monotonic() < self._deadline
                if busy:
                    return True
                self._changed.wait()

    def _take(self) -> None:
        """Take in what has arrived and drop what was cancelled."""
        with self._changed:
            while self._inbox:
                self._scheduler.add(self._inbox.popleft())
            cancelled, self._cancelled = self._cancelled, False
        if cancelled:
            everything = [*self._scheduler.running, *self._scheduler.waiting]
            gone = [task for task in everything if task.job.cancelled.issuperset(task.choices)]
            self._drop(gone, Finished("cancelled"))

    def _run_errand(self) -> None:
        """Run one errand at most: sequences go on before the next."""
        if not self._errands:
            return
        errand = self._errands.popleft()
        if not errand.done.set_running_or_notify_cancel():
            return
        try:
            errand.done.set_result(errand.run())
        except _FAULTS as error:
            errand.done.set_exception(error)
        finally:
            # Whatever else was raised ends the engine; nobody waits for an answer in vain.
            if not errand.done.done():
                errand.done.set_exception(failed("the engine has stopped"))

    def _step(self) -> None:
        with self._changed:
            parts = self._scheduler.plan()
        if not parts:
            return
        start = time.perf_counter()
        try:
            pairs = [(part.task.sequence, part.tokens) for part in parts]
            wanted = ["last" if part.completes else "none" for part in parts]
            batch = self._cache.append(pairs, wanted)
            logits = self._model.step(batch)
        except _FAULTS as error:
            _LOG.exception("a step failed")
            self._drop([part.task for part in parts], failed(f"a step failed: {error}"))
            return
        computed = sum(part.count for part in parts if part.task.written == 0)
        generated = self._advance(parts, logits)
        self.counts.step(time.perf_counter() - start, computed, generated)

    def _advance(self, parts: Sequence[Part], logits: np.ndarray) -> int:
        """Choose the tokens that follow; how many there are."""
        generated = 0
        done: list[Task] = []
        complete = [part.task for part in parts if part.completes]
        for part in parts:
            part.task.cached += part.count
            part.task.shared = False
        for whole, row in zip(complete, logits, strict=True):
            for task in self._scheduler.split(whole):
                generated += self._continue(task, row, done)
        with self._changed:
            self._scheduler.remove(done)
        return generated

    def _continue(self, task: Task, row: np.ndarray, done: list[Task]) -> int:
        """Choose a task's next token and tell; how many tokens that gave."""
        picked = task.job.samplers[task.choice].pick(row)
        if picked.token in task.job.end_tokens:
            self._finish(task, "stop", done)
            return 0
        task.tokens.append(picked.token)
        task.written += 1
        task.job.listener(task.choice, picked)
        if task.written == task.job.max_tokens:
            self._finish(task, "length", done)
        return 1

    def _finish(self, task: Task, reason: str, done: list[Task]) -> None:
        done.append(task)
        self.counts.finished[reason] += 1
        task.job.listener(task.choice, Finished(reason))

    def _drop(self, tasks: Sequence[Task], event: Finished | Refusal) -> None:
        with self._changed:
            self._scheduler.remove(tasks)
        reason = event.reason if isinstance(event, Finished) else "failed"
        for task in tasks:
            for choice in task.choices:
                self.counts.finished[reason] += 1
                task.job.listener(choice, event)

    def _end(self) -> None:
        """Tell all that are left that nothing more comes."""
        with self._changed:
            self._over = True
            event = stopping() if self._deadline is not None else failed("the engine has stopped")
            while self._inbox:
                self._scheduler.add(self._inbox.popleft())
            errands, self._errands = self._errands, deque()
        for errand in errands:
            if errand.done.set_running_or_notify_cancel():
                errand.done.set_exception(event)
        self._drop([*self._scheduler.running, *self._scheduler.waiting], event)
