import numpy as np
import pytest

from treadle.base.errors import InternalError
from treadle.expr.dtype import bf16, boolean, f32, f64, i8, i32, i64, u8
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import Apply, Const, Expr, Var, apply, cast, select

x, y = Var("x"), Var("y")
a = Var("a", f32)


def test_python_numbers_and_arrays_broadcast():
    np.testing.assert_array_equal(evaluate(x * 2 + y, {x: np.arange(3), y: 10}), [10, 12, 14])


def test_values_have_the_type_of_the_expression():
    assert evaluate(a / 3.0, {a: 1}).dtype == np.float32
    assert evaluate(a < 3.0, {a: 1}).dtype == np.bool_
    assert evaluate(cast(x, i8), {x: 300}) == 44
    assert evaluate(apply("exp", Var("b", bf16)), {Var("b", bf16): 1.0}).dtype == bf16.numpy


def test_division_rounds_as_its_name_says():
    env = {x: np.array([-7, 7, -7, 7]), y: np.array([2, 2, -2, -2])}
    np.testing.assert_array_equal(evaluate(x // y, env), [-4, 3, 3, -4])
    np.testing.assert_array_equal(evaluate(x % y, env), [1, 1, -1, -1])
    np.testing.assert_array_equal(evaluate(apply("truncdiv", x, y), env), [-3, 3, 3, -3])
    np.testing.assert_array_equal(evaluate(apply("truncmod", x, y), env), [-1, 1, -1, 1])


def test_casts_truncate_and_wrap_as_c_does():
    assert evaluate(cast(a, i32), {a: -2.7}) == -2
    assert evaluate(cast(a, boolean), {a: 0.5}) == np.True_
    assert evaluate(cast(Var("q", u8), i8), {Var("q", u8): 200}) == -56
    assert evaluate(cast(Var("d", f64), f32), {Var("d", f64): 1e300}) == np.inf


def test_bitcast_reads_the_same_bits():
    assert evaluate(apply("bitcast", a, dtype=i32), {a: 1.0}) == 0x3F800000


def test_lanes_are_the_last_axis():
    t = i64.vector(4)
    ramp = apply("ramp", x, 3, dtype=t)
    env = {x: np.array([0, 10])}
    np.testing.assert_array_equal(evaluate(ramp, env), [[0, 3, 6, 9], [10, 13, 16, 19]])
    np.testing.assert_array_equal(evaluate(apply("reduce_add", ramp, dtype=i64), env), [18, 58])
    spread = apply("broadcast", x, dtype=t)
    np.testing.assert_array_equal(evaluate(ramp - spread, env), [[0, 3, 6, 9]] * 2)
    np.testing.assert_array_equal(evaluate(ramp + Const(1, t), {x: 0}), [1, 4, 7, 10])


def test_select_takes_an_operand_per_element():
    env = {x: np.array([1, 5]), y: np.array([3, 3])}
    np.testing.assert_array_equal(evaluate(select(x < y, x, y), env), [1, 3])


def test_a_variable_without_a_value_is_an_error():
    with pytest.raises(InternalError, match="x has no value"):
        evaluate(x + 1, {})


class Leaf(Expr):
    __slots__ = ("index",)

    def __init__(self, index: Expr) -> None:
        self.index, self.dtype = index, f32

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.index,)

    def to_text(self) -> str:
        return f"memory[{self.index}]"


def test_memory_is_read_by_whoever_evaluates():
    memory = np.array([1, 2, 4], np.float32)
    e = Apply("neg", (Leaf(x + 1),), f32)
    assert evaluate(e, {x: 1}, lambda _, indices: memory[indices[0]]) == -4
    with pytest.raises(InternalError, match="without memory"):
        evaluate(Leaf(Const(0, i64)), {})
