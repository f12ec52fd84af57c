"""Captured programs that need none of PyTorch's own, slow, functionalization.

An operator that writes to its first argument (``relu_``) is its functional twin (``relu``) where
that argument is computed by the program, shares its memory with nothing, and is not used later.
"""

import torch
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from treadle.frontend.torch.converters import CONVERTERS


def is_functional(program: ExportedProgram) -> bool:
    """Whether every operator of a program has a converter, and none writes to what others see."""
    outputs = program.graph_signature.output_specs
    if any(o.kind is not OutputKind.USER_OUTPUT for o in outputs):
        return False
    order = {node: i for i, node in enumerate(program.graph.nodes)}
    calls = [n for n in program.graph.nodes if n.op == "call_function"]
    return all(_is_plain(node, order) for node in calls)


def functional_name(target: OpOverload) -> str:
    """The name of an operator, or of the functional twin of one that writes to its argument."""
    return str(target).replace("_.", ".", 1) if _writes(target) else str(target)


def _is_plain(node: fx.Node, order: dict[fx.Node, int]) -> bool:
    target = node.target
    if not isinstance(target, OpOverload) or functional_name(target) not in CONVERTERS:
        return False
    if not _writes(target):
        return True
    source = node.args[0]
    if not isinstance(source, fx.Node) or not _is_fresh(source):
        return False
    return all(
        user is node or (order[user] < order[node] and _is_fresh(user)) for user in source.users
    )


def _writes(target: OpOverload) -> bool:
    return target._schema.is_mutable  # pyright: ignore[reportPrivateUsage]


def _is_fresh(node: fx.Node) -> bool:
    """Whether a node computes a tensor of its own, which is no view and has been none."""
    target = node.target
    if not isinstance(target, OpOverload) or not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    schema = target._schema  # pyright: ignore[reportPrivateUsage]
    if schema.is_mutable:
        return _is_fresh(node.args[0]) if isinstance(node.args[0], fx.Node) else False
    # What may be a view (contiguous, reshape, dropout at inference) may return its argument.
    return target.namespace == "aten" and not target.is_view and str(target) not in _MAYBE_VIEWS


_MAYBE_VIEWS = frozenset(
    f"aten.{name}"
    for name in (
        "contiguous.default",
        "dropout.default",
        "flatten.using_ints",
        "reshape.default",
        "to.dtype",
        "to.device",
        "to.dtype_layout",
        "to.other",
        "type_as.default",
        "expand_as.default",
        "view_as.default",
        "reshape_as.default",
    )
)
