"""Packed operands by way of the caches: reductions in chunks whose part of a panel stays near, and
each next part asked for while the one before is in use.
"""

from math import ceil, prod

from treadle.expr.bounds import interval, prove
from treadle.expr.scalar import int_value
from treadle.expr.simplify import simplify
from treadle.ir.analysis import facts_of, find_loop
from treadle.ir.tensor import TensorFunction
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.attempt import attempt
from treadle.tune.contraction import Contraction, Tile, destination, stride_of

_LINE = 64
"""Bytes of a line of the cache."""
FEW_TILES = 4
"""Tiles of rows over which a part is fetched where their number is a symbol."""


def part_bytes(found: Contraction, tile: Tile, chunk: int | None = None) -> int | None:
    """Bytes of one panel of the packed operand, or of the part of it for ``chunk`` steps of the
    outermost reduced axis; ``None`` if symbolic.
    """
    extents = [int_value(simplify(i.extent)) for i in found.reduce]
    if None in extents:
        return None
    if chunk is not None:
        extents[0] = chunk
    width = tile.vectors * tile.lanes * found.operands[tile.vector].buffer.dtype.bytes
    return prod(x for x in extents if x is not None) * width


def chunk_steps(
    found: Contraction, function: TensorFunction, tile: Tile, target: Target
) -> int | None:
    """How many iterations of the outermost reduced axis make a chunk, if whole panels would crowd
    the second-level cache and several tiles of rows use each.
    """
    size = part_bytes(found, tile)
    if size is None or size <= target.l2_bytes:
        return None
    if stride_of(destination(found, function), tile.vector_axis) != 1:
        return None  # results that are scattered are stored once
    rows = [
        int_value(simplify(i.extent)) or 1 for i in found.spatial if i.var is not tile.vector_axis
    ]
    extent = int_value(simplify(found.reduce[0].extent))
    if extent is None or prod(rows) < FEW_TILES * tile.rows:
        return None
    least = ceil(size / (target.l2_bytes // 4))
    even = (n for n in range(least, 2 * least) if extent % n == 0)
    chunks = next(even, least)
    return ceil(extent / chunks) if chunks <= extent else None


def prefetch_panels(
    s: Schedule, packed: str, size: int, target: Target, outer: list[str], inner: list[str]
) -> None:
    """Ask for the part of a packed operand, ``size`` bytes of it, that is read next, evenly over
    the steps of the loops ``inner``: unless all of the operand stays near, or few tiles use a part.
    The last of the loops ``outer`` that iterates goes from part to part.
    """
    buffer = next((b for b in s.function.buffers if b.name == packed), None)
    if buffer is None:
        return  # packed where it is used
    elements = [int_value(simplify(d)) for d in buffer.shape]
    whole = prod(x for x in elements if x is not None) * buffer.dtype.bytes
    if None in elements or whole <= target.l2_bytes // 2:
        return
    uses = [_extent(s, name) for name in inner[:-1]]
    known = prod(x for x in uses if x is not None)
    shared = max(known, FEW_TILES) if None in uses else known
    loop = next((x for x in reversed(outer) if _extent(s, x) != 1), None)
    if shared < FEW_TILES or loop is None:
        return  # the machine sees by itself what is read once, from end to end
    lines = max(ceil(size / _LINE / shared / (_extent(s, inner[-1]) or 1)), 1)
    attempt(s, lambda t: t.prefetch_next(packed, loop, inner[-1], lines), optional=True)


def _extent(s: Schedule, name: str) -> int | None:
    """The largest extent that a loop may have, if that is known to be small."""
    loop, facts = find_loop(s.function, name), facts_of(s.function)
    if loop is None:
        return None
    most = interval(loop.extent, facts).high
    return FEW_TILES - 1 if most is None and prove(loop.extent < FEW_TILES, facts) else most
