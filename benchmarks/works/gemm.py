"""Matrix products whose second operand is a weight, so that it can be packed beforehand."""

import torch
from torch import nn

from .work import Bar, Case, Work, randn

SQUARE = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048))
RAGGED = ((197, 768, 768), (100, 1000, 333))
WEIGHTS = tuple((n, k) for k in (768, 4096) for n in (3072, 4096))
"""Columns of the result, and length of the sums."""


class Product(nn.Module):
    """``x @ weight``."""

    def __init__(self, k: int, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(k, n) / k**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product."""
        return x @ self.weight


def gemm(m: int, n: int, k: int, bar: Bar) -> Work:
    """The product of an m × k input and a k × n weight."""
    return Work(
        family="gemm",
        name=f"GEMM {m}x{n}x{k}",
        build=lambda: Case(Product(k, n), (randn(m, k),)),
        kernel="product",
        bar=bar,
    )


def _few_rows(m: int, n: int, k: int) -> Work:
    return gemm(m, n, k, Bar(speedup=1.0, of_copy=0.85 if m == 1 else 0.0))


WORKS = (
    *(gemm(m, n, k, Bar(of_peak=0.92)) for m, n, k in SQUARE + RAGGED),
    *(gemm(128, n, k, Bar(of_peak=0.85, speedup=1.0)) for n, k in WEIGHTS),
    *(_few_rows(m, n, k) for m in (1, 4, 7, 16) for n, k in WEIGHTS),
)
