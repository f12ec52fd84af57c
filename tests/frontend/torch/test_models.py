"""Small models of the usual kinds with symbolic sizes agree with eager PyTorch at several sizes."""

from importlib import import_module as import_python

import pytest
import torch
from torch import nn
from torch.export import Dim

from treadle.frontend.torch import import_module
from treadle.ir.interpret import run

NAMES = [
    *("resnet18", "resnet50", "mobilenetv2", "efficientnet_b0", "vit_b16"),
    *("bert_base", "gpt2_small", "llama_small", "t5_small", "minilm"),
]


@pytest.fixture(scope="module")
def zoo():
    return import_python("benchmarks.common.zoo")  # slow: only where it is needed


def resized(tensor, rows, columns):
    """The tensor repeated to other sizes, the second one only of tokens."""
    repeats = (rows, *[1] * (tensor.ndim - 1))
    grown = tensor.repeat(repeats)[:rows]
    return grown.repeat(1, 2)[:, : tensor.shape[1] + columns] if tensor.ndim == 2 else grown


def check(imported, model, inputs):
    with torch.no_grad():
        wanted = model(*inputs)
    (found,) = run(imported.module, "main", *(x.numpy() for x in inputs))
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_model_agrees_with_eager(zoo, name):
    entry = zoo.ZOO[name](tiny=True)
    imported = import_module(entry.model, entry.inputs, entry.dynamic_shapes)
    check(imported, entry.model, entry.inputs)
    check(imported, entry.model, tuple(resized(x, 3, 2) for x in entry.inputs))
    check(imported, entry.model, tuple(resized(x, 1, 0) for x in entry.inputs))


class UNet(nn.Module):
    """Two levels down and up, with skips."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.bottom = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.GELU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.smooth = nn.Upsample(scale_factor=2, mode="bilinear")
        self.out = nn.Conv2d(32, 1, 1)

    def forward(self, x):
        skip = self.down(x)
        low = self.bottom(skip)
        return self.out(torch.cat((skip, self.up(low), self.smooth(low)), 1))


def test_unet_of_any_even_size():
    torch.manual_seed(0)
    model = UNet().eval()
    height, width = Dim("h", min=2, max=64), Dim("w", min=2, max=64)
    shapes = ({0: Dim("batch", min=1, max=64), 2: 2 * height, 3: 2 * width},)
    inputs = (torch.randn(2, 3, 8, 12),)
    imported = import_module(model, inputs, shapes)
    check(imported, model, inputs)
    check(imported, model, (torch.randn(1, 3, 6, 10),))
