"""Arrays at the edge: NumPy, PyTorch and DLPack tensors as pointers, and outputs of the same kind.

Nothing here imports PyTorch: if the caller has it, it is already loaded.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, TypeAlias, cast

import numpy as np

from treadle_runtime.errors import RuntimeFault

try:
    import ml_dtypes
except ImportError:  # bfloat16 is then for PyTorch tensors only
    ml_dtypes = None

ALIGNMENT = 64
# Scratch memory from this size on is mapped by itself.
_MAPPED_BYTES = 1 << 20
_LARGE_PAGE = 1 << 21
_PIECE_BYTES = 1 << 26

ITEM_BYTES = {
    "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "i8": 1, "i16": 2, "i32": 4, "i64": 8,
    "u8": 1, "u16": 2, "u32": 4, "u64": 8, "bool": 1,
}  # fmt: skip

_NUMPY_NAMES = {
    "f16": "float16", "f32": "float32", "f64": "float64",
    "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64", "bool": "bool",
}  # fmt: skip
_TORCH_NAMES = _NUMPY_NAMES | {"bf16": "bfloat16"}
_SPELLED = {name: dtype for dtype, name in _TORCH_NAMES.items()}

# A tensor of any library; their types are not known here.
AnyTensor: TypeAlias = Any

_address_of = ctypes.addressof
# NumPy does not declare the buffer protocol that its arrays have.
_first_byte = cast("Callable[[np.ndarray], ctypes.c_char]", ctypes.c_char.from_buffer)


@cache
def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype of a dtype's name; bf16 is the one of ``ml_dtypes``.

    Raises ``RuntimeFault`` E0709 for bf16 when ``ml_dtypes`` is not installed.
    """
    if dtype != "bf16":
        return np.dtype(_NUMPY_NAMES[dtype])
    if ml_dtypes is None:
        raise RuntimeFault(
            "E0709",
            "NumPy has no bfloat16 of its own",
            help="install ml_dtypes, or pass PyTorch tensors",
        )
    return np.dtype(ml_dtypes.bfloat16)


def storage_dtype(dtype: str) -> np.dtype[Any]:
    """As ``numpy_dtype``, but the bits of bf16 as u16 where NumPy has no bfloat16."""
    return np.dtype(np.uint16) if dtype == "bf16" and ml_dtypes is None else numpy_dtype(dtype)


def dtype_name(dtype: object) -> str:
    """The name of a NumPy or PyTorch dtype as Treadle spells it, else as it spells itself."""
    own = str(dtype).removeprefix("torch.")
    return _SPELLED.get(own, own)


def numpy_pointer(array: np.ndarray) -> int:
    """The address of an array's data, three times as fast as ``array.ctypes.data``."""
    try:
        return _address_of(_first_byte(array))
    except (TypeError, ValueError, BufferError):  # read-only, empty, or a dtype without a buffer
        return array.ctypes.data


def empty_aligned(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """A new C-contiguous array, its data on a 64-byte boundary and not initialized.

    Raises ``RuntimeFault`` E0706 for a negative extent, E0708 if there is no memory for it.
    """
    count = dtype.itemsize
    for extent in shape:
        count *= extent
    try:
        raw = np.empty(count + ALIGNMENT, np.uint8)
        offset = -_address_of(_first_byte(raw)) % ALIGNMENT
        return np.ndarray(shape, dtype, buffer=raw, offset=offset)
    except (MemoryError, ValueError) as error:
        raise cannot_allocate(shape, dtype.itemsize) from error


def scratch(count: int) -> np.ndarray:
    """Bytes on a 64-byte boundary to work in; many of them go back to the system once dropped,
    which those of the usual allocator need not.

    Raises ``RuntimeFault`` E0708 if there is no memory for it.
    """
    if count < _MAPPED_BYTES:
        return empty_aligned((count,), np.dtype(np.uint8))
    return _mapped(count)


class Slab:
    """Memory for arrays that are used together, such as the weights of a program: they lie one
    after another in large pages, where the system has such, and are streamed faster for it.

    ``expected`` is how many bytes they have together, about; what no array has is not taken. Memory
    comes in pieces, and each is given back when all of its arrays are dropped.
    """

    def __init__(self, expected: int) -> None:
        self._piece = min(expected, _PIECE_BYTES)
        self._free = np.empty(0, np.uint8)

    def zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
        """A new C-contiguous array of zeros, on a 64-byte boundary.

        Raises ``RuntimeFault`` E0708 if there is no memory for it.
        """
        count = math.prod(shape) * dtype.itemsize
        taken = -(-count // ALIGNMENT) * ALIGNMENT
        if taken > self._free.nbytes:
            self._free = _blank(max(taken, self._piece))
        array, self._free = self._free[:count], self._free[taken:]
        return array.view(dtype).reshape(shape)

    def copy(self, array: np.ndarray) -> np.ndarray:
        """A copy of ``array``, C-contiguous, on a 64-byte boundary."""
        made = self.zeros(array.shape, array.dtype)
        made[...] = array
        return made


def _blank(count: int) -> np.ndarray:
    """Zeros on a 64-byte boundary, many of them mapped by themselves."""
    if count >= _MAPPED_BYTES:
        return _mapped(count)
    found = empty_aligned((count,), np.dtype(np.uint8))
    found[...] = 0
    return found


def _mapped(count: int) -> np.ndarray:
    """Zeros on a boundary of the system's large pages, in such where they are to be had.

    Raises ``RuntimeFault`` E0708 if there is no memory for it.
    """
    try:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            # Memory that is shared with children has large pages on few systems.
            pages = mmap.mmap(-1, count + _LARGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            pages.madvise(mmap.MADV_HUGEPAGE)
        else:
            pages = mmap.mmap(-1, count + _LARGE_PAGE)
    except (OSError, OverflowError, ValueError) as error:
        raise cannot_allocate((count,), 1) from error
    array = np.frombuffer(pages, np.uint8)
    start = -numpy_pointer(array) % _LARGE_PAGE
    return array[start : start + count]


def aligned(array: np.ndarray) -> np.ndarray:
    """``array`` itself if it is C-contiguous on a 64-byte boundary, else a copy that is."""
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = empty_aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


def cannot_allocate(shape: Sequence[int], item_bytes: int) -> RuntimeFault:
    """The error for an array that cannot be: of negative extent (E0706), or too large (E0708)."""
    if any(extent < 0 for extent in shape):
        return RuntimeFault(
            "E0706",
            f"these inputs would make an output of the shape {tuple(shape)}",
            help="pass larger inputs",
        )
    return RuntimeFault(
        "E0708",
        f"there is not enough memory: {math.prod(shape) * item_bytes} bytes were asked for",
        help="use smaller inputs, or close other programs",
    )


@dataclass(frozen=True)
class TorchEdge:
    """PyTorch as the caller loaded it: its tensor class and its dtypes by Treadle's names."""

    tensor: type
    dtypes: dict[str, Any]
    empty: Any
    strided: Any

    def out(self, shape: tuple[int, ...], dtype: str) -> AnyTensor:
        """A new CPU tensor, not initialized (PyTorch aligns to 64 bytes).

        Raises ``RuntimeFault`` E0706 for a negative extent, E0708 if there is no memory for it.
        """
        try:
            return self.empty(shape, dtype=self.dtypes[dtype], device="cpu")
        except RuntimeError as error:
            raise cannot_allocate(shape, ITEM_BYTES[dtype]) from error


def torch_edge() -> TorchEdge | None:
    """PyTorch if the program has loaded it, else None; never loads it."""
    torch = sys.modules.get("torch")
    return None if torch is None or not hasattr(torch, "Tensor") else _torch_edge(torch)


@cache
def _torch_edge(torch: ModuleType) -> TorchEdge:
    named = {d: getattr(torch, n) for d, n in _TORCH_NAMES.items() if hasattr(torch, n)}
    return TorchEdge(torch.Tensor, named, torch.empty, torch.strided)


def torch_ready(value: AnyTensor, dtype: str, name: str) -> AnyTensor:
    """A PyTorch tensor as a dense, contiguous CPU tensor: itself, or a copy where it must be.

    ``name`` is what messages call it. Raises ``RuntimeFault`` E0702 for other devices, sparse or
    quantized layouts and tensors without data, E0703 for another dtype.
    """
    if value.device.type != "cpu":
        raise RuntimeFault(
            "E0702",
            f"input '{name}' is on device '{value.device}', and this program runs on the CPU",
            help=f"pass {name}.cpu()",
        )
    if str(value.layout) != "torch.strided" or value.is_quantized:
        raise RuntimeFault(
            "E0702",
            f"input '{name}' has the layout '{value.layout}' or is quantized",
            help=f"pass {name}.to_dense() or {name}.dequantize()",
        )
    given = dtype_name(value.dtype)
    if given != dtype:
        raise _wrong_dtype(name, dtype, given, f"{name}.to(torch.{_TORCH_NAMES[dtype]})")
    ready = value.detach().resolve_conj().resolve_neg().contiguous()
    try:
        # Tensors that stand for others, as under tracing or vmap, keep no data on the CPU.
        present = ready.untyped_storage().device.type == "cpu"
        pointer = ready.data_ptr() if present else 0
    except RuntimeError:
        present, pointer = False, 0
    if not present:
        raise RuntimeFault(
            "E0702",
            f"input '{name}' is a tensor without data, as under tracing or torch.vmap",
            help="call the program outside of the transformation",
        )
    return ready if pointer % ITEM_BYTES[dtype] == 0 else ready.clone()


def numpy_ready(value: object, dtype: str, rank: int, name: str) -> np.ndarray:
    """Anything but a PyTorch tensor as a C-contiguous array, copied only if it must be.

    ``name`` is what messages call it. Python numbers serve where ``rank`` is 0. Objects with
    ``__dlpack__`` are shared, not copied.

    Raises ``RuntimeFault`` E0702 for what is no tensor, E0703 for another dtype.
    """
    expected = numpy_dtype(dtype)
    if isinstance(value, bool | int | float) and rank == 0:
        return _scalar(value, expected, dtype, name)
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
    elif hasattr(value, "__dlpack__"):
        array = _from_dlpack(value, name)
    else:
        raise _not_a_tensor(value, dtype, name)
    if array.dtype != expected:
        given = dtype_name(array.dtype)
        if array.dtype.newbyteorder() == expected:
            given = f"{dtype_name(expected)} in foreign byte order"
        raise _wrong_dtype(name, dtype, given, f'{name}.astype("{expected.name}")')
    return np.require(array, requirements=("C", "A")).reshape(array.shape)


def _scalar(value: float, expected: np.dtype[Any], dtype: str, name: str) -> np.ndarray:
    floats = dtype in ("f16", "bf16", "f32", "f64")
    fits = floats or (isinstance(value, bool) if dtype == "bool" else isinstance(value, int))
    if not fits or (dtype != "bool" and isinstance(value, bool)):
        raise _wrong_dtype(name, dtype, f"a Python {type(value).__name__}", None)
    try:
        return np.array(value, expected)
    except OverflowError as error:
        raise RuntimeFault("E0703", f"input '{name}': {value} does not fit in {dtype}") from error


def _from_dlpack(value: AnyTensor, name: str) -> np.ndarray:
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise RuntimeFault(
            "E0702",
            f"input '{name}': the memory of a {type(value).__name__} cannot be shared",
            notes=(str(error),),
            help="pass a NumPy array or a PyTorch tensor on the CPU",
        ) from error


def _not_a_tensor(value: object, dtype: str, name: str) -> RuntimeFault:
    cure = "pass a NumPy array, a PyTorch tensor, or an object with __dlpack__"
    if isinstance(value, list | tuple | bool | int | float):
        cure = f'pass numpy.asarray({name}, dtype="{_TORCH_NAMES[dtype]}")'
    return RuntimeFault("E0702", f"input '{name}' is a {type(value).__name__}", help=cure)


def _wrong_dtype(name: str, expected: str, given: str, cure: str | None) -> RuntimeFault:
    return RuntimeFault(
        "E0703",
        f"input '{name}': expected dtype {expected}, got {given}",
        help=None if cure is None else f"convert it first: {cure}",
    )
