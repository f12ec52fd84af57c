"""Give the tiles of a loop about as many rows each, in place of full ones and a short rest.

``for i0 in range((n + 5) // 6)`` over tiles of rows ``i0 * 6 + i1 < n`` takes seven rows as six and
one, and a tile of one row costs far more than a sixth: its other operand is fetched all the same.
With ``q = ceil(n / ceil(n / 6))`` rows to a tile there are as many tiles, and seven rows are four
and three. Rows are ``i0 * q + i1`` then, where ``i1 < min(q, n - i0 * q)``: the same rows, each
once and in the same order.

That is done where the number of rows is symbolic, everything that happens to a row goes by its
number, and nothing passes from one row to another.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass

from treadle.expr.bounds import Facts
from treadle.expr.dtype import i64
from treadle.expr.scalar import Expr, Var, int_value, minimum, variables
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import (
    Access,
    accesses,
    allocated,
    facts_of,
    fresh_name,
    names,
    statements,
)
from treadle.ir.tensor import (
    PREFETCHES,
    Buffer,
    For,
    If,
    Intrinsic,
    Let,
    Stmt,
    TensorFunction,
)
from treadle.passes.specialize_tails import margin
from treadle.passes.statements import Body, map_expressions, with_body

_LEAST = 3
"""Rows of a tile from which on short tiles cost more than their share."""


def balance_tails(function: TensorFunction) -> TensorFunction:
    """Even out the tiles of ``function``; for use before tails get their versions."""
    taken = names(function)
    return with_body(function, _balance(function.body, facts_of(function), taken))


def _balance(body: Body, facts: Facts, taken: frozenset[str]) -> Body:
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            s = _balanced(s, facts, taken) if s.kind in ("serial", "parallel") else s
            inside = facts.with_range(s.var, s.extent)
            s = For(s.var, s.extent, _balance(s.body, inside, taken), s.kind, s.span, s.annotations)
        elif isinstance(s, If):
            then = _balance(s.body, facts.with_fact(s.condition), taken)
            s = If(s.condition, then, _balance(s.orelse, facts, taken), s.span)
        result.append(s)
    return tuple(result)


def _balanced(loop: For, facts: Facts, taken: frozenset[str]) -> For:
    """The loop over even tiles, if it is one over tiles."""
    tiles = _tiles(loop, facts)
    if tiles is None or not _rows_apart(loop, tiles):
        return loop
    even = (tiles.count + loop.extent - 1) // loop.extent
    start = Let(Var(fresh_name(f"{loop.var}_start", taken)), loop.var * even)
    rows = Let(Var(fresh_name(f"{loop.var}_rows", taken)), minimum(even, tiles.count - start.var))
    try:
        body = _Moved(loop.var, tiles, start.var, rows.var).body(loop.body, frozenset())
    except _NoRow:
        return loop
    return For(loop.var, loop.extent, (start, rows, *body), loop.kind, loop.span)


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Tiles of ``height`` rows out of ``count``; ``rows`` are the loops over the rows of one."""

    count: Expr
    height: int
    rows: frozenset[Var]

    def row(self, x: Expr, loop: Var) -> tuple[Expr, Expr, Var] | None:
        """``x`` as the number of a row times a coefficient, the first result, and the rest; and the
        loop over rows that is in it.
        """
        outer = split_linear(x, loop)
        inner = [v for v in variables(x) if v in self.rows]
        if outer is None or len(inner) != 1:
            return None
        split = split_linear(outer[1], inner[0])
        if split is None or simplify(split[0] * self.height - outer[0]) is not simplify(
            split[0] * 0
        ):
            return None
        if {loop, inner[0]}.intersection(variables(split[0], split[1])):
            return None
        return split[0], split[1], inner[0]

    def limits(self, condition: Expr, loop: Var) -> Var | None:
        """The loop over rows that a condition keeps within the count."""
        difference = margin(condition)
        found = None if difference is None else self.row(simplify(difference), loop)
        if found is None or int_value(found[0]) != -1 or found[1] is not self.count:
            return None
        return found[2]


def _tiles(loop: For, facts: Facts) -> _Tiles | None:
    """The tiles that a loop goes by."""
    inner = [s for s in statements(loop.body) if isinstance(s, For)]
    heights = {s.var: int_value(s.extent) for s in inner if s.kind == "unrolled"}
    if loop.annotations or int_value(loop.extent) is not None:
        return None
    fixed = {s.var for s in inner} | {loop.var}
    for s in statements(loop.body):
        difference = margin(s.condition) if isinstance(s, If) else None
        if difference is None or loop.var not in variables(difference):
            continue
        for var in variables(difference):
            height = heights.get(var)
            if height is None or height < _LEAST:
                continue
            count = simplify(difference + loop.var * height + var)
            even = simplify((count + (height - 1)) // height, facts)
            if fixed.isdisjoint(variables(count)) and simplify(loop.extent, facts) is even:
                rows = frozenset(v for v, h in heights.items() if h == height)
                return _Tiles(count, height, rows)
    return None


def _rows_apart(loop: For, tiles: _Tiles) -> bool:
    """Whether all accesses to what is written go by the row: along one dimension its number is the
    index, or as far from it everywhere.
    """
    own = set(allocated(loop.body))
    moving = {s.var for s in statements(loop.body) if isinstance(s, For)}
    found = accesses(loop.body)
    written = {a.buffer for a in found if a.kind == "store"} - own
    places: dict[Buffer, set[tuple[int, Expr]]] = {}
    for a in found:
        if a.buffer in written:
            here = set(_row_dims(a, loop.var, tiles, moving))
            places[a.buffer] = places.get(a.buffer, here) & here
    return all(places.values())


def _row_dims(a: Access, loop: Var, tiles: _Tiles, moving: Set[Var]) -> Iterator[tuple[int, Expr]]:
    """The dimensions along which an access goes by the row, with how far from it."""
    for dim, index in enumerate(a.indices):
        split = tiles.row(simplify(index), loop)
        if split is None or int_value(split[0]) != 1:
            continue
        if moving.isdisjoint(variables(split[1])):
            yield dim, split[1]


class _NoRow(Exception):
    """Something goes by the number of the tile."""


@dataclass(frozen=True, slots=True)
class _Moved:
    """Statements over even tiles: those of ``rows`` rows from ``start`` on."""

    loop: Var
    tiles: _Tiles
    start: Var
    rows: Var

    def body(self, body: Body, limited: frozenset[Var]) -> Body:
        """The statements where the loops ``limited`` keep within the rows.

        Raises:
            _NoRow: if one of them goes by the number of the tile, not by rows.
        """
        return tuple(self.statement(s, limited) for s in body)

    def statement(self, s: Stmt, limited: frozenset[Var]) -> Stmt:
        """One statement, and what is inside of it."""
        if _only_hints(s):
            return s
        if isinstance(s, For):
            extent = self.moved(s.extent, limited)
            return For(s.var, extent, self.body(s.body, limited), s.kind, s.span, s.annotations)
        if isinstance(s, If):
            row = self.tiles.limits(s.condition, self.loop)
            if row is None or s.orelse:
                condition = self.moved(s.condition, limited)
                orelse = self.body(s.orelse, limited)
                return If(condition, self.body(s.body, limited), orelse, s.span)
            return If(row < self.rows, self.body(s.body, limited | {row}), (), s.span)
        return map_expressions((s,), lambda e: self.moved(e, limited))[0]

    def moved(self, x: Expr, limited: frozenset[Var]) -> Expr:
        """An expression over even tiles."""
        if self.loop not in variables(x):
            return x
        found = None
        if x.dtype is i64:
            found = self.tiles.row(simplify(x), self.loop)
        if found is not None and found[2] in limited:
            times, rest, row = found
            return simplify((self.start + row) * times + rest)
        if not x.children:
            raise _NoRow
        return x.with_children(tuple(self.moved(c, limited) for c in x.children))


def _only_hints(s: Stmt) -> bool:
    """Whether a statement does nothing but ask for memory."""
    if isinstance(s, If):
        return all(map(_only_hints, (*s.body, *s.orelse)))
    return isinstance(s, Intrinsic) and s.name in PREFETCHES
