"""What is measured: a module with its inputs, and what is asked of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

SEED = 0
Peak = Literal["f32", "bf16", "u8s8"]


@dataclass(frozen=True)
class Bar:
    """What Treadle must reach in a row.

    ``of_peak``: share of the peak of multiply-adds; ``of_copy``: share of the bandwidth of copying
    as many bytes as the work touches; ``speedup``: the best peer's time over Treadle's.
    """

    of_peak: float = 0.0
    of_copy: float = 0.0
    speedup: float = 0.0

    def __str__(self) -> str:
        parts = (
            f"{self.of_peak:.0%} peak" if self.of_peak else "",
            f"{self.of_copy:.0%} copy" if self.of_copy else "",
            f"{self.speedup:.2f}×" if self.speedup else "",
        )
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Case:
    """A module in evaluation mode, whose weights are constants to all sides, and its inputs.

    ``write_onnx`` writes the ONNX file where PyTorch's exporter would not say what is meant.
    """

    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    write_onnx: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Work:
    """One row of the table.

    ``build`` gives the same case in every process. ``kernel`` and ``attributes`` name what the
    module computes, for backends that take no module. ``tolerance`` bounds the difference from
    PyTorch eager, relative to the largest magnitude. ``whole`` marks a model: it gets processes of
    its own.
    """

    family: str
    name: str
    build: Callable[[], Case]
    kernel: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    bar: Bar = Bar()
    peak: Peak = "f32"
    tolerance: float = 1e-4
    whole: bool = False


def case_of(work: Work) -> Case:
    """Build the work's case from the seed, without gradients."""
    torch.manual_seed(SEED)
    case = work.build()
    case.module.eval().requires_grad_(False)
    return case


def randn(*shape: int) -> torch.Tensor:
    """Normally distributed numbers."""
    return torch.randn(shape)
