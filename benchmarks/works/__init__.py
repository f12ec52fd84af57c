"""The works, by family; a family is imported when it is asked for."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .work import Work

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "gemm": "gemm",
        "conv": "convolution",
        "low": "low_precision",
        "rows": "rows",
        "models": "models",
        "compile": "compile_time",
        "suite": "suite",
    }
)
"""The module of each family; a new one is a line here and a file with ``WORKS``."""

DEFAULT = ("gemm", "conv", "low", "rows", "models", "compile")

MEANS: Mapping[str, float] = MappingProxyType({"suite": 1.3, "models": 1.15})
"""What the geometric mean of a family's speedups over the best peer must reach."""


def family(name: str) -> "tuple[Work, ...]":
    """The works of a family."""
    return importlib.import_module(f"{__name__}.{FAMILIES[name]}").WORKS


def find(family_name: str, name: str) -> "Work":
    """The work of this family and name."""
    return next(work for work in family(family_name) if work.name == name)
