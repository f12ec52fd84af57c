"""Every Python block of the documentation runs, page by page, and so does every command of ours."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from treadle.cli import app

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages():
    """The pages that have something to run; those of errors have a test of their own."""
    docs = [p for p in (ROOT / "docs").rglob("*.md") if p.parent.name != "errors"]
    found = [*sorted(ROOT.glob("*.md")), *sorted(docs)]
    return [p for p in found if any(runnable(*block) for block in blocks(p))]


def blocks(page):
    return FENCE.findall(page.read_text())


def runnable(language, text):
    return language == "python" or (language == "sh" and commands(text))


def commands(text):
    return [line for line in text.splitlines() if line.startswith("treadle ")]


def test_readme_is_among_the_pages():
    assert ROOT / "README.md" in pages()


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page.name, "exec"), names)
        elif language == "sh":
            for line in commands(text):
                result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
                assert result.exit_code == 0, f"{line}\n{result.output}{result.exception!r}"
