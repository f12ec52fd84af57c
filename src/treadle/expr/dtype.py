"""Element types of tensors and of scalar expressions."""

from functools import cache
from typing import Any, Literal

import ml_dtypes
import numpy as np

Kind = Literal["float", "bfloat", "int", "uint", "bool"]

_PREFIX: dict[Kind, str] = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "bool": "bool"}
_INTERNED: dict[tuple[Kind, int, int], "DType"] = {}


class DType:
    """A scalar type of ``bits`` width, or a vector of ``lanes`` of them.

    Equal types are one object, so they compare and hash by identity.
    """

    __slots__ = ("bits", "kind", "lanes", "scalar")
    kind: Kind
    bits: int
    lanes: int
    scalar: "DType"
    """The element type of a vector; a scalar type itself."""

    def __new__(cls, kind: Kind, bits: int, lanes: int = 1) -> "DType":
        found = _INTERNED.get((kind, bits, lanes))
        if found is None:
            found = object.__new__(cls)
            found.kind, found.bits, found.lanes = kind, bits, lanes
            found.scalar = found if lanes == 1 else DType(kind, bits)
            found = _INTERNED.setdefault((kind, bits, lanes), found)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return DType, (self.kind, self.bits, self.lanes)

    def __str__(self) -> str:
        name = "bool" if self.kind == "bool" else f"{_PREFIX[self.kind]}{self.bits}"
        return name if self.lanes == 1 else f"{name}x{self.lanes}"

    __repr__ = __str__

    @property
    def is_float(self) -> bool:
        """Whether this is a floating-point type, bfloat16 included."""
        return self.kind in ("float", "bfloat")

    @property
    def is_int(self) -> bool:
        """Whether this is a signed or unsigned integer type; bool is not one."""
        return self.kind in ("int", "uint")

    @property
    def is_bool(self) -> bool:
        """Whether this is the truth type."""
        return self.kind == "bool"

    def vector(self, lanes: int) -> "DType":
        """The vector of ``lanes`` elements of this scalar type."""
        return DType(self.kind, self.bits, lanes)

    @property
    def bytes(self) -> int:
        """Bytes that one value takes in memory; a bool takes one."""
        return max(1, self.bits // 8) * self.lanes

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype of one element."""
        return _numpy(self.scalar)


@cache
def _numpy(dtype: DType) -> np.dtype:
    if dtype.kind == "bfloat":
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype("bool" if dtype.kind == "bool" else f"{dtype.kind}{dtype.bits}")


f16 = DType("float", 16)
f32 = DType("float", 32)
f64 = DType("float", 64)
bf16 = DType("bfloat", 16)
i8 = DType("int", 8)
i16 = DType("int", 16)
i32 = DType("int", 32)
i64 = DType("int", 64)
u8 = DType("uint", 8)
u16 = DType("uint", 16)
u32 = DType("uint", 32)
u64 = DType("uint", 64)
boolean = DType("bool", 1)

DTYPES: tuple[DType, ...] = (f16, f32, f64, bf16, i8, i16, i32, i64, u8, u16, u32, u64, boolean)
_BY_NAME = {str(d): d for d in DTYPES}
_BY_NUMPY = {d.numpy: d for d in DTYPES}


def parse_dtype(name: str) -> DType | None:
    """The type spelled ``name``, such as ``f32``, ``bool`` or ``f32x16``; else ``None``."""
    base, _, lanes = name.partition("x")
    found = _BY_NAME.get(base)
    if found is None or (lanes and not lanes.isdecimal()):
        return None
    return found.vector(int(lanes)) if lanes else found


def from_numpy(dtype: np.dtype) -> DType | None:
    """The type of the elements of a NumPy array; ``None`` if Treadle has none for it."""
    return _BY_NUMPY.get(np.dtype(dtype))
