"""The two transforms of Winograd convolution: a picture into tiles, and tiles of products into a
picture.

A 3×3 convolution of stride 1 computes ``m`` × ``m`` neighbouring results of one channel from ``t``
× ``t`` elements, ``t = m + 2``, as ``Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`` (Winograd's minimal filtering;
Lavin & Gray, arXiv 1509.09308, §4): ``t²`` products instead of ``9 m²``. Summed over channels, the
products at each of the ``t²`` places are a matrix product over tiles.

The matrices are those of the paper: the points of interpolation are 0, ±1, ±2 and infinity for
``m`` = 4, so that sums of up to 10 (and products by up to 8) stand before and after the products;
that is where the error comes from, which grows with ``m``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from treadle.expr.dtype import DType, f32, f64
from treadle.expr.scalar import Const, Expr, ExprLike, Var, as_expr, int_value, minimum
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import Buffer, If, Let, Stmt, Store, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import (
    check_dims,
    check_dtype,
    check_field,
    check_rank,
    check_same_dim,
    check_same_dtype,
    dim,
    one,
    operands,
    tensor_type,
)
from treadle.ops.create import known_shape

TAPS = 3
"""The width and height of the kernels."""

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Matrices:
    """``Bᵀ``, ``G`` and ``Aᵀ`` of F(m × m, 3 × 3)."""

    data: Matrix
    kernel: Matrix
    result: Matrix


MATRICES: dict[int, Matrices] = {
    2: Matrices(
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        ((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: Matrices(
        (
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        (
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}
"""By ``m``, how many results a tile has along each axis."""


def kernel_tiles(weight: np.ndarray, tile: int) -> np.ndarray:
    """``G g Gᵀ`` for a weight (o, c, 3, 3): (t², c, o), computed in double precision and rounded
    once to the weight's dtype.
    """
    g = np.asarray(MATRICES[tile].kernel, np.float64)
    outs, ins = weight.shape[:2]
    taps = weight.astype(np.float64).reshape(outs, ins, -1).transpose(2, 1, 0)
    found = np.kron(g, g) @ taps.reshape(TAPS * TAPS, -1)
    return found.reshape(-1, ins, outs).astype(weight.dtype)


def tiles_along(results: Expr, tile: int) -> Expr:
    """How many tiles it takes for so many results along an axis."""
    return dim((results + (tile - 1)) // tile)


@dataclass(frozen=True)
class WinogradInput(Op):
    """The overlapping tiles of a picture, transformed for products: ``Bᵀ d B``.

    A tile has ``tile + 2`` rows and columns and starts ``tile`` after the one before. The last
    ones repeat the edge where they reach beyond it.

    Shapes:  x: (n, c, h, w) -> (t², n, rows, columns, c) with t = tile + 2, where rows = ⌈(h - 2)
             / tile⌉, and columns likewise of w.
    Dtypes:  f32, f64.
    Errors:  E0101, E0102, E0103; E0108 for a tile other than 2 and 4.
    """

    tile: int
    differentiable = False

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        x = one(self, types)
        _check_tile(self, self.tile)
        check_dtype(self, x.dtype, "float")
        check_rank(self, x, 4, 4)
        if x.shape is None:
            return TensorType(None, 5, x.dtype)
        n, c, *_ = x.dims
        side = self.tile + TAPS - 1
        return tensor_type((side * side, n, *self._tiles(x.dims), c), x.dtype)

    def _tiles(self, dims: Sequence[Expr]) -> tuple[Expr, ...]:
        return tuple(tiles_along(d - (TAPS - 1), self.tile) for d in dims[2:])

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        (x,) = arrays
        side = self.tile + TAPS - 1
        counts = [-(-(d - TAPS + 1) // self.tile) for d in x.shape[2:]]
        reach = [k * self.tile + TAPS - 1 - d for k, d in zip(counts, x.shape[2:], strict=True)]
        wide = np.pad(x, [(0, 0), (0, 0), *((0, r) for r in reach)], mode="edge")
        view = np.lib.stride_tricks.sliding_window_view(wide, (side, side), (2, 3))
        d = view[:, :, :: self.tile, :: self.tile]
        b = np.asarray(MATRICES[self.tile].data, x.dtype)
        found = np.ascontiguousarray(np.einsum("ik,ncyxkl,jl->ijnyxc", b, d, b))
        return found.reshape(side * side, *found.shape[2:])

    def lower(self, *types: TensorType) -> TensorFunction:
        """One block that stores all the elements of a transformed tile."""
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        x, out = b.input(types[0], "X"), b.output(result.dims, result.dtype)
        rows, columns = self._tiles(x.shape)
        side, matrix = self.tile + TAPS - 1, MATRICES[self.tile].data

        def body(n: Var, y: Var, column: Var, c: Var) -> tuple[Stmt, ...]:
            names = _Names(result.dtype)
            down = [self._place(y, i, rows, x.shape[2]) for i in range(side)]
            across = [self._place(column, j, columns, x.shape[3]) for j in range(side)]
            half: list[list[Expr]] = []
            for j in across:
                half.append(names.mirrored(matrix, [names.let(x[n, c, i, j]) for i in down]))
            for i in range(side):
                whole = names.mirrored(matrix, [h[i] for h in half])
                for j, value in enumerate(whole):
                    names.store(out, (as_expr(i * side + j), n, y, column, c), value)
            return tuple(names.body)

        b.block("tiles", (x.shape[0], rows, columns, x.shape[1]), body)
        return b.build()

    def _place(self, tile: Var, offset: int, tiles: Expr, size: Expr) -> Expr:
        place = dim(tile * self.tile + offset)
        whole = int_value(dim(tiles * self.tile + (TAPS - 1) - size)) == 0
        return place if whole or offset < TAPS else minimum(place, dim(size - 1))

    @classmethod
    def samples(cls) -> Samples:
        """Whole and ragged tiles, one tile, symbolic sizes."""
        yield cls(2), (example(f32, 2, 3, 6, 4),)
        yield cls(4), (example(f64, 1, 2, 7, 12),)
        yield cls(4), (example(f32, "n", 3, 3, 6),)
        yield cls(2), (example(f32, 1, 2, Var("h") + 2, 5),)


@dataclass(frozen=True)
class WinogradOutput(Op):
    """A picture from tiles of products: ``Aᵀ m A``, less what reaches beyond ``size``.

    Shapes:  m: (t², n, rows, columns, o) [, bias: (o,)] -> (n, o, *size) with size = (h, w), t =
             tile + 2, rows = ⌈h / tile⌉ and columns = ⌈w / tile⌉.
    Dtypes:  f32, f64, all the same.
    Errors:  E0101, E0102, E0103; E0106 for products of another number of tiles; E0108 for a tile
             other than 2 and 4, or a size of another rank.
    """

    tile: int
    size: tuple[ExprLike, ...]
    differentiable = False

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        m, *rest = operands(self, types, 1, 2)
        _check_tile(self, self.tile)
        check_dtype(self, check_same_dtype(self, types), "float")
        check_rank(self, m, 5, 5, "the products")
        check_field(self, len(self.size) == 2, "size must be a height and a width")
        check_dims(self, self.size)
        if any(t.shape is None for t in types):
            return TensorType(None, 4, m.dtype)
        side = self.tile + TAPS - 1
        check_same_dim(self, m.dims[0], as_expr(side * side), "places of a tile")
        for have, want in zip(m.dims[2:4], self._tiles(), strict=True):
            check_same_dim(self, have, want, "the tiles along an axis")
        if rest:
            check_rank(self, rest[0], 1, 1, "the bias")
            check_same_dim(self, rest[0].dims[0], m.dims[4], "the bias and the channels")
        return tensor_type((m.dims[1], m.dims[4], *self.size), m.dtype)

    def _tiles(self) -> tuple[Expr, ...]:
        return tuple(tiles_along(as_expr(d), self.tile) for d in self.size)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        m, *bias = arrays
        h, w = known_shape(self.size)
        side = self.tile + TAPS - 1
        _, n, rows, columns, o = m.shape
        tiles = m.reshape(side, side, n, rows, columns, o)
        a = np.asarray(MATRICES[self.tile].result, m.dtype)
        found = np.einsum("rk,klnyxo,sl->noyrxs", a, tiles, a)
        whole = found.reshape(n, o, rows * self.tile, columns * self.tile)[..., :h, :w]
        return np.ascontiguousarray(whole + bias[0].reshape(-1, 1, 1) if bias else whole)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One block that stores all the results of a tile, of the last ones those that exist."""
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        m, *bias = (b.input(t, name) for t, name in zip(types, ("M", "bias"), strict=False))
        out = b.output(result.dims, result.dtype)
        batch, channels, height, width = result.dims
        rows, columns = self._tiles()
        side, matrix = self.tile + TAPS - 1, MATRICES[self.tile].result

        def body(n: Var, y: Var, x: Var, o: Var) -> tuple[Stmt, ...]:
            names = _Names(result.dtype)
            half: list[list[Expr]] = []
            for j in range(side):
                places = (as_expr(i * side + j) for i in range(side))
                half.append(names.paired(matrix, [names.let(m[p, n, y, x, o]) for p in places]))
            added = [names.let(v[o]) for v in bias]
            for r in range(self.tile):
                values = names.paired(matrix, [h[r] for h in half])
                row = dim(y * self.tile + r)
                found: list[Stmt] = []
                for s, value in enumerate(values):
                    column = dim(x * self.tile + s)
                    total = sum(added, start=value)
                    store = Store(out, (n, o, row, column), total)
                    found.extend(_inside(store, column, s, columns * self.tile, width))
                names.body.extend(_inside(tuple(found), row, r, rows * self.tile, height))
            return tuple(names.body)

        b.block("picture", (batch, rows, columns, channels), body)
        return b.build()

    @classmethod
    def samples(cls) -> Samples:
        """Whole and cropped tiles, a bias, symbolic sizes."""
        n = Var("n")
        yield cls(2, (4, 2)), (example(f32, 16, 2, 2, 1, 3),)
        yield cls(4, (5, 8)), (example(f64, 36, 1, 2, 2, 2), example(f64, 2))
        yield cls(4, (1, 4)), (example(f32, 36, n, 1, 1, 3),)
        yield cls(2, (5, 3)), (example(f32, 16, n, 3, 2, 2), example(f32, 2))


def _check_tile(op: Op, tile: int) -> None:
    check_field(op, tile in MATRICES, f"tile is {tile}; it must be 2 or 4")


def _inside(
    body: tuple[Stmt, ...] | Stmt, place: Expr, offset: int, reach: Expr, size: Expr
) -> Iterator[Stmt]:
    """Statements of a place that is ``offset`` into its tile, where it does not lie beyond."""
    inner = body if isinstance(body, tuple) else (body,)
    if offset == 0 or int_value(dim(reach - size)) == 0:
        yield from inner
    else:
        yield If(place < size, inner)


@dataclass(slots=True)
class _Names:
    """The statements of a block: values that are used more than once have names."""

    dtype: DType
    body: list[Stmt] = field(default_factory=list[Stmt])
    count: int = 0

    def let(self, value: Expr) -> Expr:
        """A name for a value, unless it has one."""
        if isinstance(value, Var):
            return value
        var = Var(f"t{self.count}", self.dtype)
        self.count += 1
        self.body.append(Let(var, value))
        return var

    def store(self, buffer: Buffer, indices: tuple[Expr, ...], value: Expr) -> None:
        """Write an element."""
        self.body.append(Store(buffer, indices, value))

    def mirrored(self, matrix: Matrix, values: Sequence[Expr]) -> list[Expr]:
        """``matrix @ values``, the parts named that two rows share: their columns of odd number
        differ in sign only.
        """
        found: dict[int, Expr] = {}
        for k, row in enumerate(matrix):
            flipped = tuple(-a if j % 2 else a for j, a in enumerate(row))
            partner = next((j for j in range(k + 1, len(matrix)) if matrix[j] == flipped), None)
            if partner is not None:
                even, odd = (
                    self.let(self.weighted(row[start::2], values[start::2])) for start in (0, 1)
                )
                found[k], found[partner] = self.let(even + odd), self.let(even - odd)
            elif k not in found:
                found[k] = self.let(self.weighted(row, values))
        return [found[k] for k in range(len(matrix))]

    def paired(self, matrix: Matrix, values: Sequence[Expr]) -> list[Expr]:
        """``matrix @ values``, the sums and differences named of two values that every row weighs
        alike or against each other.
        """
        columns, operand = list(zip(*matrix, strict=True)), list(values)
        for k in range(1, len(values) - 2, 2):
            total, gap = operand[k] + operand[k + 1], operand[k] - operand[k + 1]
            operand[k], operand[k + 1] = self.let(total), self.let(gap)
            same = [a if a == b else 0.0 for a, b in zip(columns[k], columns[k + 1], strict=True)]
            against = [a - b for a, b in zip(columns[k], same, strict=True)]
            columns[k], columns[k + 1] = tuple(same), tuple(against)
        return [self.let(self.weighted(row, operand)) for row in zip(*columns, strict=True)]

    def weighted(self, weights: Sequence[float], values: Sequence[Expr]) -> Expr:
        """The sum of values by their weights; what has weight 1 comes first."""
        terms = [(w, v) for w, v in zip(weights, values, strict=True) if w]
        terms.sort(key=lambda term: (term[0] != 1, term[0] < 0))
        weight, value = terms[0]
        total = value if weight == 1 else value * Const(weight, self.dtype)
        for weight, value in terms[1:]:
            scaled = value if abs(weight) == 1 else value * Const(abs(weight), self.dtype)
            total = total + scaled if weight > 0 else total - scaled
        return total
