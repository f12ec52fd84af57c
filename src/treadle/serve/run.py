"""All choices of one request, while the engine writes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from treadle.language.text_stream import TextStream
from treadle.serve.answers import Answer, Decode, Delta
from treadle.serve.engine import Engine
from treadle.serve.job import Event, Finished, Job, Picked, Sampler
from treadle.serve.mailbox import Mailbox
from treadle.serve.refusal import Refusal
from treadle.serve.text import StopFilter


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of the engine: prompts, choices for each, and when to end.

    ``sampler`` is called with a prompt and the number of one of its choices.
    """

    prompts: Sequence[Sequence[int]]
    choices: int
    sampler: Callable[[Sequence[int], int], Sampler]
    max_tokens: Sequence[int]
    end_tokens: frozenset[int]
    stops: Sequence[str]


class Run:
    """A request that the engine works on; made, and read, on the event loop.

    Choices are numbered through: those of the first prompt come first.
    """

    def __init__(self, engine: Engine, order: Order, decode: Decode, mailbox: Mailbox) -> None:
        self._engine = engine
        self._mailbox = mailbox
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._choices = order.choices
        self.prompt_tokens = sum(map(len, order.prompts))
        total = len(order.prompts) * order.choices
        self.answers = [Answer(TextStream(decode), StopFilter(order.stops)) for _ in range(total)]
        self._jobs = [
            Job(
                prompt,
                [order.sampler(prompt, choice) for choice in range(order.choices)],
                max_tokens=order.max_tokens[place],
                end_tokens=order.end_tokens,
                listener=partial(self._hear, place * order.choices),
            )
            for place, prompt in enumerate(order.prompts)
        ]

    def start(self) -> None:
        """Hand it to the engine.

        Raises:
            Refusal: when the engine does not take it.
        """
        self._engine.submit(self._jobs)

    def cancel(self) -> None:
        """Let the engine drop all of it; ``deltas`` ends soon after."""
        for job in self._jobs:
            self._engine.cancel(job)

    async def deltas(self) -> AsyncGenerator[tuple[int, Delta]]:
        """The number of a choice and what is new of it, until all have a reason to end.

        Raises:
            Refusal: when the engine fails or stops before.
        """
        try:
            while any(answer.reason is None for answer in self.answers):
                index, event = await self._events.get()
                answer = self.answers[index]
                if answer.reason is None:
                    yield index, self._take(index, answer, event)
        finally:
            self.cancel()

    @property
    def usage(self) -> dict[str, int]:
        """The tokens that were read and written."""
        written = sum(answer.tokens for answer in self.answers)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
        }

    def _take(self, index: int, answer: Answer, event: Event) -> Delta:
        if isinstance(event, Refusal):
            raise event
        if isinstance(event, Finished):
            return answer.finish(event.reason)
        delta = answer.push(event)
        if answer.stops.stopped:
            place, choice = divmod(index, self._choices)
            self._engine.cancel(self._jobs[place], choice)
        return delta

    def _hear(self, first: int, choice: int, event: Picked | Finished | Refusal) -> None:
        self._mailbox.put(self._events, (first + choice, event))
