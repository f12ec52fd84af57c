"""Rewrite rules as data: functions from pattern variables to a pattern and its result."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, NewType

import numpy as np

from treadle.base.errors import InternalError
from treadle.expr.dtype import DTYPES, DType, boolean, i64
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import Apply, Const, Expr, Var, transform

Rewrite = tuple[Expr, Expr] | tuple[Expr, Expr, Expr]
Condition = NewType("Condition", Expr)
"""Annotates a pattern variable that is a truth value, whatever the type of the others."""

ON: dict[str, tuple[DType, ...]] = {
    "index": (i64,),
    "integer": tuple(t for t in DTYPES if t.is_int),
    "float": tuple(t for t in DTYPES if t.is_float),
    "bool": (boolean,),
    "number": tuple(t for t in DTYPES if not t.is_bool),
    "signed": tuple(t for t in DTYPES if t.is_float or t.kind == "int"),
    "bits": tuple(t for t in DTYPES if not t.is_float),
    "any": DTYPES,
}
ON.update({f"{name} vector": tuple(t.vector(4) for t in ts) for name, ts in ON.items()})


@dataclass(frozen=True, slots=True)
class Traced:
    """A rule at one type: expressions over variables; ``constants`` match constants only."""

    pattern: Apply
    result: Expr
    condition: Expr | None
    variables: tuple[Var, ...]
    constants: frozenset[Var]

    def match(self, x: Apply) -> dict[Var, Expr] | None:
        """The pattern variables' values where ``x`` has the pattern's form."""
        found: dict[Var, Expr] = {}
        return found if _match(self.pattern, x, found, self.constants) else None


@dataclass(frozen=True, slots=True)
class Case:
    """One trial of a rule: ``pattern`` and ``result`` over variables with values in ``env``."""

    pattern: Expr
    result: Expr
    env: dict[Var, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rewrite that keeps the value of what it applies to, for operands of the types ``on``."""

    name: str
    on: str
    function: Callable[..., Rewrite]

    def at(self, dtype: DType) -> Traced:
        """The rule for operands of ``dtype``."""
        return _trace(self, dtype)

    def applies_to(self, dtype: DType) -> bool:
        """Whether the rule holds for ``dtype``; what holds for a scalar holds lane by lane."""
        if self.on.endswith(" vector"):
            return dtype.lanes > 1 and dtype.scalar in ON[self.on.removesuffix(" vector")]
        return dtype.scalar in ON[self.on]

    @property
    def pattern(self) -> Expr:
        """What it matches, at the first of its types."""
        return self.at(ON[self.on][0]).pattern

    @property
    def result(self) -> Expr:
        """What it makes of it, at the first of its types."""
        return self.at(ON[self.on][0]).result

    @property
    def condition(self) -> Expr | None:
        """What must hold of the pattern variables."""
        return self.at(ON[self.on][0]).condition

    def draw(self, source: Random) -> Case | None:
        """A trial with random values that meet the condition; ``None`` if none was found.

        ``source`` may be a seeded generator, or hypothesis's ``randoms()``, which shrinks.
        """
        dtype = source.choice(ON[self.on])
        traced = self.at(dtype)
        for _ in range(20):
            env = {v: _value(v.dtype, source) for v in traced.variables}
            if traced.condition is None or evaluate(traced.condition, env).all():
                return Case(traced.pattern, traced.result, env)
        return None


def rule(on: str = "index") -> Callable[[Callable[..., Rewrite]], Rule]:
    """Make a function of pattern variables a rule for operands of types ``on`` (a key of ``ON``).

    A parameter annotated ``Expr`` stands for any operand, ``Const`` for a constant, ``Condition``
    for a truth value; one annotated ``DType`` receives the type at which the rule is traced, and
    then the others are scalars of it.
    """

    def make(function: Callable[..., Rewrite]) -> Rule:
        return Rule(function.__name__, on, function)

    return make


@cache
def _trace(rule: Rule, dtype: DType) -> Traced:
    parameters = inspect.signature(rule.function).parameters.values()
    scalars = any(p.annotation is DType for p in parameters)
    of_operands = dtype.scalar if scalars else dtype
    arguments: list[Expr | DType] = []
    for p in parameters:
        if p.annotation is DType:
            arguments.append(dtype)
        elif p.annotation is Condition:
            truth = boolean if dtype.lanes == 1 else boolean.vector(dtype.lanes)
            arguments.append(Var(p.name, truth))
        else:
            arguments.append(Var(p.name, of_operands))
    made = rule.function(*arguments)
    pattern = made[0]
    if not isinstance(pattern, Apply):
        raise InternalError(f"the pattern of rule {rule.name} matches everything: {pattern}")
    variables = tuple(a for a in arguments if isinstance(a, Var))
    constants = frozenset(
        a
        for a, p in zip(arguments, parameters, strict=True)
        if p.annotation is Const and isinstance(a, Var)
    )
    return Traced(pattern, made[1], made[2] if len(made) == 3 else None, variables, constants)


def instantiate(x: Expr, values: dict[Var, Expr]) -> Expr:
    """``x`` with pattern variables exchanged for what they matched; constants fold."""
    return transform(x, lambda e: values.get(e) if isinstance(e, Var) else None)


_COMMUTES = frozenset({"add", "mul", "and", "or", "xor", "eq", "ne", "min", "max"})


def _match(pattern: Expr, x: Expr, found: dict[Var, Expr], constants: frozenset[Var]) -> bool:
    if isinstance(pattern, Var):
        known = found.get(pattern)
        if known is not None:
            return known is x
        if x.dtype is not pattern.dtype or (pattern in constants and not isinstance(x, Const)):
            return False
        found[pattern] = x
        return True
    if not isinstance(pattern, Apply):
        return pattern is x
    if isinstance(x, Const) and pattern.fn == "broadcast" and x.dtype is pattern.dtype:
        return _match(pattern.args[0], Const(x.value, x.dtype.scalar), found, constants)
    if not isinstance(x, Apply) or x.fn != pattern.fn or x.dtype is not pattern.dtype:
        return False
    if pattern.fn not in _COMMUTES:
        return all(
            _match(p, a, found, constants) for p, a in zip(pattern.args, x.args, strict=True)
        )
    before = dict(found)
    for a, b in (x.args, x.args[::-1]):
        found.clear()
        found.update(before)
        if _match(pattern.args[0], a, found, constants) and _match(
            pattern.args[1], b, found, constants
        ):
            return True
    return False


_SPECIAL_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -2.5, float("inf"), float("-inf"), float("nan"))


def _value(dtype: DType, source: Random) -> Any:  # noqa: ANN401
    """A random value of a type: small indices, every value of narrow integers, awkward floats."""
    if dtype.lanes > 1:
        return np.stack([_value(dtype.scalar, source) for _ in range(dtype.lanes)], axis=-1)
    if dtype.is_bool:
        return np.asarray(source.random() < 0.5)
    if dtype.is_float:
        value: float = source.choice((*_SPECIAL_FLOATS, source.uniform(-100, 100)))
        with np.errstate(all="ignore"):
            return np.asarray(value).astype(dtype.numpy)
    if dtype is i64:
        return np.asarray(source.choice((0, 1, -1, source.randint(-40, 40))), np.int64)
    low = 0 if dtype.kind == "uint" else -(1 << (dtype.bits - 1))
    span = 1 << dtype.bits
    drawn = source.choice((0, 1, span - 1, span >> 1, source.randrange(span)))
    return np.asarray(low + drawn if dtype.kind == "uint" else low + drawn % span, dtype.numpy)
