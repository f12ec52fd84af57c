"""Inputs whose memory becomes that of a result: what they must be; nothing else may lie there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from operator import le

import numpy as np

from treadle_runtime.array import AnyTensor, numpy_pointer
from treadle_runtime.errors import RuntimeFault

Span = tuple[int, int, int]
"""The first address of an input, the one after its last, and which input it is."""


class Given:
    """What is known of all inputs before a call: those that are bound, with their dimensions and
    addresses among those of all, and where the ``free`` ones go: which input each is, and the place
    of its first dimension.
    """

    __slots__ = ("arrays", "dims", "free", "high", "low", "pointers", "spans")

    def __init__(self, ranks: Sequence[int], arrays: Mapping[int, np.ndarray]) -> None:
        self.arrays = arrays
        self.dims = [0] * sum(ranks)
        self.pointers = [0] * len(ranks)
        self.spans: list[Span] = []
        free: list[tuple[int, int]] = []
        for j, start in enumerate(accumulate(ranks, initial=0)):
            if j in arrays:
                pointer = self.pointers[j] = numpy_pointer(arrays[j])
                self.dims[start : start + ranks[j]] = arrays[j].shape
                self.spans.append((pointer, pointer + arrays[j].nbytes, j))
            elif j < len(ranks):
                free.append((j, start))
        self.free = tuple(free)
        self.low = min((s[0] for s in self.spans), default=0)
        self.high = max((s[1] for s in self.spans), default=0)

    def is_clear_of(self, spans: Sequence[Span]) -> bool:
        """Whether other inputs lie neither between the bound ones nor in them; false if none is
        bound.
        """
        low, high = self.low, self.high
        return high > 0 and all([end <= low or start >= high for start, end, _ in spans])


class Bound:
    """An executable whose donated inputs are always the same: call it with the others, in order. It
    answers as the executable does.
    """

    __slots__ = ("_call", "_given", "_signature")

    def __init__(
        self,
        call: Callable[[Given, tuple[AnyTensor, ...]], AnyTensor],
        given: Given,
        signature: str,
    ) -> None:
        self._call = call
        self._given = given
        self._signature = signature

    def __call__(self, *inputs: AnyTensor) -> AnyTensor:
        """Run; raises what a call of the executable raises."""
        if len(inputs) != len(self._given.free):
            raise RuntimeFault(
                "E0701",
                f"{len(inputs)} inputs are given, and {len(self._given.free)} are not bound",
                notes=(self._signature,),
                help="pass all inputs that are not donated, in order",
            )
        return self._call(self._given, inputs)


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


def check_bound(given: AnyTensor, name: str) -> None:
    """Refuse what cannot stay bound to a donated input: it must be a NumPy array.

    Raises ``RuntimeFault`` E0724.
    """
    if type(given) is not np.ndarray:
        raise _refusal(name, f"is a {type(given).__name__}", "a NumPy array")


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
    ordered = sorted([s for s in spans if s[0] < s[1]])
    starts, ends = [s[0] for s in ordered], [s[1] for s in ordered]
    if all(map(le, ends, starts[1:])):
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
