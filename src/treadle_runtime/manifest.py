"""The manifest: what a compiled module's entries take, give, check and call; kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TypeVar

from treadle_runtime.errors import RuntimeFault

ABI_VERSION = 3

# The position of a dtype is its code in the ABI of library calls.
DTYPES = (
    "f16", "bf16", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "bool",
)  # fmt: skip

_HIGHEST_DIM = 1 << 62

T = TypeVar("T")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of the signature; a dimension is a number, or an expression over symbols in text."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.dims)) + ("," if len(self.dims) == 1 else "")
        return f"Tensor[({inner}), {self.dtype}]"


@dataclass(frozen=True)
class Check:
    """A check at each call: of shapes, where ``text`` is the claim (``input`` and ``axis`` are
    indices if it is about one axis); or of values while running, where it says what is wrong; or
    of what a ``function`` of a library returns.
    """

    text: str
    input: int | None = None
    axis: int | None = None
    help: str | None = None
    place: str | None = None
    function: str | None = None


@dataclass(frozen=True)
class CallSpec:
    """A call of a kernel or of a function outside by the host function; ``flops`` and ``bytes`` are
    expressions over symbols. The flops of functions outside are not known, and 0.
    """

    kernel: str
    label: str
    flops: str
    bytes: str


@dataclass(frozen=True)
class Entry:
    """One compiled function: its signature, its checks, and the names of what it needs.

    ``live`` are expressions over symbols: the largest is the bytes of scratch memory that a call
    uses at once. ``sizes`` are symbols that values give while the entry runs, one after another;
    each output tells in ``stages`` how many of them its shape waits for. ``donated`` are pairs of
    numbers of an output and of the input that it is handed back as.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    symbols: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    calls: tuple[CallSpec, ...] = ()
    constants: tuple[str, ...] = ()
    callbacks: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    stages: tuple[int, ...] = ()
    donated: tuple[tuple[int, int], ...] = ()

    @property
    def signature(self) -> str:
        """The function's type in the spelling of the IR text."""
        inputs = ", ".join(f"{spec.name}: {spec}" for spec in self.inputs)
        outputs = ", ".join(map(str, self.outputs))
        return f"{self.name}({inputs}) -> {outputs if len(self.outputs) == 1 else f'({outputs})'}"


@dataclass(frozen=True)
class Manifest:
    """A module's entries, who made it and with what options ``numerics`` and
    ``static_memory``; ``members`` has the sha256
    of an artifact's parts.
    """

    entries: tuple[Entry, ...]
    treadle_version: str = ""
    llvm_version: str = ""
    numerics: str = "default"
    static_memory: bool = False
    version: int = ABI_VERSION
    members: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def entry(self, name: str) -> Entry:
        """The entry called ``name``; raises ``RuntimeFault`` E0722 if there is none."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        names = ", ".join(entry.name for entry in self.entries) or "none"
        raise RuntimeFault("E0722", f"there is no entry '{name}'", notes=(f"entries: {names}",))

    def to_json(self) -> str:
        """The manifest as JSON text, the same for equal manifests."""
        plain = {
            "version": self.version,
            "treadle_version": self.treadle_version,
            "llvm_version": self.llvm_version,
            "numerics": self.numerics,
            "static_memory": self.static_memory,
            "entries": [asdict(entry) for entry in self.entries],
            "members": dict(self.members),
        }
        return json.dumps(plain, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read JSON text; raises ``RuntimeFault`` E0720 if it is not a manifest of this version."""
        try:
            plain = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _corrupt(f"not JSON: {error}") from error
        reader = _Reader(plain, "manifest")
        version = reader.get("version", _whole)
        if version != ABI_VERSION:
            raise RuntimeFault(
                "E0720",
                f"the manifest has version {version}, and this run time reads {ABI_VERSION}",
                help="compile and save the model again with this version of Treadle",
            )
        return cls(
            entries=reader.get("entries", _list_of(_entry)),
            treadle_version=reader.get("treadle_version", _text),
            llvm_version=reader.get("llvm_version", _text),
            numerics=reader.get("numerics", _text),
            static_memory=reader.get("static_memory", _truth),
            version=version,
            members=reader.get("members", _texts_by_name),
        )


class _Reader:
    """One JSON object whose fields are read with checks; errors name the path to the field."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise _corrupt(f"{path} is not an object")
        self.fields: dict[str, object] = value
        self.path = path

    def get(self, name: str, read: Callable[[object, str], T]) -> T:
        path = f"{self.path}.{name}"
        if name not in self.fields:
            raise _corrupt(f"{path} is missing")
        return read(self.fields[name], path)


def _corrupt(why: str) -> RuntimeFault:
    return RuntimeFault(
        "E0720",
        "the manifest is damaged",
        notes=(why,),
        help="save the model again, or copy the file again",
    )


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _corrupt(f"{path} is not text")
    return value


def _text_or_none(value: object, path: str) -> str | None:
    return None if value is None else _text(value, path)


def _truth(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise _corrupt(f"{path} is not true or false")
    return value


def _whole(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _HIGHEST_DIM:
        raise _corrupt(f"{path} is not a whole number in range")
    return value


def _pair(value: object, path: str) -> tuple[int, int]:
    found = _list_of(_whole)(value, path)
    if len(found) != 2:
        raise _corrupt(f"{path} is no pair")
    return found[0], found[1]


def _index(value: object, path: str) -> int | None:
    return None if value is None else _whole(value, path)


def _dim(value: object, path: str) -> int | str:
    return value if isinstance(value, str) else _whole(value, path)


def _dtype(value: object, path: str) -> str:
    if value not in DTYPES:
        raise _corrupt(f"{path} is not a dtype")
    return str(value)


def _list_of(read: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    def read_list(value: object, path: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _corrupt(f"{path} is not a list")
        return tuple(read(item, f"{path}[{i}]") for i, item in enumerate(value))

    return read_list


def _texts_by_name(value: object, path: str) -> Mapping[str, str]:
    fields = _Reader(value, path).fields
    return MappingProxyType({name: _text(item, f"{path}.{name}") for name, item in fields.items()})


def _tensor(value: object, path: str) -> TensorSpec:
    reader = _Reader(value, path)
    return TensorSpec(
        reader.get("name", _text), reader.get("dtype", _dtype), reader.get("dims", _list_of(_dim))
    )


def _check(value: object, path: str) -> Check:
    reader = _Reader(value, path)
    return Check(
        reader.get("text", _text),
        reader.get("input", _index),
        reader.get("axis", _index),
        reader.get("help", _text_or_none),
        reader.get("place", _text_or_none),
        reader.get("function", _text_or_none),
    )


def _call(value: object, path: str) -> CallSpec:
    reader = _Reader(value, path)
    return CallSpec(*(reader.get(name, _text) for name in ("kernel", "label", "flops", "bytes")))


def _entry(value: object, path: str) -> Entry:
    reader = _Reader(value, path)
    return Entry(
        name=reader.get("name", _text),
        inputs=reader.get("inputs", _list_of(_tensor)),
        outputs=reader.get("outputs", _list_of(_tensor)),
        symbols=reader.get("symbols", _list_of(_text)),
        checks=reader.get("checks", _list_of(_check)),
        calls=reader.get("calls", _list_of(_call)),
        constants=reader.get("constants", _list_of(_text)),
        callbacks=reader.get("callbacks", _list_of(_text)),
        live=reader.get("live", _list_of(_text)),
        sizes=reader.get("sizes", _list_of(_text)),
        stages=reader.get("stages", _list_of(_whole)),
        donated=reader.get("donated", _list_of(_pair)),
    )
