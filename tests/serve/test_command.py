"""What ``treadle serve`` refuses, and what it leaves alone until it is needed."""

import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from treadle.cli import app


def refused(*arguments):
    """The standard error of a command that must end with a user's error."""
    result = CliRunner().invoke(app, ["serve", *map(str, arguments)])
    assert result.exit_code == 1, result.output + repr(result.exception)
    return result.stderr


def test_a_port_that_is_taken_is_noticed_before_the_model_is_read():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused("nowhere", "--port", taken.getsockname()[1])
    assert said.startswith("E0864: cannot listen at 127.0.0.1")


def test_a_folder_that_is_none_is_refused(tmp_path):
    assert refused(tmp_path / "nowhere", "--port", 0).startswith("E09")


def test_limits_and_keys_are_checked(tmp_path):
    assert refused(tmp_path, "--running", 0).startswith("E0860")
    empty = tmp_path / "key"
    empty.write_text("\n")
    assert refused(tmp_path, "--api-key-file", empty).startswith("E0863")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "uvicorn" else object()
    )
    said = refused(tmp_path)
    assert said.startswith("E0862: a server needs uvicorn\n")
    assert "pip install 'treadle[language,serve]'" in said


@pytest.mark.parametrize("module", ["treadle", "treadle.cli"])
def test_the_packages_of_the_server_are_loaded_by_it_alone(module):
    check = (
        f"import sys, {module}; print({{'pydantic', 'starlette', 'uvicorn'}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
