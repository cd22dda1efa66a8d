"""Linear models: every output is a weighted sum of the inputs.

y = W x + b.   Linear regression predicts y; softmax regression reads y as logits of the classes.   D2L 3.1-3.7
"""

from math import prod

from torch import Tensor, nn


class Linear(nn.Module):
    """y = W x + b of the flattened input.   x: [batch ...] -> [batch out_features]"""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.head = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def linear_regression(in_features: int, out_features: int = 1) -> Linear:
    """Numbers from a row of a table."""
    return Linear(in_features, out_features)


def softmax_regression(in_channels: int = 1, image_size: int = 28, num_classes: int = 10) -> Linear:
    """Logits from the pixels of an image."""
    return Linear(prod((in_channels, image_size, image_size)), num_classes)
