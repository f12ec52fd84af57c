"""Which elements an access touches while some loops stand still: a box of first index and extent
per dimension.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from treadle.expr.bounds import Facts, divisible, prove
from treadle.expr.scalar import Apply, Expr, Var, int_value, substitute, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access
from treadle.ir.tensor import ONE, ZERO, Buffer, Load


@dataclass(frozen=True, slots=True)
class Range:
    """The integers from ``low`` to ``low + extent - 1``."""

    low: Expr
    extent: Expr

    @property
    def end(self) -> Expr:
        """One past the last."""
        return self.low + self.extent


Region = tuple[Range, ...]


def whole(extent: Expr) -> Range:
    """All of a dimension."""
    return Range(ZERO, extent)


def index_range(e: Expr, inner: Mapping[Var, Expr], facts: Facts) -> Range | None:
    """Integers around the values of ``e`` while each variable of ``inner`` runs below its extent.

    ``None`` where no bound is known. The range may be wider than the values.
    """
    found = _range(simplify(e, _inside(facts, inner)), inner, facts)
    if found is None:
        return None
    return Range(simplify(found.low, facts), simplify(found.extent, facts))


def _inside(facts: Facts, inner: Mapping[Var, Expr]) -> Facts:
    for var, extent in inner.items():
        facts = facts.with_range(var, extent)
    return facts


def _range(e: Expr, inner: Mapping[Var, Expr], facts: Facts) -> Range | None:
    if isinstance(e, Var) and e in inner:
        extent = inner[e]
        known = not any(v in inner for v in variables(extent))
        return Range(ZERO, extent) if known else _range_under(extent, inner, facts)
    if not any(v in inner for v in variables(e)):
        return Range(e, ONE)
    if not isinstance(e, Apply):
        return None
    if e.fn in ("add", "sub"):
        a, b = (_range(x, inner, facts) for x in e.args)
        if a is None or b is None:
            return None
        low = a.low + b.low if e.fn == "add" else a.low - (b.end - 1)
        return Range(low, a.extent + b.extent - 1)
    if e.fn == "neg":
        x = _range(e.args[0], inner, facts)
        return None if x is None else Range(ONE - x.end, x.extent)
    if e.fn == "mul":
        return _product(e, inner, facts)
    if e.fn in ("floordiv", "mod"):
        return _divided(e, inner, facts)
    return None


def _range_under(extent: Expr, inner: Mapping[Var, Expr], facts: Facts) -> Range | None:
    around = _range(extent, inner, facts)
    return None if around is None else Range(ZERO, around.end - 1)


def _product(e: Apply, inner: Mapping[Var, Expr], facts: Facts) -> Range | None:
    for x, factor in (e.args, e.args[::-1]):
        if any(v in inner for v in variables(factor)):
            continue
        a = _range(x, inner, facts)
        if a is None:
            return None
        if prove(factor >= 0, facts):
            return Range(a.low * factor, (a.extent - 1) * factor + 1)
        if prove(factor <= 0, facts):
            return Range((a.end - 1) * factor, (a.extent - 1) * (-factor) + 1)
    return None


def _divided(e: Apply, inner: Mapping[Var, Expr], facts: Facts) -> Range | None:
    divisor = int_value(e.args[1])
    a = _range(e.args[0], inner, facts)
    if a is None or divisor is None or divisor <= 0:
        return None
    aligned = divisible(simplify(a.low, facts), divisor, facts)
    if e.fn == "mod":
        fits = aligned and prove(a.extent <= divisor, facts)
        return Range(ZERO, a.extent if fits else ONE * divisor)
    spill = 1 if aligned else 2
    return Range(
        a.low // divisor, (a.extent + (divisor - spill if spill == 2 else -1)) // divisor + 1
    )


def inner_loops(access: Access, fixed: Iterable[Var]) -> dict[Var, Expr]:
    """The loops around an access that run while ``fixed`` ones stand still."""
    still = frozenset(fixed)
    return {loop.var: loop.extent for loop in access.loops if loop.var not in still}


def over_loops(e: Expr, access: Access) -> Expr:
    """An expression at an access, with axes and lets exchanged for what they stand for."""
    for let in reversed(access.lets):
        e = substitute(e, {let.var: let.value})
    for block in reversed(access.blocks):
        e = substitute(e, {axis.var: axis.binding for axis in block.iters})
    return e


def access_region(access: Access, fixed: Iterable[Var], facts: Facts) -> Region:
    """The box that an access stays in while ``fixed`` loops stand still; all of a dimension where
    nothing is known.

    ``facts`` must know the fixed loops.
    """
    inner = inner_loops(access, fixed)
    return tuple(
        _known(index_range(over_loops(i, access), inner, facts), extent)
        for i, extent in zip(access.indices, access.buffer.shape, strict=True)
    )


def _known(found: Range | None, extent: Expr) -> Range:
    if found is None or any(
        isinstance(x, Load) for e in (found.low, found.extent) for x in _nodes(e)
    ):
        return whole(extent)
    return found


def _nodes(e: Expr) -> list[Expr]:
    stack, found = [e], []
    while stack:
        x = stack.pop()
        found.append(x)
        stack.extend(x.children)
    return found


def union(regions: Iterable[Region], buffer: Buffer, facts: Facts) -> Region:
    """A box around boxes; all of a dimension where their order is not known."""
    boxes = tuple(regions)
    result = boxes[0]
    for box in boxes[1:]:
        result = tuple(
            _around(a, b, facts) or whole(extent)
            for a, b, extent in zip(result, box, buffer.shape, strict=True)
        )
    return result


def _around(a: Range, b: Range, facts: Facts) -> Range | None:
    if prove(a.low <= b.low, facts):
        low = a.low
    elif prove(b.low <= a.low, facts):
        low = b.low
    else:
        return None
    if prove(b.end <= a.end, facts):
        end = a.end
    elif prove(a.end <= b.end, facts):
        end = b.end
    else:
        return None
    return Range(low, simplify(end - low, facts))


def contains(outer: Region, inner: Region, buffer: Buffer, facts: Facts) -> bool:
    """Whether every element of ``buffer`` in the box ``inner`` is shown to be in ``outer``."""
    return all(
        (prove(a.low <= b.low, facts) or prove(a.low <= 0, facts))
        and (prove(b.end <= a.end, facts) or prove(extent <= a.end, facts))
        for a, b, extent in zip(outer, inner, buffer.shape, strict=True)
    )


def disjoint(a: Region, b: Region, facts: Facts) -> bool:
    """Whether two boxes are shown to have no element in common."""
    return any(
        prove(x.end <= y.low, facts) or prove(y.end <= x.low, facts)
        for x, y in zip(a, b, strict=True)
    )
