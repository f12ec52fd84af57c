"""Give every value of a graph function a place: an input, an output, a constant, or a part of the
arena.

Values whose lives do not overlap share memory, whatever their dtypes. Sizes are symbolic; a free
block serves a request when it is provably large enough, or when it can grow: blocks are laid out
one after another once all are known. After Relax's dynamic memory planning (arXiv 2311.02103,
§4.3), with reuse on a proved ``<=``.
"""

from dataclasses import dataclass, field

from treadle.base.errors import InternalError
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Expr, Var, const, int_value
from treadle.expr.simplify import simplify
from treadle.ir.host import ArenaSlot
from treadle.ir.types import TensorType

ALIGNMENT = 64


@dataclass(slots=True)
class Block:
    """A part of the arena: its size so far, and a name for its offset until that is known."""

    size: Expr
    offset: Var

    @property
    def slot(self) -> ArenaSlot:
        """The block as a place for a value."""
        return ArenaSlot(self.offset)


@dataclass(slots=True)
class ArenaPlan:
    """Hands out blocks of the arena while a function is walked from top to bottom."""

    facts: Facts
    blocks: list[Block] = field(default_factory=list[Block])
    free: list[Block] = field(default_factory=list[Block])

    def take(self, size: Expr) -> Block:
        """A block of at least ``size`` bytes that nobody uses now."""
        size = padded(size, self.facts)
        fits = [b for b in self.free if self.holds(b, size)]
        if fits:
            block = min(fits, key=lambda b: _rank(b.size))
        else:
            grown = [b for b in self.free if prove(b.size <= size, self.facts)]
            if not grown:
                block = Block(size, Var(f"block_{len(self.blocks)}"))
                self.blocks.append(block)
                return block
            block = max(grown, key=lambda b: _rank(b.size))
            block.size = size
        self.free.remove(block)
        return block

    def holds(self, block: Block, size: Expr) -> bool:
        """Whether a block is provably large enough."""
        return prove(size <= block.size, self.facts)

    def give_back(self, block: Block) -> None:
        """The value in a block is not needed any more."""
        self.free.append(block)

    def layout(self) -> tuple[dict[Var, Expr], Expr]:
        """The offset that each block's name stands for, and the size of the arena in bytes."""
        offsets: dict[Var, Expr] = {}
        total: Expr = const(0)
        for block in self.blocks:
            offsets[block.offset] = total
            total = simplify(total + block.size, self.facts)
        return offsets, total


def _rank(size: Expr) -> tuple[int, int]:
    """Known sizes by value, before symbolic ones."""
    value = int_value(size)
    return (1, 0) if value is None else (0, value)


def padded(size: Expr, facts: Facts) -> Expr:
    """``size`` rounded up to whole cache lines."""
    return simplify((size + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT, facts)


def byte_size(type_: TensorType) -> Expr:
    """Bytes that a tensor takes.

    Raises:
        InternalError: if its shape is not known.
    """
    if type_.shape is None:
        raise InternalError("memory was asked for a tensor of unknown shape")
    size: Expr = const(type_.dtype.bytes)
    for dim in type_.shape:
        size = size * dim
    return simplify(size)
