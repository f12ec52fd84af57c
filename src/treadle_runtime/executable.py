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
from treadle_runtime.donation import Bound, Given, Span, check_apart, check_bound, check_donated
from treadle_runtime.errors import InternalError, OptionError, RuntimeFault
from treadle_runtime.library import Callback, NativeFunction
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
_Callbacks = Mapping[str, Callback | NativeFunction]
T = TypeVar("T")
_EMPTY: Mapping[str, Any] = MappingProxyType({})

# Frames kept for the next calls; more callers at once than this allocate anew.
_MOST_FRAMES = 16


_LaterShapes = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def exports_of(entry: Entry) -> tuple[str, ...]:
    """The names of the native functions of an entry: two, and two more for each size that values
    give.
    """
    suffixes = ("", *(f".{k}" for k in range(1, len(entry.sizes) + 1)))
    return tuple(
        f"{entry.name}.{what}{suffix}" for suffix in suffixes for what in ("shapes", "run")
    )


class _Frame:
    """The memory of one running call: argument words and arena; one per caller at a time.

    ``dims`` are the dimensions of the inputs that its words were last solved for, with ``shapes``
    of the outputs and values of the ``symbols``: a call with the same ones need not solve again.
    """

    __slots__ = (
        *("address", "arena", "arena_bytes", "dims", "later", "pointer", "shapes", "symbols"),
        "words",
    )

    def __init__(self, words: int, stages: int = 0) -> None:
        self.dims: list[int] | None = None
        self.shapes: tuple[tuple[int, ...], ...] = ()
        self.symbols: tuple[int, ...] | None = None
        self.later: list[np.ndarray | None] = [None] * stages
        self.words = (ctypes.c_int64 * words)()
        self.address = ctypes.addressof(self.words)
        self.resize(0)

    def resize(self, arena_bytes: int) -> None:
        """Make the arena at least this long; what it held is lost."""
        self.arena, self.arena_bytes = None, 0  # given back before more is taken
        self.arena = scratch(max(arena_bytes, ALIGNMENT))
        self.pointer = numpy_pointer(self.arena)
        self.arena_bytes = arena_bytes

    def reserve(self, stage: int, arena_bytes: int) -> int:
        """The address of the arena of a later stage, which is at least this long."""
        arena = self.later[stage - 1]
        if arena is None or arena.nbytes < arena_bytes:
            self.later[stage - 1] = None
            arena = self.later[stage - 1] = scratch(max(arena_bytes, ALIGNMENT))
        return numpy_pointer(arena)


class _Input:
    """What an input must be, in the form that the fast path compares with."""

    __slots__ = ("donated", "dtype", "mask", "name", "numpy", "rank", "torch")

    def __init__(self, spec: TensorSpec, edge: TorchEdge | None, donated: bool) -> None:
        self.donated = donated
        self.name = spec.name
        self.dtype = spec.dtype
        self.rank = len(spec.dims)
        self.mask = ITEM_BYTES[spec.dtype] - 1
        self.numpy = storage_dtype(spec.dtype)
        self.torch = None if edge is None else edge.dtypes.get(spec.dtype)


class Executable:
    """A compiled function: call it with NumPy arrays, PyTorch tensors or DLPack objects.

    Inputs are shared, not copied, unless they are not contiguous; outputs are new, PyTorch tensors
    if any input is one, else NumPy arrays; but one that lies in the memory of a donated input is
    what was passed there, and a call that fails leaves its contents undefined. One output comes
    bare, several as a tuple. Python threads may call one executable at the same time.

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
        shapes, run, *later = exports_of(entry)
        self._shapes = _Shapes(code[shapes])
        self._run = _Run(code[run])
        self._later = tuple(
            (_LaterShapes(code[shapes]), _Run(code[run]))
            for shapes, run in zip(later[::2], later[1::2], strict=True)
        )
        self._stages = entry.stages or (0,) * len(entry.outputs)
        self._constants = tuple(aligned(_needed(constants, n, "constant")) for n in entry.constants)
        self._callbacks = tuple(_needed(callbacks, n, "library function") for n in entry.callbacks)
        pointers = [numpy_pointer(array) for array in self._constants]
        pointers += [callback.address for callback in self._callbacks]
        self._table = (ctypes.c_int64 * max(len(pointers), 1))(*pointers)
        self._table_address = ctypes.addressof(self._table)
        self._edge = torch_edge()
        self._donated = frozenset(j for _, j in entry.donated)
        self._returned = frozenset(k for k, _ in entry.donated)
        self._inputs = self._wanted(self._edge)
        self._output_ranks = tuple(len(spec.dims) for spec in entry.outputs)
        self._nothing = Given([len(spec.dims) for spec in entry.inputs], {})
        self._made = tuple(
            tuple(
                (k, spec.dtype)
                for k, spec in enumerate(entry.outputs)
                if self._stages[k] == stage and k not in self._returned
            )
            for stage in range(len(self._later) + 1)
        )
        self._frames: list[_Frame] = []
        self._lay_out_frame()
        self._last_symbols: tuple[int, ...] | None = None

    def _wanted(self, edge: TorchEdge | None) -> tuple[_Input, ...]:
        return tuple(_Input(s, edge, j in self._donated) for j, s in enumerate(self.entry.inputs))

    def _lay_out_frame(self) -> None:
        """Fix where in a frame's words each array of the ABI lies."""
        entry = self.entry
        in_dims = sum(len(spec.dims) for spec in entry.inputs)
        out_dims = sum(self._output_ranks)
        block = 5 + len(entry.inputs) + len(entry.outputs)
        later = len(entry.sizes)
        names = len(entry.symbols) + later
        self._symbols_at = 8 * in_dims
        self._out_dims_at = self._symbols_at + 8 * names
        self._arena_at = self._out_dims_at + 8 * out_dims
        self._block_at = self._arena_at + 8 * (1 + later)
        self._words = in_dims + names + out_dims + 1 + later + block + later
        self._pack_dims = struct.Struct(f"={in_dims}q").pack_into
        self._unpack_symbols = struct.Struct(f"={names}q").unpack_from
        self._unpack_out = struct.Struct(f"={out_dims + 1 + later}q").unpack_from
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
        while running, E0708 memory, E0724 a donated input. What a library function raises comes
        through.
        """
        return self._call(inputs, named, 0)

    def bind(self, **donated: np.ndarray) -> Bound:
        """The function of the other inputs, with these for all donated ones, which are checked now
        and not at each call: a program's state.

        The arrays must keep their shapes and their memory. Raises what a call raises for them.
        """
        names = [spec.name for spec in self._inputs]
        wanted = {j: names[j] for j in sorted(self._donated)}
        if not wanted or set(donated) != set(wanted.values()):
            raise RuntimeFault(
                "E0701",
                f"'{self.entry.name}' is bound to {', '.join(donated) or 'nothing'}",
                notes=(f"donated inputs: {', '.join(wanted.values()) or 'none'}",),
                help="bind all inputs that are donated, and no others",
            )
        arrays = {j: donated[name] for j, name in wanted.items()}
        spans: list[Span] = []
        for j, array in arrays.items():
            pointer, _ = self._take(array, self._inputs[j], self._edge, [])
            check_bound(array, self._inputs[j].name)
            spans.append((pointer, pointer + array.nbytes, j))
        check_apart(spans, self._donated, names)
        given = Given([spec.rank for spec in self._inputs], arrays)
        return Bound(self._call_with, given, self.signature)

    def _call(self, inputs: tuple[Any, ...], named: Mapping[str, Any], profile: int) -> AnyTensor:
        if named or len(inputs) != len(self._inputs):
            inputs = self._positional(inputs, named)
        return self._call_with(self._nothing, inputs, profile)

    def _call_with(self, given: Given, inputs: tuple[Any, ...], profile: int = 0) -> AnyTensor:
        """Run on ``inputs`` for those that are free in ``given``."""
        keep: list[object] = []
        dims, pointers, edge = self._gather(given, inputs, keep)
        frames = self._frames
        try:
            frame = frames.pop()
        except IndexError:
            frame = _Frame(self._words, len(self._later))
        try:
            outputs = self._solve(frame, dims, edge)
            pointers += _pointers(outputs, edge)
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
            if self._later and not status:
                status = self._go_on(frame, outputs, edge)
            returned = frame.words[self._block_at // 8] if status else 0
        finally:
            if len(frames) < _MOST_FRAMES:
                frames.append(frame)
        if status:
            self._failed(status, returned)
        arrays = given.arrays or inputs
        for k, j in self.entry.donated:
            outputs[k] = arrays[j]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _gather(
        self, given: Given, inputs: tuple[Any, ...], keep: list[object]
    ) -> tuple[list[int], list[int], TorchEdge | None]:
        """Dimensions and pointers of all inputs; the edge to PyTorch if one came from there. What
        the pointers need is put into ``keep``.
        """
        edge = self._edge
        torch_given = False
        dims, pointers = given.dims.copy(), given.pointers.copy()
        spans: list[Span] = []
        for value, (j, start) in zip(inputs, given.free, strict=True):
            spec = self._inputs[j]
            pointer, taken = self._take(value, spec, edge, keep)
            torch_given = torch_given or not isinstance(taken, np.ndarray)
            dims[start : start + spec.rank] = taken.shape
            pointers[j] = pointer
            if self._donated:
                spans.append((pointer, pointer + taken.nbytes, j))
        if self._donated and not given.is_clear_of(spans):
            names = [spec.name for spec in self._inputs]
            check_apart([*given.spans, *spans], self._donated, names)
        return dims, pointers, self._edge if torch_given else None

    def _take(
        self, given: AnyTensor, spec: _Input, edge: TorchEdge | None, keep: list[object]
    ) -> tuple[int, Any]:
        """The address of an input, and what has it: the input itself if it can serve."""
        value, kind = given, type(given)
        if kind is np.ndarray:
            good = value.dtype is spec.numpy and value.flags.c_contiguous
            pointer = numpy_pointer(value) if good else -1
        elif edge is not None and kind is edge.tensor:
            pointer = _torch_pointer(value, spec, edge)
        else:
            pointer = -1
        if pointer < 0 or pointer & spec.mask:
            value, pointer = self._convert(given, spec)
            keep.append(value)
        if len(value.shape) != spec.rank:
            raise explain_rank(self._spec(spec), value.shape)
        if spec.donated and (
            kind is not np.ndarray or value is not given or not value.flags.writeable
        ):
            check_donated(given, pointer, spec.name)
        return pointer, value

    def _convert(self, value: AnyTensor, spec: _Input) -> tuple[Any, int]:
        """The slow way for one input: what can serve as it, and its pointer."""
        edge = self._edge
        if edge is None:
            edge = torch_edge()
            if edge is not None:  # PyTorch was loaded after this executable
                self._inputs = self._wanted(edge)
                self._edge = edge
        if edge is not None and isinstance(value, edge.tensor):
            ready = torch_ready(value, spec.dtype, spec.name)
            return ready, ready.data_ptr()
        array = numpy_ready(value, spec.dtype, spec.rank, spec.name)
        return array, numpy_pointer(array)

    def _spec(self, wanted: _Input) -> TensorSpec:
        return self.entry.inputs[[spec.name for spec in self._inputs].index(wanted.name)]

    def _solve(self, frame: _Frame, dims: list[int], edge: TorchEdge | None) -> list[Any]:
        """Run ``E.shapes`` into the frame unless it did for the same dimensions, fit the arena, and
        allocate the outputs.
        """
        if frame.dims != dims:
            frame.dims = None  # until all has gone well
            out_dims, arena_bytes = self._shapes_of(frame, dims)
            if arena_bytes > frame.arena_bytes:
                frame.resize(arena_bytes)
            frame.shapes = self._split(out_dims)
            frame.symbols = self._unpack_symbols(frame.words, self._symbols_at)
            frame.dims = dims
        if not self._later:
            self._last_symbols = frame.symbols
        outputs: list[Any] = [None] * len(self._stages)
        self._allocate(0, frame.shapes, outputs, edge)
        return outputs

    def _split(self, out_dims: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """The shape of each output from all their dimensions."""
        shapes: list[tuple[int, ...]] = []
        start = 0
        for rank in self._output_ranks:
            shapes.append(out_dims[start : start + rank])
            start += rank
        return tuple(shapes)

    def _allocate(
        self,
        stage: int,
        shapes: tuple[tuple[int, ...], ...],
        outputs: list[Any],
        edge: TorchEdge | None,
    ) -> None:
        """Allocate the outputs whose shapes a stage is the first to know."""
        for k, dtype in self._made[stage]:
            if edge is not None:
                outputs[k] = edge.out(shapes[k], dtype)
            else:
                outputs[k] = empty_aligned(shapes[k], numpy_dtype(dtype))

    def _go_on(self, frame: _Frame, outputs: list[Any], edge: TorchEdge | None) -> int:
        """Run the stages after the first, each with memory for what is as large as the values
        before it say; the status of the last one that ran.
        """
        first = self._block_at // 8 + 5 + len(self._inputs)
        for stage, (_, run) in enumerate(self._later, 1):
            out_dims, arena_bytes = self._later_shapes(frame, stage)
            self._allocate(stage, self._split(out_dims), outputs, edge)
            for k, pointer in enumerate(_pointers(outputs, edge)):
                frame.words[first + k] = pointer
            frame.words[first + len(outputs) + stage - 1] = frame.reserve(stage, arena_bytes)
            status = run(frame.address + self._block_at)
            if status:
                return status
        self._last_symbols = self._unpack_symbols(frame.words, self._symbols_at)
        return 0

    def _later_shapes(self, frame: _Frame, stage: int) -> tuple[tuple[int, ...], int]:
        """The dimensions of outputs as far as a stage knows them, and the bytes of its arena."""
        shapes, _ = self._later[stage - 1]
        base = frame.address
        shapes(base + self._symbols_at, base + self._out_dims_at, base + self._arena_at)
        found = self._unpack_out(frame.words, self._out_dims_at)
        last = len(found) - len(self._later)
        return found[: last - 1], found[last - 1 + stage]

    def _shapes_of(self, frame: _Frame, dims: list[int]) -> tuple[tuple[int, ...], int]:
        self._pack_dims(frame.words, 0, *dims)
        base = frame.address
        status = self._shapes(
            base, base + self._symbols_at, base + self._out_dims_at, base + self._arena_at
        )
        if status:
            raise explain_dims(self.entry, dims, status)
        found = self._unpack_out(frame.words, self._out_dims_at)
        last = len(found) - len(self._later) - 1
        return found[:last], found[last]

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

    def _failed(self, status: int, returned: int) -> NoReturn:
        for callback in self._callbacks:
            error = callback.take_error()
            if error is not None:
                raise error
        checks = self.entry.checks
        if not 1 <= status <= len(checks):
            raise InternalError(f"'{self.entry.name}' failed with status {status}")
        check = checks[status - 1]
        if check.function is not None:
            raise RuntimeFault(
                "E0742",
                f"library function '{check.function}' returned the error code {returned}",
                place=check.place,
                help="the library's documentation says what the code means",
            )
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
        for stage, name in enumerate(self.entry.sizes, 1):
            frame.words[self._symbols_at // 8 + len(self.entry.symbols) + stage - 1] = values[name]
            out_dims, more = self._later_shapes(frame, stage)
            arena += more
        weights = sum(array.nbytes for array in self._constants)
        tensors = (*self.entry.inputs, *self.entry.outputs)
        extents = iter((*dims, *out_dims))
        peak = weights + arena
        returned = {len(self.entry.inputs) + k for k in self._returned}
        for n, spec in enumerate(tensors):
            count = ITEM_BYTES[spec.dtype]
            for _ in spec.dims:
                count *= next(extents)
            peak += 0 if n in returned else count
        live = max((evaluate(text, values) for text in self.entry.live), default=0)
        return MemoryUse(weights, arena, live, peak, process_memory())

    def _symbol_values(self, given: Mapping[str, int]) -> dict[str, int]:
        names = (*self.entry.symbols, *self.entry.sizes)
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
        names = (*self.entry.symbols, *self.entry.sizes)
        symbols = dict(zip(names, self._last_symbols or (), strict=True))
        profile = Profile(self.entry.name, self.entry.calls, symbols, tuple(times), total / runs)
        if trace is not None:
            profile.to_chrome_trace(trace)
        return profile


def _pointers(outputs: list[Any], edge: TorchEdge | None) -> list[int]:
    """The addresses of outputs; 0 for one that has no memory yet."""
    if edge is not None:
        return [0 if x is None else x.data_ptr() for x in outputs]
    return [0 if x is None else numpy_pointer(x) for x in outputs]


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
