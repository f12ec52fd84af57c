"""Treadle compiles machine-learning models from PyTorch and ONNX to fast programs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.base.errors import InternalError, TreadleError
    from treadle.driver import Executable, compile, load  # noqa: A004

__version__ = "0.1.0"

__all__ = ["Executable", "InternalError", "TreadleError", "__version__", "compile", "load"]

# Each name is loaded when it is first asked for: `import treadle` costs next to nothing.
_HOMES = {
    "Executable": "treadle.driver",
    "InternalError": "treadle.base.errors",
    "TreadleError": "treadle.base.errors",
    "compile": "treadle.driver",
    "load": "treadle.driver",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (whatever the name stands for)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'treadle' has no attribute '{name}'")
    return getattr(import_module(home), name)
