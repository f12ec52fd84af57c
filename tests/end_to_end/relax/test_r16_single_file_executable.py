"""A compiled program is one file, which runs in a process that has nothing else of it (Relax, arXiv
2311.02103, §4.7).
"""

import subprocess
import sys
import zipfile

import numpy as np

import treadle
from treadle.testing import ir

MODEL = """
w = constant(Tensor[(8, 4), f32])

@graph.function
def main(x: Tensor[(n, 8), f32]) -> (Tensor[(n, 4), f32],):
    y = matmul(x, constants.w)
    z = softmax(y, axis=-1)
    return z
"""
SCRIPT = """
import sys
import numpy as np
import treadle

exe = treadle.load(sys.argv[1], threads=1)
x = np.load(sys.argv[2])
np.save(sys.argv[3], exe(x))
"""


def test_one_file_holds_the_program_and_runs_in_another_process(tmp_path):
    w = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
    exe = treadle.compile(ir(MODEL, {"w": w}), threads=1)
    exe.save(tmp_path / "model.treadle")
    assert [p.name for p in tmp_path.iterdir()] == ["model.treadle"]
    with zipfile.ZipFile(tmp_path / "model.treadle") as archive:
        assert archive.testzip() is None
    x = np.ones((5, 8), np.float32)
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-c", SCRIPT]
    paths = [str(tmp_path / name) for name in ("model.treadle", "x.npy", "y.npy")]
    subprocess.run([*command, *paths], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), exe(x))


def test_the_host_function_is_native_code_that_branches_and_loops(both):
    text = """
@graph.function
def more(i: Tensor[(), i64], x: Tensor[(n,), f32]) -> (Tensor[(), bool],):
    y = less(i, i64(5))
    return y

@graph.function
def step(i: Tensor[(), i64], x: Tensor[(n,), f32]) -> (Tensor[(), i64], Tensor[(n,), f32]):
    j = add(i, i64(1))
    odd = equal(bitwise_and(i, i64(1)), i64(1))
    y = cond(odd, x, then=doubled, orelse=moved)
    return j, y

@graph.function
def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    i, y = while_loop(i64(0), x, condition=more, body=step, carried=2)
    return y
"""
    branches = """
@graph.function
def doubled(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    y = add(x, x)
    return y

@graph.function
def moved(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    y = add(x, f32(1.0))
    return y
"""
    text = text.replace(
        "    odd = equal(bitwise_and(i, i64(1)), i64(1))\n",
        "    bit = bitwise_and(i, i64(1))\n    odd = equal(bit, i64(1))\n",
    )
    (y,) = both(branches + text, np.zeros(3, np.float32))
    np.testing.assert_array_equal(y, np.full(3, 7, np.float32))
