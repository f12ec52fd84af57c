"""Intervals of integers, and how each scalar function maps them."""

from collections.abc import Callable
from dataclasses import dataclass

from treadle.expr.dtype import DType


@dataclass(frozen=True, slots=True)
class Interval:
    """The integers from ``low`` to ``high``, both included; ``None`` is no bound."""

    low: int | None = None
    high: int | None = None

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(_sum(self.low, other.low), _sum(self.high, other.high))

    def __neg__(self) -> "Interval":
        return Interval(
            None if self.high is None else -self.high, None if self.low is None else -self.low
        )

    def __sub__(self, other: "Interval") -> "Interval":
        return self + -other

    def __mul__(self, other: "Interval") -> "Interval":
        if (self.low, self.high) == (0, 0) or (other.low, other.high) == (0, 0):
            return Interval(0, 0)
        if None not in (self.low, self.high, other.low, other.high):
            corners = [_times(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
            return Interval(min(corners), max(corners))
        return _half_open_product(self, other)

    def scaled(self, factor: int) -> "Interval":
        """Every element times ``factor``."""
        if factor == 0:
            return Interval(0, 0)
        low = None if self.low is None else self.low * factor
        high = None if self.high is None else self.high * factor
        return Interval(low, high) if factor > 0 else Interval(high, low)

    def join(self, other: "Interval") -> "Interval":
        """The smallest interval around both."""
        low = None if self.low is None or other.low is None else min(self.low, other.low)
        high = None if self.high is None or other.high is None else max(self.high, other.high)
        return Interval(low, high)

    def meet(self, other: "Interval") -> "Interval":
        """What is in both, for two that are known to hold at once."""
        low = other.low if self.low is None else self.low
        high = other.high if self.high is None else self.high
        if low is not None and other.low is not None:
            low = max(low, other.low)
        if high is not None and other.high is not None:
            high = min(high, other.high)
        return Interval(low, high)

    def inside(self, other: "Interval") -> bool:
        """Whether every element is in ``other``."""
        low = other.low is None or (self.low is not None and self.low >= other.low)
        return low and (other.high is None or (self.high is not None and self.high <= other.high))

    def __contains__(self, value: int) -> bool:
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)

    @property
    def empty(self) -> bool:
        """Whether it has no element."""
        return self.low is not None and self.high is not None and self.low > self.high

    @property
    def nonnegative(self) -> bool:
        """Whether no element is below zero."""
        return self.low is not None and self.low >= 0

    @property
    def positive(self) -> bool:
        """Whether every element is above zero."""
        return self.low is not None and self.low > 0


EVERYTHING = Interval()


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _times(a: int | None, b: int | None) -> int:
    return (a or 0) * (b or 0)


def _half_open_product(a: Interval, b: Interval) -> Interval:
    """A product in which a bound is missing: only signs and single bounds say something."""
    if a.empty or b.empty:  # facts that contradict each other, as in a case that cannot be
        return EVERYTHING
    if a.high is not None and a.high <= 0:
        return -_half_open_product(-a, b) if (-a).nonnegative else EVERYTHING
    if b.high is not None and b.high <= 0:
        return -_half_open_product(a, -b) if (-b).nonnegative else EVERYTHING
    if not a.nonnegative:
        a, b = b, a
    if not a.nonnegative or a.low is None:
        return EVERYTHING
    # Here a >= 0; the ends of b are multiplied by the end of a that makes them extreme.
    low = _bound(b.low, a.high if (b.low or 0) < 0 else a.low)
    high = _bound(b.high, a.high if (b.high or 0) > 0 else a.low)
    return Interval(low, high)


def _bound(end: int | None, factor: int | None) -> int | None:
    if end == 0:
        return 0
    return None if end is None or factor is None else end * factor


def whole(dtype: DType) -> Interval:
    """Every value of an integer type; 64-bit integers are mathematical and know no end."""
    if dtype.is_bool:
        return Interval(0, 1)
    if dtype.kind == "uint":
        return Interval(0, (1 << dtype.bits) - 1)
    if dtype.kind != "int" or dtype.bits == 64:
        return EVERYTHING
    return Interval(-(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1)


def floordiv(a: Interval, d: Interval) -> Interval:
    """Quotients rounded down, for divisors above zero."""
    if not d.positive or d.low is None:
        return EVERYTHING
    # A bound towards minus infinity is worst with the smallest divisor, one above zero with the
    # greatest.
    low = high = None
    if a.low is not None:
        far = 0 if d.high is None else a.low // d.high
        low = far if a.low >= 0 else a.low // d.low
    if a.high is not None:
        far = -1 if d.high is None else a.high // d.high
        high = a.high // d.low if a.high >= 0 else far
    return Interval(low, high)


def mod(a: Interval, d: Interval) -> Interval:
    """Remainders that take the divisor's sign, for divisors above zero."""
    if not d.positive or d.low is None:
        return EVERYTHING
    if a.nonnegative and a.high is not None and a.high < d.low:
        return a
    high = None if d.high is None else d.high - 1
    if a.nonnegative and a.high is not None:
        high = a.high if high is None else min(high, a.high)
    return Interval(0, high)


def minimum(a: Interval, b: Interval) -> Interval:
    """The smaller of two values."""
    return -maximum(-a, -b)


def maximum(a: Interval, b: Interval) -> Interval:
    """The greater of two values."""
    lows = [x for x in (a.low, b.low) if x is not None]
    high = None if a.high is None or b.high is None else max(a.high, b.high)
    return Interval(max(lows) if lows else None, high)


def absolute(a: Interval) -> Interval:
    """Magnitudes."""
    return a if a.nonnegative else maximum(maximum(a, -a), Interval(0, 0))


def sign(a: Interval) -> Interval:
    """-1, 0 and 1."""
    low = 1 if a.positive else 0 if a.nonnegative else -1
    high = -1 if (-a).positive else 0 if (-a).nonnegative else 1
    return Interval(low, high)


def bitwise_and(a: Interval, b: Interval) -> Interval:
    """Bits in common: at most the operand that is not negative."""
    highs = [x.high for x in (a, b) if x.nonnegative and x.high is not None]
    if not a.nonnegative and not b.nonnegative:
        return EVERYTHING
    return Interval(0, min(highs) if highs else None)


def shift_right(a: Interval, b: Interval) -> Interval:
    """An arithmetic shift is a quotient rounded down."""
    if not b.nonnegative or b.low is None or b.high is None or b.high > 63:
        return EVERYTHING
    return floordiv(a, Interval(1 << b.low, 1 << b.high))


INTERVALS: dict[str, Callable[..., Interval]] = {
    "add": Interval.__add__,
    "sub": Interval.__sub__,
    "mul": Interval.__mul__,
    "neg": Interval.__neg__,
    "floordiv": floordiv,
    "mod": mod,
    "min": minimum,
    "max": maximum,
    "abs": absolute,
    "sign": sign,
    "and": bitwise_and,
    "shr": shift_right,
}
