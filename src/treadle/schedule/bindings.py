"""Whether the loops around a block step through its domain: bindings that are quasi-affine,
independent and covering.

A binding is quasi-affine when it is a sum of digits of loops, ``i // lower % extent``, times
coefficients. The axes are independent when no part of a loop serves two digits, and covering when
the loops reach every point of the domain: ``i // 4`` and ``i % 4`` do, ``i`` and ``i * 2`` do not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Expr, Var, eq, int_value, substitute
from treadle.expr.simplify import simplify
from treadle.ir.tensor import ONE, ZERO, IterVar, TensorFunction
from treadle.schedule.dependence import only_tails
from treadle.schedule.digits import Digit, digits
from treadle.schedule.nest import BlockSite, facts_at
from treadle.schedule.regions import index_range


@dataclass(frozen=True, slots=True)
class BindingState:
    """What is shown of a block's bindings; ``why`` says what is missing first, at ``axis`` if it is
    one axis's.

    ``covering`` implies ``independent``, which implies ``affine``.
    """

    affine: bool
    independent: bool
    covering: bool
    why: str | None = None
    axis: IterVar | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A digit and the axis that it is a part of; one of a sum of loops has no axis."""

    digit: Digit
    axis: IterVar | None
    alone: bool


def binding_state(function: TensorFunction, site: BlockSite) -> BindingState:
    """What can be shown of the bindings of a block."""
    facts = facts_at(function, site.loops)
    for axis in site.node.iters:
        # An empty domain is covered by any loops.
        facts = facts.with_fact(axis.extent >= 1)
    moving = {x.var: x.extent for x in site.loops if not prove(x.extent <= 1, facts)}
    still = {x.var: ZERO for x in site.loops if x.var not in moving}
    sums: dict[IterVar, tuple[Digit, ...]] = {}
    for axis in site.node.iters:
        binding = substitute(axis.binding, still)
        found = digits(binding, moving) or digits(simplify(binding, facts), moving)
        if found is None:
            return BindingState(False, False, False, "is no sum of parts of loops", axis)
        sums[axis] = _gathered(found, facts)
    parts = [_Part(d, axis, len(ds) == 1) for axis, ds in sums.items() for d in ds]
    parts = _with_sums(parts, moving, facts)
    if parts is None:
        return BindingState(False, False, False, "divides what is no sum of parts of loops")
    shared = _shared(parts, facts)
    if shared is not None:
        return BindingState(True, False, False, "moves with a part of a loop twice", shared.axis)
    for axis, found in sums.items():
        why = _gap(axis, found, moving, still, facts)
        if why is not None:
            return BindingState(True, True, False, why, axis)
    short = _incomplete(parts, moving, facts)
    if short is not None:
        return BindingState(True, True, False, "misses points at the end of a loop", short.axis)
    if not only_tails(function, site):
        return BindingState(True, True, False, "runs under a condition of its own")
    return BindingState(True, True, True)


def _gathered(found: tuple[Digit, ...], facts: Facts) -> tuple[Digit, ...]:
    """The digits, each once, with all its coefficients."""
    sums: dict[tuple[Expr, Expr, Expr | None], Expr] = {}
    for d in found:
        key = (d.source, d.divisor, d.modulus)
        sums[key] = simplify(sums[key] + d.coefficient, facts) if key in sums else d.coefficient
    return tuple(Digit(s, c, d, m) for (s, d, m), c in sums.items())


def _with_sums(parts: list[_Part], moving: Mapping[Var, Expr], facts: Facts) -> list[_Part] | None:
    """The parts, and those of the sums of loops that some are taken from."""
    result = list(parts)
    for source in dict.fromkeys(p.digit.source for p in parts if p.digit.source not in moving):
        found = digits(source, moving)
        if found is None or any(d.source not in moving for d in found):
            return None
        if _hole(found, moving, facts):
            return None
        result.extend(_Part(d, None, False) for d in found)
    return result


def _by_source(parts: Iterable[_Part]) -> dict[Expr, list[_Part]]:
    found: dict[Expr, list[_Part]] = {}
    for part in parts:
        found.setdefault(part.digit.source, []).append(part)
    for same in found.values():
        same.sort(key=lambda p: int_value(p.digit.divisor) or _LARGE)
    return found


_LARGE = 1 << 62  # symbolic divisors come after numbers


def _shared(parts: list[_Part], facts: Facts) -> _Part | None:
    """A part that moves with what another moves with."""
    for same in _by_source(parts).values():
        for low, high in pairwise(same):
            modulus = low.digit.modulus
            end = None if modulus is None else low.digit.divisor * modulus
            if end is None or not prove(end <= high.digit.divisor, facts):
                return high
    return None


def _extent(source: Expr, moving: Mapping[Var, Expr], facts: Facts) -> Expr | None:
    if isinstance(source, Var) and source in moving:
        return moving[source]
    around = index_range(source, moving, facts)
    return None if around is None or not prove(eq(around.low, 0), facts) else around.extent


def _count(digit: Digit, moving: Mapping[Var, Expr], facts: Facts) -> Expr | None:
    """How many values a digit takes: all from zero on."""
    extent = _extent(digit.source, moving, facts)
    if extent is None:
        return None
    steps = simplify((extent + (digit.divisor - 1)) // digit.divisor, facts)
    if digit.modulus is None or prove(steps <= digit.modulus, facts):
        return steps
    return digit.modulus if prove(steps >= digit.modulus, facts) else None


def _hole(found: Iterable[Digit], moving: Mapping[Var, Expr], facts: Facts) -> bool:
    return _reach(found, moving, facts) is None


def _reach(found: Iterable[Digit], moving: Mapping[Var, Expr], facts: Facts) -> Expr | None:
    """One past the largest value of a sum of digits, if it takes all values from zero on."""
    reach: Expr = ONE
    rest = list(found)
    while rest:
        following = next((d for d in rest if prove(d.coefficient <= reach, facts)), None)
        if following is None or not prove(following.coefficient >= 1, facts):
            return None
        rest.remove(following)
        count = _count(following, moving, facts)
        if count is None:
            return None
        reach = simplify(reach + following.coefficient * (count - 1), facts)
    return reach


def _gap(
    axis: IterVar,
    found: tuple[Digit, ...],
    moving: Mapping[Var, Expr],
    still: Mapping[Var, Expr],
    facts: Facts,
) -> str | None:
    """Why an axis does not take every value of its domain."""
    first = substitute(axis.binding, {**still, **dict.fromkeys(moving, ZERO)})
    if not prove(eq(first, 0), facts):
        return "does not begin at zero"
    reach = _reach(found, moving, facts)
    if reach is None:
        return "leaves out values between others"
    return None if prove(reach >= axis.extent, facts) else "does not reach the end of its domain"


def _incomplete(parts: list[_Part], moving: Mapping[Var, Expr], facts: Facts) -> _Part | None:
    """A part of a loop that ends in the middle of the parts below it: ``i // 4`` and ``i % 4`` of
    ten steps miss two points.
    """
    for source, same in _by_source(parts).items():
        if len(same) < 2:
            continue
        top, extent = same[-1], _extent(source, moving, facts)
        count = _count(top.digit, moving, facts)
        if top.alone and top.axis is not None:
            # Steps beyond the domain are taken by the block's condition.
            count = top.axis.extent
        if extent is None or count is None or not prove(extent >= top.digit.divisor * count, facts):
            return top
    return None
