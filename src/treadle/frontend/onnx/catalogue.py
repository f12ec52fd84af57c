"""All converters, family by family."""

from treadle.frontend.onnx import (
    activation,
    classic,
    contraction,
    control,
    convolution,
    creation,
    elementwise,
    image,
    indexing,
    movement,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    sampling,
    signal,
    training,
)
from treadle.frontend.onnx.converter import Catalogue, collect

CATALOGUE: Catalogue = collect(
    elementwise.CONVERTERS,
    activation.CONVERTERS,
    reduction.CONVERTERS,
    creation.CONVERTERS,
    movement.CONVERTERS,
    indexing.CONVERTERS,
    contraction.CONVERTERS,
    convolution.CONVERTERS,
    pooling.CONVERTERS,
    normalization.CONVERTERS,
    quantization.CONVERTERS,
    image.CONVERTERS,
    control.CONVERTERS,
    recurrent.CONVERTERS,
    signal.CONVERTERS,
    sampling.CONVERTERS,
    training.CONVERTERS,
    classic.CONVERTERS,
)
