"""Turn register tiles into arrays of vectors, so that every element becomes one machine register.

A temporary whose last index is always a whole, aligned run of lanes becomes a buffer of vectors,
one element per run. A masked store to one keeps the other lanes. Register buffers that are indexed
by what is not constant, once loops are unrolled, move to the stack.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from treadle.base.errors import InternalError
from treadle.expr.bounds import divisible
from treadle.expr.scalar import Apply, Const, Expr, apply, const, int_value, transform, walk
from treadle.expr.simplify import simplify
from treadle.ir.analysis import allocated, expressions, statements
from treadle.ir.loop_builder import clamp
from treadle.ir.tensor import Buffer, Load, Store, TensorFunction
from treadle.passes.statements import Body, Statements, with_body

_Uses = dict[Buffer, list[tuple[Expr, ...]]]


def vector_storage(function: TensorFunction) -> TensorFunction:
    """Let temporaries of ``function`` that are used by whole vectors hold vectors."""
    changes: dict[Buffer, _Change] = {}
    for buffer, uses in _uses(function.body).items():
        if buffer.scope != "global" and buffer.ndim > 0:
            lanes = _lanes(buffer, uses)
            if lanes is not None:
                changes[buffer] = _Change(_vectors(buffer, lanes), lanes)
    return with_body(function, _Exchange(changes).body(function.body)) if changes else function


def demote_registers(function: TensorFunction) -> TensorFunction:
    """Move register buffers of ``function`` to the stack whose indices are not all constants."""
    changes: dict[Buffer, _Change] = {}
    for buffer, uses in _uses(function.body).items():
        constant = all(isinstance(i, Const) for indices in uses for i in indices)
        if buffer.scope == "register" and not constant:
            moved = Buffer(buffer.name, buffer.shape, buffer.dtype, "stack")
            changes[buffer] = _Change(moved, 1)
    return with_body(function, _Exchange(changes).body(function.body)) if changes else function


def _uses(body: Body) -> _Uses:
    """The indices that each temporary is accessed by."""
    found: _Uses = {b: [] for b in allocated(body)}
    for buffer, indices in _accesses(body):
        if buffer in found:
            found[buffer].append(indices)
    return found


def _accesses(body: Body) -> Iterator[tuple[Buffer, tuple[Expr, ...]]]:
    for s in statements(body):
        for x in walk(*expressions(s)):
            if isinstance(x, Load):
                yield x.buffer, x.indices
        if isinstance(s, Store):
            yield s.buffer, s.indices


def _lanes(buffer: Buffer, uses: list[tuple[Expr, ...]]) -> int | None:
    """The lanes of every access, if all are runs of that many neighbours that start at a multiple
    of it.
    """
    found: set[int] = set()
    for indices in uses:
        run = indices[-1]
        if not isinstance(run, Apply) or run.fn != "ramp" or int_value(run.args[1]) != 1:
            return None
        if any(i.dtype.lanes > 1 for i in indices[:-1]):
            return None
        if not divisible(run.args[0], run.dtype.lanes):
            return None
        found.add(run.dtype.lanes)
    last = int_value(buffer.shape[-1])
    if len(found) != 1 or last is None or last % min(found) != 0:
        return None
    return found.pop()


def _vectors(buffer: Buffer, lanes: int) -> Buffer:
    shape = (*buffer.shape[:-1], simplify(buffer.shape[-1] // lanes))
    return Buffer(buffer.name, shape, buffer.dtype.vector(lanes), buffer.scope)


@dataclass(frozen=True, slots=True)
class _Change:
    """What a temporary becomes; ``lanes`` more than 1: its last index counts vectors of so many."""

    buffer: Buffer
    lanes: int

    def indices(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """The same element's, or vector's, place in the new buffer."""
        if self.lanes == 1:
            return indices
        run = indices[-1]
        if not isinstance(run, Apply):
            raise InternalError(f"'{self.buffer.name}' is indexed by {run}, which is no run")
        return (*indices[:-1], simplify(run.args[0] // const(self.lanes)))


class _Exchange(Statements):
    """Exchange temporaries for others."""

    def __init__(self, changes: Mapping[Buffer, _Change]) -> None:
        super().__init__(
            lambda e: transform(e, self.load), {old: c.buffer for old, c in changes.items()}
        )
        self.changes = changes

    def stored(self, s: Store, indices: tuple[Expr, ...], value: Expr, mask: Expr | None) -> Store:
        """The store; one under a mask keeps the other lanes of a register."""
        change = self.changes.get(s.buffer)
        if change is None:
            return super().stored(s, indices, value, mask)
        places = change.indices(indices)
        kept = _kept(change, places, value, mask)
        return super().stored(s, places, kept, mask if change.lanes == 1 else None)

    def load(self, x: Expr) -> Expr | None:
        """A load of a temporary, in its new place."""
        change = self.changes.get(x.buffer) if isinstance(x, Load) else None
        if change is None or not isinstance(x, Load):
            return None
        places = change.indices(x.indices)
        if x.mask is None or change.lanes == 1:
            return Load(change.buffer, places, x.mask)
        # All lanes of a vector are there to be read, but where nothing is read there may be none.
        extents = change.buffer.shape
        near = (simplify(clamp(i, 0, n - 1)) for i, n in zip(places, extents, strict=True))
        return Load(change.buffer, tuple(near))


def _kept(change: _Change, place: tuple[Expr, ...], value: Expr, mask: Expr | None) -> Expr:
    """What a register holds after a store of ``value`` under ``mask``."""
    if mask is None or change.lanes == 1:
        return value
    if mask.dtype.lanes == 1:
        mask = apply("broadcast", mask, dtype=mask.dtype.vector(change.lanes))
    return apply("select", mask, value, Load(change.buffer, place), dtype=value.dtype)
