"""A pattern stands for what its words say, and for nothing else."""

import numpy as np
import pytest

from treadle.expr.bounds import Facts
from treadle.expr.dtype import f32, f64
from treadle.expr.scalar import Var
from treadle.ir.analysis import facts_of
from treadle.ir.types import TensorType
from treadle.ir.types import tensor as tensor_type
from treadle.libraries import dims, is_const, is_op, leading, tensor, wildcard
from treadle.libraries.match import Matcher, fit_shape
from treadle.ops import Add, Matmul, Mul, Relu, Softmax, Sub
from treadle.testing import ir


def matches(
    pattern, body, parameters="x: Tensor[(n, 4), f32], y: Tensor[(n, 4), f32]", **constants
):
    """What a pattern stands for in the last binding of a program; ``None`` if nothing."""
    lines = "\n".join(f"    {line.strip()}" for line in body.strip().splitlines())
    known = "".join(f"{name} = constant(Tensor[(4,), f32])\n" for name in constants)
    module = ir(f"{known}@graph.function\ndef main({parameters}):\n{lines}\n", constants)
    function = module.graph("main")
    matcher = Matcher(function, module.constants, facts_of(function))
    return matcher.match(pattern, function.body[-1])


def test_an_operation_is_found_with_its_operands():
    a, b = wildcard(), wildcard()
    found = matches(is_op(Sub, a, b), "z = sub(x, y)\nreturn z")
    assert [found.atoms[p].name for p in (a, b)] == ["x", "y"]


def test_operands_of_a_commutative_operation_stand_in_any_order():
    a, b = wildcard(), wildcard()
    pattern = is_op(Add, is_op(Relu, a), b)
    for body in ("r = relu(x)\nz = add(r, y)\nreturn z", "r = relu(x)\nz = add(y, r)\nreturn z"):
        found = matches(pattern, body)
        assert [found.atoms[p].name for p in (a, b)] == ["x", "y"]


def test_operands_of_other_operations_do_not():
    pattern = is_op(Sub, is_op(Relu, wildcard()), wildcard())
    assert matches(pattern, "r = relu(x)\nz = sub(y, r)\nreturn z") is None


def test_a_pattern_that_stands_twice_stands_for_one_value():
    a = wildcard()
    square = is_op(Mul, a, a)
    assert matches(square, "z = mul(x, x)\nreturn z") is not None
    assert matches(square, "z = mul(x, y)\nreturn z") is None


def test_all_ways_are_tried():
    a, b, c = wildcard(), wildcard().where(lambda m: m.atoms[a].name == "y"), wildcard()
    pattern = is_op(Add, a, is_op(Add, b, c))
    body = "s = add(x, x)\nz = add(s, y)\nreturn z"
    assert matches(pattern, body) is not None


def test_what_others_need_stays():
    pattern = is_op(Relu, is_op(Sub, wildcard(), wildcard()))
    assert matches(pattern, "s = sub(x, y)\nz = relu(s)\nreturn z") is not None
    assert matches(pattern, "s = sub(x, y)\nz = relu(s)\nreturn z, s") is None
    assert matches(pattern, "s = sub(x, y)\nt = neg(s)\nz = relu(s)\nreturn z, t") is None


def test_a_value_may_be_needed_twice_inside():
    a = is_op(Relu, wildcard())
    assert matches(is_op(Mul, a, a), "s = relu(x)\nz = mul(s, s)\nreturn z") is not None


def test_alternatives_stand_for_either():
    pattern = is_op(Relu, is_op(Sub, wildcard(), wildcard()) | is_op(Add, wildcard(), wildcard()))
    for op in ("sub", "add"):
        assert matches(pattern, f"s = {op}(x, y)\nz = relu(s)\nreturn z") is not None
    assert matches(pattern, "s = mul(x, y)\nz = relu(s)\nreturn z") is None


def test_fields_are_values_or_tests():
    x = wildcard()
    body = "z = softmax(x, axis=1)\nreturn z"
    assert matches(is_op(Softmax, x, axis=1), body) is not None
    assert matches(is_op(Softmax, x, axis=0), body) is None
    assert matches(is_op(Softmax, x).has_fields(axis=lambda a: a > 0), body) is not None


@pytest.mark.parametrize(("value", "found"), [(None, True), (2.0, True), (3.0, False)])
def test_constants_are_known_numbers(value, found):
    pattern = is_op(Mul, wildcard(), is_const(value))
    assert (matches(pattern, "z = mul(x, f32(2.0))\nreturn z") is not None) == found
    full = np.full((4,), 2, np.float32)
    assert (matches(pattern, "z = mul(x, constants.c)\nreturn z", c=full) is not None) == found
    assert matches(pattern, "z = mul(x, y)\nreturn z") is None


def test_variables_of_shapes_have_to_agree():
    m, k, n = dims("m k n")
    pattern = is_op(Matmul, tensor(f32, m, k), tensor(f32, k, n))
    program = "z = matmul(x, y)\nreturn z"
    found = matches(pattern, program, "x: Tensor[(b, 4), f32], y: Tensor[(4, 6), f32]")
    assert [str(found.size(d)) for d in (m, k, n)] == ["b", "4", "6"]
    square = is_op(Matmul, tensor(f32, m, m), tensor(f32, m, m))
    assert matches(square, program, "x: Tensor[(b, b), f32], y: Tensor[(b, b), f32]") is not None
    assert matches(square, program, "x: Tensor[(b, c), f32], y: Tensor[(c, b), f32]") is None


def test_element_types_have_to_be_those_said():
    pattern = is_op(Relu, wildcard().has_dtype(f64))
    assert matches(pattern, "z = relu(x)\nreturn z") is None
    assert matches(pattern, "z = relu(x)\nreturn z", "x: Tensor[(n,), f64]") is not None


def test_the_leading_dimensions_count_together():
    m, k = dims("m k")
    x = tensor(f32, leading(m), k)
    program = "z = relu(x)\nreturn z"
    for shape, size in (("(a, b, 4)", "a * b"), ("(a, 4)", "a"), ("(4,)", "1")):
        found = matches(is_op(Relu, x), program, f"x: Tensor[{shape}, f32]")
        assert str(found.size(m)) == size
    assert matches(is_op(Relu, x), program, "x: Tensor[(), f32]") is None


@pytest.mark.parametrize(
    ("shape", "actual", "fits"),
    [
        ((Var("a"), 4), (3, 4), True),
        ((Var("a"), 5), (3, 4), False),
        ((..., 4), (Var("n"), 4), True),
        ((Var("a"), Var("a") * 2), (Var("n"), Var("n") * 2), True),
        ((Var("a"), Var("a") * 2), (Var("n"), Var("n") + 2), False),
        ((Var("a") * 2,), (4,), False),
        ((Var("a"),), (3, 4), False),
    ],
)
def test_a_shape_fits_where_that_is_shown(shape, actual, fits):
    declared = wildcard().has_shape(*shape).shape
    found = fit_shape(declared, tensor_type(actual, f32), {}, Facts.of((), {}))
    assert (found is not None) == fits


def test_nothing_fits_a_tensor_of_unknown_shape():
    assert fit_shape((Var("a"),), TensorType(None, 1, f32), {}, Facts.of((), {})) is None
