"""What the harness asks of a backend."""

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ml_dtypes
import numpy as np

from .. import works

if TYPE_CHECKING:
    from ..works.work import Case


@dataclass(frozen=True)
class Job:
    """A work to make ready.

    ``kernel`` and ``attributes`` say what it computes; ``folder`` holds what was written for those
    that take no PyTorch module: ``model.onnx``; ``inputs.npz`` and ``expected.npz``, bfloat16
    widened to f32; ``facts.json``. It is a plain value, so that a process which needs no PyTorch
    imports none.
    """

    family: str
    name: str
    kernel: str
    folder: str
    threads: int
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def case(self) -> "Case":
        """The module and its inputs, built afresh; the same in every process."""
        case_of = importlib.import_module(f"{works.__name__}.work").case_of
        return case_of(works.find(self.family, self.name))

    def path(self, name: str) -> Path:
        """A file in the folder."""
        return Path(self.folder) / name

    @property
    def onnx(self) -> Path:
        """The work as an ONNX model; missing if PyTorch could not export it."""
        return self.path("model.onnx")

    @property
    def facts(self) -> dict[str, Any]:
        """The dtypes of the inputs, operations and bytes of one call."""
        return json.loads(self.path("facts.json").read_text())

    def inputs(self) -> list[np.ndarray]:
        """The inputs in their dtypes."""
        dtypes = self.facts["dtypes"]
        found = stored(self.path("inputs.npz"))
        return [x.astype(dtype_of(d)) for x, d in zip(found, dtypes, strict=True)]


@dataclass(frozen=True)
class Prepared:
    """A work that is ready to run.

    ``call`` runs it once; ``arrays`` takes what that returned to arrays; ``stages`` are the seconds
    that preparing took, by what was done; ``profile`` says where a call's time goes.
    """

    call: Callable[[], Any]
    arrays: Callable[[Any], list[np.ndarray]]
    stages: Mapping[str, float]
    profile: Callable[[], str] | None = None


class Backend(Protocol):
    """One contender. A backend's module has such an object named ``BACKEND``."""

    @property
    def version(self) -> str:
        """Of the library."""
        ...

    def prepare(self, job: Job) -> Prepared:
        """Make the work ready; what goes wrong is raised."""
        ...


class Unsupported(Exception):
    """The backend has no way to express a work: no fault, and an empty entry in the table."""


def dtype_of(name: str) -> np.dtype[Any]:
    """NumPy's dtype of a name of PyTorch's, without its module."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def store(path: Path, arrays: list[np.ndarray]) -> None:
    """Write arrays; ``npz`` knows no bfloat16."""
    wide = [x.astype(np.float32) if x.dtype == ml_dtypes.bfloat16 else x for x in arrays]
    np.savez(path, *wide)


def stored(path: Path) -> list[np.ndarray]:
    """Arrays that were stored, in order."""
    with np.load(path) as found:
        return [found[f"arr_{k}"] for k in range(len(found.files))]


def tensors(result: object) -> list[np.ndarray]:
    """The arrays of what a PyTorch module returned."""
    found = result if isinstance(result, tuple | list) else (result,)
    return [(x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy() for x in found]


def arrays_in_order(result: object) -> list[np.ndarray]:
    """The arrays of a list, or a single one."""
    found = result if isinstance(result, tuple | list) else (result,)
    return [np.asarray(x) for x in found]


def weights_of(case: "Case") -> dict[str, np.ndarray]:
    """Parameters and buffers by name; bfloat16 stays bfloat16."""
    found: dict[str, np.ndarray] = {}
    for name, tensor in case.module.state_dict().items():
        brain = str(tensor.dtype) == "torch.bfloat16"
        array = (tensor.float() if brain else tensor).numpy()
        found[name] = array.astype(ml_dtypes.bfloat16) if brain else array
    return found
