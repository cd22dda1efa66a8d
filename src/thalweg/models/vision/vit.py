"""The Vision Transformer (ViT): an image is a sentence whose words are patches, read by a Transformer encoder.

z = [class, E patch_1, ..., E patch_M] + position; each block adds attention(norm(z)) to z, then mlp(norm(z)); the head
reads the class token (or the mean of the patches).
Dosovitskiy et al. 2020, arXiv:2010.11929.   LBDL 5.3
"""

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate

from thalweg.layers.attention import attention
from thalweg.layers.position import sinusoidal
from thalweg.weights import Config, Layout, patterns, understood

Pool = Literal["cls", "mean"]
Position = Literal["learned", "sinusoidal", "none"]


class Attention(nn.Module):
    """Multi-head self-attention: every patch reads every other.   x: [batch time embed] -> [batch time embed]"""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [batch head time dim]
        return self.output(attention(query, key, value).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """y = W_down gelu(W_up x): every patch for itself, through four times the width."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.up, self.down = nn.Linear(embed_dim, 4 * embed_dim), nn.Linear(4 * embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); dropout on both branches."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float, eps: float):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(embed_dim, eps), Attention(embed_dim, num_heads)
        self.mlp_norm, self.mlp = nn.LayerNorm(embed_dim, eps), MLP(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class ViT(nn.Module):
    """Patches become vectors, blocks let them read each other, a head names the image.

    image_size, patch_size: extents in pixels, so there are (image_size / patch_size)^2 patches.
    pool: what the head reads, "cls" a learned token beside the patches, "mean" the mean of the patches.
    position: what says where a patch lies: learned numbers, or the sines of its row and those of its column (Beyer et al. 2022,
    arXiv:2205.01580), or nothing: then an image is a set of patches (section D.4 compares them).
    image: [batch channel height width] -> logits [batch class].   ValueError if the sizes do not divide.
    """

    def __init__(
        self,
        embed_dim: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        image_size: int = 224,
        patch_size: int = 16,
        num_classes: int = 1000,
        in_channels: int = 3,
        pool: Pool = "cls",
        dropout: float = 0.0,
        eps: float = 1e-6,
        position: Position = "learned",
    ):
        super().__init__()
        if image_size % patch_size or embed_dim % num_heads:
            raise ValueError(f"image_size={image_size}, embed_dim={embed_dim}: expected multiples of patch_size={patch_size} "
                             f"and of num_heads={num_heads}")  # fmt: skip
        if pool not in ("cls", "mean"):
            raise ValueError(f"pool={pool!r}: expected cls or mean")
        if position not in ("learned", "sinusoidal", "none"):
            raise ValueError(f"position={position!r}: expected learned, sinusoidal or none")
        self.image_size = image_size
        self.embedding = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)  # W patch + b, every patch by itself
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if pool == "cls" else None
        self.encoding, side = position, image_size // patch_size
        self.position = nn.Parameter(torch.empty(1, side**2 + (pool == "cls"), embed_dim)) if position == "learned" else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, dropout, eps) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim, eps)
        self.head = nn.Linear(embed_dim, num_classes)
        self.apply(_initialise)
        if self.position is not None:
            nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"image: {tuple(image.shape[-2:])} pixels, expected {self.image_size} by {self.image_size}")
        x = self.embedding(image)
        if self.encoding == "sinusoidal":
            x = x + _places(x.shape[-1], x.shape[1], x)
        x = x.flatten(2).transpose(1, 2)  # [batch time embed]
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
        x = self.dropout(x if self.position is None else x + self.position)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x.mean(1) if self.class_token is None else x[:, 0])


def _places(side: int, dim: int, like: Tensor) -> Tensor:
    """The code of its row in the first half of the dimensions, that of its column in the other.   [dim side side]"""
    row = sinusoidal(0, side, dim // 2, like).T[:, :, None].expand(-1, -1, side)
    column = sinusoidal(0, side, dim - dim // 2, like).T[:, None].expand(-1, side, -1)
    return torch.cat([row, column])


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def resize(model: ViT, image_size: int) -> ViT:
    """The same model for images of another size: the positions of its patches are interpolated (section 3.2)."""
    patch = model.embedding.kernel_size[0]
    if image_size % patch:
        raise ValueError(f"image_size={image_size}: expected a multiple of patch_size={patch}")
    before, after = model.image_size // patch, image_size // patch
    model.image_size = image_size
    if model.position is None:
        return model
    token, grid = model.position.detach().split([model.position.shape[1] - before**2, before**2], 1)
    grid = grid.unflatten(1, (before, before)).permute(0, 3, 1, 2)  # [1 embed height width]
    grid = interpolate(grid, (after, after), mode="bicubic", antialias=True)
    model.position = nn.Parameter(torch.cat([token, grid.flatten(2).transpose(1, 2)], 1))
    return model


def vit_tiny_16(**arguments: Any) -> ViT:
    """12 blocks of width 192, 5,717,416 parameters for ImageNet."""
    return ViT(192, 12, 3, **arguments)


def vit_small_16(**arguments: Any) -> ViT:
    """12 blocks of width 384, 22,050,664 parameters for ImageNet."""
    return ViT(384, 12, 6, **arguments)


def vit_base_16(**arguments: Any) -> ViT:
    """12 blocks of width 768, 86,567,656 parameters for ImageNet."""
    return ViT(768, 12, 12, **arguments)


def sizes(model: ViT) -> dict[str, Any]:
    """What ViT was given.   ValueError where positions are not learned: no other library's ViT is like that."""
    if model.encoding != "learned":
        raise ValueError(f"position={model.encoding!r}: the ViTs of timm and transformers learn it")
    first: Any = model.blocks[0]
    return {"embed_dim": model.head.in_features, "num_layers": len(model.blocks), "num_heads": first.attention.num_heads,
            "image_size": model.image_size, "patch_size": model.embedding.kernel_size[0],
            "num_classes": model.head.out_features, "in_channels": model.embedding.in_channels, "dropout": model.dropout.p,
            "pool": "mean" if model.class_token is None else "cls", "eps": model.norm.eps}  # fmt: skip


TIMM = {"embed_dim": "embed_dim", "depth": "num_layers", "num_heads": "num_heads", "img_size": "image_size",
        "patch_size": "patch_size", "in_chans": "in_channels", "num_classes": "num_classes"}  # fmt: skip
TRANSFORMERS = {"hidden_size": "embed_dim", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads",
                "image_size": "image_size", "patch_size": "patch_size", "num_channels": "in_channels",
                "hidden_dropout_prob": "dropout", "layer_norm_eps": "eps"}  # fmt: skip


def timm_arguments(config: Config) -> dict[str, Any]:
    """What ViT takes, from timm's config.json."""
    name = re.fullmatch(r"(?:vit|deit)_(tiny|small|base)_patch(\d+)_(\d+)", str(config.get("architecture")))
    if not name:
        raise ValueError(f"config.json says architecture={config.get('architecture')!r}: expected vit_SIZE_patchP_PIXELS, "
                         "SIZE tiny, small or base")  # fmt: skip
    understood(config, ("architecture", "global_pool", "model_args", "num_classes"))
    embed_dim, num_heads = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}[name[1]]
    more = {"embed_dim": embed_dim, "depth": 12, "num_heads": num_heads, "img_size": int(name[3]),
            "patch_size": int(name[2]), "in_chans": 3, "num_classes": config["num_classes"], "class_token": True,
            "global_pool": config.get("global_pool", "token"), **config.get("model_args", {})}  # fmt: skip
    if more["global_pool"] == "token":
        understood(more, (*TIMM, "global_pool"), class_token=True)
    else:  # the mean of patches that the norm has seen; by itself timm's norm follows the mean
        understood({"fc_norm": True, **more}, (*TIMM,), global_pool="avg", class_token=False, fc_norm=False)
    height, width = more["img_size"] if isinstance(more["img_size"], list) else 2 * [more["img_size"]]
    if height != width:
        raise ValueError(f"config.json says img_size={more['img_size']}: expected a square")
    more["img_size"] = height
    return {ours: more[public] for public, ours in TIMM.items()} | {
        "pool": "cls" if more["global_pool"] == "token" else "mean", "eps": 1e-6}  # fmt: skip


def timm_config(model: ViT) -> Config:
    """timm's config.json; ValueError if timm has no such model."""
    size = sizes(model)
    if size["eps"] != 1e-6:
        raise ValueError(f"eps={size['eps']}: timm's ViTs have 1e-06")
    pool = {} if size["pool"] == "cls" else {"global_pool": "avg", "class_token": False, "fc_norm": False}
    return {"architecture": "vit_base_patch16_224", "num_classes": size["num_classes"],
            "model_args": {public: size[ours] for public, ours in TIMM.items()} | pool,
            "pretrained_cfg": {"first_conv": "patch_embed.proj", "classifier": "head", "fixed_input_size": True}}  # fmt: skip


def transformers_arguments(config: Config) -> dict[str, Any]:
    """What ViT takes, from the config.json of transformers' ViTForImageClassification."""
    understood(config, (*TRANSFORMERS, "encoder_stride", "pooler_act", "pooler_output_size"), model_type="vit",
               hidden_act="gelu", qkv_bias=True, attention_probs_dropout_prob=0.0,
               intermediate_size=4 * config.get("hidden_size", 0))  # fmt: skip
    labels = config.get("id2label", [0, 1])
    return {ours: config[public] for public, ours in TRANSFORMERS.items()} | {"num_classes": len(labels), "pool": "cls"}


def transformers_config(model: ViT) -> Config:
    """The config.json of transformers' ViTForImageClassification; ValueError if it has no such model."""
    size = sizes(model)
    if size["pool"] != "cls":
        raise ValueError(f"pool={size['pool']!r}: transformers' ViT reads the class token")
    return {"architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_act": "gelu", "qkv_bias": True,
            "intermediate_size": 4 * size["embed_dim"], **{public: size[ours] for public, ours in TRANSFORMERS.items()},
            "id2label": {str(label): f"LABEL_{label}" for label in range(size["num_classes"])}}  # fmt: skip


BARE: dict[str | tuple[str, ...], str | None] = {
    "embeddings.cls_token": "class_token",
    "embeddings.position_embeddings": "position",
    "embeddings.patch_embeddings.projection.*": "embedding.*",
    "encoder.layer.{0}.layernorm_before.*": "blocks.{0}.attention_norm.*",
    (
        "encoder.layer.{0}.attention.attention.query.*",
        "encoder.layer.{0}.attention.attention.key.*",
        "encoder.layer.{0}.attention.attention.value.*",
    ): "blocks.{0}.attention.qkv.*",
    "encoder.layer.{0}.attention.output.dense.*": "blocks.{0}.attention.output.*",
    "encoder.layer.{0}.layernorm_after.*": "blocks.{0}.mlp_norm.*",
    "encoder.layer.{0}.intermediate.dense.*": "blocks.{0}.mlp.up.*",
    "encoder.layer.{0}.output.dense.*": "blocks.{0}.mlp.down.*",
    "layernorm.*": "norm.*",
}
PUBLIC = {
    "timm": Layout(
        {
            "cls_token": "class_token",
            "pos_embed": "position",
            "patch_embed.proj.*": "embedding.*",
            "blocks.{0}.norm1.*": "blocks.{0}.attention_norm.*",
            "blocks.{0}.attn.qkv.*": "blocks.{0}.attention.qkv.*",
            "blocks.{0}.attn.proj.*": "blocks.{0}.attention.output.*",
            "blocks.{0}.norm2.*": "blocks.{0}.mlp_norm.*",
            "blocks.{0}.mlp.fc1.*": "blocks.{0}.mlp.up.*",
            "blocks.{0}.mlp.fc2.*": "blocks.{0}.mlp.down.*",
            "norm.*": "norm.*",
            "head.*": "head.*",
        },
        timm_arguments,
        timm_config,
    ),
    "transformers": Layout(
        {tuple(f"vit.{part}" for part in patterns(public)): ours for public, ours in BARE.items()} | {"classifier.*": "head.*"},
        transformers_arguments,
        transformers_config,
    ),
    "transformers-bare": Layout(  # ViTModel, which has no head
        BARE | {"classifier.*": "head.*", "pooler.dense.*": None}, transformers_arguments, transformers_config
    ),
}
