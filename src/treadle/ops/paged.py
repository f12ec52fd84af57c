"""Attention over keys and values that are kept in pages, and how new ones get there.

A cache has ``p`` pages of ``s`` places. A table says for each sequence which pages it has, in
order, so that sequences grow, share and give back pages while the memory stays where it is.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import DType, bf16, f16, f32, f64, i32, i64
from treadle.expr.scalar import Var, cast, int_value
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Example, Op, Samples, example, fail
from treadle.ir.tensor import For, If, Let, Stmt, Store, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._pages import PageSizes, Scores, attend
from treadle.ops._positions import Indexing, Positions
from treadle.ops._shapes import (
    check_dtype,
    check_field,
    check_rank,
    check_same_dim,
    check_same_dtype,
    dim,
    operands,
    product,
    tensor_type,
)
from treadle.ops._sums import summed


@dataclass(frozen=True)
class WritePages(Op):
    """A cache with rows of ``new`` written at the places that ``slots`` says, the rest as it was.

    Slot ``page * s + offset`` is the place at that offset of a page; a negative slot, or one beyond
    the pages, is nowhere. ``transposed`` says that the places of a page are its last axis, as keys
    lie, and not the one before, as values do. Of equal slots the last one stays.

    Shapes:  pages: (p, kv, s, d), or (p, kv, d, s) if transposed; new: (t, kv, d); slots: (t,) ->
             that of pages.
    Dtypes:  any; pages and new the same, slots of integers.
    Errors:  E0101, E0102, E0103, E0106, E0107.
    """

    transposed: bool = False

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """The type of the pages."""
        pages, new, slots = operands(self, types, 3)
        check_same_dtype(self, (pages, new))
        check_dtype(self, slots.dtype, "int", "the slots")
        check_rank(self, pages, 4, 4, "the pages")
        check_rank(self, new, 3, 3, "the new rows")
        check_rank(self, slots, 1, 1, "the slots")
        if pages.shape is None or new.shape is None or slots.shape is None:
            return pages
        width = pages.dims[2 if self.transposed else 3]
        check_same_dim(self, pages.dims[1], new.dims[1], "the heads of pages and new rows")
        check_same_dim(self, width, new.dims[2], "the widths of pages and new rows")
        check_same_dim(self, new.dims[0], slots.dims[0], "the numbers of new rows and slots")
        return pages

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Row after row, of those that have a slot."""
        pages, new, slots = arrays
        y = pages.copy()
        view = y.swapaxes(2, 3) if self.transposed else y
        size = view.shape[2]
        for row, slot in zip(new, slots.astype(np.int64), strict=True):
            if 0 <= slot < view.shape[0] * size:
                view[slot // size, :, slot % size] = row
        return y

    def lower(self, *types: TensorType) -> TensorFunction:
        """For each head the rows in order."""
        self.infer(*types)
        f = LoopBuilder(self.op_name())
        pages, new, slots = (f.input(t) for t in types)
        y = f.updated(pages)
        size = pages.shape[3 if self.transposed else 2]

        def rows(head: Var) -> tuple[Stmt, ...]:
            t, d, slot = f.variable(), f.variable(), f.variable()
            page, offset = f.variable(), f.variable()
            at = (page, head, d, offset) if self.transposed else (page, head, offset, d)
            row = For(d, new.shape[2], (Store(y, at, new[t, head, d]),))
            exists = (slot >= 0) & (slot < pages.shape[0] * size)
            place = (Let(page, slot // size), Let(offset, slot % size), row)
            return (For(t, slots.shape[0], (Let(slot, cast(slots[t], i64)), If(exists, place))),)

        f.block("write", (new.shape[1],), rows)
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Both orders; rows that go nowhere; no rows; more than one type."""
        slots = example(i64, "t", low=-3, high=12)
        yield cls(), (example(f32, 3, 2, 4, 5), example(f32, "t", 2, 5), slots)
        yield cls(True), (example(f32, 3, 2, 5, 4), example(f32, "t", 2, 5), slots)
        yield (
            cls(True),
            (
                example(f16, "p", 1, 3, 16),
                example(f16, 7, 1, 3),
                example(i32, 7, low=-9, high=60),
            ),
        )
        yield cls(), (example(f32, 2, 1, 1, 1), example(f32, 0, 1, 1), example(i64, 0))
        yield (
            cls(),
            (example(bf16, "p", 2, 2, 3), example(bf16, 1, 2, 3), example(i64, 1, low=1, high=2)),
        )


@dataclass(frozen=True)
class PagedAttention(Indexing):
    """Attention of each token to the keys of its sequence up to itself, read from pages.

    Token i belongs to row ``sequences[i]`` of the table, where it has place ``positions[i]``. It
    sees the keys j with ``positions[i] - window < j <= positions[i]``; key j lies in page
    ``table[sequences[i], j // s]`` at offset ``j % s``. A score is ``q · k * scale`` (one over the
    root of d unless given), then ``softcap * tanh(score / softcap)`` if there is a ``softcap``,
    then, with ``slopes``, plus ``slope * (j - positions[i])``. Neighbouring query heads share a
    head of keys. A token that sees nothing, as one of a negative position, has the result zero.

    A token whose neighbours belong to other sequences takes ``together`` heads of keys past the
    pages at a time: memory is read in longer pieces, and threads have fewer parts to share.

    Shapes:  q: (t, heads, d), keys: (p, kv, d, s), values: (p, kv, s, e), table: (b, m), sequences:
             (t,), positions: (t,) [, slopes: (heads,)] -> (t, heads, e). All of heads, kv, d, e and
             s are known numbers.
    Dtypes:  any float, all the same, or f32 with keys and values of one type of 16-bit floats;
             integers for table, sequences and positions. Computed in f32 for 16-bit floats.
    Errors:  E0101, E0102, E0103; E0106 where dimensions differ or must be known; E0107; E0108 if
             the numbers of heads do not divide, or for a window or cap below zero.
    """

    scale: float | None = None
    window: int | None = None
    softcap: float | None = None
    together: int = 1

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        q, keys, values, table, sequences, positions, *slopes = operands(self, types, 6, 7)
        dtype = check_same_dtype(self, (q, *slopes))
        kept = check_same_dtype(self, (keys, values))
        check_dtype(self, dtype, "float")
        if dtype != f32 or kept not in (bf16, f16):
            check_same_dtype(self, (q, keys))
        check_field(self, self.window is None or self.window > 0, f"a window of {self.window}")
        check_field(self, self.softcap is None or self.softcap > 0, f"a cap of {self.softcap}")
        for t, rank, what in (
            (q, 3, "the queries"),
            (keys, 4, "the keys"),
            (values, 4, "the values"),
            (table, 2, "the table"),
            (sequences, 1, "the sequences"),
            (positions, 1, "the positions"),
            *((t, 1, "the slopes") for t in slopes),
        ):
            check_rank(self, t, rank, rank, what)
        for t, what in ((table, "table"), (sequences, "sequences"), (positions, "positions")):
            check_dtype(self, t.dtype, "int", f"the {what}")
        if any(t.shape is None for t in types):
            return TensorType(None, 3, dtype)
        check_same_dim(self, keys.dims[0], values.dims[0], "the numbers of pages")
        check_same_dim(self, keys.dims[1], values.dims[1], "the heads of keys and values")
        check_same_dim(self, keys.dims[3], values.dims[2], "the places of pages")
        check_same_dim(self, q.dims[2], keys.dims[2], "the widths of queries and keys")
        for t in (sequences, positions):
            check_same_dim(self, q.dims[0], t.dims[0], "the numbers of tokens")
        for t in slopes:
            check_same_dim(self, q.dims[1], t.dims[0], "the numbers of heads and slopes")
        self._sizes(q, keys, values)
        return tensor_type((*q.dims[:2], values.dims[3]), dtype)

    def _sizes(self, q: TensorType, keys: TensorType, values: TensorType) -> PageSizes:
        """The dimensions that are known numbers."""
        found: list[int] = []
        for d, what in (
            (q.dims[1], "heads of queries"),
            (keys.dims[1], "heads of keys"),
            (keys.dims[2], "width of keys"),
            (values.dims[3], "width of values"),
            (keys.dims[3], "places of a page"),
        ):
            number = int_value(dim(d))
            if number is None:
                raise fail(self, "E0106", f"the {what} must be a known number, not {d}")
            found.append(number)
        heads, shared, width, result, places = found
        fits = shared > 0 and heads % shared == 0
        check_field(self, fits, f"{heads} heads of queries cannot share {shared} of keys")
        divides = self.together > 0 and shared % self.together == 0
        check_field(self, divides, f"{shared} heads of keys cannot go {self.together} together")
        return PageSizes(shared, heads // shared, width, result, places)

    def positions(self, *types: TensorType) -> tuple[Positions, ...]:
        """The pages, the rows of the table and the places of tokens."""
        keys, table = types[1], types[3]
        length = product((table.dims[1], keys.dims[3]))
        return (
            Positions(3, keys.dims[0]),
            Positions(4, table.dims[0]),
            Positions(5, length),
        )

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Token by token, with the keys that it sees in one row."""
        q, keys, values = map(summed, arrays[:3])
        table, sequences, positions = (a.astype(np.int64) for a in arrays[3:6])
        heads, shared, places = q.shape[1], keys.shape[1], keys.shape[3]
        y = np.zeros((*q.shape[:2], values.shape[3]), q.dtype)
        for i, (row, place) in enumerate(zip(sequences, positions, strict=True)):
            first = 0 if self.window is None else max(0, place - self.window + 1)
            j = np.arange(first, place + 1)
            if not j.size:
                continue
            page = table[row, j // places]
            k = np.repeat(keys[page, :, :, j % places], heads // shared, 1)
            v = np.repeat(values[page, :, j % places], heads // shared, 1)
            scores = np.einsum("hd,jhd->hj", q[i], k) * self._factor(q.shape[2], q.dtype)
            if self.softcap is not None:
                cap = np.asarray(self.softcap, q.dtype)
                scores = cap * np.tanh(scores / cap)
            for slopes in arrays[6:]:
                scores = scores + summed(slopes)[:, None] * (j - place).astype(q.dtype)
            e = np.exp(scores - scores.max(-1, keepdims=True))
            y[i] = np.einsum("hj,jhe->he", e / e.sum(-1, keepdims=True), v)
        return y.astype(arrays[0].dtype)

    def _factor(self, width: int, dtype: np.dtype) -> np.ndarray:
        return np.asarray(width**-0.5 if self.scale is None else self.scale, dtype)

    def lower(self, *types: TensorType) -> TensorFunction:
        """Page by page for each head of keys and some tokens of one sequence, or one token: scores,
        their largest so far, what was summed before scaled to that, and the values added.
        """
        result = self.infer(*types)
        f = LoopBuilder(self.op_name())
        inputs = [f.input(t) for t in types]
        y = f.output(result.dims, result.dtype)
        scores = Scores(self.scale, self.window, self.softcap)
        attend(f, scores, self._sizes(*types[:3]), inputs, y, self.together)
        return f.build()

    @classmethod
    def samples(cls) -> Samples:
        """Shared heads, windows, caps, slopes; ragged lengths, pages of one place; no tokens."""

        def operands_of(
            dtype: DType, t: int | str, cache: tuple[int, ...], table: tuple[int, int]
        ) -> tuple[Example, ...]:
            heads, shared, d, s, e = cache
            rows, pages = table
            return (
                example(dtype, t, heads, d),
                example(dtype, 5, shared, d, s),
                example(dtype, 5, shared, s, e),
                example(i64, rows, pages, low=0, high=5),
                example(i64, t, low=0, high=rows),
                example(i64, t, low=0, high=pages * s),
            )

        yield cls(), operands_of(f32, "t", (2, 2, 4, 4, 4), (2, 3))
        yield cls(0.5, window=5), operands_of(f32, 4, (6, 2, 3, 4, 2), (3, 2))
        yield cls(softcap=1.5), operands_of(f64, 3, (4, 1, 2, 1, 5), (1, 4))
        yield cls(together=3), operands_of(f32, "t", (6, 6, 4, 4, 4), (2, 3))
        yield cls(window=3, together=2), operands_of(f32, "t", (16, 2, 4, 4, 4), (2, 3))
        slopes = example(f32, 4, low=0, high=1)
        yield cls(window=1), (*operands_of(f32, "t", (4, 2, 4, 3, 4), (2, 2)), slopes)
        yield (
            cls(softcap=2.0, window=6),
            (*operands_of(f32, 5, (4, 2, 16, 16, 16), (2, 2)), slopes),
        )
        yield cls(), operands_of(f16, 3, (2, 1, 4, 4, 3), (2, 2))
        _, keys, values, *_ = operands_of(f16, 3, (2, 1, 4, 4, 3), (2, 2))
        q, _, _, *rest = operands_of(f32, 3, (2, 1, 4, 4, 3), (2, 2))
        yield cls(), (q, keys, values, *rest)
        yield cls(), operands_of(f32, 0, (2, 1, 4, 4, 3), (2, 2))
