"""Swin: a Transformer that reads an image in windows, and shifts them by half from block to block, so that all hangs together.

Each block adds attention within windows of 7x7 places to x, then an MLP; in every second block the windows lie half a
window further on, so that neighbours meet. Attention is softmax(q k / sqrt(d) + b), b learned for every offset of two
places. Between stages four neighbours become one place of twice the width, so the cost grows as the image does, and not
as its square.
Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo 2021, arXiv:2103.14030.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from thalweg.layers.attention import attention
from thalweg.layers.dropout import StochasticDepth
from thalweg.weights import Config, Layout, understood


class Attention(nn.Module):
    """Multi-head self-attention within windows, biased by how far apart two places are.

    x: [window time embed], mask: [window time time] or None -> [window time embed], time = window_size^2
    """

    def __init__(self, embed_dim: int, num_heads: int, window_size: int):
        super().__init__()
        self.num_heads, self.window_size = num_heads, window_size
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.bias = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))  # a number an offset and head
        self.output = nn.Linear(embed_dim, embed_dim)
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [window head time dim]
        side = torch.arange(self.window_size, device=x.device)
        place = torch.cartesian_prod(side, side)
        down, right = (place[:, None] - place + self.window_size - 1).unbind(-1)
        bias = self.bias[down * (2 * self.window_size - 1) + right].permute(2, 0, 1)  # [head time time]
        seen = None if mask is None else mask[:, None]
        return self.output(attention(query, key, value, mask=seen, bias=bias).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """y = W_down gelu(W_up x): every place for itself, through four times the width."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.up, self.down = nn.Linear(embed_dim, 4 * embed_dim), nn.Linear(4 * embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x)))


def windows(x: Tensor, size: int) -> Tensor:
    """[batch height width ...] -> [batch * window size^2 ...]"""
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def together(x: Tensor, height: int, width: int, size: int) -> Tensor:
    """[batch * window size^2 embed] -> [batch height width embed], the inverse of `windows`"""
    x = x.unflatten(1, (size, size)).unflatten(0, (-1, height // size, width // size))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class Block(nn.Module):
    """x + attention(norm(x)) in windows, shifted or not, then x + mlp(norm(x)).   x: [batch height width embed]"""

    def __init__(self, embed_dim: int, num_heads: int, window_size: int, shifted: bool, drop: float):
        super().__init__()
        self.window_size, self.shifted = window_size, shifted
        self.attention_norm, self.attention = nn.LayerNorm(embed_dim), Attention(embed_dim, num_heads, window_size)
        self.mlp_norm, self.mlp = nn.LayerNorm(embed_dim), MLP(embed_dim)
        self.drop = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.look(self.attention_norm(x)))
        return x + self.drop(self.mlp(self.mlp_norm(x)))

    def look(self, x: Tensor) -> Tensor:
        """Attention within windows; the map is filled up with zeros to whole ones and turned over its borders."""
        size, (height, width) = self.window_size, x.shape[1:3]
        x = pad(x, (0, 0, 0, -width % size, 0, -height % size))
        # along an axis that one window covers there is nothing to shift to
        shift = [size // 2 if self.shifted and extent > size else 0 for extent in x.shape[1:3]]
        mask = self.mask(x, shift) if any(shift) else None
        x = x.roll([-s for s in shift], (1, 2))
        x = together(self.attention(windows(x, size), mask), x.shape[1], x.shape[2], size)
        return x.roll(shift, (1, 2))[:, :height, :width]

    def mask(self, x: Tensor, shift: Sequence[int]) -> Tensor:
        """Whether two places of a window were neighbours before the map was turned over.   [batch * window time time]"""
        part = torch.zeros((), dtype=torch.long, device=x.device)
        for extent, moved in zip(x.shape[1:3], shift, strict=True):
            place = torch.arange(extent, device=x.device)
            part = 2 * part[..., None] + (place >= extent - moved)
        part = windows(part[None], self.window_size)
        return (part[:, :, None] == part[:, None]).repeat(len(x), 1, 1)


class Merge(nn.Module):
    """Four neighbours become one place of twice the width.   [batch height width embed] -> [batch height/2 width/2 2*embed]"""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * embed_dim), nn.Linear(4 * embed_dim, 2 * embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [batch height/2 2 width/2 2 embed]
        return self.reduce(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class Stage(nn.Module):
    """Halves the extent (not in the first stage), then blocks, every second one shifted."""

    def __init__(self, embed_dim: int, num_heads: int, window_size: int, drops: Sequence[float], merge: bool):
        super().__init__()
        self.merge = Merge(embed_dim // 2) if merge else nn.Identity()
        self.blocks = nn.Sequential(*(Block(embed_dim, num_heads, window_size, number % 2 == 1, drop)
                                      for number, drop in enumerate(drops)))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.merge(x))


class Swin(nn.Module):
    """depths, num_heads: blocks and heads of each stage, each of twice the width and half the extent of the one before.

    patch_size: pixels of a side of the patches that the image is cut into, 4 for 224x224 images, 1 or 2 for small ones.
    stochastic_depth: probability with which the last block is left out in training; the first is never, those between
    in proportion.
    image: [batch channel height width] -> logits [batch class]
    """

    def __init__(
        self,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int = 7,
        patch_size: int = 4,
        in_channels: int = 3,
        num_classes: int = 1000,
        stochastic_depth: float = 0.0,
    ):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)
        self.stem_norm = nn.LayerNorm(embed_dim)
        drops = [stochastic_depth * block / max(1, sum(depths) - 1) for block in range(sum(depths))]
        self.stages = nn.ModuleList()
        for number, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            first = sum(depths[:number])
            self.stages.append(Stage(embed_dim << number, heads, window_size, drops[first : first + depth], number > 0))
        width = embed_dim << len(depths) - 1
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage, each at half the extent of the one before
        maps = [self.stem_norm(self.stem(image).permute(0, 2, 3, 1))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [x.permute(0, 3, 1, 2) for x in maps[1:]]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.norm(self.features(image)[-1].permute(0, 2, 3, 1)).mean((1, 2)))


def swin_tiny(**arguments: Any) -> Swin:
    """12 blocks, 28,288,354 parameters for ImageNet."""
    return Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), **arguments)


def swin_small(**arguments: Any) -> Swin:
    """24 blocks, 49,606,258 parameters for ImageNet."""
    return Swin(96, (2, 2, 18, 2), (3, 6, 12, 24), **arguments)


def swin_base(**arguments: Any) -> Swin:
    """24 blocks, a third wider, 87,768,224 parameters for ImageNet."""
    return Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), **arguments)


TIMM = {"embed_dim": "embed_dim", "depths": "depths", "num_heads": "num_heads", "window_size": "window_size",
        "patch_size": "patch_size", "in_chans": "in_channels", "drop_path_rate": "stochastic_depth"}  # fmt: skip


def timm_arguments(config: Config) -> dict[str, Any]:
    """What Swin takes, from timm's config.json; the image must be large enough that no window shrinks."""
    name = re.fullmatch(r"swin_(tiny|small|base)_patch4_window(7|12)_(\d+)", str(config.get("architecture")))
    if not name:
        raise ValueError(f"config.json says architecture={config.get('architecture')!r}: expected swin_SIZE_patch4_windowW_"
                         "PIXELS, SIZE tiny, small or base")  # fmt: skip
    understood(config, ("architecture", "model_args", "num_classes"), global_pool="avg")
    embed_dim, depths, num_heads = {"tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)), "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
                                    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32))}[name[1]]  # fmt: skip
    more = {"embed_dim": embed_dim, "depths": depths, "num_heads": num_heads, "window_size": int(name[2]), "patch_size": 4,
            "in_chans": 3, "drop_path_rate": 0.1, "img_size": int(name[3]), **config.get("model_args", {})}  # fmt: skip
    understood(more, (*TIMM, "img_size", "num_classes"), global_pool="avg")
    least = more["window_size"] * more["patch_size"] << len(more["depths"]) - 1
    if min(more["img_size"] if isinstance(more["img_size"], list) else [more["img_size"]]) < least:
        raise ValueError(f"config.json says img_size={more['img_size']}: expected at least {least}, else timm's windows shrink")
    stated = {ours: more[public] for public, ours in TIMM.items()} | {"num_classes": config["num_classes"]}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in stated.items()}


def timm_config(model: Swin) -> Config:
    """timm's config.json."""
    stages: Any = model.stages
    window, patch = stages[0].blocks[0].window_size, model.stem.kernel_size[0]
    more = {"embed_dim": model.stem.out_channels, "depths": [len(stage.blocks) for stage in stages],
            "num_heads": [stage.blocks[0].attention.num_heads for stage in stages], "window_size": window,
            "patch_size": patch, "in_chans": model.stem.in_channels, "drop_path_rate": stages[-1].blocks[-1].drop.p,
            "img_size": window * patch << len(stages) - 1}  # fmt: skip
    return {"architecture": "swin_tiny_patch4_window7_224", "num_classes": model.head.out_features, "model_args": more,
            "pretrained_cfg": {"first_conv": "patch_embed.proj", "classifier": "head.fc"}}  # fmt: skip


PUBLIC = {
    "timm": Layout(
        {
            "patch_embed.proj.*": "stem.*",
            "patch_embed.norm.*": "stem_norm.*",
            "layers.{0}.downsample.norm.*": "stages.{0}.merge.norm.*",
            "layers.{0}.downsample.reduction.*": "stages.{0}.merge.reduce.*",
            "layers.{0}.blocks.{0}.norm1.*": "stages.{0}.blocks.{0}.attention_norm.*",
            "layers.{0}.blocks.{0}.attn.relative_position_bias_table": "stages.{0}.blocks.{0}.attention.bias",
            "layers.{0}.blocks.{0}.attn.qkv.*": "stages.{0}.blocks.{0}.attention.qkv.*",
            "layers.{0}.blocks.{0}.attn.proj.*": "stages.{0}.blocks.{0}.attention.output.*",
            "layers.{0}.blocks.{0}.norm2.*": "stages.{0}.blocks.{0}.mlp_norm.*",
            "layers.{0}.blocks.{0}.mlp.fc1.*": "stages.{0}.blocks.{0}.mlp.up.*",
            "layers.{0}.blocks.{0}.mlp.fc2.*": "stages.{0}.blocks.{0}.mlp.down.*",
            "norm.*": "norm.*",
            "head.fc.*": "head.*",
        },
        timm_arguments,
        timm_config,
    ),
}
