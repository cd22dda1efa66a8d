"""Transfer: a frozen encoder looks at every image once, and a small network learns from what it saw.   D2L 13.14"""

import torch
from torch import Tensor, nn

from thalweg.data.streams import Stream
from thalweg.tasks.classification import Classification
from thalweg.vocabulary import Batch


class Encoded(Stream):
    """The batches of a stream with what an encoder makes of their images, `features`, calculated once and kept.

    encoder: images -> [batch feature], frozen and in evaluation. The stream must not augment: an image that is changed
    each time has no features to keep.   ValueError if it does.
    """

    def __init__(self, whole: Stream, encoder: nn.Module):
        super().__init__(whole.size, whole.batch_size, shuffle=whole.shuffle)
        if whole.augment:
            raise ValueError("whole: the stream augments its images, so their features cannot be kept")
        self.whole, self.encoder = whole, encoder
        self.kept: Tensor | None = None
        self.known = torch.zeros(whole.size, dtype=torch.bool)

    def fetch(self, indices: Tensor) -> Batch:
        batch = self.whole.fetch(indices)
        new = ~self.known[indices]
        if new.any():
            like = next(self.encoder.parameters())
            with torch.no_grad():
                features = self.encoder(batch["image"][new].to(like.device)).cpu()
            if self.kept is None:
                self.kept = features.new_empty(self.size, features.shape[1])
            self.kept[indices[new]] = features
            self.known[indices[new]] = True
        assert self.kept is not None
        return {**batch, "features": self.kept[indices]}


class OnFeatures(Classification):
    """Classification whose batches carry what the model's frozen encoder made of the images.

    model: a Probe or another with `read`, features -> logits.   batch: image, label, features [batch feature]
    """

    def logits(self, batch: Batch) -> Tensor:
        return self.model.read(batch["features"])  # type: ignore[operator]
