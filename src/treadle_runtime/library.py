"""Library calls: Python functions behind C pointers, called by native code on its memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from treadle_runtime.array import storage_dtype
from treadle_runtime.errors import RuntimeFault
from treadle_runtime.manifest import DTYPES

_FAILED = 1
_Native = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)


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


def _views(words: int) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    n_in, n_out = (ctypes.c_int64 * 2).from_address(words)
    views: list[np.ndarray] = []
    at = words + 16
    for i in range(n_in + n_out):
        pointer, code, rank = (ctypes.c_int64 * 3).from_address(at)
        shape = tuple((ctypes.c_int64 * rank).from_address(at + 24))
        at += 24 + 8 * rank
        view = array_at(pointer, DTYPES[code], shape)
        view.flags.writeable = i >= n_in
        views.append(view)
    return tuple(views[:n_in]), tuple(views[n_in:])


def array_at(pointer: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """A NumPy view of memory of something else; bf16 without ``ml_dtypes`` shows its bits."""
    kind = storage_dtype(dtype)
    count = kind.itemsize
    for extent in shape:
        count *= extent
    if count == 0:
        return np.empty(shape, kind)
    memory = cast("memoryview", (ctypes.c_char * count).from_address(pointer))
    return np.ndarray(shape, kind, buffer=memory)
