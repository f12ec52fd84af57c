"""Values between kernels lie as suits the kernels; what the whole computes stays."""

import numpy as np
import pytest

import treadle
from treadle.expr.dtype import f32
from treadle.expr.scalar import Var
from treadle.ir.calls import CallTensor
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ir.types import TensorType, tensor
from treadle.ir.verify import verify
from treadle.ops import Add, AvgPool, Conv, MaxPool, Mean, Mul, Relu, Sigmoid
from treadle.passes.drop_unused import drop_unused
from treadle.passes.fuse import fuse
from treadle.passes.legalize import decompose, legalize
from treadle.passes.restore_views import restore_views
from treadle.passes.separate_padding import separate_padding
from treadle.target import Target
from treadle.tune.collapse_axes import collapse_axes, collapsed
from treadle.tune.layouts import assign_layouts, channels_last

TARGET = Target.parse("x86-64-v4")
SAME = ((1, 1), (1, 1))


class Network:
    """A convolutional network in small: what is connected in the ways that occur."""

    def __init__(self, channels: int, size: int, batch: int | str = 1) -> None:
        self.b = GraphBuilder("main")
        self.rng = np.random.default_rng(0)
        self.count = 0
        n = Var(batch) if isinstance(batch, str) else batch
        self.x = self.b.input("x", tensor([n, 3, size, size], f32))
        c = channels
        stem = Relu()(self.conv(self.x, 3, c, 3, stride=2))
        pooled = MaxPool((3, 3), (2, 2), SAME, (1, 1))(stem)
        left = Relu()(self.conv(pooled, c, c, 3))
        right = self.conv(left, c, c, 3)
        summed = Relu()(Add()(right, pooled))
        wide = Relu()(self.conv(summed, c, 2 * c, 1))
        deep = Relu()(self.conv(wide, 2 * c, 2 * c, 3, groups=2 * c))
        grouped = self.conv(deep, 2 * c, 2 * c, 3, groups=2)
        squeezed = Mean((2, 3), keepdims=True)(grouped)
        gate = Sigmoid()(self.conv(squeezed, 2 * c, 2 * c, 1))
        gated = Mul()(grouped, gate)
        self.result = AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)))(gated)

    def conv(self, x, c, o, k, *, stride=1, groups=1):
        self.count += 1
        shape = (o, c // groups, k, k)
        weight = self.rng.standard_normal(shape).astype(np.float32) / (c * k * k) ** 0.5
        w = self.b.constant(f"w{self.count}", weight)
        pads = ((k // 2, k // 2),) * 2
        return Conv((stride, stride), pads, (1, 1), groups)(x, w)

    def module(self) -> Module:
        return Module({"main": self.b.finish(self.result)}, self.b.constants)


def at_loops(module: Module) -> Module:
    return restore_views(fuse(legalize(separate_padding(decompose(module)))))


def shapes(module: Module) -> dict[str, tuple[str, ...]]:
    return {
        v.name: tuple(str(d) for d in v.type.dims)
        for b in module.graph("main").body
        if isinstance(b.op, CallTensor)
        for v in b.outputs
        if isinstance(v.type, TensorType)
    }


def test_channels_of_a_convolutional_network_come_last():
    module = at_loops(Network(32, 32).module())
    moved = drop_unused(assign_layouts(module, target=TARGET))
    verify(moved)
    before, after = shapes(module), shapes(moved)
    changed = {name for name in before if after[name] != before[name]}
    images = {name for name, dims in before.items() if len(dims) == 4 and "1" not in dims[1:]}
    few = {name for name in images if before[name][1] == "3"}  # do not fill a vector
    assert len(images & changed) >= 6
    assert few
    assert not few & changed
    for name in changed:
        assert after[name] == tuple(before[name][axis] for axis in channels_last(4))


def test_what_leaves_the_function_keeps_its_layout():
    module = at_loops(Network(16, 16).module())
    moved = assign_layouts(module, target=TARGET)
    for f in (module, moved):
        (result,) = f.graph("main").results
        assert tuple(map(str, result.type.dims)) == ("1", "32", "2", "2")


@pytest.mark.parametrize(("channels", "size"), [(16, 16), (5, 13), (1, 9), (24, 17)])
def test_programs_mean_the_same_in_other_layouts(channels, size):
    module = at_loops(Network(channels, size).module())
    x = np.random.default_rng(1).standard_normal((1, 3, size, size)).astype(np.float32)
    moved = collapse_axes(assign_layouts(module, target=TARGET))
    verify(moved)
    for a, b in zip(run(module, "main", x), run(moved, "main", x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("channels", "size", "batch"), [(16, 32, 1), (7, 19, 2), (33, 23, "n"), (2, 11, "n")]
)
def test_compiled_networks_agree_with_the_interpreter(channels, size, batch, threads):
    module = Network(channels, size, batch).module()
    exe = treadle.compile(module, threads=threads)
    rng = np.random.default_rng(2)
    for n in (1, 3) if isinstance(batch, str) else (batch,):
        x = rng.standard_normal((n, 3, size, size)).astype(np.float32)
        (expected,) = run(module, "main", x)
        np.testing.assert_allclose(exe(x), expected, rtol=2e-4, atol=1e-5)


def test_axes_that_are_walked_together_become_one():
    op = Relu()
    function = op.lower(tensor([4, 6, 5, 7], f32))
    assert function is not None
    narrow = collapsed(function)
    assert [b.ndim for b in narrow.function.buffers] == [1, 1]
    verify(Module({narrow.function.name: narrow.function}))


def test_axes_that_windows_slide_along_stay_apart():
    function = MaxPool((3, 3), (2, 2), ((0, 0), (0, 0)), (1, 1)).lower(tensor([2, 6, 9, 9], f32))
    assert function is not None
    assert [b.shape[-2:] for b in collapsed(function).function.buffers] == [
        b.shape[-2:] for b in function.buffers
    ]


@pytest.mark.parametrize("shape", [(0, 2, 4), (3, 0, 2), (1, 1, 1), (2, 1, 3)])
def test_empty_and_single_dimensions_collapse_too(shape):
    b = GraphBuilder("main")
    x = b.input("x", tensor(list(shape), f32))
    module = Module({"main": b.finish(Relu()(x))}, b.constants)
    narrow = collapse_axes(fuse(legalize(module)))
    verify(narrow)
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (found,) = run(narrow, "main", array)
    np.testing.assert_array_equal(found, np.maximum(array, 0))
