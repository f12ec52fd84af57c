"""Check that programs keep the rules of the IR: one table of checks per level."""

from collections.abc import Callable
from types import MappingProxyType

from treadle.base.errors import VerifyError
from treadle.ir.graph import GraphFunction
from treadle.ir.level import Level, level_of
from treadle.ir.module import Module
from treadle.ir.tensor import TensorFunction
from treadle.ir.verify import blocks, dimensions, graph, joints, tensor

__all__ = [
    "GRAPH_CHECKS",
    "TENSOR_CHECKS",
    "verify",
    "verify_graph_function",
    "verify_tensor_function",
]

GraphCheck = Callable[[GraphFunction, Module], None]
TensorCheck = Callable[[TensorFunction], None]

GRAPH_CHECKS: tuple[GraphCheck, ...] = (
    graph.check_names,
    graph.check_symbols,
    graph.check_constants,
    graph.check_calls,
    graph.check_types,
    dimensions.check_dimensions,
    joints.check_recursion,
    joints.check_joints,
)

_EVERY = (
    tensor.check_names,
    tensor.check_scopes,
    tensor.check_types,
    tensor.check_inputs,
    tensor.check_updates,
)
_BLOCKS = (blocks.check_independence, blocks.check_domains)

TENSOR_CHECKS = MappingProxyType[Level, tuple[TensorCheck, ...]](
    {
        Level.COORDINATE: (*_EVERY, *_BLOCKS),
        Level.POSITION: (*_EVERY, *_BLOCKS),
        Level.LOOP: (*_EVERY, *_BLOCKS),
        Level.DEVICE: (*_EVERY, tensor.check_registers),
    }
)


def verify(module: Module) -> None:
    """Check every function of a module.

    Raises:
        VerifyError: E02xx, with the line that breaks a rule.
    """
    for name, function in module.functions.items():
        if name != function.name:
            raise VerifyError("E0201", f"the function '{function.name}' is filed as '{name}'")
        if isinstance(function, TensorFunction):
            verify_tensor_function(function)
        else:
            verify_graph_function(function, module)


def verify_graph_function(function: GraphFunction, module: Module) -> None:
    """Check one graph function of a module.

    Raises:
        VerifyError: E02xx, with the line that breaks a rule.
    """
    for check in GRAPH_CHECKS:
        check(function, module)


def verify_tensor_function(function: TensorFunction) -> None:
    """Check one loop program.

    Raises:
        VerifyError: E02xx, with the line that breaks a rule.
    """
    for check in TENSOR_CHECKS[level_of(function)]:
        check(function)
