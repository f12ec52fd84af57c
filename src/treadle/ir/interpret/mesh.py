"""Run independent points of a loop nest at once, as NumPy arrays over a mesh of points.

Every point sees the statements in their order, and every element is combined in the order of the
loops, so the results are those of the plain loops, bit for bit.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from treadle.expr.scalar import Var
from treadle.ir.interpret.expressions import Evaluator
from treadle.ir.interpret.nest import Accumulation, Nest, find_nest
from treadle.ir.interpret.state import Element, Scalar, State, load, store
from treadle.ir.tensor import Block, For, If, Let, Stmt, Store

POINTS = 1 << 20
_UFUNCS = {
    "add": np.add,
    "mul": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
}


@dataclass(frozen=True, eq=False)
class _Points:
    """Some points of the free loops: a range of each."""

    ranges: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in self.ranges)

    def axes(self, extra: int = 0) -> list[np.ndarray]:
        """The value of each loop along its own axis, after ``extra`` further axes."""
        rank = len(self.ranges)
        shapes = [[1] * extra + [-1 if a == d else 1 for a in range(rank)] for d in range(rank)]
        ranges = zip(self.ranges, shapes, strict=True)
        return [np.arange(a, b, dtype=np.int64).reshape(s) for (a, b), s in ranges]


class Mesh:
    """Runs nests whose points are independent; the others it leaves alone."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._nests: dict[For, Nest | None] = {}
        self._elements: dict[Store, Element] = {}

    def run(self, outer: For, state: State) -> bool:
        """Run the nest that starts at ``outer``; false, and nothing is done, if its points must run
        one by one.
        """
        if outer not in self._nests:
            self._nests[outer] = find_nest(outer)
        nest = self._nests[outer]
        if nest is None:
            return False
        free = [self._extent(loop, state) for loop in nest.free]
        ordered = [self._extent(loop, state) for loop in nest.ordered]
        if 0 in free or 0 in ordered:
            return True
        if not nest.distinct and not self._distinct(nest, free, state):
            return False
        sums = self._sums(nest, ordered, state)
        if not free and not sums:
            return False
        for points in _chunks(free):
            if sums:
                self._accumulate(nest, points, ordered, state)
            else:
                self._in_order(nest, points, ordered, state)
        return True

    def _extent(self, loop: For, state: State) -> int:
        return max(0, int(self._evaluator.evaluate(loop.extent, state)))

    def _bind(self, nest: Nest, state: State) -> None:
        for axis in nest.block.iters:
            state.variables[axis.var] = self._evaluator.evaluate(axis.binding, state)

    def _distinct(self, nest: Nest, free: list[int], state: State) -> bool:
        """Whether the keys of every buffer differ between all points of the free loops."""
        count = math.prod(free)
        if count > 16 * POINTS:
            return False
        _set_loops(state, nest.free, _Points(tuple((0, e) for e in free)).axes())
        _set_loops(state, nest.ordered, [0] * len(nest.ordered))
        self._bind(nest, state)
        return all(self._differ(key, free, state) for key in nest.keys)

    def _differ(self, key: tuple, free: list[int], state: State) -> bool:
        flat = np.zeros(free, np.int64)
        for index in key:
            values = np.asarray(self._evaluator.evaluate(index, state), np.int64)
            low, high = int(values.min()), int(values.max())
            flat = flat * (high - low + 1) + (values - low)
        return len(np.unique(flat)) == flat.size

    # ---- One step of the ordered loops after another

    def _in_order(self, nest: Nest, points: _Points, ordered: list[int], state: State) -> None:
        for step in itertools.product(*map(range, ordered)):
            _set_loops(state, nest.free, points.axes())
            _set_loops(state, nest.ordered, step)
            self._block(nest.block, state)

    def _block(self, block: Block, state: State) -> None:
        outer = state.active
        if block.where is not None:
            state.active = self._evaluator.evaluate(block.where, state)
        first: Scalar = True
        for axis in block.iters:
            value = self._evaluator.evaluate(axis.binding, state)
            state.variables[axis.var] = value
            if axis.kind == "reduce":
                first = np.logical_and(first, np.equal(value, 0))
        if np.any(first):
            self._masked(block.init, first, state)
        self._run(block.body, state)
        state.active = outer

    def _masked(self, body: tuple[Stmt, ...], mask: Scalar, state: State) -> None:
        outer = state.active
        if not (np.ndim(mask) == 0 and mask):
            state.active = mask if outer is None else np.logical_and(outer, mask)
        if body and (state.active is None or np.any(state.active)):
            self._run(body, state)
        state.active = outer

    def _run(self, body: tuple[Stmt, ...], state: State) -> None:
        for stmt in body:
            if isinstance(stmt, Store):
                self._store(stmt, state)
            elif isinstance(stmt, Let):
                state.variables[stmt.var] = self._evaluator.evaluate(stmt.value, state)
            elif isinstance(stmt, If):
                holds = self._evaluator.evaluate(stmt.condition, state)
                self._masked(stmt.body, holds, state)
                self._masked(stmt.orelse, np.logical_not(holds), state)
            elif isinstance(stmt, For):
                for i in range(self._extent(stmt, state)):
                    state.variables[stmt.var] = i
                    self._run(stmt.body, state)

    def _store(self, stmt: Store, state: State) -> None:
        indices = [self._evaluator.evaluate(i, state) for i in stmt.indices]
        mask = None if stmt.mask is None else self._evaluator.evaluate(stmt.mask, state)
        value = self._evaluator.evaluate(stmt.value, state)
        store(state, self._element(stmt), indices, value, mask)

    def _element(self, stmt: Store) -> Element:
        found = self._elements.get(stmt)
        if found is None:
            found = Element.of(stmt.buffer, stmt.indices, stmt.mask)
            self._elements[stmt] = found
        return found

    # ---- All steps of the ordered loops, combined in order

    def _sums(self, nest: Nest, ordered: list[int], state: State) -> bool:
        """Whether the ordered loops only accumulate: the reduction starts at their first point and
        nowhere else.
        """
        if nest.accumulation is None or not ordered or state.active is not None:
            return False
        if math.prod(ordered) > 16 * POINTS:
            return False
        steps = np.unravel_index(np.arange(math.prod(ordered)), ordered)
        _set_loops(state, nest.ordered, [s.astype(np.int64) for s in steps])
        _set_loops(state, nest.free, [0] * len(nest.free))
        starts: Scalar = np.ones(math.prod(ordered), bool)
        for axis in nest.block.iters:
            if axis.kind == "reduce":
                starts = starts & np.equal(self._evaluator.evaluate(axis.binding, state), 0)
        if not _fixed(nest):
            return False
        return not nest.block.init or not starts[1:].any()

    def _accumulate(self, nest: Nest, points: _Points, ordered: list[int], state: State) -> None:
        accumulation = nest.accumulation
        assert accumulation is not None
        total = math.prod(ordered)
        step = max(1, POINTS // max(1, math.prod(points.shape)))
        self._start(nest, points, state)
        for begin in range(0, total, step):
            count = min(step, total - begin)
            steps = np.unravel_index(np.arange(begin, begin + count), ordered)
            column = (count, *([1] * len(points.shape)))
            _set_loops(state, nest.ordered, [s.astype(np.int64).reshape(column) for s in steps])
            _set_loops(state, nest.free, points.axes(1))
            self._bind(nest, state)
            term = self._evaluator.evaluate(accumulation.term, state)
            term = np.broadcast_to(np.asarray(term), (count, *points.shape))
            self._combine(nest, points, accumulation, term, state)

    def _start(self, nest: Nest, points: _Points, state: State) -> None:
        _set_loops(state, nest.free, points.axes())
        _set_loops(state, nest.ordered, [0] * len(nest.ordered))
        self._bind(nest, state)
        reduced = [a.var for a in nest.block.iters if a.kind == "reduce"]
        if all(np.all(np.equal(state.variables[v], 0)) for v in reduced):
            self._run(nest.block.init, state)

    def _combine(
        self,
        nest: Nest,
        points: _Points,
        accumulation: Accumulation,
        term: np.ndarray,
        state: State,
    ) -> None:
        _set_loops(state, nest.free, points.axes())
        _set_loops(state, nest.ordered, [0] * len(nest.ordered))
        self._bind(nest, state)
        target = accumulation.store
        element = self._element(target)
        indices = [self._evaluator.evaluate(i, state) for i in target.indices]
        dtype = target.buffer.dtype.numpy
        before = np.broadcast_to(
            np.asarray(load(state, element, indices, None), dtype), points.shape
        )
        ufunc = _UFUNCS[accumulation.combine]
        if len(term) == 1:
            result = ufunc(before, term[0])
        else:
            rows = np.concatenate((before[None], term))
            result = ufunc.accumulate(rows, axis=0, dtype=dtype)[-1]
        store(state, element, indices, result, None)


def _fixed(nest: Nest) -> bool:
    """Whether the element that is accumulated to stays the same while the ordered loops run."""
    assert nest.accumulation is not None
    target = nest.accumulation.store
    return any(set(target.indices) <= set(key) for key in nest.keys)


def _set_loops(state: State, loops: tuple[For, ...], values: object) -> None:
    variables: dict[Var, Scalar] = state.variables
    for loop, value in zip(loops, values, strict=True):  # type: ignore[call-overload]
        variables[loop.var] = value


def _chunks(extents: list[int]) -> Iterator[_Points]:
    """The points of the free loops in parts that fit in memory: the outer loops are cut first."""
    parts: list[list[tuple[int, int]]] = []
    inner = math.prod(extents)
    for extent in extents:
        inner //= extent
        size = min(extent, max(1, POINTS // max(1, inner)))
        parts.append([(a, min(a + size, extent)) for a in range(0, extent, size)])
    yield from (_Points(ranges) for ranges in itertools.product(*parts))
