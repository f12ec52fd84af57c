"""Give every value of a graph function a place: an input, an output, a constant, or a part of the
arena.

Values whose lives do not overlap share memory, whatever their dtypes. Requests are noted while a
function is walked, and placed when all lives are known: one after another, each at the lowest
offset where it is shown to miss those that live at the same time. Several orders are tried, large
values first among them, after Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
Inference" (arXiv 2001.03288). Sizes may be symbolic: the order is then that at sample sizes, two
values are apart where that is proved, and a value that fits nowhere lies above all that it meets.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from treadle.base.errors import InternalError, LoweringError
from treadle.expr.bounds import Facts, interval, prove
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import Expr, Var, const, maximum, variables
from treadle.expr.simplify import simplify
from treadle.ir.host import ArenaSlot, stage_of
from treadle.ir.types import TensorType

ALIGNMENT = 64
_SAMPLE = 96
"""What a symbol is taken to be where sizes are put in order."""


@dataclass(slots=True, eq=False)
class Block:
    """A request for memory: its bytes, a name for its offset until that is known, and the time in
    which it is used, from ``begin`` to before ``end``.
    """

    size: Expr
    offset: Var
    begin: int
    end: int | None = None
    stage: int = 0

    @property
    def slot(self) -> ArenaSlot:
        """The block as a place for a value."""
        return ArenaSlot(self.offset, self.stage)

    def meets(self, other: "Block") -> bool:
        """Whether both are in use at some time."""
        early, late = (self, other) if self.begin <= other.begin else (other, self)
        return early.end is None or late.begin < early.end


@dataclass(slots=True)
class ArenaPlan:
    """Notes who needs how much while a function is walked from top to bottom, then places all.

    ``late`` are the symbols that values give while the function runs; what depends on one lies in
    the arena of the stage that it begins. With ``static``, each value gets as much as it takes at
    the largest sizes.
    """

    facts: Facts
    late: tuple[Var, ...] = ()
    static: bool = False
    blocks: list[Block] = field(default_factory=list[Block])
    clock: int = 0

    def take(self, size: Expr) -> Block:
        """A place for ``size`` bytes, in use from now on."""
        size = simplify(size, self.facts)
        if self.static:
            size = self.upper_bound(size)
        name, stage = Var(f"block_{len(self.blocks)}"), stage_of(self.late, (size,))
        block = Block(size, name, self._tick(), stage=stage)
        self.blocks.append(block)
        return block

    def upper_bound(self, size: Expr) -> Expr:
        """The most that a size can be.

        Raises:
            LoweringError: E0423 if that is not known.
        """
        high = interval(size, self.facts).high
        if high is None:
            names = ", ".join(v.name for v in variables(size))
            raise LoweringError(
                "E0423",
                f"static memory needs an upper bound of {size}, the bytes of a value",
                help=f"give bounds of {names}: bounds={{...}}, or assume(... <= ...) in the text",
            )
        return const(high)

    def give_back(self, block: Block) -> None:
        """What lies in a block is not needed any more."""
        block.end = self._tick()

    def _tick(self) -> int:
        self.clock += 1
        return self.clock

    def layout(self, stage: int = 0) -> tuple[dict[Var, Expr], Expr]:
        """The offset that each block's name stands for, and the size of the arena in bytes, of one
        stage.
        """
        sizes = _Sizes(self.facts)
        blocks = [b for b in self.blocks if b.stage == stage]
        found = [
            _placed(sorted(blocks, key=order), sizes)
            for order in (_by_size(sizes), _by_life(sizes), _by_time)
        ]
        return min(found, key=lambda layout: sizes.sample(layout[1]))

    def live(self) -> tuple[Expr, ...]:
        """The bytes that are in use at once, at the times when they are most: the largest of them
        is what no plan for these lives can do without.
        """
        sizes = _Sizes(self.facts)
        sums = [
            _sum((b.size for b in self.blocks if b.meets(new) and b.begin <= new.begin), self.facts)
            for new in self.blocks
        ]
        return sizes.largest(sums)


_Order = Callable[[Block], tuple[int, ...]]


def _by_size(sizes: "_Sizes") -> _Order:
    return lambda b: (-sizes.sample(b.size), b.begin)


def _by_life(sizes: "_Sizes") -> _Order:
    """What takes much memory for long first."""
    return lambda b: (-sizes.sample(b.size) * ((b.end or _FOREVER) - b.begin), b.begin)


def _by_time(b: Block) -> tuple[int, ...]:
    return (b.begin,)


_FOREVER = 1 << 40


@dataclass(slots=True)
class _Sizes:
    """Compares expressions: exactly where that is proved, and at a sample of the symbols."""

    facts: Facts
    samples: dict[Expr, int] = field(default_factory=dict[Expr, int])
    proved: dict[tuple[Expr, Expr], bool] = field(default_factory=dict[tuple[Expr, Expr], bool])

    def sample(self, x: Expr) -> int:
        """The value where each symbol has a usual one."""
        if x not in self.samples:
            values = {v: self._usual(v) for v in variables(x)}
            self.samples[x] = int(evaluate(x, values))
        return self.samples[x]

    def _usual(self, v: Var) -> int:
        known = interval(v, self.facts)
        value = _SAMPLE if known.high is None else min(_SAMPLE, known.high)
        return value if known.low is None else max(value, known.low)

    def at_most(self, a: Expr, b: Expr) -> bool:
        """Whether ``a <= b`` is shown."""
        if self.sample(a) > self.sample(b):
            return False
        if (a, b) not in self.proved:
            self.proved[a, b] = prove(a <= b, self.facts)
        return self.proved[a, b]

    def largest(self, xs: Iterable[Expr]) -> tuple[Expr, ...]:
        """Those that are not shown to be at most another."""
        kept: list[Expr] = []
        for x in sorted(dict.fromkeys(xs), key=self.sample, reverse=True):
            if not any(self.at_most(x, k) for k in kept):
                kept.append(x)
        return tuple(kept)


def _placed(blocks: list[Block], sizes: _Sizes) -> tuple[dict[Var, Expr], Expr]:
    """Blocks placed in order: their offsets and the size of the whole."""
    offsets: dict[Var, Expr] = {}
    ends: dict[Block, Expr] = {}
    for block in blocks:
        others = [(offsets[b.offset], ends[b]) for b in ends if b.meets(block)]
        size = padded(block.size, sizes.facts)
        offset = _free_place(size, others, sizes)
        offsets[block.offset] = offset
        ends[block] = simplify(offset + size, sizes.facts)
    return offsets, _most(ends.values(), sizes)


def _free_place(size: Expr, others: list[tuple[Expr, Expr]], sizes: _Sizes) -> Expr:
    """The lowest offset at which ``size`` bytes are shown to miss what lies from one to another
    offset.
    """
    candidates = dict.fromkeys((const(0), *(end for _, end in others)))
    for offset in sorted(candidates, key=sizes.sample):
        end = simplify(offset + size, sizes.facts)
        if all(sizes.at_most(end, low) or sizes.at_most(high, offset) for low, high in others):
            return offset
    return _most((end for _, end in others), sizes)


def _most(xs: Iterable[Expr], sizes: _Sizes) -> Expr:
    """The largest of expressions, as an expression."""
    found: Expr = const(0)
    for x in sizes.largest(xs):
        found = x if sizes.at_most(found, x) else maximum(found, x)
    return found


def _sum(xs: Iterable[Expr], facts: Facts) -> Expr:
    total: Expr = const(0)
    for x in xs:
        total = total + x
    return simplify(total, facts)


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
