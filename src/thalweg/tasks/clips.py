"""Classification of clips: what happens, not what is there.   D2L 8"""

import torch
from torch import Tensor

from thalweg.tasks.classification import Classification
from thalweg.vocabulary import Batch


class ClipClassification(Classification):
    """One label a clip.   loss = - log softmax(model(frames, mask))[label]

    batch: frames [batch time channel height width], mask [batch time], True where there is a picture, label [batch].
    """

    reads = "video"

    def logits(self, batch: Batch) -> Tensor:
        return self.model(batch["frames"], batch["mask"])

    def evaluate(self, batch: Batch) -> None:
        super().evaluate({**batch, "image": _strips(batch["frames"])})

    def chances(self, inputs: Batch) -> Tensor:
        """As of images.   frames [batch time channel height width]; mask [batch time] where clips are of different lengths."""
        frames = inputs["frames"]
        mask = inputs.get("mask", torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device))
        return self.logits({"frames": frames, "mask": mask}).float().softmax(-1)


def _strips(frames: Tensor, most: int = 5) -> Tensor:
    """The first pictures of each clip side by side.   [batch time channel height width] -> [batch channel height n*width]"""
    first = frames[:, :most]
    if first.shape[1] < most:
        first = torch.cat([first, first.new_zeros(len(first), most - first.shape[1], *first.shape[2:])], 1)
    return first.permute(0, 2, 3, 1, 4).flatten(3)
