from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from treadle.cli import app

TEXT = """\
w = constant(Tensor[(4,), f32], [1.0, 2.0, 3.0, 4.0])

@graph.function
def main(x: Tensor[(n, 4), f32]) -> (Tensor[(n, 4), f32],):
    y = mul(x, constants.w)
    z = softmax(y)
    return z
"""


class Cli:
    """The command line, run in a folder of its own on one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "scaled.py"
        self.model.write_text(TEXT)

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments])

    def ok(self, *arguments: object) -> str:
        """The standard output of a command that must succeed."""
        result = self(*arguments)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result.stdout

    def refused(self, *arguments: object) -> str:
        """The standard error of a command that must end with a user's error."""
        result = self(*arguments)
        assert result.exit_code == 1, result.output + repr(result.exception)
        assert "Traceback" not in result.output
        return result.stderr


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path)
