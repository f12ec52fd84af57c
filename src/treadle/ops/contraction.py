"""Products of matrices, and Einstein's sums."""

from dataclasses import dataclass

import numpy as np

from treadle.expr.dtype import bf16, f16, f32, i32, i64
from treadle.expr.scalar import Expr, Var, as_expr, cast
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._compose import counted, transposed
from treadle.ops._equation import Equation, Labels, distinct, parse_equation
from treadle.ops._shapes import (
    broadcast_shapes,
    check_dtype,
    check_rank,
    check_same_dim,
    check_same_dtype,
    element,
    is_one,
    operands,
    product,
    tensor_type,
)
from treadle.ops._sums import accumulator, rounded, summed
from treadle.ops.broadcast import expanded, unbroadcast
from treadle.ops.compare import Equal, Where
from treadle.ops.reshape import Reshape, reshaped
from treadle.ops.shape import Permute


@dataclass(frozen=True)
class Matmul(Op):
    """The product of matrices in the last two axes, as ``numpy.matmul`` defines it.

    Shapes:  a: (*batch, m, k), b: (*batch, k, n) -> (*batch, m, n), the batches broadcast. A
             vector stands for a row on the left and for a column on the right; its axis is left
             out of the result.
    Dtypes:  any numbers, both the same. f16 and bf16 are summed in f32.
    Errors:  E0101, E0102, E0103; E0105 if the batches do not broadcast; E0106 if the inner
             dimensions differ; E0107.
    """

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        a, b = operands(self, types, 2)
        dtype = check_dtype(self, check_same_dtype(self, types), "number")
        check_rank(self, a, 1, what="the left operand")
        check_rank(self, b, 1, what="the right operand")
        if a.shape is None or b.shape is None:
            matrices = (a.ndim > 1) + (b.ndim > 1)
            return TensorType(None, max(a.ndim, b.ndim, 2) - 2 + matrices, dtype)
        check_same_dim(self, a.dims[-1], b.dims[-2 if b.ndim > 1 else 0], "the inner dimensions")
        batch = broadcast_shapes(self, a.dims[:-2], b.dims[:-2])
        return tensor_type((*batch, *a.dims[-2:-1], *(b.dims[-1:] if b.ndim > 1 else ())), dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        a, b = arrays
        return np.asarray(np.matmul(summed(a), summed(b)), a.dtype)

    def lower(self, *types: TensorType) -> TensorFunction:
        """A sum over k for every element of the result."""
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        left, right = b.input(types[0], "A"), b.input(types[1], "B")
        out = b.output(result.dims, result.dtype)
        total = accumulator(b, out)
        rows, columns = min(left.ndim - 1, 1), min(right.ndim - 1, 1)

        def term(*indices: Var) -> Expr:
            *spatial, k = indices
            batch = spatial[: len(spatial) - rows - columns]
            i = spatial[len(batch) : len(batch) + rows]
            j = spatial[len(batch) + rows :]
            x = element(left, (*batch[len(batch) - max(left.ndim - 2, 0) :], *i, k))
            y = element(right, (*batch[len(batch) - max(right.ndim - 2, 0) :], k, *j))
            return cast(x, total.dtype) * cast(y, total.dtype)

        b.reduce(total, (left.shape[-1],), term)
        rounded(b, total, out)
        return b.build()

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """``da = dy b'`` and ``db = a' dy``, summed over the axes that were broadcast."""
        a, b = args
        (dy,) = douts
        (y,) = outs
        x = Reshape((1, a.shape[0]))(a) if a.ndim == 1 else a
        w = Reshape((*b.shape, 1))(b) if b.ndim == 1 else b
        batch = y.shape[: y.ndim - (a.ndim > 1) - (b.ndim > 1)]
        full = (*batch, x.shape[-2], w.shape[-1])
        g = dy if a.ndim > 1 and b.ndim > 1 else Reshape(full)(dy)
        dx = unbroadcast(Matmul()(g, transposed(w)), x.shape)
        if w.ndim == 2:
            # One product over all rows at once instead of a batch of products that is summed.
            rows = product(g.shape[:-1])
            flat_x, flat_g = Reshape((rows, x.shape[-1]))(x), Reshape((rows, g.shape[-1]))(g)
            dw = Matmul()(transposed(flat_x), flat_g) if x.ndim > 2 else Matmul()(transposed(x), g)
        else:
            dw = unbroadcast(Matmul()(transposed(x), g), w.shape)
        return (
            Reshape(a.shape)(dx) if a.ndim == 1 else dx,
            Reshape(b.shape)(dw) if b.ndim == 1 else dw,
        )

    @classmethod
    def samples(cls) -> Samples:
        """Matrices, vectors, batches on either side, sums of none."""
        yield cls(), (example(f32, "n", 7), example(f32, 7, 5))
        yield cls(), (example(f32, 13), example(f32, 13))
        yield cls(), (example(f32, 3), example(f32, 2, 3, 4))
        yield cls(), (example(f32, 2, 3, 4), example(f32, 4))
        yield cls(), (example(f32, "n", 3, 5), example(f32, 5, 2))
        yield cls(), (example(f32, 2, 1, 3, 5), example(f32, 3, 5, 2))
        yield cls(), (example(f32, 5, 3), example(f32, "n", 3, 2))
        yield cls(), (example(f32, 0, 3, 5), example(f32, 0, 5, 2))
        yield cls(), (example(f16, 3, 17), example(f16, 17, 2))
        yield cls(), (example(bf16, 3, 17), example(bf16, 17, 2))
        yield cls(), (example(i32, 3, 4), example(i32, 4, 2))


@dataclass(frozen=True)
class Einsum(Op):
    """The sum of products that ``equation`` says, as ``numpy.einsum`` reads it.

    Labels repeated in one operand take its diagonal; those that the result lacks are summed;
    ``...`` stands for the axes that are not named, which broadcast. Without ``->`` the result has
    the ellipsis, then the labels that appear once.

    Shapes:  as the equation says. A dimension of 1 broadcasts against the same label elsewhere.
    Dtypes:  any numbers, all the same. f16 and bf16 are summed in f32.
    Errors:  E0101, E0102, E0103; E0105 if a label has two dimensions; E0108 for a malformed
             equation.
    """

    equation: str

    def infer(self, *types: TensorType) -> TensorType:
        """See the class."""
        operands(self, types, 1, len(types))
        dtype = check_dtype(self, check_same_dtype(self, types), "number")
        equation = self._parsed(types)
        if any(t.shape is None for t in types):
            return TensorType(None, len(equation.result), dtype)
        dims = self._dims(equation, types)
        return tensor_type([dims[x] for x in equation.result], dtype)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class."""
        found = np.einsum(self.equation, *map(summed, arrays))
        return np.asarray(found, arrays[0].dtype)

    def lower(self, *types: TensorType) -> TensorFunction | None:
        """One sum of products of at most two elements, where that is what the equation says."""
        equation = self._parsed(types)
        if not equation.is_direct:
            return None
        dims = self._dims(equation, types)
        result = self.infer(*types)
        b = LoopBuilder(self.op_name())
        inputs = [b.input(t) for t in types]
        out = b.output(result.dims, result.dtype)
        over = tuple(x for x in equation.labels if x not in equation.result)
        total = accumulator(b, out) if over else out

        def term(*indices: Var) -> Expr:
            at = dict(zip((*equation.result, *over), indices, strict=True))
            factors = [
                cast(element(x, [at[label] for label in labels]), total.dtype)
                for x, labels in zip(inputs, equation.terms, strict=True)
            ]
            return factors[0] if len(factors) == 1 else factors[0] * factors[1]

        if over:
            b.reduce(total, tuple(dims[x] for x in over), term)
        else:
            b.compute(out, term)
        rounded(b, total, out)
        return b.build()

    def decompose(self, *args: Traced) -> Traced | None:
        """Operands are reduced to the labels that others need, then joined two at a time from the
        left.
        """
        equation = self._parsed(tuple(a.type for a in args))
        if equation.is_direct:
            return None
        terms = list(equation.terms)
        values = list(args)
        for k, term in enumerate(terms):
            others = {x for i, t in enumerate(terms) if i != k for x in t}
            kept = distinct(x for x in term if x in others or x in equation.result)
            values[k], terms[k] = _joined([values[k]], [term], kept), kept
        while len(values) > 1:
            rest = {x for t in terms[2:] for x in t}
            last = len(values) == 2
            kept = distinct(x for t in terms[:2] for x in t if x in rest or x in equation.result)
            target = equation.result if last else kept
            values[:2], terms[:2] = [_joined(values[:2], terms[:2], target)], [target]
        return values[0]

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """The gradient of an operand is the sum of products of the result's gradient and the other
        operands.
        """
        equation = self._parsed(tuple(a.type for a in args))
        return tuple(_operand_gradient(k, equation, args, douts[0]) for k in range(len(args)))

    def _parsed(self, types: tuple[TensorType, ...]) -> Equation:
        return parse_equation(self, self.equation, [t.ndim for t in types])

    def _dims(self, equation: Equation, types: tuple[TensorType, ...]) -> dict[str, Expr]:
        dims: dict[str, Expr] = {}
        for labels, t in zip(equation.terms, types, strict=True):
            for label, size in zip(labels, t.dims, strict=True):
                (dims[label],) = broadcast_shapes(self, (dims.get(label, as_expr(1)),), (size,))
        return dims

    @classmethod
    def samples(cls) -> Samples:
        """Diagonals, sums, outer products, ellipses, three operands."""
        yield cls("ij,jk->ik"), (example(f32, "n", 5), example(f32, 5, 3))
        yield cls("bhqd,bhkd->bhqk"), (example(f32, 2, 1, 3, 4), example(f32, 2, 1, 5, 4))
        yield cls("ii->i"), (example(f32, 5, 5),)
        yield cls("ii"), (example(f32, 5, 5),)
        yield cls("ij->ji"), (example(f32, "n", 3),)
        yield cls("ji"), (example(i64, 2, 3),)
        yield cls("i,j->ij"), (example(f32, 3), example(f32, 4))
        yield cls("...ij,...jk->...ik"), (example(f32, 2, 1, 3, 4), example(f32, 5, 4, 2))
        yield cls("ij,jk,kl->il"), (example(f32, 2, 3), example(f32, 3, 4), example(f32, 4, 5))
        yield cls("iij,jk->k"), (example(f32, 3, 3, 2), example(f32, 2, 4))
        yield cls("ab,cb->a"), (example(f32, 3, 4), example(f32, 2, 4))
        yield cls("i,i->"), (example(f16, 13), example(f16, 13))
        yield cls("ij,ij->i"), (example(f32, 1, 4), example(f32, 3, 4))


def _joined(values: list[Traced], terms: list[Labels], result: Labels) -> Traced:
    """Values with labels, summed to those of the result."""
    if terms == [result]:
        return values[0]
    return values[0].builder.emit(Einsum(str(Equation(tuple(terms), result))), *values)


def _operand_gradient(k: int, equation: Equation, args: tuple[Traced, ...], dy: Traced) -> Traced:
    """The gradient of operand ``k``: found for its distinct labels, stretched over those that were
    only summed, and laid on the diagonal of those that repeat."""
    x, labels = args[k], equation.terms[k]
    others = [i for i in range(len(args)) if i != k]
    sources = [equation.result, *(equation.terms[i] for i in others)]
    available = {label for source in sources for label in source}
    stretched = {label for label, size in zip(labels, x.shape, strict=True) if is_one(size)}
    found = tuple(
        label for label in distinct(labels) if label in available and label not in stretched
    )
    gradient = _joined([dy, *(args[i] for i in others)], sources, found)
    # One axis for each of the operand's: the first of a label carries the gradient, others stretch.
    first = {label: labels.index(label) for label in found}
    aligned = [
        x.shape[i] if first.get(label) == i else as_expr(1) for i, label in enumerate(labels)
    ]
    gradient = expanded(reshaped(gradient, aligned), x.shape)
    for i, label in enumerate(labels):
        start = labels.index(label)
        if start != i:
            places = (counted(x.builder, x.shape[k], k, x.ndim) for k in (start, i))
            same = Equal()(*places)
            gradient = Where()(same, gradient, x.builder.literal(0, x.dtype))
    return gradient


def multiplied_along(x: Traced, axis: int, matrix: Traced) -> Traced:
    """``x`` multiplied along ``axis`` by a matrix (old size, new size)."""
    last = x.ndim - 1
    if axis == last:
        return Matmul()(x, matrix)
    order = (*(k for k in range(x.ndim) if k != axis), axis)
    product_ = Matmul()(Permute(order)(x), matrix)
    return Permute(tuple(order.index(k) for k in range(x.ndim)))(product_)
