"""The reference of ``Resize`` means what ONNX's own reference implementation computes."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from treadle.ops.resize import Resize

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def onnx_resize(x, *, sizes=None, scales=None, region=None, **attributes):
    empty = np.array([], np.float32)
    given_region = empty if region is None else np.array(region, np.float32)
    names = [
        "X",
        "roi",
        "scales" if scales is not None else "",
        "sizes" if sizes is not None else "",
    ]
    inputs = {"X": x, "roi": given_region}
    if scales is not None:
        inputs["scales"] = np.array(scales, np.float32)
    if sizes is not None:
        inputs["sizes"] = np.array(sizes, np.int64)
    kinds = {"sizes": TensorProto.INT64}
    declared = [
        helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), [None] * a.ndim)
        for n, a in inputs.items()
    ]
    node = helper.make_node("Resize", names, ["Y"], **attributes)
    result = helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * x.ndim)
    graph = helper.make_graph([node], "resize", declared, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    onnx.checker.check_model(model)
    return ReferenceEvaluator(model).run(None, inputs)[0]


def agree(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("coordinates", COORDINATES)
@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(2, 7), st.integers(2, 7)),
    st.tuples(st.integers(2, 9), st.integers(2, 9)),
    st.sampled_from(["linear", "cubic", "antialiased linear", "antialiased cubic"]),
    st.booleans(),
    st.sampled_from([-0.75, -0.5]),
)
def test_interpolation_to_a_size(coordinates, size, target, mode, exclude_outside, cubic):
    x = np.random.default_rng(1).uniform(-2, 2, size).astype(np.float32)
    region = (0.1, 0.2, 0.8, 1.1) if coordinates == "tf_crop_and_resize" else None
    antialias, kind = mode.startswith("anti"), mode.split()[-1]
    expected = onnx_resize(
        x,
        sizes=target,
        region=region,
        mode=kind,
        coordinate_transformation_mode=coordinates,
        cubic_coeff_a=cubic,
        exclude_outside=int(exclude_outside),
        antialias=int(antialias),
        extrapolation_value=7.0,
    )
    op = Resize(
        target,
        mode=kind,
        coordinates=coordinates,
        cubic=cubic,
        exclude_outside=exclude_outside,
        antialias=antialias,
        extrapolation=7.0,
        region=region,
    )
    agree(op.reference(x), expected)


# Coordinates of half_pixel_symmetric that are whole in exact arithmetic round either way there.
SCALED = tuple(c for c in COORDINATES if c not in ("tf_crop_and_resize", "half_pixel_symmetric"))


@pytest.mark.parametrize("coordinates", SCALED)
@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(3, 7), st.integers(3, 7)),
    st.sampled_from([0.5, 0.75, 1.5, 2.0, 2.25]),
    st.sampled_from(["linear", "cubic", *NEAREST]),
)
def test_interpolation_by_scales(coordinates, size, scale, mode):
    x = np.random.default_rng(2).uniform(-2, 2, size).astype(np.float32)
    target = tuple(int(n * scale) for n in size)
    if 1 in target and coordinates in ("pytorch_half_pixel", "align_corners"):
        return  # that implementation departs from the specification for results of one element
    nearest = mode if mode in NEAREST else "round_prefer_floor"
    kind = "nearest" if mode in NEAREST else mode
    expected = onnx_resize(
        x,
        scales=(scale, scale),
        mode=kind,
        coordinate_transformation_mode=coordinates,
        nearest_mode=nearest,
    )
    op = Resize(target, (scale, scale), kind, coordinates, nearest)
    agree(op.reference(x), expected)


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_symmetric_half_pixels_by_scales(mode):
    x = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    coordinates, scales = "half_pixel_symmetric", (2.3, 2.94)
    expected = onnx_resize(x, scales=scales, mode=mode, coordinate_transformation_mode=coordinates)
    agree(Resize((4, 5), scales, mode, coordinates).reference(x), expected)
