"""Small variants of well-known models, through each front end, agree with eager PyTorch."""

import gc
from importlib import import_module

import pytest
import torch
from benchmarks.common.match import Difference, differences, export_onnx, sized_inputs

import treadle
from treadle.libraries import openblas

LANGUAGE = {"bert_base", "gpt2_small", "llama_small", "t5_small", "minilm"}
NAMES = [
    *("resnet18", "resnet50", "mobilenetv2", "efficientnet_b0", "vit_b16"),
    *sorted(LANGUAGE),
]
# Deep and long to compile; the others hold the same kinds of layers.
SLOW = {"resnet50", "efficientnet_b0", "t5_small"}
MODELS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NAMES]


@pytest.fixture(scope="module")
def zoo():
    return import_module("benchmarks.common.zoo").ZOO  # slow: only where it is needed


@pytest.fixture(autouse=True)
def memory_is_returned():
    yield
    gc.collect()


def inputs_of(name, entry):
    """The example's, and two other sizes; for language models each batch with its own length."""
    yield entry.inputs
    yield sized_inputs(entry, {"batch": 1, "seq": 2, "target": 3})
    yield sized_inputs(entry, {"batch": 3, "seq": 37, "target": 19})


def assert_all_close(found: list[Difference]):
    assert len(found) == 3
    assert all(d.close for d in found), found


@pytest.mark.parametrize("name", MODELS)
def test_exported_model_matches_eager_at_every_size(zoo, name):
    entry = zoo[name](tiny=True)
    exe = treadle.compile(entry.model, entry.inputs, dynamic_shapes=entry.dynamic_shapes)
    assert_all_close(list(differences(exe, entry.model, inputs_of(name, entry))))


@pytest.mark.parametrize("name", ["llama_small"])
def test_model_with_products_by_a_library_matches_eager_at_every_size(zoo, name):
    entry = zoo[name](tiny=True)
    given = {"dynamic_shapes": entry.dynamic_shapes, "libraries": [openblas(threads=1)]}
    exe = treadle.compile(entry.model, entry.inputs, **given)
    assert {c.chosen for c in exe.library_choices} == {"openblas.sgemm"}
    assert_all_close(list(differences(exe, entry.model, inputs_of(name, entry))))


@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
@pytest.mark.parametrize("name", MODELS)
def test_model_from_onnx_matches_eager_at_every_size(zoo, name, tmp_path):
    entry = zoo[name](tiny=True)
    exe = treadle.compile(export_onnx(entry, tmp_path / "model.onnx"))
    assert_all_close(list(differences(exe, entry.model, inputs_of(name, entry))))


def test_a_difference_is_measured_against_the_largest_magnitude():
    match = import_module("benchmarks.common.match")
    expected = torch.tensor([1e-6, -2e-6])
    assert match.difference(expected, expected).close
    assert not match.difference(expected + 1e-9, expected).close
    assert not match.difference(torch.full((2,), float("nan")), expected).close
    assert not match.difference(expected.double(), expected).close
