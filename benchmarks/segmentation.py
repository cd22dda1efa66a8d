"""Streets (CamVid) segmented: a fully convolutional network on ResNet-18, learned from nothing in equally many steps.

ours       the recipe fcn-camvid at the full width of ResNet-18, with Training's defaults
default    torchvision's FCN as its own training script has it: images scaled, mirrored and cut one by one, SGD at 0.01 with
           momentum, a rate that falls by the power 0.9, float32
best       the same network, learned as ours is
The three take a step in turn. Mean IoU and share of right pixels are those of the test images, by the same code; seconds
are the median of a step, data and all.
python benchmarks/segmentation.py [STEPS]      Needs torchvision.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace

import torch
from compare import measured, take_turns
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

from thalweg.data.segmentation import IGNORE, camvid
from thalweg.layers.standardize import Standardized, moments
from thalweg.recipes.segmentation import fcn_camvid
from thalweg.tasks.segmentation import Segmentation
from thalweg.training import Training
from thalweg.training.machine import keep_memory
from thalweg.vocabulary import Batch

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Peer(nn.Module):
    """torchvision's FCN, which answers with a dict."""

    def __init__(self, classes: int):
        super().__init__()
        self.fcn = FCN(IntermediateLayerGetter(resnet18(), {"layer4": "out"}), FCNHead(512, classes))

    def forward(self, image: Tensor) -> Tensor:
        return self.fcn(image)["out"]


class Pairs(Dataset):
    """Images and masks one by one, scaled by 0.5 to 2, mirrored and cut."""

    def __init__(self, part: Batch):
        self.part = part
        size = tuple(part["image"].shape[-2:])
        self.change = v2.Compose([
            v2.RandomResize(size[0] // 2, 2 * size[0], antialias=True), v2.RandomHorizontalFlip(),
            v2.RandomCrop(size, pad_if_needed=True, fill={Image: 0, Mask: IGNORE}),
            v2.ToDtype({Image: torch.float32, Mask: torch.int64, "others": None}, scale=True), v2.Normalize(MEAN, DEVIATION),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.part["image"])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.change(Image(self.part["image"][index]), Mask(self.part["segmentation"][index]))


def usual(model: nn.Module, part: Batch, steps: int, batch_size: int) -> Iterator[None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, 0.9)
    data = DataLoader(Pairs(part), batch_size, shuffle=True, drop_last=True)
    model.train()
    while True:
        for image, truth in data:
            loss = cross_entropy(model(image), truth, ignore_index=IGNORE)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            yield


def main(steps: int = 250) -> None:
    keep_memory()
    torch.manual_seed(0)
    splits, experiment = camvid((240, 320)), replace(fcn_camvid(width=64), steps=steps, epochs=None)
    size, classes = list(splits.train["image"].shape[-2:]), splits.classes
    seen = Standardized(Peer(len(classes)), **moments(splits.train["image"]), size=size)
    best = Training(replace(experiment, task=Segmentation(seen, classes)), device="cpu")
    plain = Peer(len(classes))
    ours = Training(experiment, device="cpu")
    turns = {"ours": iter(ours), "default": usual(plain, splits.train, steps, experiment.train.batch_size), "best": iter(best)}
    seconds = take_turns(turns, steps)
    tasks = {"ours": ours.evaluated, "default": Segmentation(Standardized(plain, MEAN, DEVIATION, size), classes),
             "best": best.evaluated}  # fmt: skip
    table = {name: {**measured(task, experiment.test, ("mean_iou", "accuracy")), "seconds_a_step": round(seconds[name], 3)}
             for name, task in tasks.items()}  # fmt: skip
    over = {name: round(table[name]["seconds_a_step"] / table["ours"]["seconds_a_step"], 2) for name in ("default", "best")}
    print(json.dumps({"steps": steps, "image": size, **table, "over": over}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
