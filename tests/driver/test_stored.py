"""A loaded executable leaves its plain weights in the file, and finds them there again."""

import numpy as np
import pytest

import treadle
from treadle.ir.parser import parse
from treadle.ops import OPS_BY_NAME

TEXT = """
w = constant(Tensor[(96, 64), f32])
b = constant(Tensor[(2,), f32], [1.0, 2.0])

@graph.function
def main(x: Tensor[(n, 96), f32]) -> (Tensor[(n, 64), f32], Tensor[(2,), f32]):
    y = matmul(x, constants.w)
    z = neg(constants.b)
    return y, z
"""


@pytest.fixture
def saved(tmp_path):
    weight = np.random.default_rng(0).standard_normal((96, 64)).astype(np.float32)
    module = parse(TEXT, OPS_BY_NAME, {"w": weight})
    exe = treadle.compile(module, threads=1)
    exe.save(tmp_path / "model.treadle")
    return exe, tmp_path / "model.treadle"


def test_what_is_loaded_prints_saves_and_computes_as_what_was_saved(saved, tmp_path):
    exe, path = saved
    loaded = treadle.load(path, threads=1)
    assert str(loaded.module) == str(exe.module)
    for name, constant in exe.module.constants.items():
        np.testing.assert_array_equal(loaded.module.constants[name].array, constant.array)
    again = tmp_path / "again.treadle"
    loaded.save(again)
    x = np.ones((3, 96), np.float32)
    for one, other in zip(exe(x), treadle.load(again, threads=1)(x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_call_needs_no_file_and_saving_without_it_is_an_error_of_ours(saved, tmp_path):
    _, path = saved
    loaded = treadle.load(path, threads=1)
    path.unlink()
    assert loaded(np.ones((1, 96), np.float32))[0].shape == (1, 64)
    with pytest.raises(treadle.TreadleError, match="E0711"):
        loaded.save(tmp_path / "other.treadle")
    assert not (tmp_path / "other.treadle").exists()
