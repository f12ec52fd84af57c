"""The ONNX front end: ``import_module`` makes a module of a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from onnx import ModelProto

from treadle.base.errors import InternalError, ModelImportError
from treadle.frontend.onnx.catalogue import CATALOGUE
from treadle.frontend.onnx.importer import Importer
from treadle.frontend.onnx.loading import load, said_by_checker
from treadle.frontend.onnx.signature import Given
from treadle.frontend.onnx.support import check_operators
from treadle.frontend.onnx.value import NeedsValue
from treadle.ir.module import Module

_MISTAKES = (LookupError, ValueError, TypeError, ArithmeticError, StopIteration, InternalError)

__all__ = ["Imported", "NeedsValue", "import_module"]


@dataclass(frozen=True, eq=False)
class Imported:
    """A module with the entry ``main``, and the library functions that it calls."""

    module: Module
    libraries: Mapping[str, Callable[..., Any]] = field(
        default_factory=dict[str, Callable[..., Any]]
    )


def import_module(
    model: str | PathLike[str] | bytes | ModelProto, *, constants: Mapping[str, Given] = {}
) -> Imported:
    """Import an ONNX model.

    The parameters of ``main`` are the graph's inputs that are neither initializers nor in
    ``constants``, in order and by their names. A dimension that has a name in the model is a symbol
    of that name; one that has none is a symbol of its own. ``constants`` are values of inputs,
    given now, and no longer when the program runs: what shapes depend on must be among them, and
    inputs that are sequences (lists of arrays) or optional values (``None`` for one that is not
    there). A result that is a sequence leaves as its tensors, under its name and their numbers.

    Raises:
        ModelImportError: E0601 with every operator that is not supported, E0602 when a shape
            depends on computed data, E0603 (``NeedsValue``) when one depends on inputs that
            ``constants`` has not, E0604 for types of values that are not supported, E0605 for nodes
            that break ONNX's rules, E0608 for constants of no input or
            of another type, E0611 to E0613 for files that
            cannot be read.
        TypeMismatch: when operands do not fit, which the model's author or the exporter must mend.
    """
    proto, folder = load(model)
    source = str(model) if isinstance(model, str | PathLike) else proto.graph.name or "model"
    check_operators(proto, CATALOGUE, source)
    importer = Importer(proto, folder, source, CATALOGUE, dict(constants))
    try:
        return Imported(importer.module())
    except _MISTAKES as error:
        # Converters count on what ONNX promises of a node. Was the promise broken?
        said = said_by_checker(proto)
        if said is None:
            raise
        raise ModelImportError(
            "E0605",
            f"the model breaks ONNX's rules: {said}",
            place=source,
            help="check the model with onnx.checker.check_model(model, full_check=True)",
        ) from error
