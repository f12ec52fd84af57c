"""Functions of libraries in the place of generated code: patterns, and what computes them.

``Library`` values go to ``treadle.compile(..., libraries=[...])``; nothing is registered anywhere.
"""

from treadle.libraries.blas import openblas
from treadle.libraries.library import Field, Library, Lowering
from treadle.libraries.match import Match
from treadle.libraries.measurements import (
    GENERATED,
    MeasurementKey,
    Measurements,
    RecordedTimes,
)
from treadle.libraries.pattern import (
    Pattern,
    dims,
    is_const,
    is_op,
    leading,
    tensor,
    wildcard,
)

__all__ = [
    "GENERATED",
    "Field",
    "Library",
    "Lowering",
    "Match",
    "MeasurementKey",
    "Measurements",
    "Pattern",
    "RecordedTimes",
    "dims",
    "is_const",
    "is_op",
    "leading",
    "openblas",
    "tensor",
    "wildcard",
]
