"""C prototypes as users write them: what a function takes and gives, in Treadle's element types."""

import re
from dataclasses import dataclass
from typing import Literal

from treadle.base.errors import OptionError
from treadle.expr.dtype import DType, boolean, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64

_TYPES: dict[str, DType] = {
    "_Bool": boolean,
    "bool": boolean,
    "char": i8,
    "double": f64,
    "float": f32,
    "_Float16": f16,
    "int": i32,
    "int16_t": i16,
    "int32_t": i32,
    "int64_t": i64,
    "int8_t": i8,
    "intptr_t": i64,
    "long": i64,
    "long long": i64,
    "ptrdiff_t": i64,
    "short": i16,
    "signed char": i8,
    "size_t": u64,
    "ssize_t": i64,
    "uint16_t": u16,
    "uint32_t": u32,
    "uint64_t": u64,
    "uint8_t": u8,
    "unsigned": u32,
    "unsigned char": u8,
    "unsigned long": u64,
    "unsigned long long": u64,
    "unsigned short": u16,
}
_IGNORED = {"const", "restrict", "__restrict", "__restrict__", "volatile", "extern", "struct"}
_WHOLE = re.compile(
    r"\s*(?P<head>[\w\s*]+?)\s*\b(?P<name>[A-Za-z_]\w*)\s*\((?P<rest>[^()]*)\)\s*;?\s*"
)
_WORD = re.compile(r"\w+|\*|\[\s*\d*\s*\]")
_HELP = 'write it as in C: "int f(const float *x, float *y, int64_t n)"'


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: a number of type ``dtype``, or a pointer to such; ``void *`` points to any."""

    dtype: DType | None
    pointer: bool

    def __str__(self) -> str:
        name = "void" if self.dtype is None else str(self.dtype)
        return f"a pointer to {name}" if self.pointer else name


@dataclass(frozen=True, slots=True)
class Prototype:
    """The name of a C function, what it takes, and whether it returns nothing or an ``int`` that is
    0 unless it failed.
    """

    name: str
    parameters: tuple[Parameter, ...]
    returns: Literal["nothing", "status"]


def parse_prototype(text: str) -> Prototype:
    """Read a declaration such as ``int scale(const float *x, float *y, int64_t n)``.

    Types are those of C on 64-bit Linux: ``long`` has 64 bits.

    Raises:
        OptionError: E0850 for what is no such declaration, for types that Treadle does not know,
            and for functions that return anything but ``void`` or ``int``.
    """
    found = _WHOLE.fullmatch(text)
    if found is None:
        raise _unread(text, "it is no declaration of one function")
    result = _parameter(found["head"], text, named=False)
    if result.pointer or result.dtype not in (None, i32):
        raise OptionError(
            "E0850",
            f"'{found['name']}' returns {result}",
            notes=(text.strip(),),
            help="let it return void, or an int that is 0 unless it failed, and write its results"
            " through pointers",
        )
    pieces = [p.strip() for p in found["rest"].split(",")]
    if pieces in ([""], ["void"]):
        pieces = []
    parameters = tuple(_parameter(p, text, named=True) for p in pieces)
    if any(p.dtype is None and not p.pointer for p in parameters):
        raise _unread(text, "a parameter has the type void")
    return Prototype(found["name"], parameters, "nothing" if result.dtype is None else "status")


def _parameter(piece: str, text: str, *, named: bool) -> Parameter:
    words = [w for w in _WORD.findall(piece) if w not in _IGNORED]
    stars = sum(w == "*" or w.startswith("[") for w in words)
    names = [w for w in words if w != "*" and not w.startswith("[")]
    if "".join(words) == "" or "".join(_WORD.findall(piece)) != re.sub(r"\s+", "", piece):
        raise _unread(text, f"'{piece}' is no parameter")
    for kind in (_kind(names), _kind(names[:-1]) if named else ""):
        if kind == "void" or kind in _TYPES:
            if stars > 1:
                raise _unread(text, f"'{piece}' points to pointers")
            if _TYPES.get(kind) == f16 and not stars:
                raise _unread(text, f"'{piece}' is passed by value")
            return Parameter(_TYPES.get(kind), stars == 1)
    raise _unread(text, f"the type in '{piece}' is unknown")


def _kind(words: list[str]) -> str:
    """The words of a type; ``int`` may be left out after others."""
    return " ".join(w for w in words if w != "int" or len(words) == 1)


def _unread(text: str, why: str) -> OptionError:
    return OptionError(
        "E0850", "a C prototype cannot be read", notes=(text.strip(), why), help=_HELP
    )
