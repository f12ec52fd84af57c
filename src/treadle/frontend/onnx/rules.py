"""What converters ask of a node that ONNX's schemas do not say."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from treadle.base.errors import ModelImportError
from treadle.ir.graph_builder import Traced

T = TypeVar("T")


def broken(message: str) -> ModelImportError:
    """The error of a node that breaks ONNX's rules."""
    return ModelImportError(
        "E0605",
        message,
        help="check the model with onnx.checker.check_model(model, full_check=True)",
    )


def require(holds: bool, message: str) -> None:
    """E0605 with ``message`` unless the condition on a node holds."""
    if not holds:
        raise broken(message)


def ranked(x: Traced, least: int, what: str, most: int | None = None) -> None:
    """E0605 unless the rank of a value lies within limits; ``most`` is ``least`` if not given."""
    most = least if most is None else most
    require(least <= x.ndim <= most, f"{what} has rank {x.ndim}, not {least}")


def paired(what: str, *columns: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Lists of equal length, element by element; E0605 if they are of several lengths."""
    require(len({len(c) for c in columns}) <= 1, f"{what} are not of equal number")
    return list(zip(*columns, strict=True))


def chosen(table: Mapping[str, T], key: str, what: str) -> T:
    """What a word stands for; E0605 for one that ONNX does not know."""
    require(key in table, f"{what} cannot be '{key}': there are {', '.join(table)}")
    return table[key]
