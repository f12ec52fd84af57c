"""Bindings as mixed-radix numbers: which loops an axis is made of, and whether different steps are
different points.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Apply, Expr, Var, eq, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.tensor import ONE
from treadle.schedule.regions import index_range


@dataclass(frozen=True, slots=True)
class Digit:
    """``coefficient * (source // divisor % modulus)``; without a modulus all that is left of the
    source.

    The source is a loop, or a sum of loops that was divided, as splitting a fused loop leaves it.
    """

    source: Expr
    coefficient: Expr
    divisor: Expr = ONE
    modulus: Expr | None = None

    def size(self, extent: Expr) -> Expr:
        """How many values the digit takes, for a source of ``extent``."""
        return (
            self.modulus
            if self.modulus is not None
            else (extent + (self.divisor - 1)) // self.divisor
        )


def digits(e: Expr, loops: Mapping[Var, Expr]) -> tuple[Digit, ...] | None:
    """The digits of loops that a binding adds up, other variables being fixed; ``None`` for another
    form.
    """
    if not any(v in loops for v in variables(e)):
        return ()
    if isinstance(e, Var):
        return (Digit(e, ONE),)
    if not isinstance(e, Apply):
        return None
    if e.fn == "add":
        a, b = (digits(x, loops) for x in e.args)
        return None if a is None or b is None else (*a, *b)
    if e.fn == "sub" and not any(v in loops for v in variables(e.args[1])):
        return digits(e.args[0], loops)
    if e.fn == "mul":
        return _scaled(e, loops)
    return _part(e)


def _scaled(e: Apply, loops: Mapping[Var, Expr]) -> tuple[Digit, ...] | None:
    for x, factor in (e.args, e.args[::-1]):
        if not any(v in loops for v in variables(factor)):
            inner = digits(x, loops)
            if inner is None:
                return None
            return tuple(
                Digit(d.source, d.coefficient * factor, d.divisor, d.modulus) for d in inner
            )
    return None


def _part(e: Apply) -> tuple[Digit, ...] | None:
    x, by = e.args[0], e.args[-1]
    if e.fn == "mod" and isinstance(x, Apply) and x.fn == "floordiv":
        return (Digit(x.args[0], ONE, x.args[1], by),)
    if e.fn == "floordiv" and isinstance(x, Apply) and x.fn == "mod":
        return (Digit(x.args[0], ONE, by, simplify(x.args[1] // by)),)
    if e.fn == "floordiv":
        return (Digit(x, ONE, by),)
    return (Digit(x, ONE, ONE, by),) if e.fn == "mod" else None


def one_to_one(bindings: Iterable[Expr], loops: Mapping[Var, Expr], facts: Facts) -> bool:
    """Whether different steps of ``loops`` (with extents) are shown to give different values of
    ``bindings``.

    ``facts`` must know the loops' ranges.
    """
    found: dict[Expr, list[Digit]] = {}
    waiting = list(bindings)
    seen: set[Expr] = set()
    while waiting:
        binding = waiting.pop()
        # A quotient of a sum is one part of it as it stands; simplified, it may be a sum itself.
        parts = digits(binding, loops) or digits(simplify(binding, facts), loops)
        if parts is None or not stacked(parts, loops, facts):
            continue
        for digit in parts:
            source = digit.source
            found.setdefault(source, []).append(digit)
            if source in loops or source in seen:
                continue
            extent = source_extent(source, loops, facts)
            if extent is not None and _determined(found[source], extent, facts):
                # The sum is known, so what it says of its loops is known too.
                seen.add(source)
                waiting.append(source)
    return all(_determined(found.get(var, []), extent, facts) for var, extent in loops.items())


def source_extent(source: Expr, loops: Mapping[Var, Expr], facts: Facts) -> Expr | None:
    """One past what a digit's source reaches; ``None`` where it may be negative or has no bound."""
    if isinstance(source, Var) and source in loops:
        return loops[source]
    around = index_range(source, loops, facts)
    return None if around is None or not prove(around.low >= 0, facts) else around.end


def stacked(parts: tuple[Digit, ...], loops: Mapping[Var, Expr], facts: Facts) -> bool:
    """Whether the sum of digits tells them all: each weighs at least as much as all lighter ones
    together.
    """
    ordered = sorted(parts, key=lambda d: weight_order(d.coefficient))
    reach: Expr = ONE
    for digit in ordered:
        if not prove(digit.coefficient >= reach, facts):
            return False
        extent = source_extent(digit.source, loops, facts)
        if extent is None:
            return False
        reach = simplify(reach + digit.coefficient * (digit.size(extent) - 1), facts)
    return True


def weight_order(e: Expr) -> tuple[int, int]:
    """A key that sorts coefficients, lighter ones first."""
    value = int_value(e)
    return (1, len(str(e))) if value is None else (0, value)


def _determined(parts: list[Digit], extent: Expr, facts: Facts) -> bool:
    """Whether the digits of a loop tell its value."""
    if prove(extent <= 1, facts):
        return True
    reach: Expr = ONE
    rest = list(parts)
    while rest:
        following = next((d for d in rest if prove(eq(d.divisor, reach), facts)), None)
        if following is None:
            return False
        rest.remove(following)
        if following.modulus is None or prove(extent <= reach * following.modulus, facts):
            return True
        reach = simplify(reach * following.modulus, facts)
    return False
