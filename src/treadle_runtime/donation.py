"""Inputs whose memory becomes that of a result: what they must be; nothing else may lie there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from treadle_runtime.array import AnyTensor, numpy_pointer
from treadle_runtime.errors import RuntimeFault

Span = tuple[int, int, int]
"""The first address of an input, the one after its last, and which input it is."""


def check_donated(given: AnyTensor, pointer: int, name: str) -> None:
    """Refuse a donated input whose memory, at ``pointer``, is not that of what was given, or is not
    to be written.

    Raises ``RuntimeFault`` E0724.
    """
    if isinstance(given, np.ndarray):
        if numpy_pointer(given) != pointer:
            raise _refusal(name, "is not contiguous", f"numpy.ascontiguousarray({name})")
        if not given.flags.writeable:
            raise _refusal(name, "is read-only", f"{name}.copy()")
    elif not hasattr(given, "data_ptr"):
        raise _refusal(name, f"is a {type(given).__name__}", "a NumPy array or a PyTorch tensor")
    elif given.data_ptr() != pointer:
        raise _refusal(name, "is not contiguous", f"{name}.contiguous()")
    elif given.requires_grad:
        raise _refusal(name, "requires a gradient", f"{name}.detach()")


def _refusal(name: str, why: str, cure: str) -> RuntimeFault:
    return RuntimeFault(
        "E0724",
        f"input '{name}' is donated and {why}: a result cannot be made in its place",
        help=f"pass {cure}, and use the result from then on",
    )


def check_apart(spans: Sequence[Span], donated: frozenset[int], names: Sequence[str]) -> None:
    """Refuse donated inputs that share memory with others.

    Raises ``RuntimeFault`` E0724.
    """
    ordered = sorted(s for s in spans if s[0] < s[1])
    if all(a[1] <= b[0] for a, b in pairwise(ordered)):
        return
    for n, (start, end, a) in enumerate(ordered):
        for low, _, b in ordered[n + 1 :]:
            if low >= end:
                break
            if low >= start and (a in donated or b in donated):
                first, second = sorted((a, b))
                raise RuntimeFault(
                    "E0724",
                    f"inputs '{names[first]}' and '{names[second]}' share memory, and one of them"
                    " is donated",
                    help="pass a copy of one of them",
                )
