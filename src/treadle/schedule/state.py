"""What holds of the blocks of a function: the conditions that schedules rest on, in one place.

``scope_state`` says for each block whether its bindings are affine, independent and covering, and
whether what it reads was written before (region cover), and whether the blocks form a pipeline of
stages. ``validate`` refuses a function where one of them does not hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from treadle.base.errors import ScheduleError
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Expr, Var
from treadle.ir.analysis import Access, accesses
from treadle.ir.printer import Node, annotated_text
from treadle.ir.tensor import Block, For, If, Let, Store, TensorFunction
from treadle.schedule.bindings import BindingState, binding_state
from treadle.schedule.dependence import covers
from treadle.schedule.nest import BlockSite, block_sites, facts_at
from treadle.schedule.regions import Range, Region, access_region, disjoint


@dataclass(frozen=True, slots=True)
class BlockState:
    """What is shown of a block; ``uncovered`` are the reads that no earlier block is shown to have
    written.
    """

    site: BlockSite
    binding: BindingState
    uncovered: tuple[Access, ...]

    @property
    def region_cover(self) -> bool:
        """Whether all that the block reads was written before."""
        return not self.uncovered


@dataclass(frozen=True, slots=True)
class ScopeState:
    """What is shown of the blocks of a function, in the order of the text.

    ``overwritten`` are stores to what another block has read before; ``stray`` whether statements
    stand outside of blocks.
    """

    blocks: tuple[BlockState, ...]
    overwritten: tuple[Access, ...]
    stray: bool

    @property
    def stage_pipeline(self) -> bool:
        """Whether the blocks hand on to each other what they make, and nothing else happens."""
        covered = all(b.region_cover for b in self.blocks)
        return covered and not self.overwritten and not self.stray

    def block(self, name: str) -> BlockState:
        """The state of a block.

        Raises:
            KeyError: if there is none of this name.
        """
        found = {b.site.node.name: b for b in self.blocks}
        return found[name]


@lru_cache(maxsize=64)
def scope_state(function: TensorFunction) -> ScopeState:
    """The state of a function's blocks; worked out once for each function."""
    found = accesses(function.body)
    bindings = {s.node: binding_state(function, s) for s in block_sites(function)}
    blocks = tuple(
        BlockState(site, bindings[site.node], _uncovered(function, found, bindings, site.node))
        for site in block_sites(function)
    )
    stray = any(not a.blocks and isinstance(a.stmt, Store | Let | If) for a in found)
    return ScopeState(blocks, _overwritten(function, found), stray)


def validate(function: TensorFunction) -> None:
    """Check that loops step through the domains of blocks, and that blocks read what was written.

    Raises:
        ScheduleError: E0356 for a block whose bindings are not shown to be affine, independent and
            covering; E0357 for a read that is not shown to be covered by earlier writes.
    """
    for block in scope_state(function).blocks:
        node, state = block.site.node, block.binding
        if not state.covering:
            shown: Node = node if state.axis is None else state.axis
            who = f"block '{node.name}'" if state.axis is None else f"axis '{state.axis.var}'"
            raise _refusal(
                function,
                shown,
                "E0356",
                f"the loops do not step through the domain of block '{node.name}': {who} "
                f"{state.why}",
                "bind each axis to loops of its own, or to parts such as i // 4 and i % 4",
            )
        for read in block.uncovered:
            raise _refusal(
                function,
                node,
                "E0357",
                f"block '{node.name}' reads elements of '{read.buffer.name}' that no block before "
                "it is shown to write",
                "write the whole region before it is read",
            )


def _refusal(
    function: TensorFunction, node: Node, code: str, message: str, hint: str
) -> ScheduleError:
    span = getattr(node, "span", None) or function.span
    return ScheduleError(
        code,
        message,
        place=None if span is None else str(span),
        excerpt=annotated_text(function, node),
        help=hint,
    )


# ---- Region cover


def _uncovered(
    function: TensorFunction,
    found: Sequence[Access],
    bindings: dict[Block, BindingState],
    block: Block,
) -> tuple[Access, ...]:
    inputs = frozenset(function.input_buffers)
    return tuple(
        a
        for p, a in enumerate(found)
        if a.kind == "load"
        and a.buffer not in inputs
        and (a.stmt is block or block in a.blocks)
        and not _is_covered(function, found, bindings, p)
    )


def _is_covered(
    function: TensorFunction,
    found: Sequence[Access],
    bindings: dict[Block, BindingState],
    position: int,
) -> bool:
    read = found[position]
    boxes: list[Region] = []
    for write in found[:position]:
        if write.kind != "store" or write.buffer is not read.buffer or not write.blocks:
            continue
        own = bool(read.blocks) and write.blocks[0] is read.blocks[0]
        if own and write.in_init and write.indices == read.indices:
            return True
        if own or not bindings[write.blocks[0]].covering:
            continue
        still, facts = _common(function, write, read)
        if covers(write, read, still, facts):
            return True
        if not still and covers(write, write, still, facts):
            boxes.append(access_region(write, (), facts))
    facts = facts_at(function, ())
    return bool(boxes) and _together(boxes, access_region(read, (), facts), facts)


def _common(function: TensorFunction, write: Access, read: Access) -> tuple[list[Var], Facts]:
    shared: list[For] = []
    for a, b in zip(write.loops, read.loops, strict=False):
        if a is not b:
            break
        shared.append(a)
    return [x.var for x in shared], facts_at(function, shared)


def _together(boxes: Sequence[Region], wanted: Region, facts: Facts) -> bool:
    """Whether boxes side by side in one dimension hold all that is wanted."""
    for dim, part in enumerate(wanted):
        others = wanted[:dim] + wanted[dim + 1 :]
        usable = [
            box[dim] for box in boxes if _contains_others(box[:dim] + box[dim + 1 :], others, facts)
        ]
        if _reaches(part.low, part.end, usable, facts):
            return True
    return False


def _reaches(start: Expr, end: Expr, parts: Sequence[Range], facts: Facts) -> bool:
    """Whether ranges hold all from ``start`` to ``end``; each may turn out empty."""
    if prove(start >= end, facts):
        return True
    for p, part in enumerate(parts):
        rest = (*parts[:p], *parts[p + 1 :])
        if prove(part.low <= start, facts) and prove(part.extent >= 0, facts):
            return _reaches(part.end, end, rest, facts)
        filled = facts.with_fact(part.extent >= 1)
        if prove(part.low <= start, filled):
            empty = facts.with_fact(part.extent <= 0)
            return _reaches(part.end, end, rest, filled) and _reaches(start, end, rest, empty)
    return False


def _contains_others(outer: Region, inner: Region, facts: Facts) -> bool:
    return all(
        prove(a.low <= b.low, facts) and prove(b.end <= a.end, facts)
        for a, b in zip(outer, inner, strict=True)
    )


# ---- Stages


def _overwritten(function: TensorFunction, found: Sequence[Access]) -> tuple[Access, ...]:
    facts = facts_at(function, ())
    return tuple(
        write
        for p, write in enumerate(found)
        if write.kind == "store"
        and any(
            read.kind == "load"
            and read.buffer is write.buffer
            and read.blocks[:1] != write.blocks[:1]
            and not disjoint(access_region(read, (), facts), access_region(write, (), facts), facts)
            for read in found[:p]
        )
    )
