"""Levels of a program: computed from the nodes that are present, never stored."""

from enum import IntEnum

from treadle.ir.analysis import statements
from treadle.ir.calls import FunctionOp
from treadle.ir.graph import GraphFunction
from treadle.ir.module import Function, Module
from treadle.ir.tensor import Block, For, TensorFunction


class Level(IntEnum):
    """How far a program has come, from tensors to the loops that machine code is written for.

    ``COORDINATE`` and ``POSITION`` are the two stages of sparse loop programs.
    """

    GRAPH = 0
    COORDINATE = 1
    POSITION = 2
    LOOP = 3
    DEVICE = 4


def level_of(program: Function | Module) -> Level:
    """The level of a function, or the highest-level (least lowered) part of a module.

    A graph function that only calls other functions counts as the level of the loop programs beside
    it. A tensor function without blocks, and without loops that are still to be vectorized,
    unrolled or given to threads, is at ``DEVICE``.
    """
    if isinstance(program, Module):
        levels = [level_of(f) for f in program.functions.values()]
        joints = [level for level in levels if level != Level.GRAPH]
        if any(_uses_ops(f) for f in program.graph_functions) or not joints:
            return Level.GRAPH
        return min(joints)
    if isinstance(program, GraphFunction):
        return Level.GRAPH
    return _tensor_level(program)


def _uses_ops(function: GraphFunction) -> bool:
    return any(not isinstance(b.op, FunctionOp) for b in function.body)


def _tensor_level(function: TensorFunction) -> Level:
    for stmt in statements(function.body):
        if isinstance(stmt, Block):
            return Level.LOOP
        if isinstance(stmt, For) and stmt.kind not in ("serial", "parallel"):
            return Level.LOOP
    return Level.DEVICE
