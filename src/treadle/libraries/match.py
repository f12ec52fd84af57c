"""Find a pattern in a graph function: which values it stands for, with all ways to try."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np

from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Const, Expr, Var, const, eq, substitute, variables
from treadle.expr.simplify import simplify
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Literal, Value
from treadle.ir.module import Constant
from treadle.ir.op import Op
from treadle.ir.types import TensorType
from treadle.libraries.pattern import Dim, Either, IsConst, IsOp, Leading, Pattern
from treadle.ops import Add, BitwiseAnd, BitwiseOr, BitwiseXor, Maximum, Minimum, Mul

_COMMUTATIVE = (Add, Mul, Maximum, Minimum, BitwiseAnd, BitwiseOr, BitwiseXor)


@dataclass(frozen=True, slots=True)
class Match:
    """What the parts of a pattern stand for.

    ``atoms`` are operands and results by pattern, ``sizes`` the extents of the pattern's variables,
    ``bindings`` the operations by pattern.
    """

    atoms: Mapping[Pattern, Atom] = field(default_factory=dict[Pattern, Atom])
    sizes: Mapping[Var, Expr] = field(default_factory=dict[Var, Expr])
    bindings: Mapping[Pattern, Binding] = field(default_factory=dict[Pattern, Binding])

    def type(self, pattern: Pattern) -> TensorType:
        """The type of what a part stands for."""
        found = self.atoms[pattern].type
        assert isinstance(found, TensorType)
        return found

    def size(self, dim: Var) -> Expr:
        """The extent that a variable stands for: a constant, or an expression over the symbols of
        the program.
        """
        return self.sizes[dim]

    def op(self, pattern: Pattern) -> Op:
        """The operation, with its attributes, that an ``is_op`` stands for."""
        return self.bindings[pattern].op


@dataclass(frozen=True)
class Matcher:
    """Looks for patterns in one graph function."""

    function: GraphFunction
    constants: Mapping[str, Constant]
    facts: Facts

    @cached_property
    def made_by(self) -> dict[Value, Binding]:
        """The binding that each value comes from."""
        return {v: b for b in self.function.body for v in b.outputs}

    @cached_property
    def uses(self) -> dict[Value, int]:
        """How often each value is used, as a result of the function too."""
        count: dict[Value, int] = {}
        for a in (*(a for b in self.function.body for a in b.args), *self.function.results):
            if isinstance(a, Value):
                count[a] = count.get(a, 0) + 1
        return count

    def match(self, pattern: Pattern, root: Binding) -> Match | None:
        """The first way in which ``pattern`` stands for the only result of ``root``, such that
        nothing else needs what is computed on the way.
        """
        if len(root.outputs) != 1:
            return None
        found = self._ways(pattern, root.outputs[0], Match())
        return next((m for m in found if self._is_closed(m, root)), None)

    def _is_closed(self, m: Match, root: Binding) -> bool:
        inner = dict.fromkeys(b for b in m.bindings.values() if b is not root)
        if root not in m.bindings.values():
            return False
        inside = [a for b in (root, *inner) for a in b.args]
        return all(
            len(b.outputs) == 1 and self.uses[b.outputs[0]] == inside.count(b.outputs[0])
            for b in inner
        )

    def _ways(self, p: Pattern, a: Atom, m: Match) -> Iterator[Match]:
        """The ways in which ``p`` stands for ``a`` beside what matched already."""
        if p in m.atoms:
            if _same(m.atoms[p], a):
                yield m
            return
        for inner in self._inner_ways(p, a, m):
            found = replace(inner, atoms={**inner.atoms, p: a})
            fitted = self._fits_type(p, a, found)
            if fitted is not None and all(test(fitted) for test in p.tests):
                yield fitted

    def _inner_ways(self, p: Pattern, a: Atom, m: Match) -> Iterator[Match]:
        """The ways for what ``p`` is made of; its own type and tests are not looked at."""
        if isinstance(p, Either):
            for choice in p.choices:
                yield from self._ways(choice, a, m)
        elif isinstance(p, IsOp):
            binding = self.made_by.get(a) if isinstance(a, Value) else None
            if binding is not None and self._fits_op(p, binding):
                yield from self._operands(p, binding, m)
        elif not isinstance(p, IsConst) or self._fits_constant(p, a):
            yield m

    def _operands(self, p: IsOp, binding: Binding, m: Match) -> Iterator[Match]:
        orders = [binding.args]
        if isinstance(binding.op, _COMMUTATIVE):
            orders.append(binding.args[::-1])
        for order in orders:
            ways: list[Match] = [replace(m, bindings={**m.bindings, p: binding})]
            for part, a in zip(p.args, order, strict=True):
                ways = [w for before in ways for w in self._ways(part, a, before)]
            yield from ways

    def _fits_op(self, p: IsOp, binding: Binding) -> bool:
        if type(binding.op) is not p.op or len(binding.args) != len(p.args):
            return False
        return all(
            expected(found) if callable(expected) else bool(found == expected)
            for name, expected in p.fields.items()
            for found in (getattr(binding.op, name),)
        )

    def _fits_constant(self, p: IsConst, a: Atom) -> bool:
        if isinstance(a, Literal) and isinstance(a.value, Const):
            return p.value is None or a.value.value == p.value
        if isinstance(a, ConstantRef):
            return p.value is None or bool(np.all(self.constants[a.name].array == p.value))
        return False

    def _fits_type(self, p: Pattern, a: Atom, m: Match) -> Match | None:
        type_ = a.type
        if not isinstance(type_, TensorType):
            return None
        if p.dtype is not None and type_.dtype != p.dtype:
            return None
        if p.shape is None:
            return m
        sizes = fit_shape(p.shape, type_, m.sizes, self.facts)
        return None if sizes is None else replace(m, sizes=sizes)


def _same(a: Atom, b: Atom) -> bool:
    if isinstance(a, Value):
        return a is b
    if isinstance(a, ConstantRef):
        return isinstance(b, ConstantRef) and a.name == b.name
    return isinstance(a, Literal) and isinstance(b, Literal) and a.value is b.value


def fit_shape(
    shape: tuple[Dim, ...], type_: TensorType, sizes: Mapping[Var, Expr], facts: Facts
) -> dict[Var, Expr] | None:
    """The extents of a pattern's variables once a tensor of ``type_`` has the shape of the pattern;
    ``None`` where it is not shown to have it.
    """
    if type_.shape is None:
        return None
    dims = type_.shape
    if shape and isinstance(shape[0], Leading):
        count = len(dims) - len(shape) + 1
        if count < 0:
            return None
        shape = (shape[0].size, *shape[1:])
        dims = (simplify(prod(dims[:count], start=const(1)), facts), *dims[count:])
    if len(shape) != len(dims):
        return None
    found = dict(sizes)
    for wanted, d in zip(shape, dims, strict=True):
        if isinstance(wanted, Var) and wanted not in found:
            found[wanted] = d
        elif isinstance(wanted, Expr) and not _is_extent(wanted, d, found, facts):
            return None
    return found


def _is_extent(wanted: Expr, d: Expr, sizes: Mapping[Var, Expr], facts: Facts) -> bool:
    known = all(v in sizes for v in variables(wanted))
    return known and prove(eq(substitute(wanted, sizes), d), facts)
