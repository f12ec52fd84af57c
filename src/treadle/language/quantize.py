"""Weights in few bits: how they are packed, and what that costs in accuracy.

A weight is that of a linear layer, (outputs, inputs). Its integer codes stay packed in memory; a
scale, for a whole output or for each group of 32 inputs, brings them back to their range:

    int8           value = code * scale[output],               code in [-127, 127]
    int8_grouped   value = code * scale[output, group],        code in [-128, 127]  (GGUF's Q8_0)
    int4           value = (code - 8) * scale[output, group],  code in [0, 15]      (Q4_0)
    int4_affine    value = code * scale[output, group] + offset[output, group]      (Q4_1)

Two codes of 4 bits share a byte: the low half of byte h of a group is element h, the high half
element h + 16. Inputs beyond the last group are filled with codes of zero.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np

from treadle.base.errors import InternalError

Kind = Literal["int8", "int8_grouped", "int4", "int4_affine"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GROUP = 32
"""Inputs that share a scale."""

_HALF = GROUP // 2
_ROWS_AT_ONCE = 1 << 22
"""Elements that are converted at a time, so that a large weight never lies in f32 as a whole."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """A weight of ``outputs`` × ``inputs`` in packed codes.

    ``codes`` are i8 (outputs, inputs), of 4 bits u8 (outputs, 16 * groups); ``scales`` f32
    (outputs,) for int8, else f16 (outputs, groups), as are ``offsets`` for int4_affine. Rows that
    are multiplied by the weight stay f32, or are rounded to ``row_bytes``, one or two.
    """

    kind: Kind
    outputs: int
    inputs: int
    codes: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray | None = None
    row_bytes: int = 0

    def __post_init__(self) -> None:
        whole = self.kind == "int8"
        stored = (self.outputs,) if whole else (self.outputs, self.groups)
        shapes = [self.codes.shape, self.scales.shape]
        wanted = [(self.outputs, self._width), stored]
        if self.offsets is not None or self.kind == "int4_affine":
            shapes.append(() if self.offsets is None else self.offsets.shape)
            wanted.append(stored)
        if shapes != wanted:
            raise InternalError(f"the parts of an {self.kind} weight have shapes {shapes}")

    @property
    def groups(self) -> int:
        """Groups of inputs of one output, the last one maybe not full."""
        return -(-self.inputs // GROUP)

    @property
    def is_narrow(self) -> bool:
        """Whether two codes share a byte."""
        return self.kind in ("int4", "int4_affine")

    @property
    def _width(self) -> int:
        return self.groups * _HALF if self.is_narrow else self.inputs

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        offsets = 0 if self.offsets is None else self.offsets.nbytes
        return self.codes.nbytes + self.scales.nbytes + offsets

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The parts by name, as a decoding function takes them."""
        offsets = {} if self.offsets is None else {"offsets": self.offsets}
        return {"codes": self.codes, "scales": self.scales, **offsets}

    def taken(self, rows: np.ndarray) -> Self:
        """The weight of the outputs that ``rows``, integers (n,), name."""
        offsets = None if self.offsets is None else self.offsets[rows]
        codes, scales = self.codes[rows], self.scales[rows]
        return replace(self, outputs=len(rows), codes=codes, scales=scales, offsets=offsets)


def quantized(weight: np.ndarray, kind: Kind) -> QuantizedWeight:
    """The weight (outputs, inputs), of any floating-point dtype, in codes of ``kind``, each the
    nearest to its value. Its elements must be finite, and for groups within the range of f16.

    A scale of int4 takes the element of largest magnitude to code 0, which has no positive
    counterpart, as GGUF's Q4_0 does.
    """
    outputs, inputs = weight.shape
    step = max(1, _ROWS_AT_ONCE // max(inputs, 1))
    parts = [
        _quantized_rows(np.asarray(weight[i : i + step], np.float32), kind)
        for i in range(0, max(outputs, 1), step)
    ]
    arrays = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    codes, scales, offsets = (arrays.get(name) for name in ("codes", "scales", "offsets"))
    assert codes is not None
    assert scales is not None
    return QuantizedWeight(kind, outputs, inputs, codes, scales, offsets)


def _quantized_rows(rows: np.ndarray, kind: Kind) -> dict[str, np.ndarray]:
    if kind == "int8":
        scale = (np.max(np.abs(rows), axis=1, initial=0) / 127).astype(np.float32)
        codes = np.rint(rows * _inverse(scale)[:, None]).astype(np.int8)
        return {"codes": codes, "scales": scale}
    groups = grouped(rows)
    if kind == "int8_grouped":
        scale = (np.max(np.abs(groups), axis=2) / 127).astype(np.float16)
        codes = _nearest(groups, scale, -128, 127).astype(np.int8)
        flat = codes.reshape(len(rows), -1)[:, : rows.shape[1]]
        return {"codes": np.ascontiguousarray(flat), "scales": scale}
    if kind == "int4":
        place = np.argmax(np.abs(groups), axis=2)[..., None]
        scale = (np.take_along_axis(groups, place, 2)[..., 0] / -8).astype(np.float16)
        codes = (_nearest(groups, scale, -8, 7) + 8).astype(np.uint8)
        return {"codes": packed_nibbles(codes), "scales": scale}
    low = np.min(groups, axis=2).astype(np.float16)
    scale = ((np.max(groups, axis=2) - low) / 15).astype(np.float16)
    codes = _nearest(groups - low.astype(np.float32)[..., None], scale, 0, 15).astype(np.uint8)
    return {"codes": packed_nibbles(codes), "scales": scale, "offsets": low}


def _nearest(groups: np.ndarray, scale: np.ndarray, low: int, high: int) -> np.ndarray:
    codes = np.rint(groups * _inverse(scale.astype(np.float32))[..., None])
    return np.clip(codes, low, high)


def _inverse(scale: np.ndarray) -> np.ndarray:
    """One over each scale; zero where the values, all zero or too small for a scale, are lost."""
    with np.errstate(divide="ignore", over="ignore"):
        found = np.float32(1) / scale
    return np.where(np.isfinite(found), found, np.float32(0))


def grouped(rows: np.ndarray) -> np.ndarray:
    """(n, inputs) as (n, groups, 32), the last group filled with zeros."""
    n, inputs = rows.shape
    missing = -inputs % GROUP
    filled = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
    return filled.reshape(n, (inputs + missing) // GROUP, GROUP)


def packed_nibbles(codes: np.ndarray) -> np.ndarray:
    """Codes u8 (n, groups, 32) below 16 as bytes (n, groups * 16)."""
    halves = codes[..., :_HALF] | (codes[..., _HALF:] << 4)
    return halves.reshape(len(codes), codes.shape[1] * _HALF)


def unpacked_nibbles(packed: np.ndarray) -> np.ndarray:
    """Bytes (n, groups * 16) as codes u8 (n, groups * 32)."""
    halves = packed.reshape(len(packed), packed.shape[1] // _HALF, _HALF)
    codes = np.concatenate((halves & 15, halves >> 4), axis=2)
    return codes.reshape(len(packed), 2 * packed.shape[1])


def dequantized(weight: QuantizedWeight) -> np.ndarray:
    """The values, f32 (outputs, inputs)."""
    scales = weight.scales.astype(np.float32)
    if weight.kind == "int8":
        return weight.codes * scales[:, None]
    spread = np.repeat(scales, GROUP, axis=1)[:, : weight.inputs]
    if not weight.is_narrow:
        return weight.codes * spread
    codes = unpacked_nibbles(weight.codes)[:, : weight.inputs].astype(np.float32)
    if weight.offsets is None:
        return (codes - np.float32(8)) * spread
    offsets = np.repeat(weight.offsets.astype(np.float32), GROUP, axis=1)[:, : weight.inputs]
    return codes * spread + offsets


@dataclass(frozen=True, slots=True)
class QuantizationError:
    """How far values are from what they stand for: ``largest`` in absolute terms, ``relative`` the
    root of the squared errors over that of the squared values, and ``bits`` of memory for each.
    """

    largest: float
    relative: float
    bits: float


def quantization_error(weight: QuantizedWeight, original: np.ndarray) -> QuantizationError:
    """What a weight lost against the ``original`` (outputs, inputs)."""
    difference = dequantized(weight) - np.asarray(original, np.float32)
    power = float(np.sum(np.square(original, dtype=np.float64)))
    lost = float(np.sum(np.square(difference, dtype=np.float64)))
    return QuantizationError(
        float(np.max(np.abs(difference), initial=0)),
        (lost / power) ** 0.5 if power else 0.0,
        8 * weight.nbytes / max(original.size, 1),
    )
