"""ONNX's operators whose results are as large as values say, against ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest

from treadle.frontend.onnx import import_module
from treadle.ir.interpret import run
from treadle.testing import compiled_here
from treadle_runtime.errors import RuntimeFault

HEADER = '<ir_version: 10, opset_import: ["" : 21]> '
MODELS = {
    "NonZero": """
        m (float[n, k] x) => (int64[2, u] p, float[u] y) {
            p = NonZero(x)
            t = Transpose(p)
            z = GatherND(x, t)
            y = Relu(z)
        }""",
    "Compress": """
        m (float[n, k] x) => (float[u, k] y, float[k] s) {
            zero = Constant<value_float = 0.0>()
            one = Constant<value_ints = [1]>()
            sums = ReduceSum<keepdims = 0>(x, one)
            flags = Greater(sums, zero)
            y = Compress<axis = 0>(x, flags)
            first = Constant<value_ints = [0]>()
            s = ReduceSum<keepdims = 0>(y, first)
        }""",
    "Compress without an axis": """
        m (float[n, k] x, bool[n] flags) => (float[u] y) { y = Compress(x, flags) }""",
    "Unique": """
        m (float[n, k] x) => (float[u] y, int64[u] a, int64[v] b, int64[u] c) {
            y, a, b, c = Unique(x)
        }""",
    "Unique in order of appearance": """
        m (float[n, k] x) => (float[u] y, int64[u] a, int64[v] b, int64[u] c) {
            y, a, b, c = Unique<sorted = 0>(x)
        }""",
    "Unique rows": """
        m (float[n, k] x) => (float[u, k] y, int64[u] a, int64[n] b, int64[u] c) {
            y, a, b, c = Unique<axis = 0>(x)
        }""",
}


@pytest.mark.parametrize("name", MODELS)
def test_one_compilation_agrees_with_onnx_runtime_for_any_values(name):
    proto = onnx.parser.parse_model(HEADER + MODELS[name])
    peer = onnxruntime.InferenceSession(proto.SerializeToString())
    module = import_module(proto).module
    program = compiled_here(module)
    random = np.random.default_rng(0)
    for shape in ((3, 5), (7, 2), (1, 1), (13, 11)):
        for low in (-2, 0):
            x = random.integers(low, 2, shape).astype(np.float32)
            inputs = [x, x[:, 0] > 0][: len(peer.get_inputs())]
            names = [i.name for i in peer.get_inputs()]
            wanted = peer.run(None, dict(zip(names, inputs, strict=True)))
            for found in (program(*inputs), run(module, "main", *inputs)):
                parts = found if isinstance(found, tuple) else (found,)
                for a, b in zip(parts, wanted, strict=True):
                    np.testing.assert_array_equal(a, b)


SUPPRESSION = """
    m (float[b, n, 4] boxes, float[b, c, n] scores) => (int64[u, 3] kept) {
        most = Constant<value_ints = [4]>()
        overlap = Constant<value_floats = [0.5]>()
        least = Constant<value_floats = [0.3]>()
        kept = NonMaxSuppression<center_point_box = %d>(boxes, scores, most, overlap, least)
    }"""


@pytest.mark.parametrize("center", [0, 1])
def test_boxes_are_suppressed_as_onnx_runtime_does(center):
    proto = onnx.parser.parse_model(HEADER + SUPPRESSION % center)
    peer = onnxruntime.InferenceSession(proto.SerializeToString())
    program = compiled_here(import_module(proto).module)
    random = np.random.default_rng(center)
    for b, c, n in ((1, 1, 7), (2, 3, 31), (1, 2, 1)):
        boxes = random.random((b, n, 4)).astype(np.float32)
        scores = random.random((b, c, n)).astype(np.float32)
        wanted = peer.run(None, {"boxes": boxes, "scores": scores})[0]
        np.testing.assert_array_equal(program(boxes, scores), wanted)


def test_values_that_the_model_computes_are_sizes():
    proto = onnx.parser.parse_model(
        HEADER
        + """
        m (int64[b] lengths, float[n] x)
        => (bool[b, t] mask, float[t, 2] z, float[t] y, float[t] h) {
            t = ReduceMax<keepdims = 0>(lengths)
            zero = Constant<value_int = 0>()
            one = Constant<value_int = 1>()
            first = Constant<value_ints = [0]>()
            last = Constant<value_ints = [1]>()
            two = Constant<value_ints = [2]>()
            steps = Range(zero, t, one)
            column = Unsqueeze(lengths, last)
            mask = Less(steps, column)
            k = Unsqueeze(t, first)
            shape = Concat<axis = 0>(k, two)
            z = ConstantOfShape(shape)
            y, places = TopK(x, k)
            h = Slice(x, first, k)
        }"""
    )
    peer = onnxruntime.InferenceSession(proto.SerializeToString())
    program = compiled_here(import_module(proto).module)
    x = np.random.default_rng(0).standard_normal(9).astype(np.float32)
    for lengths in ([3, 1, 2], [1], [9, 9], [0, 0]):
        inputs = {"lengths": np.array(lengths), "x": x}
        for a, b in zip(program(**inputs), peer.run(None, inputs), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(RuntimeFault, match="E0707"):
        program(np.array([10]), x)
