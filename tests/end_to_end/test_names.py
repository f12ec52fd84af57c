"""The names of inputs and outputs arrive where users see them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import treadle
from treadle.base.errors import ModelImportError, TreadleError, VerifyError
from treadle.base.rewrite import replace_fields
from treadle.ir.module import Module
from treadle.ir.parser import parse
from treadle.ir.verify import verify
from treadle.ops import OPS_BY_NAME
from treadle.testing import assert_same_ir, ir


def classifier() -> onnx.ModelProto:
    """A model whose names are no identifiers; its results are taken apart, computed twice, passed
    through and known beforehand."""
    names = ("input.1", "/out/probabilities:0", "again", "known", "same")
    x, *results = [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)
        for n, s in zip(names, [["n", 4], ["n", 4], ["n", 4], [2], ["n", 4]], strict=True)
    ]
    nodes = [
        helper.make_node("Softmax", ["input.1"], [names[1]]),
        helper.make_node("Softmax", ["input.1"], ["again"]),
        helper.make_node("Constant", [], ["known"], value_floats=[1.0, 2.0]),
        helper.make_node("Identity", ["input.1"], ["same"]),
    ]
    return helper.make_model(helper.make_graph(nodes, "g", [x], results))


def test_an_onnx_model_keeps_the_names_of_its_inputs_and_outputs(tmp_path: Path):
    exe = treadle.compile(classifier())
    exe.save(tmp_path / "m.treadle")
    x = np.zeros((3, 4), np.float32)
    for e in (exe, treadle.load(tmp_path / "m.treadle")):
        assert [s.name for s in e.entry.inputs] == ["input.1"]
        assert [s.name for s in e.entry.outputs] == [
            "/out/probabilities:0",
            "again",
            "known",
            "same",
        ]
        y, again, known, same = e(**{"input.1": x})
        np.testing.assert_allclose(y, x + 0.25)
        np.testing.assert_array_equal(y, again)
        np.testing.assert_array_equal(known, [1, 2])
        np.testing.assert_array_equal(same, x)


def test_a_pytorch_model_keeps_the_keys_of_its_results():
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"probabilities": x.softmax(-1), "total": x.sum()}

    exe = treadle.compile(Two(), (torch.zeros(2, 3),))
    assert [s.name for s in exe.entry.outputs] == ["probabilities", "total"]


def test_a_text_keeps_the_names_that_it_returns():
    exe = treadle.compile(
        ir("""
            @graph.function
            def main(x: Tensor[(n, 4), f32]):
                y = softmax(x)
                z = softmax(x)
                return y, z, y, x
        """)
    )
    assert [s.name for s in exe.entry.outputs] == ["y", "z", "y_2", "output_3"]


TEXT = """
@graph.function(inputs=('a/b',), outputs=('y.1',))
def main(x: Tensor[(4,), f32]) -> (Tensor[(4,), f32],):
    y = relu(x)
    return y
"""


def test_names_that_are_no_identifiers_are_read_back():
    module = parse(TEXT, OPS_BY_NAME)
    assert module.graph("main").output_names == ("y.1",)
    assert_same_ir(module, parse(str(module), OPS_BY_NAME))
    assert str(module) == TEXT.lstrip()


@pytest.mark.parametrize(
    "names", ["inputs=(1,)", "inputs='x'", "sizes=('x',)", "'x'", "outputs=()"]
)
def test_other_names_are_refused(names: str):
    with pytest.raises(TreadleError, match="E0003"):
        parse(TEXT.replace("inputs=('a/b',)", names), OPS_BY_NAME)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "a", "a")])
def test_the_verifier_wants_one_name_for_each_result(names: tuple[str, ...]):
    main = parse(TEXT, OPS_BY_NAME).graph("main")
    wrong = Module({"main": replace_fields(main, outputs=names)}, {})
    with pytest.raises(VerifyError, match="E0204"):
        verify(wrong)


def test_a_value_that_is_given_beforehand_leaves_the_signature():
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        m (float[n, 4] x, int64[2] shape) => (float[a, b] y) { y = Reshape(x, shape) }""")
    exe = treadle.compile(proto, constants={"shape": np.array([2, -1])})
    assert [s.name for s in exe.entry.inputs] == ["x"]
    assert exe(np.zeros((3, 4), np.float32)).shape == (2, 6)


def test_constants_are_for_onnx_models():
    with pytest.raises(ModelImportError, match="E0608"):
        treadle.compile(parse(TEXT, OPS_BY_NAME), constants={"x": np.zeros(4, np.float32)})
