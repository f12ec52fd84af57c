"""Functions of ONNX: those of the model, and operators that ONNX itself defines by other
operators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast

import onnx
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TypeProto
from onnx.defs import SchemaError

from treadle.frontend.onnx.converter import DOMAIN
from treadle.frontend.onnx.rules import broken

Opsets = Mapping[str, int]


class Schema(Protocol):
    """What is used of ``onnx.defs.OpSchema``, which has no complete types."""

    has_function: bool
    has_context_dependent_function: bool
    function_opset_versions: Sequence[int]
    context_dependent_function_opset_versions: Sequence[int]
    attributes: Mapping[str, "SchemaAttribute"]

    def get_function_with_opset_version(self, version: int, /) -> bytes | FunctionProto:
        """The body at a version."""
        ...

    def get_context_dependent_function_with_opset_version(
        self, version: int, node: bytes, types: list[bytes], /
    ) -> bytes:
        """The body at a version for a node and the types of its operands, serialized."""
        ...


class SchemaAttribute(Protocol):
    """What is used of an attribute of a schema."""

    default_value: AttributeProto


def domain_of(name: str) -> str:
    """A domain's full name; ONNX's own may be left out."""
    return name or DOMAIN


def opsets_of(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """The version of each domain that is imported."""
    return {domain_of(o.domain): o.version for o in imports}


@dataclass(frozen=True, eq=False)
class Bodies:
    """Finds the body that a node stands for."""

    model: ModelProto

    @cached_property
    def _local(self) -> dict[tuple[str, str], FunctionProto]:
        return {(domain_of(f.domain), f.name): f for f in self.model.functions}

    def local(self, node: NodeProto) -> FunctionProto | None:
        """The function of the model that a node calls."""
        return self._local.get((domain_of(node.domain), node.op_type))

    def schema(self, node: NodeProto, opsets: Opsets) -> Schema | None:
        """ONNX's definition of a node's operator at the version that is imported."""
        version = opsets.get(domain_of(node.domain), 1)
        try:
            return cast("Schema", onnx.defs.get_schema(node.op_type, version, node.domain))
        except (SchemaError, TypeError):  # unknown, or a damaged version or name
            return None

    def has_standard(self, node: NodeProto, opsets: Opsets) -> bool:
        """Whether ONNX defines the operator by others."""
        schema = self.schema(node, opsets)
        return schema is not None and (schema.has_function or schema.has_context_dependent_function)

    def plain(self, node: NodeProto, opsets: Opsets) -> FunctionProto | None:
        """ONNX's body of an operator, where it is the same for all types of operands."""
        schema = self.schema(node, opsets)
        if schema is None or not schema.has_function:
            return None
        version = _newest(schema.function_opset_versions, opsets)
        if version is None:
            return None
        return _with_defaults(schema, _function(schema.get_function_with_opset_version(version)))

    def standard(
        self, node: NodeProto, opsets: Opsets, types: Sequence[TypeProto]
    ) -> FunctionProto | None:
        """ONNX's body of an operator for operands of some types."""
        schema = self.schema(node, opsets)
        if schema is None:
            return None
        if schema.has_context_dependent_function:
            version = _newest(schema.context_dependent_function_opset_versions, opsets)
            if version is not None:
                try:
                    data = schema.get_context_dependent_function_with_opset_version(
                        version, node.SerializeToString(), [t.SerializeToString() for t in types]
                    )
                except (RuntimeError, ValueError) as error:
                    said = str(error).partition("\n")[0]
                    raise broken(
                        f"ONNX cannot say what {node.op_type} means here: {said}"
                    ) from error
                return _with_defaults(schema, FunctionProto.FromString(data)) if data else None
        return self.plain(node, opsets)


def _function(data: bytes | FunctionProto) -> FunctionProto:
    return FunctionProto.FromString(data) if isinstance(data, bytes) else data


def _with_defaults(schema: Schema, function: FunctionProto) -> FunctionProto:
    """The function with the defaults of the operator's attributes."""
    result = FunctionProto()
    result.CopyFrom(function)
    present = {a.name for a in result.attribute_proto}
    for name, attribute in schema.attributes.items():
        if name not in present and attribute.default_value.name:
            result.attribute_proto.append(attribute.default_value)
    return result


def _newest(versions: Sequence[int], opsets: Opsets) -> int | None:
    current = opsets.get(DOMAIN)
    fitting = [v for v in versions if current is None or v <= current]
    return max(fitting or versions, default=None)


def instantiate(function: FunctionProto, node: NodeProto) -> list[NodeProto]:
    """The nodes of a function with the attributes of a call in place of its attribute
    parameters."""
    given = {a.name: a for a in function.attribute_proto}
    given.update({a.name: a for a in node.attribute})
    return [_with_attributes(inner, given) for inner in function.node]


def _with_attributes(node: NodeProto, given: Mapping[str, AttributeProto]) -> NodeProto:
    result = NodeProto()
    result.CopyFrom(node)
    del result.attribute[:]
    for attribute in node.attribute:
        found = _resolved(attribute, given)
        if found is not None:
            result.attribute.append(found)
    return result


def _resolved(
    attribute: AttributeProto, given: Mapping[str, AttributeProto]
) -> AttributeProto | None:
    """An attribute with references exchanged for what they name; ``None`` if that was left out."""
    result = AttributeProto()
    if attribute.ref_attr_name:
        if attribute.ref_attr_name not in given:
            return None
        result.CopyFrom(given[attribute.ref_attr_name])
        result.name = attribute.name
        return result
    result.CopyFrom(attribute)
    for graph in ([result.g] if result.HasField("g") else []) + list(result.graphs):
        nodes = [_with_attributes(n, given) for n in graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
    return result
