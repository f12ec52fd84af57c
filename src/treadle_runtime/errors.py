"""Errors: yours (``TreadleError``, with a code, a place and a cure) or ours (``InternalError``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

_CODE = re.compile(r"E\d{4}")


class InternalError(Exception):
    """A bug in Treadle, never the user's mistake; the message asks for a report.

    ``dump`` is the path of a file that shows the state at the time, where one was written.
    """

    def __init__(self, message: str, *, dump: str | None = None) -> None:
        super().__init__(message, dump)
        self.message = message
        self.dump = dump

    def __str__(self) -> str:
        lines = [f"internal error: {self.message}"]
        if self.dump is not None:
            lines.append(f"   = note: the state at the time was written to {self.dump}")
        lines.append("   = help: this is a bug in Treadle, not in your program; please report it")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _restore_internal, (type(self), self.message, self.dump), self.__dict__


class TreadleError(Exception):
    """The user's mistake: what is wrong, where, and the cure.

    ``code`` is "E" and four digits, the first two naming the room; a subclass refuses the codes of
    other rooms. ``place`` is a rendered location ("model.py:3:5"), ``excerpt`` the lines of source
    around it, ``notes`` further facts, ``help`` the cure.

    Raises ``InternalError`` if the code does not fit the class: that is never the user's doing.
    """

    room: ClassVar[str] = ""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        place: str | None = None,
        excerpt: Sequence[str] = (),
        notes: Sequence[str] = (),
        help: str | None = None,  # noqa: A002  (the word that the rendered message uses)
    ) -> None:
        if not _CODE.fullmatch(code) or not code.startswith("E" + self.room):
            raise InternalError(f"{code!r} is not a code of {type(self).__name__}")
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.place = place
        self.excerpt = tuple(excerpt.splitlines() if isinstance(excerpt, str) else excerpt)
        self.notes = (notes,) if isinstance(notes, str) else tuple(notes)
        self.help = help

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.message}"]
        if self.place is not None:
            lines.append(f"  --> {self.place}")
        lines.extend(f"   | {line}".rstrip() for line in self.excerpt)
        lines.extend(f"   = note: {note}" for note in self.notes)
        if self.help is not None:
            lines.append(f"   = help: {self.help}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # A subclass may have another constructor, so the attributes travel, not the arguments.
        return _restore, (type(self), self.args), self.__dict__


class ParseError(TreadleError):
    """The text of a program cannot be read (E00xx)."""

    room = "00"


class TypeMismatch(TreadleError):
    """Types, shapes or arguments of an operation do not fit (E01xx)."""

    room = "01"


class VerifyError(TreadleError):
    """A program breaks a rule of the IR (E02xx)."""

    room = "02"


class ScheduleError(TreadleError):
    """A schedule primitive refuses because it could change the meaning (E03xx)."""

    room = "03"


class LoweringError(TreadleError):
    """A program has no lowering for what was asked (E04xx)."""

    room = "04"


class CodegenError(TreadleError):
    """No machine code can be made for the target (E05xx)."""

    room = "05"


class ModelImportError(TreadleError):
    """A model from another framework cannot be imported (E06xx)."""

    room = "06"


class RuntimeFault(TreadleError):
    """A call, an array or an artifact is not what the compiled program needs (E07xx)."""

    room = "07"


class OptionError(TreadleError):
    """An option is unknown or has no such value (E08xx)."""

    room = "08"


class LanguageModelError(TreadleError):
    """A language model's files, its cache or a request do not fit (E09xx)."""

    room = "09"


def _restore(cls: type[TreadleError], args: tuple[object, ...]) -> TreadleError:
    return cls.__new__(cls, *args)


def _restore_internal(cls: type[InternalError], message: str, dump: str | None) -> InternalError:
    return cls(message, dump=dump)
