"""What convolutions and pools share: sizes of windows' results, and copies with a border."""

from collections.abc import Sequence
from functools import reduce as fold

import numpy as np

from treadle.expr.scalar import Const, Expr, ExprLike, Var, as_expr, int_value, minimum, select
from treadle.ir.loop_builder import LoopBuilder, guarded
from treadle.ir.op import Op
from treadle.ir.tensor import Buffer
from treadle.ops._shapes import check_field, dim

Pads = tuple[tuple[int, int], ...]
Dims = tuple[Expr, ...]


def window_count(
    size: ExprLike,
    kernel: ExprLike,
    stride: int,
    pads: tuple[int, int],
    dilation: int = 1,
    ceil_mode: bool = False,
) -> Expr:
    """How many windows fit; with ``ceil_mode`` one more that overhangs, if it starts inside."""
    before, after = pads
    room = as_expr(size) + (before + after - 1) - (as_expr(kernel) - 1) * dilation
    if not ceil_mode:
        return dim(room // stride + 1)
    starts = (as_expr(size) + (before - 1)) // stride + 1
    return dim(minimum((room + (stride - 1)) // stride + 1, starts))


def window_counts(
    sizes: Sequence[ExprLike],
    kernel: Sequence[ExprLike],
    stride: Sequence[int],
    padding: Pads,
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> Dims:
    """How many windows fit along each axis."""
    axes = zip(sizes, kernel, stride, padding, dilation, strict=True)
    return tuple(window_count(n, k, s, p, d, ceil_mode) for n, k, s, p, d in axes)


def check_windows(
    op: Op, rank: int, stride: Sequence[int], padding: Pads, dilation: Sequence[int]
) -> None:
    """E0108 unless every field of windows has one value (positive, or not negative for padding)
    for each axis.
    """
    for name, values in (("stride", stride), ("dilation", dilation)):
        check_field(op, len(values) == rank, f"{name} must have {rank} values, not {len(values)}")
        check_field(
            op, all(v >= 1 for v in values), f"{name} must be positive, not {tuple(values)}"
        )
    check_field(op, len(padding) == rank, f"padding must have {rank} pairs, not {len(padding)}")
    check_field(op, all(v >= 0 for pair in padding for v in pair), "padding must not be negative")


def check_counts(op: Op, counts: Dims) -> None:
    """E0108 if no window fits along some axis."""
    known = [int_value(c) for c in counts]
    check_field(
        op, all(c is None or c >= 1 for c in known), "the window is larger than the padded operand"
    )


def inside(index: Expr, size: ExprLike, below: bool = True, above: bool = True) -> list[Expr]:
    """The conditions for an index to lie in [0, size), those asked for."""
    return ([index >= 0] if below else []) + ([index < size] if above else [])


def all_of(conditions: Sequence[Expr]) -> Expr:
    """The conjunction of at least one condition."""
    return fold(lambda a, b: a & b, conditions)


def bordered(
    b: LoopBuilder, x: Buffer, begins: Sequence[int], sizes: Sequence[Expr], fill: float
) -> Buffer:
    """``x``, of which the trailing axes are spatial, after ``begins`` elements and of ``sizes``.

    Where nothing is added that is ``x`` itself.
    """
    skipped = x.ndim - len(sizes)
    grown = tuple(size is not old for size, old in zip(sizes, x.shape[skipped:], strict=True))
    if not any(grown) and not any(begins):
        return x

    def element(*indices: Var) -> Expr:
        conditions: list[Expr] = []
        source: list[Expr] = list(indices[:skipped])
        for axis, begin in enumerate(begins):
            index = indices[skipped + axis] - begin if begin else indices[skipped + axis]
            source.append(index)
            if grown[axis] or begin:
                conditions += inside(index, x.shape[skipped + axis], below=begin > 0)
        return guarded(all_of(conditions), x[tuple(source)], fill)

    return b.compute(b.temp((*x.shape[:skipped], *sizes), x.dtype, f"{x.name}_padded"), element)


def windows(
    x: np.ndarray,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Pads,
    dilation: Sequence[int],
    counts: Sequence[int],
    fill: float = 0,
) -> np.ndarray:
    """The windows over the spatial axes (all but the first two): (N, C, *counts, *kernel), as a
    view of a padded copy.
    """
    spatial = x.shape[2:]
    axes = list(zip(spatial, kernel, stride, padding, dilation, counts, strict=True))
    needed = [max(n + p[0] + p[1], (c - 1) * s + d * (k - 1) + 1) for n, k, s, p, d, c in axes]
    pads = [(p[0], size - n - p[0]) for size, (n, _, _, p, _, _) in zip(needed, axes, strict=True)]
    wide = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
    extents = tuple(d * (k - 1) + 1 for _, k, _, _, d, _ in axes)
    rank = len(axes)
    view = np.lib.stride_tricks.sliding_window_view(wide, extents, axis=tuple(range(2, 2 + rank)))
    starts = tuple(slice(0, (c - 1) * s + 1, s) for _, _, s, _, _, c in axes)
    taps = tuple(slice(None, None, d) for _, _, _, _, d, _ in axes)
    return view[(slice(None), slice(None), *starts, *taps)]


def plus(a: Expr, b: Expr) -> Expr:
    """The sum, without terms that are zero."""
    return a if int_value(b) == 0 else b if int_value(a) == 0 else a + b


def choose(condition: Expr, a: ExprLike, b: Expr) -> Expr:
    """``select``, decided now where the condition is known."""
    if not isinstance(condition, Const):
        return select(condition, a, b)
    if not condition.value:
        return b
    return a if isinstance(a, Expr) else Const(a, b.dtype)


def scaled(index: Expr, factor: int) -> Expr:
    """The product, without a factor of one."""
    return index if factor == 1 else index * factor


def unraveled(flat: Expr, shape: Sequence[Expr]) -> list[Expr]:
    """The indices of the element at ``flat`` of a tensor of ``shape`` in row-major order."""
    found: list[Expr] = []
    for size in reversed(shape[1:]):
        found.append(flat % size)
        flat = flat // size
    return [flat, *reversed(found)]


def check_groups(op: Op, groups: int, *channels: Expr) -> None:
    """E0108 unless ``groups`` is positive and divides the numbers of channels that are known."""
    check_field(op, groups >= 1, f"groups must be positive, not {groups}")
    known = [c for c in map(int_value, channels) if c is not None]
    check_field(
        op, all(c % groups == 0 for c in known), f"{groups} groups do not divide channels {known}"
    )
