"""Primitives on loops inside of blocks, whose statements have no blocks of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import prove
from treadle.expr.scalar import (
    Apply,
    Expr,
    Var,
    const,
    int_value,
    minimum,
    substitute,
    variables,
)
from treadle.expr.simplify import simplify
from treadle.ir.analysis import (
    Access,
    accesses,
    defined,
    fresh_name,
    names,
    paths,
    statements,
)
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    Intrinsic,
    Let,
    Load,
    LoopKind,
    Store,
    TensorFunction,
)
from treadle.schedule.dependence import under, walk_loads, weight_of
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import facts_at, replaced, uses

_EXACT = frozenset({"min", "max"})
_COMBINED = frozenset({*_EXACT, "add", "mul"})


@dataclass(frozen=True)
class _Inside(Instruction):
    """What primitives on one loop of a block's statements share."""

    loop: str

    def locate(self, function: TensorFunction) -> For:
        """The serial loop of constant extent, which stands inside of a block and holds none."""
        for stmt, above in paths(function.body):
            if isinstance(stmt, For) and stmt.var.name == self.loop:
                if not any(isinstance(s, Block) for s in above):
                    break
                if stmt.kind != "serial":
                    raise self.refuse(function, stmt, "E0302", f"'{self.loop}' is {stmt.kind}")
                if int_value(stmt.extent) is None:
                    message = f"the extent of '{self.loop}' is not a constant"
                    raise self.refuse(function, stmt, "E0305", message)
                return stmt
        raise self.refuse(function, None, "E0301", f"there is no loop '{self.loop}' in a block")

    def marked(self, function: TensorFunction, loop: For, kind: LoopKind) -> TensorFunction:
        """The function with the loop of another kind."""
        return replaced(function, (loop, (replace_fields(loop, kind=kind),)))


@dataclass(frozen=True)
class UnrollStatements(_Inside):
    """Repeat the statements of a loop inside of a block, as ``unroll`` repeats blocks.

    Errors: E0301 there is no such loop; E0302 it is not serial; E0305 its extent is not a constant.
    """

    def check(self, function: TensorFunction) -> For:
        """The loop."""
        return self.locate(function)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loop marked."""
        return self.marked(function, self.check(function), "unrolled")


@dataclass(frozen=True)
class VectorizeStatements(_Inside):
    """Run the iterations of a loop inside of a block as the lanes of vectors, one statement after
    the other.

    What is stored must be at an index of the loop's own each time, and be loaded at the same one
    only; or all iterations combine into an element that nothing else touches, by ``min`` or
    ``max``, or, with ``reassociate``, by a sum or product, which for floats rounds in another order
    then.

    Errors: E0301 there is no such loop; E0302 it is not serial; E0305 its extent, or that of a loop
    inside, is not a constant; E0309 it is in one nest with another vectorized loop, or holds
    memory; E0311 iterations may write the same element, or what another one reads.
    """

    reassociate: bool = False

    def check(self, function: TensorFunction) -> For:
        """The loop."""
        loop = self.locate(function)
        inside = tuple(a for a in accesses(function.body) if under(a, loop))
        around = next(iter(inside)).loops if inside else ()
        wide = [x for x in around if x.kind == "vectorized"]
        wide += [s for s in statements(loop.body) if isinstance(s, For) and s.kind == "vectorized"]
        if wide or any(isinstance(s, Allocate) for s in statements(loop.body)):
            message = f"'{self.loop}' is in one nest with another vectorized loop, or holds memory"
            raise self.refuse(function, loop, "E0309", message)
        lanes = _depending(loop)
        for s in statements(loop.body):
            if isinstance(s, For) and uses(s.extent, lanes):
                message = f"the extent of '{s.var}' differs between the lanes of '{self.loop}'"
                raise self.refuse(function, s, "E0305", message)
        for buffer in dict.fromkeys(a.buffer for a in inside if a.kind == "store"):
            same = [a for a in inside if a.buffer is buffer]
            apart = _is_apart(function, same, loop, lanes)
            if not apart and not _combines(same, lanes, self.reassociate):
                raise self.refuse(
                    function,
                    loop,
                    "E0311",
                    f"lanes of '{self.loop}' would write the same elements of '{buffer.name}', or"
                    " what others read",
                    hint="vectorize a loop whose variable is an index of all that is written",
                )
        return loop

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The loop marked."""
        return self.marked(function, self.check(function), "vectorized")


def _depending(loop: For) -> frozenset[Var]:
    """The variables that differ between iterations: the loop's own, and all that its body gives
    values to but for the loops in it.
    """
    loops = {s.var for s in statements(loop.body) if isinstance(s, For)}
    return frozenset({loop.var, *(v for v in defined(loop.body) if v not in loops)})


def _is_apart(
    function: TensorFunction, same: Sequence[Access], loop: For, lanes: frozenset[Var]
) -> bool:
    """Whether one index of all accesses to a buffer is the same in each, and another one in each
    iteration.
    """
    moving = frozenset({*lanes, *defined(loop.body)})
    facts = facts_at(function, same[0].loops)
    for column in zip(*(a.indices for a in same), strict=True):
        index: Expr = column[0]
        weight = weight_of(index, loop)
        if any(i is not index for i in column) or weight is None:
            continue
        rest = simplify(index - weight * loop.var)
        if not moving.intersection(variables(rest)) and prove(weight >= 1, facts):
            return True
    return False


def _combines(same: Sequence[Access], lanes: frozenset[Var], reassociate: bool) -> bool:
    """Whether all iterations combine terms into elements that nothing else touches."""
    stores = [a for a in same if a.kind == "store"]
    if len(stores) != 1 or not isinstance(stores[0].stmt, Store):
        return False
    store = stores[0].stmt
    if any(a.stmt is not store for a in same) or any(uses(i, lanes) for i in store.indices):
        return False
    return _is_combination(store, store.buffer, reassociate)


def _is_combination(store: Store, buffer: Buffer, reassociate: bool) -> bool:
    value, own = store.value, Load(store.buffer, store.indices)
    if not isinstance(value, Apply) or value.fn not in _COMBINED or own not in value.args:
        return False
    exact = value.fn in _EXACT or not buffer.dtype.is_float
    term = value.args[1] if value.args[0] is own else value.args[0]
    return (exact or reassociate) and all(x.buffer is not buffer for x in walk_loads(term))


class Ahead(NamedTuple):
    """What a loop reads in the next iteration of a loop around it: the values that tell where, and
    the addresses, one for each line of the cache.
    """

    values: tuple[Let, ...]
    addresses: tuple[Load, ...]


@dataclass(frozen=True)
class PrefetchStatements(Instruction):
    """At each iteration of ``loop``, a loop inside of a block, ask for what it will read from a
    parameter when ``around``, a loop around it, is one iteration further: rows that are found by a
    table, say, which no machine foresees.

    What tells where is read again, for the next iteration, before ``loop``; at the last iteration
    the hint is for the same rows again. It changes no result.

    Errors: E0301 there are no such loops in a block, or no such buffer; E0322 the buffer is no
    parameter; E0324 the loop does not read it, or where does not follow from the iteration by what
    may be read early.
    """

    buffer: str
    loop: str
    around: str

    def check(self, function: TensorFunction) -> tuple[For, Ahead]:
        """The loop, and what it reads next."""
        found = [
            (a, x)
            for a in accesses(function.body, lanes=False)
            for x in a.loops
            if a.kind == "load" and a.buffer.name == self.buffer and x.var.name == self.loop
        ]
        if not found:
            message = f"'{self.loop}' does not read '{self.buffer}'"
            raise self.refuse(function, None, "E0324", message)
        read, loop = found[0]
        if read.buffer not in function.input_buffers:
            raise self.refuse(function, loop, "E0322", f"'{self.buffer}' is no parameter")
        outer = next((x for x in read.loops if x.var.name == self.around), None)
        if outer is None or not read.blocks or read.loops.index(outer) >= read.loops.index(loop):
            message = f"there is no loop '{self.around}' in the block around '{self.loop}'"
            raise self.refuse(function, loop, "E0301", message)
        ahead = self._ahead(function, read, loop, outer)
        if ahead is None:
            message = f"where '{self.loop}' reads '{self.buffer}' next is not known early"
            raise self.refuse(function, loop, "E0324", message)
        return loop, ahead

    def _ahead(self, function: TensorFunction, read: Access, loop: For, outer: For) -> Ahead | None:
        inner = [x.var for x in read.loops[read.loops.index(loop) + 1 :]]
        own = set(defined(outer.body))
        named = {x.var: x.value for x in read.lets if x.var in own}
        next_one = minimum(outer.var + 1, outer.extent - 1)
        taken = set(names(function))
        values: list[Let] = []
        indices: list[Expr] = []
        for index in read.indices:
            for var in reversed(named):
                index = substitute(index, {var: named[var]})
            if walk_loads(index):
                if uses(index, (loop.var, *inner)) or not self._may_read(
                    function, read, index, outer
                ):
                    return None
                name = fresh_name(f"next_{self.loop}_{len(values)}", taken)
                values.append(Let(Var(name), substitute(index, {outer.var: next_one})))
                index = values[-1].var
            indices.append(substitute(index, {outer.var: next_one}))
        steps = _lines(read, loop)
        places = [tuple(simplify(substitute(i, at)) for i in indices) for at in steps]
        return Ahead(tuple(values), tuple(Load(read.buffer, p) for p in dict.fromkeys(places)))

    def _may_read(self, function: TensorFunction, read: Access, index: Expr, outer: For) -> bool:
        """Whether what an index is found by lies in its buffers at any iteration of the outer loop:
        this iteration reads it, so only what changes with the loop is to be shown.
        """
        facts = facts_at(function, read.loops)
        for x in walk_loads(index):
            if x.buffer not in function.input_buffers or x.mask is not None:
                return False
            for i, extent in zip(x.indices, x.buffer.shape, strict=True):
                inside = prove(i >= 0, facts) and prove(i < extent, facts)
                if uses(i, (outer.var,)) and not inside:
                    return False
        return True

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the hints."""
        loop, ahead = self.check(function)
        hints = tuple(Intrinsic("prefetch_far", (a,)) for a in ahead.addresses)
        hinted = replace_fields(loop, body=(*hints, *loop.body))
        return replaced(function, (loop, (*ahead.values, hinted)))


_LINE = 64
"""Bytes of a line of the cache."""
_MOST_LINES = 16
"""Lines that are asked for at one step."""


def _lines(read: Access, loop: For) -> list[dict[Var, Expr]]:
    """The places of the loops inside of a loop at which a read reaches another line: each of those
    that are written out, each line of lanes, and the first one of others.
    """
    found: list[dict[Var, Expr]] = [{}]
    for x in read.loops[read.loops.index(loop) + 1 :]:
        extent = int_value(x.extent) or 1
        step = {"unrolled": 1, "vectorized": max(1, _LINE // read.buffer.dtype.bytes)}.get(x.kind)
        places = [const(k) for k in range(0, extent, step or extent)]
        found = [{**at, x.var: place} for at in found for place in places]
    return found[:_MOST_LINES]
