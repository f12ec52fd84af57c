"""16-bit floats convert exactly as NumPy does, with the CPU's instructions and without."""

import numpy as np
import pytest

from treadle.expr.dtype import DType, bf16, f16, f32, f64, i64
from treadle.expr.scalar import Var, apply, cast, const
from treadle.ir.tensor import Buffer, For, Load, Store, TensorFunction
from treadle.target import Target

LANES = 8


def convert(
    run_kernel, values: np.ndarray, source: DType, result: DType, target: Target
) -> np.ndarray:
    x, y, i = Buffer("X", (len(values),), source), Buffer("Y", (len(values),), result), Var("i")
    at = apply("ramp", i * LANES, const(1), dtype=i64.vector(LANES))
    store = Store(y, (at,), cast(Load(x, (at,)), result.vector(LANES)))
    got = np.zeros(len(values), result.numpy)
    function = TensorFunction("k", (x, y), 1, (For(i, const(len(values) // LANES), (store,)),))
    run_kernel(function, values, got, target=target)
    return got


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "native"])
@pytest.mark.parametrize("half", [f16, bf16], ids=str)
def test_every_half_widens_exactly(run_kernel, half: DType, name: str):
    values = np.arange(1 << 16, dtype=np.uint16).view(half.numpy)
    got = convert(run_kernel, values, half, f32, Target.parse(name))
    np.testing.assert_array_equal(got, values.astype(np.float32))


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "native"])
@pytest.mark.parametrize("half", [f16, bf16], ids=str)
@pytest.mark.parametrize("source", [f32, f64], ids=str)
def test_floats_round_to_the_nearest_half(run_kernel, source: DType, half: DType, name: str):
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        exact = np.arange(1 << 16, dtype=np.uint16).view(half.numpy).astype(source.numpy)
        steps = rng.choice([0.5, 0.25, 0.75, 0.5 + 1e-9, 1e-30], exact.size).astype(source.numpy)
        near = exact + (np.roll(exact, -1) - exact) * steps
        bits = rng.integers(0, 1 << 32, 1 << 16, np.uint32).view(np.float32).astype(source.numpy)
        values = np.concatenate([exact, near, bits, [65519.999, 65520, -65520, 65504]]).astype(
            source.numpy
        )
        values = np.resize(values, -(-values.size // LANES) * LANES)
        expected = values.astype(half.numpy)
    got = convert(run_kernel, values, source, half, Target.parse(name))
    both_nan = np.isnan(got.astype(np.float32)) & np.isnan(expected.astype(np.float32))
    same = (got.view(np.uint16) == expected.view(np.uint16)) | both_nan
    wrong = np.flatnonzero(~same)[:5]
    assert same.all(), (values[wrong], got[wrong], expected[wrong])
