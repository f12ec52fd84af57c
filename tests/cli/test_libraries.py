"""Libraries on the command line: by name, or from a file of the user's."""

import pytest

MODEL = """\
@graph.function
def main(x: Tensor[(n, 4), f32], w: Tensor[(4, 3), f32]) -> (Tensor[(n, 3), f32],):
    y = matmul(x, w)
    z = relu(y)
    return z
"""
MINE = """\
import numpy as np
from treadle.expr.dtype import f32
from treadle.libraries import Library, Lowering, dims, is_op, leading, tensor
from treadle.ops import Relu

def positive(x, y):
    np.maximum(x, 0, out=y)

(n,) = dims("n")
x, y = tensor(f32, leading(n)), tensor(f32, leading(n))
mine = Library("mine", (Lowering(is_op(Relu, x), y, positive),))
"""


@pytest.fixture
def model(cli):
    cli.model.write_text(MODEL)
    (cli.folder / "mine.py").write_text(MINE)
    return cli.model


def test_inspect_says_what_computes_each_part_and_why(cli, model):
    shown = cli.ok(
        "inspect", model, "--library", "openblas", "--library", f"{cli.folder}/mine.py:mine"
    )
    assert "matmul by openblas.sgemm: priority 1, not measured" in shown
    assert "relu by mine.positive: priority 1, not measured" in shown


@pytest.mark.parametrize("level", ["graph", "loop", "llvm"])
def test_inspect_shows_a_program_with_its_calls(cli, model, level):
    plain = cli.ok("inspect", model, "--level", level)
    with_library = cli.ok("inspect", model, "--level", level, "--library", "openblas")
    assert with_library != plain
    assert ("openblas.sgemm" in with_library) == (level != "llvm")


def test_an_artifact_of_a_library_is_run_with_it(cli, model):
    path = cli.folder / "model.treadle"
    cli.ok("compile", model, "-o", path, "--library", "openblas")
    assert "E0726" in cli.refused("run", path, "--dim", "n=3")
    assert "(3, 3)" in cli.ok("run", path, "--dim", "n=3", "--library", "openblas")


def test_bench_times_a_model_with_its_libraries(cli, model):
    shown = cli.ok("bench", model, "--dim", "n=3", "--runs", 1, "--library", "openblas")
    assert "Treadle" in shown


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("blas", "there is openblas"),
        ("{folder}/none.py:mine", "there is no file"),
        ("{folder}/mine.py:yours", "'yours' is no Library"),
        ("{folder}/broken.py:mine", "ModuleNotFoundError"),
    ],
)
def test_what_is_no_library_is_refused(cli, model, name, why):
    (cli.folder / "broken.py").write_text("import no_such_module")
    said = cli.refused("inspect", model, "--library", name.format(folder=cli.folder))
    assert "E0849" in said
    assert why in said
