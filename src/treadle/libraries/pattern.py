"""Patterns of dataflow: what a part of a graph looks like that a function of a library computes.

A pattern is a value. ``wildcard()`` stands for any operand, ``is_const()`` for a known number,
``is_op(Relu, x)`` for an operation on what other patterns stand for, and ``a | b`` for either. The
methods of a pattern narrow it: ``has_dtype``, ``has_shape``, ``has_fields``, ``where``. The terms
are those of the published pattern languages of dataflow graphs.

Dimensions are variables of the pattern (``dims("m k n")``). A variable takes the first extent that
it stands at; where it stands again the extent has to be shown to be the same. So one pattern holds
for fixed and for symbolic shapes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import EllipsisType, MappingProxyType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from treadle.expr.dtype import DType
from treadle.expr.scalar import Expr, Var, as_expr
from treadle.ir.op import Op

if TYPE_CHECKING:
    from treadle.libraries.match import Match


@dataclass(frozen=True, slots=True)
class Leading:
    """The dimensions that come before the others, all of them: ``size`` is their product."""

    size: Var


Dim: TypeAlias = "Expr | Leading | EllipsisType"
DimLike: TypeAlias = "Expr | int | Leading | EllipsisType"
Test: TypeAlias = "Callable[[Match], bool]"


@dataclass(frozen=True, eq=False)
class Pattern:
    """Any value. Two patterns are the same only if they are one object: one that stands in two
    places stands for one value.

    ``dtype`` and ``shape`` are what its type has to be, ``None`` where that does not matter.
    ``tests`` are asked once everything below has matched.
    """

    dtype: DType | None = field(default=None, kw_only=True)
    shape: tuple[Dim, ...] | None = field(default=None, kw_only=True)
    tests: tuple[Test, ...] = field(default=(), kw_only=True)

    @property
    def parts(self) -> "tuple[Pattern, ...]":
        """The patterns that this one is made of."""
        return ()

    def has_dtype(self, dtype: DType) -> Self:
        """The same, of this element type only."""
        return replace(self, dtype=dtype)

    def has_shape(self, *dims: DimLike) -> Self:
        """The same, of this shape only: numbers, variables, expressions over variables that stand
        earlier, ``...`` for any one extent; the first may be ``leading(m)``.
        """
        return replace(self, shape=tuple(_dim(d) for d in dims))

    def where(self, test: Test) -> Self:
        """The same, only where ``test`` holds of what has matched so far."""
        return replace(self, tests=(*self.tests, test))

    def __or__(self, other: "Pattern") -> "Either":
        return Either((self, other))


@dataclass(frozen=True, eq=False)
class Wildcard(Pattern):
    """Any value or constant."""


@dataclass(frozen=True, eq=False)
class IsConst(Pattern):
    """A number that is known when the program is compiled, the same in all elements of a tensor if
    ``value`` is given.
    """

    value: float | None = None


@dataclass(frozen=True, eq=False)
class IsOp(Pattern):
    """The result of an operation; ``fields`` are what its attributes have to be, values or tests of
    them.
    """

    op: type[Op]
    args: tuple[Pattern, ...]
    fields: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def parts(self) -> tuple[Pattern, ...]:
        """The operands."""
        return self.args

    def has_fields(self, **fields: Any) -> "IsOp":  # noqa: ANN401  (whatever an operation holds)
        """The same, with these attributes only: each a value, or a function that tells whether a
        value will do.
        """
        return replace(self, fields={**self.fields, **fields})


@dataclass(frozen=True, eq=False)
class Either(Pattern):
    """What the first of these patterns stands for that fits."""

    choices: tuple[Pattern, ...]

    @property
    def parts(self) -> tuple[Pattern, ...]:
        """The choices."""
        return self.choices


def wildcard() -> Wildcard:
    """Any operand."""
    return Wildcard()


def tensor(dtype: DType, *dims: DimLike) -> Wildcard:
    """Any operand of this element type and shape."""
    return Wildcard().has_dtype(dtype).has_shape(*dims)


def is_const(value: float | None = None) -> IsConst:
    """A constant; with ``value``, one that is this number in every element."""
    return IsConst(value)


def is_op(op: type[Op], *args: Pattern, **fields: Any) -> IsOp:  # noqa: ANN401
    """The result of ``op`` on operands that fit ``args``, with attributes that fit ``fields``."""
    return IsOp(op, args, fields)


def dims(names: str) -> tuple[Var, ...]:
    """Variables for dimensions, one for each word of ``names``."""
    return tuple(Var(name) for name in names.split())


def leading(size: Var) -> Leading:
    """All dimensions but those that follow; ``size`` is how many elements they have together."""
    return Leading(size)


def inside(pattern: Pattern) -> tuple[Pattern, ...]:
    """The pattern and all that it is made of, each once, outer ones first."""
    found = {pattern: None}
    for part in pattern.parts:
        found.update(dict.fromkeys(inside(part)))
    return tuple(found)


def _dim(d: DimLike) -> Dim:
    return d if isinstance(d, Leading | EllipsisType) else as_expr(d)
