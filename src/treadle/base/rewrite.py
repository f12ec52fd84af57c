"""The one way to rewrite: a ``Rewriter`` visits nodes by class and rebuilds what changed."""

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Protocol, runtime_checkable

from treadle.base.node import field_names


@runtime_checkable
class Tree(Protocol):
    """What has children and can be rebuilt with others, such as an interned expression."""

    @property
    def children(self) -> tuple[Any, ...]:
        """The parts that a rewriter visits."""
        ...

    def with_children(self, children: tuple[Any, ...]) -> Any:  # noqa: ANN401
        """The same node over other children."""
        ...


@cache
def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


@cache
def _handler(rewriter: type, node: type) -> Callable[[Any, Any], Any] | None:
    for cls in node.__mro__:
        found = getattr(rewriter, f"rewrite_{_snake(cls.__name__)}", None)
        if found is not None:
            return found
    return None


class Rewriter:
    """Rewrite a tree of nodes bottom-up by default, or as methods say.

    A subclass defines ``rewrite_<class>`` (snake case, looked up along the bases of the node's
    class) for the nodes that it treats; such a method calls ``self.generic(node)`` to go on below.
    A node that stands in a tuple may become ``None`` (it is removed), another node, or a tuple of
    nodes (they are spliced in).
    """

    def rewrite(self, node: Any) -> Any:  # noqa: ANN401
        """Return what ``node`` becomes; the same object when nothing below changed."""
        if isinstance(node, tuple):
            return self._rewrite_tuple(node)
        handler = _handler(type(self), type(node))
        return self.generic(node) if handler is None else handler(self, node)

    def generic(self, node: Any) -> Any:  # noqa: ANN401
        """Rewrite the parts of ``node`` and rebuild it only when one of them changed."""
        if isinstance(node, Tree):
            children = node.children
            rewritten = tuple([self.rewrite(child) for child in children])
            same = all(a is b for a, b in zip(children, rewritten, strict=True))
            return node if same else node.with_children(rewritten)
        if not is_dataclass(node):
            return node
        changes: dict[str, Any] = {}
        for name in field_names(type(node)):
            old = getattr(node, name)
            new = self.rewrite(old)
            if new is not old:
                changes[name] = new
        return replace_fields(node, **changes) if changes else node

    def _rewrite_tuple(self, nodes: tuple[Any, ...]) -> tuple[Any, ...]:
        result: list[Any] = []
        changed = False
        for old in nodes:
            new = self.rewrite(old)
            changed = changed or new is not old
            if isinstance(new, tuple) and not isinstance(old, tuple):
                result.extend(new)
            elif new is not None or old is None:
                result.append(new)
        return tuple(result) if changed else nodes


def replace_fields(node: Any, **changes: Any) -> Any:  # noqa: ANN401
    """A copy of a node with some fields exchanged."""
    values = {name: getattr(node, name) for name in field_names(type(node))}
    values.update(changes)
    return type(node)(**values)
