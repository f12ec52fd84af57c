"""Whether an executable computes what PyTorch computes, at sizes other than those of the example.

Tolerance: PyTorch's own for f32 (``torch.testing.assert_close``: relative 1.3e-6, absolute 1e-5),
where the absolute part is taken relative to the largest magnitude of the expected tensor, whether
that is large or small: the rounding of a sum follows its largest terms, and a model's result is the
end of many sums. Eager's result carries rounding of its own: where the two are farther apart, the
model is evaluated in float64, and the executable must be within the tolerance of that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .zoo import Entry

RELATIVE = 1.3e-6
ABSOLUTE = 1e-5
TINY = torch.finfo(torch.float32).tiny

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Difference:
    """How far two results are apart.

    ``error`` is the largest difference over the largest expected magnitude; ``close`` says whether
    all elements are within the tolerance of the ``reference``, "eager" or "float64".
    """

    shapes: str
    error: float
    close: bool
    reference: str = "eager"


def sized_inputs(entry: Entry, sizes: dict[str, int], seed: int = 1) -> Inputs:
    """Random inputs such as the entry's, where dimensions of these names have these sizes."""
    generator = torch.Generator().manual_seed(seed)
    found: list[torch.Tensor] = []
    for example, dims in zip(entry.inputs, entry.dynamic_shapes, strict=True):
        shape = list(example.shape)
        for axis, dim in (dims or {}).items():
            shape[axis] = sizes[dim.__name__]
        if example.is_floating_point():
            found.append(torch.randn(shape, generator=generator))
        elif int(example.max()) <= 1:
            found.append(_ragged_mask(shape[0], shape[1]))
        else:
            words = int(example.max()) + 1
            found.append(torch.randint(0, words, shape, generator=generator))
    return tuple(found)


def _ragged_mask(rows: int, columns: int) -> torch.Tensor:
    """Ones; every second row ends a quarter earlier."""
    mask = torch.ones(rows, columns, dtype=torch.int64)
    mask[1::2, columns - columns // 4 :] = 0
    return mask


def differences(
    call: Callable[..., torch.Tensor], model: torch.nn.Module, inputs: Iterator[Inputs]
) -> Iterator[Difference]:
    """Compare the two on each of the inputs."""
    for args in inputs:
        shapes = " ".join(_shape(x) for x in args)
        with torch.inference_mode():
            actual = call(*args)
            found = difference(actual, model(*args), shapes)
            if not found.close:
                exact = _in_double(model, args).to(actual.dtype)
                found = replace(difference(actual, exact, shapes), reference="float64")
        yield found


def _in_double(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    floats = [x.double() if x.is_floating_point() else x for x in inputs]
    return copy.deepcopy(model).double()(*floats)


def difference(actual: torch.Tensor, expected: torch.Tensor, shapes: str = "") -> Difference:
    """How far a tensor is from what is expected; never close if shape, dtype or NaNs differ."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return Difference(shapes, float("inf"), False)
    scale = expected.abs().max().item() if expected.numel() else 1.0
    gap = (actual - expected).abs()
    error = gap.max().item() / max(scale, TINY) if expected.numel() else 0.0
    close = torch.isclose(actual, expected, rtol=RELATIVE, atol=ABSOLUTE * scale)
    return Difference(shapes, error, bool(close.all()))


def export_onnx(entry: Entry, path: Path) -> Path:
    """Write the model as ``torch.onnx.export(dynamo=True)`` does, weights beside it."""
    with torch.no_grad():
        torch.onnx.export(
            entry.model,
            entry.inputs,
            path,
            dynamo=True,
            dynamic_shapes=entry.dynamic_shapes,
            external_data=True,
            verbose=False,
        )
    return path


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape)
