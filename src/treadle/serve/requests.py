"""The requests of OpenAI's interface, checked: what is understood, what is refused and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from treadle.serve.refusal import Refusal

Token = Annotated[int, Field(ge=0, lt=1 << 31)]
Positive = Annotated[int, Field(ge=1, lt=1 << 31)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]

_STOPS = 16
_NUMBER = re.compile(r"[0-9]{1,9}")
_CHOICES = 128
_PLACES = 3
_TOKENS = (
    "a string, a list of strings, a list of tokens, or a list of such lists; none of them empty"
)
_FORMS = {
    "prompt": _TOKENS,
    "input": _TOKENS,
    "stop": f"a string or at most {_STOPS} strings, none of them empty",
    "content": 'a string or a list of {"type": "text", "text": ...}',
}


class _Body(BaseModel):
    """A JSON object whose fields are known and have exactly the types they should have."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class StreamOptions(_Body):
    """How a stream ends; ``include_obfuscation`` is taken and has no effect."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class Generation(_Body):
    """What completions and chats have in common."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=_CHOICES)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=_STOPS)] | None = None
    # Not of OpenAI, and common among servers.
    top_k: Positive | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    ignore_eos: bool = False
    # Of no consequence here.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @field_validator("logit_bias")
    @classmethod
    def _tokens_are_numbers(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        if any(_NUMBER.fullmatch(token) is None for token in bias or ()):
            raise ValueError("the keys are numbers of tokens")
        return bias

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Generation:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream=true")
        return self

    @property
    def stops(self) -> Sequence[str]:
        """The strings that end the text."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def biases(self) -> dict[int, float]:
        """What is added to the logits of tokens."""
        return {int(token): value for token, value in (self.logit_bias or {}).items()}

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(Generation):
    """``POST /v1/completions``."""

    prompt: (
        str
        | Annotated[list[Token], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[Annotated[list[Token], Field(min_length=1)]], Field(min_length=1)]
    )
    max_tokens: Positive | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Positive | None = None
    suffix: str | None = None

    @field_validator("echo")
    @classmethod
    def _no_echo(cls, echo: bool | None) -> bool | None:
        if echo:
            raise ValueError("echo is not supported: put the prompt before the text yourself")
        return echo

    @field_validator("suffix")
    @classmethod
    def _no_suffix(cls, suffix: str | None) -> str | None:
        if suffix:
            raise ValueError("suffix is not supported: the text goes on at the end of the prompt")
        return suffix

    @model_validator(mode="after")
    def _best_of_is_n(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of is not supported: ask for n and choose")
        return self

    @property
    def prompts(self) -> Sequence[str | Sequence[int]]:
        """The prompts, each a text or tokens."""
        if isinstance(self.prompt, str):
            return (self.prompt,)
        if isinstance(self.prompt[0], int):
            return ([token for token in self.prompt if isinstance(token, int)],)
        return [part for part in self.prompt if not isinstance(part, int)]


class TextPart(_Body):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(_Body):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """The whole content."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)


class ResponseFormat(_Body):
    """The form of an answer: plain text, here."""

    type: str

    @field_validator("type")
    @classmethod
    def _only_text(cls, kind: str) -> str:
        if kind != "text":
            raise ValueError(f"'{kind}' is not supported: answers are plain text")
        return kind


class ChatRequest(Generation):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None

    @field_validator("tools")
    @classmethod
    def _no_tools(cls, tools: list[Any] | None) -> list[Any] | None:
        if tools:
            raise ValueError("tools are not supported")
        return tools

    @model_validator(mode="after")
    def _top_needs_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs=true")
        return self

    @property
    def longest(self) -> int | None:
        """The most tokens of the answer, if it says so."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class EmbeddingRequest(_Body):
    """``POST /v1/embeddings``."""

    model: str
    input: (
        str
        | Annotated[list[Token], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=2048)]
        | Annotated[list[Annotated[list[Token], Field(min_length=1)]], Field(min_length=1)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Positive | None = None
    user: str | None = None

    @property
    def inputs(self) -> Sequence[str | Sequence[int]]:
        """The inputs, each a text or tokens."""
        if isinstance(self.input, str):
            return (self.input,)
        if isinstance(self.input[0], int):
            return ([token for token in self.input if isinstance(token, int)],)
        return [part for part in self.input if not isinstance(part, int)]


Request = TypeVar("Request", bound=_Body)


def read(kind: type[Request], body: bytes) -> Request:
    """A request from the bytes of its JSON.

    Raises:
        Refusal: 400, with the places at fault, when the bytes are no such request.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> Refusal:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        fault = faults[0]["msg"].removeprefix("Invalid JSON: ")
        return Refusal(400, f"the body is not JSON: {fault}", code="invalid_json")
    told = list(dict.fromkeys(_told(f["type"], f["loc"], f["msg"]) for f in faults))
    more = f" (and {len(told) - _PLACES} more)" if len(told) > _PLACES else ""
    where = faults[0]["loc"]
    param = str(where[0]) if where else None
    return Refusal(400, "; ".join(told[:_PLACES]) + more, code="invalid_value", param=param)


def _told(kind: str, path: tuple[int | str, ...], message: str) -> str:
    """One fault; a field with several forms is told once, with all of them."""
    for name, forms in _FORMS.items():
        if name in path:
            return f"{_place(path[: path.index(name) + 1])}should be {forms}"
    if kind == "extra_forbidden":
        return f"{_place(path)}there is no such field"
    text = message.removeprefix("Value error, ").removeprefix("Input ")
    return _place(path) + text[:1].lower() + text[1:]


def _place(path: Sequence[int | str]) -> str:
    place = ".".join(map(str, path))
    return f"{place}: " if place else ""
