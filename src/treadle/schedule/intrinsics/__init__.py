"""Tensor intrinsics by name: families whose names say the type and the extents of the tile."""

import re
from collections.abc import Callable
from functools import cache

from treadle.expr.dtype import parse_dtype
from treadle.schedule.intrinsics.interleave import GROUPS, interleave
from treadle.schedule.intrinsics.intrinsic import TensorIntrin, define
from treadle.schedule.intrinsics.products import (
    LANES,
    MOST_ROWS,
    dot_bf16,
    dot_i8i8,
    dot_i8u8,
    dot_u8i8,
    fma,
    maddubs_u7i8,
    xor_popcount,
)
from treadle.schedule.intrinsics.transpose import SIDES, transpose, transpose_groups

__all__ = ["TensorIntrin", "define", "find_intrinsic", "intrinsic_names"]

_TRANSPOSE = re.compile(r"transpose_([a-z]+32)_(\d+)x\2")
_GROUPS = re.compile(r"transpose_(bf16|u8|i8)_(\d+)x(\d+)x\3")
_ROWS = re.compile(r"interleave_([a-z]+\d+)_(\d+)x(\d+)")
_PRODUCT = re.compile(r"([a-z0-9_]+)_(\d+)x(\d+)x(\d+)")
_Product = Callable[[int, int], TensorIntrin]
_PRODUCTS: dict[str, tuple[_Product, int]] = {
    "dot_bf16": (dot_bf16, 2),
    "dot_u8i8": (dot_u8i8, 4),
    "dot_i8u8": (dot_i8u8, 4),
    "dot_i8i8": (dot_i8i8, 4),
    "maddubs_u7i8": (maddubs_u7i8, 4),
    "xor_popcount_u32": (xor_popcount, 1),
}
_MOST_STEPS = 8


@cache
def find_intrinsic(name: str) -> TensorIntrin | None:
    """The intrinsic that is called ``name``, such as ``transpose_f32_16x16`` or
    ``dot_u8i8_6x16x4`` (rows, columns, steps); ``None`` if there is none.
    """
    square = _TRANSPOSE.fullmatch(name)
    if square is not None:
        dtype, side = parse_dtype(square[1]), int(square[2])
        return transpose(dtype, side) if dtype is not None and side in SIDES else None
    groups = _GROUPS.fullmatch(name)
    if groups is not None:
        dtype, group, side = parse_dtype(groups[1]), int(groups[2]), int(groups[3])
        known = dtype is not None and group * dtype.bits == 32 and side in SIDES
        return transpose_groups(dtype, group, side) if dtype is not None and known else None
    rows = _ROWS.fullmatch(name)
    if rows is not None:
        dtype, group, lanes = parse_dtype(rows[1]), int(rows[2]), int(rows[3])
        known = dtype is not None and group in GROUPS and lanes in LANES
        return interleave(dtype, group, lanes) if dtype is not None and known else None
    product = _PRODUCT.fullmatch(name)
    if product is None:
        return None
    rows, lanes, steps = (int(x) for x in product.groups()[1:])
    if lanes not in LANES or not 1 <= rows <= MOST_ROWS:
        return None
    if product[1] == "fma_f32":
        return fma(rows, lanes, steps) if 1 <= steps <= _MOST_STEPS else None
    make, group = _PRODUCTS.get(product[1], (None, 0))
    return make(rows, lanes) if make is not None and steps == group else None


def intrinsic_names(rows: int = 1) -> tuple[str, ...]:
    """The names of all intrinsics; products have ``rows`` rows, and those of f32 one step."""
    squares = [
        f"transpose_{kind}_{side}x{side}" for kind in ("f32", "i32", "u32") for side in SIDES
    ]
    narrow = ("bf16_2", "i8_4", "u8_4")
    packs = [f"interleave_{kind}x{n}" for kind in narrow for n in LANES]
    packs += [f"transpose_{kind}x{n}x{n}" for kind in narrow for n in SIDES]
    families = {"fma_f32": 1, **{family: group for family, (_, group) in _PRODUCTS.items()}}
    tiles = [f"{family}_{rows}x{n}x{group}" for family, group in families.items() for n in LANES]
    return (*squares, *packs, *tiles)
