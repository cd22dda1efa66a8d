"""What each step from R-CNN to Faster R-CNN gained: seconds an image, and true boxes among the first 100 proposals.

speed    R-CNN and Fast R-CNN on the same photograph, backbone and 100 proposals of selective search, without gradients; the
         crops of R-CNN are 64x64 pixels, as rcnn takes them unless told, and 224x224, as in the paper
recall   on the test photographs of blood cells: what share of true boxes overlaps one of the first 100 proposals by half,
         of a trained region proposal network and of selective search, whose segments have the scale that does best on
         validation photographs; and how many proposals selective search made in all, and their recall

python benchmarks/regions.py [RUN]     RUN: folder of a run of faster-rcnn-bccd; without it, one of 15 epochs is trained first
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import compare
import torch
from torch import Tensor, nn

from thalweg.build import load
from thalweg.data.detection import bccd
from thalweg.data.proposals import selective_search
from thalweg.layers.boxes import iou
from thalweg.models.vision.rcnn import fast_rcnn, rcnn
from thalweg.recipes.regions import faster_rcnn_bccd
from thalweg.tasks.regions import TwoStageDetection
from thalweg.training import Training
from thalweg.training.machine import keep_memory
from thalweg.vocabulary import Batch

SCALES = (25.0, 50.0, 100.0, 200.0, 400.0)


def timed(model: nn.Module, image: Tensor, proposals: Tensor) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            model(image, proposals)
        return time.perf_counter() - start

    return run


def speed(photograph: Tensor) -> dict:
    proposals = selective_search(photograph)[None, :100]
    image = photograph[None] / 255
    crops = {f"rcnn_{side}": rcnn(num_classes=3, crop=(side, side)) for side in (64, 224)}
    models: dict[str, nn.Module] = {**crops, "fast": fast_rcnn(num_classes=3)}
    for model in models.values():
        model.eval()
    with torch.inference_mode():
        forms = [{name: tuple(x.shape) for name, x in model(image, proposals).items()} for model in models.values()]
    assert forms[0] == forms[1] == forms[2], forms
    seconds = compare.alternate({name: timed(model, image, proposals) for name, model in models.items()}, 3)
    return {"backbone": "resnet18", "image": list(photograph.shape), "proposals": proposals.shape[1],
            "seconds": {name: round(taken, 3) for name, taken in seconds.items()},
            "fast_over": {name: round(seconds[name] / seconds["fast"], 1) for name in crops}}  # fmt: skip


def recall(found: Sequence[Tensor], part: Batch, count: int | None = 100) -> float:
    """The share of true boxes that one of the first `count` proposals of their image overlaps by half."""
    hits = [(iou(boxes[label >= 0], proposals[:count]).amax(1) >= 0.5).float()
            for proposals, boxes, label in zip(found, part["boxes"], part["box_label"], strict=True)]  # fmt: skip
    return round(float(torch.cat(hits).mean()), 4)


def searched(images: Tensor, scale: float) -> list[Tensor]:
    return [selective_search(image, scale) for image in images]


def proposed(task: TwoStageDetection, images: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return [task.raw({"image": image[None]})["regions"][0] for image in images]


def trained(run: str | None) -> TwoStageDetection:
    if run:
        return load(Path(run) / "model")  # type: ignore[return-value]
    training = Training(faster_rcnn_bccd(epochs=15), device="cpu")
    for _ in training:
        pass
    return training.evaluated


def compared(run: str | None) -> dict:
    splits, task = bccd((240, 320)), trained(run).eval()
    some = {name: tensor[::4] for name, tensor in splits.valid.items()}
    valid = {scale: recall(searched(some["image"], scale), some) for scale in SCALES}
    best = max(valid, key=lambda scale: valid[scale])
    images, seconds, found = splits.test["image"], {}, {}
    for name, propose in (("network", lambda: proposed(task, images)), ("search", lambda: searched(images, best))):
        start = time.perf_counter()
        found[name] = propose()
        seconds[name] = round((time.perf_counter() - start) / len(images), 3)
    return {"images": len(images), "run": "faster-rcnn-bccd" if run else "faster-rcnn-bccd, 15 epochs", "scale": best,
            "recall_100": {name: recall(boxes, splits.test) for name, boxes in found.items()},
            "search_makes": round(sum(map(len, found["search"])) / len(images)),
            "search_recall_of_all": recall(found["search"], splits.test, None), "seconds_an_image": seconds}  # fmt: skip


def main(run: str | None = None) -> None:
    keep_memory()
    torch.manual_seed(0)
    facts = {"speed": speed(bccd((480, 640)).test["image"][0]), "proposals": compared(run)}
    print(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
