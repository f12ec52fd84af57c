"""Which operands of a kernel may lie where its result does.

That is legal if the kernel has read an element of the operand for the last time when it writes the
element of the result that takes its place. Only loops and accesses are looked at. For each load of
the operand and each store of the result:

- each loop around both is shown to go by elements of its own: an element that the load sees in one
  iteration is stored by no other. Then the order of iterations does not matter, and loops may run
  in parallel;
- in the body of these loops the load stands before the store, or is a part of it.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise, takewhile

from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Apply, Expr, Var, const, int_value, substitute, variables, walk
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import (
    Access,
    accesses,
    element_count,
    facts_of,
    flat_index,
    loads,
    symbols,
)
from treadle.ir.tensor import Buffer, For, Intrinsic, TensorFunction


@lru_cache(maxsize=4096)
def may_overwrite(function: TensorFunction, operand: int, result: int) -> bool:
    """Whether input number ``operand`` and output number ``result`` of a function may be the same
    memory.
    """
    x, y = function.input_buffers[operand], function.output_buffers[result]
    facts = facts_of(function)
    if not _same_bytes(x, y, facts):
        return False
    found = [a for a in accesses(function.body) if not isinstance(a.stmt, Intrinsic)]
    reads = [(n, a) for n, a in enumerate(found) if a.buffer is x]
    writes = [(n, a) for n, a in enumerate(found) if a.buffer is y and a.kind == "store"]
    if any(a.kind == "store" for _, a in reads):
        return False
    fixed = frozenset(symbols(function))
    return all(
        _never_both(r, w) or (n < m and _apart(r, w, fixed, facts))
        for n, r in reads
        for m, w in writes
    )


def _never_both(a: Access, b: Access) -> bool:
    """Whether two accesses stand in opposite branches of a condition on symbols."""
    here, there = _settled(a), _settled(b)
    return any(~c in there for c in here) or any(~c in here for c in there)


def _settled(access: Access) -> set[Expr]:
    """The conditions of an access that stay the same while the function runs."""
    moving = {x.var for x in (*access.loops, *access.lets)}
    moving |= {i.var for block in access.blocks for i in block.iters}
    return {c for c in access.conditions if moving.isdisjoint(variables(c)) and not loads(c)}


def _same_bytes(x: Buffer, y: Buffer, facts: Facts) -> bool:
    if x.dtype.bytes != y.dtype.bytes or x.dtype.lanes != y.dtype.lanes:
        return False
    return simplify(element_count(x), facts) is simplify(element_count(y), facts)


def _apart(read: Access, write: Access, fixed: frozenset[Var], facts: Facts) -> bool:
    """Whether different iterations of the loops around both go by different elements; variables
    that are ``fixed`` are the same in all.
    """
    pairs = takewhile(lambda p: p[0] is p[1], zip(read.loops, write.loops, strict=False))
    common = [a for a, _ in pairs]
    here, there = _positions(read, write)
    known = fixed | {x.var for x in (*read.loops, *write.loops)}
    if loads(*here, *there) or not known.issuperset(variables(*here, *there)):
        return False
    other = {x.var: Var(f"{x.var.name}'", x.var.dtype) for x in write.loops}
    for x in (*read.loops, *write.loops):
        facts = facts.with_range(x.var, x.extent)
    for x in write.loops:
        facts = facts.with_range(other[x.var], substitute(x.extent, other))
    for loop in common:
        del other[loop.var]  # iterations of outer loops that differ are settled
        if prove(loop.extent <= 1, facts):
            continue
        ends = [(u, substitute(v, other)) for u, v in zip(here, there, strict=True)]
        if not _steps_apart(loop, ends, facts):
            return False
    return True


_Ends = list[tuple[Expr, Expr]]
"""Indices that a load and a store take, along each dimension."""


def _steps_apart(loop: For, ends: _Ends, facts: Facts) -> bool:
    """Whether different iterations of a loop have different indices along some dimension.

    A loop that stands for several, ``i // 16`` and ``i % 16``, is taken apart into these digits.
    """
    value, digits = _digits(loop, [e for pair in ends for e in pair])
    other = {d: Var(f"{d.name}'", d.dtype) for d, _ in digits}
    for digit, extent in digits:
        facts = facts.with_range(digit, extent).with_range(other[digit], extent)
    exchange = {loop.var: value}
    ends = [
        (simplify(substitute(u, exchange), facts), simplify(substitute(v, exchange), facts))
        for u, v in ends
    ]
    for digit, _ in digits:
        del other[digit]
        moved = [(u, substitute(v, other)) for u, v in ends]
        if not any(_steps_over(u, v, digit, facts) for u, v in moved):
            return False
    return True


def _digits(loop: For, indices: list[Expr]) -> tuple[Expr, list[tuple[Var, Expr]]]:
    """A loop's variable as the sum of the digits that indices take of it, and these with their
    extents, the highest first; itself if they do not nest.
    """
    divisors = {1}
    for x in walk(*indices):
        if isinstance(x, Apply) and x.fn in ("floordiv", "mod") and x.args[0] is loop.var:
            divisors.add(int_value(x.args[1]) or 0)
    bounds = sorted(divisors)
    if 0 in bounds or any(b % a for a, b in pairwise(bounds)):
        bounds = [1]
    found: list[tuple[Var, Expr]] = []
    value: Expr = const(0)
    for k, low in enumerate(bounds):
        digit = Var(f"{loop.var.name}.{k}", loop.var.dtype)
        last = low == bounds[-1]
        extent = (loop.extent + (low - 1)) // low if last else const(bounds[k + 1] // low)
        found.insert(0, (digit, simplify(extent)))
        value = value + digit * low
    return value, found


def _positions(read: Access, write: Access) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """What tells which element is accessed: the indices along each dimension, where the buffers
    have the same, and the position in memory.
    """
    here, there = _indices(read), _indices(write)
    flat = [simplify(flat_index(a.buffer, i)) for a, i in ((read, here), (write, there))]
    same = read.buffer.shape == write.buffer.shape
    return ((*here, flat[0]), (*there, flat[1])) if same else ((flat[0],), (flat[1],))


def _indices(a: Access) -> tuple[Expr, ...]:
    """The indices over loops."""
    values: dict[Var, Expr] = {}
    for let in a.lets:
        values[let.var] = substitute(let.value, values)
    for block in a.blocks:
        values.update((i.var, substitute(i.binding, values)) for i in block.iters)
    return tuple(simplify(substitute(i, values)) for i in a.indices)


def _steps_over(u: Expr, v: Expr, var: Var, facts: Facts) -> bool:
    """Whether each step of a variable moves two indices farther than they can differ besides."""
    first, second = split_linear(u, var), split_linear(v, var)
    if first is None or second is None or first[0] is not second[0]:
        return False
    step, gap = first[0], simplify(first[1] - second[1], facts)
    if var in variables(step, gap):
        return False
    return prove(gap < step, facts) and prove(-step < gap, facts)


def aliased(buffers: Sequence[object], inputs: int) -> frozenset[int]:
    """The positions of buffers of a call that share memory with a result of it; the results follow
    ``inputs`` operands.
    """
    return frozenset(
        position
        for k in range(inputs, len(buffers))
        for j in range(inputs)
        if buffers[j] == buffers[k]
        for position in (j, k)
    )
