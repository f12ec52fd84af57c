"""Every mistake in a text is an error with a code, a place, the line and a cure."""

import textwrap

import pytest

from treadle.base.errors import ParseError, TypeMismatch
from treadle.ir.parser import parse, parse_function
from treadle.ops import OPS_BY_NAME

TENSOR = """
@tensor.function
def f(X: Buffer[(n, 4), f32], k: i64, Y: Output[(n, 4), f32]):
    for i in range(n):
        for j in range(4):
{}
"""
GRAPH = """
@graph.function
def main(x: Tensor[(n, 4), f32]) -> (Tensor[(n, 4), f32],):
{}
"""


def tensor_text(*lines):
    return TENSOR.format("\n".join(" " * 12 + line for line in lines))


def graph_text(*lines):
    return GRAPH.format("\n".join(" " * 4 + line for line in lines))


TENSOR_MISTAKES = [
    ("E0001", "Y[i, j] = = 1"),
    ("E0002", "while True: pass"),
    ("E0002", "X[i, j]"),
    ("E0002", "assume(n > 0)"),
    ("E0002", "where(n > 0)"),
    ("E0002", "v = spatial(4, j)"),
    ("E0003", "for q in X: pass"),
    ("E0003", "for q in range(1, 2): pass"),
    ("E0003", "with blocks('Y'): pass"),
    ("E0003", "with block(Y): pass"),
    ("E0003", "y = X[i, j]"),
    ("E0003", "T = alloc((4,))"),
    ("E0003", "T = alloc(4, f32)"),
    ("E0003", "Y[i, j] = X"),
    ("E0003", "Y[i, j] = [1]"),
    ("E0003", "Y[i, j] = X[i, j] ** 2"),
    ("E0003", "Y[i, j] = not X[i, j]"),
    ("E0003", "Y[i, j] = select(0 < i < 4, X[i, j], X[i, 0])"),
    ("E0003", "Y[i, j] = select(i < 4 and j < 4, X[i, j], X[i, 0])"),
    ("E0003", "Y[i, j] = min(X[i, j])"),
    ("E0003", "Y[i, j] = f32(X[i, j])"),
    ("E0003", "Y[i, j] = f32('one')"),
    ("E0003", "Y[i, j] = cast(i)"),
    ("E0003", "Y[i, j] = min(X[i, j], X[i, j], dtype=f32)"),
    ("E0003", "store(Y[i, j])"),
    ("E0003", "store(Y, X[i, j])"),
    ("E0003", "Y[i, j] = load(X[i, j], 1)"),
    ("E0004", "Y[i, j] = Z[i, j]"),
    ("E0004", "Z[i, j] = X[i, j]"),
    ("E0004", "Y[i, jj] = X[i, j]"),
    ("E0004", "Y[i, j] = sqroot(X[i, j])"),
    ("E0004", "Y[i, j] = cast(i, float32)"),
    ("E0004", "store(Y[i, j], X[i, j], masks=i < 3)"),
    ("E0004", "T = alloc((4,), f32, scope='shared')"),
    ("E0005", "Y[i, j] = X[i, j] + i"),
    ("E0005", "Y[i, j] = X[i]"),
    ("E0005", "Y[i, j + 0.5] = X[i, j]"),
    ("E0005", "Y[i, j] = cast(i8(0.5), f32)"),
    ("E0005", "Y[i, j] = select(i < 3, X[i, j], i)"),
    ("E0006", "for i in range(4): pass"),
    ("E0006", "X = alloc((4,), f32)"),
]


@pytest.mark.parametrize(("code", "line"), TENSOR_MISTAKES)
def test_a_mistake_in_a_loop_program_is_shown_at_its_place(code, line):
    with pytest.raises(ParseError) as caught:
        parse(tensor_text(line), {}, source="model.py")
    error = caught.value
    assert error.code == code
    assert error.place is not None
    assert error.place.startswith("model.py:6:")
    assert error.excerpt[0].strip() == line
    assert set(error.excerpt[1].strip()) == {"^"}


GRAPH_MISTAKES = [
    ("E0002", "for i in range(3): pass"),
    ("E0003", "return"),
    ("E0003", "y = x"),
    ("E0003", "y = relu(relu(x))"),
    ("E0003", "y = relu(3)"),
    ("E0003", "y, z = relu(x)"),
    ("E0003", "y = call(x(), x)"),
    ("E0003", "y = cast(x)"),
    ("E0004", "y = relo(x)"),
    ("E0004", "y = relu(z)"),
    ("E0004", "y = relu(constants.w)"),
    ("E0004", "y = sum(x, axis=1)"),
    ("E0006", "x = relu(x)"),
]


@pytest.mark.parametrize(("code", "line"), GRAPH_MISTAKES)
def test_a_mistake_in_a_graph_is_shown_at_its_place(code, line):
    with pytest.raises(ParseError) as caught:
        parse(graph_text(line, "return x"), OPS_BY_NAME)
    assert caught.value.code == code
    assert caught.value.place is not None
    assert caught.value.place.startswith("<text>:4:")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("E0002", graph_text("y = relu(x)")),
        ("E0002", graph_text("return x", "y = relu(x)")),
        ("E0007", graph_text("y = sum(x, axes=(0,))", "return y")),
        ("E0007", graph_text("return x, x")),
        ("E0002", "x = 3"),
        ("E0002", "import os"),
        ("E0002", "def f(): pass"),
        ("E0002", "@jit\ndef f(): pass"),
        ("E0003", "@tensor.function\ndef f(*x): pass"),
        ("E0003", "@tensor.function\ndef f(x=3): pass"),
        ("E0003", "@tensor.function\ndef f(x): pass"),
        ("E0003", "@tensor.function\ndef f(X: Output[(n,), f32], Y: Buffer[(n,), f32]): pass"),
        ("E0004", "@tensor.function\ndef f(X: Buffer[(n,), float]): pass"),
        ("E0003", "@graph.function\ndef f(x: f32):\n    return x"),
        ("E0003", "@graph.function\ndef f(x: Tensor[n, f32]):\n    return x"),
        ("E0006", "@tensor.function\ndef f(): pass\n@tensor.function\ndef f(): pass"),
        ("E0008", "w = constant(Tensor[(2,), f32])"),
        ("E0005", "w = constant(Tensor[(2,), f32], [1.0])"),
        ("E0004", "w = constant(Tensor[(n,), f32], [1.0])"),
        ("E0003", "w = constant(Tensor[(1,), f32], [x])"),
        ("E0006", "w = constant(Tensor[(1,), f32], [1])\nw = constant(Tensor[(1,), f32], [1])"),
    ],
)
def test_a_mistake_of_a_function_or_constant_has_its_code(code, text):
    with pytest.raises(ParseError) as caught:
        parse(text, OPS_BY_NAME)
    assert caught.value.code == code


def test_an_operation_that_refuses_its_operands_is_shown_at_its_line():
    text = graph_text("y = sum(x, axes=(7,))", "return y")
    with pytest.raises(TypeMismatch) as caught:
        parse(text, OPS_BY_NAME)
    assert caught.value.place == "<text>:4:9"
    assert caught.value.excerpt[0].strip() == "y = sum(x, axes=(7,))"


def test_a_wrong_number_of_operands_is_shown_at_its_line():
    with pytest.raises(TypeMismatch) as caught:
        parse(graph_text("y = relu(x, x)", "return y"), OPS_BY_NAME)
    assert caught.value.place == "<text>:4:9"


def test_a_near_name_is_suggested():
    with pytest.raises(ParseError) as caught:
        parse(graph_text("y = relo(x)", "return y"), OPS_BY_NAME)
    assert caught.value.help == "did you mean 'relu'?"


def test_nothing_is_executed():
    text = textwrap.dedent("""
        @graph.function
        def main(x: Tensor[(__import__("os").system("true"),), f32]):
            return x
    """)
    with pytest.raises(ParseError):
        parse(text, OPS_BY_NAME)


def test_parse_function_wants_one_function():
    with pytest.raises(ParseError) as caught:
        parse_function("w = constant(Tensor[(1,), f32], [1.0])")
    assert caught.value.code == "E0002"
