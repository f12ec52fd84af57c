"""What a user can say about a compilation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from treadle.base.cache import NO_CACHE, DiskCache
from treadle.base.errors import OptionError
from treadle.base.options import read_environment
from treadle.target import Target
from treadle_runtime.threads import available_threads

Numerics = Literal["default", "fast", "strict"]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one compilation, checked.

    ``numerics``: how far results may differ from the reference. ``default``: up to rounding and the
    order of sums. ``strict``: sums have the order of the loops that define each operation, and no
    product is added without being rounded; elementary functions keep their own bounds of error.
    ``fast``: as ``default``, and algorithms with larger errors where they save time.
    ``threads``: how many threads an executable uses. ``workers``: processes that compile at the
    same time. ``cache``: schedules and objects of earlier runs. ``dump``: folder that receives the
    module after each pass, or ``None``. ``verify``: check the program after each pass.
    ``static_memory``: the arena has a constant size, for the upper bounds of all symbols.
    """

    target: Target
    numerics: Numerics
    threads: int
    workers: int
    cache: DiskCache
    dump: Path | None
    verify: bool = False
    static_memory: bool = False

    @property
    def strict(self) -> bool:
        """Whether results may depend on no choice of the compiler's."""
        return self.numerics == "strict"

    @property
    def fast(self) -> bool:
        """Whether algorithms may be used that change more than rounding."""
        return self.numerics == "fast"


def make_options(
    target: str | Target,
    numerics: str,
    threads: int | None,
    cache: bool,
    *,
    static_memory: bool = False,
) -> Options:
    """Check what the user said and fill in the rest from the machine and the environment.

    Raises:
        OptionError: E0830 for a numerics mode that does not exist, E0831 for a number of threads
            below one; what ``Target.parse`` says of the target.
    """
    modes = get_args(Numerics)
    if numerics not in modes:
        raise OptionError(
            "E0830",
            f"there is no numerics mode {numerics!r}",
            help=f"use one of: {', '.join(modes)}",
        )
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise OptionError("E0831", f"threads is {threads!r}", help="use at least one thread")
    environment = read_environment()
    cores = available_threads()
    machine = target if isinstance(target, Target) else Target.parse(target)
    return Options(
        machine,
        numerics,  # type: ignore[arg-type]  (checked above)
        cores if threads is None else threads,
        cores,
        DiskCache(environment.cache) if cache else NO_CACHE,
        environment.dump,
        environment.verify,
        static_memory,
    )
