"""Peers to compare with: PyTorch eager for ``.pt2`` files, ONNX Runtime for ``.onnx`` files."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treadle.base.errors import OptionError
from treadle.cli.inputs import Arrays

Call = Callable[[], object]
SUFFIX_OF = {"torch": ".pt2", "onnxruntime": ".onnx"}
NAMES = {"torch": "PyTorch eager", "onnxruntime": "ONNX Runtime"}


def choose_peer(path: Path, wanted: str | None) -> str | None:
    """The peer to compare with: as said, or the one that reads this file, if it is installed.

    Raises:
        OptionError: E0847 for a peer that is unknown, reads no such file, or is not installed.
    """
    fitting = next((name for name, suffix in SUFFIX_OF.items() if suffix == path.suffix), None)
    if wanted is None:
        return fitting if fitting is not None and _installed(fitting) else None
    if wanted not in SUFFIX_OF:
        raise OptionError(
            "E0847", f"there is no peer '{wanted}'", help=f"use one of: {', '.join(SUFFIX_OF)}"
        )
    if wanted != fitting:
        raise OptionError(
            "E0847",
            f"{wanted} does not read '{path}'",
            help=f"pass a {SUFFIX_OF[wanted]} file, or leave --against out",
        )
    if not _installed(wanted):
        raise OptionError("E0847", f"{wanted} is not installed", help=f"pip install {wanted}")
    return wanted


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def peer_call(name: str, path: Path, program: Any, inputs: Arrays, threads: int) -> Call:  # noqa: ANN401
    """A call of the peer on ``inputs``, ready to be timed."""
    make = _torch_call if name == "torch" else _onnxruntime_call
    return make(path, program, inputs, threads)


def _torch_call(path: Path, program: Any, inputs: Arrays, threads: int) -> Call:  # noqa: ANN401
    import torch

    torch.set_num_threads(threads)
    module = program.module()
    tensors = [torch.from_numpy(array) for array in inputs.values()]

    def call() -> object:
        with torch.inference_mode():
            return module(*tensors)

    return call


def _onnxruntime_call(path: Path, program: Any, inputs: Arrays, threads: int) -> Call:  # noqa: ANN401
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)
