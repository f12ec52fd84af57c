"""What is said of models that cannot be imported."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from treadle.base.errors import ModelImportError, TypeMismatch
from treadle.frontend.onnx import import_module
from treadle.ir.interpret import run


def graph(text: str, opset: int = 21) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')


GOOD = "m (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }"


def error_of(model: str | Path | bytes | onnx.ModelProto) -> ModelImportError:
    with pytest.raises(ModelImportError) as caught:
        import_module(model)
    assert caught.value.help
    return caught.value


class TestFiles:
    def test_a_wrong_path_is_named(self, tmp_path: Path):
        error = error_of(tmp_path / "missing.onnx")
        assert error.code == "E0611"
        assert "missing.onnx" in str(error)

    @pytest.mark.parametrize("keep", [0, 1, 7, 40])
    def test_a_truncated_model_is_refused(self, keep: int):
        assert error_of(graph(GOOD).SerializeToString()[:keep]).code == "E0612"

    def test_other_bytes_are_refused(self):
        assert error_of(b"PK\x03\x04 this is a zip file").code == "E0612"

    def test_an_initializer_shorter_than_its_shape_is_refused(self):
        proto = graph(GOOD)
        proto.graph.initializer[0].ClearField("float_data")
        proto.graph.initializer[0].raw_data = b"\0\0"
        assert error_of(proto).code == "E0612"

    def _external(self, folder: Path) -> Path:
        proto = graph(GOOD)
        tensor = numpy_helper.from_array(np.arange(4000, dtype=np.float32)[:2], "w")
        proto.graph.initializer[0].CopyFrom(tensor)
        path = folder / "model.onnx"
        onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        return path

    def test_external_data_are_read(self, tmp_path: Path):
        module = import_module(self._external(tmp_path)).module
        (constant,) = module.constants.values()
        assert constant.array.tolist() == [0, 1]

    def test_missing_external_data_are_named(self, tmp_path: Path):
        path = self._external(tmp_path)
        (tmp_path / "weights.bin").unlink()
        error = error_of(path)
        assert error.code == "E0613"
        assert "'w'" in str(error)

    def test_truncated_external_data_are_refused(self, tmp_path: Path):
        path = self._external(tmp_path)
        (tmp_path / "weights.bin").write_bytes(b"\0\0")
        assert error_of(path).code == "E0613"

    def test_external_data_of_a_model_without_folder_are_refused(self, tmp_path: Path):
        assert error_of(self._external(tmp_path).read_bytes()).code == "E0613"


class TestOperators:
    def test_one_error_lists_all_that_are_not_supported_in_branches_too(self):
        proto = graph("""
            m (bool c, float[2] x) => (float[2] y) {
                a = other.Mystery(x)
                y = If (c) <
                    then_branch = g1 () => (float[2] t) { t = Multinomial(a) },
                    else_branch = g2 () => (float[2] e) { e = other.Riddle(x) }
                >
            }""")
        proto.opset_import.append(helper.make_opsetid("other", 3))
        proto.graph.node[0].name = "first"
        error = error_of(proto)
        assert error.code == "E0601"
        assert len(error.notes) == 3
        listed = " ".join(error.notes)
        for word in (
            "other.Mystery",
            "other.Riddle",
            "ai.onnx.Multinomial",
            "'first'",
            "opset 3",
            "opset 21",
        ):
            assert word in listed

    def test_those_in_functions_of_the_model_are_listed(self):
        proto = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["" : 21, "local" : 1]>
            m (float[3] x) => (float[3] y) { y = local.f(x) }
            <opset_import: ["" : 21, "other" : 1], domain: "local">
            f (a) => (b) { b = other.Mystery(a) }""")
        assert "other.Mystery" in " ".join(error_of(proto).notes)

    def test_a_size_that_depends_on_data_in_a_branch_is_refused(self):
        proto = graph("""
            m (bool c, float[4] x) => (int64[1, ?] y) {
                y = If (c) <
                    then_branch = t () => (int64[1, ?] a) { a = NonZero(x) },
                    else_branch = e () => (int64[1, ?] b) { z = Neg(x) b = NonZero(z) }
                >
            }""")
        assert error_of(proto).code == "E0602"

    def test_of_known_data_it_is_computed(self):
        proto = graph("""
            m (float[3] x) => (float[2] y) <float[3] w = {0, 1, 2}> {
                i = NonZero(w)
                j = Squeeze(i)
                y = Gather(x, j)
            }""")
        (y,) = run(import_module(proto).module, "main", np.array([5, 6, 7], np.float32))
        assert y.tolist() == [6, 7]

    @pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "STRING", "COMPLEX64", "INT4"])
    def test_element_types_that_the_house_has_not_are_named(self, kind: str):
        x, y = (helper.make_tensor_value_info(n, getattr(TensorProto, kind), (2,)) for n in "xy")
        node = helper.make_node("Identity", ["x"], ["y"])
        error = error_of(helper.make_model(helper.make_graph([node], "m", [x], [y])))
        assert error.code == "E0604"
        assert kind in str(error)

    def test_an_attribute_that_the_operator_has_not_is_refused_not_ignored(self):
        error = error_of(graph("m (float[2] x) => (float[2] y) { y = Softmax<axes = 1>(x) }"))
        assert error.code == "E0605"
        assert "'axes'" in str(error)

    def test_a_missing_input_is_named(self):
        assert "'indices'" in str(
            error_of(graph("m (float[2] x) => (float[2] y) { y = Gather(x) }"))
        )

    def test_an_undefined_value_is_named(self):
        assert "'ghost'" in str(
            error_of(graph("m (float[2] x) => (float[2] y) { y = Add(x, ghost) }"))
        )

    def test_operands_that_do_not_fit_tell_the_node(self):
        with pytest.raises(TypeMismatch) as caught:
            import_module(graph("m (float[2] x, float[3] z) => (float[2] y) { y = Add(x, z) }"))
        assert caught.value.place is not None
        assert "Add node" in caught.value.place

    def test_a_branch_that_changes_the_shape_needs_a_known_condition(self):
        error = error_of(
            graph("""
            m (bool c, float[2] x) => (float[?] y) {
                y = If (c) <
                    then_branch = g1 () => (float[2] t) { t = Identity(x) },
                    else_branch = g2 () => (float[4] e) { e = Concat<axis = 0>(x, x) }
                >
            }""")
        )
        assert error.code == "E0603"
        assert "constants={'c': array}" in str(error)
