"""The gradient noise scale: up to which batch size do larger batches pay?   McCandlish et al. 2018, arXiv:1812.06162"""

from dataclasses import dataclass
from itertools import islice

import torch

from thalweg.training import Training


@dataclass(frozen=True)
class Noise:
    """signal: |G|^2, the squared length of the true gradient.   noise: tr(S), the summed variance of one example's.

    Both are estimates, right on average; where the signal is near 0 its estimate may be below.
    """

    signal: float
    noise: float

    @property
    def scale(self) -> float:
        """tr(S) / |G|^2, in examples: batches as large as this need twice the fewest steps; infinite without signal."""
        return self.noise / self.signal if self.signal > 0 else float("inf")


def gradient_noise(training: Training, *, groups: int = 8, size: int = 8) -> Noise:
    """Signal and noise of the gradient where the training stands, from batches of b examples and `size` times as many.

    With means over all batches and groups of them, |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b),
    tr(S) = (|G_b|^2 - |G_B|^2) / (1/b - 1/B), B = size b.   Nothing is learned. The task needs one loss; groups of 1 or more
    and a size of 2 or more, or ValueError.
    """
    if groups < 1 or size < 2:
        raise ValueError(f"groups={groups}, size={size}: expected at least 1 and 2")
    task, parameters = training.task, [p for p in training.task.parameters() if p.requires_grad]
    start = training.number * training.experiment.accumulate
    batches = training.experiment.train.batches(start)
    small = large = examples = 0.0
    for _ in range(groups):
        mean = torch.zeros(sum(p.numel() for p in parameters), device=training.device, dtype=torch.float64)
        for batch in islice(batches, size):
            with training.autocast():
                total, count = task.loss(training.place(batch))
            found = torch.autograd.grad(total / count, parameters, allow_unused=True, materialize_grads=True)
            gradient = torch.cat([g.flatten() for g in found]).double()
            small += float(gradient.square().sum()) / (groups * size)
            examples += float(count) / (groups * size)
            mean += gradient / size
        large += float(mean.square().sum()) / groups
    b, big = examples, size * examples
    return Noise(signal=(big * large - b * small) / (big - b), noise=(small - large) / (1 / b - 1 / big))
