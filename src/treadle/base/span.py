"""Where in the user's program a node comes from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a source file, or the name of a node in a model file.

    ``source`` is a file or model name; ``line`` and ``column`` count from one; ``text`` is what
    stands there (a line of source, or a node's name), kept because the file may be gone when an
    error is shown.
    """

    source: str
    line: int | None = None
    column: int | None = None
    text: str | None = None

    def __str__(self) -> str:
        parts = [self.source]
        if self.line is not None:
            parts.append(str(self.line))
            if self.column is not None:
                parts.append(str(self.column))
        place = ":".join(parts)
        return f"{place} ({self.text})" if self.text else place
