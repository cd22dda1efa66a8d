"""Imported before timm: declares the operators that a torchvision built for CUDA registers, so that it starts beside a CPU torch."""

import torch

LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
