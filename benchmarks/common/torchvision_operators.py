"""Operators that torchvision asks for when it is imported.

timm and transformers import torchvision, whose operators a build without its C++ library lacks;
declared here, they are not missed. Import this module before those.
"""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
