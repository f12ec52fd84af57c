"""All converters, family by family."""

from treadle.frontend.onnx import activation, elementwise, reduction
from treadle.frontend.onnx.converter import Catalogue, collect

CATALOGUE: Catalogue = collect(
    elementwise.CONVERTERS,
    activation.CONVERTERS,
    reduction.CONVERTERS,
)
