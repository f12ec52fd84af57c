"""Windows over single images: rows in lanes, borders near, and what the reference says."""

import numpy as np
import pytest

from treadle.driver import compile as compile_module
from treadle.expr.dtype import f32
from treadle.expr.scalar import Var
from treadle.ir.analysis import accesses, blocks
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.module import Module
from treadle.ir.types import tensor
from treadle.ops.activation import Relu
from treadle.ops.convolution import Conv
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.window_schedule import schedule_windows


def depthwise(channels: int, kernel: tuple[int, ...], stride: int, pad: int, dilation: int = 1):
    rank = len(kernel)
    pads = ((pad, pad),) * rank
    return Conv((stride,) * rank, pads, (dilation,) * rank, channels), (channels, 1, *kernel)


def scheduled(op: Conv, x: tuple[int | Var, ...], w: tuple[int, ...]) -> tuple[bool, Schedule]:
    s = Schedule(op.lower(tensor(x, f32), tensor(w, f32)))
    name = next(b.name for b in blocks(s.function) if b.init)
    return schedule_windows(s, name, Target.parse("x86-64-v4"), 2), s


CASES = [
    ((1, 5, 7, 7), (3, 3), 1, 1, 1),
    ((2, 5, 14, 14), (3, 3), 2, 1, 1),
    ((1, 3, 30, 37), (3, 3), 1, 1, 1),
    ((2, 3, 31, 40), (3, 3), 2, 1, 1),
    ((1, 2, 9, 80), (3, 3), 2, 1, 1),
    ((1, 2, 9, 97), (3, 5), 3, 1, 1),
    ((1, 3, 20, 33), (5, 5), 1, 2, 1),
    ((1, 4, 9, 16), (5, 3), 2, 2, 1),
    ((1, 4, 12, 19), (3, 3), 1, 2, 2),
    ((1, 3, 8, 8), (2, 2), 2, 0, 1),
    ((1, 2, 5, 6, 18), (3, 3, 3), 1, 1, 1),
]


def agrees(case, *, symbolic: bool, threads: int) -> None:
    shape, kernel, stride, pad, dilation = case
    op, weight = depthwise(shape[1], kernel, stride, pad, dilation)
    random = np.random.default_rng(3)
    x, w, bias = (random.uniform(-1, 1, s).astype(np.float32) for s in (shape, weight, shape[1:2]))
    sizes = (Var("n"), shape[1], *(Var(f"d{k}") for k in range(len(kernel))))
    b = GraphBuilder("main")
    given = b.input("x", tensor(sizes if symbolic else shape, f32))
    y = Relu()(op(given, b.constant("w", w), b.constant("bias", bias)))
    exe = compile_module(Module({"main": b.finish(y)}, dict(b.constants)), threads=threads)
    np.testing.assert_allclose(exe(x), np.maximum(op.reference(x, w, bias), 0), atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_depthwise_convolutions_agree_with_the_reference(case):
    agrees(case, symbolic=False, threads=2)


@pytest.mark.parametrize("case", CASES[2:4], ids=str)
def test_so_do_those_of_images_of_any_size(case):
    agrees(case, symbolic=True, threads=1)


@pytest.mark.parametrize("size", [7, 14, 30])
def test_borders_that_a_producer_adds_are_taken_as_they_are(size):
    op, weight = depthwise(3, (3, 3), 1, 1)
    random = np.random.default_rng(4)
    x, v, w = (
        random.uniform(-1, 1, s).astype(np.float32) for s in ((1, 3, size, size), weight, weight)
    )
    b = GraphBuilder("main")
    y = op(Relu()(b.input("x", tensor(x.shape, f32))), b.constant("v", v))
    exe = compile_module(Module({"main": b.finish(op(y, b.constant("w", w)))}, dict(b.constants)))
    wanted = op.reference(op.reference(np.maximum(x, 0), v), w)
    np.testing.assert_allclose(exe(x), wanted, atol=1e-5)


def test_what_windows_apart_make_a_vector_of_lies_side_by_side():
    op, weight = depthwise(2, (3, 3), 2, 1)
    applied, s = scheduled(op, (1, 2, 40, 80), weight)
    assert applied
    (padded,) = {a.buffer for a in accesses(s.function.body) if a.buffer.name.startswith("X_pad")}
    assert [str(d) for d in padded.shape] == ["1", "2", "42", "2", "41"]
    assert "in vectorized(8)" in str(s.function)


def test_what_lies_in_the_border_of_a_small_image_is_not_copied():
    op, weight = depthwise(8, (3, 3), 1, 1)
    applied, s = scheduled(op, (1, 8, 7, 7), weight)
    assert applied
    assert "X_padded" not in str(s.function)


def test_the_border_of_a_large_image_is_added_for_one_image_at_a_time():
    op, weight = depthwise(8, (3, 3), 1, 1)
    applied, s = scheduled(op, (1, 8, 40, 40), weight)
    text = str(s.function)
    assert applied
    assert text.index("parallel(8)") < text.index('block("X_padded_pad")')


@pytest.mark.parametrize(
    ("op", "x", "w"),
    [
        (Conv((1, 1), ((1, 1),) * 2, (1, 1)), (1, 4, 9, 9), (6, 4, 3, 3)),
        (Conv((1, 1), ((0, 0),) * 2, (1, 1)), (1, 4, 9, 9), (6, 4, 1, 1)),
        (*depthwise(4, (3, 3), 5, 1)[:1], (1, 4, 30, 30), (4, 1, 3, 3)),
        (*depthwise(4, (9, 9), 1, 4)[:1], (1, 4, 30, 30), (4, 1, 9, 9)),
    ],
    ids=["products of channels", "one tap", "lanes far apart", "many taps"],
)
def test_other_contractions_stay_as_they_are(op, x, w):
    applied, s = scheduled(op, x, w)
    assert not applied
    assert not s.trace
