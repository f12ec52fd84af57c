"""The default schedule of a tensor function, without any search."""

from collections.abc import Set

from treadle.expr.scalar import variables
from treadle.ir.analysis import blocks, buffers_read, enclosing_loops, loads
from treadle.ir.tensor import Block, Buffer, TensorFunction
from treadle.passes.kinds import contraction_operands, is_affine_copy, only_store
from treadle.schedule.decompose_padding import bounds_of, padding_of
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.attempt import attempt
from treadle.tune.blocks import block_of
from treadle.tune.chain_schedule import schedule_chain
from treadle.tune.contraction_schedule import schedule_contraction
from treadle.tune.decode_schedule import schedule_decoded
from treadle.tune.dot_schedule import schedule_dot
from treadle.tune.group_schedule import schedule_grouped
from treadle.tune.row_schedule import schedule_rows, start_apart
from treadle.tune.spatial_schedule import schedule_spatial
from treadle.tune.statement_schedule import holds_loops, schedule_statements
from treadle.tune.window_schedule import schedule_windows


def default_schedule(
    function: TensorFunction,
    target: Target,
    threads: int,
    constants: frozenset[Buffer],
    *,
    strict: bool = False,
) -> Schedule:
    """Schedule ``function``; ``constants`` are the parameters whose layout is free, for every
    caller passes constants. With ``strict``, floating-point sums keep their order.
    """
    s = Schedule(function)
    _apply_rules(s, target, threads, constants, strict)
    start_reductions(s)
    return s


def _apply_rules(
    s: Schedule, target: Target, threads: int, constants: frozenset[Buffer], strict: bool
) -> None:
    if not strict and attempt(s, lambda t: schedule_chain(t, target, threads, constants)):
        return
    inline_producers(s)
    done = set[str]() if strict else schedule_images(s, target, threads)
    apart = separate_borders(s, done)
    names = [b.name for b in blocks(s.function)]
    for name in (n for n in names if holds_loops(block_of(s, n))):
        if attempt(s, lambda t, n=name: schedule_statements(t, n, target, threads, strict=strict)):
            done.add(name)
    anchors = [n for n in names if contraction_operands(block_of(s, n)) is not None]
    for name in anchors:
        if not strict and (
            attempt(s, lambda t, n=name: schedule_decoded(t, n, target, threads, constants))
            or attempt(s, lambda t, n=name: schedule_grouped(t, n, target, threads, constants))
        ):
            done.update(b.name for b in blocks(s.function) if _shares_loops(s, name, b.name))
            continue
        if attempt(
            s, lambda t, n=name: schedule_dot(t, n, target, threads, constants, strict=strict)
        ) or attempt(s, lambda t, n=name: schedule_contraction(t, n, target, threads, constants)):
            done.update(b.name for b in blocks(s.function) if _shares_loops(s, name, b.name))
    rest = [n for n in names if n not in done]
    reductions = [n for n in rest if any(i.kind == "reduce" for i in block_of(s, n).iters)]
    padded = [n for n in rest if n in apart]
    rows = [n for n in rest if n not in padded]
    if (
        reductions
        and not done
        and attempt(s, lambda t: schedule_rows(t, rows, target, threads, strict=strict))
    ):
        rest = padded
    for name in rest:
        if name not in reductions:
            attempt(s, lambda t, n=name: schedule_spatial(t, n, target, threads))


def _shares_loops(s: Schedule, a: str, b: str) -> bool:
    """Whether two blocks stand in one nest of loops."""
    first = enclosing_loops(s.function, block_of(s, a))[:1]
    return first != () and first == enclosing_loops(s.function, block_of(s, b))[:1]


def start_reductions(s: Schedule) -> None:
    """Take the starts of the remaining reductions out of their loops: one over nothing has a result
    too.
    """
    for name in [b.name for b in blocks(s.function) if b.init]:
        attempt(s, lambda t, n=name: start_apart(t, n))


def inline_producers(s: Schedule) -> None:
    """Write every block that only computes elements for others into those others, where no work is
    repeated much.
    """
    for name in [b.name for b in blocks(s.function)][:-1]:
        block = block_of(s, name)
        store = only_store(block)
        if (
            store is None
            or any(i.kind == "reduce" for i in block.iters)
            or store.buffer in s.function.buffers
        ):
            continue
        users = [
            b for b in blocks(s.function) if b.name != name and store.buffer in buffers_read((b,))
        ]
        products = any(contraction_operands(u) is not None for u in users)
        repeated = products or any(holds_loops(u) for u in users)
        if repeated and not is_affine_copy(store, frozenset(i.var for i in block.iters)):
            continue
        if _pads(block) and not all(_is_spatial(u) for u in users):
            continue
        if len(users) == 1 or all(_is_spatial(u) for u in users):
            attempt(s, lambda t, n=name: t.compute_inline(n))


def schedule_images(s: Schedule, target: Target, threads: int) -> set[str]:
    """Schedule contractions of windows of one image, and what borders they have; the blocks of
    both.
    """
    done: set[str] = set()
    for name in [b.name for b in blocks(s.function)]:
        if contraction_operands(block_of(s, name)) is not None and attempt(
            s, lambda t, n=name: schedule_windows(t, n, target, threads)
        ):
            done.update(b.name for b in blocks(s.function) if _shares_loops(s, name, b.name))
    return done


def separate_borders(s: Schedule, done: Set[str] = frozenset()) -> frozenset[str]:
    """Fill the border of what is padded apart, so that the inside is copied without conditions; the
    blocks that do either. Those that are ``done`` stay as they are.
    """
    found: set[str] = set()
    for name in [b.name for b in blocks(s.function) if b.name not in done]:
        block = block_of(s, name)
        loops = enclosing_loops(s.function, block)
        if _is_bordered(block) and _is_spatial(block) and loops:
            outermost, before = loops[0].var.name, {b.name for b in blocks(s.function)}
            attempt(s, lambda t, n=name, at=outermost: t.decompose_padding(n, at))
            found |= {name, *(b.name for b in blocks(s.function) if b.name not in before)}
    return frozenset(found)


def _pads(block: Block) -> bool:
    """Whether a block fills what lies beyond its operand: windows over it would test each point."""
    store = only_store(block)
    return store is not None and any(x.mask is not None for x in loads(store.value))


def _is_bordered(block: Block) -> bool:
    """Whether what a block fills is a border: told from the inside by bounds of its axes."""
    found = padding_of(block)
    if found is None or not _pads(block):
        return False
    axes = {i.var for i in block.iters}
    used = [(claim, [v for v in variables(claim) if v in axes]) for claim in found.inside]
    return all(len(own) == 1 and bounds_of(claim, own[0]) is not None for claim, own in used)


def _is_spatial(block: Block) -> bool:
    return all(i.kind == "spatial" for i in block.iters)
