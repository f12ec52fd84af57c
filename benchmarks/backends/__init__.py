"""The contenders: small plug-ins, loaded by name in a process of their own."""

import importlib
import importlib.util
import shutil
from collections.abc import Mapping
from types import MappingProxyType

from .backend import Backend

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "treadle": "treadle",
        "torch": "torch_eager",
        "compile": "torch_compile",
        "autotune": "torch_autotune",
        "onnxruntime": "onnxruntime",
        "openvino": "openvino",
        "jax": "jax",
        "numpy": "numpy",
    }
)
"""The module of each backend; a new one is a line here and a file with ``BACKEND``."""

LIBRARIES: Mapping[str, str] = MappingProxyType(
    {"torch_eager": "torch", "torch_compile": "torch", "torch_autotune": "torch"}
)
"""What the module of a backend imports, where that is not its own name."""


def missing(name: str) -> str:
    """What this backend lacks here, or nothing."""
    library = LIBRARIES.get(MODULES[name], MODULES[name])
    if importlib.util.find_spec(library) is None:
        return f"{library} is not installed"
    if name in ("compile", "autotune") and not (shutil.which("g++") or shutil.which("clang++")):
        return "torch.compile needs a C++ compiler"
    return ""


def load_backend(name: str) -> Backend:
    """Import the backend of this name and its library.

    Raises:
        ImportError: if the library is not installed.
    """
    return importlib.import_module(f"{__name__}.{MODULES[name]}").BACKEND


def variables(threads: int) -> dict[str, str]:
    """What the libraries read from the environment of their process."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    single = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return {
        **dict.fromkeys(names, str(threads)),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": single if threads == 1 else "",
    }
