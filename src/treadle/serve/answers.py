"""From a choice's tokens to the texts and the logarithms of probabilities of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from treadle.language.text_stream import TextStream
from treadle.serve.job import Picked
from treadle.serve.text import StopFilter


@dataclass(frozen=True, slots=True)
class Delta:
    """What one token adds to a choice; ``offset`` is where its text begins."""

    text: str
    offset: int
    tokens: tuple[Picked, ...] = ()


@dataclass(slots=True)
class Answer:
    """One choice while it grows."""

    stream: TextStream
    stops: StopFilter
    tokens: int = 0
    reason: str | None = None
    deltas: list[Delta] = field(default_factory=list[Delta])
    _length: int = 0

    def push(self, picked: Picked) -> Delta:
        """Take a token; afterwards ``stops.stopped`` says whether the text is over."""
        self.tokens += 1
        delta = self._add(self.stops.push(self.stream.add(picked.token)), (picked,))
        if self.stops.stopped:
            self.reason = "stop"
        return delta

    def finish(self, reason: str) -> Delta:
        """Take what was held back at the end."""
        rest = self.stops.push(self.stream.finish())
        text = rest if self.stops.stopped else rest + self.stops.finish()
        self.reason = "stop" if self.stops.stopped else reason
        return self._add(text, ())

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(delta.text for delta in self.deltas)

    def _add(self, text: str, tokens: tuple[Picked, ...]) -> Delta:
        delta = Delta(text, self._length, tokens)
        self._length += len(text)
        self.deltas.append(delta)
        return delta


Decode = Callable[[Sequence[int]], str]


def completion_logprobs(deltas: Sequence[Delta], decode: Decode) -> dict[str, Any]:
    """Logarithms of probabilities in the form of completions."""
    told = [(picked, delta.offset) for delta in deltas for picked in delta.tokens]
    return {
        "tokens": [decode([picked.token]) for picked, _ in told],
        "token_logprobs": [picked.logprob for picked, _ in told],
        "top_logprobs": [
            {decode([token]): logprob for token, logprob in picked.top} for picked, _ in told
        ],
        "text_offset": [offset for _, offset in told],
    }


def chat_logprobs(deltas: Sequence[Delta], decode: Decode) -> dict[str, Any]:
    """Logarithms of probabilities in the form of chats."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    content = [
        entry(picked.token, picked.logprob)
        | {"top_logprobs": [entry(token, logprob) for token, logprob in picked.top]}
        for delta in deltas
        for picked in delta.tokens
    ]
    return {"content": content, "refusal": None}
