"""ONNX's own backend tests on compiled code: families that must pass, and the share of all."""

import importlib.util
import sys
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.backend.test.case.test_case import TestCase as Case
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner, _normalize_tensor
from onnx.defs import onnx_opset_version

from treadle import onnx_backend
from treadle.base.errors import ModelImportError

# A sample of each family of operators, by the names of ONNX's tests.
FAMILIES = {
    "elementwise": "add sub_bcast mul_uint8 div pow_bcast_scalar exp where_example clip_inbounds",
    "comparison": "equal less_equal greater_bcast and2d not_3d isinf_positive bitshift_left_uint8",
    "activation": "relu elu_example gelu_default_1 hardsigmoid prelu_broadcast softmax_axis_1",
    "reduction": "reduce_sum_keepdims_random reduce_max_do_not_keepdims_example"
    " reduce_mean_keepdims_random reduce_l2_keep_dims_random argmax_default_axis_random",
    "shape": "reshape_negative_dim expand_dim_changed slice_neg_steps concat_2d_axis_1"
    " split_equal_parts_2d shape_start_1",
    "movement": "transpose_default tile constant_pad squeeze unsqueeze_axis_1 tril",
    "indexing": "gather_0 gathernd_example_float32 scatter_elements_with_axis onehot_with_axis",
    "contraction": "matmul_3d gemm_all_attributes einsum_batch_matmul",
    "window": "basic_conv_with_padding maxpool_2d_same_upper averagepool_2d_pads convtranspose",
    "normalization": "batchnorm_epsilon layer_normalization_default_axis instancenorm_example",
    "quantization": "quantizelinear dequantizelinear_axis qlinearmatmul_2D_uint8_float32",
    "control flow": "if loop11 scan9_sum lstm_defaults gru_seq_length",
    "function": "attention_4d attention_4d_expanded rotary_embedding center_crop_pad_crop",
}


TOOL = Path(__file__).resolve().parents[2] / "tools" / "onnx_conformance.py"


def _conformance() -> ModuleType:
    spec = importlib.util.spec_from_file_location("onnx_conformance", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def _cases() -> dict[str, Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {c.name: c for c in load_model_tests(kind="node")}


def _check(case: Case) -> None:
    prepared = onnx_backend.prepare(case.model)
    for inputs, outputs in case.data_sets:
        found = prepared.run([_normalize_tensor(x) for x in inputs])
        expected = [_normalize_tensor(y) for y in outputs]
        Runner.assert_similar_outputs(expected, found, case.rtol, case.atol)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_of_operators_passes_onnx_s_tests(family: str):
    for name in FAMILIES[family].split():
        _check(_cases()[f"test_{name}"])


def test_a_model_is_compiled_once_for_each_value_that_shapes_depend_on():
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        m (float[2, 6] x, int64[2] shape) => (float[?, ?] y) { y = Reshape(x, shape) }""")
    prepared = onnx_backend.prepare(proto)
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    for shape in ((3, 4), (4, 3), (3, 4)):
        (y,) = prepared.run([x, np.array(shape)])
        np.testing.assert_array_equal(y, x.reshape(shape))
    assert len(prepared._runners) == 2


def test_a_model_with_symbols_runs_at_any_size():
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        m (float[n, 4] x) => (float[n, 4] y) { y = Softmax(x) }""")
    prepared = onnx_backend.prepare(proto)
    for n in (1, 3, 8):
        (y,) = prepared.run({"x": np.zeros((n, 4), np.float32)})
        np.testing.assert_allclose(y, np.full((n, 4), 0.25))


def test_a_node_runs_by_itself():
    node = helper.make_node("Add", ["a", "b"], ["c"])
    (c,) = onnx_backend.run_node(node, [np.ones(3, np.float32), np.arange(3, dtype=np.float32)])
    assert c.tolist() == [1, 2, 3]


def test_only_the_cpu_is_supported():
    assert onnx_backend.supports_device("CPU")
    assert not onnx_backend.supports_device("CUDA")
    with pytest.raises(ModelImportError, match="E0614"):
        onnx_backend.prepare(onnx.ModelProto(), "CUDA")


def test_a_model_is_compatible_if_it_can_be_imported():
    text = "m (float[2] x) => (float[2] y) { y = %s(x) }"
    header = f'<ir_version: 10, opset_import: ["" : {onnx_opset_version()}]>'
    for operator, expected in (("Relu", True), ("Multinomial", False)):
        proto = onnx.parser.parse_model(header + text % operator)
        assert onnx_backend.is_compatible(proto) == expected


@pytest.mark.slow
def test_most_of_all_of_onnx_s_node_tests_pass():
    outcomes = _conformance().run_all(interpret=False, workers=2, pattern="NodeModelTest")
    passed = sum(not o.code for o in outcomes)
    assert len(outcomes) > 1500
    assert passed >= 0.65 * len(outcomes)
    assert not [o for o in outcomes if o.code in ("crash", "hang")]
