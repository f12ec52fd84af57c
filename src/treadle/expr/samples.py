"""Values that meet the facts, to see at once that a claim has no proof because it is not true."""

import numpy as np
from numpy.typing import NDArray

from treadle.expr.evaluate import Value, evaluate
from treadle.expr.facts import Known
from treadle.expr.scalar import Apply, Const, Expr, Var, variables, walk
from treadle.expr.terms import Poly

_COUNT = 96
_POOL = np.array([-3, -1, 0, 1, 1, 2, 3, 4, 5, 7, 8, 12, 16, 31, 32, 64, 65, 100, 128, 240, 768])


class Samples:
    """A few assignments of variables under which all facts hold; chosen with a fixed seed."""

    def __init__(self, known: Known) -> None:
        self._random = np.random.default_rng(0)
        self._env: dict[Var, NDArray[np.generic]] = {}
        self._count = _COUNT
        self._draw(known)

    def refute(self, p: Poly) -> bool:
        """Whether ``p`` is below zero in one of them."""
        if self._count == 0:
            return False
        values = {x: self._value(x) for x in p.atoms()}
        total: Value = np.full(self._count, p.constant)
        for monomial, coefficient in p.terms.items():
            if monomial:
                part = values[monomial[0]]
                for x in monomial[1:]:
                    part = part * values[x]
                total = total + coefficient * part
        return bool(np.any(total < 0))

    def _draw(self, known: Known) -> None:
        exprs = (*known.claims, *(e for _, e in known.ranges))
        if any(not isinstance(x, Const | Var | Apply) for x in walk(*exprs)):
            # Facts about memory: values drawn for it now would not be those drawn for it later.
            self._count = 0
            return
        self._fill(*exprs)
        keep = np.ones(_COUNT, bool)
        for var, extent in known.ranges:
            size = self._value(extent)
            # The ends of a range tell more than its middle.
            part = self._random.choice((0.0, 0.0, 0.3, 0.7, 1.0, 1.0), _COUNT)
            self._env[var] = np.rint(part * np.maximum(size - 1, 0)).astype(np.int64)
            keep &= size >= 1
        for claim in known.claims:
            keep &= self._value(claim)
        self._env = {v: values[keep] for v, values in self._env.items()}
        self._count = int(keep.sum())

    def _fill(self, *exprs: Expr) -> None:
        """Draw values of the variables that have none."""
        for v in variables(*exprs):
            if v not in self._env:
                drawn = self._random.choice(_POOL, self._count)
                self._env[v] = drawn.astype(v.dtype.numpy)

    def _value(self, x: Expr) -> Value:
        self._fill(x)
        return np.broadcast_to(evaluate(x, self._env, self._memory), (self._count,))

    def _memory(self, x: Expr, _: tuple[Value, ...]) -> Value:
        return self._random.choice(_POOL, self._count).astype(x.dtype.numpy)
