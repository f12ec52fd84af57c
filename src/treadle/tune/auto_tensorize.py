"""Which tensor intrinsics a block could use, and how: by what its axes occur in, not by operator.

The method is that of TensorIR (arXiv 2207.04296, §4.2). The block's expression is compared with the
intrinsic's while indices are ignored. Each axis then has a *characteristic vector*: in which of the
result and the operands it occurs. Axes of equal vectors are fused, outermost first, to the axis of
the intrinsic that has this vector; spatial axes that occur everywhere stay around as a batch.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from treadle.expr.bounds import divisible
from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Apply, Expr, Var, int_value, variables
from treadle.ir.analysis import blocks, facts_of, find_block
from treadle.ir.tensor import ZERO, Block, Buffer, IterVar, Load
from treadle.passes.kinds import only_store
from treadle.schedule.block_layout import TransformBlockLayout
from treadle.schedule.index_map import IndexMap
from treadle.schedule.intrinsics import TensorIntrin, find_intrinsic
from treadle.schedule.pad_einsum import PadEinsum
from treadle.schedule.reindex import ReindexCacheRead, ReindexCacheWrite
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.attempt import attempt
from treadle.tune.blocks import contraction_of, follower_of, loops_of_axes
from treadle.tune.dot_schedule import (
    DotPlan,
    own_result,
    panels,
    tile_nest,
    tile_of,
)

_FAMILIES = (("fma_f32", 1), ("dot_bf16", 2), ("dot_u8i8", 4), ("dot_i8i8", 4))
_ROWS = 4
_GUESS = 128
"""What symbolic extents are taken for, and rows of the tile that candidates are looked for with."""

Characteristic = tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to use an intrinsic for a block.

    ``groups`` has the block's axes that are fused to each axis of the intrinsic, in the order of
    the description, outermost first; ``batch`` are the axes that stay around. ``places`` says
    which access of the block each buffer of the intrinsic stands for.
    """

    intrin: TensorIntrin
    groups: tuple[tuple[IterVar, ...], ...]
    batch: tuple[IterVar, ...]
    places: Mapping[Buffer, Load]

    def moved(self, constants: frozenset[Buffer]) -> int:
        """How many elements have to be copied to be in the intrinsic's order; symbolic extents
        count as 128, constants not at all.
        """
        total = 0
        for said, load in self.places.items():
            if load.buffer not in constants and not self.in_order(said):
                total += prod(_extent(a) for a in (*self.batch, *self._axes_of(said)))
        return total

    def _axes_of(self, said: Buffer) -> tuple[IterVar, ...]:
        order = _index_order(self.intrin, said)
        (body,) = blocks(self.intrin.description)
        places = [a.var for a in body.iters]
        return tuple(x for var in order for x in self.groups[places.index(var)])

    def place(self, said: Buffer) -> tuple[Expr, ...]:
        """The batch and the fused axes of an operand, in the intrinsic's order."""
        order = _index_order(self.intrin, said)
        (body,) = blocks(self.intrin.description)
        axes = [a.var for a in body.iters]
        return (*(a.var for a in self.batch), *(fused(self.groups[axes.index(v)]) for v in order))

    def in_order(self, said: Buffer) -> bool:
        """Whether an operand is indexed so already."""
        return self.places[said].indices == self.place(said)

    @property
    def axes(self) -> tuple[Expr, ...]:
        """All axes after fusing: batch, then those of the intrinsic."""
        return (*(a.var for a in self.batch), *(fused(group) for group in self.groups))


def fused(axes: Iterable[IterVar]) -> Expr:
    """One index for several axes, the outermost first."""
    index: Expr | None = None
    for axis in axes:
        index = axis.var if index is None else index * axis.extent + axis.var
    return ZERO if index is None else index


def _extent(axis: IterVar) -> int:
    known = int_value(axis.extent)
    return _GUESS if known is None else known


def candidates(
    block: Block, target: Target, constants: frozenset[Buffer] = frozenset()
) -> tuple[Candidate, ...]:
    """The ways to use the target's own intrinsics for a block, those that move least first."""
    found = [c for intrin in native_products(target) for c in candidates_of(block, intrin)]
    return tuple(sorted(found, key=lambda c: c.moved(constants)))


def native_products(target: Target) -> tuple[TensorIntrin, ...]:
    """The products that the target has instructions for, at its widest."""
    lanes = target.lanes(32)
    names = (f"{family}_{_ROWS}x{lanes}x{group}" for family, group in _FAMILIES)
    found = (find_intrinsic(name) for name in names)
    return tuple(x for x in found if x is not None and x.is_native(target))


def candidates_of(block: Block, intrin: TensorIntrin) -> tuple[Candidate, ...]:
    """The ways to use an intrinsic for a block."""
    (said,) = blocks(intrin.description)
    model, store = only_store(said), only_store(block)
    if model is None or store is None or model.buffer.dtype != store.buffer.dtype:
        return ()
    own = Load(store.buffer, store.indices)
    start = {model.buffer: own}
    found: list[Candidate] = []
    for places in _assigned(model.value, store.value, start):
        made = _grouped(block, said, intrin, places)
        if made is not None and all(made.places != c.places for c in found):
            found.append(made)
    return tuple(found)


def _assigned(
    said: Expr, found: Expr, places: Mapping[Buffer, Load]
) -> Iterator[Mapping[Buffer, Load]]:
    """The ways to read an expression as the description's, indices ignored."""
    if isinstance(said, Load):
        if not isinstance(found, Load) or found.mask is not None or found.dtype != said.dtype:
            return
        known = places.get(said.buffer)
        if known is None:
            yield {**places, said.buffer: found}
        elif known is found:
            yield places
    elif isinstance(said, Apply) and isinstance(found, Apply):
        same = said.fn == found.fn and said.dtype is found.dtype
        if same and len(said.args) == len(found.args):
            yield from _all_assigned(said.args, found.args, places)
            if FUNCTIONS[said.fn].commutes and found.args[0] is not found.args[1]:
                yield from _all_assigned(said.args, found.args[::-1], places)
    elif said is found:
        yield places


def _all_assigned(
    said: tuple[Expr, ...], found: tuple[Expr, ...], places: Mapping[Buffer, Load]
) -> Iterator[Mapping[Buffer, Load]]:
    if not said:
        yield places
        return
    for first in _assigned(said[0], found[0], places):
        yield from _all_assigned(said[1:], found[1:], first)


def characteristics(
    iters: Iterable[IterVar], accesses: Iterable[Load]
) -> dict[Var, Characteristic]:
    """In which accesses each axis occurs."""
    used = [frozenset(variables(*load.indices)) for load in accesses]
    return {a.var: tuple(a.var in v for v in used) for a in iters}


def _grouped(
    block: Block, said: Block, intrin: TensorIntrin, places: Mapping[Buffer, Load]
) -> Candidate | None:
    order = tuple(places)
    model = _model_loads(said)
    wanted = characteristics(said.iters, (model[b] for b in order))
    own = characteristics(block.iters, places.values())
    everywhere = (True,) * len(order)
    if len(set(wanted.values())) != len(wanted) or set(model) != set(order):
        return None
    groups = tuple(
        tuple(a for a in block.iters if own[a.var] == wanted[x.var] and a.kind == x.kind)
        for x in said.iters
    )
    taken = {a.var for group in groups for a in group}
    batch = tuple(a for a in block.iters if a.var not in taken)
    if not all(groups) or any(a.kind != "spatial" or own[a.var] != everywhere for a in batch):
        return None
    return Candidate(intrin, groups, batch, places)


def _model_loads(said: Block) -> dict[Buffer, Load]:
    """The one place of each buffer in a description."""
    store = only_store(said)
    found: dict[Buffer, Load] = {}
    stack: list[Expr] = [] if store is None else [store.value]
    while stack:
        x = stack.pop()
        if isinstance(x, Load):
            found[x.buffer] = x
        else:
            stack.extend(x.children)
    if store is not None:
        found.setdefault(store.buffer, Load(store.buffer, store.indices))
    return found


def _index_order(intrin: TensorIntrin, said: Buffer) -> tuple[Var, ...]:
    """The description's axes in the order in which they index a buffer."""
    (block,) = blocks(intrin.description)
    load = _model_loads(block)[said]
    return tuple(variables(*load.indices))


def auto_tensorize(s: Schedule, block: str, candidate: Candidate, target: Target) -> None:
    """Schedule a block as a candidate says: operands and result in the order of the intrinsic
    (through copies where they are not), one axis for each of the intrinsic's, extents padded to
    whole tiles, the right operand packed, and the intrinsic in the middle.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    node = find_block(s.function, block)
    left, right, result = candidate.intrin.description.buffers
    params = () if node is None else tuple(a.var.name for a in node.iters)
    for said in (left, right):
        if not candidate.in_order(said):
            place = IndexMap(params, candidate.place(said))
            s.apply(ReindexCacheRead(block, candidate.places[said].buffer.name, "global", place))
    if not candidate.in_order(result):
        s.apply(ReindexCacheWrite(block, "global", IndexMap(params, candidate.place(result))))
        if not _fuse_copy(s, block, candidate.place(result), node):
            s.cache_write(block, "global")
    if candidate.axes != tuple(map(Var, params)):
        s.apply(TransformBlockLayout(block, IndexMap(params, candidate.axes)))
    _pad(s, block, _plan(s, block, candidate, target))
    plan = _plan(s, block, candidate, target)
    own_result(s, block)
    found = contraction_of(s, block)
    load = found.operands[plan.packed]
    if load.buffer in s.function.buffers:
        s.cache_read(block, load.buffer.name, "global")
        found = contraction_of(s, block)
        load = found.operands[plan.packed]
    loops = loops_of_axes(s.function, found.block)
    s.transform_layout(load.buffer.name, panels(found, plan))
    tile_nest(s, block, found, plan, loops)


def _fuse_copy(s: Schedule, block: str, place: tuple[Expr, ...], node: Block | None) -> bool:
    """Count the points of the copy of a result as its operand lies, so that it can follow tiles;
    whether that can be done.
    """
    copy = follower_of(s, block)
    if copy is None or node is None:
        return False
    spatial = tuple(a.var.name for a in node.iters if a.kind == "spatial")
    layout = TransformBlockLayout(copy, IndexMap(spatial, place))
    return attempt(s, lambda trial: trial.apply(layout), optional=True)


def _plan(s: Schedule, block: str, candidate: Candidate, target: Target) -> DotPlan:
    """The tile for a block whose axes are those of an intrinsic, after a batch."""
    found = contraction_of(s, block)
    row, column, step = found.block.iters[-3:]
    family, _, extents = candidate.intrin.name.rpartition("_")
    _, lanes, group = (int(x) for x in extents.split("x"))
    packed = next(n for n in (0, 1) if column.var in found.axes_of(n))
    vectors, rows = tile_of(column, row, lanes, target)
    return DotPlan(family, group, packed, column, step, row, rows, vectors, lanes)


def _pad(s: Schedule, block: str, plan: DotPlan) -> None:
    """Round extents up to whole tiles where they are not."""
    found = contraction_of(s, block)
    batch = (1,) * (len(found.block.iters) - 3)
    wanted = (plan.rows, plan.vectors * plan.lanes, plan.group)
    facts = facts_of(s.function)
    ends = found.block.iters[-3:]
    whole = (divisible(a.extent, n, facts) for a, n in zip(ends, wanted, strict=True))
    numbers = tuple(1 if fits else n for fits, n in zip(whole, wanted, strict=True))
    if any(n > 1 for n in numbers):
        s.apply(PadEinsum(block, (*batch, *numbers)))
