"""Immutable nodes: refused assignments for the type checker, plain slots at run time."""

from dataclasses import dataclass, fields
from functools import cache
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, eq_default=False)
def node(cls: type[T]) -> type[T]:
    """Make ``cls`` an immutable IR node, compared by identity."""
    return dataclass(slots=True, eq=False, weakref_slot=True)(cls)


@cache
def field_names(cls: type) -> tuple[str, ...]:
    """The names of the fields of a node class, in order of declaration."""
    return tuple(f.name for f in fields(cls))
