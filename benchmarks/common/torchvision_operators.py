"""Operators that torchvision asks for when it is imported.

timm and transformers import torchvision, whose operators a build without its C++ library lacks;
declared here, they are not missed. Import this module before those; it imports torchvision itself.
"""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import torchvision  # noqa: E402, F401  (declares how large their results are)
