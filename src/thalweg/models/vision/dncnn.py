"""DnCNN: plain convolutions learn the noise, which is then taken away; noise is easier to say than the image.

y = x - f(x), f: convolution, relu; convolution, batch norm, relu again and again; convolution.
Zhang, Zuo, Chen, Meng, Zhang 2016, arXiv:1608.03981.   LBDL 6.1
"""

from typing import Any

from torch import Tensor, nn


class DnCNN(nn.Module):
    """num_layers 3x3 convolutions of `width` channels; 17 for noise of a known strength, 20 where it is not known (blind).

    image: [batch channel height width], any extent -> the same, restored
    """

    def __init__(self, num_layers: int = 17, width: int = 64, in_channels: int = 3):
        super().__init__()
        if num_layers < 2:
            raise ValueError(f"num_layers={num_layers}: expected at least 2")
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU())
        self.stages = nn.Sequential(*(_layer(width) for _ in range(num_layers - 2)))
        self.head = nn.Conv2d(width, in_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return image - self.head(self.stages(self.stem(image)))


def _layer(width: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


def dncnn(**arguments: Any) -> DnCNN:
    """17 layers, for noise of a known strength; 556,097 parameters for grey images, 558,403 for colour."""
    return DnCNN(17, **arguments)


def dncnn_blind(**arguments: Any) -> DnCNN:
    """20 layers, for noise of any strength; 667,073 parameters for grey images, 669,379 for colour."""
    return DnCNN(20, **arguments)
