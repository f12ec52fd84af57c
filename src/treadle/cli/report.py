"""How the command line speaks: results to standard output, errors in colour to standard error."""

import re

from rich.console import Console
from rich.text import Text

from treadle.base.errors import InternalError, TreadleError
from treadle.driver.executable import Executable

_CODE = re.compile(r"^(E\d{4}):", re.MULTILINE)
_MARK = re.compile(r"^ +\| +(\^+)", re.MULTILINE)


def out() -> Console:
    """Standard output as it is now; lines are not folded where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True)


def print_approximations(console: Console, exe: Executable) -> None:
    """What ``numerics="fast"`` computes by other algorithms, a line each."""
    for found in exe.approximations:
        console.print(f"  {found}", markup=False)


def print_library_choices(console: Console, exe: Executable) -> None:
    """What computes the parts that a library could, a line each."""
    for choice in exe.library_choices:
        console.print(f"  {choice}", markup=False)


def err() -> Console:
    """Standard error as it is now."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def error_text(error: TreadleError | InternalError) -> Text:
    """The rendered message with its parts in colour."""
    text = Text(str(error))
    if isinstance(error, InternalError):
        text.highlight_words(["internal error:", "= help:"], "bold red")
        return text
    text.highlight_regex(_CODE, "bold red")
    text.highlight_regex(r"(?m)^  -->.*$", "blue")
    text.highlight_regex(_MARK, "red")
    text.highlight_regex(r"(?m)^   = note:", "cyan")
    text.highlight_regex(r"(?m)^   = help:", "bold green")
    return text


def print_error(error: TreadleError | InternalError) -> None:
    """Print an error for the user, without a traceback."""
    console = err()
    console.print(error_text(error))
    if isinstance(error, TreadleError):
        console.print(f"   = more: treadle explain {error.code}", style="dim")
