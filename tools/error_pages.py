"""Pages of error codes, run: each shows a wrong program, the exact message, and a cure that works.

``python tools/error_pages.py`` checks all pages; with ``--update``, the messages are written anew.
"""

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner, Result

from treadle.base.errors import TreadleError
from treadle.cli import app

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "errors"
MODEL = """\
@graph.function
def main(x: Tensor[(n, 4), f32]) -> (Tensor[(n, 4), f32],):
    y = softmax(x)
    return y
"""
_PAGE = re.compile(
    r"## A wrong program\n\n```(?P<language>python|sh)\n(?P<wrong>.*?)```\n\n"
    r"## The message\n\n```text\n(?P<message>.*?)\n```\n\n"
    r"## The cure\n\n```(?P=language)\n(?P<cure>.*?)```",
    re.DOTALL,
)
_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_MORE = re.compile(r"^   = more: .*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows; the cure goes on where the wrong program stopped."""

    code: str
    language: str
    wrong: str
    message: str
    cure: str


def read_page(path: Path) -> Page | None:
    """The programs of a page, or ``None`` if it has none."""
    found = _PAGE.search(path.read_text(encoding="utf-8"))
    return None if found is None else Page(path.stem, **found.groupdict())


@contextmanager
def _inside(folder: Path) -> Generator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_page(page: Page, folder: Path) -> str:
    """Run the wrong program and the cure in an empty folder; the message of the first.

    Raises:
        AssertionError: when the wrong program is not refused with the page's code, or the cure is.
    """
    with _inside(folder):
        return _run_commands(page) if page.language == "sh" else _run_program(page)


def _run_program(page: Page) -> str:
    names: dict[str, object] = {"__name__": "model"}
    try:
        exec(compile(page.wrong, "model.py", "exec"), names)
    except TreadleError as error:
        if error.code != page.code:
            raise AssertionError(f"{page.code}: the program raises {error}") from error
        message = str(error)
    else:
        raise AssertionError(f"{page.code}: the wrong program is accepted")
    exec(compile(page.cure, "model.py", "exec"), names)
    return _HASH.sub("…", message)


def _run_commands(page: Page) -> str:
    for name in ("model.py", "model.pt2"):
        Path(name).write_text(MODEL)
    refused = _command(page.wrong)
    if refused.exit_code != 1 or not refused.stderr.startswith(f"{page.code}: "):
        raise AssertionError(f"{page.code}: the command says {refused.output}")
    for line in page.cure.splitlines():
        done = _command(line)
        if done.exit_code != 0:
            raise AssertionError(f"{page.code}: the cure '{line}' says {done.output}")
    return _MORE.sub("", refused.stderr).rstrip("\n")


def _command(line: str) -> Result:
    program, *arguments = shlex.split(line)
    if program != "treadle":
        raise AssertionError(f"'{line}' is no command of Treadle")
    return CliRunner().invoke(app, arguments)


def main(arguments: Sequence[str]) -> int:
    """Check (or with ``--update``, mend) the messages of all pages; return the exit status."""
    stale = 0
    for path in sorted(FOLDER.glob("E*.md")):
        page = read_page(path)
        if page is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            message = run_page(page, Path(folder))
        if message != page.message:
            stale += 1
            print(f"{path.stem}: the message has changed")
            if "--update" in arguments:
                text = path.read_text(encoding="utf-8")
                path.write_text(text.replace(page.message, message), encoding="utf-8")
    return 1 if stale and "--update" not in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
