"""Walk an ONNX graph and convert it, node by node."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto

from treadle.base.errors import ModelImportError, TreadleError
from treadle.base.span import Span
from treadle.expr.scalar import int_value
from treadle.frontend.onnx.bodies import Bodies, Opsets, domain_of, instantiate, opsets_of
from treadle.frontend.onnx.converter import Catalogue, Converter
from treadle.frontend.onnx.fold import fold_symbolic
from treadle.frontend.onnx.loading import array_of, is_narrow, widened_array_of
from treadle.frontend.onnx.region import Program, Region, Site
from treadle.frontend.onnx.signature import Given, Signature, named, returned
from treadle.frontend.onnx.support import subgraphs, users
from treadle.frontend.onnx.value import Known, Operand, known_size
from treadle.ir.graph import ConstantRef
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.interpret import run
from treadle.ir.module import Constant, Module

# Larger results are left to the compiled program (elements).
FOLD_LIMIT = 4096

# Attributes of ONNX's first versions that say how to compute, not what.
HINTS = frozenset({"consumed_inputs"})


@dataclass(frozen=True, eq=False)
class Scope:
    """Names of values: of one graph, inside of another's."""

    opsets: Opsets
    outer: "Scope | None" = None
    values: dict[str, Operand] = field(default_factory=dict[str, Operand])

    def find(self, name: str) -> Operand | None:
        """The value of that name, here or around."""
        found = self.values.get(name)
        if found is None and self.outer is not None:
            return self.outer.find(name)
        return found


@dataclass(eq=False)
class Importer:
    """One import of one model."""

    model: ModelProto
    folder: Path | None
    source: str
    catalogue: Catalogue
    constants: Mapping[str, Given]
    program: Program = field(default_factory=Program)

    def __post_init__(self) -> None:
        self._bodies = Bodies(self.model)

    def module(self) -> Module:
        """The module of the model."""
        name = self.program.fresh("main")
        region = Region(GraphBuilder(name, Span(self.source)), self.program)
        scope = Scope(opsets_of(self.model.opset_import))
        graph = self.model.graph
        signature = Signature(self.source, self.constants, self.program)
        signature.check(graph)
        self._initializers(graph, scope)
        inputs = {i.name: i for i in graph.input if i.name not in scope.values}
        operands, parameters = signature.enter(list(inputs.values()), region)
        scope.values.update(operands)
        self._nodes(graph.node, region, scope)
        outputs = [o.name for o in graph.output]
        results = returned(region, outputs, [self._value(n, scope) for n in outputs])
        function = region.builder.finish(*(x for _, x in results))
        main = named(function, parameters, [n for n, _ in results])
        self.program.functions = {name: main, **self.program.functions}
        return Module(self.program.functions, self._used_constants())

    def _initializers(self, graph: GraphProto, scope: Scope) -> None:
        for tensor in graph.initializer:
            # Who only reads values, does not see how many bits they had.
            read = is_narrow(tensor) and users(graph, tensor.name) <= {"DequantizeLinear"}
            array = (widened_array_of if read else array_of)(tensor, self.folder)
            scope.values[tensor.name] = Operand(known=Known.of(array, tensor.name))
        if graph.sparse_initializer:
            raise ModelImportError(
                "E0604",
                "the model has sparse initializers",
                place=self.source,
                help="make them dense tensors",
            )

    def _used_constants(self) -> dict[str, Constant]:
        """The constants that some function mentions."""
        atoms = [
            atom
            for function in self.program.functions.values()
            for atom in (*function.results, *(a for b in function.body for a in b.args))
        ]
        used = {a.name for a in atoms if isinstance(a, ConstantRef)}
        return {name: c for name, c in self.program.constants.items() if name in used}

    def _value(self, name: str, scope: Scope) -> Operand:
        found = scope.find(name)
        if found is None:
            raise ModelImportError(
                "E0605",
                f"no value '{name}' is defined where it is used",
                place=self.source,
                help="check the model with onnx.checker.check_model",
            )
        return found

    def _nodes(self, nodes: Iterable[NodeProto], region: Region, scope: Scope) -> None:
        for node in nodes:
            text = f"{node.op_type} node '{node.name}'" if node.name else f"{node.op_type} node"
            before = region.builder.span
            region.builder.span = Span(self.source, text=text)
            try:
                self._node(node, region, scope)
            except TreadleError as error:
                error.place = error.place or str(region.builder.span)
                raise
            finally:
                region.builder.span = before

    def _node(self, node: NodeProto, region: Region, scope: Scope) -> None:
        operands = [self._value(n, scope) if n else None for n in node.input]
        while operands and operands[-1] is None:
            operands.pop()
        results = self._results(node, operands, region, scope)
        for name, result in zip(node.output, results, strict=False):
            if name and result is not None:
                scope.values[name] = result

    def _results(
        self, node: NodeProto, operands: list[Operand | None], region: Region, scope: Scope
    ) -> Sequence[Operand | None]:
        local = self._bodies.local(node)
        if local is not None:
            return self._call(
                instantiate(local, node), local, operands, region, opsets_of(local.opset_import)
            )
        version = scope.opsets.get(domain_of(node.domain), 1)
        converter = self.catalogue.find(node.domain, node.op_type, version)
        if converter is None:
            return self._standard(node, operands, region, scope)
        attributes = {a.name: self._attribute(a) for a in node.attribute if a.name not in HINTS}
        wanted = tuple(bool(o) for o in node.output)
        site = Site(
            region,
            version,
            wanted,
            str(region.builder.span),
            self._runner(scope),
            lambda inner: self._standard(node, operands, inner, scope),
        )
        if not any(subgraphs(node)):
            folded = self._folded(converter, site, operands, attributes)
            if folded is not None:
                return folded
        return converter(site, operands, attributes)

    def _runner(
        self, scope: Scope
    ) -> Callable[[Region, GraphProto, Sequence[Operand]], list[Operand]]:
        def run_graph(region: Region, graph: GraphProto, args: Sequence[Operand]) -> list[Operand]:
            inner = Scope(scope.opsets, scope)
            self._initializers(graph, inner)
            inner.values.update(zip((i.name for i in graph.input), args, strict=False))
            self._nodes(graph.node, region, inner)
            return [self._value(o.name, inner) for o in graph.output]

        return run_graph

    def _call(
        self,
        nodes: Sequence[NodeProto],
        function: onnx.FunctionProto,
        operands: Sequence[Operand | None],
        region: Region,
        opsets: Opsets,
    ) -> list[Operand | None]:
        scope = Scope(opsets)
        # A parameter that is not given is a missing input of the nodes inside.
        missing = set(function.input[len(operands) :]) | {
            n for n, o in zip(function.input, operands, strict=False) if o is None
        }
        scope.values.update(
            {n: o for n, o in zip(function.input, operands, strict=False) if o is not None}
        )
        for node in nodes:
            for k, name in enumerate(node.input):
                if name in missing:
                    node.input[k] = ""
        self._nodes(nodes, region, scope)
        return [scope.values.get(name) for name in function.output]

    def _standard(
        self, node: NodeProto, operands: Sequence[Operand | None], region: Region, scope: Scope
    ) -> list[Operand | None]:
        types = [TypeProto() if o is None else _type_proto(o) for o in operands]
        body = self._bodies.standard(node, scope.opsets, types)
        if body is None:
            raise ModelImportError(
                "E0601",
                f"the operator {node.op_type} is not supported for these operands",
                help="export the model without it, or cut it where it stands",
            )
        opsets = {**scope.opsets, **opsets_of(body.opset_import)}
        return self._call(instantiate(body, node), body, operands, region, opsets)

    def _attribute(self, attribute: AttributeProto) -> Any:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, onnx.TensorProto):
            return array_of(value, self.folder)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return tuple(v.decode(errors="replace") if isinstance(v, bytes) else v for v in value)
        return value

    def _folded(
        self,
        converter: Converter,
        site: Site,
        operands: Sequence[Operand | None],
        attributes: Mapping[str, Any],
    ) -> Sequence[Operand | None] | None:
        """The results of a node whose operands are all known, as far as they are small; else
        ``None``."""
        known = [o.known if o is not None else None for o in operands]
        if not operands or any(o is not None and o.known is None for o in operands):
            return None
        if any(k is not None and not k.is_concrete for k in known):
            found = fold_symbolic(converter.operator, known, attributes)
            return None if found is None else [Operand(known=k) for k in found]
        return self._evaluated(
            converter, site, [Operand(known=k) if k else None for k in known], attributes
        )

    def _evaluated(
        self,
        converter: Converter,
        site: Site,
        operands: Sequence[Operand | None],
        attributes: Mapping[str, Any],
    ) -> Sequence[Operand | None] | None:
        """Convert to a function of its own and interpret it."""
        if any(o is not None and (known_size(o.shape) or 0) > FOLD_LIMIT for o in operands):
            return None
        region = Region(GraphBuilder("folded", site.builder.span), Program())
        results = converter(replace(site, region=region), operands, attributes)
        found = [r for r in results if r is not None]
        if not all(r.is_tensor for r in found):
            return None
        if any((known_size(r.shape) or 0) > FOLD_LIMIT or r.dtype is None for r in found):
            return None
        function = region.builder.finish(*[region.traced(r) for r in found])
        module = Module({"folded": function, **region.program.functions}, region.program.constants)
        arrays = iter(run(module, "folded"))
        return [None if r is None else Operand(known=Known(next(arrays), r.dtype)) for r in results]


def _type_proto(operand: Operand) -> TypeProto:
    if operand.items:
        return onnx.helper.make_sequence_type_proto(_type_proto(operand.items[0]))
    type_ = operand.type
    code = onnx.helper.np_dtype_to_tensor_dtype(type_.dtype.numpy)
    dims = [int_value(d) for d in type_.dims]
    return onnx.helper.make_tensor_type_proto(
        code, [d if d is not None else str(e) for d, e in zip(dims, type_.dims, strict=True)]
    )
