"""The default schedule of two products that share rows, as in attention: some rows at a time go all
the way through.

For each batch the columns of the first product are packed once. Then, for a group of rows: the
scores of all columns, into a workspace that the nearest caches hold; what is done to rows, in lanes
along the columns; the second product, whose other operand is read as it lies. A group has several
register tiles, so that a panel of columns serves all of them while it is near.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.expr.scalar import int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import blocks, buffers_read, enclosing_loops, find_block
from treadle.ir.tensor import Buffer, IterVar, Load
from treadle.passes.chains import RowChain, row_chain
from treadle.passes.kinds import is_affine_copy, only_store
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.blocks import block_of, contraction_of, loop_of_axis, loops_of_axes
from treadle.tune.contraction import Contraction, Tile, stride_of, tiles
from treadle.tune.contraction_schedule import panels
from treadle.tune.packing import pack_lanes
from treadle.tune.parallel import spread
from treadle.tune.row_schedule import vectorize_row
from treadle.tune.spatial_schedule import lanes_of, vectorize_loop

_GUESSES = ((128, 1.0),)
"""What symbolic extents are taken for: short rows cost little whatever the tile."""

_TILES = 4
"""Register tiles in a group of rows."""

_BALANCED = 4
"""Batches along one axis, for each thread, from which on these are what threads share; with fewer,
they share groups of rows, and columns are packed before.
"""


def schedule_chain(s: Schedule, target: Target, threads: int, constants: frozenset[Buffer]) -> bool:
    """Schedule a function that is a chain of two products; whether it is one.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    if row_chain(s.function) is None:
        return False
    _inline(s)
    chain = row_chain(s.function)
    tile = None if chain is None else _choose(s, chain, target, constants)
    if chain is None or tile is None:
        return False
    _Plan(s, chain, *tile, target, threads).run()
    return True


def _inline(s: Schedule) -> None:
    """Write copies into the second product and elements into what alone uses them, but keep what
    each side of the first product is copied by: that is its packing.
    """
    chain = row_chain(s.function)
    assert chain is not None
    for name in (*chain.operands, *chain.between, *chain.after[:-1]):
        block = block_of(s, name)
        store = only_store(block)
        if store is None or any(i.kind == "reduce" for i in block.iters):
            continue
        users = [x for x in blocks(s.function) if store.buffer in buffers_read((x,))]
        if len(users) != 1:
            continue
        if all(i.kind == "spatial" for i in users[0].iters):
            s.compute_inline(name)
        elif users[0].name == chain.second and name in chain.operands:
            trial = Schedule(s.function, s.trace)
            if is_affine_copy(store, frozenset(i.var for i in block.iters)):
                trial.compute_inline(name)
            if _lies_in_rows(trial, chain):
                s.function, s.trace = trial.function, trial.trace


def _lies_in_rows(s: Schedule, chain: RowChain) -> bool:
    """Whether neighbours along an axis of the result lie together in the second product's own
    operand.
    """
    found = contraction_of(s, chain.second)
    own = 1 - chain.passed
    return any(stride_of(found.operands[own], i.var) == 1 for i in found.free(own))


def _choose(
    s: Schedule, chain: RowChain, target: Target, constants: frozenset[Buffer]
) -> tuple[Tile, Tile] | None:
    """Tiles of both products with the same number of rows, of least estimated time together."""
    first, second = contraction_of(s, chain.first), contraction_of(s, chain.second)
    passed = second.operands[chain.passed]
    column = first.result[-1]
    found = tiles(first, s.function, constants, target, _GUESSES)
    above = [t for t in found if t.vector_axis is column]
    pairs = [
        (a, b)
        for b in tiles(second, s.function, constants, target, _GUESSES)
        if b.vector != chain.passed and b.row_axis in passed.indices
        for a in above
        if a.rows == b.rows and a.row_axis is first.result[passed.indices.index(b.row_axis)]
    ]
    return min(pairs, key=lambda p: p[0].cycles + p[1].cycles, default=None)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A schedule on its way: the tiles of the first and the second product."""

    s: Schedule
    chain: RowChain
    first: Tile
    second: Tile
    target: Target
    threads: int

    def run(self) -> None:
        """Place all blocks, the last ones first: what comes before is computed where they are."""
        s, chain = self.s, self.chain
        axes = self.batches()
        batches = max((int_value(simplify(i.extent)) or 1 for i in axes), default=1)
        widest = [int_value(simplify(i.extent)) for i in axes].index(batches) if batches > 1 else 0
        outer, home = self.place_second()
        batch = outer[: len(axes)]
        for name in (*reversed(chain.between), chain.first):
            s.compute_at(name, home)
        together = self.threads == 1 or batches >= _BALANCED * self.threads
        self.place_operands(batch if together else [], home)
        follower = self.place_first(home)
        around = set(self.loops_around(chain.second, home))
        for name in chain.between:
            if name != follower:
                row = self.loops_around(name, home, 1)[-1]
                vectorize_row(s, name, around | {row}, self.target, False)
        if self.threads > 1:
            s.parallel(batch[widest] if together else home)

    def batches(self) -> list[IterVar]:
        """The axes of the second product's result that neither operand has alone."""
        found = contraction_of(self.s, self.chain.second)
        own = {i.var for k in (0, 1) for i in found.free(k)}
        return [i for i in found.spatial if i.var not in own]

    def loops_around(self, block: str, home: str, more: int = 0) -> list[str]:
        """The loops around a block up to ``home``, and so many more."""
        found = [x.var.name for x in enclosing_loops(self.s.function, block_of(self.s, block))]
        return found[: found.index(home) + 1 + more]

    def place_second(self) -> tuple[list[str], str]:
        """Tile the second product: the loops over batches and other rows, and the one over groups
        of rows.
        """
        s, tile = self.s, self.second
        found = contraction_of(s, self.chain.second)
        loops = loops_of_axes(s.function, block_of(s, self.chain.second))
        own = {i.var for k in (0, 1) for i in found.free(k)}
        batch = [loops[i.var] for i in self.batches()]
        assert tile.row_axis is not None
        tiled = (tile.vector_axis, tile.row_axis)
        rest = [loops[i.var] for i in found.spatial if i.var in own and i.var not in tiled]
        group, part, row = s.split(loops[tile.row_axis], (None, _TILES, tile.rows))
        panel, *vectors = _split(s, loops[tile.vector_axis], tile)
        step = loops[found.reduce[0].var]
        s.reorder(*batch, *rest, group, panel, part, step, row, *vectors)
        before = frozenset(s.loops())
        if self.chain.after:
            s.set_scope(found.output.name, "register")
        after = self.chain.after or (s.cache_write(self.chain.second, "register"),)
        for name in after:
            s.reverse_compute_at(name, part)
        s.decompose_reduction(self.chain.second, step)
        self.in_registers([row, *vectors], before)
        return [*batch, *rest], group

    def in_registers(self, tile: Sequence[str], before: frozenset[str]) -> None:
        """Unroll the loops of a register tile, and those of the blocks that were made around it."""
        s = self.s
        nests = [list(tile)]
        for block in blocks(s.function):
            around = [x.var.name for x in enclosing_loops(s.function, block)]
            nests.append([x for x in around if x not in before])
        for nest in filter(None, nests):
            for name in nest[:-1]:
                s.unroll(name)
            s.vectorize(nest[-1])

    def place_operands(self, batch: list[str], home: str) -> None:
        """Pack the columns once for each batch, and compute rows where they are used."""
        s, tile = self.s, self.first
        found = contraction_of(s, self.chain.first)
        columns, rows = found.operands[tile.vector], found.operands[1 - tile.vector]
        for name in reversed(self.chain.operands):
            if find_block(s.function, name) is None or self.written(name) is columns.buffer:
                continue
            if self.written(name) is rows.buffer:
                s.compute_at(name, home)
            elif batch:
                s.compute_at(name, batch[-1])
            inner = enclosing_loops(s.function, block_of(s, name))[-1]
            vectorize_loop(s, inner, lanes_of(s.function, block_of(s, name), self.target))
        makers = [n for n in self.chain.operands if find_block(s.function, n) is not None]
        copy = next((n for n in makers if self.written(n) is columns.buffer), None)
        if copy is None:
            copy = s.cache_read(self.chain.first, columns.buffer.name, "global")
        self.pack(copy, found, columns, batch)

    def pack(self, copy: str, found: Contraction, columns: Load, batch: list[str]) -> None:
        """Compute the columns as panels: for each batch, or before all."""
        s, tile = self.s, self.first
        layout = panels(found, tile)
        fresh = s.compute_at(copy, batch[-1]) if batch else self.nest_of(copy, found, columns)
        buffer = self.written(copy)
        s.transform_layout(buffer.name, layout)
        place = columns.indices.index(tile.vector_axis)
        lane = loop_of_axis(s, copy, place, fresh)
        if lane is None:
            return
        pack_lanes(s, lane, [x for x in fresh if x != lane], tile.lanes, buffer.dtype)

    def nest_of(self, copy: str, found: Contraction, columns: Load) -> tuple[str, ...]:
        """The loops of a copy of all columns inside of those over batches, which threads share."""
        s = self.s
        block, both = block_of(s, copy), found.axes_of(0) & found.axes_of(1)
        reduced = {i.var for i in found.reduce}
        loops = loops_of_axes(s.function, block_of(s, copy))
        outer: list[str] = []
        inner: list[str] = []
        for axis, index in zip(block.iters, columns.indices, strict=True):
            used = {*variables(index)}
            (outer if used <= both - reduced else inner).append(loops[axis.var])
        s.reorder(*outer, *inner)
        if outer:
            spread(s, outer)
        return tuple(inner)

    def written(self, name: str) -> Buffer:
        """The buffer that a block writes."""
        store = only_store(block_of(self.s, name))
        assert store is not None
        return store.buffer

    def place_first(self, home: str) -> str | None:
        """Tile the first product where a group of rows is at home; the block that takes its result
        from the registers, if that is not a copy.
        """
        s, tile, block = self.s, self.first, self.chain.first
        found = contraction_of(s, block)
        own = [x.var.name for x in enclosing_loops(s.function, found.block)]
        own = own[own.index(home) + 1 :]
        loops = {
            i.var: next(v.name for v in variables(i.binding) if v.name in own)
            for i in found.block.iters
            if any(v.name in own for v in variables(i.binding))
        }
        assert tile.row_axis is not None
        part, row = s.split(loops[tile.row_axis], (None, tile.rows))
        panel, *vectors = _split(s, loops[tile.vector_axis], tile)
        steps = [loops[i.var] for i in found.reduce]
        s.reorder(panel, part, *steps, row, *vectors)
        readers = [n for n in self.chain.between if found.output in buffers_read((block_of(s, n),))]
        follower = None
        if len(readers) == 1 and all(i.kind == "spatial" for i in block_of(s, readers[0]).iters):
            follower = readers[0]
            s.set_scope(found.output.name, "register")
        before = frozenset(s.loops())
        s.reverse_compute_at(follower or s.cache_write(block, "register"), part)
        s.decompose_reduction(block, steps[0])
        self.in_registers([row, *vectors], before)
        return follower


def _split(s: Schedule, column: str, tile: Tile) -> tuple[str, ...]:
    """A loop split into panels, vectors of a panel, and lanes."""
    return s.split(column, (None, tile.vectors, tile.lanes))
