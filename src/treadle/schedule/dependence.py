"""What blocks under a loop owe each other: the conditions that primitives share."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from treadle.base.errors import ScheduleError
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Apply, Expr, Var, as_expr, substitute, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access, accesses, allocated, facts_of, flat_index
from treadle.ir.loop_builder import Combine
from treadle.ir.tensor import (
    PREFETCHES,
    ZERO,
    Allocate,
    Block,
    Buffer,
    For,
    If,
    Intrinsic,
    IterKind,
    Load,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.schedule.digits import one_to_one
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import BlockSite, LoopSite, Site, blocks_below, conjuncts, facts_at, uses
from treadle.schedule.regions import (
    access_region,
    contains,
    disjoint,
    index_range,
    over_loops,
)

# ---- The forms of blocks


@dataclass(frozen=True, slots=True)
class Reduction:
    """``buffer[indices] = combine(buffer[indices], term)``, started with ``init``; ``init`` is
    ``None`` without one.
    """

    buffer: Buffer
    indices: tuple[Expr, ...]
    combine: Combine
    term: Expr
    init: Expr | None

    @property
    def is_exact(self) -> bool:
        """Whether the result is the same in any order of the steps; which of two equal zeros a
        maximum is stays open.
        """
        return not self.buffer.dtype.is_float or self.combine in ("min", "max")


_COMBINES: dict[str, Combine] = {
    "add": "add",
    "mul": "mul",
    "min": "min",
    "max": "max",
    "and": "and",
    "or": "or",
}


def reduction_of(block: Block) -> Reduction | None:
    """The associative reduction that a block is, if it is one."""
    store = single_store(block)
    if store is None or store.mask is not None or not isinstance(store.value, Apply):
        return None
    combine = _COMBINES.get(store.value.fn)
    own = Load(store.buffer, store.indices)
    if (
        combine is None
        or own not in store.value.args
        or not any(a.kind == "reduce" for a in block.iters)
    ):
        return None
    a, b = store.value.args
    term = b if a is own else a
    if any(isinstance(x, Load) and x.buffer is store.buffer for x in walk_loads(term)):
        return None
    reduced = [a.var for a in block.iters if a.kind == "reduce"]
    if any(uses(i, reduced) for i in store.indices):
        return None
    if not block.init:
        return Reduction(store.buffer, store.indices, combine, term, None)
    start = block.init[0]
    plain = len(block.init) == 1 and isinstance(start, Store) and start.buffer is store.buffer
    if (
        not plain
        or not isinstance(start, Store)
        or start.indices != store.indices
        or start.mask is not None
    ):
        return None
    return Reduction(store.buffer, store.indices, combine, term, start.value)


def walk_loads(e: Expr) -> tuple[Load, ...]:
    """The loads below an expression, masks and indices included."""
    stack, found = [e], []
    while stack:
        x = stack.pop()
        if isinstance(x, Load):
            found.append(x)
        stack.extend(x.children)
    return tuple(dict.fromkeys(found))


def single_store(block: Block) -> Store | None:
    """The one statement of a block, if it is a store."""
    if len(block.body) == 1 and isinstance(block.body[0], Store):
        return block.body[0]
    return None


def axes(block: Block, kind: IterKind) -> tuple[Var, ...]:
    """The axes of one kind."""
    return tuple(a.var for a in block.iters if a.kind == kind)


def steps(loop: For, block: Block, kind: IterKind) -> bool:
    """Whether a loop moves an axis of this kind."""
    return any(a.kind == kind and uses(a.binding, (loop.var,)) for a in block.iters)


def is_tail(block: Block, condition: Expr, facts: Facts) -> bool:
    """Whether a condition of a block only keeps its axes inside their domains, as ``split`` leaves
    it.
    """
    for axis in block.iters:
        binding, end = axis.binding, axis.extent
        facts = facts.with_fact(binding >= 0).with_fact(binding < end)
        while isinstance(binding, Apply) and binding.fn == "floordiv":
            # A quotient that stays below its end keeps what is divided below that many times more.
            binding, divisor = binding.args
            end = end * divisor
            if not prove(divisor >= 1, facts):
                break
            facts = facts.with_fact(binding < end)
    return prove(condition, facts)


def only_tails(function: TensorFunction, site: BlockSite) -> bool:
    """Whether a block runs at every point of its domain: its conditions are tails only."""
    facts = facts_at(function, site.loops)
    plain = not any(isinstance(s, If) for s in site.above)
    return plain and all(is_tail(site.node, c, facts) for c in conjuncts(site.node.where))


# ---- Accesses in a function


def of_buffer(function: TensorFunction, buffer: Buffer, kind: str) -> tuple[Access, ...]:
    """The accesses of one kind to a buffer."""
    return tuple(a for a in accesses(function.body) if a.buffer is buffer and a.kind == kind)


def in_block(access: Access, block: Block) -> bool:
    """Whether an access belongs to a block."""
    return access.stmt is block or any(b is block for b in access.blocks)


def under(access: Access, loop: For) -> bool:
    """Whether an access stands inside a loop."""
    return any(x is loop for x in access.loops)


def is_internal(function: TensorFunction, buffer: Buffer) -> bool:
    """Whether a buffer is the function's own."""
    return buffer not in function.buffers


def is_private(function: TensorFunction, buffer: Buffer, loop: For) -> bool:
    """Whether a buffer is the function's own and used nowhere but inside a loop."""
    if not is_internal(function, buffer):
        return False
    return all(under(a, loop) for a in accesses(function.body) if a.buffer is buffer)


def written_below(function: TensorFunction, loop: For) -> tuple[tuple[BlockSite, Access], ...]:
    """The stores inside a loop, beside their blocks."""
    stores = [a for a in accesses(function.body) if a.kind == "store" and under(a, loop)]
    return tuple(
        (site, a) for site in blocks_below(function, loop) for a in stores if in_block(a, site.node)
    )


# ---- Checks


def check_blocks_only(
    rule: Instruction, function: TensorFunction, loop: For, *, hints: bool = False
) -> None:
    """Refuse (E0310) a loop with statements outside blocks; with ``hints``, it may ask for
    memory.
    """
    found = (x for x in _stray(loop.body) if not (hints and _is_hint(x)))
    stray = next(found, None)
    if stray is not None:
        raise rule.refuse(
            function, stray, "E0310", f"'{loop.var}' runs a statement outside of any block"
        )


def _is_hint(stmt: Stmt) -> bool:
    return isinstance(stmt, Intrinsic) and stmt.name in PREFETCHES


def _stray(body: Sequence[Stmt]) -> Iterator[Stmt]:
    for stmt in body:
        if isinstance(stmt, For):
            yield from _stray(stmt.body)
        elif isinstance(stmt, If):
            yield from (*_stray(stmt.body), *_stray(stmt.orelse))
        elif not isinstance(stmt, Block | Allocate):
            yield stmt


def check_steps(rule: Instruction, function: TensorFunction, site: LoopSite, hint: str) -> None:
    """Refuse (E0306) a loop that moves an axis of a reduction."""
    for below in blocks_below(function, site.node):
        if steps(site.node, below.node, "reduce") and not prove(
            site.node.extent <= 1, facts_at(function, site.loops)
        ):
            raise rule.refuse(
                function,
                site.node,
                "E0306",
                f"'{site.node.var}' steps a reduction of block '{below.node.name}'",
                notes=("its iterations depend on each other",),
                hint=hint,
            )


def check_stages(
    rule: Instruction, function: TensorFunction, chain: Sequence[For], site: Site
) -> None:
    """Refuse (E0307) when a block under the chain reads what other iterations of the chain's loops
    write.

    ``site`` is the innermost loop of the chain in its place.
    """
    # What is declared in an iteration of the chain is nothing to the others.
    own = allocated(chain[-1].body)
    inside = [a for a in accesses(function.body) if under(a, chain[-1]) and a.buffer not in own]
    fixed = (*site.loops, chain[-1])
    facts = facts_at(function, fixed)
    still = [loop.var for loop in fixed]
    alone = chain[0] if len(chain) == 1 else None
    for position, access in enumerate(inside):
        if access.kind == "store":
            _check_alone(rule, function, inside, position, alone, still, facts)
        elif alone is None or not _keeps_apart(access, inside, alone, still, facts):
            _check_covered(rule, function, inside, position, still, facts)


def _check_covered(
    rule: Instruction,
    function: TensorFunction,
    inside: Sequence[Access],
    position: int,
    still: Sequence[Var],
    facts: Facts,
) -> None:
    read = inside[position]
    others = [
        (p, a)
        for p, a in enumerate(inside)
        if a.kind == "store" and a.buffer is read.buffer and not _same_block(a, read)
    ]
    if others and not any(p < position and covers(w, read, still, facts) for p, w in others):
        raise rule.refuse(
            function,
            read.blocks[0] if read.blocks else read.stmt,
            "E0307",
            f"cannot show that '{read.buffer.name}' is written before it is read in the same "
            "iteration",
            notes=(f"it is written by block '{_name(others[0][1])}'",),
            hint="give the blocks loops of their own, or move the writer with compute_at",
        )


def _keeps_apart(
    access: Access, inside: Sequence[Access], loop: For, still: Sequence[Var], facts: Facts
) -> bool:
    """Whether iterations of a loop are shown to access and write parts of a buffer of their own:
    each a band of one dimension.
    """
    same = [a for a in inside if a.buffer is access.buffer and (a.kind == "store" or a is access)]
    regions = [access_region(a, still, facts) for a in same]
    for bands in zip(*regions, strict=True):
        step = weight_of(bands[0].low, loop)
        if step is None or not prove(step >= 1, facts):
            continue
        low = bands[0].low
        if all(prove(b.low >= low, facts) and prove(b.end <= low + step, facts) for b in bands):
            return True
    return False


def _check_alone(
    rule: Instruction,
    function: TensorFunction,
    inside: Sequence[Access],
    position: int,
    loop: For | None,
    still: Sequence[Var],
    facts: Facts,
) -> None:
    write = inside[position]
    for other in inside[:position]:
        if other.kind != "store" or other.buffer is not write.buffer or _same_block(other, write):
            continue
        boxes = access_region(other, (), facts), access_region(write, (), facts)
        together = covers(write, other, still, facts) or covers(other, write, still, facts)
        if together or disjoint(*boxes, facts):
            continue
        if loop is None or not _keeps_apart(write, inside, loop, still, facts):
            raise rule.refuse(
                function,
                write.blocks[0] if write.blocks else write.stmt,
                "E0307",
                f"blocks '{_name(other)}' and '{_name(write)}' both write '{write.buffer.name}'",
            )


def _same_block(a: Access, b: Access) -> bool:
    return bool(a.blocks) and bool(b.blocks) and a.blocks[0] is b.blocks[0]


def _name(access: Access) -> str:
    return access.blocks[0].name if access.blocks else access.buffer.name


def covers(write: Access, read: Access, still: Sequence[Var], facts: Facts) -> bool:
    """Whether one step of the ``still`` loops is shown to write all that the same step reads."""
    if write.mask is not None or not write.blocks:
        return False
    block = write.blocks[-1]
    own = facts
    for loop in write.loops:
        own = own.with_range(loop.var, loop.extent) if loop.var not in still else own
    if not all(
        is_tail(block, c, own) for condition in write.conditions for c in conjuncts(condition)
    ):
        return False
    if not _plain(write, block, still):
        return False
    return contains(
        access_region(write, still, facts), access_region(read, still, facts), write.buffer, facts
    )


def _plain(write: Access, block: Block, still: Sequence[Var]) -> bool:
    """Whether a store's indices are different axes of its block, each moved by what stands still,
    or stand still: its box has no holes. An index may be two axes, digit by digit.
    """
    own = {a.var for a in block.iters}
    running = _running(write).difference(still)
    seen: set[Expr] = set()
    for index in write.indices:
        free = [v for v in variables(index) if v in own and v not in seen]
        axis = next(iter(free), None)
        if axis is not None and not uses(simplify(index - axis), own | running):
            seen.add(axis)
        elif len(free) == 2 and _is_two_digits(index, free, block, write, running):
            seen.update(free)
        elif uses(over_loops(index, write), running):
            return False
    return True


def _is_two_digits(
    index: Expr, pair: Sequence[Var], block: Block, write: Access, running: Set[Var]
) -> bool:
    """Whether an index is an axis times the extent of another, plus that one, all of which runs."""
    axes = {a.var: a for a in block.iters}
    loops = {x.var: x.extent for x in write.loops if x.var in running}
    for high, low in (pair, pair[::-1]):
        extent, binding = axes[low].extent, axes[low].binding
        whole = isinstance(binding, Var) and binding in loops and loops[binding] is extent
        rest = simplify(index - (high * extent + low))
        if whole and not uses(rest, {*axes, *running}):
            return True
    return False


def _running(access: Access) -> frozenset[Var]:
    return frozenset(loop.var for loop in access.loops)


def is_distinct(function: TensorFunction, site: BlockSite, store: Access, loop: For) -> bool:
    """Whether different iterations of a loop are shown to write different elements, outer loops
    standing still.
    """
    facts = facts_at(function, store.loops)
    if prove(loop.extent <= 1, facts):
        return True
    bindings = site.bindings
    position = next(p for p, x in enumerate(store.loops) if x is loop)
    inner = {x.var: x.extent for x in store.loops[position + 1 :]}
    written = [v for v in bindings if any(uses(i, (v,)) for i in store.indices)]
    # Indices of fused loops are quotients and remainders; their place in memory is linear again.
    place = substitute(flat_index(store.buffer, store.indices), bindings)
    for moved in (*(bindings[a] for a in written), simplify(place, facts)):
        rest = index_range(moved - _step(moved, loop), inner, facts)
        weight = weight_of(moved, loop)
        if rest is not None and weight is not None and prove(weight >= rest.extent, facts):
            return True
    touched = {
        x.var: x.extent
        for x in (loop, *store.loops[position + 1 :])
        if steps(x, site.node, "spatial")
    }
    return loop.var in touched and one_to_one([bindings[a] for a in written], touched, facts)


def weight_of(binding: Expr, loop: For) -> Expr | None:
    """What one step of a loop adds to a binding that is linear in it; ``None`` for another form."""
    at_zero, at_one = (substitute(binding, {loop.var: as_expr(x)}) for x in (0, 1))
    weight = simplify(at_one - at_zero)
    return weight if simplify(binding - at_zero - weight * loop.var) is ZERO else None


def _step(binding: Expr, loop: For) -> Expr:
    weight = weight_of(binding, loop)
    return binding if weight is None else weight * loop.var


def check_order(
    rule: Instruction,
    function: TensorFunction,
    site: BlockSite,
    before: Sequence[For],
    after: Sequence[For],
    reassociate: bool,
) -> None:
    """Refuse (E0308) another order of the loops that step a reduction, unless the result cannot
    tell.
    """
    check_own_reads(rule, function, site, axes(site.node, "spatial"))
    _check_visits(rule, function, site, before, after)
    first = [x for x in before if steps(x, site.node, "reduce")]
    then = [x for x in after if steps(x, site.node, "reduce")]
    if all(a is b for a, b in zip(first, then, strict=True)):
        return
    mixed = any(steps(x, site.node, "spatial") for x in first)
    # Where a loop steps both, another order may not begin with the step that starts the reduction.
    found = None if mixed else reduction_of(site.node)
    exact = found is not None and found.is_exact
    if not exact and not (found is not None and reassociate):
        hint = "pass reassociate=True to accept another order of summation" if found else None
        raise rule.refuse(
            function,
            site.node,
            "E0308",
            f"the steps of the reduction in block '{site.node.name}' would run in another order",
            notes=("loops " + ", ".join(f"'{x.var}'" for x in first) + " step it",),
            hint=hint or "keep the order of the loops that step it",
        )


def _check_visits(
    rule: Instruction,
    function: TensorFunction,
    site: BlockSite,
    before: Sequence[For],
    after: Sequence[For],
) -> None:
    """A result that several iterations compute anew must not be started again half way."""
    block = site.node
    if not axes(block, "reduce"):
        return
    places = {x.var: p for p, x in enumerate(after)}
    crossing = any(
        steps(x, block, "reduce") != steps(y, block, "reduce") and places[x.var] > places[y.var]
        for p, x in enumerate(before)
        for y in before[p + 1 :]
    )
    moving = {x.var: x.extent for x in site.loops if not steps(x, block, "reduce")}
    outside = site.loops[: next(p for p, x in enumerate(site.loops) if x is before[0])]
    moving = {v: e for v, e in moving.items() if all(v is not x.var for x in outside)}
    bindings = [a.binding for a in block.iters if a.kind == "spatial"]
    if crossing and not one_to_one(bindings, moving, facts_at(function, site.loops)):
        raise rule.refuse(
            function,
            block,
            "E0308",
            f"block '{block.name}' may compute a result more than once, and would start it again "
            "before it is complete",
        )


def check_own_reads(
    rule: Instruction, function: TensorFunction, site: BlockSite, spatial: Sequence[Var]
) -> None:
    """Refuse (E0307) a block whose points along some axes depend on each other: it must read back
    only what the same point wrote.
    """
    own = [a for a in accesses((site.node,))]
    for write in (a for a in own if a.kind == "store"):
        for read in (a for a in own if a.kind == "load" and a.buffer is write.buffer):
            pairs = zip(write.indices, read.indices, strict=True)
            if any(w is not r for w, r in pairs if uses(w, spatial) or uses(r, spatial)):
                raise rule.refuse(
                    function,
                    site.node,
                    "E0307",
                    f"block '{site.node.name}' reads elements of '{write.buffer.name}' that "
                    "other iterations write",
                )


def check_order_kept(rule: Instruction, function: TensorFunction, site: BlockSite) -> None:
    """Refuse (E0324) a consumer that could not run earlier: others write or have read the elements
    that it writes.
    """
    found = accesses(function.body)
    first = next(p for p, a in enumerate(found) if in_block(a, site.node))
    own = [a for a in found if a.kind == "store" and in_block(a, site.node)]
    facts = facts_of(function)
    for position, other in enumerate(found):
        met = [a for a in own if a.buffer is other.buffer]
        if met and not in_block(other, site.node):
            there = access_region(other, (), facts)
            if all(disjoint(access_region(a, (), facts), there, facts) for a in met):
                continue
            if other.kind == "store" or position < first:
                raise rule.refuse(
                    function,
                    other.stmt,
                    "E0324",
                    f"'{other.buffer.name}', which block '{site.node.name}' writes, is also "
                    "used here",
                )


def check_ready(
    rule: Instruction,
    before: TensorFunction,
    moved: Block,
    after: TensorFunction,
    names: Sequence[str],
) -> None:
    """Refuse (E0327) when what a block reads is not the same in its new place.

    ``moved`` is the block in ``before``; blocks ``names`` of ``after`` do its work. All that it
    reads must be written before it in both, and where writer and reader share loops, in the same
    iteration.
    """
    old, new = accesses(before.body), accesses(after.body)
    sources = {a.buffer for a in old if a.kind == "load" and in_block(a, moved)}
    sources -= {a.buffer for a in old if a.kind == "store" and in_block(a, moved)}
    place = next(p for p, a in enumerate(old) if in_block(a, moved))
    own_loops = old[place].loops
    for position, write in enumerate(old):
        if write.kind == "store" and write.buffer in sources:
            shares = any(x is y for x in write.loops for y in own_loops)
            if position > place or (shares and not is_determined(write, before)):
                raise _not_ready(rule, before, moved, write)
    for position, read in enumerate(new):
        mine = read.blocks and read.blocks[0].name in names
        if read.kind == "load" and mine and read.buffer in sources:
            _check_read(rule, before, moved, after, new, position)


def _check_read(
    rule: Instruction,
    before: TensorFunction,
    moved: Block,
    after: TensorFunction,
    found: Sequence[Access],
    position: int,
) -> None:
    read = found[position]
    writes = [(p, a) for p, a in enumerate(found) if a.kind == "store" and a.buffer is read.buffer]
    late = next((w for p, w in writes if p > position or _same_block(w, read)), None)
    if late is not None:
        raise _not_ready(rule, before, moved, late)
    for _, write in writes[-1:]:
        common = tuple(x for x, y in zip(write.loops, read.loops, strict=False) if x is y)
        facts = facts_at(after, read.loops)
        if common and not covers(write, read, [x.var for x in common], facts):
            raise _not_ready(rule, before, moved, write)


def is_determined(write: Access, function: TensorFunction) -> bool:
    """Whether a store writes the same value to an element every time: all its spatial axes are in
    its indices.
    """
    if not write.blocks:
        return False
    block = write.blocks[0]
    used = {v for i in write.indices for v in variables(i)}
    facts = facts_at(function, write.loops)
    return all(
        a.var in used or prove(a.extent <= 1, facts) for a in block.iters if a.kind == "spatial"
    )


def _not_ready(
    rule: Instruction, function: TensorFunction, moved: Block, write: Access
) -> ScheduleError:
    return rule.refuse(
        function,
        moved,
        "E0327",
        f"'{write.buffer.name}', which block '{moved.name}' reads, may differ in the new place",
        notes=(f"it is written by block '{_name(write)}'",),
        hint="move the block that writes it first",
    )
