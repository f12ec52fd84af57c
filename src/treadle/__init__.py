"""Treadle compiles machine-learning models from PyTorch and ONNX to fast programs."""

from treadle.base.errors import InternalError, TreadleError

__version__ = "0.1.0"

__all__ = ["InternalError", "TreadleError", "__version__"]
