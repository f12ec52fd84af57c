"""A process that writes down a work: inputs, results of PyTorch eager, the ONNX model, facts."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .. import works
from ..backends.backend import store, tensors
from ..works.work import Case, case_of
from .worker import private_output, serve

Facts = dict[str, Any]


class Author:
    """Writes works into folders."""

    def write(self, family: str, name: str, folder: str, onnx: bool) -> Facts:
        """Write one work; operations and bytes of a call, and why there is no ONNX model."""
        case = case_of(works.find(family, name))
        path = Path(folder)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            counter = FlopCounterMode(display=False)
            with counter:
                result = case.module(*case.inputs)
        with torch.no_grad():
            result = case.module(*case.inputs)
        expected = tensors(result)
        store(path / "inputs.npz", tensors(case.inputs))
        store(path / "expected.npz", expected)
        facts: Facts = {
            "dtypes": [str(x.dtype).removeprefix("torch.") for x in case.inputs],
            "flops": counter.get_total_flops(),
            "bytes": touched(case, result),
        }
        (path / "facts.json").write_text(json.dumps(facts))
        if onnx:
            export(case, path / "model.onnx")
        return facts


def touched(case: Case, result: torch.Tensor | tuple[torch.Tensor, ...]) -> int:
    """Bytes of weights, inputs and results, each counted once."""
    results = result if isinstance(result, tuple | list) else (result,)
    weights = (*case.module.parameters(), *case.module.buffers())
    found = {x.data_ptr(): x for x in (*weights, *case.inputs, *results)}
    return sum(x.numel() * x.element_size() for x in found.values())


def export(case: Case, path: Path) -> None:
    """Write the ONNX model."""
    if case.write_onnx is not None:
        case.write_onnx(path)
        return
    with torch.no_grad():
        torch.onnx.export(
            case.module, case.inputs, path, dynamo=True, external_data=True, verbose=False
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the exporters warn about themselves
    OUTPUT = private_output()
    serve(Author, sys.stdin, OUTPUT)
