"""Random instructions, most of which a schedule refuses, for laws that hold of all that it accepts."""

import numpy as np

from treadle.base.errors import ScheduleError
from treadle.expr.scalar import Var
from treadle.ir.analysis import accesses, blocks, statements
from treadle.ir.tensor import For, TensorFunction
from treadle.schedule.cache import CacheRead, CacheWrite, SetScope
from treadle.schedule.compute_at import ComputeAt, ReverseComputeAt
from treadle.schedule.index_map import IndexMap
from treadle.schedule.inline import ComputeInline, ReverseComputeInline
from treadle.schedule.instruction import Instruction
from treadle.schedule.layout import TransformLayout
from treadle.schedule.loops import Fuse, Parallel, Reorder, Split, Unroll, Vectorize
from treadle.schedule.reduction import DecomposeReduction, RFactor

SCOPES = ("stack", "register", "global")
MOVES = (
    "split", "split", "split", "fuse", "reorder", "reorder", "kind", "inline", "reverse_inline",
    "at", "at", "reverse_at", "reverse_at", "read", "write", "scope", "decompose", "rfactor", "layout",
)  # fmt: skip


def random_instruction(function: TensorFunction, rng: np.random.Generator) -> Instruction:
    """An instruction over names of the function; it need not apply."""
    loops = [s.var.name for s in statements(function.body) if isinstance(s, For)]
    names = [b.name for b in blocks(function)]
    buffers = sorted({a.buffer for a in accesses(function.body)}, key=lambda b: b.name)

    def pick(items):
        return items[int(rng.integers(len(items)))]

    def factors():
        sizes = [int(rng.integers(1, 6)) for _ in range(int(rng.integers(1, 3)))]
        sizes.insert(int(rng.integers(len(sizes) + 1)), None)
        return tuple(sizes)

    def nest():
        """Some loops around one block, in any order."""
        chain = _chains(function)
        own = pick(chain) if chain else loops[:1]
        some = [x for x in own if rng.random() < 0.7]
        return tuple(str(x) for x in rng.permutation(some))

    def adjacent():
        own = pick(_chains(function))
        start = int(rng.integers(len(own)))
        return tuple(own[start : start + 2])

    def layout():
        buffer = pick(buffers)
        params = tuple(f"p{d}" for d in range(buffer.ndim))
        at, tile = int(rng.integers(max(1, buffer.ndim))), int(rng.integers(2, 5))
        old = [Var(p) for p in params]
        new = [x // tile if d == at else x for d, x in enumerate(old)]
        new = [*(new[i] for i in rng.permutation(len(new))), *([old[at] % tile] if old else [])]
        return TransformLayout(buffer.name, IndexMap(params, tuple(new)))

    make = {
        "split": lambda: Split(pick(loops), factors()),
        "fuse": lambda: Fuse(adjacent()),
        "reorder": lambda: Reorder(nest(), bool(rng.random() < 0.3)),
        "kind": lambda: pick((Vectorize, Unroll, Parallel))(pick(loops)),
        "inline": lambda: ComputeInline(pick(names)),
        "reverse_inline": lambda: ReverseComputeInline(pick(names)),
        "at": lambda: ComputeAt(pick(names), pick(loops)),
        "reverse_at": lambda: ReverseComputeAt(pick(names), pick(loops)),
        "read": lambda: CacheRead(pick(names), pick(buffers).name, pick(SCOPES)),
        "write": lambda: CacheWrite(pick(names), pick(SCOPES)),
        "scope": lambda: SetScope(pick(buffers).name, pick(SCOPES)),
        "decompose": lambda: DecomposeReduction(pick(names), pick(loops)),
        "rfactor": lambda: RFactor(pick(loops)),
        "layout": layout,
    }
    return make[pick(MOVES)]()


def _chains(function: TensorFunction) -> list[list[str]]:
    found = []

    def visit(body, above):
        for stmt in body:
            if isinstance(stmt, For):
                visit(stmt.body, [*above, stmt.var.name])
            elif hasattr(stmt, "iters"):
                found.append(above)

    visit(function.body, [])
    return [c for c in found if c]


def random_trace(
    function: TensorFunction, rng: np.random.Generator, attempts: int
) -> tuple[TensorFunction, list[Instruction]]:
    """Try instructions; what was accepted, and the function that it gives."""
    trace: list[Instruction] = []
    for _ in range(attempts):
        instruction = random_instruction(function, rng)
        try:
            function = instruction.apply(function)
        except ScheduleError:
            continue
        trace.append(instruction)
    return function, trace
