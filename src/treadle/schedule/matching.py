"""Whether a block does what a description says: the same expression over elements in the same
places.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

from treadle.expr.bounds import Facts
from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Apply, Expr, Var, int_value, substitute
from treadle.expr.simplify import simplify
from treadle.ir.analysis import shifted
from treadle.ir.tensor import ZERO, Block, Buffer, IterVar, Load, Store, TensorFunction
from treadle.schedule.dependence import single_store


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What differs: the part of the program, and how."""

    node: Expr | Buffer | IterVar | Store | Block
    why: str


@dataclass(frozen=True, slots=True)
class Region:
    """Where a buffer of a description lies: in ``buffer`` at ``offset``; its dimensions are the
    buffer's number ``dims``.
    """

    buffer: Buffer
    offset: tuple[Expr, ...]
    dims: tuple[int, ...]
    kept: tuple[int, ...]

    def at(self, dim: int) -> int:
        """The buffer's dimension that a dimension of the description is."""
        return self.dims[self.kept.index(dim)]

    def place(self, indices: Sequence[Expr]) -> tuple[Expr, ...]:
        """The indices in the buffer of an element of the description's."""
        result = list(self.offset)
        for dim, own in zip(self.dims, self.kept, strict=True):
            result[dim] = simplify(shifted(indices[own], self.offset[dim]))
        return tuple(result)


@dataclass(eq=False)
class _Attempt:
    """One way to read the block's axes as the description's; ``steps`` counts what agreed."""

    axes: Mapping[Var, Expr]
    inner: frozenset[Var]
    facts: Facts
    regions: dict[Buffer, Region] = field(default_factory=dict[Buffer, Region])
    steps: int = 0
    mismatch: Mismatch | None = None

    def fail(self, node: Expr | Buffer | IterVar | Store | Block, why: str) -> bool:
        self.mismatch = Mismatch(node, why)
        return False

    def same(self, said: Expr, found: Expr) -> bool:
        """Whether an expression of the block is what the description says."""
        if isinstance(said, Load):
            return self._same_load(said, found)
        if said.dtype != found.dtype:
            return self.fail(found, f"this is of type {found.dtype}, not {said.dtype}")
        if isinstance(said, Apply):
            return self._same_apply(said, found)
        expected = substitute(said, self.axes)
        equal = said is found or simplify(expected - found, self.facts) is ZERO
        if not equal:
            return self.fail(found, f"the intrinsic has {said} here")
        self.steps += 1
        return True

    def _same_load(self, said: Load, found: Expr) -> bool:
        if not isinstance(found, Load):
            return self.fail(found, f"the intrinsic reads '{said.buffer.name}' here")
        if found.mask is not None:
            return self.fail(found, "this is read under a mask, and the intrinsic has none")
        return self.bind(said.buffer, said.indices, found.buffer, found.indices, found)

    def _same_apply(self, said: Apply, found: Expr) -> bool:
        if not isinstance(found, Apply) or found.fn != said.fn or len(found.args) != len(said.args):
            return self.fail(found, f"the intrinsic has {_short(said)} here")
        self.steps += 1
        regions = dict(self.regions)
        if all(self.same(a, b) for a, b in zip(said.args, found.args, strict=True)):
            return True
        if not FUNCTIONS[said.fn].commutes:
            return False
        first, steps, self.regions = self.mismatch, self.steps, regions
        if all(self.same(a, b) for a, b in zip(said.args, found.args[::-1], strict=True)):
            return True
        if steps >= self.steps:
            self.mismatch = first
        return False

    def bind(
        self,
        said: Buffer,
        places: Sequence[Expr],
        buffer: Buffer,
        indices: Sequence[Expr],
        node: Expr | Store,
    ) -> bool:
        """Note where a buffer of the description lies, or check that it lies there."""
        if said.dtype != buffer.dtype:
            return self.fail(node, f"'{buffer.name}' holds {buffer.dtype}, not {said.dtype}")
        still: dict[Var, Expr] = {v: ZERO for v in self.inner}
        offset = tuple(simplify(substitute(i, still), self.facts) for i in indices)
        moves = [simplify(i - o, self.facts) for i, o in zip(indices, offset, strict=True)]
        expected = [simplify(substitute(p, self.axes), self.facts) for p in places]
        dims = tuple(n for n, m in enumerate(moves) if m is not ZERO)
        kept = tuple(n for n, p in enumerate(expected) if p is not ZERO)
        differs = len(dims) != len(kept) or any(
            simplify(moves[d] - expected[k], self.facts) is not ZERO
            for d, k in zip(dims, kept, strict=True)
        )
        if differs:
            listed = ", ".join(map(str, places))
            return self.fail(
                node, f"'{buffer.name}' is not accessed as the intrinsic does {said.name}[{listed}]"
            )
        region = Region(buffer, offset, dims, kept)
        known = self.regions.setdefault(said, region)
        if known != region:
            return self.fail(node, f"this is not where '{said.name}' of the intrinsic lies")
        self.steps += 1
        return True


def _short(e: Apply) -> str:
    symbol = FUNCTIONS[e.fn].symbol
    return f"'{symbol or e.fn}'"


def match_block(
    block: Block, description: TensorFunction, said: Block, facts: Facts
) -> dict[Buffer, Region] | Mismatch:
    """Where the buffers of a description lie in the program, if ``block`` does what its block
    ``said`` does; else how it differs.

    ``facts`` must know the ranges of all axes around.
    """
    store, model = single_store(block), single_store(said)
    if store is None or model is None:
        return Mismatch(block, f"block '{block.name}' is not one plain store, as the intrinsic is")
    if block.init or store.mask is not None:
        return Mismatch(block, f"block '{block.name}' starts a reduction, or stores under a mask")
    best: _Attempt | None = None
    for axes in _readings(block, said):
        attempt = _Attempt(axes, frozenset(a.var for a in block.iters), facts)
        fits = attempt.bind(model.buffer, model.indices, store.buffer, store.indices, store)
        if fits and attempt.same(model.value, store.value):
            return attempt.regions
        if best is None or attempt.steps > best.steps:
            best = attempt
    if best is None or best.mismatch is None:
        return Mismatch(block, f"the axes of block '{block.name}' are others: {_axes_text(said)}")
    return best.mismatch


def _axes_text(block: Block) -> str:
    listed = ", ".join(f"{a.extent} ({a.kind})" for a in block.iters)
    return f"the intrinsic has {listed}"


def _readings(block: Block, said: Block) -> Iterator[dict[Var, Expr]]:
    """The ways to take the description's axes for the block's, of the same kinds and extents."""
    wanted = [a for a in said.iters if int_value(a.extent) != 1]
    fixed: dict[Var, Expr] = {a.var: ZERO for a in said.iters if int_value(a.extent) == 1}
    own = [a for a in block.iters if int_value(a.extent) != 1]
    if len(own) != len(wanted):
        return
    for order in permutations(own):
        pairs = list(zip(wanted, order, strict=True))
        if all(_alike(a, b) for a, b in pairs):
            yield {**fixed, **{a.var: b.var for a, b in pairs}}


def _alike(a: IterVar, b: IterVar) -> bool:
    return a.kind == b.kind and a.extent is b.extent
