"""Write an ONNX model with ONNX's own helpers, compile it, and compare with NumPy.

The model is a small attention pooling: scores of the rows of x, a softmax over them, and the
weighted mean of the rows. Both dimensions of x stay open.

    python examples/onnx_model.py
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import treadle

WIDTH = 32


def attention_pooling(weight: np.ndarray) -> onnx.ModelProto:
    """x (batch, rows, 32) f32 to (batch, 32) f32; ``weight`` (32, 1) scores a row."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "rows", WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=1),
        helper.make_node("Mul", ["x", "shares"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axes"], ["y"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array([1]), "axes"),
    ]
    graph = helper.make_graph(nodes, "attention_pooling", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def expected(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The same in NumPy."""
    scores = np.exp(x @ weight)
    return (x * scores / scores.sum(1, keepdims=True)).sum(1)


def main() -> None:
    """Run the whole example."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((WIDTH, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pooling.onnx"
        onnx.save(attention_pooling(weight), path)
        exe = treadle.compile(path)
    print(exe.signature)
    for batch, rows in ((1, 1), (2, 5), (8, 100)):
        x = random.standard_normal((batch, rows, WIDTH)).astype(np.float32)
        np.testing.assert_allclose(exe(x), expected(x, weight), rtol=1e-4, atol=1e-5)
        print(f"{batch} × {rows} × {WIDTH} matches NumPy")


if __name__ == "__main__":
    main()
