"""Files that were damaged, and models whose parts do not fit: whatever they hold, what comes out is
an error for users."""

import warnings
from contextlib import suppress
from functools import cache

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.backend.test.loader import load_model_tests

from treadle.base.errors import ModelImportError, TreadleError
from treadle.driver.pipelines import graph_pipeline
from treadle.frontend.onnx import import_module
from treadle.testing import compiled_here

# One small model for each kind of thing that a model may hold.
NAMES = """
add_bcast and2d averagepool_2d_pads attention_4d_gqa basic_conv_with_padding
cast_FLOAT_to_DOUBLE center_crop_pad_crop_axes_hwc col2im_pads concat_3d_axis_1 constant
convtranspose_pads cumsum_2d_axis_0 depthtospace_example dequantizelinear_axis
einsum_batch_diagonal gather_1 gathernd_example_int32 gemm_all_attributes gridsample
gru_seq_length if instancenorm_example layer_normalization_3d_axis1_epsilon loop11
lstm_bidirectional maxpool_2d_ceil mean_example nllloss_NC onehot_with_axis
reduce_max_keepdims_random reduce_log_sum_exp_default_axes_keepdims_random reflect_pad
resize_upsample_sizes_nearest reversesequence_batch roialign_mode_max scan9_sum scatternd_add
slice_neg split_variable_parts_2d_opset18 stft tensorscatter tile topk transpose_default tril
unsqueeze_three_axes upsample_nearest where_example
"""
NUMBERS = st.sampled_from((-(2**63), -2, -1, 0, 1, 2, 3, 7, 100, 2**31, 2**40))


@cache
def models() -> tuple[bytes, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = {c.name.removeprefix("test_"): c.model for c in load_model_tests(kind="node")}
    return tuple(cases[name].SerializeToString() for name in NAMES.split() if name in cases)


def told_or_imported(model: bytes | onnx.ModelProto, *, machine_code: bool = False) -> None:
    """Import a model as far as it goes; anything but an error for users fails the test."""
    with suppress(TreadleError):
        module = import_module(model).module
        if machine_code:
            compiled_here(module)
        else:
            graph_pipeline().run(module)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_bytes_that_were_changed_lead_to_an_error_for_users(data: st.DataObject):
    damaged = bytearray(data.draw(st.sampled_from(models())))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    told_or_imported(bytes(damaged))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_file_that_ends_too_early_leads_to_an_error_for_users(data: st.DataObject):
    whole = data.draw(st.sampled_from(models()))
    told_or_imported(whole[: data.draw(st.integers(0, len(whole)))])


def _attribute(draw: st.DrawFn, node: onnx.NodeProto) -> None:
    attribute = draw(st.sampled_from(list(node.attribute)))
    if draw(st.booleans()):
        node.attribute.remove(attribute)
    elif attribute.ints and draw(st.booleans()):
        attribute.ints.append(draw(NUMBERS))
    elif attribute.ints:
        attribute.ints[draw(st.integers(0, len(attribute.ints) - 1))] = draw(NUMBERS)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = draw(NUMBERS)
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = draw(st.sampled_from((b"", b"x", b"SAME_UPPER", b"linear")))


def _operands(draw: st.DrawFn, node: onnx.NodeProto, names: list[str]) -> None:
    place = draw(st.integers(0, len(node.input) - 1))
    choice = draw(st.integers(0, 2))
    if choice == 0:
        node.input[place] = draw(st.sampled_from([*names, ""]))
    elif choice == 1:
        del node.input[place]
    else:
        node.input.append(node.input[place])


def _type(draw: st.DrawFn, tensor: onnx.TypeProto.Tensor) -> None:
    dims = tensor.shape.dim
    choice = draw(st.integers(0, 3))
    if choice == 0:
        tensor.elem_type = draw(st.sampled_from((1, 2, 3, 6, 7, 9, 10, 11, 16)))
    elif choice == 1:
        dims.add().dim_value = draw(st.integers(0, 3))
    elif choice == 2 and dims:
        del dims[draw(st.integers(0, len(dims) - 1))]
    elif dims:
        dims[draw(st.integers(0, len(dims) - 1))].dim_param = draw(st.sampled_from("nm"))


@st.composite
def misfits(draw: st.DrawFn) -> onnx.ModelProto:
    """Models that can be read and whose parts may not fit."""
    model = onnx.ModelProto.FromString(draw(st.sampled_from(models())))
    graph = model.graph
    for _ in range(draw(st.integers(1, 2))):
        node = draw(st.sampled_from(list(graph.node)))
        kind = draw(st.sampled_from(("attribute", "operands", "type")))
        if kind == "attribute" and node.attribute:
            _attribute(draw, node)
        elif kind == "operands" and node.input:
            _operands(draw, node, [i.name for i in graph.input])
        elif graph.input:
            _type(draw, draw(st.sampled_from(list(graph.input))).type.tensor_type)
    return model


@settings(max_examples=400, deadline=None)
@given(misfits())
def test_parts_that_do_not_fit_lead_to_an_error_for_users(model: onnx.ModelProto):
    told_or_imported(model)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(misfits())
def test_what_can_be_imported_can_be_compiled_or_is_refused(model: onnx.ModelProto):
    told_or_imported(model, machine_code=True)


def test_a_rule_that_only_onnx_checks_is_told_in_its_words():
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 24]>
        m (float[2, 3] x) => (float[2, 3] y) {
            y = Attention<q_num_heads = 1, kv_num_heads = 1>(x, x, x)
        }""")
    with pytest.raises(ModelImportError, match="shall be 3 or 4 dimensions") as caught:
        import_module(model)
    assert caught.value.code == "E0605"


def test_names_that_are_no_text_are_refused():
    data = models()[0]
    damaged = data.replace(b"Add", b"A\xffd")
    assert damaged != data
    with pytest.raises(ModelImportError, match="E0612"):
        import_module(damaged)
