"""Work of few operations for each element: softmax, normalization, activations, chains."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from .work import Bar, Case, Work, randn

SHAPES = ((128, 3072), (1024, 1024))
"""Of three thousand elements a row, and of a million elements."""


class Softmax(nn.Module):
    """Softmax along the last axis."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The result."""
        return functional.softmax(x, -1)


class Gelu(nn.Module):
    """GELU with the error function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The result."""
        return functional.gelu(x)


class Chain(nn.Module):
    """Scale, shift, activation, gate and residual: five operations on each element."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The result."""
        return torch.relu(x * 1.5 + 0.25) * y + x


class MathChain(nn.Module):
    """A chain with an exponential and a hyperbolic tangent."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The result."""
        return torch.tanh(x) * torch.sigmoid(y) + x


def _norm(columns: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(columns)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def _works(rows: int, columns: int) -> tuple[Work, ...]:
    size = f"{rows}x{columns}"

    def one() -> torch.Tensor:
        return randn(rows, columns)

    def row(name: str, build: Callable[[], Case], kernel: str) -> Work:
        return Work("rows", f"{name} {size}", build, kernel=kernel, bar=Bar(speedup=1.0))

    return (
        row("softmax", lambda: Case(Softmax(), (one(),)), "softmax"),
        row("layer norm", lambda: Case(_norm(columns), (one(),)), "layer_norm"),
        row("GELU", lambda: Case(Gelu(), (one(),)), "gelu"),
        row("chain relu", lambda: Case(Chain(), (one(), one())), "chain"),
        row("chain tanh", lambda: Case(MathChain(), (one(), one())), "math_chain"),
    )


WORKS = tuple(work for shape in SHAPES for work in _works(*shape))
