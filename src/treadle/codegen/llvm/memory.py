"""Where an access goes: the element that scalar indices name, and how the lanes of a vector lie
around it.
"""

from dataclasses import dataclass

from treadle.expr.dtype import i64
from treadle.expr.scalar import Apply, Expr, apply, cast, int_value
from treadle.expr.terms import Poly, from_poly, number, to_poly
from treadle.ir.tensor import ZERO, Buffer


@dataclass(frozen=True, slots=True)
class Place:
    """The elements that an access touches.

    ``offset`` is the linear index of lane 0 (of the whole access, if it is scalar). The others lie
    ``stride`` elements apart, and further by the sum of ``scattered`` (index vectors and the
    distance of one step of each).
    """

    offset: Poly
    lanes: int
    stride: Poly
    scattered: tuple[tuple[Expr, Expr], ...] = ()

    @property
    def constant_stride(self) -> int | None:
        """The distance between lanes, if it is known and the only one."""
        return self.stride.constant if self.stride.is_constant and not self.scattered else None


def place_of(indices: tuple[Expr, ...], steps: tuple[Poly, ...]) -> Place:
    """The elements at ``indices`` (vectors or not); ``steps`` are the buffer's strides."""
    offset, stride = number(0), number(0)
    lanes = max((i.dtype.lanes for i in indices), default=1)
    scattered: list[tuple[Expr, Expr]] = []
    for index, step in zip(indices, steps, strict=True):
        if index.dtype.lanes == 1:
            offset = offset + to_poly(as_index(index)) * step
            continue
        line = as_ramp(index)
        if line is None:
            scattered.append((index, from_poly(step)))
        else:
            offset = offset + to_poly(line[0]) * step
            stride = stride + to_poly(line[1]) * step
    return Place(offset, lanes, stride, tuple(scattered))


def strides(buffer: Buffer) -> tuple[Poly, ...]:
    """The distance, in elements, of one step of each index."""
    result: list[Poly] = []
    step = number(1)
    for dim in reversed(buffer.shape):
        result.append(step)
        step = step * to_poly(dim)
    return tuple(reversed(result))


def as_index(x: Expr) -> Expr:
    """A scalar index in the index type."""
    return x if x.dtype == i64 else cast(x, i64)


def as_ramp(x: Expr) -> tuple[Expr, Expr] | None:
    """First element and step of an index vector that advances evenly; ``None`` for any other."""
    if not isinstance(x, Apply) or x.dtype.scalar != i64:
        return None
    if x.fn == "ramp":
        return x.args[0], x.args[1]
    if x.fn == "broadcast":
        return x.args[0], ZERO
    if x.fn not in ("add", "sub", "mul"):
        return None
    a, b = as_ramp(x.args[0]), as_ramp(x.args[1])
    if a is None or b is None:
        return None
    if x.fn != "mul":
        return apply(x.fn, a[0], b[0]), apply(x.fn, a[1], b[1])
    if int_value(b[1]) == 0:
        return a[0] * b[0], a[1] * b[0]
    return (a[0] * b[0], a[0] * b[1]) if int_value(a[1]) == 0 else None
