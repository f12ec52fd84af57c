"""Chains of two products that share rows: ``scores = Q K'``, then what is done to each row of them,
then ``P V``, as attention has it.

A row of the second product's result depends on the same row of the first one's only, so that a few
rows at a time may go all the way through while they are near the machine. Only loops are looked at:
softmax, a layer norm or nothing may stand between the products, under any mask.
"""

from dataclasses import dataclass, field

from treadle.expr.dtype import f32, f64
from treadle.expr.scalar import Apply, Expr, Var, int_value, variables
from treadle.ir.analysis import blocks, loads
from treadle.ir.tensor import Block, Buffer, Load, Store, TensorFunction
from treadle.passes.kinds import contraction_operands, only_store


@dataclass(frozen=True, slots=True)
class RowChain:
    """Names of the blocks of a chain, in their order.

    ``operands`` compute what the products read, ``between`` what is done to rows, ``after`` what
    is done to the result element by element. ``passed`` is the operand of the second product that
    comes from the first.
    """

    operands: tuple[str, ...]
    first: str
    between: tuple[str, ...]
    second: str
    after: tuple[str, ...]
    passed: int


def row_chain(function: TensorFunction) -> RowChain | None:
    """The chain that a function is, if it is one."""
    found = blocks(function)
    products = [b for b in found if contraction_operands(b) is not None]
    if len(products) != 2 or any(only_store(b) is None for b in found):
        return None
    outputs = [_store(b).buffer for b in found]
    if len(set(outputs)) != len(outputs) or outputs[-1] not in function.output_buffers:
        return None
    if any(b in function.buffers for b in outputs[:-1]):
        return None
    return _Reader(products[0], products[1]).read(found)


def _store(block: Block) -> Store:
    store = only_store(block)
    assert store is not None
    return store


@dataclass(slots=True)
class _Reader:
    """Sorts the blocks of a function by the part that they play."""

    first: Block
    second: Block
    operands: list[str] = field(default_factory=list[str])
    between: list[str] = field(default_factory=list[str])
    after: list[str] = field(default_factory=list[str])
    rows: dict[Buffer, bool] = field(default_factory=dict[Buffer, bool])
    """The values of rows, and whether they have an element for every column."""

    def read(self, found: tuple[Block, ...]) -> RowChain | None:
        """The chain, if all blocks have a part in one."""
        passed = self._passed()
        if passed is None:
            return None
        known = all(self._take(b) for b in found)
        if not known or not self._is_worthwhile(passed):
            return None
        return RowChain(
            tuple(self.operands),
            self.first.name,
            tuple(self.between),
            self.second.name,
            tuple(self.after),
            passed,
        )

    def _take(self, block: Block) -> bool:
        if block is self.first:
            self.rows[_store(block).buffer] = True
            return _is_plain(block)
        read = {x.buffer for x in loads(_store(block).value)}
        if block is self.second:
            return self._is_result(block, read)
        if _store(self.second).buffer in read:
            self.after.append(block.name)
            return not self.rows.keys() & read and _is_elementwise(block, _store(self.second))
        if not self.rows.keys() & read:
            self.operands.append(block.name)
            return not any(i.kind == "reduce" for i in block.iters)
        self.between.append(block.name)
        return self._is_rowwise(block)

    def _passed(self) -> int | None:
        """The operand of the second product that has its rows, with the first one's shape."""
        columns = [i.var for i in self.second.iters if i.kind == "reduce"]
        if len(columns) != 1:
            return None
        shape = _store(self.first).buffer.shape
        for k, load in enumerate(_operands(self.second)):
            if load.buffer.shape == shape and load.indices[-1] is columns[0]:
                return k
        return None

    def _is_result(self, block: Block, read: set[Buffer]) -> bool:
        """Whether a product takes rows as they are and keeps them apart."""
        k = self._passed()
        if k is None:
            return False
        passed, other = _operands(block)[k], _operands(block)[1 - k]
        mine = {i.var for i in block.iters if i.kind == "spatial"}
        rows = [
            i for i, d in zip(passed.indices, passed.buffer.shape, strict=True) if not _is_one(d)
        ]
        plain = len(set(rows)) == len(rows) and all(i in mine for i in rows[:-1])
        apart = self.rows.get(passed.buffer) is True and other.buffer not in self.rows
        stored = _store(block).indices
        return plain and apart and len(set(stored)) == len(stored) and mine >= set(stored)

    def _is_rowwise(self, block: Block) -> bool:
        """Whether a block computes something for each row, or for each element of it."""
        store = _store(block)
        wide = len(_store(self.first).indices)
        columns = [i.var for i in block.iters if i.kind == "reduce"]
        spatial = [i.var for i in block.iters if i.kind == "spatial"]
        axes = [*spatial, *columns]
        if len(store.indices) != len(spatial) or len(axes) != wide or len(columns) > 1:
            return False
        if list(store.indices) != spatial or store.buffer.dtype not in (f32, f64):
            return False
        self.rows[store.buffer] = not columns
        return all(
            list(x.indices) == axes[: len(x.indices)]
            or _same_where_wide(x.indices, axes[: len(x.indices)], x.buffer)
            for x in loads(store.value)
            if x.buffer in self.rows
        )

    def _is_worthwhile(self, passed: int) -> bool:
        """Whether each product has its batches, so that what every group of rows reads of the other
        operands is small, unlike the weights of two layers; and whether the first one has rows and
        columns.
        """
        stored = _store(self.first).indices
        a, b = ({*variables(*x.indices)} for x in _operands(self.first))
        apart = a ^ b
        own = {*variables(*_operands(self.second)[1 - passed].indices)}
        table = stored[-1] in apart and bool(apart & {*stored[:-1]})
        return table and bool(_batch(self.first)) and bool(_batch(self.second) & own)


def _batch(block: Block) -> set[Var]:
    """The axes of a product's result that both operands have."""
    a, b = ({*variables(*x.indices)} for x in _operands(block))
    return a & b & {*variables(*_store(block).indices)}


def _operands(block: Block) -> tuple[Load, Load]:
    factors = contraction_operands(block)
    assert factors is not None
    a, b = (x.args[0] if isinstance(x, Apply) else x for x in factors)
    assert isinstance(a, Load)
    assert isinstance(b, Load)
    return a, b


def _is_plain(block: Block) -> bool:
    """Whether a block stores at its axes, in one of the types that this is done for."""
    store = _store(block)
    spatial = [i.var for i in block.iters if i.kind == "spatial"]
    reads = [x.buffer.dtype for x in _operands(block)]
    same = all(x == store.buffer.dtype for x in reads)
    return list(store.indices) == spatial and same and store.buffer.dtype in (f32, f64)


def _is_elementwise(block: Block, source: Store) -> bool:
    """Whether a block without reductions reads a result where it stores its own."""
    store = _store(block)
    spatial = [i.var for i in block.iters]
    reads = [x for x in loads(store.value) if x.buffer is source.buffer]
    return list(store.indices) == spatial and all(list(x.indices) == spatial for x in reads)


def _same_where_wide(indices: tuple[Expr, ...], axes: list[Var], buffer: Buffer) -> bool:
    pairs = zip(indices, axes, buffer.shape, strict=True)
    return all(i is a or _is_one(d) for i, a, d in pairs)


def _is_one(x: Expr) -> bool:
    return int_value(x) == 1
