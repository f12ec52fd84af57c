"""What a program does besides computing its results: tests that may stop it, and functions outside
that say they are not pure.

Everything else may be dropped, shared and moved. A test stays, though nothing may use its result;
equal tests may be one. A call that is not pure stays, is never shared, and keeps its place among
those of its kind.
"""

from collections.abc import Collection
from enum import IntEnum

from treadle.ir.calls import CHECKS, Call, CallLibrary, Cond, WhileLoop
from treadle.ir.graph import GraphFunction
from treadle.ir.module import Module
from treadle.ir.op import Op


class Effect(IntEnum):
    """From none to those that are seen outside."""

    PURE = 0
    TESTS = 1
    IMPURE = 2


def called_graphs(op: Op) -> tuple[str, ...]:
    """The graph functions that an operation runs."""
    if isinstance(op, Call):
        return (op.function,)
    if isinstance(op, Cond):
        return op.then, op.orelse
    if isinstance(op, WhileLoop):
        return op.condition, op.body
    return ()


def effects(module: Module) -> dict[str, Effect]:
    """The effect of each graph function, those of what it calls included."""
    found: dict[str, Effect] = {}
    for f in module.graph_functions:
        _function_effect(f.name, module, found, ())
    return found


def effect_of(op: Op, functions: dict[str, Effect]) -> Effect:
    """The effect of an operation, where those of functions are known."""
    if isinstance(op, CallLibrary) and not op.pure:
        return Effect.IMPURE
    if isinstance(op, CHECKS):
        return Effect.TESTS
    return max((functions.get(n, Effect.PURE) for n in called_graphs(op)), default=Effect.PURE)


def _function_effect(
    name: str, module: Module, found: dict[str, Effect], above: Collection[str]
) -> None:
    f = module.functions.get(name)
    if name in found or name in above or not isinstance(f, GraphFunction):
        return
    for b in f.body:
        for callee in called_graphs(b.op):
            _function_effect(callee, module, found, (*above, name))
    found[name] = max((effect_of(b.op, found) for b in f.body), default=Effect.PURE)
