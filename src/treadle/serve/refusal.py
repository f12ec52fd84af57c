"""What a client is told when its request cannot be served."""

from __future__ import annotations

INVALID = "invalid_request_error"
OVERLOADED = "rate_limit_error"
UNAVAILABLE = "service_unavailable"
INTERNAL = "server_error"


class Refusal(Exception):
    """A request that is not served, as OpenAI's clients expect to hear of it.

    ``status`` is that of HTTP; ``kind`` and ``code`` are the words that clients act on; ``param``
    names the field at fault; ``retry_after`` says in how many seconds a new attempt makes sense.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, object]:
        """The JSON that describes it."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def stopping() -> Refusal:
    """The answer to whoever comes, or is not done, when the server stops."""
    message = "the server is shutting down"
    return Refusal(503, message, kind=UNAVAILABLE, code="shutting_down", retry_after=5)


def failed(message: str) -> Refusal:
    """The answer when the fault is not the client's."""
    return Refusal(500, message, kind=INTERNAL, code="internal_error")
