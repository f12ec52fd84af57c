"""The look before the import: which operators of a model nothing here can convert."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from onnx import GraphProto, ModelProto, NodeProto

from treadle.base.errors import ModelImportError
from treadle.frontend.onnx.bodies import Bodies, Opsets, domain_of, instantiate, opsets_of
from treadle.frontend.onnx.converter import Catalogue


@dataclass(eq=False)
class _Survey:
    bodies: Bodies
    catalogue: Catalogue
    missing: dict[tuple[str, str, int], list[str]] = field(
        default_factory=dict[tuple[str, str, int], list[str]]
    )

    def visit(self, nodes: Iterable[NodeProto], opsets: Opsets, depth: int = 0) -> None:
        for node in nodes:
            self._node(node, opsets, depth)
            for graph in subgraphs(node):
                self.visit(graph.node, opsets, depth)

    def _node(self, node: NodeProto, opsets: Opsets, depth: int) -> None:
        local = self.bodies.local(node)
        version = opsets.get(domain_of(node.domain), 1)
        if local is None and self.catalogue.find(node.domain, node.op_type, version) is not None:
            return
        body = local or self.bodies.plain(node, opsets)
        if body is None:
            if not self.bodies.has_standard(node, opsets):
                key = (domain_of(node.domain), node.op_type, version)
                self.missing.setdefault(key, []).append(node.name)
        elif depth < 32:
            self.visit(instantiate(body, node), opsets_of(body.opset_import), depth + 1)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def users(graph: GraphProto, name: str) -> set[str]:
    """The operators that use a value of a graph; its outputs count as one of no name."""
    found = {n.op_type for n in graph.node if name in n.input}
    for node in graph.node:
        for inner in subgraphs(node):
            found |= users(inner, name)
    return found | ({""} if any(o.name == name for o in graph.output) else set())


def check_operators(model: ModelProto, catalogue: Catalogue, source: str) -> None:
    """Check that every operator of a model, in subgraphs and functions too, can be converted.

    Raises:
        ModelImportError: E0601 with all that cannot.
    """
    survey = _Survey(Bodies(model), catalogue)
    survey.visit(model.graph.node, opsets_of(model.opset_import))
    if survey.missing:
        raise ModelImportError(
            "E0601",
            f"{len(survey.missing)} operators of the model are not supported",
            place=source,
            notes=[_note(*key, names) for key, names in sorted(survey.missing.items(), key=str)],
            help="export the model without them, or cut it where they stand",
        )


def _note(domain: str, operator: str, version: int, names: list[str]) -> str:
    listed = ", ".join(repr(n) for n in names[:4] if n)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    place = f": node {listed}{more}" if listed else ""
    return f"{domain}.{operator}, opset {version}, {len(names)} times{place}"
