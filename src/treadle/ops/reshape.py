"""The same elements in order under another shape."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treadle.expr.bounds import Facts
from treadle.expr.dtype import f16, f32, i64
from treadle.expr.scalar import Apply, Const, Expr, ExprLike, Var, int_value
from treadle.expr.simplify import simplify
from treadle.ir.graph_builder import Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples, example, fail
from treadle.ir.tensor import ZERO, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import (
    check_dims,
    is_one,
    one,
    product,
    same_dim,
    same_dims,
    tensor_type,
    text,
)
from treadle.ops.create import known_shape

Group = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Monomial:
    """A product of a number and of factors that are not numbers, each as often as it occurs."""

    number: int
    factors: Counter[Expr]

    def __mul__(self, other: "Monomial") -> "Monomial":
        return Monomial(self.number * other.number, self.factors + other.factors)

    @staticmethod
    def of(dim: Expr) -> "Monomial":
        """A dimension taken apart at its multiplications."""
        value = int_value(dim)
        if value is not None:
            return Monomial(value, Counter())
        if isinstance(dim, Apply) and dim.fn == "mul":
            return Monomial.of(dim.args[0]) * Monomial.of(dim.args[1])
        return Monomial(1, Counter([dim]))


def dim_groups(before: Sequence[Expr], after: Sequence[Expr]) -> list[Group]:
    """The finest groups of neighbouring dimensions of two shapes of equal size, such that each has
    equal size on both sides.

    Dimensions of one belong to no group. What cannot be told apart ends up in one group.
    """
    sources = [k for k, d in enumerate(before) if not is_one(d)]
    targets = [k for k, d in enumerate(after) if not is_one(d)]
    groups: list[Group] = []
    unit = Monomial(1, Counter())
    left, right, left_size, right_size = [], [], unit, unit
    while sources or targets:
        more_left = bool(sources) and (not targets or _lacks(left_size, right_size, bool(left)))
        if more_left:
            left.append(sources.pop(0))
            left_size *= Monomial.of(simplify(before[left[-1]]))
        else:
            right.append(targets.pop(0))
            right_size *= Monomial.of(simplify(after[right[-1]]))
        if left_size == right_size and left and right:
            groups.append((tuple(left), tuple(right)))
            left, right, left_size, right_size = [], [], unit, unit
    if left or right:
        groups.append((tuple(left), tuple(right)))
    return groups


def _lacks(left: Monomial, right: Monomial, started: bool) -> bool:
    """Whether the left side must grow before the right one can be reached."""
    if not started or right.factors - left.factors:
        return True
    return not left.factors - right.factors and left.number < right.number


def source_indices(
    before: Sequence[Expr], after: Sequence[Expr], indices: Sequence[Expr]
) -> tuple[Expr, ...]:
    """Where in a tensor of shape ``before`` the element stands that a view of shape ``after`` shows
    at ``indices``."""
    facts = Facts.of((), {i: d for i, d in zip(indices, after, strict=True) if isinstance(i, Var)})
    found: list[Expr] = [ZERO] * len(before)
    for sources, targets in dim_groups(before, after):
        flat: Expr = ZERO
        for k in targets:
            flat = flat * after[k] + indices[k]
        for position, k in enumerate(sources):
            inner = product([before[j] for j in sources[position + 1 :]])
            index = flat if is_one(inner) else flat // inner
            found[k] = simplify(index if position == 0 else index % before[k], facts)
    return tuple(found)


@dataclass(frozen=True)
class Reshape(Op):
    """Row-major order stays, the shape changes.

    Shapes:  x: any -> shape, of as many elements.
    Errors:  E0109 if the numbers of elements are not provably equal.
    """

    shape: tuple[ExprLike, ...]

    def infer(self, *types: TensorType) -> TensorType:
        """The shape of the field."""
        x = one(self, types)
        check_dims(self, self.shape)
        result = tensor_type(self.shape, x.dtype)
        if x.shape is not None and not same_dim(product(x.dims), product(result.dims)):
            raise fail(
                self,
                "E0109",
                f"{text(x.dims)} and {text(result.dims)} differ in number of elements",
                "give dimensions whose product is the same",
            )
        return result

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """np.reshape."""
        return np.reshape(arrays[0], known_shape(self.shape))

    def lower(self, *types: TensorType) -> TensorFunction:
        """One copy, whose indices are affine where dimensions are merged, split, added or
        dropped."""
        f = LoopBuilder(self.op_name())
        x = f.input(types[0])
        y = f.output(self.infer(*types).dims, x.dtype)
        if any(int_value(d) == 0 for d in y.shape):
            f.compute(y, lambda *_: Const(0, y.dtype))
        else:
            f.compute(y, lambda *i: x[source_indices(x.shape, y.shape, i)])
        return f.build()

    def vjp(
        self, args: tuple[Traced, ...], outs: tuple[Traced, ...], douts: tuple[Traced, ...]
    ) -> tuple[Traced | None, ...]:
        """Back to the operand's shape."""
        return (reshaped(douts[0], args[0].shape),)

    @classmethod
    def samples(cls) -> Samples:
        """Merges, splits, ones, regroupings, empty and symbolic shapes."""
        n = Var("n")
        yield cls((6, 4)), (example(f32, 2, 3, 4),)
        yield cls((2, 3, 4)), (example(f32, 6, 4),)
        yield cls((1, 5, 1)), (example(f16, 5),)
        yield cls(()), (example(i64, 1, 1),)
        yield cls((4, 3, 2)), (example(f32, 2, 3, 4),)
        yield cls((3, 10)), (example(f32, 5, 6),)
        yield cls((0, 7)), (example(f32, 3, 0),)
        yield cls((n * 4,)), (example(f32, "n", 2, 2),)
        yield cls((n, 3, 1, 2)), (example(f32, n, 6),)
        yield cls((2, n, 3)), (example(f32, n * 2, 3),)
        yield cls((3, n, 2)), (example(f32, 2, "n", 3),)


def reshaped(x: Traced, shape: Sequence[Expr]) -> Traced:
    """``x`` under another shape; itself when it has that one."""
    return x if same_dims(x.shape, shape) else Reshape(tuple(shape))(x)
