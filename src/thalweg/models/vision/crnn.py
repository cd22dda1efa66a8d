"""CRNN: convolutions look at an image of text, a recurrent network reads what they saw from left to right.

image -> convolutions, until it is one row high -> a vector a column -> bidirectional LSTM -> logits of every symbol a column.
It is not told where symbols stand: connectionist temporal classification sums over all ways, see `thalweg.decoding.ctc`.
Shi, Bai, Yao 2015, arXiv:1507.05717.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

HEIGHT = 32  # of an image, in pixels: the convolutions make one row of it


class CRNN(nn.Module):
    """image: [batch channel 32 width] -> logits [batch width/4-1 symbol], symbol 0 is the blank that says nothing.

    width: maps of the first convolution, of the last ones eight times as many.   hidden_dim: units of each direction.
    direct: what the convolutions see in a column is also read as it is, and added to the logits: learned hundreds of steps
    sooner than reading through the recurrent network, which begins by saying nothing but blanks.   Not in the paper.
    ValueError for images of another height, or narrower than 8 pixels.   The paper normalises two layers only, here all are.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        width: int = 64,
        hidden_dim: int = 256,
        num_layers: int = 2,
        dropout: float = 0.0,
        direct: bool = False,
    ):
        super().__init__()
        square, flat = nn.MaxPool2d(2), nn.MaxPool2d((2, 1))  # flat ones keep columns apart, for letters are narrow
        self.stages = nn.Sequential(
            _stage(in_channels, width), square,
            _stage(width, 2 * width), square,
            _stage(2 * width, 4 * width), _stage(4 * width, 4 * width), flat,
            _stage(4 * width, 8 * width), _stage(8 * width, 8 * width), flat,
            _stage(8 * width, 8 * width, kernel_size=2, padding=0),
        )  # fmt: skip
        self.context = nn.LSTM(8 * width, hidden_dim, num_layers, batch_first=True, bidirectional=True,
                               dropout=dropout if num_layers > 1 else 0.0)  # fmt: skip
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden_dim, num_classes)
        self.direct = nn.Linear(8 * width, num_classes) if direct else None

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch time symbol"]:
        if image.shape[2] != HEIGHT or image.shape[3] < 8:
            raise ValueError(f"image: {image.shape[3]}x{image.shape[2]} pixels, expected a height of {HEIGHT} and a width of 8 "
                             "or more")  # fmt: skip
        columns = self.stages(image).squeeze(2).mT
        logits = self.head(self.dropout(self.context(columns)[0]))
        return logits if self.direct is None else logits + self.direct(columns)


def _stage(in_channels: int, out_channels: int, kernel_size: int = 3, padding: int = 1) -> nn.Sequential:
    """relu(norm(W * x))"""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False),
                         nn.BatchNorm2d(out_channels), nn.ReLU())  # fmt: skip


def crnn(num_classes: int = 37, **arguments: Any) -> CRNN:
    """That of the paper, for letters, digits and the blank, 8,723,941 parameters."""
    return CRNN(num_classes, **arguments)
