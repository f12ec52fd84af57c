"""The rules of simplification, by what they are about; a test tries each on random values.

Sums, products, quotients and comparisons of 64-bit integers have no rules here: their normal form
decides them.
"""

from treadle.expr.dtype import DType, boolean
from treadle.expr.rules import Condition, Rewrite, Rule, rule
from treadle.expr.scalar import Const, Expr, apply, eq, maximum, minimum, ne, select


def _zero(x: Expr) -> Const:
    return Const(0, x.dtype)


def _truth(value: bool, x: Expr) -> Const:
    return Const(value, boolean if x.dtype.lanes == 1 else boolean.vector(x.dtype.lanes))


# Arithmetic


@rule("integer")
def add_zero(x: Expr) -> Rewrite:
    return x + 0, x


@rule("integer")
def subtract_zero(x: Expr) -> Rewrite:
    return x - 0, x


@rule("integer")
def subtract_itself(x: Expr) -> Rewrite:
    return x - x, _zero(x)


@rule("number")
def multiply_by_one(x: Expr) -> Rewrite:
    return x * 1, x


@rule("integer")
def multiply_by_zero(x: Expr) -> Rewrite:
    return x * 0, _zero(x)


@rule("number")
def negate_twice(x: Expr) -> Rewrite:
    return apply("neg", -x), x


@rule("integer")
def subtract_from_zero(x: Expr) -> Rewrite:
    return 0 - x, -x


@rule("number")
def add_negated(x: Expr, y: Expr) -> Rewrite:
    return x + -y, x - y


@rule("number")
def subtract_negated(x: Expr, y: Expr) -> Rewrite:
    return x - (-y), x + y


@rule("number")
def multiply_negated(x: Expr, y: Expr) -> Rewrite:
    return -x * -y, x * y


@rule("integer")
def gather_added_constants(x: Expr, a: Const, b: Const) -> Rewrite:
    return (x + a) + b, x + (a + b)


@rule("integer")
def gather_factors(x: Expr, a: Const, b: Const) -> Rewrite:
    return (x * a) * b, x * (a * b)


@rule("integer")
def floordiv_by_one(x: Expr) -> Rewrite:
    return x // 1, x


@rule("integer")
def truncdiv_by_one(x: Expr) -> Rewrite:
    return apply("truncdiv", x, 1), x


@rule("integer")
def mod_by_one(x: Expr) -> Rewrite:
    return x % 1, _zero(x)


@rule("integer")
def truncmod_by_one(x: Expr) -> Rewrite:
    return apply("truncmod", x, 1), _zero(x)


@rule("number")
def absolute_twice(x: Expr) -> Rewrite:
    return apply("abs", apply("abs", x)), apply("abs", x)


@rule("signed")
def absolute_of_negated(x: Expr) -> Rewrite:
    return apply("abs", -x), apply("abs", x)


@rule("any")
def minimum_of_itself(x: Expr) -> Rewrite:
    return minimum(x, x), x


@rule("any")
def maximum_of_itself(x: Expr) -> Rewrite:
    return maximum(x, x), x


@rule("bits")
def minimum_absorbs(x: Expr, y: Expr) -> Rewrite:
    return minimum(x, maximum(x, y)), x


@rule("bits")
def maximum_absorbs(x: Expr, y: Expr) -> Rewrite:
    return maximum(x, minimum(x, y)), x


@rule("any")
def minimum_again(x: Expr, y: Expr) -> Rewrite:
    return minimum(minimum(x, y), y), minimum(x, y)


@rule("any")
def maximum_again(x: Expr, y: Expr) -> Rewrite:
    return maximum(maximum(x, y), y), maximum(x, y)


@rule("bits")
def gather_minima(x: Expr, a: Const, b: Const) -> Rewrite:
    return minimum(minimum(x, a), b), minimum(x, minimum(a, b))


@rule("bits")
def gather_maxima(x: Expr, a: Const, b: Const) -> Rewrite:
    return maximum(maximum(x, a), b), maximum(x, maximum(a, b))


# Floats, where only what keeps NaN, infinities and the sign of zero holds


@rule("float")
def add_negative_zero(x: Expr) -> Rewrite:
    return x + -0.0, x


@rule("float")
def subtract_positive_zero(x: Expr) -> Rewrite:
    return x - 0.0, x


@rule("float")
def divide_by_one(x: Expr) -> Rewrite:
    return x / 1.0, x


@rule("float")
def multiply_by_minus_one(x: Expr) -> Rewrite:
    return x * -1.0, -x


@rule("float")
def divide_by_minus_one(x: Expr) -> Rewrite:
    return x / -1.0, -x


@rule("float")
def divide_by_two(x: Expr) -> Rewrite:
    return x / 2.0, x * 0.5


@rule("float")
def divide_by_four(x: Expr) -> Rewrite:
    return x / 4.0, x * 0.25


@rule("float")
def divide_by_eight(x: Expr) -> Rewrite:
    return x / 8.0, x * 0.125


@rule("float")
def floor_of_floor(x: Expr) -> Rewrite:
    return apply("floor", apply("floor", x)), apply("floor", x)


@rule("float")
def ceil_of_ceil(x: Expr) -> Rewrite:
    return apply("ceil", apply("ceil", x)), apply("ceil", x)


@rule("float")
def trunc_of_trunc(x: Expr) -> Rewrite:
    return apply("trunc", apply("trunc", x)), apply("trunc", x)


@rule("float")
def round_of_round(x: Expr) -> Rewrite:
    return apply("round", apply("round", x)), apply("round", x)


# Comparisons


@rule("bits")
def equal_to_itself(x: Expr) -> Rewrite:
    return eq(x, x), _truth(True, x)


@rule("bits")
def differs_from_itself(x: Expr) -> Rewrite:
    return ne(x, x), _truth(False, x)


@rule("any")
def less_than_itself(x: Expr) -> Rewrite:
    return x < x, _truth(False, x)


@rule("any")
def greater_than_itself(x: Expr) -> Rewrite:
    return x > x, _truth(False, x)


@rule("bits")
def at_most_itself(x: Expr) -> Rewrite:
    return x <= x, _truth(True, x)


@rule("bits")
def at_least_itself(x: Expr) -> Rewrite:
    return x >= x, _truth(True, x)


@rule("bool")
def equals_true(x: Expr) -> Rewrite:
    return eq(x, True), x


@rule("bool")
def equals_false(x: Expr) -> Rewrite:
    return eq(x, False), ~x


@rule("bool")
def differs_from_true(x: Expr) -> Rewrite:
    return ne(x, True), ~x


@rule("bool")
def differs_from_false(x: Expr) -> Rewrite:
    return ne(x, False), x


# Logic, on truth values and bit patterns


@rule("bits")
def and_itself(x: Expr) -> Rewrite:
    return x & x, x


@rule("bits")
def or_itself(x: Expr) -> Rewrite:
    return x | x, x


@rule("bits")
def xor_itself(x: Expr) -> Rewrite:
    return x ^ x, _zero(x)


@rule("bits")
def and_nothing(x: Expr) -> Rewrite:
    return x & 0, _zero(x)


@rule("bits")
def or_nothing(x: Expr) -> Rewrite:
    return x | 0, x


@rule("bits")
def xor_nothing(x: Expr) -> Rewrite:
    return x ^ 0, x


@rule("bits")
def and_everything(x: Expr) -> Rewrite:
    return x & ~_zero(x), x


@rule("bits")
def or_everything(x: Expr) -> Rewrite:
    return x | ~_zero(x), ~_zero(x)


@rule("bits")
def xor_everything(x: Expr) -> Rewrite:
    return x ^ ~_zero(x), ~x


@rule("bits")
def invert_twice(x: Expr) -> Rewrite:
    return ~~x, x


@rule("bits")
def and_opposite(x: Expr) -> Rewrite:
    return x & ~x, _zero(x)


@rule("bits")
def or_opposite(x: Expr) -> Rewrite:
    return x | ~x, ~_zero(x)


@rule("bits")
def and_absorbs(x: Expr, y: Expr) -> Rewrite:
    return x & (x | y), x


@rule("bits")
def or_absorbs(x: Expr, y: Expr) -> Rewrite:
    return x | (x & y), x


@rule("bool")
def not_both(x: Expr, y: Expr) -> Rewrite:
    return ~(x & y), ~x | ~y


@rule("bool")
def not_either(x: Expr, y: Expr) -> Rewrite:
    return ~(x | y), ~x & ~y


@rule("integer")
def shift_left_by_nothing(x: Expr) -> Rewrite:
    return x << 0, x


@rule("integer")
def shift_right_by_nothing(x: Expr) -> Rewrite:
    return x >> 0, x


# Choice


@rule("any")
def select_of_equals(c: Condition, x: Expr) -> Rewrite:
    return select(c, x, x), x


@rule("any")
def select_if_true(x: Expr, y: Expr) -> Rewrite:
    return select(_truth(True, x), x, y), x


@rule("any")
def select_if_false(x: Expr, y: Expr) -> Rewrite:
    return select(_truth(False, x), x, y), y


@rule("any")
def select_unless(c: Condition, x: Expr, y: Expr) -> Rewrite:
    return select(~c, x, y), select(c, y, x)


@rule("any")
def select_then_again(c: Condition, x: Expr, y: Expr, z: Expr) -> Rewrite:
    return select(c, select(c, x, y), z), select(c, x, z)


@rule("any")
def select_else_again(c: Condition, x: Expr, y: Expr, z: Expr) -> Rewrite:
    return select(c, x, select(c, y, z)), select(c, x, z)


@rule("any")
def select_both(c: Condition, d: Condition, x: Expr, y: Expr) -> Rewrite:
    return select(c, select(d, x, y), y), select(c & d, x, y)


@rule("bool")
def select_truth(c: Condition) -> Rewrite:
    return select(c, _truth(True, c), _truth(False, c)), c


@rule("bool")
def select_opposite(c: Condition) -> Rewrite:
    return select(c, _truth(False, c), _truth(True, c)), ~c


@rule("bool")
def select_or_false(c: Condition, x: Expr) -> Rewrite:
    return select(c, x, _truth(False, c)), c & x


@rule("bool")
def select_true_or(c: Condition, x: Expr) -> Rewrite:
    return select(c, _truth(True, c), x), c | x


# Vectors


def _ramp(base: Expr, stride: Expr, t: DType) -> Expr:
    return apply("ramp", base, stride, dtype=t)


def _spread(x: Expr, t: DType) -> Expr:
    return apply("broadcast", x, dtype=t)


@rule("integer vector")
def add_ramp(b: Expr, s: Expr, x: Expr, t: DType) -> Rewrite:
    return _ramp(b, s, t) + _spread(x, t), _ramp(b + x, s, t)


@rule("integer vector")
def subtract_from_ramp(b: Expr, s: Expr, x: Expr, t: DType) -> Rewrite:
    return _ramp(b, s, t) - _spread(x, t), _ramp(b - x, s, t)


@rule("integer vector")
def add_ramps(b: Expr, s: Expr, c: Expr, d: Expr, t: DType) -> Rewrite:
    return _ramp(b, s, t) + _ramp(c, d, t), _ramp(b + c, s + d, t)


@rule("integer vector")
def subtract_ramps(b: Expr, s: Expr, c: Expr, d: Expr, t: DType) -> Rewrite:
    return _ramp(b, s, t) - _ramp(c, d, t), _ramp(b - c, s - d, t)


@rule("integer vector")
def multiply_ramp(b: Expr, s: Expr, x: Expr, t: DType) -> Rewrite:
    return _ramp(b, s, t) * _spread(x, t), _ramp(b * x, s * x, t)


@rule("integer vector")
def level_ramp(b: Expr, t: DType) -> Rewrite:
    return _ramp(b, Const(0, t.scalar), t), _spread(b, t)


@rule("number vector")
def add_spread(x: Expr, y: Expr, t: DType) -> Rewrite:
    return _spread(x, t) + _spread(y, t), _spread(x + y, t)


@rule("number vector")
def subtract_spread(x: Expr, y: Expr, t: DType) -> Rewrite:
    return _spread(x, t) - _spread(y, t), _spread(x - y, t)


@rule("number vector")
def multiply_spread(x: Expr, y: Expr, t: DType) -> Rewrite:
    return _spread(x, t) * _spread(y, t), _spread(x * y, t)


@rule("bits vector")
def and_spread(x: Expr, y: Expr, t: DType) -> Rewrite:
    return _spread(x, t) & _spread(y, t), _spread(x & y, t)


@rule("bits vector")
def or_spread(x: Expr, y: Expr, t: DType) -> Rewrite:
    return _spread(x, t) | _spread(y, t), _spread(x | y, t)


ARITHMETIC: tuple[Rule, ...] = (
    add_zero,
    subtract_zero,
    subtract_itself,
    multiply_by_one,
    multiply_by_zero,
    negate_twice,
    subtract_from_zero,
    add_negated,
    subtract_negated,
    multiply_negated,
    gather_added_constants,
    gather_factors,
    floordiv_by_one,
    truncdiv_by_one,
    mod_by_one,
    truncmod_by_one,
    absolute_twice,
    absolute_of_negated,
)
EXTREMES: tuple[Rule, ...] = (
    minimum_of_itself,
    maximum_of_itself,
    minimum_absorbs,
    maximum_absorbs,
    minimum_again,
    maximum_again,
    gather_minima,
    gather_maxima,
)
FLOATS: tuple[Rule, ...] = (
    add_negative_zero,
    subtract_positive_zero,
    divide_by_one,
    multiply_by_minus_one,
    divide_by_minus_one,
    divide_by_two,
    divide_by_four,
    divide_by_eight,
    floor_of_floor,
    ceil_of_ceil,
    trunc_of_trunc,
    round_of_round,
)
COMPARISONS: tuple[Rule, ...] = (
    equal_to_itself,
    differs_from_itself,
    less_than_itself,
    greater_than_itself,
    at_most_itself,
    at_least_itself,
    equals_true,
    equals_false,
    differs_from_true,
    differs_from_false,
)
LOGIC: tuple[Rule, ...] = (
    and_itself,
    or_itself,
    xor_itself,
    and_nothing,
    or_nothing,
    xor_nothing,
    and_everything,
    or_everything,
    xor_everything,
    invert_twice,
    and_opposite,
    or_opposite,
    and_absorbs,
    or_absorbs,
    not_both,
    not_either,
    shift_left_by_nothing,
    shift_right_by_nothing,
)
CHOICE: tuple[Rule, ...] = (
    select_of_equals,
    select_if_true,
    select_if_false,
    select_unless,
    select_then_again,
    select_else_again,
    select_both,
    select_truth,
    select_opposite,
    select_or_false,
    select_true_or,
)
VECTORS: tuple[Rule, ...] = (
    add_ramp,
    subtract_from_ramp,
    add_ramps,
    subtract_ramps,
    multiply_ramp,
    level_ramp,
    add_spread,
    subtract_spread,
    multiply_spread,
    and_spread,
    or_spread,
)
ALL_RULES: tuple[Rule, ...] = (
    *ARITHMETIC,
    *EXTREMES,
    *FLOATS,
    *COMPARISONS,
    *LOGIC,
    *CHOICE,
    *VECTORS,
)
