"""One kernel for few and for many: where what pays for many rows costs a few, each gets a schedule
of its own, over the same packed operands.

A tensor function with a symbolic number of rows is scheduled for many. If that schedule asks for
packed operands ahead of their use, there is work to hide it behind only while several tiles of rows
use a part; few rows read every part once, from end to end, which the machine foresees by itself.
The function then first asks how many tiles there are. Both branches use the layouts that packing
chose: a constant is packed once, when the program is compiled.
"""

from math import prod

from treadle.base.errors import ScheduleError
from treadle.expr.bounds import prove
from treadle.expr.facts import negated
from treadle.expr.scalar import Apply, Expr, const, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import enclosing_loops, facts_of, find_loop, symbols
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.schedule.layout import TransformLayout
from treadle.schedule.prefetch import PrefetchNext
from treadle.schedule.specialize import Specialize
from treadle.schedule.trace import Schedule, Trace, apply_trace
from treadle.target import Target
from treadle.tune.blocking import FEW_TILES
from treadle.tune.decode_schedule import few_rows
from treadle.tune.default import default_schedule


def versioned_schedule(
    function: TensorFunction,
    target: Target,
    threads: int,
    constants: frozenset[Buffer],
    *,
    strict: bool = False,
) -> Schedule:
    """The default schedule of ``function``, or one for few rows and one for many; for the arguments
    see ``default_schedule``.
    """
    many = default_schedule(function, target, threads, constants, strict=strict)
    few = _few(many)
    few = few_rows(function, target, constants) if few is None else few
    if few is None:
        return many
    facts = facts_of(function)
    opposite = negated(few)
    if opposite is None or prove(few, facts) or prove(opposite, facts):
        return many
    condition, then, orelse = Specialize(str(few)).check(function)
    less = default_schedule(then, target, threads, constants, strict=strict)
    packed = [_parameters(function, layouts_of(s.trace)) for s in (less, many)]
    if less.trace == many.trace or packed[0] != packed[1]:
        return many
    choice = Specialize(str(few), less.trace, many.trace)
    try:
        more = apply_trace(orelse, many.trace)
        return Schedule(choice.joined(function, condition, less.function, more), (choice,))
    except ScheduleError:
        return many


def layouts_of(trace: Trace) -> Trace:
    """The changes of layout in a trace, in order. Branches lay out parameters alike: of those the
    first one speaks for both.
    """
    found: list[TransformLayout] = []
    for instruction in trace:
        if isinstance(instruction, TransformLayout):
            found.append(instruction)
        elif isinstance(instruction, Specialize):
            found.extend(i for i in layouts_of(instruction.then) if isinstance(i, TransformLayout))
    return tuple(found)


def _parameters(function: TensorFunction, layouts: Trace) -> Trace:
    """The changes of layout of a function's parameters."""
    names = {b.name for b in function.buffers}
    return tuple(i for i in layouts if isinstance(i, TransformLayout) and i.buffer in names)


def _few(schedule: Schedule) -> Expr | None:
    """When a part of a packed operand that is asked for ahead has too few uses, by the symbols."""
    function = schedule.function
    facts = facts_of(function)
    for instruction in schedule.trace:
        if not isinstance(instruction, PrefetchNext):
            continue
        inner = find_loop(function, instruction.at)
        around = () if inner is None else enclosing_loops(function, inner)
        names = [x.var.name for x in around]
        # Threads share the loops around; what is fused there is no longer called so.
        start = names.index(instruction.loop) + 1 if instruction.loop in names else 1
        extents = [simplify(x.extent, facts) for x in around[start:]]
        uses = simplify(prod(extents, start=const(1)), facts)
        if int_value(uses) is None and set(variables(uses)) <= set(symbols(function)):
            return simplify(_below(uses, FEW_TILES), facts)
    return None


def _below(x: Expr, bound: int) -> Expr:
    """``x < bound``, where ``x`` may be a number of tiles: as a claim on the rows in them."""
    if isinstance(x, Apply) and x.fn == "floordiv":
        height = int_value(x.args[1])
        if height is not None and height > 0:
            return x.args[0] < bound * height
    return x < bound
