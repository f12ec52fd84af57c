"""An executable entry: checks its inputs, takes an arena, and runs native code on their memory."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import numpy as np

from treadle_runtime.array import (
    ALIGNMENT,
    ITEM_BYTES,
    AnyTensor,
    TorchEdge,
    aligned,
    empty_aligned,
    numpy_dtype,
    numpy_pointer,
    numpy_ready,
    scratch,
    storage_dtype,
    torch_edge,
    torch_ready,
)
from treadle_runtime.dims import evaluate
from treadle_runtime.errors import InternalError, OptionError, RuntimeFault
from treadle_runtime.library import Callback
from treadle_runtime.loader import LoadedCode
from treadle_runtime.manifest import Entry, TensorSpec
from treadle_runtime.memory import MemoryUse, process_memory
from treadle_runtime.profile import Profile
from treadle_runtime.threads import Pool
from treadle_runtime.violations import explain_dims, explain_rank

_Shapes = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)
_Run = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
_Constants = Mapping[str, np.ndarray]
_Callbacks = Mapping[str, Callback]
T = TypeVar("T")
_EMPTY: Mapping[str, Any] = MappingProxyType({})

# Frames kept for the next calls; more callers at once than this allocate anew.
_MOST_FRAMES = 16


def exports_of(entry: Entry) -> tuple[str, str]:
    """The names of the two native functions of an entry."""
    return f"{entry.name}.shapes", f"{entry.name}.run"


class _Frame:
    """The memory of one running call: argument words and arena; one per caller at a time."""

    __slots__ = ("address", "arena", "arena_bytes", "pointer", "words")

    def __init__(self, words: int) -> None:
        self.words = (ctypes.c_int64 * words)()
        self.address = ctypes.addressof(self.words)
        self.resize(0)

    def resize(self, arena_bytes: int) -> None:
        """Make the arena at least this long; what it held is lost."""
        self.arena, self.arena_bytes = None, 0  # given back before more is taken
        self.arena = scratch(max(arena_bytes, ALIGNMENT))
        self.pointer = numpy_pointer(self.arena)
        self.arena_bytes = arena_bytes


class _Input:
    """What an input must be, in the form that the fast path compares with."""

    __slots__ = ("dtype", "mask", "name", "numpy", "rank", "torch")

    def __init__(self, spec: TensorSpec, edge: TorchEdge | None) -> None:
        self.name = spec.name
        self.dtype = spec.dtype
        self.rank = len(spec.dims)
        self.mask = ITEM_BYTES[spec.dtype] - 1
        self.numpy = storage_dtype(spec.dtype)
        self.torch = None if edge is None else edge.dtypes.get(spec.dtype)


class Executable:
    """A compiled function: call it with NumPy arrays, PyTorch tensors or DLPack objects.

    Inputs are shared, not copied, unless they are not contiguous; outputs are new, PyTorch tensors
    if any input is one, else NumPy arrays. One output comes bare, several as a tuple. Python
    threads may call one executable at the same time.

    ``code`` holds ``E.shapes`` and ``E.run`` (see ``exports_of``); ``constants`` and ``callbacks``
    what the manifest's entry names. Raises ``RuntimeFault`` E0723 if one of those is missing.
    """

    def __init__(
        self,
        entry: Entry,
        code: LoadedCode,
        constants: _Constants = _EMPTY,
        *,
        pool: Pool | None = None,
        callbacks: _Callbacks = _EMPTY,
    ) -> None:
        self.entry = entry
        self.pool = pool
        self._code = code
        shapes, run = exports_of(entry)
        self._shapes = _Shapes(code[shapes])
        self._run = _Run(code[run])
        self._constants = tuple(aligned(_needed(constants, n, "constant")) for n in entry.constants)
        self._callbacks = tuple(_needed(callbacks, n, "library function") for n in entry.callbacks)
        pointers = [numpy_pointer(array) for array in self._constants]
        pointers += [callback.address for callback in self._callbacks]
        self._table = (ctypes.c_int64 * max(len(pointers), 1))(*pointers)
        self._table_address = ctypes.addressof(self._table)
        self._edge = torch_edge()
        self._inputs = tuple(_Input(spec, self._edge) for spec in entry.inputs)
        self._output_ranks = tuple(len(spec.dims) for spec in entry.outputs)
        self._frames: list[_Frame] = []
        self._lay_out_frame()
        self._last_symbols: tuple[int, ...] | None = None

    def _lay_out_frame(self) -> None:
        """Fix where in a frame's words each array of the ABI lies."""
        entry = self.entry
        in_dims = sum(len(spec.dims) for spec in entry.inputs)
        out_dims = sum(self._output_ranks)
        block = 5 + len(entry.inputs) + len(entry.outputs)
        self._symbols_at = 8 * in_dims
        self._out_dims_at = self._symbols_at + 8 * len(entry.symbols)
        self._arena_at = self._out_dims_at + 8 * out_dims
        self._block_at = self._arena_at + 8
        self._words = in_dims + len(entry.symbols) + out_dims + 1 + block
        self._pack_dims = struct.Struct(f"={in_dims}q").pack_into
        self._unpack_symbols = struct.Struct(f"={len(entry.symbols)}q").unpack_from
        self._unpack_out = struct.Struct(f"={out_dims + 1}q").unpack_from
        self._pack_block = struct.Struct(f"={block}q").pack_into

    @property
    def signature(self) -> str:
        """The function's type in the spelling of the IR text."""
        return self.entry.signature

    def __repr__(self) -> str:
        return f"<Executable {self.signature}>"

    def __call__(self, *inputs: AnyTensor, **named: AnyTensor) -> AnyTensor:
        """Run on ``inputs``, by position or by name.

        Raises ``RuntimeFault``: E0701 number or names of inputs, E0702 not a tensor, E0703 dtype,
        E0704 rank, E0705 a fixed dimension, E0706 a constraint between dimensions, E0707 a check
        while running, E0708 memory. What a library function raises comes through.
        """
        return self._call(inputs, named, 0)

    def _call(self, inputs: tuple[Any, ...], named: Mapping[str, Any], profile: int) -> AnyTensor:
        if named or len(inputs) != len(self._inputs):
            inputs = self._positional(inputs, named)
        dims: list[int] = []
        pointers: list[int] = []
        keep: list[object] = []
        edge = self._gather(inputs, dims, pointers, keep)
        frames = self._frames
        try:
            frame = frames.pop()
        except IndexError:
            frame = _Frame(self._words)
        try:
            outputs = self._solve(frame, dims, edge)
            pointers += (
                [x.data_ptr() for x in outputs]
                if edge is not None
                else [numpy_pointer(x) for x in outputs]
            )
            block = frame.address + self._block_at
            self._pack_block(
                frame.words,
                self._block_at,
                0 if self.pool is None else self.pool.address,
                frame.pointer,
                self._table_address,
                frame.address + self._symbols_at,
                profile,
                *pointers,
            )
            status = self._run(block)
        finally:
            if len(frames) < _MOST_FRAMES:
                frames.append(frame)
        if status:
            self._failed(status)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _gather(
        self, inputs: tuple[Any, ...], dims: list[int], pointers: list[int], keep: list[object]
    ) -> TorchEdge | None:
        """Collect dimensions and pointers; the edge to PyTorch if one input came from there."""
        edge = self._edge
        tensor = None if edge is None else edge.tensor
        torch_given = False
        for value, spec in zip(inputs, self._inputs, strict=True):
            kind = type(value)
            if kind is tensor:
                torch_given = True
                pointer = _torch_pointer(value, spec, edge)
            elif kind is np.ndarray and value.dtype is spec.numpy and value.flags.c_contiguous:
                pointer = numpy_pointer(value)
            else:
                pointer = -1
            if pointer < 0 or pointer & spec.mask:
                value, pointer = self._convert(value, spec)
                keep.append(value)
                torch_given = torch_given or not isinstance(value, np.ndarray)
            shape = value.shape
            if len(shape) != spec.rank:
                raise explain_rank(self._spec(spec), shape)
            dims.extend(shape)
            pointers.append(pointer)
        return self._edge if torch_given else None

    def _convert(self, value: AnyTensor, spec: _Input) -> tuple[Any, int]:
        """The slow way for one input: what can serve as it, and its pointer."""
        edge = self._edge
        if edge is None:
            edge = torch_edge()
            if edge is not None:  # PyTorch was loaded after this executable
                self._inputs = tuple(_Input(s, edge) for s in self.entry.inputs)
                self._edge = edge
        if edge is not None and isinstance(value, edge.tensor):
            ready = torch_ready(value, spec.dtype, spec.name)
            return ready, ready.data_ptr()
        array = numpy_ready(value, spec.dtype, spec.rank, spec.name)
        return array, numpy_pointer(array)

    def _spec(self, wanted: _Input) -> TensorSpec:
        return self.entry.inputs[[spec.name for spec in self._inputs].index(wanted.name)]

    def _solve(self, frame: _Frame, dims: list[int], edge: TorchEdge | None) -> list[Any]:
        """Run ``E.shapes`` into the frame, fit its arena, and allocate the outputs."""
        out_dims, arena_bytes = self._shapes_of(frame, dims)
        if arena_bytes > frame.arena_bytes:
            frame.resize(arena_bytes)
        outputs: list[Any] = []
        start = 0
        for spec, rank in zip(self.entry.outputs, self._output_ranks, strict=True):
            shape = out_dims[start : start + rank]
            start += rank
            if edge is not None:
                outputs.append(edge.out(shape, spec.dtype))
            else:
                outputs.append(empty_aligned(shape, numpy_dtype(spec.dtype)))
        return outputs

    def _shapes_of(self, frame: _Frame, dims: list[int]) -> tuple[tuple[int, ...], int]:
        self._pack_dims(frame.words, 0, *dims)
        base = frame.address
        status = self._shapes(
            base, base + self._symbols_at, base + self._out_dims_at, base + self._arena_at
        )
        if status:
            raise explain_dims(self.entry, dims, status)
        self._last_symbols = self._unpack_symbols(frame.words, self._symbols_at)
        *out_dims, arena_bytes = self._unpack_out(frame.words, self._out_dims_at)
        return tuple(out_dims), arena_bytes

    def _positional(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Inputs in order, from those by position and those by name."""
        names = [spec.name for spec in self.entry.inputs]
        rest = names[len(inputs) :]
        unknown = [name for name in named if name not in rest]
        missing = [name for name in rest if name not in named]
        if len(inputs) <= len(names) and not unknown and not missing:
            return (*inputs, *(named[name] for name in rest))
        if unknown:
            again = unknown[0] in names
            why = f"input '{unknown[0]}' is given " + ("twice" if again else "but unknown")
        elif missing:
            why = f"input '{missing[0]}' is missing"
        else:
            why = f"{len(inputs)} inputs are given"
        raise RuntimeFault(
            "E0701",
            f"'{self.entry.name}' takes {len(names)} inputs: {why}",
            notes=(self.signature,),
            help=f"pass {', '.join(names) or 'nothing'}",
        )

    def _failed(self, status: int) -> NoReturn:
        for callback in self._callbacks:
            error = callback.take_error()
            if error is not None:
                raise error
        checks = self.entry.checks
        if not 1 <= status <= len(checks):
            raise InternalError(f"'{self.entry.name}' failed with status {status}")
        check = checks[status - 1]
        raise RuntimeFault(
            "E0707",
            f"'{self.entry.name}' stopped: {check.text}",
            place=check.place,
            help=check.help or "pass other inputs",
        )

    def memory(self, **symbols: int) -> MemoryUse:
        """Bytes used by a call in which the symbolic dimensions have these values.

        Without values: those of the last call. Raises ``OptionError`` E0802 if a value is missing,
        unknown, or no natural number.
        """
        values = self._symbol_values(symbols)
        frame = _Frame(self._words)
        dims = [evaluate(dim, values) for spec in self.entry.inputs for dim in spec.dims]
        out_dims, arena = self._shapes_of(frame, dims)
        weights = sum(array.nbytes for array in self._constants)
        tensors = (*self.entry.inputs, *self.entry.outputs)
        extents = iter((*dims, *out_dims))
        peak = weights + arena
        for spec in tensors:
            count = ITEM_BYTES[spec.dtype]
            for _ in spec.dims:
                count *= next(extents)
            peak += count
        live = max((evaluate(text, values) for text in self.entry.live), default=0)
        return MemoryUse(weights, arena, live, peak, process_memory())

    def _symbol_values(self, given: Mapping[str, int]) -> dict[str, int]:
        names = self.entry.symbols
        if not given and (self._last_symbols is not None or not names):
            return dict(zip(names, self._last_symbols or (), strict=True))
        right = set(given) == set(names) and all(
            isinstance(v, int) and v >= 0 for v in given.values()
        )
        if not right:
            example = ", ".join(f"{name}=64" for name in names)
            raise OptionError(
                "E0802",
                f"memory of '{self.entry.name}' depends on {', '.join(names) or 'nothing'}",
                notes=(self.signature,),
                help=f"pass natural numbers: memory({example})",
            )
        return dict(given)

    def profile(
        self,
        *inputs: AnyTensor,
        runs: int = 10,
        trace: str | os.PathLike[str] | None = None,
        **named: AnyTensor,
    ) -> Profile:
        """Time each kernel over ``runs`` calls, after one that is not counted.

        ``trace`` names a file for ``chrome://tracing``. Raises what a call raises, ``OptionError``
        E0803 for ``runs`` below 1, and E0710 if the trace cannot be written.
        """
        if isinstance(runs, bool) or not isinstance(runs, int) or runs < 1:
            raise OptionError("E0803", f"cannot profile {runs!r} runs", help="pass runs=1 or more")
        count = len(self.entry.calls)
        words = (ctypes.c_int64 * max(2 * count, 1))()
        address = ctypes.addressof(words)
        self._call(inputs, named, address)
        times: list[tuple[tuple[int, int], ...]] = []
        total = 0.0
        for _ in range(runs):
            start = time.perf_counter()
            self._call(inputs, named, address)
            total += time.perf_counter() - start
            times.append(tuple((words[2 * i], words[2 * i + 1]) for i in range(count)))
        symbols = dict(zip(self.entry.symbols, self._last_symbols or (), strict=True))
        profile = Profile(self.entry.name, self.entry.calls, symbols, tuple(times), total / runs)
        if trace is not None:
            profile.to_chrome_trace(trace)
        return profile


def _torch_pointer(value: AnyTensor, spec: _Input, edge: TorchEdge | None) -> int:
    """The address of a tensor's data, or -1 if its memory cannot be used as it is."""
    try:
        if (
            value.dtype is spec.torch
            and value.is_cpu
            and edge is not None
            and value.layout is edge.strided
            and value.is_contiguous()
            and not value.is_neg()
        ):
            return value.data_ptr()
    except RuntimeError:  # tensors that stand for others, as under vmap, have no memory
        pass
    return -1


def _needed(given: Mapping[str, T], name: str, what: str) -> T:
    if name not in given:
        raise RuntimeFault(
            "E0723",
            f"the {what} '{name}' is missing",
            help="pass it where the executable is made, or load the whole artifact",
        )
    return given[name]
