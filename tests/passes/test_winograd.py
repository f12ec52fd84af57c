"""Winograd's convolution stays within its stated error, and stands only where it was asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
from treadle.base.cache import NO_CACHE
from treadle.driver.build import build
from treadle.driver.executable import Executable
from treadle.driver.options import Options
from treadle.driver.pipelines import graph_pipeline, loop_pipeline
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ops import Conv, WinogradInput, WinogradOutput
from treadle.ops.winograd import MATRICES, kernel_tiles
from treadle.passes.winograd import approximations, measured_error, winograd
from treadle.target import Target
from treadle.testing import ir

# The largest difference from a direct convolution in double precision that F(2x2) and F(4x4) are
# allowed in single precision, in units of the root mean square of the results.
TOLERANCE = {2: 2e-5, 4: 2e-4}
TARGET = Target.parse("x86-64-v4")
NATIVE = Target.native()


def convolution(
    ins: int,
    outs: int,
    size: tuple[object, object] = (12, 12),
    *,
    batch: object = 1,
    pad: int = 1,
    bias: bool = True,
    dtype: str = "f32",
    stride: int = 1,
    dilation: int = 1,
    scale: float = 1.0,
) -> Module:
    rng = np.random.default_rng(ins * 64 + outs)
    kind = {"f32": np.float32, "f64": np.float64}[dtype]
    w = (rng.standard_normal((outs, ins, 3, 3)) * scale).astype(kind)
    b = rng.standard_normal(outs).astype(kind)
    declared = f"w = constant(Tensor[{w.shape}, {dtype}])\nb = constant(Tensor[({outs},), {dtype}])"
    fields = (
        f"stride=({stride}, {stride}), padding=(({pad}, {pad}), ({pad}, {pad})), "
        f"dilation=({dilation}, {dilation})"
    )
    added = ", constants.b" if bias else ""
    after = [
        (d + 2 * pad - 2 * dilation - 1) // stride + 1 if isinstance(d, int) else d for d in size
    ]
    result = f"Tensor[({batch}, {outs}, {after[0]}, {after[1]}), {dtype}]"
    text = f"""
{declared}

@graph.function
def main(x: Tensor[({batch}, {ins}, {size[0]}, {size[1]}), {dtype}]) -> ({result},):
    y = conv(x, constants.w{added}, {fields})
    z = relu(y)
    return z
"""
    return ir(text, {"w": w, "b": b})


def forced(module: Module, tile: int, monkeypatch: pytest.MonkeyPatch, threads: int = 1):
    """An executable whose convolutions have tiles of that size, whatever it costs."""
    with monkeypatch.context() as patch:
        patch.setattr("treadle.passes.winograd._Cost.worthwhile", lambda self: [tile])
        options = Options(NATIVE, "fast", threads, workers=0, cache=NO_CACHE, dump=None)
        graph = graph_pipeline().run(module)
        return Executable(graph, build(graph, options), threads=threads)


def direct(module: Module, x: np.ndarray) -> np.ndarray:
    """The convolution in double precision."""
    weight, bias = (module.constants[n].array.astype(np.float64) for n in ("w", "b"))
    op = next(b.op for b in module.graph("main").body if isinstance(b.op, Conv))
    given_bias = len(module.graph("main").body[0].args) > 2
    operands = (x.astype(np.float64), weight, *((bias,) if given_bias else ()))
    return np.maximum(op.reference(*operands), 0)


def assert_within(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert found.shape == expected.shape
    scale = np.sqrt(np.mean(expected**2)) if expected.size else 1.0
    assert np.abs(found - expected).max(initial=0.0) <= tolerance * scale


def kinds(module: Module) -> list[type]:
    return [type(b.op) for b in module.graph("main").body]


@pytest.mark.parametrize("tile", [2, 4])
def test_the_matrices_compute_a_correlation(tile):
    found = MATRICES[tile]
    data, kernel, result = (np.asarray(m) for m in (found.data, found.kernel, found.result))
    d, g = np.random.default_rng(0).standard_normal((2, tile + 2))
    expected = np.correlate(d, g[:3], "valid")
    np.testing.assert_allclose(result @ ((kernel @ g[:3]) * (data @ d)), expected, atol=1e-12)


@pytest.mark.parametrize("tile", [2, 4])
def test_the_kernel_is_rounded_once(tile):
    w = np.random.default_rng(0).standard_normal((3, 2, 3, 3)).astype(np.float32)
    g = np.asarray(MATRICES[tile].kernel)
    exact = np.einsum("ia,ocab,jb->ijco", g, w.astype(np.float64), g).reshape(-1, 2, 3)
    np.testing.assert_allclose(kernel_tiles(w, tile), exact, rtol=2**-24, atol=1e-16)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize(
    ("ins", "outs", "size"),
    [
        (16, 32, (12, 16)),
        (5, 7, (13, 11)),
        (3, 16, (1, 1)),
        (1, 1, (2, 17)),
        (17, 19, (5, 3)),
        (64, 64, (14, 14)),
    ],
)
def test_it_stays_within_its_tolerance(tile, ins, outs, size, threads, monkeypatch):
    module = convolution(ins, outs, size, batch=2)
    exe = forced(module, tile, monkeypatch, threads)
    assert [a.tile for a in exe.approximations] == [tile]
    x = np.random.default_rng(1).standard_normal((2, ins, *size)).astype(np.float32)
    assert_within(exe(x), direct(module, x), TOLERANCE[tile])


@pytest.mark.parametrize("tile", [2, 4])
def test_double_precision_stays_close(tile, monkeypatch):
    module = convolution(8, 8, (9, 10), dtype="f64")
    exe = forced(module, tile, monkeypatch)
    x = np.random.default_rng(1).standard_normal((1, 8, 9, 10))
    assert_within(exe(x), direct(module, x), 1e-12)


@pytest.mark.parametrize("tile", [2, 4])
def test_batch_and_sizes_may_be_symbolic(tile, monkeypatch):
    module = convolution(6, 10, ("h", "w"), batch="n")
    exe = forced(module, tile, monkeypatch)
    rng = np.random.default_rng(2)
    for shape in [(1, 6, 8, 8), (3, 6, 7, 13), (2, 6, 1, 2), (1, 6, 31, 5)]:
        x = rng.standard_normal(shape).astype(np.float32)
        assert_within(exe(x), direct(module, x), TOLERANCE[tile])


@pytest.mark.parametrize("tile", [2, 4])
def test_an_empty_batch_has_an_empty_result(tile, monkeypatch):
    exe = forced(convolution(6, 10, batch="n"), tile, monkeypatch)
    assert exe(np.zeros((0, 6, 12, 12), np.float32)).shape == (0, 10, 12, 12)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([2, 4]),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 15), st.integers(1, 15)),
    st.integers(1, 9),
    st.integers(0, 2),
    st.booleans(),
)
def test_the_graph_means_the_same(tile, shape, outs, pad, bias):
    batch, ins, *size = shape
    if min(size) + 2 * pad < 3:
        return
    module = convolution(ins, outs, (size[0], size[1]), batch=batch, pad=pad, bias=bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("treadle.passes.winograd._Cost.worthwhile", lambda self: [tile])
        replaced = winograd(graph_pipeline().run(module), target=TARGET)
    assert WinogradInput in kinds(replaced)
    assert WinogradOutput in kinds(replaced)
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    (found,) = run(replaced, "main", x)
    assert_within(found, direct(module, x), TOLERANCE[tile])


@pytest.mark.parametrize("strict", [False, True])
def test_other_modes_keep_their_graph(strict):
    names = [p.name for p in loop_pipeline(TARGET, 1, strict=strict).passes]
    assert "winograd" not in names
    fast = [p.name for p in loop_pipeline(TARGET, 1, fast=True).passes]
    assert fast == ["winograd", *names]


@pytest.mark.parametrize("numerics", ["default", "strict"])
def test_other_modes_compute_the_convolution_as_it_is(numerics):
    module = convolution(64, 64, (56, 56))
    exe = treadle.compile(module, numerics=numerics, threads=1)
    assert exe.approximations == ()
    assert not any("winograd" in name for name in exe.build.module.functions)


@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (1, 2)])
def test_other_strides_and_dilations_are_left(stride, dilation):
    module = convolution(64, 64, (56, 56), stride=stride, dilation=dilation)
    module = graph_pipeline().run(module)
    assert winograd(module, target=TARGET).graph("main") == module.graph("main")
    assert approximations(module, target=TARGET) == ()


def test_large_convolutions_are_replaced_and_small_ones_are_not():
    def chosen(ins: int, outs: int, size: int) -> list[int]:
        module = graph_pipeline().run(convolution(ins, outs, (size, size)))
        return [a.tile for a in approximations(module, target=TARGET)]

    assert chosen(64, 64, 56) == [4]
    assert chosen(128, 128, 28) == [4]
    assert chosen(3, 64, 56) == []
    assert chosen(64, 1, 56) == []
    assert chosen(256, 256, 2) == []


def test_a_weight_that_is_no_constant_is_left():
    module = ir("""
        @graph.function
        def main(
            x: Tensor[(1, 64, 58, 58), f32], w: Tensor[(64, 64, 3, 3), f32]
        ) -> (Tensor[(1, 64, 56, 56), f32],):
            y = conv(x, w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
            return y
    """)
    assert approximations(module, target=TARGET) == ()


def test_tiles_that_would_be_too_wrong_are_not_used(monkeypatch):
    # The results are within the range of single precision, the products of large tiles are not.
    module = graph_pipeline().run(convolution(64, 64, (56, 56), scale=3e36, bias=False))
    assert [a.tile for a in approximations(module, target=TARGET)] == [2]
    monkeypatch.setattr("treadle.passes.winograd._LIMIT", 1.0)
    assert approximations(module, target=TARGET) == ()


def test_larger_tiles_have_larger_errors():
    weight = np.random.default_rng(0).standard_normal((64, 32, 3, 3)).astype(np.float32)
    assert 0 < measured_error(weight, 2) < measured_error(weight, 4) < TOLERANCE[4]
    assert measured_error(np.zeros((4, 4, 3, 3), np.float32), 4) == 0.0


def test_the_error_that_is_said_is_about_the_one_that_is_found(monkeypatch):
    module = convolution(64, 64, (28, 28), bias=False)
    for tile in MATRICES:
        exe = forced(module, tile, monkeypatch)
        (said,) = exe.approximations
        x = np.random.default_rng(5).standard_normal((1, 64, 28, 28)).astype(np.float32)
        expected = direct(module, x)
        found = np.abs(exe(x) - expected).max() / np.sqrt(np.mean(expected**2))
        assert said.error / 4 < found < 4 * said.error
        assert said.name == "y"
        assert f"F({tile}x{tile}, 3x3)" in str(said)


def test_a_saved_model_stays_fast(tmp_path):
    module = convolution(64, 64, (28, 28))
    exe = treadle.compile(module, numerics="fast", threads=1)
    exe.save(tmp_path / "model.treadle")
    again = treadle.load(tmp_path / "model.treadle", threads=1)
    x = np.random.default_rng(5).standard_normal((1, 64, 28, 28)).astype(np.float32)
    assert [str(a.error) for a in again.approximations] == [
        str(a.error) for a in exe.approximations
    ]
    assert again.approximations != ()
    np.testing.assert_array_equal(again(x), exe(x))


@pytest.mark.parametrize("batch", [1, 2, "n"])
def test_what_follows_is_done_to_the_tiles(batch, monkeypatch):
    exe = forced(convolution(16, 16, (14, 14), batch=batch), 4, monkeypatch)
    names = [f.name for f in exe.build.module.tensor_functions]
    assert any(name.startswith("winograd_output_relu") for name in names)
    assert len(exe.entry.calls) == 3


def test_equal_weights_are_transformed_once():
    module = graph_pipeline().run(
        ir(
            """
            w = constant(Tensor[(64, 64, 3, 3), f32])

            @graph.function
            def main(x: Tensor[(1, 64, 60, 60), f32]) -> (Tensor[(1, 64, 56, 56), f32],):
                a = conv(x, constants.w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
                b = conv(a, constants.w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
                return b
            """,
            {"w": np.random.default_rng(0).standard_normal((64, 64, 3, 3)).astype(np.float32)},
        )
    )
    replaced = winograd(module, target=TARGET)
    assert sorted(replaced.constants) == ["w", "w__winograd4"]
    assert kinds(replaced).count(WinogradOutput) == 2
