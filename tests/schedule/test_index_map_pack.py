"""Packing by splitting, permuting and joining puts each element where the map says."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.schedule.index_map import IndexMap, index_map

MAPS: tuple[Callable[..., tuple[object, ...]], ...] = (
    lambda i, j: (i // 8, j, i % 8),
    lambda i, j: (i // 8, j // 4, i % 8 * 4 + j % 4),
    lambda i, j: (j // 4, i // 8, j % 4 * 8 + i % 8),
    lambda i, j: (j * 8 + i % 8, i // 8),
    lambda i, j: (i % 8 * 4 + j % 4, i // 8, j // 4),
    lambda i, j: (i * 64 + j,),
)


def elementwise(
    change: IndexMap, array: np.ndarray, pad: float
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Each element to its place, and the shape of the box around the places."""
    grid = np.indices(array.shape)
    names = dict(zip(change.params, grid, strict=True))
    places = [eval(str(r), {}, names) for r in change.results]
    shape = tuple(int(p.max()) + 1 for p in places)
    packed = np.full(shape, pad, array.dtype)
    packed[tuple(places)] = array
    return packed, shape


@pytest.mark.parametrize("change", MAPS)
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 3), columns=st.integers(1, 4), pad=st.sampled_from([0, 7]))
def test_whole_tiles(change: Callable[..., tuple[object, ...]], rows: int, columns: int, pad: int):
    array = np.arange(rows * 8 * columns * 4, dtype=np.int32).reshape(rows * 8, columns * 4)
    made = index_map(change)
    expected, shape = elementwise(made, array, pad)
    np.testing.assert_array_equal(made.pack(array, shape, pad), expected)


@pytest.mark.parametrize("change", MAPS[:3])
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 20), columns=st.integers(1, 10))
def test_tiles_that_are_not_full_are_padded(
    change: Callable[..., tuple[object, ...]], rows: int, columns: int
):
    array = np.arange(1, rows * columns + 1, dtype=np.int32).reshape(rows, columns)
    full = np.full((-(-rows // 8) * 8, -(-columns // 4) * 4), -1, np.int32)
    full[:rows, :columns] = array
    made = index_map(change)
    _, shape = elementwise(made, full, 0)
    if "j //" not in str(made):
        full, shape = full[:, :columns], (shape[0], columns, shape[2])
    found = made.pack(array, shape, -1)
    np.testing.assert_array_equal(found, elementwise(made, full, -1)[0])
