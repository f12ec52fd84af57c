"""``treadle explain``: the page of an error code."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from treadle.base.errors import OptionError
from treadle.cli.report import out

_PACKAGE = Path(__file__).resolve().parents[1]


def page_folder() -> Path:
    """Where the pages are: inside the installed package, or in the checkout that it runs from."""
    installed = _PACKAGE / "_errors"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "docs" / "errors"


def page_of(code: str) -> str:
    """The page of an error code, in Markdown.

    Raises:
        OptionError: E0845 if there is no such code.
    """
    wanted = code.strip().upper()
    pages = {path.stem: path for path in page_folder().glob("E*.md")}
    if wanted not in pages:
        near = [name for name in sorted(pages) if name.startswith(wanted[:3])]
        raise OptionError(
            "E0845",
            f"there is no error code '{code}'",
            notes=(f"codes that begin like it: {', '.join(near)}",) if near else (),
            help="pass the code that the message begins with, such as E0301",
        )
    return pages[wanted].read_text(encoding="utf-8")


def explain(code: Annotated[str, typer.Argument(metavar="CODE", help="Such as E0703.")]) -> None:
    """Say what an error CODE means, show a program that raises it, and the cure."""
    console = out()
    page = page_of(code)
    if console.is_terminal:
        console.print(Markdown(page))
    else:
        typer.echo(page.rstrip())
