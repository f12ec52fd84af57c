"""Mistakes on the command line: a code, a cure, status 1, no traceback and no file left behind."""

import re

import numpy as np
import pytest

from treadle.base.errors import InternalError
from treadle.cli.app import COMPILER_ERROR

REFUSED = [
    ("E0611", ("run", "missing.onnx")),
    ("E0611", ("run", "missing.pt2")),
    ("E0611", ("compile", "missing.treadle", "-o", "out.treadle")),
    ("E0810", ("compile", "{model}", "--target", "z80")),
    ("E0830", ("compile", "{model}", "--numerics", "approximate")),
    ("E0831", ("compile", "{model}", "--threads", "0")),
    ("E0840", ("run", "{model}", "--dim", "n")),
    ("E0840", ("run", "{model}", "--input", "x=2xn")),
    ("E0841", ("run", "{model}", "missing.npy")),
    ("E0841", ("run", "{model}", "{model}")),
    ("E0842", ("run", "{model}", "--dim", "m=2")),
    ("E0842", ("run", "{model}", "--input", "y=2x4")),
    ("E0843", ("run", "{model}")),
    ("E0844", ("run", "{model}", "--dim", "n=2", "-o", "out.txt")),
    ("E0845", ("explain", "E9999")),
    ("E0846", ("inspect", "{model}", "--function", "tail")),
    ("E0847", ("bench", "{model}", "--dim", "n=2", "--against", "torch")),
    ("E0847", ("bench", "{model}", "--dim", "n=2", "--against", "numpy")),
    ("E0803", ("bench", "{model}", "--dim", "n=2", "--runs", "0")),
    ("E0705", ("run", "{model}", "--input", "x=2x5")),
    ("E0704", ("run", "{model}", "--input", "x=4")),
]


@pytest.mark.parametrize(
    ("code", "arguments"), REFUSED, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_mistake_is_refused_with_its_code_and_cure(cli, code, arguments, monkeypatch):
    monkeypatch.chdir(cli.folder)
    message = cli.refused(*(a.format(model=cli.model) for a in arguments))
    assert message.startswith(f"{code}: ")
    assert "   = help: " in message
    assert f"treadle explain {code}" in message
    assert [p.name for p in cli.folder.iterdir()] == [cli.model.name]


def test_a_wrong_dtype_is_refused(cli):
    np.save(cli.folder / "x.npy", np.zeros((2, 4)))
    assert "E0703: input 'x': expected dtype f32, got f64" in cli.refused(
        "run", cli.model, cli.folder / "x.npy"
    )


def test_a_file_too_many_is_refused(cli):
    np.save(cli.folder / "x.npy", np.zeros((2, 4), np.float32))
    files = (cli.folder / "x.npy",) * 2
    assert "E0842: 2 .npy files are given for 1 inputs" in cli.refused("run", cli.model, *files)


def test_an_output_that_cannot_be_written_is_refused(cli):
    message = cli.refused("compile", cli.model, "-o", cli.folder / "missing" / "out.treadle")
    assert message.startswith("E0710: ")


def test_a_mistake_in_a_text_is_shown_at_its_line(cli):
    cli.model.write_text(cli.model.read_text().replace("softmax", "softmix"))
    message = cli.refused("compile", cli.model)
    assert re.search(r"  --> .*scaled\.py:6:", message)


def test_a_bug_of_the_compiler_asks_for_a_report(cli, monkeypatch):
    def broken(*arguments, **options):
        raise InternalError("impossible")

    monkeypatch.setattr("treadle.cli.models.compile_model", broken)
    result = cli("run", cli.model)
    assert result.exit_code == COMPILER_ERROR
    assert "please report it" in result.stderr
