"""Element types: PyTorch's, ours and NumPy's."""

import numpy as np
import torch

from treadle.expr.dtype import (
    DType,
    bf16,
    boolean,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
)

_PAIRS = (
    (torch.float16, f16),
    (torch.float32, f32),
    (torch.float64, f64),
    (torch.bfloat16, bf16),
    (torch.int8, i8),
    (torch.int16, i16),
    (torch.int32, i32),
    (torch.int64, i64),
    (torch.uint8, u8),
    (torch.uint16, u16),
    (torch.uint32, u32),
    (torch.uint64, u64),
    (torch.bool, boolean),
)
_FROM_TORCH = dict(_PAIRS)
_TO_TORCH = {ours: theirs for theirs, ours in _PAIRS}


def from_torch(dtype: torch.dtype) -> DType | None:
    """Our name of a dtype; ``None`` where there is none (complex, quantized, 8-bit floats)."""
    return _FROM_TORCH.get(dtype)


def to_torch(dtype: DType) -> torch.dtype:
    """PyTorch's name of an element type."""
    return _TO_TORCH[dtype]


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A dense CPU tensor as an array over the same storage; bfloat16 through ``ml_dtypes``.

    A tensor that is not on the CPU, or whose sign or conjugation is lazy, is copied.
    """
    plain = tensor.detach().cpu().resolve_neg()
    if plain.dtype is torch.bfloat16:
        return plain.view(torch.uint16).numpy().view(bf16.numpy)
    return plain.numpy()


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor over the same memory; a copy if it is read-only, as PyTorch demands."""
    writable = array if array.flags.writeable else array.copy()
    if writable.dtype == bf16.numpy:
        return torch.from_numpy(writable.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(writable)
