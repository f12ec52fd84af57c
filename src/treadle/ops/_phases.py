"""The loops of a transposed convolution, by phases.

An element of the result at ``y = stride · u + r`` takes the elements of the operand ``i`` and of
the kernel ``k`` with ``stride · i + dilation · k = y + before``. For a phase ``r`` these are every
``stride``-th tap of the kernel, on neighbours of the operand: a convolution of stride one with a
kernel of its own, without the zeros that one could think of between the elements.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from treadle.expr.scalar import Expr, Var, as_expr, cast, eq, int_value
from treadle.ir.loop_builder import LoopBuilder, guarded
from treadle.ir.tensor import ZERO, Buffer
from treadle.ops._shapes import dim, is_one
from treadle.ops._window import Dims, Pads, all_of, inside, plus, scaled


@dataclass(frozen=True, slots=True)
class PhaseAxis:
    """One spatial axis. Where the taps of all phases are equally many there are ``phases`` of them,
    in the order of their first taps; elsewhere there is one, over an operand with ``stuffing -
    1`` zeros between its elements.
    """

    count: Expr
    kernel: Expr
    phases: int
    stuffing: int
    dilation: int
    begin: Expr
    """Elements of the border before the operand."""
    skipped: int = 0
    """Elements that phases compute before the first of the result."""
    swapped: bool = False
    """Whether of two phases the first has the second tap, so that none are skipped."""

    @staticmethod
    def of(count: Expr, kernel: Expr, stride: int, before: int, dilation: int) -> "PhaseAxis":
        """The axis of a transposed convolution with a result of ``count`` elements."""
        taps = int_value(kernel)
        if stride > 1 and dilation == 1 and taps and taps % stride == 0:
            begin = as_expr(taps // stride - 1 - before // stride)
            skipped = before % stride
            swapped = stride == 2 and skipped == 1
            return PhaseAxis(count, kernel, stride, 1, 1, begin, 0 if swapped else skipped, swapped)
        begin = dim((kernel - 1) * dilation - before)
        return PhaseAxis(count, kernel, 1, stride, dilation, begin)

    @property
    def taps(self) -> Expr:
        """Elements of the kernel that a phase takes."""
        return self.kernel if self.phases == 1 else dim(self.kernel // self.phases)

    @property
    def steps(self) -> Expr:
        """Elements of the result of each phase, up to one of them beyond the end."""
        if self.phases == 1:
            return self.count
        return dim((self.count + (self.skipped + self.phases - 1)) // self.phases)

    @property
    def room(self) -> Expr:
        """Elements of the operand, its border and zeros between, that all phases read."""
        return dim(self.steps + (self.taps - 1) * self.dilation + int(self.swapped))

    def position(self, step: Expr, phase: Expr, tap: Expr) -> Expr:
        """The element of the operand with its border that a tap takes."""
        if self.phases == 1:
            return plus(step, scaled(tap, self.dilation))
        ahead = plus(step, phase) if self.swapped else step
        return ahead if is_one(self.taps) else ahead + (dim(self.taps - 1) - tap)

    def weight(self, phase: Expr, tap: Expr) -> Expr:
        """The element of the kernel that a tap takes; without phases these run backwards."""
        if self.phases == 1:
            return ZERO if is_one(self.kernel) else dim(self.kernel - 1) - tap
        return plus(scaled(tap, self.phases), 1 - phase if self.swapped else phase)

    def result(self, step: Expr, phase: Expr) -> Expr:
        """The element of the result, those that are skipped counted."""
        return plus(scaled(step, self.phases), phase)

    def source(self, position: Expr, size: Expr) -> tuple[Expr, list[Expr]]:
        """The element of the operand at a position within its border, and when there is one."""
        offset = dim(position - self.begin) if int_value(self.begin) != 0 else position
        found = offset // self.stuffing if self.stuffing > 1 else offset
        between = [eq(offset % self.stuffing, 0)] if self.stuffing > 1 else []
        return found, [*between, *inside(found, size)]


@dataclass(frozen=True, slots=True)
class Phases:
    """A transposed convolution in groups of ``ins`` channels of the operand and ``outs`` of the
    result.
    """

    groups: int
    ins: Expr
    outs: Expr
    axes: tuple[PhaseAxis, ...]

    @staticmethod
    def of(
        groups: int,
        weight: Buffer,
        counts: Dims,
        stride: Sequence[int],
        padding: Pads,
        dilation: Sequence[int],
    ) -> "Phases":
        """The loops for a kernel (c, o / groups, *taps)."""
        fields = zip(counts, weight.shape[2:], stride, padding, dilation, strict=True)
        axes = tuple(PhaseAxis.of(n, k, s, p[0], d) for n, k, s, p, d in fields)
        return Phases(groups, dim(weight.shape[0] // groups), weight.shape[1], axes)

    @property
    def whole(self) -> bool:
        """Whether the phases fill the result exactly."""
        return all(
            a.skipped == 0 and int_value(dim(a.steps * a.phases - a.count)) == 0 for a in self.axes
        )

    def kept(self, place: Sequence[Expr]) -> tuple[Expr, ...]:
        """Where in what the phases compute an element of the result lies."""
        skipped = (as_expr(0), as_expr(0), *(as_expr(a.skipped) for a in self.axes))
        return tuple(plus(i, k) for i, k in zip(place, skipped, strict=True))

    def sizes(self) -> Dims:
        """The spatial dimensions of all phases together."""
        return tuple(dim(a.steps * a.phases) for a in self.axes)

    def operand(self, b: LoopBuilder, x: Buffer) -> Buffer:
        """``x`` with the border that taps reach into, and zeros between where there are no phases;
        ``x`` itself where that is the same.
        """
        sizes = tuple(a.room for a in self.axes)
        if sizes == x.shape[2:] and all(
            a.stuffing == 1 and int_value(a.begin) == 0 for a in self.axes
        ):
            return x

        def value(n: Var, c: Var, *p: Var) -> Expr:
            conditions: list[Expr] = []
            source: list[Expr] = []
            for axis, position, size in zip(self.axes, p, x.shape[2:], strict=True):
                place, more = axis.source(position, size)
                source.append(place)
                conditions += more
            return guarded(all_of(conditions), x[(n, c, *source)], 0)

        return b.compute(b.temp((*x.shape[:2], *sizes), x.dtype, f"{x.name}_padded"), value)

    def emit(self, b: LoopBuilder, total: Buffer, x: Buffer, weight: Buffer) -> None:
        """Add the reduction of all phases into ``total``.

        Axes of one element are left out, so that a depthwise convolution has no loops over
        channels but one.
        """
        grouped = self.groups > 1
        has_out = not (grouped and is_one(self.outs))
        has_in = not is_one(self.ins) or all(is_one(a.taps) for a in self.axes)
        spatial: list[Expr] = [x.shape[0]]
        spatial += [as_expr(self.groups)] * grouped + [self.outs] * has_out
        for a in self.axes:
            spatial += [as_expr(a.phases)] * (a.phases > 1) + [a.steps]
        reduced = [self.ins] * has_in + [a.taps for a in self.axes if not is_one(a.taps)]

        def channel(g: Expr, inner: Expr, size: Expr, kept: bool) -> Expr:
            return inner if not grouped else plus(scale(g, size), inner) if kept else g

        def at(*point: Var) -> tuple[Expr, ...]:
            given = iter(point)
            n, g, o, places = self._point(given, grouped, has_out)
            results = (a.result(*p) for a, p in zip(self.axes, places, strict=True))
            return (n, channel(g, o, self.outs, has_out), *results)

        def term(*point: Var) -> Expr:
            given = iter(point)
            n, g, o, places = self._point(given, grouped, has_out)
            c = next(given) if has_in else ZERO
            taps = [ZERO if is_one(a.taps) else next(given) for a in self.axes]
            source = channel(g, c, self.ins, has_in)
            each = list(zip(self.axes, places, taps, strict=True))
            element = x[(n, source, *(a.position(*p, t) for a, p, t in each))]
            factor = weight[(source, o, *(a.weight(p[1], t) for a, p, t in each))]
            return cast(element, total.dtype) * cast(factor, total.dtype)

        b.reduce_at(total, tuple(spatial), tuple(reduced), at, term)

    def _point(
        self, given: Iterator[Var], grouped: bool, has_out: bool
    ) -> tuple[Expr, Expr, Expr, list[tuple[Expr, Expr]]]:
        """Image, group, channel within it, and step and phase along each axis."""
        n = next(given)
        g = next(given) if grouped else ZERO
        o = next(given) if has_out else ZERO
        places: list[tuple[Expr, Expr]] = []
        for a in self.axes:
            phase = next(given) if a.phases > 1 else ZERO
            places.append((next(given), phase))
        return n, g, o, places


def scale(index: Expr, size: Expr) -> Expr:
    """The product, without a factor of one."""
    return index if is_one(size) else index * size
