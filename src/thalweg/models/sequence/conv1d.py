"""One convolutional trunk for whatever comes in a row: sound, text, measurements.

numbers or tokens -> stem -> groups of the same block, each twice as wide and half as long -> mean over time -> logits.
Only the stem knows the domain. The trunk assumes what a convolution assumes: that neighbours belong together, and that a
pattern means the same wherever it stands.   D2L 6.1, 15.3, LEE: CNN
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import max_pool1d


class Block(nn.Module):
    """y = relu(norm(conv(x))).   x: [batch in_channels time] -> [batch out_channels time]"""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


class Conv1dNet(nn.Module):
    """in_channels: numbers at a time, or vocab_size: kinds of tokens; one of them, which decides the stem and nothing else.

    x: [batch in_channels time] numbers or [batch time] tokens -> logits [batch class].   kernel_size: odd.
    width: channels of the first group, twice as many in each that follows.   depths: blocks of each group.
    ValueError unless exactly one of in_channels and vocab_size is given.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int | None = None,
        vocab_size: int | None = None,
        width: int = 32,
        depths: Sequence[int] = (2, 2, 2),
        kernel_size: int = 5,
    ):
        super().__init__()
        if (in_channels is None) == (vocab_size is None):
            raise ValueError(f"in_channels={in_channels}, vocab_size={vocab_size}: expected exactly one of them")
        self.stem = nn.Embedding(vocab_size, width) if vocab_size else nn.Conv1d(in_channels or 0, width, 1)
        self.stages, channels = nn.ModuleList(), width
        for number, depth in enumerate(depths):
            out = width * 2**number
            self.stages.append(nn.Sequential(*(Block(channels if not n else out, out, kernel_size) for n in range(depth))))
            channels = out
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).transpose(1, 2) if isinstance(self.stem, nn.Embedding) else self.stem(x)
        for number, stage in enumerate(self.stages):
            x = stage(max_pool1d(x, 2) if number else x)
        return self.head(x.mean(2))


def conv1d_net(
    num_classes: int,
    in_channels: int | None = None,
    vocab_size: int | None = None,
    width: int = 32,
    depths: Sequence[int] = (2, 2, 2),
    kernel_size: int = 5,
) -> Conv1dNet:
    """A classifier of rows."""
    return Conv1dNet(num_classes, in_channels, vocab_size, width, depths, kernel_size)
