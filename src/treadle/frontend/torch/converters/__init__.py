"""The catalogue: a converter for every ATen operator that is translated as it stands."""

from treadle.frontend.torch.context import Converter
from treadle.frontend.torch.converters import (
    binary,
    contraction,
    create,
    data_sized,
    index,
    normalize,
    pointwise,
    reduce,
    resize,
    shape,
    window,
)

_FAMILIES = (
    pointwise,
    binary,
    reduce,
    shape,
    index,
    create,
    data_sized,
    contraction,
    window,
    resize,
    normalize,
)

CONVERTERS: dict[str, Converter] = {
    **{f"aten.{name}": f for family in _FAMILIES for name, f in family.CONVERTERS.items()},
    "prims.iota.default": create.iota,
    "torchvision.nms.default": data_sized.nms,
}
"""By the operator's full name, such as ``aten.add.Tensor``."""
