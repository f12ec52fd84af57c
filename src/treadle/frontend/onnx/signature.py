"""The edge of a model: what its inputs become, which values are given beforehand, and what its
outputs are called."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, TensorShapeProto, TypeProto, ValueInfoProto

from treadle.base.errors import ModelImportError
from treadle.base.rewrite import replace_fields
from treadle.expr.dtype import from_numpy
from treadle.expr.scalar import Expr, Var, as_expr
from treadle.frontend.onnx.compose import element_type
from treadle.frontend.onnx.region import Program, Region
from treadle.frontend.onnx.value import Known, NeedsValue, Operand
from treadle.ir.graph import GraphFunction
from treadle.ir.graph_builder import Traced
from treadle.ir.types import TensorType

# The value of an input: of a tensor, of a sequence, or of an optional value that is not there.
Given = np.ndarray | Sequence[np.ndarray] | None


@dataclass(frozen=True, eq=False)
class Signature:
    """The inputs of one model. ``constants`` are the values that are given beforehand."""

    source: str
    constants: Mapping[str, Given]
    program: Program
    _sizes: dict[str, Expr] = field(default_factory=dict[str, Expr])

    def check(self, graph: GraphProto) -> None:
        """E0608 for constants of no input."""
        names = {i.name for i in graph.input} - {t.name for t in graph.initializer}
        for name in self.constants:
            if name not in names:
                raise ModelImportError(
                    "E0608",
                    f"the model has no input '{name}' that a constant could be given for",
                    place=self.source,
                    help=f"the inputs are {', '.join(sorted(names)) or 'none'}",
                )

    def enter(
        self, declared: Sequence[ValueInfoProto], region: Region
    ) -> tuple[dict[str, Operand], list[str]]:
        """Every input as an operand, and the names of those that are parameters of the program.

        Raises:
            ModelImportError: E0603 (``NeedsValue``) for sequences and optional values that are not
                given, E0604, E0608, E0609.
        """
        given = {d.name: self._constant(d) for d in declared if d.name in self.constants}
        rest = {d.name: self._parameter(d, region) for d in declared if d.name not in given}
        return {**given, **rest}, list(rest)

    def _constant(self, declared: ValueInfoProto) -> Operand:
        """An input that is given: its value, whose dimensions become those of the model."""
        value, type_ = self.constants[declared.name], declared.type
        if type_.HasField("optional_type"):
            if value is None:
                return Operand(is_absent=True)
            type_ = type_.optional_type.elem_type
        if type_.HasField("sequence_type") and isinstance(value, list | tuple):
            parts = [self._known(declared.name, np.asarray(v)) for v in value]
            return Operand(items=tuple(Operand(known=k) for k in parts))
        if not type_.HasField("tensor_type") or value is None:
            raise self._misfit(declared.name, f"given: {type(value).__name__}")
        return Operand(known=self._tensor(declared.name, type_.tensor_type, np.asarray(value)))

    def _known(self, name: str, array: np.ndarray) -> Known:
        if from_numpy(array.dtype) is None:
            raise self._misfit(name, f"given: {array.dtype}")
        return Known.of(array, name)

    def _tensor(self, name: str, wanted: TypeProto.Tensor, array: np.ndarray) -> Known:
        dtype = element_type(wanted.elem_type)
        dims = wanted.shape.dim if wanted.HasField("shape") else None
        fits = dims is None or (
            len(dims) == array.ndim
            and all(
                d.dim_value == n
                for d, n in zip(dims, array.shape, strict=True)
                if d.HasField("dim_value")
            )
        )
        if not fits or not np.can_cast(array.dtype, dtype.numpy, "same_kind"):
            asked = [str(d.dim_value) if d.dim_value else d.dim_param or "?" for d in dims or ()]
            note = f"given: {array.dtype} of shape {array.shape}; wanted: {dtype} of shape"
            raise self._misfit(name, f"{note} ({', '.join(asked)})")
        for d, n in zip(dims or (), array.shape, strict=False):
            if d.dim_param:
                self._sizes[d.dim_param] = as_expr(n)
        return Known(array.astype(dtype.numpy), dtype, name)

    def _misfit(self, name: str, note: str) -> ModelImportError:
        return ModelImportError(
            "E0608",
            f"the constant for '{name}' does not fit the model's input",
            place=self.source,
            notes=(note,),
            help="give an array of the input's element type and shape",
        )

    def _parameter(self, declared: ValueInfoProto, region: Region) -> Operand:
        kind = declared.type.WhichOneof("value") or "value of no type"
        if kind in ("sequence_type", "optional_type"):
            what = f"what a program does with a {kind.removesuffix('_type')} value"
            raise NeedsValue((declared.name,), what, self.source)
        if kind != "tensor_type":
            raise ModelImportError(
                "E0604",
                f"the input '{declared.name}' is no tensor: {kind.removesuffix('_type')}",
                place=self.source,
                help="cut the model behind it",
            )
        tensor = declared.type.tensor_type
        dtype = element_type(tensor.elem_type)
        if not tensor.HasField("shape"):
            raise ModelImportError(
                "E0609",
                f"the rank of the input '{declared.name}' is not known",
                place=self.source,
                help="give the input a shape in the model; its dimensions may be symbols",
            )
        shape = tuple(self._dim(d, declared.name, k) for k, d in enumerate(tensor.shape.dim))
        traced = region.builder.input(declared.name, TensorType(shape, len(shape), dtype))
        return Operand(traced, sources=frozenset({declared.name}))

    def _dim(self, dim: TensorShapeProto.Dimension, name: str, axis: int) -> Expr:
        if dim.HasField("dim_value"):
            return as_expr(dim.dim_value)
        if dim.dim_param in self._sizes:
            return self._sizes[dim.dim_param]
        key = dim.dim_param or f"{name}_{axis}"
        found = self.program.symbols.get(key)
        if found is None:
            clean = "".join(c if c.isalnum() and c.isascii() else "_" for c in key)
            taken = {v.name for v in self.program.symbols.values()}
            unique = clean if not clean[:1].isdigit() else f"d_{clean}"
            while unique in taken:
                unique += "_"
            found = self.program.symbols[key] = Var(unique)
        return found


def returned(
    region: Region, names: Iterable[str], values: Iterable[Operand]
) -> list[tuple[str, Traced]]:
    """The results of a program: an output that is a sequence leaves as its tensors, which are
    called by its name and their numbers; one that is not there, not at all."""
    found: dict[str, Traced] = {}
    for name, value in zip(names, values, strict=True):
        if value.items is not None:
            found.update({f"{name}.{k}": region.traced(x) for k, x in enumerate(value.items)})
        elif not value.is_absent:
            while name in found:  # a model may give one value twice
                name += "_"
            found[name] = region.traced(value)
    return list(found.items())


def named(function: GraphFunction, inputs: Sequence[str], outputs: Sequence[str]) -> GraphFunction:
    """The entry under the names of the model, where those of its values differ."""
    same = list(inputs) == [p.name for p in function.params]
    found: GraphFunction = replace_fields(
        function, inputs=() if same else tuple(inputs), outputs=tuple(outputs)
    )
    return found
