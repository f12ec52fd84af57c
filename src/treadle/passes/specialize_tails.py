"""Give full tiles a version without conditions, and short tiles versions of their own.

A tile of unrolled or vectorized loops under a condition such as ``i0 * 6 + i1 < m`` is split where
the rest of the condition's variables are known: when the whole tile lies inside, the condition is
dropped; otherwise, if it limits an unrolled loop to ``rest`` of its iterations, one version per
value of ``rest`` follows. What limits vector lanes stays a condition, which becomes a mask; where a
loop of the tile is annotated with ``tail="mask"``, so does the whole condition, in one version. A
serial loop whose whole body stands under a limit on its variable just ends earlier.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from treadle.expr.bounds import Facts
from treadle.expr.scalar import (
    Apply,
    Const,
    Expr,
    Var,
    const,
    eq,
    int_value,
    minimum,
    transform,
    variables,
    walk,
)
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import expressions, facts_of, statements
from treadle.ir.tensor import For, If, Let, Load, Stmt, TensorFunction
from treadle.passes.statements import Body, map_expressions, renamed_copy, simplify_body, with_body

_Key = tuple[tuple[tuple[int, int], ...], Expr]

_TILED = ("unrolled", "vectorized")

MAX_VERSIONS = 16
"""Unrolled loops of more iterations than this keep their condition per iteration."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """A condition ``inner < rest``: ``inner`` over tile loops only, ``rest`` over variables from
    outside of the tile.

    ``tile`` has the coefficient and the extent of each of the loops. Nests that walk the same tile
    name their loops differently; what they share is ``key``.
    """

    inner: Expr
    rest: Expr
    tile: tuple[tuple[int, int], ...]

    @property
    def key(self) -> _Key:
        """What makes two limits the same."""
        return self.tile, self.rest

    @property
    def largest(self) -> int:
        """The value of ``inner`` at the last corner of the tile."""
        return sum(coefficient * (extent - 1) for coefficient, extent in self.tile)


@dataclass(frozen=True, slots=True)
class _Loops:
    """The loops of a body: constant extents of those that become a tile, and the variables of the
    others, with the values that are named inside; limits of ``masked`` ones stay conditions.
    """

    tile: dict[Var, int]
    lanes: frozenset[Var]
    serial: frozenset[Var]
    masked: frozenset[Var]

    @staticmethod
    def of(body: Body) -> "_Loops":
        """The loops anywhere in ``body``."""
        loops = [s for s in statements(body) if isinstance(s, For)]
        tile = {
            s.var: e for s in loops if s.kind in _TILED and (e := int_value(s.extent)) is not None
        }
        lanes = frozenset(s.var for s in loops if s.kind == "vectorized")
        masked = frozenset(s.var for s in loops if ("tail", "mask") in s.annotations)
        names = frozenset(s.var for s in statements(body) if isinstance(s, For | Let))
        return _Loops(tile, lanes, names - frozenset(tile), masked)


def specialize_tails(function: TensorFunction) -> TensorFunction:
    """Split the tiles of ``function`` by whether they are full."""
    facts = facts_of(function)
    body = simplify_body(_clip(function.body, frozenset()), facts)
    return with_body(function, _specialize(body, facts, frozenset()))


def _clip(body: Body, lanes: frozenset[Var]) -> Body:
    """End serial and parallel loops early whose whole body stands under a limit on their variable.

    The limit must be one for all ``lanes``, the variables of the vectorized loops around.
    """
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            inner = _clip(s.body, lanes | {s.var} if s.kind == "vectorized" else lanes)
            loop = For(s.var, s.extent, inner, s.kind, s.span, s.annotations)
            result.append(_clip_loop(loop, lanes) if s.kind in ("serial", "parallel") else loop)
        elif isinstance(s, If):
            result.append(If(s.condition, _clip(s.body, lanes), _clip(s.orelse, lanes), s.span))
        else:
            result.append(s)
    return tuple(result)


def _clip_loop(loop: For, lanes: frozenset[Var]) -> For:
    while len(loop.body) == 1 and isinstance(loop.body[0], If) and not loop.body[0].orelse:
        guard = loop.body[0]
        difference = margin(guard.condition)
        linear = None if difference is None else split_linear(difference, loop.var)
        if (
            linear is None
            or int_value(linear[0]) != -1
            or {loop.var, *lanes}.intersection(variables(linear[1]))
        ):
            break
        # rest - var > 0 limits the variable to ``rest`` iterations, counted from zero.
        extent = minimum(loop.extent, simplify(linear[1]))
        loop = For(loop.var, extent, guard.body, loop.kind, loop.span, loop.annotations)
    return loop


def margin(condition: Expr) -> Expr | None:
    """An integer that is positive exactly when an inequality holds."""
    if (
        not isinstance(condition, Apply)
        or not condition.args[0].dtype.is_int
        or condition.dtype.lanes > 1
    ):
        return None
    a, b = condition.args[0], condition.args[-1]
    margins = {"lt": b - a, "gt": a - b, "le": b - a + 1, "ge": a - b + 1}
    return margins.get(condition.fn)


def _specialize(body: Body, facts: Facts, done: frozenset[_Key]) -> Body:
    """Split this body by the limits that are decided here, then those inside."""
    named = next((n for n, s in enumerate(body) if not isinstance(s, Let)), len(body))
    if named:
        return (*body[:named], *_specialize(body[named:], facts, done))
    limit = next((x for x in _limits(body) if x.key not in done), None)
    if limit is not None:
        return _split(body, limit, facts, done | {limit.key})
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For) and s.kind in ("serial", "parallel"):
            inside = facts.with_range(s.var, s.extent)
            s = For(
                s.var, s.extent, _specialize(s.body, inside, done), s.kind, s.span, s.annotations
            )
        elif isinstance(s, If):
            inside = facts.with_fact(s.condition)
            s = If(
                s.condition,
                _specialize(s.body, inside, done),
                _specialize(s.orelse, facts, done),
                s.span,
            )
        result.append(s)
    return tuple(result)


def _limits(body: Body) -> list[_Limit]:
    """The conditions inside that compare variables of a tile with what is known at this place."""
    loops = _Loops.of(body)
    found: dict[_Key, _Limit] = {}
    masked: set[_Key] = set()
    for condition in _conditions(body):
        limit = _as_limit(condition, loops)
        # A constant rest is decided by unrolling: nothing is left to learn at run time.
        if limit is not None and int_value(limit.rest) is None:
            found.setdefault(limit.key, limit)
            if loops.masked.intersection(variables(condition)):
                masked.add(limit.key)
    return [limit for key, limit in found.items() if key not in masked]


def _conditions(body: Body) -> Iterator[Expr]:
    """What statements depend on, and what their expressions select or mask by."""
    for s in statements(body):
        if isinstance(s, If):
            yield s.condition
        for x in walk(*expressions(s)):
            if isinstance(x, Apply) and x.fn == "select":
                yield x.args[0]
            elif isinstance(x, Load) and x.mask is not None:
                yield x.mask


def _as_limit(condition: Expr, loops: _Loops) -> _Limit | None:
    used = variables(condition)
    mine = [v for v in used if v in loops.tile]
    decided = bool(mine) and not any(v in loops.serial for v in used)
    difference = margin(condition) if decided else None
    if difference is None:
        return None
    inner: Expr = const(0)
    rest = simplify(difference)
    tile: list[tuple[int, int]] = []
    for var in mine:
        linear = split_linear(rest, var)
        coefficient = None if linear is None else int_value(linear[0])
        if linear is None or coefficient is None or coefficient > 0:
            return None
        inner, rest = inner + var * -coefficient, linear[1]
        tile.append((-coefficient, loops.tile[var]))
    if any(v in mine for v in variables(rest)):
        return None
    return _Limit(simplify(inner), simplify(rest), tuple(sorted(tile)))


def _split(body: Body, limit: _Limit, facts: Facts, done: frozenset[_Key]) -> Body:
    whole = simplify(const(limit.largest) < limit.rest, facts)
    full_facts = facts.with_fact(whole)
    full = _specialize(_assume(body, limit, _Loops.of(body), None), full_facts, done)
    if isinstance(whole, Const):
        return full if whole.value else _short(body, limit, facts, done)
    return (If(whole, full, _short(renamed_copy(body, "_t"), limit, facts, done)),)


def _short(body: Body, limit: _Limit, facts: Facts, done: frozenset[_Key]) -> Body:
    """The versions of a tile that is not full."""
    loops = _Loops.of(body)
    single = len(limit.tile) == 1 and limit.tile[0][0] == 1
    if not single or limit.largest >= MAX_VERSIONS or _limits_lanes(body, limit, loops):
        return _specialize(body, facts, done)
    result = _beyond(body, limit, facts, done)
    for rows in range(1, limit.largest + 1):
        copy = body if rows == 1 else renamed_copy(body, f"_{rows}")
        version = _assume(copy, limit, _Loops.of(copy), rows)
        version = _specialize(version, facts.with_fact(eq(limit.rest, rows)), done)
        result = (If(eq(limit.rest, rows), version, result),)
    return result


def _beyond(body: Body, limit: _Limit, facts: Facts, done: frozenset[_Key]) -> Body:
    """The version of a tile outside of a limit: what does not depend on it still happens."""
    copy = renamed_copy(body, "_0")
    outside = facts.with_fact(limit.rest <= 0)
    rest = simplify_body(_assume(copy, limit, _Loops.of(copy), 0), outside)
    return _specialize(rest, outside, done)


def _limits_lanes(body: Body, limit: _Limit, loops: _Loops) -> bool:
    """Whether a limit is one on the lanes of vectors."""
    same = [
        c
        for c in _conditions(body)
        if (x := _as_limit(c, loops)) is not None and x.key == limit.key
    ]
    return any(v in loops.lanes for c in same for v in variables(c))


def _assume(body: Body, limit: _Limit, loops: _Loops, rows: int | None) -> Body:
    """The statements where a limit is known: it lies beyond the tile (``None``) or at a number of
    rows.
    """
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, If):
            found = _as_limit(s.condition, loops)
            inner = _assume(s.body, limit, loops, rows)
            if found is not None and found.key == limit.key:
                if rows is None:
                    result.extend(inner)
                    continue
                s = If(found.inner < rows, inner, _assume(s.orelse, limit, loops, rows), s.span)
            else:
                s = If(s.condition, inner, _assume(s.orelse, limit, loops, rows), s.span)
        elif isinstance(s, For):
            s = For(
                s.var, s.extent, _assume(s.body, limit, loops, rows), s.kind, s.span, s.annotations
            )
        elif rows is None:
            s = map_expressions((s,), lambda e: _without(e, limit, loops))[0]
        result.append(s)
    return tuple(result)


def _without(x: Expr, limit: _Limit, loops: _Loops) -> Expr:
    """An expression where a limit is known to hold."""

    def holds(e: Expr) -> bool:
        found = _as_limit(e, loops)
        return found is not None and found.key == limit.key

    def visit(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.mask is not None and holds(e.mask):
            return Load(e.buffer, e.indices)
        return e.args[1] if isinstance(e, Apply) and e.fn == "select" and holds(e.args[0]) else None

    return transform(x, visit)
