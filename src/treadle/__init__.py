"""Treadle compiles machine-learning models from PyTorch and ONNX to fast programs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from treadle.base.errors import InternalError, TreadleError

if TYPE_CHECKING:
    from treadle.driver import Executable, compile, load  # noqa: A004

__version__ = "0.1.0"

__all__ = ["Executable", "InternalError", "TreadleError", "__version__", "compile", "load"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  (the compiler is loaded when it is first asked for)
    if name in ("Executable", "compile", "load"):
        return getattr(import_module("treadle.driver"), name)
    raise AttributeError(f"module 'treadle' has no attribute '{name}'")
