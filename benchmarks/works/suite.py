"""The operator suite of the MetaSchedule paper: thirteen families of four shapes, batch 1, f32.

Layouts are PyTorch's own (channels before positions), which every side may change inside.
"""

from collections.abc import Callable

import torch
from torch import nn

from .convolution import convolution
from .rows import Softmax
from .work import Bar, Case, Work, randn

BAR = Bar(speedup=0.9)
CAPSULE = 4

C1D = (
    # length, channels in and out, kernel, stride, padding
    (256, 64, 128, 3, 2, 1),
    (128, 128, 256, 1, 2, 0),
    (64, 256, 256, 5, 1, 2),
    (32, 512, 512, 3, 1, 1),
)
C2D = (
    # height and width, channels in and out, kernel, stride, padding
    (224, 3, 64, 7, 2, 3),
    (56, 64, 64, 1, 1, 0),
    (14, 256, 256, 3, 1, 1),
    (7, 512, 512, 3, 1, 1),
)
GRP = ((56, 64, 128, 3, 2, 1), *C2D[1:])
CBR = ((224, 3, 64, 7, 2, 3), (56, 64, 128, 3, 2, 1), (28, 128, 256, 1, 2, 0), C2D[3])
CAP = ((16, 32, 32, 3, 2, 1), (8, 32, 32, 3, 1, 1), (16, 8, 16, 3, 2, 1), (8, 16, 16, 3, 1, 1))
DEP = ((112, 32, 3, 1, 1), (112, 64, 3, 2, 1), (14, 512, 3, 2, 1), (7, 1024, 3, 1, 1))
T2D = ((4, 512, 256), (8, 256, 128), (16, 128, 64), (32, 64, 3))
GMM = ((1, 128, 128, 128), (1, 512, 32, 512), (1, 512, 512, 512), (1, 1024, 1024, 1024))
TBG = ((128, 12, 64), (128, 16, 64), (64, 12, 128), (128, 12, 128))
NRM = ((256, 256), (512, 512), (1024, 1024), (4096, 1024))
SFM = ((256, 256), (512, 512), (1024, 1024), (2048, 2048))


class Matmul(nn.Module):
    """The product of two inputs."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The product."""
        return x @ y


class Scores(nn.Module):
    """Queries times keys, both (batch, length, heads, width), for each head."""

    def forward(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """(batch, heads, length, length)."""
        return query.permute(0, 2, 1, 3) @ key.permute(0, 2, 3, 1)


class Norm(nn.Module):
    """The Euclidean norm of each matrix of a batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One number for each matrix."""
        return (x * x).sum((1, 2)).sqrt()


class Capsules(nn.Module):
    """A convolution whose every multiplication is one of 4 × 4 matrices.

    The input is (batch, 4, 4 · channels, height, width): rows of the capsules, then their columns
    with the channels. Each row is an image of a convolution that joins columns and channels.
    """

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        channels = CAPSULE * inner, CAPSULE * outer
        self.conv = nn.Conv2d(*channels, kernel, stride, padding, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 4, 4 · channels, height, width)."""
        return self.conv(x.flatten(0, 1)).unflatten(0, (-1, CAPSULE))


def _work(name: str, build: Callable[[], Case], kernel: str = "", **attributes: object) -> Work:
    return Work("suite", name, build, kernel=kernel, attributes=attributes, bar=BAR)


def _convolution(
    family: str, shape: tuple[int, ...], *, depth: int = 0, dilation: int = 1, groups: int = 1
) -> Work:
    size, inner, outer, kernel, stride, padding = shape
    sizes = (size,) if family == "C1D" else (depth, size, size) if depth else (size, size)
    name = f"{family} {'x'.join(map(str, sizes))} {inner}->{outer} k{kernel} s{stride}"
    return convolution(
        "suite",
        name,
        sizes,
        (inner, outer),
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bar=BAR,
    )


def _depthwise(size: int, channels: int, kernel: int, stride: int, padding: int) -> Work:
    shape = (size, channels, channels, kernel, stride, padding)
    return _convolution("DEP", shape, groups=channels)


def _transposed(size: int, inner: int, outer: int) -> Work:
    def build() -> Case:
        module = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False)
        return Case(module, (randn(1, inner, size, size),))

    return _work(f"T2D {size}x{size} {inner}->{outer}", build, "transposed", stride=2, padding=1)


def _capsules(size: int, inner: int, outer: int, *window: int) -> Work:
    kernel, stride, padding = window

    def build() -> Case:
        x = randn(1, CAPSULE, CAPSULE * inner, size, size)
        return Case(Capsules(inner, outer, kernel, stride, padding), (x,))

    name = f"CAP {size}x{size} {inner}->{outer} s{stride}"
    return _work(name, build, "capsules", stride=stride, padding=padding)


def _conv_bn_relu(size: int, inner: int, outer: int, *window: int) -> Work:
    kernel, stride, padding = window

    def build() -> Case:
        norm = nn.BatchNorm2d(outer)
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        conv = nn.Conv2d(inner, outer, kernel, stride, padding)
        return Case(nn.Sequential(conv, norm, nn.ReLU()), (randn(1, inner, size, size),))

    name = f"CBR {size}x{size} {inner}->{outer} k{kernel} s{stride}"
    return _work(name, build, "conv_bn_relu", stride=stride, padding=padding)


def _matmul(batch: int, n: int, m: int, k: int) -> Work:
    def build() -> Case:
        return Case(Matmul(), (randn(batch, n, k), randn(batch, k, m)))

    return _work(f"GMM {n}x{m}x{k}", build, "matmul")


def _scores(length: int, heads: int, width: int) -> Work:
    def build() -> Case:
        shape = (1, length, heads, width)
        return Case(Scores(), (randn(*shape), randn(*shape)))

    return _work(f"TBG {length}x{heads}x{width}", build, "scores")


def _norm(m: int, n: int) -> Work:
    return _work(f"NRM {m}x{n}", lambda: Case(Norm(), (randn(1, m, n),)), "norm")


def _softmax(m: int, n: int) -> Work:
    return _work(f"SFM {m}x{n}", lambda: Case(Softmax(), (randn(m, n),)), "softmax")


WORKS = (
    *(_convolution("C1D", shape) for shape in C1D),
    *(_convolution("C2D", shape) for shape in C2D),
    *(_convolution("C3D", shape, depth=16) for shape in C2D),
    *(_convolution("DIL", shape, dilation=2) for shape in C2D),
    *(_convolution("GRP", shape, groups=4) for shape in GRP),
    *(_depthwise(*shape) for shape in DEP),
    *(_transposed(*shape) for shape in T2D),
    *(_capsules(*shape) for shape in CAP),
    *(_conv_bn_relu(*shape) for shape in CBR),
    *(_matmul(*shape) for shape in GMM),
    *(_scores(*shape) for shape in TBG),
    *(_norm(*shape) for shape in NRM),
    *(_softmax(*shape) for shape in SFM),
)
