import gc
import pickle

import pytest

from treadle.base.errors import InternalError
from treadle.expr.dtype import (
    DTYPES,
    DType,
    boolean,
    f16,
    f32,
    from_numpy,
    i8,
    i32,
    i64,
    parse_dtype,
    u8,
)
from treadle.expr.scalar import (
    _APPLICATIONS,
    Const,
    Var,
    apply,
    cast,
    const,
    eq,
    maximum,
    select,
    substitute,
    to_text,
    transform,
    variables,
    walk,
)

x, y = Var("x"), Var("y")


def test_equal_expressions_are_one_object():
    assert x + y * 2 is x + y * 2
    assert Var("x") is x
    assert Const(3, i64) is Const(3, i64)


def test_constants_of_different_types_or_signs_differ():
    assert Const(1, i64) is not Const(1, i32)
    assert Const(1, i64) is not Const(True, boolean)
    assert Const(0.0, f32) is not Const(-0.0, f32)
    assert Const(float("nan"), f32) is Const(float("nan"), f32)
    assert str(Const(1, i64)) == "1"
    assert str(Const(1.0, f32)) == "f32(1.0)"


def test_numbers_take_the_type_of_the_expression_beside_them():
    a = Var("a", f32)
    assert (a + 1) is a + Const(1.0, f32)
    assert (a + True) is a + Const(1.0, f32)
    assert (x + 0) is x + Const(0, i64)
    assert (a + -0.0) is not (a + 0.0)


def test_applications_of_constants_fold():
    assert const(7) // 2 is const(3)
    assert const(-7) % 4 is const(1)
    assert apply("truncdiv", -7, 2) is const(-3)
    assert eq(const(3), 3) is Const(True, boolean)
    assert select(Const(True, boolean), const(1), const(2)) is const(1)
    assert cast(Const(300, i64), u8) is Const(44, u8)
    assert Const(200, u8) + 100 is Const(44, u8)
    assert Const(127, i8) + 1 is Const(-128, i8)
    assert cast(Const(65520.0, f32), f16) is Const(float("inf"), f16)
    assert Const(3, i64.vector(4)) * 2 is Const(6, i64.vector(4))


def test_division_by_the_constant_zero_is_left_alone():
    assert str(const(3) // 0) == "3 // 0"


def test_operands_of_different_types_are_refused():
    with pytest.raises(InternalError, match="differ in type"):
        x + Var("a", f32)
    with pytest.raises(InternalError, match="takes 2 operands"):
        apply("add", x)
    with pytest.raises(InternalError, match="needs the type"):
        apply("ramp", x, y)


def test_a_symbolic_expression_has_no_truth():
    with pytest.raises(InternalError, match="the truth of a symbolic expression"):
        bool(x < y)


def test_expressions_survive_pickling():
    e = select(
        x < y, maximum(x, 3), (apply("bitcast", Var("a", f32), dtype=i32) * 0 // 1 == 0 and y) or y
    )
    assert pickle.loads(pickle.dumps(e)) is e
    assert pickle.loads(pickle.dumps(f32.vector(4))) is f32.vector(4)


def test_what_nobody_holds_is_forgotten():
    gc.collect()
    before = len(_APPLICATIONS.entries)
    total = x
    for _ in range(3000):
        total = total + y
    assert len(_APPLICATIONS.entries) > before + 2900
    del total
    gc.collect()
    assert len(_APPLICATIONS.entries) <= before


def test_substitution_exchanges_all_variables_at_once():
    assert substitute(x - y * x, {x: y, y: x}) is y - x * y


def test_transform_rebuilds_only_what_changed():
    e = (x + 1) * (y + 2)
    assert transform(e, lambda _: None) is e
    assert transform(e, lambda v: const(5) if v is y else None) is (x + 1) * 7


def test_walk_visits_operands_first_and_each_node_once():
    e = (x + y) * (x + y)
    seen = list(walk(e))
    assert seen == [x, y, x + y, e]
    assert variables(e) == (x, y)


def test_text_has_the_parentheses_that_python_needs():
    assert to_text((x + y) * 2) == "(x + y) * 2"
    assert to_text(x - (y - x)) == "x - (y - x)"
    assert to_text((x < y) & (y < x)) == "(x < y) & (y < x)"
    assert to_text(-(x + y)) == "-(x + y)"
    assert to_text(x * -3) == "x * -3"


def test_types_are_one_object_each():
    for t in DTYPES:
        assert DType(t.kind, t.bits) is t
        assert parse_dtype(str(t)) is t
        assert from_numpy(t.numpy) is t
        assert t.vector(4).scalar is t
        assert parse_dtype(f"{t}x8") is t.vector(8)
    assert parse_dtype("f31") is None
    assert parse_dtype("f32xy") is None
