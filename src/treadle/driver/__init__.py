"""Floor 7, the whole way: from a model to an executable, and from a file back to one."""

from treadle.driver.compile import compile, load  # noqa: A004  (the word that users expect)
from treadle.driver.executable import Executable

__all__ = ["Executable", "compile", "load"]
