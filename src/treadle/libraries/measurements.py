"""What was measured: how long a part of a program takes, by generated code and by libraries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

GENERATED = "generated"
"""The implementation that is no library's: the code that Treadle makes for the part."""


@dataclass(frozen=True, slots=True)
class MeasurementKey:
    """A part of a program, and what computes it where.

    ``part`` is the text of a program that computes the part alone, with names that do not depend on
    where it was found; ``implementation`` is ``GENERATED``, or ``library.function``; ``machine``
    is the key of the target, which tells two processors apart.
    """

    part: str
    implementation: str
    machine: str
    threads: int


class Measurements(Protocol):
    """Times by key, such as a tuning database has them."""

    def seconds(self, key: MeasurementKey) -> float | None:
        """The time of one run; ``None`` if it is not known."""
        ...


@dataclass(frozen=True, slots=True)
class RecordedTimes:
    """Times that were measured before, in memory."""

    times: Mapping[MeasurementKey, float]

    def seconds(self, key: MeasurementKey) -> float | None:
        """The time that was recorded."""
        return self.times.get(key)
