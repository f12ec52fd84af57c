"""Libraries by name, as the commands take them."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from treadle.base.errors import OptionError
from treadle.libraries import Library, openblas

_SHIPPED = {"openblas": openblas}


def libraries_called(names: Sequence[str] | None) -> list[Library]:
    """The libraries that a user names: ``openblas``, or ``FILE.py:NAME`` for a ``Library`` of the
    user's own, whose file is run.

    Raises:
        OptionError: E0849 for a name that is neither, and for a file without such a library; what
            the file itself says of its libraries.
    """
    return [_SHIPPED[n]() if n in _SHIPPED else _from_file(n) for n in names or ()]


def _from_file(text: str) -> Library:
    file, colon, name = text.rpartition(":")
    path = Path(file)
    if not colon or path.suffix != ".py":
        known = ", ".join(_SHIPPED)
        raise _unknown(text, f"there is {known}, and libraries of your own as FILE.py:NAME")
    if not path.is_file():
        raise _unknown(text, f"there is no file '{path}'")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise _unknown(text, f"'{path}' cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, NameError) as error:
        raise _unknown(text, f"{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    found = getattr(module, name, None)
    if not isinstance(found, Library):
        raise _unknown(text, f"'{name}' is no Library in '{path}'")
    return found


def _unknown(text: str, why: str) -> OptionError:
    return OptionError(
        "E0849",
        f"there is no library '{text}'",
        notes=(why,),
        help="use --library openblas, or --library FILE.py:NAME",
    )
