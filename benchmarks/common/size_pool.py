"""What memory costs without a plan: every value is asked of a pool when it is made, and handed back
after its last use. The pool hands out a free block of exactly the bytes that are asked for, or
takes a new one; it gives none back to the system.

This is how compilers without planning across dynamic shapes run (Relax, arXiv 2311.02103, §5.4,
Table 2): a new length asks for sizes that no free block has.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from treadle.base.errors import InternalError
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import Expr, Var
from treadle.ir.calls import AssertTrue, BindSymbol, CallTensor, MatchCast
from treadle.ir.graph import Binding, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ops.reshape import Reshape
from treadle.ops.shape import Slice
from treadle.passes.share_memory import size_of

_VIEWS = (Reshape, Slice, MatchCast, AssertTrue, BindSymbol)


@dataclass(frozen=True, slots=True)
class Request:
    """``size`` bytes from the making of a value until after step ``last``."""

    size: Expr
    made: int
    last: int


@dataclass(slots=True)
class SizePool:
    """Free blocks by size, and the bytes of all blocks ever taken."""

    free: Counter[int] = field(default_factory=Counter[int])
    total: int = 0

    def take(self, size: int) -> None:
        """Reuse a free block of this size, or take a new one."""
        if self.free[size]:
            self.free[size] -= 1
        else:
            self.total += size

    def give_back(self, size: int) -> None:
        """A block that nobody uses any more."""
        self.free[size] += 1

    def run(self, requests: Sequence[Request], values: Mapping[Var, int]) -> None:
        """One call of a program, with the values of its symbols."""
        sizes = [int(evaluate(r.size, values)) for r in requests]
        steps = max((r.last for r in requests), default=-1) + 1
        for step in range(steps):
            for r, size in zip(requests, sizes, strict=True):
                if r.made == step:
                    self.take(size)
            for r, size in zip(requests, sizes, strict=True):
                if r.last == step:
                    self.give_back(size)


def requests_of(module: Module, entry: str = "main") -> list[Request]:
    """The values of an entry that need memory of their own, results and inputs left out.

    Views lie in the memory of what they show, and a result that updates an operand in that of the
    operand; nothing else is shared.
    """
    function = module.graph(entry)
    owners: dict[Value, Value] = {}
    for b in function.body:
        owners.update(_shared(b, module, owners))
    made = {v: i for i, b in enumerate(function.body) for v in b.outputs if v not in owners}
    last = dict(made)
    for i, b in enumerate(function.body):
        for a in b.args:
            owner = owners.get(a, a) if isinstance(a, Value) else None
            if isinstance(owner, Value) and owner in last:
                last[owner] = i
    kept = _results(function, owners)
    return [Request(size_of(v), made[v], last[v]) for v in made if v not in kept]


def _shared(b: Binding, module: Module, owners: Mapping[Value, Value]) -> dict[Value, Value]:
    """The results of a binding that lie in other values' memory, and whose."""
    if isinstance(b.op, _VIEWS):
        source = b.args[0]
        return {b.outputs[0]: owners.get(source, source)} if isinstance(source, Value) else {}
    if not isinstance(b.op, CallTensor):
        return {}
    found: dict[Value, Value] = {}
    for k, j in module.tensor(b.op.function).updates:
        operand = b.args[j]
        if not isinstance(operand, Value):
            raise InternalError("a constant is updated")
        found[b.outputs[k]] = owners.get(operand, operand)
    return found


def _results(function: GraphFunction, owners: Mapping[Value, Value]) -> set[Value]:
    return {owners.get(r, r) for r in function.results if isinstance(r, Value)}


def pool_bytes(requests: Sequence[Request], calls: Iterable[Mapping[Var, int]]) -> int:
    """What a pool holds after a series of calls."""
    pool = SizePool()
    for values in calls:
        pool.run(requests, values)
    return pool.total
