"""Blood cells (BCCD) detected: FCOS on ResNet-18, learned from nothing in equally many steps.

ours       our FCOS on ResNet-18, learned as in the recipe fcos-bccd, with Training's defaults
default    torchvision's FCOS of the same trunk, pyramid and towers, as its own training script has it: mirrored images, SGD
           at 0.02 for 16 images, so 0.01 for 8, with momentum, rising over the first steps and cut to a tenth twice, float32
best       the same network and its own loss, on our stream of changed images, learned as ours is
The three take a step in turn. Average precision is that of the test images, by the same code; seconds are the median of a
step, data and all. Where torchvision's compiled part does not load beside this torch, its suppression is ours, which keeps
the same boxes.
python benchmarks/detection.py [STEPS]      Needs torchvision.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from compare import measured, take_turns
from torch import Tensor
from torchvision import ops
from torchvision.models import resnet18
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from thalweg.build import build
from thalweg.data.augmentation import flip
from thalweg.data.streams import TensorStream
from thalweg.layers.boxes import nms
from thalweg.layers.standardize import Standardized
from thalweg.models.vision.fcos import fcos
from thalweg.recipes.detection import fcos_bccd
from thalweg.tasks.detection import Detection, Found, TaskAligned
from thalweg.training import Training
from thalweg.training.machine import keep_memory
from thalweg.vocabulary import Batch

CHANNELS, DEPTH = 96, 2


def peer(classes: int, size: list[int], mean: list[float], deviation: list[float]) -> FCOS:
    """torchvision's FCOS as slim as ours; it counts "nothing" as a class."""
    layers = {f"layer{number}": str(number) for number in (2, 3, 4)}
    trunk = BackboneWithFPN(resnet18(), layers, [128, 256, 512], CHANNELS, LastLevelP6P7(CHANNELS, CHANNELS))
    around = AnchorGenerator(tuple((side,) for side in (8, 16, 32, 64, 128)), ((1.0,),) * 5)
    head = FCOSHead(CHANNELS, 1, classes + 1, DEPTH)
    return FCOS(trunk, classes + 1, min(size), max(size), mean, deviation, around, head, score_thresh=0.01)


class Peer(Detection):
    """torchvision's detector as a task: it tells its losses itself, and takes a list of images."""

    def said(self, batch: Batch) -> Any:
        images = list(batch["image"].float() / 255)
        there = [{"boxes": boxes[label >= 0].float(), "labels": label[label >= 0] + 1}
                 for boxes, label in zip(batch["boxes"], batch["box_label"], strict=True)]  # fmt: skip
        return self.model(images, there if self.training else None)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        return sum(self.said(batch).values()) * len(batch["image"]), len(batch["image"])

    def evaluate(self, batch: Batch) -> None:
        found = []
        for one in self.said(batch):
            real = one["labels"] > 0  # it may answer "nothing" too
            found.append(Found(one["boxes"][real], one["scores"][real], one["labels"][real] - 1))
        self.rank(found, batch)


def usual(task: Peer, data: TensorStream, steps: int) -> Iterator[None]:
    optimizer = torch.optim.SGD(task.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=max(1, steps // 10))
    fall = torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps * 16 // 26, steps * 22 // 26])
    task.train()
    for batch in data.batches():
        total, count = task.loss(batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        rise.step()
        fall.step()
        yield


def main(steps: int = 200) -> None:
    keep_memory()
    torch.manual_seed(0)
    try:
        ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (RuntimeError, NotImplementedError):
        ops.boxes.nms = nms
    experiment = replace(fcos_bccd(), steps=steps, epochs=None)
    stream, classes, outer = experiment.train, experiment.task.classes, experiment.task.model
    size, mean, deviation = list(outer.size), outer.mean.flatten().tolist(), outer.deviation.flatten().tolist()
    slim = build(fcos, backbone="resnet18", num_classes=len(classes), channels=CHANNELS, depth=DEPTH)
    ours = Training(replace(experiment, task=TaskAligned(Standardized(slim, mean, deviation, size), classes)), device="cpu")
    best = Training(replace(experiment, task=Peer(peer(len(classes), size, mean, deviation), classes)), device="cpu")
    plain = Peer(peer(len(classes), size, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), classes)
    mirrored = TensorStream(stream.tensors, stream.batch_size, shuffle=True, augment=[flip()])
    turns = {"ours": iter(ours), "default": usual(plain, mirrored, steps), "best": iter(best)}
    seconds = take_turns(turns, steps)
    table = {name: {**measured(task, experiment.test, ("mAP50", "mAP")), "seconds_a_step": round(seconds[name], 3)}
             for name, task in (("ours", ours.evaluated), ("default", plain), ("best", best.evaluated))}  # fmt: skip
    over = {name: round(table[name]["seconds_a_step"] / table["ours"]["seconds_a_step"], 2) for name in ("default", "best")}
    weights = {name: sum(p.numel() for p in model.parameters()) for name, model in (("ours", slim), ("peer", plain.model))}
    print(json.dumps({"steps": steps, "image": size, "parameters": weights, **table, "over": over}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
