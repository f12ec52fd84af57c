"""Packed operands by way of the caches: chunks of a reduction, and panels asked for beforehand."""

from dataclasses import replace

import numpy as np
import pytest

from treadle.expr.dtype import f32
from treadle.ir.interpret import run_tensor
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops.contraction import Matmul
from treadle.ops.convolution import Conv
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.default import default_schedule

SMALL = replace(Target.parse("x86-64-v4"), l2_bytes=8 << 10)
"""A machine whose cache is full soon."""


def scheduled(
    function: TensorFunction, weight: str, target: Target = SMALL, threads: int = 1
) -> TensorFunction:
    constants = frozenset(b for b in function.buffers if b.name == weight)
    found = default_schedule(function, target, threads, constants).function
    verify_tensor_function(found)
    return found


def test_a_panel_that_crowds_the_cache_is_used_in_chunks():
    function = Matmul().lower(tensor((64, 300), f32), tensor((300, 64), f32))
    text = str(scheduled(function, "B"))
    assert "Y0_load" in text or "Y_load" in text
    assert "prefetch(B[" in text


@pytest.mark.parametrize(("m", "k"), [(64, 300), (256, 30)])
def test_threads_share_panels_that_are_asked_for(m, k):
    function = Matmul().lower(tensor((m, k), f32), tensor((k, 640), f32))
    text = str(scheduled(function, "B", threads=2))
    assert "prefetch(B[" in text
    assert "in parallel(" in text
    assert "in vectorized(" in text


def test_groups_of_one_panel_each_are_asked_for_group_by_group():
    op = Conv((1, 1), ((0, 0), (0, 0)), (1, 1), 4)
    function = op.lower(tensor((1, 128, 6, 16), f32), tensor((256, 32, 3, 3), f32))
    assert "prefetch(W[" in str(scheduled(function, "W"))


def test_what_is_packed_where_it_is_used_is_not_asked_for():
    function = Matmul().lower(tensor((2, 64, 90), f32), tensor((2, 90, 64), f32))
    assert "prefetch(" not in str(scheduled(function, "none"))


def test_a_panel_that_stays_near_is_used_whole():
    function = Matmul().lower(tensor((64, 300), f32), tensor((300, 64), f32))
    text = str(scheduled(function, "B", Target.parse("x86-64-v4")))
    assert "_load" not in text
    assert "prefetch(" not in text


def test_what_few_rows_use_is_left_to_the_machine():
    function = Matmul().lower(tensor((2, 300), f32), tensor((300, 64), f32))
    assert "prefetch(" not in str(scheduled(function, "B"))


@pytest.mark.parametrize("shape", [(40, 131, 70), (25, 128, 64), (64, 300, 17)])
def test_products_in_chunks_are_the_products(shape):
    m, k, n = shape
    function = Matmul().lower(tensor((m, k), f32), tensor((k, n), f32))
    rng = np.random.default_rng(0)
    a = rng.integers(-3, 4, (m, k)).astype(np.float32)
    b = rng.integers(-3, 4, (k, n)).astype(np.float32)
    found = scheduled(function, "B")
    packed = next(x for x in found.buffers if x.name == "B")
    width = int(str(packed.shape[-1]))
    panels = -(-n // width)
    wide = np.zeros((k, panels * width), np.float32)
    wide[:, :n] = b
    laid = np.ascontiguousarray(wide.reshape(k, panels, width).transpose(1, 0, 2))
    low = lower_loops(found)
    (y,) = run_tensor(low, [a, laid], out_shapes=[(m, n)])
    np.testing.assert_array_equal(y.reshape(m, n), a @ b)


def test_convolutions_in_chunks_leave_out_the_border():
    op = Conv((1, 1), ((0, 0),) * 2, (1, 1), 1, ((1, 1), (1, 1)))
    s = Schedule(op.lower(tensor((1, 40, 9, 9), f32), tensor((64, 40, 3, 3), f32)))
    for name in ("X", s.function.buffers[-1].name):
        s.transform_layout(name, lambda n, c, h, w: (n, h, w, c))
    found = scheduled(s.function, "W", replace(SMALL, l2_bytes=64 << 10))
    assert "Y0_load" in str(found)
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (1, 9, 9, 40)).astype(np.float32)
    x[:, [0, -1]] = x[:, :, [0, -1]] = 0
    w = rng.integers(-3, 4, (64, 40, 3, 3)).astype(np.float32)
    packed = np.ascontiguousarray(w.transpose(1, 2, 3, 0))[None]
    (y,) = run_tensor(lower_loops(found), [x, packed], out_shapes=[(1, 7, 7, 64)])
    wanted = op.reference(x.transpose(0, 3, 1, 2), w).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(y.reshape(wanted.shape), wanted)
