"""Options that come from the environment: the only place that reads it."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Environment:
    """What the environment says.

    ``dump``: folder that receives the module after each pass that changed it (``TREADLE_DUMP``).
    ``cache``: folder of compiled objects (``TREADLE_CACHE``; default ``~/.cache/treadle``);
    ``None`` when set to "off". ``verify``: check the program and deduce its types again after each
    pass (``TREADLE_VERIFY=1``).
    """

    dump: Path | None
    cache: Path | None
    verify: bool


def read_environment() -> Environment:
    """Read the environment as it is now; nothing is kept."""
    dump = os.environ.get("TREADLE_DUMP")
    cache = os.environ.get("TREADLE_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "treadle"
    folder = None if cache == "off" else Path(cache).expanduser() if cache else home
    verify = os.environ.get("TREADLE_VERIFY", "0") not in ("", "0")
    return Environment(Path(dump) if dump else None, folder, verify)
