"""Library calls: C functions of shared objects, and Python functions behind C pointers, called by
native code on its memory.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from treadle_runtime.array import storage_dtype
from treadle_runtime.errors import RuntimeFault
from treadle_runtime.manifest import DTYPES

_FAILED = 1
# As many words as a call may have; only those that it has are looked at.
_Words = ctypes.c_int64 * (1 << 20)
_READ, _WRITE = 0x100, 0x200
_memory = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)(
    ("PyMemoryView_FromMemory", ctypes.pythonapi)
)
_Native = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)


class NativeFunction:
    """A C function of a shared object, which stays open as long as this object lives."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self._function = function
        self.address = ctypes.cast(cast("Any", function), ctypes.c_void_p).value or 0

    def take_error(self) -> None:
        """None: what goes wrong in C is told by what the function returns."""


def native_functions(
    library: str, path: str | None, symbols: Mapping[str, str]
) -> dict[str, NativeFunction]:
    """Open a shared object, or the process itself without ``path``, and find functions in it.

    ``symbols`` are the names in C by the names that programs call them. Raises ``RuntimeFault``
    E0727 if it cannot be opened, E0725 for a function that it does not have.
    """
    if not symbols:
        return {}
    try:
        opened = ctypes.CDLL(path)
    except OSError as error:
        raise RuntimeFault(
            "E0727",
            f"the library '{library}' cannot be opened",
            notes=(str(error),),
            help="name the path of a shared object for this machine",
        ) from error
    found: dict[str, NativeFunction] = {}
    for name, symbol in symbols.items():
        if not hasattr(opened, symbol):
            raise RuntimeFault(
                "E0725",
                f"the library '{library}' has no function '{symbol}'",
                notes=("it is looked up in the process" if path is None else path,),
                help='name a function that it exports; one of C++ has to be declared extern "C"',
            )
        found[name] = NativeFunction(name, getattr(opened, symbol))
    return found


class Callback:
    """A Python function that native code calls by ``i32 callback(ptr words)``.

    The words are i64: n_in, n_out, then for each tensor, inputs first, its data pointer, dtype code
    (the position in ``DTYPES``), rank and dimensions. The function gets read-only NumPy views of
    the inputs and returns one array, or a tuple of arrays, which are copied out. With
    ``destination`` it gets views of the outputs too, after the inputs, and returns None.

    An exception makes the callback return non-zero and waits in ``take_error`` of the same thread.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], *, destination: bool = False
    ) -> None:
        self.name = name
        self._function = function
        self._destination = destination
        self._errors = threading.local()
        self._native = _Native(self._enter)

    @property
    def address(self) -> int:
        """The C pointer; valid as long as this object lives."""
        return ctypes.cast(self._native, ctypes.c_void_p).value or 0

    def take_error(self) -> BaseException | None:
        """The exception of this thread's last call, once; None if there was none."""
        error: BaseException | None = getattr(self._errors, "last", None)
        self._errors.last = None
        return error

    def _enter(self, words: int) -> int:
        self._errors.last = None
        try:
            inputs, outputs = _views(words)
            if self._destination:
                self._check_nothing(self._function(*inputs, *outputs))
            else:
                self._copy_out(self._function(*inputs), outputs)
        except BaseException as error:  # noqa: BLE001  (native frames cannot carry it; raised after them)
            self._errors.last = error
            return _FAILED
        return 0

    def _check_nothing(self, result: object) -> None:
        if result is not None:
            raise RuntimeFault(
                "E0741",
                f"library function '{self.name}' writes to its destination but returned a value",
                help="return None, or register it without destination=True",
            )

    def _copy_out(self, result: object, outputs: tuple[np.ndarray, ...]) -> None:
        results = result if isinstance(result, tuple) else (result,)
        if len(results) != len(outputs):
            raise RuntimeFault(
                "E0741",
                f"library function '{self.name}' returned {len(results)} arrays "
                f"where {len(outputs)} were expected",
            )
        for i, (given, output) in enumerate(zip(results, outputs, strict=True)):
            array = np.asarray(given)
            if array.shape != output.shape or array.dtype != output.dtype:
                raise RuntimeFault(
                    "E0741",
                    f"library function '{self.name}', result {i}: expected {output.dtype} of shape "
                    f"{output.shape}, got {array.dtype} of shape {array.shape}",
                )
            output[...] = array


def _views(address: int) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    words = _Words.from_address(address)
    n_in, n_out = words[:2]
    views: list[np.ndarray] = []
    at = 2
    for i in range(n_in + n_out):
        pointer, code, rank = words[at : at + 3]
        at += 3 + rank
        shape = tuple(words[at - rank : at])
        views.append(_array_at(pointer, DTYPES[code], shape, writable=i >= n_in))
    return tuple(views[:n_in]), tuple(views[n_in:])


def _array_at(pointer: int, dtype: str, shape: tuple[int, ...], *, writable: bool) -> np.ndarray:
    """A NumPy view of memory of something else; bf16 without ``ml_dtypes`` shows its bits."""
    kind = storage_dtype(dtype)
    count = kind.itemsize
    for extent in shape:
        count *= extent
    if count == 0:
        empty = np.empty(shape, kind)
        empty.flags.writeable = writable
        return empty
    return np.ndarray(shape, kind, _memory(pointer, count, _WRITE if writable else _READ))
