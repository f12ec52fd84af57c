"""Branches and loops of ONNX whose results and carried values are numbers, constants, parameters
and values from around them: compiled, against ONNX's own reference.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import treadle

F, B, INT = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
X = np.array([1.0, -2.0, 3.0], np.float32)
STEP = [("it", INT, []), ("going", B, [])]
YES = np.array(True)


def number(name, value):
    array = np.asarray(value)
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def graph_of(name, nodes, inputs, outputs):
    declared = [[helper.make_tensor_value_info(*v) for v in values] for values in (inputs, outputs)]
    return helper.make_graph(nodes, name, *declared)


def branch(condition, then, orelse, result, kind, dims):
    """An If of one result; the last node of each branch computes it."""
    graphs = [
        graph_of(name, nodes, [], [(nodes[-1].output[0], kind, dims)])
        for name, nodes in (("then", then), ("else", orelse))
    ]
    return node("If", condition, result, then_branch=graphs[0], else_branch=graphs[1])


def loop(nodes, carried, following, inputs, outputs):
    """A Loop of ``n`` steps; ``carried`` and ``following`` declare its state before and after."""
    body = graph_of("body", nodes, [*STEP, *carried], [("again", B, []), *following])
    return node("Loop", f"n yes {inputs}", outputs, body=body)


def check(nodes, inputs, outputs, *arrays):
    graph = graph_of("g", [number("yes", YES), *nodes], inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    names = [name for name, *_ in inputs]
    expected = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))
    found = treadle.compile(model, threads=1)(*arrays)
    for a, b in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        assert a.dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


truths = pytest.mark.parametrize("truth", [True, False])
counts = pytest.mark.parametrize("count", [0, 1, 5, 50])


@truths
@pytest.mark.parametrize(
    "orelse",
    [
        [number("d", np.float32(3))],
        [node("ReduceSum", "x", "d", keepdims=0)],
        [node("Identity", "s", "d")],
    ],
    ids=["number", "computed", "from around"],
)
def test_a_branch_gives_a_number(truth, orelse):
    nodes = [branch("c", [number("a", np.float32(2))], orelse, "y", F, [])]
    inputs = [("c", B, []), ("x", F, [3]), ("s", F, [])]
    check(nodes, inputs, [("y", F, [])], np.array(truth), X, np.float32(9))


@truths
def test_a_branch_gives_a_constant_or_an_input(truth):
    constant = number("a", np.array([7, 8, 9], np.float32))
    nodes = [branch("c", [constant], [node("Identity", "x", "d")], "y", F, [3])]
    check(nodes, [("c", B, []), ("x", F, [3])], [("y", F, [3])], np.array(truth), X)


@truths
def test_a_branch_gives_a_dimension(truth):
    size = [node("Shape", "x", "shape"), node("Squeeze", "shape", "d")]
    nodes = [branch("c", [number("a", np.int64(2))], size, "y", INT, [])]
    check(nodes, [("c", B, []), ("x", F, ["m"])], [("y", INT, [])], np.array(truth), X)


@truths
@pytest.mark.parametrize("inner", [True, False])
def test_branches_nest(truth, inner):
    within = branch("e", [number("p", np.float32(5))], [node("Mul", "s two", "q")], "z", F, [])
    nodes = [
        number("two", np.float32(2)),
        branch("c", [within], [number("d", np.float32(3))], "y", F, []),
    ]
    inputs = [("c", B, []), ("e", B, []), ("s", F, [])]
    arrays = np.array(truth), np.array(inner), np.float32(4)
    check(nodes, inputs, [("y", F, [])], *arrays)


@counts
def test_a_loop_counts_from_a_number(count):
    nodes = [
        number("zero", np.int64(0)),
        number("one", np.int64(1)),
        loop(
            [node("Identity", "going", "again"), node("Add", "k one", "next")],
            [("k", INT, [])],
            [("next", INT, [])],
            "zero",
            "y",
        ),
    ]
    check(nodes, [("n", INT, [])], [("y", INT, [])], np.int64(count))


@counts
def test_a_loop_carries_numbers_constants_and_values_from_around(count):
    nodes = [
        number("start", np.float32(1.5)),
        number("table", np.array([4, 5, 6], np.float32)),
        loop(
            [
                number("again", YES),
                number("seven", np.float32(7)),
                node("Identity", "s", "same"),
                node("Identity", "table", "fixed"),
                node("Add", "v x", "sum"),
            ],
            [("a", F, []), ("b", F, []), ("t", F, [3]), ("v", F, [3])],
            [("seven", F, []), ("same", F, []), ("fixed", F, [3]), ("sum", F, [3])],
            "start start x table",
            "p q r w",
        ),
    ]
    outputs = [("p", F, []), ("q", F, []), ("r", F, [3]), ("w", F, [3])]
    inputs = [("n", INT, []), ("x", F, [3]), ("s", F, [])]
    check(nodes, inputs, outputs, np.int64(count), X, np.float32(4))


@counts
def test_a_loop_exchanges_what_it_carries(count):
    nodes = [
        number("nine", np.int64(9)),
        loop(
            [
                number("again", YES),
                node("Identity", "b", "a_next"),
                node("Identity", "a", "b_next"),
                node("Identity", "it", "step"),
            ],
            [("a", F, [3]), ("b", F, [3]), ("k", INT, [])],
            [("a_next", F, [3]), ("b_next", F, [3]), ("step", INT, [])],
            "x z nine",
            "p q last",
        ),
    ]
    outputs = [("p", F, [3]), ("q", F, [3]), ("last", INT, [])]
    inputs = [("n", INT, []), ("x", F, [3]), ("z", F, [3])]
    check(nodes, inputs, outputs, np.int64(count), X, X * 2)


@counts
def test_a_loop_stops_when_its_body_says_so(count):
    nodes = [
        number("zero", np.int64(0)),
        number("one", np.int64(1)),
        loop(
            [number("again", np.array(False)), node("Add", "k one", "next")],
            [("k", INT, [])],
            [("next", INT, [])],
            "zero",
            "y",
        ),
    ]
    check(nodes, [("n", INT, [])], [("y", INT, [])], np.int64(count))


@counts
def test_a_branch_in_a_loop_gives_a_number_or_what_is_carried(count):
    half = branch("odd", [number("h", np.float32(0.5))], [node("Add", "k s", "m")], "next", F, [])
    nodes = [
        number("zero", np.float32(0)),
        number("one", np.int64(1)),
        number("two", np.int64(2)),
        loop(
            [
                number("again", YES),
                node("Mod", "it two", "rest"),
                node("Equal", "rest one", "odd"),
                half,
            ],
            [("k", F, [])],
            [("next", F, [])],
            "zero",
            "y",
        ),
    ]
    inputs = [("n", INT, []), ("s", F, [])]
    check(nodes, inputs, [("y", F, [])], np.int64(count), np.float32(3))


@truths
@counts
def test_a_loop_in_a_branch_starts_from_a_number(truth, count):
    adding = loop(
        [number("again", YES), node("Add", "k s", "next")],
        [("k", F, [])],
        [("next", F, [])],
        "start",
        "sum",
    )
    nodes = [
        branch(
            "c", [number("start", np.float32(1)), adding], [number("d", np.float32(3))], "y", F, []
        )
    ]
    inputs = [("c", B, []), ("n", INT, []), ("s", F, [])]
    arrays = np.array(truth), np.int64(count), np.float32(2)
    check(nodes, inputs, [("y", F, [])], *arrays)
