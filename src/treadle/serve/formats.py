"""Answers as OpenAI's clients read them: completions and chats, whole and in pieces."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from treadle.serve.answers import Answer, Decode, Delta, chat_logprobs, completion_logprobs

Json = dict[str, Any]


class Format(Protocol):
    """One of the two forms of an answer; ``logprobs`` says whether it tells them."""

    logprobs: bool

    def opening(self, index: int) -> Json | None:
        """The piece of a stream with which a choice begins, if there is one."""
        ...

    def piece(self, index: int, delta: Delta, reason: str | None) -> Json:
        """A piece of a stream; with a reason the last of its choice."""
        ...

    def ending(self, usage: Json) -> Json:
        """The piece of a stream that tells what was used."""
        ...

    def whole(self, answers: Sequence[Answer], usage: Json) -> Json:
        """A whole answer."""
        ...


class _Form:
    """What both have in common."""

    prefix: str
    piece_kind: str
    whole_kind: str

    def __init__(self, model: str, decode: Decode, *, logprobs: bool, usage: bool) -> None:
        self._model = model
        self._decode = decode
        self.logprobs = logprobs
        self._usage = usage
        self._id = f"{self.prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def ending(self, usage: Json) -> Json:
        """The piece of a stream that tells what was used."""
        return self._frame(self.piece_kind, []) | {"usage": usage}

    def _frame(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }

    def _chunk(self, choice: Json) -> Json:
        empty: Json = {"usage": None} if self._usage else {}
        return self._frame(self.piece_kind, [choice]) | empty


class CompletionFormat(_Form):
    """The form of ``/v1/completions``."""

    prefix = "cmpl"
    piece_kind = whole_kind = "text_completion"

    def opening(self, index: int) -> Json | None:
        """Nothing: a completion begins with its text."""

    def piece(self, index: int, delta: Delta, reason: str | None) -> Json:
        """A piece of a stream; with a reason the last of its choice."""
        return self._chunk(self._choice(index, delta.text, [delta], reason))

    def whole(self, answers: Sequence[Answer], usage: Json) -> Json:
        """A whole answer."""
        choices = [self._choice(i, a.text, a.deltas, a.reason) for i, a in enumerate(answers)]
        return self._frame(self.whole_kind, choices) | {"usage": usage}

    def _choice(self, index: int, text: str, deltas: Sequence[Delta], reason: str | None) -> Json:
        told = completion_logprobs(deltas, self._decode) if self.logprobs else None
        return {"index": index, "text": text, "logprobs": told, "finish_reason": reason}


class ChatFormat(_Form):
    """The form of ``/v1/chat/completions``."""

    prefix = "chatcmpl"
    piece_kind = "chat.completion.chunk"
    whole_kind = "chat.completion"

    def opening(self, index: int) -> Json | None:
        """The piece that says who speaks."""
        return self._chunk(self._part(index, {"role": "assistant", "content": ""}, None, None))

    def piece(self, index: int, delta: Delta, reason: str | None) -> Json:
        """A piece of a stream; with a reason the last of its choice."""
        text = {"content": delta.text} if delta.text else {}
        return self._chunk(self._part(index, text, self._told([delta]), reason))

    def whole(self, answers: Sequence[Answer], usage: Json) -> Json:
        """A whole answer."""
        choices: list[Json] = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": self._told(answer.deltas),
                "finish_reason": answer.reason,
            }
            for index, answer in enumerate(answers)
        ]
        return self._frame(self.whole_kind, choices) | {"usage": usage}

    def _told(self, deltas: Sequence[Delta]) -> Json | None:
        return chat_logprobs(deltas, self._decode) if self.logprobs else None

    def _part(self, index: int, delta: Json, told: Json | None, reason: str | None) -> Json:
        return {"index": index, "delta": delta, "logprobs": told, "finish_reason": reason}


DONE = "data: [DONE]\n\n"


def event(data: Json) -> str:
    """An event of a stream."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
