"""A module: functions of both kinds beside the constants that they name."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from treadle.base.errors import InternalError
from treadle.ir.graph import GraphFunction
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType

Function = GraphFunction | TensorFunction
F = TypeVar("F", GraphFunction, TensorFunction)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor known at compile time. ``array`` has the type's shape and dtype and must not be
    written to.
    """

    type: TensorType
    array: np.ndarray


@dataclass(frozen=True, eq=False)
class Module:
    """Functions by name, in order, and constants by name. The first graph function named ``main``
    is the usual entry.
    """

    functions: Mapping[str, Function] = field(default_factory=dict[str, Function])
    constants: Mapping[str, Constant] = field(default_factory=dict[str, Constant])

    @cached_property
    def graph_functions(self) -> tuple[GraphFunction, ...]:
        """The functions on tensors."""
        return tuple(f for f in self.functions.values() if isinstance(f, GraphFunction))

    @cached_property
    def tensor_functions(self) -> tuple[TensorFunction, ...]:
        """The functions on buffers."""
        return tuple(f for f in self.functions.values() if isinstance(f, TensorFunction))

    def graph(self, name: str) -> GraphFunction:
        """The graph function of that name."""
        found = self.functions.get(name)
        if not isinstance(found, GraphFunction):
            raise InternalError(f"the module has no graph function '{name}'")
        return found

    def tensor(self, name: str) -> TensorFunction:
        """The tensor function of that name."""
        found = self.functions.get(name)
        if not isinstance(found, TensorFunction):
            raise InternalError(f"the module has no tensor function '{name}'")
        return found

    def with_functions(self, functions: Iterable[Function]) -> "Module":
        """A module of other functions over the same constants."""
        return Module({f.name: f for f in functions}, self.constants)

    def with_constants(self, constants: Mapping[str, Constant]) -> "Module":
        """The same functions over other constants."""
        return Module(self.functions, constants)

    def map_graph_functions(self, change: Callable[[GraphFunction], GraphFunction]) -> "Module":
        """Change every graph function; the rest stays."""
        return self._map(GraphFunction, change)

    def map_tensor_functions(self, change: Callable[[TensorFunction], TensorFunction]) -> "Module":
        """Change every tensor function; the rest stays."""
        return self._map(TensorFunction, change)

    def _map(self, kind: type[F], change: Callable[[F], F]) -> "Module":
        changed = {f.name: change(f) if isinstance(f, kind) else f for f in self.functions.values()}
        if all(changed[name] is f for name, f in self.functions.items()):
            return self
        return Module({f.name: f for f in changed.values()}, self.constants)

    def __str__(self) -> str:
        from treadle.ir.printer import module_text  # noqa: PLC0415  (the printer knows every node)

        return module_text(self)
