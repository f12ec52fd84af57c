"""Give full tiles a version without conditions, and short tiles versions of their own.

A tile of unrolled or vectorized loops under a condition such as ``i0 * 6 + i1 < m`` is split where the rest of the
condition's variables are known: when the whole tile lies inside, the condition is dropped; otherwise, if it limits an
unrolled loop to ``rest`` of its iterations, one version per value of ``rest`` follows. What limits vector lanes stays a
condition, which becomes a mask. A serial loop whose whole body stands under a limit on its variable just ends earlier.
"""

from dataclasses import dataclass

from treadle.expr.bounds import Facts
from treadle.expr.scalar import Apply, Const, Expr, Var, const, eq, int_value, minimum, substitute, variables
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import facts_of, statements
from treadle.ir.tensor import For, If, Stmt, TensorFunction
from treadle.passes.statements import Body, simplify_body, with_body

_Key = tuple[Expr, Expr]

MAX_VERSIONS = 16
"""Unrolled loops of more iterations than this keep their condition per iteration."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """A condition ``inner < rest``: ``inner`` over tile loops only, ``rest`` over variables from outside of the tile."""

    inner: Expr
    rest: Expr
    tile: tuple[tuple[Var, int], ...]

    @property
    def key(self) -> _Key:
        """What makes two limits the same."""
        return self.inner, self.rest

    @property
    def largest(self) -> int:
        """The value of ``inner`` at the last corner of the tile."""
        corner = simplify(substitute(self.inner, {v: const(extent - 1) for v, extent in self.tile}))
        return int_value(corner) or 0


def specialize_tails(function: TensorFunction) -> TensorFunction:
    """Split the tiles of ``function`` by whether they are full."""
    facts = facts_of(function)
    body = simplify_body(_clip(function.body), facts)
    return with_body(function, _specialize(body, facts, frozenset()))


def _clip(body: Body) -> Body:
    """End serial and parallel loops early whose whole body stands under a limit on their variable."""
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            inner = _clip(s.body)
            loop = For(s.var, s.extent, inner, s.kind, s.span)
            result.append(_clip_loop(loop) if s.kind in ("serial", "parallel") else loop)
        elif isinstance(s, If):
            result.append(If(s.condition, _clip(s.body), _clip(s.orelse), s.span))
        else:
            result.append(s)
    return tuple(result)


def _clip_loop(loop: For) -> For:
    while len(loop.body) == 1 and isinstance(loop.body[0], If) and not loop.body[0].orelse:
        guard = loop.body[0]
        margin = _margin(guard.condition)
        linear = None if margin is None else split_linear(margin, loop.var)
        if linear is None or int_value(linear[0]) != -1 or loop.var in variables(linear[1]):
            break
        # rest - var > 0 limits the variable to ``rest`` iterations, counted from zero.
        extent = minimum(loop.extent, simplify(linear[1]))
        loop = For(loop.var, extent, guard.body, loop.kind, loop.span)
    return loop


def _margin(condition: Expr) -> Expr | None:
    """An integer that is positive exactly when an inequality holds."""
    if not isinstance(condition, Apply) or not condition.args[0].dtype.is_int or condition.dtype.lanes > 1:
        return None
    a, b = condition.args[0], condition.args[-1]
    margins = {"lt": b - a, "gt": a - b, "le": b - a + 1, "ge": a - b + 1}
    return margins.get(condition.fn)


def _specialize(body: Body, facts: Facts, done: frozenset[_Key]) -> Body:
    """Split this body by the limits that are decided here, then those inside."""
    limit = next((x for x in _limits(body) if x.key not in done), None)
    if limit is not None:
        return _split(body, limit, facts, done | {limit.key})
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For) and s.kind in ("serial", "parallel"):
            inside = facts.with_range(s.var, s.extent)
            s = For(s.var, s.extent, _specialize(s.body, inside, done), s.kind, s.span)
        elif isinstance(s, If):
            inside = facts.with_fact(s.condition)
            s = If(s.condition, _specialize(s.body, inside, done), _specialize(s.orelse, facts, done), s.span)
        result.append(s)
    return tuple(result)


def _limits(body: Body) -> list[_Limit]:
    """The conditions inside that compare variables of a tile with what is known at this place."""
    loops = [s for s in statements(body) if isinstance(s, For)]
    tile = {s.var: e for s in loops if s.kind in ("unrolled", "vectorized") and (e := int_value(s.extent)) is not None}
    serial = {s.var for s in loops} - set(tile)
    found: dict[_Key, _Limit] = {}
    for s in statements(body):
        limit = _as_limit(s.condition, tile, serial) if isinstance(s, If) else None
        # A constant rest is decided by unrolling: nothing is left to learn at run time.
        if limit is not None and int_value(limit.rest) is None:
            found.setdefault(limit.key, limit)
    return list(found.values())


def _as_limit(condition: Expr, tile: dict[Var, int], serial: set[Var]) -> _Limit | None:
    used = variables(condition)
    mine = {v: tile[v] for v in used if v in tile}
    margin = None if not mine or any(v in serial for v in used) else _margin(condition)
    if margin is None:
        return None
    inner: Expr = const(0)
    rest = simplify(margin)
    for var in mine:
        linear = split_linear(rest, var)
        coefficient = None if linear is None else int_value(linear[0])
        if linear is None or coefficient is None or coefficient > 0:
            return None
        inner, rest = inner + var * -coefficient, linear[1]
    if any(v in mine for v in variables(rest)):
        return None
    return _Limit(simplify(inner), simplify(rest), tuple(mine.items()))


def _split(body: Body, limit: _Limit, facts: Facts, done: frozenset[_Key]) -> Body:
    largest = limit.largest
    whole = simplify(const(largest) < limit.rest, facts)
    full_facts = facts.with_fact(whole)
    full = _specialize(_assume(body, limit, const(True), full_facts), full_facts, done)
    if isinstance(whole, Const):
        return full if whole.value else _short(body, limit, facts, done)
    return (If(whole, full, _short(body, limit, facts, done)),)


def _short(body: Body, limit: _Limit, facts: Facts, done: frozenset[_Key]) -> Body:
    """The versions of a tile that is not full."""
    single = len(limit.tile) == 1 and limit.inner is limit.tile[0][0]
    if not single or limit.largest >= MAX_VERSIONS or _is_vectorized(body, limit.tile[0][0]):
        return _specialize(body, facts, done)
    result: Body = ()
    for rows in range(1, limit.largest + 1):
        known = facts.with_fact(eq(limit.rest, rows))
        version = _specialize(_assume(body, limit, limit.inner < rows, known), known, done)
        result = (If(eq(limit.rest, rows), version, result),)
    return result


def _is_vectorized(body: Body, var: Var) -> bool:
    return any(isinstance(s, For) and s.var is var and s.kind == "vectorized" for s in statements(body))


def _assume(body: Body, limit: _Limit, truth: Expr, facts: Facts) -> Body:
    """The statements where a limit is known to be ``truth``."""
    tile = dict(limit.tile)
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, If):
            found = _as_limit(s.condition, tile, set())
            same = found is not None and found.key == limit.key
            inner = _assume(s.body, limit, truth, facts), _assume(s.orelse, limit, truth, facts)
            s = If(truth if same else s.condition, *inner, s.span)
        elif isinstance(s, For):
            s = For(s.var, s.extent, _assume(s.body, limit, truth, facts), s.kind, s.span)
        result.append(s)
    return simplify_body(tuple(result), facts)
