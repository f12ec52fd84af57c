"""``torch.compile`` through Treadle agrees with eager PyTorch."""

import logging
from functools import partial

import pytest
import torch
from torch import nn

from treadle.libraries import openblas
from treadle.torch_backend import compile_fx

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's own, while Dynamo loads


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).eval()


def test_inference_at_several_sizes():
    model = network()
    compiled = torch.compile(model, backend=compile_fx, dynamic=True)
    with torch.no_grad():
        for rows in (4, 7):
            x = torch.randn(rows, 6)
            torch.testing.assert_close(compiled(x), model(x))


def test_gradients():
    model, other = network(), network()
    compiled = torch.compile(model, backend=compile_fx)
    x = torch.randn(4, 6)
    compiled(x).square().sum().backward()
    other(x).square().sum().backward()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_parameters_may_change_between_calls():
    model = network()
    compiled = torch.compile(model, backend=compile_fx)
    x = torch.randn(4, 6)
    with torch.no_grad():
        compiled(x)
        model[0].weight.mul_(2)
        torch.testing.assert_close(compiled(x), model(x))


def test_operators_without_a_translation_are_left_to_pytorch():
    def function(x):
        return torch.special.bessel_j0(x) + 1

    x = torch.randn(5)
    torch.testing.assert_close(torch.compile(function, backend=compile_fx)(x), function(x))


def test_an_unknown_option_is_refused():
    compiled = torch.compile(torch.relu, backend=compile_fx, options={"speed": 11})
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="E0804"):
        compiled(torch.randn(3))


def test_libraries_compute_parts_of_the_graph(caplog):
    model = network()
    backend = partial(compile_fx, options={"libraries": [openblas(threads=1)]})
    compiled = torch.compile(model, backend=backend)
    x = torch.randn(4, 6)
    with torch.no_grad(), caplog.at_level(logging.INFO, "treadle.passes"):
        torch.testing.assert_close(compiled(x), model(x))
    assert "openblas.sgemm" in caplog.text
