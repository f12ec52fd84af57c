"""Shrink each temporary to the region that is touched between its allocation and the end of the
body around it.

Every index is bounded over the loops inside; what the loops outside add is subtracted from it.
"""

from dataclasses import dataclass

from treadle.expr.bounds import Facts
from treadle.expr.scalar import Apply, Expr, Var, const, int_value, transform, variables, walk
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import expressions, facts_of, shifted
from treadle.ir.tensor import Allocate, Buffer, For, If, Load, Stmt, Store, TensorFunction
from treadle.passes.statements import Body, Statements, with_body

STACK_BYTES = 16 * 1024
"""The largest temporary that goes into the frame of a kernel."""


@dataclass(frozen=True, slots=True)
class _Access:
    indices: tuple[Expr, ...]
    loops: tuple[For, ...]


@dataclass(frozen=True, slots=True)
class _Region:
    """A dimension of a temporary: where the touched region starts and how long it is."""

    start: Expr
    extent: Expr


def shrink_allocations(function: TensorFunction) -> TensorFunction:
    """Shrink the temporaries of ``function``; small ones of constant size move to the stack."""
    return with_body(function, _shrink(function.body, facts_of(function)))


def _shrink(body: Body, facts: Facts) -> Body:
    result: list[Stmt] = []
    rest = body
    while rest:
        s, rest = rest[0], rest[1:]
        if isinstance(s, Allocate):
            accesses = tuple(_accesses(rest, s.buffer, ()))
            if not accesses:
                continue
            regions = tuple(
                _region(axis, s.buffer, accesses, facts) for axis in range(s.buffer.ndim)
            )
            shrunk = _shrunken(s.buffer, regions)
            rest = _Shift(s.buffer, shrunk, tuple(r.start for r in regions)).body(rest)
            s = Allocate(shrunk, s.span)
        elif isinstance(s, For):
            s = For(
                s.var,
                s.extent,
                _shrink(s.body, facts.with_range(s.var, s.extent)),
                s.kind,
                s.span,
                s.annotations,
            )
        elif isinstance(s, If):
            s = If(s.condition, _shrink(s.body, facts), _shrink(s.orelse, facts), s.span)
        result.append(s)
    return tuple(result)


def _shrunken(buffer: Buffer, regions: tuple[_Region, ...]) -> Buffer:
    size: int | None = buffer.dtype.bytes
    for region in regions:
        extent = int_value(region.extent)
        size = None if size is None or extent is None else size * extent
    scope = (
        "stack"
        if buffer.scope == "global" and size is not None and size <= STACK_BYTES
        else buffer.scope
    )
    return Buffer(buffer.name, tuple(r.extent for r in regions), buffer.dtype, scope)


def _accesses(body: Body, buffer: Buffer, loops: tuple[For, ...]) -> list[_Access]:
    found: list[_Access] = []
    for s in body:
        loads = walk(*expressions(s))
        found.extend(
            _Access(x.indices, loops) for x in loads if isinstance(x, Load) and x.buffer is buffer
        )
        if isinstance(s, For):
            found.extend(_accesses(s.body, buffer, (*loops, s)))
        elif isinstance(s, If):
            found.extend(_accesses((*s.body, *s.orelse), buffer, loops))
        elif isinstance(s, Store) and s.buffer is buffer:
            found.append(_Access(s.indices, loops))
    return found


def _region(axis: int, buffer: Buffer, accesses: tuple[_Access, ...], facts: Facts) -> _Region:
    """What all accesses touch along one axis; the whole axis when that is unclear or no less."""
    whole = _Region(const(0), buffer.shape[axis])
    low: Expr | None = None
    length = 0
    for access in accesses:
        found = _extent(access.indices[axis], access.loops, facts)
        if found is None:
            return whole
        start, extent = found
        if low is None:
            low, length = start, extent
            continue
        shift = int_value(simplify(start - low, facts))
        if shift is None:
            return whole
        if shift < 0:
            low, length = start, length - shift
            shift = 0
        length = max(length, extent + shift)
    full = int_value(buffer.shape[axis])
    # A register tile keeps whole vectors, even where the last one reaches beyond the tensor.
    if low is None or (full is not None and length >= full and buffer.scope != "register"):
        return whole
    return _Region(low, const(length))


def _extent(index: Expr, loops: tuple[For, ...], facts: Facts) -> tuple[Expr, int] | None:
    """Start (over outer variables) and constant extent of the values of an index while the inner
    loops run.
    """
    inner: dict[Var, Expr] = {}
    for loop in loops:
        inner[loop.var] = simplify(loop.extent, facts)
        facts = facts.with_range(loop.var, loop.extent)
    start, length = _first_lane(simplify(index, facts))
    for var in [v for v in variables(start) if v in inner]:
        linear, extent = split_linear(start, var), int_value(inner[var])
        coefficient = None if linear is None else int_value(linear[0])
        if linear is None or coefficient is None or extent is None:
            return None
        reach = coefficient * max(extent - 1, 0)
        length += abs(reach)
        start = simplify(linear[1] + min(reach, 0), facts)
    open_ = start.dtype.lanes > 1 or any(v in inner for v in variables(start))
    return None if open_ else (start, length)


def _first_lane(index: Expr) -> tuple[Expr, int]:
    """The first lane of an index, and how many elements apart the last one lies, itself included.

    Lanes that do not follow each other upwards stay in the index.
    """
    step = int_value(index.args[1]) if isinstance(index, Apply) and index.fn == "ramp" else None
    if step is None or step < 0 or not isinstance(index, Apply):
        return index, 1
    return index.args[0], 1 + step * (index.dtype.lanes - 1)


class _Shift(Statements):
    """Exchange a temporary for its shrunken self, whose indices count from the start of the
    region.
    """

    def __init__(self, old: Buffer, new: Buffer, start: tuple[Expr, ...]) -> None:
        super().__init__(lambda e: transform(e, self.load), {old: new})
        self.old, self.new, self.start = old, new, start

    def stored(self, s: Store, indices: tuple[Expr, ...], value: Expr, mask: Expr | None) -> Store:
        """The store, shifted where it goes to the temporary."""
        places = self.shifted(indices) if s.buffer is self.old else indices
        return super().stored(s, places, value, mask)

    def load(self, x: Expr) -> Expr | None:
        """A load of the temporary, shifted."""
        if isinstance(x, Load) and x.buffer is self.old:
            return Load(self.new, self.shifted(x.indices), x.mask)
        return None

    def shifted(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """Indices of the shrunken temporary."""
        return tuple([simplify(shifted(i, -s)) for i, s in zip(indices, self.start, strict=True)])
