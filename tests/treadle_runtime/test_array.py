import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from treadle_runtime import array
from treadle_runtime.array import (
    ITEM_BYTES,
    Slab,
    aligned,
    dtype_name,
    empty_aligned,
    numpy_dtype,
    numpy_pointer,
    numpy_ready,
    storage_dtype,
    torch_edge,
)
from treadle_runtime.errors import RuntimeFault
from treadle_runtime.manifest import DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_one_name_and_one_size_everywhere(dtype):
    edge = torch_edge()
    assert numpy_dtype(dtype).itemsize == ITEM_BYTES[dtype] == edge.dtypes[dtype].itemsize
    assert dtype_name(numpy_dtype(dtype)) == dtype
    assert dtype_name(edge.dtypes[dtype]) == dtype


@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    dtype=st.sampled_from(DTYPES),
)
def test_new_arrays_are_aligned_and_contiguous(shape, dtype):
    made = empty_aligned(shape, numpy_dtype(dtype))
    assert made.shape == tuple(shape)
    assert made.dtype == numpy_dtype(dtype)
    assert made.ctypes.data % 64 == 0
    assert made.flags.c_contiguous
    assert made.flags.writeable


def test_the_pointer_is_that_of_the_data():
    readonly = np.zeros(3)
    readonly.flags.writeable = False
    for a in (np.zeros((2, 3)), readonly, np.zeros(0), np.array(1), np.zeros(8)[3:]):
        assert numpy_pointer(a) == a.ctypes.data


def test_aligned_copies_only_what_is_not():
    good = empty_aligned((4, 4), np.dtype(np.float32))
    good[...] = 1
    assert aligned(good) is good
    for other in (good[1:, 1:], good.T[:, 1:], good.reshape(-1)[1:]):
        copy = aligned(other)
        assert copy.ctypes.data % 64 == 0
        assert copy.flags.c_contiguous
        np.testing.assert_array_equal(copy, other)


@given(
    shapes=st.lists(st.lists(st.integers(0, 40), max_size=3), max_size=6),
    expected=st.sampled_from([0, 100, 1 << 21]),
)
def test_arrays_of_a_slab_are_zeros_aligned_and_apart(shapes, expected):
    slab = Slab(expected)
    made = [slab.zeros(shape, np.dtype(np.float32)) for shape in shapes]
    for number, (array_, shape) in enumerate(zip(made, shapes, strict=True)):
        assert array_.shape == tuple(shape)
        assert array_.size == 0 or array_.ctypes.data % 64 == 0
        assert array_.flags.c_contiguous
        assert not array_.any()
        array_[...] = number + 1
    for number, array_ in enumerate(made):
        assert (array_ == number + 1).all()
    copy = slab.copy(np.arange(6).reshape(2, 3).T)
    assert copy.flags.c_contiguous
    np.testing.assert_array_equal(copy, np.arange(6).reshape(2, 3).T)


@pytest.mark.parametrize("make", [lambda n: Slab(n).zeros((n,), np.dtype(np.uint8)), array.scratch])
def test_much_memory_asks_for_large_pages_of_its_own(make):
    made = make(1 << 22)
    made[0] = 1
    assert made.ctypes.data % (1 << 21) == 0
    told = Path("/proc/self/smaps")
    if told.exists():
        flags = _flags_at(made.ctypes.data, told.read_text())
        assert "hg" in flags
        assert "sh" not in flags


def _flags_at(address, told):
    """What Linux says of the memory at an address."""
    inside = False
    for line in told.splitlines():
        ends = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if ends:
            inside = int(ends[1], 16) <= address < int(ends[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    return []


def test_impossible_sizes_are_told():
    with pytest.raises(RuntimeFault, match="E0708"):
        empty_aligned((1 << 50,), np.dtype(np.float32))
    with pytest.raises(RuntimeFault, match="E0708"):
        empty_aligned((1 << 62, 8), np.dtype(np.float32))
    with pytest.raises(RuntimeFault, match="E0708"):
        torch_edge().out((1 << 50,), "f32")
    with pytest.raises(RuntimeFault, match="E0708"):
        Slab(0).zeros((1 << 50,), np.dtype(np.float32))


def test_negative_extents_are_told():
    for make in (
        lambda s: empty_aligned(s, np.dtype(np.int8)),
        lambda s: torch_edge().out(s, "i8"),
    ):
        with pytest.raises(RuntimeFault, match=r"E0706.*\(4, -3\)"):
            make((4, -3))


def test_bf16_without_its_library_is_told(monkeypatch):
    numpy_dtype.cache_clear()
    monkeypatch.setattr(array, "ml_dtypes", None)
    with pytest.raises(RuntimeFault, match=r"E0709[\s\S]*ml_dtypes"):
        numpy_dtype("bf16")
    assert storage_dtype("bf16") == np.uint16
    numpy_dtype.cache_clear()


@pytest.mark.parametrize(
    ("value", "dtype", "good"),
    [
        (1, "f32", True), (1.5, "f32", True), (True, "f32", False), (1.5, "i32", False),
        (1, "i8", True), (300, "i8", False), (-1, "u8", False), (True, "bool", True),
        (1, "bool", False), (True, "i32", False), (float("nan"), "f16", True),
    ],
)  # fmt: skip
def test_python_numbers_are_taken_without_loss_of_kind(value, dtype, good):
    if good:
        made = numpy_ready(value, dtype, 0, "x")
        assert made.dtype == numpy_dtype(dtype)
        assert made.shape == ()
    else:
        with pytest.raises(RuntimeFault, match="E0703: input 'x'"):
            numpy_ready(value, dtype, 0, "x")


def test_what_is_ready_is_not_copied():
    a = np.zeros((2, 3), np.float32)
    assert numpy_ready(a, "f32", 2, "x").ctypes.data == a.ctypes.data
    assert numpy_ready(torch.zeros(0), "f32", 1, "x").shape == (0,)


def test_memory_that_cannot_be_shared_is_told():
    class Elsewhere:
        def __dlpack__(self, **options):
            raise BufferError("it is on the moon")

        def __dlpack_device__(self):
            return (2, 0)

    with pytest.raises(RuntimeFault, match="E0702: input 'x'"):
        numpy_ready(Elsewhere(), "f32", 1, "x")
