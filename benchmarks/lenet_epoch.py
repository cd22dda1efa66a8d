"""One epoch of LeNet on Fashion-MNIST with flips and shifts: images a second.

ours    the recipe's stream and loop at its defaults (batched augmentation in memory, native bf16 where there is)
usual   Dataset and DataLoader with two workers, transforms a sample, float32 loop, AdamW as it comes; in a process
        of its own, with the allocator as it comes
"""

import json
import subprocess
import sys
import time

import torch
from compare import alternate
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, Dataset

from thalweg.data.sources import fashion_mnist
from thalweg.recipes.vision import lenet_fashion_mnist
from thalweg.training import Training
from thalweg.training.machine import keep_memory


class Clothes(Dataset):
    """A sample at a time: mirrored, shifted, scaled, as the usual transforms do it."""

    def __init__(self, image: torch.Tensor, label: torch.Tensor):
        self.image, self.label = image, label

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.image[index]
        if torch.rand(1) < 0.5:
            image = image.flip(-1)
        padded = pad(image, (2, 2, 2, 2))
        row, column = torch.randint(0, 5, (2,)).tolist()
        image = padded[:, row : row + 28, column : column + 28].float().div(255)
        return (image - 0.286) / 0.353, int(self.label[index])


TRAIN = fashion_mnist().train


def ours() -> float:
    torch.manual_seed(0)
    training = Training(lenet_fashion_mnist(epochs=1), device="cpu")
    start = time.perf_counter()
    for _ in training:
        pass
    return time.perf_counter() - start


def usual() -> float:
    torch.manual_seed(0)
    model = lenet_fashion_mnist(epochs=1).task.model.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    loader = DataLoader(Clothes(**TRAIN), batch_size=256, shuffle=True, num_workers=2)
    start = time.perf_counter()
    for image, label in loader:
        loss = cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def usual_apart() -> float:
    return float(subprocess.check_output([sys.executable, __file__, "usual"], text=True))


def measure() -> dict:
    keep_memory()
    seconds = alternate({"ours": ours, "usual": usual_apart}, repeats=3)
    return {
        "what": "training images a second, LeNet on Fashion-MNIST, batch 256, one epoch with flips and shifts",
        **{f"{name}_images_per_second": len(TRAIN["label"]) / value for name, value in seconds.items()},
        "faster_than_usual": seconds["usual"] / seconds["ours"],
        "target": "faster_than_usual >= 3",
    }


if __name__ == "__main__":
    print(usual() if sys.argv[1:] == ["usual"] else json.dumps(measure(), indent=2))
