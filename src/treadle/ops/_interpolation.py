"""Interpolation along one axis as ONNX's Resize defines it: source coordinates, taps and their
weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from treadle.expr.dtype import f64, i64
from treadle.expr.scalar import Const, Expr, apply, as_expr, cast, eq, maximum, minimum, select
from treadle.expr.simplify import simplify
from treadle.ops._shapes import same_dim
from treadle.ops._window import choose, plus

MODES = ("nearest", "linear", "cubic")
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True, slots=True)
class ResizedAxis:
    """How one axis of ``size`` elements becomes one of ``count``.

    ``scale`` is what the user gave, or ``None`` where it follows from the dimensions; ``region``
    is the part of the axis (from, to; 0 to 1) that ``tf_crop_and_resize`` stretches over the
    result.
    """

    size: Expr
    count: Expr
    scale: float | None
    region: tuple[float, float]
    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool

    @property
    def is_identity(self) -> bool:
        """Whether the axis stays as it is."""
        scaled = self.scale is not None and abs(self.scale - 1) > 1e-9
        cropped = self.coordinates == "tf_crop_and_resize" and self.region != (0.0, 1.0)
        return not scaled and not cropped and same_dim(self.size, self.count)

    @property
    def ratio(self) -> Expr:
        """Elements of the result for each of the operand, in f64."""
        if self.scale is not None:
            return Const(self.scale, f64)
        return cast(self.count, f64) / cast(self.size, f64)

    @property
    def taps(self) -> Expr:
        """How many elements an element of the result is computed from."""
        if self.mode == "nearest":
            return as_expr(1)
        radius = 1 if self.mode == "linear" else 2
        if not self.antialias:
            return as_expr(2 * radius)
        narrow = minimum(self.ratio, 1.0)
        if isinstance(narrow, Const):
            return as_expr(2 * ceil(radius / narrow.value))
        return simplify(cast(apply("ceil", radius / narrow), i64) * 2)

    def coordinate(self, i: Expr) -> Expr:
        """Where element ``i`` of the result lies in the operand, in f64."""
        x = cast(i, f64)
        size = cast(self.size, f64)
        length = size * self.scale if self.scale is not None else cast(self.count, f64)
        half = self._shrunk(x + 0.5) - 0.5
        table: dict[str, Callable[[], Expr]] = {
            "half_pixel": lambda: half,
            "half_pixel_symmetric": lambda: self._centered(x, size),
            "pytorch_half_pixel": lambda: self._unless_single(half, Const(0, f64)),
            "asymmetric": lambda: self._shrunk(x),
            "align_corners": lambda: self._unless_single(
                x * (size - 1.0) / self._at_least(length - 1.0), Const(0, f64)
            ),
            "tf_crop_and_resize": lambda: self._cropped(x, size, length),
        }
        return table[self.coordinates]()

    def _centered(self, x: Expr, size: Expr) -> Expr:
        """Distances from the center of the result, laid off from that of the operand."""
        return self._shrunk(x + 0.5 - cast(self.count, f64) / 2.0) + size / 2.0 - 0.5

    def _shrunk(self, x: Expr) -> Expr:
        """A length of the result in the operand's measure; exact where the quotient of dimensions
        is whole.
        """
        if self.scale is not None:
            return x / self.scale
        return x * cast(self.size, f64) / cast(self.count, f64)

    def _cropped(self, x: Expr, size: Expr, length: Expr) -> Expr:
        low, high = self.region
        step = x * (high - low) * (size - 1.0) / self._at_least(length - 1.0)
        return self._unless_single(step, (size - 1.0) * ((high - low) / 2)) + (size - 1.0) * low

    def _at_least(self, divisor: Expr) -> Expr:
        """A divisor that is not used where it would be zero, kept from being so."""
        return choose(eq(divisor, 0.0), 1.0, divisor)

    def _unless_single(self, found: Expr, single: Expr) -> Expr:
        """``single`` if the result has one element, else what was found."""
        return choose(self.count > 1, found, single)

    def is_outside(self, x: Expr) -> Expr:
        """Whether a coordinate lies where ``tf_crop_and_resize`` extrapolates."""
        return (x < 0.0) | (x > cast(self.size - 1, f64))

    def first(self, x: Expr) -> Expr:
        """The index, possibly outside, of the first tap of a coordinate."""
        if self.mode == "nearest":
            return cast(self._rounded(x), i64)
        return plus(cast(apply("floor", x), i64), simplify(1 - self.taps // 2))

    def _rounded(self, x: Expr) -> Expr:
        if self.nearest in ("floor", "ceil"):
            return apply(self.nearest, x)
        if self.nearest == "round_prefer_floor":
            return apply("ceil", x - 0.5)
        return apply("floor", x + 0.5)

    def kept(self, index: Expr) -> Expr:
        """An index limited to the axis."""
        return minimum(maximum(index, 0), self.size - 1)

    def weight(self, x: Expr, index: Expr) -> Expr:
        """The weight, not yet normalized, of an element for a coordinate, in f64."""
        distance = apply("abs", cast(index, f64) - x)
        if self.antialias:
            distance = distance * minimum(self.ratio, 1.0)
        found = self._kernel(distance)
        if self.exclude_outside:
            found = select((index >= 0) & (index < self.size), found, 0.0)
        return found

    @property
    def is_normalized(self) -> bool:
        """Whether the weights must be divided by their sum."""
        return self.mode != "nearest" and (self.antialias or self.exclude_outside)

    def _kernel(self, d: Expr) -> Expr:
        """The weight of an element at distance ``d``: a tent, or the cubic of Keys (1981) with
        parameter ``cubic``.
        """
        if self.mode == "nearest":
            return Const(1, f64)
        if self.mode == "linear":
            return maximum(1.0 - d, 0.0)
        a = self.cubic
        near = ((d * (a + 2)) - (a + 3)) * d * d + 1.0
        far = ((d * a - 5 * a) * d + 8 * a) * d - 4 * a
        return select(d <= 1.0, near, select(d < 2.0, far, 0.0))
