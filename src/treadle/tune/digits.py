"""Indices that two axes of a contraction make together, such as the channels of a grouped
convolution, become two dimensions: what is tiled must be an axis by itself.
"""

from treadle.expr.scalar import Expr, Var, int_value, variables
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import accesses, blocks, buffers_read, find_block
from treadle.ir.tensor import Block, Buffer
from treadle.schedule.index_map import IndexMap
from treadle.schedule.trace import Schedule
from treadle.tune.contraction import Contraction, as_contraction


def separate_digits(s: Schedule, block: str, constants: frozenset[str]) -> None:
    """Give the result of a contraction, and its operands of ``constants``, a dimension for each
    axis.

    Raises:
        ScheduleError: E03xx if an instruction does not apply.
    """
    found = _contraction(s, block)
    if found is None:
        return
    radices = _radices(found.block, found.result)
    if any(radices):
        if found.output in s.function.buffers:
            s.cache_write(block, "global")
            found = _contraction(s, block)
            assert found is not None
        for user in _users(s, found.output, block):
            _separate_axes(s, user, found.output, radices)
        s.transform_layout(found.output.name, _digits(radices))
    for load in found.operands:
        radices = _radices(found.block, load.indices, reverse=True)
        if load.buffer.name in constants and any(radices):
            s.transform_layout(load.buffer.name, _digits(radices))


def _contraction(s: Schedule, block: str) -> Contraction | None:
    node = find_block(s.function, block)
    return None if node is None else as_contraction(node)


def _radices(
    block: Block, indices: tuple[Expr, ...], *, reverse: bool = False
) -> tuple[int | None, ...]:
    """For each index that is ``u * radix + v`` of two axes, with v below the radix, that radix;
    with ``reverse`` v may count down.
    """
    return tuple(_radix(block, simplify(i), reverse) for i in indices)


def _radix(block: Block, index: Expr, reverse: bool) -> int | None:
    extents = {i.var: int_value(i.extent) for i in block.iters}
    used = variables(index)
    if len(used) != 2 or not all(v in extents for v in used):
        return None
    for outer, inner in (used, used[::-1]):
        linear = split_linear(index, outer)
        radix = None if linear is None else int_value(linear[0])
        if linear is None or radix is None or radix < 2 or radix != extents[inner]:
            continue
        backwards = simplify(linear[1] + inner)
        if linear[1] is inner or (reverse and int_value(backwards) == radix - 1):
            return radix
    return None


def _digits(radices: tuple[int | None, ...]) -> IndexMap:
    params = tuple(Var(f"d{i}") for i in range(len(radices)))
    results: list[Expr] = []
    for d, radix in zip(params, radices, strict=True):
        results += [d] if radix is None else [d // radix, d % radix]
    return IndexMap(tuple(d.name for d in params), tuple(results))


def _users(s: Schedule, buffer: Buffer, block: str) -> list[Block]:
    return [b for b in blocks(s.function) if b.name != block and buffer in buffers_read((b,))]


def _separate_axes(
    s: Schedule, user: Block, buffer: Buffer, radices: tuple[int | None, ...]
) -> None:
    """Count the points of a block that reads the result by its digits as well."""
    indices = next(a.indices for a in accesses((user,)) if a.buffer is buffer)
    split = {i: r for i, r in zip(indices, radices, strict=True) if r is not None}
    own = [split.get(i.var) for i in user.iters]
    if any(own):
        s.transform_block_layout(user.name, _digits(tuple(own)))
