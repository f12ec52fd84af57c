"""Convolutions of ResNet-50, its stem, and depthwise ones; batch 1, NCHW."""

from torch import nn

from .work import Bar, Case, Work, randn

RESNET50 = (
    # height and width, channels in and out, kernel
    (56, 64, 64, 1),
    (56, 64, 64, 3),
    (56, 64, 256, 1),
    (28, 512, 128, 1),
    (28, 128, 128, 3),
    (14, 1024, 256, 1),
    (14, 256, 256, 3),
    (7, 512, 512, 3),
)
DEPTHWISE = ((112, 32, 1), (112, 96, 2), (28, 192, 1), (14, 384, 1), (14, 576, 2))
"""Height and width, channels, stride; of MobileNetV2."""


def convolution(
    family: str,
    name: str,
    size: tuple[int, ...],
    channels: tuple[int, int],
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    bar: Bar,
) -> Work:
    """A convolution without bias over as many dimensions as ``size`` has."""
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 1]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def build() -> Case:
        module = layer(*channels, kernel, bias=False, **options)
        return Case(module, (randn(1, channels[0], *size),))

    return Work(family, name, build, kernel="convolution", attributes=options, bar=bar)


def _of_resnet(size: int, inner: int, outer: int, kernel: int) -> Work:
    name = f"conv {size}x{size} {inner}->{outer} {kernel}x{kernel}"
    bar = Bar(of_peak=0.9, speedup=1.0)
    channels = (inner, outer)
    padding = kernel // 2
    return convolution("conv", name, (size, size), channels, kernel, padding=padding, bar=bar)


def _depthwise(size: int, channels: int, stride: int) -> Work:
    return convolution(
        "conv",
        f"depthwise {size}x{size} {channels} 3x3 s{stride}",
        (size, size),
        (channels, channels),
        3,
        stride=stride,
        padding=1,
        groups=channels,
        bar=Bar(speedup=1.0),
    )


WORKS = (
    *(_of_resnet(*shape) for shape in RESNET50),
    convolution(
        "conv",
        "stem 224x224 3->64 7x7 s2",
        (224, 224),
        (3, 64),
        7,
        stride=2,
        padding=3,
        bar=Bar(speedup=1.0),
    ),
    *(_depthwise(*shape) for shape in DEPTHWISE),
)
