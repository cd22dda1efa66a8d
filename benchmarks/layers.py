"""Layers that torch has not: forward and backward, against the best public form that can be installed, or the naive one.

timm           DropPath
torchvision    its roi_align in pure Python (the compiled operators need its own build of torch)
naive          what one would write by the definition: a loop over boxes or times, autograd that keeps everything
Each is the median of runs that alternate; over: how many times faster ours is. Needs timm and torchvision.
"""

import json
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # torchvision would compile its roi_align, which takes minutes

import compare
import torch
import torchvision.ops  # loads the module below, which its function of that name hides
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, affine_grid, dropout, grid_sample

from thalweg.layers.dropout import ByteDropout, LockedDropout, StochasticDepth
from thalweg.layers.gating import Highway, maxout
from thalweg.layers.regions import roi_align, roi_pool
from thalweg.layers.reversible import Reversible, ReversibleBlock
from thalweg.layers.spatial_transformer import SpatialTransformer

TORCHVISION = sys.modules[f"{torchvision.ops.__name__}.roi_align"]
BOXES = 32


def timed(function: Callable[..., Tensor], *inputs: Tensor, least: float = 0.1) -> Callable[[], float]:
    """Seconds of forward and backward, the mean over so many times that they take `least` seconds."""
    inputs = tuple(x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs)

    def run() -> float:
        start, count = time.perf_counter(), 0
        while (taken := time.perf_counter() - start) < least:
            for x in inputs:
                x.grad = None
            function(*inputs).sum().backward()
            count += 1
        return taken / count

    return run


def compared(ours: Callable[..., Tensor], peer: Callable[..., Tensor], *inputs: Tensor, exact: bool = True) -> dict:
    """Milliseconds of ours and the peer's, and their ratio; exact: whether they give the same, which is then checked."""
    if exact:
        torch.testing.assert_close(ours(*inputs), peer(*inputs), rtol=1e-4, atol=1e-4)
    seconds = compare.alternate({"ours": timed(ours, *inputs), "peer": timed(peer, *inputs)})
    milliseconds = {name: round(1e3 * taken, 3) for name, taken in seconds.items()}
    return {"milliseconds": milliseconds, "over": round(seconds["peer"] / seconds["ours"], 2)}


def boxes(extent: float) -> Tensor:
    first, side = torch.rand(2, BOXES, 2) * extent * 0.6, torch.rand(2, BOXES, 2) * extent * 0.35 + 8
    return torch.cat([first, first + side], 2)


def flat(box: Tensor) -> Tensor:
    """As torchvision takes them: the number of the image in front."""
    return torch.cat([torch.arange(2.0).repeat_interleave(BOXES)[:, None], box.flatten(0, 1)], 1)


def pool_by_loop(x: Tensor, box: Tensor) -> Tensor:
    corners = (box * 0.25 + 0.5).floor().long().tolist()
    return torch.stack([torch.stack([adaptive_max_pool2d(x[b, :, t : d + 1, l : r + 1], 7) for l, t, r, d in corners[b]])
                        for b in range(2)])  # fmt: skip


def regions() -> dict:
    x, box = torch.randn(2, 64, 50, 50), boxes(200)

    def theirs(ratio: int) -> Callable[[Tensor], Tensor]:
        return lambda x: TORCHVISION._roi_align(x, flat(box), 0.25, 7, 7, ratio, True).unflatten(0, (2, BOXES))

    return {
        "roi_align_2_torchvision": compared(lambda x: roi_align(x, box, (7, 7), 0.25, 2), theirs(2), x),
        "roi_align_adaptive_torchvision": compared(
            lambda x: roi_align(x[:, :4], box, (7, 7), 0.25), lambda x: theirs(-1)(x[:, :4]), x
        ),  # four channels: torchvision takes as many places in each bin as there are pixels, gigabytes for 64
        "roi_pool_naive": compared(lambda x: roi_pool(x, box, (7, 7), 0.25), lambda x: pool_by_loop(x, box), x),
    }


def locked_by_loop(x: Tensor) -> Tensor:
    mask = dropout(torch.ones_like(x[:, 0]), 0.3)
    return torch.stack([x[:, t] * mask for t in range(x.shape[1])], 1)


def dropping() -> dict:
    x, sequence = torch.randn(64, 64, 28, 28), torch.randn(32, 128, 256)
    return {
        "stochastic_depth_timm": compared(StochasticDepth(0.1).train(), DropPath(0.1).train(), x, exact=False),
        "byte_dropout_torch": compared(ByteDropout(0.1).train(), nn.Dropout(0.1).train(), sequence, exact=False),
        "locked_dropout_naive": compared(LockedDropout(0.3).train(), locked_by_loop, sequence, exact=False),
    }


def gating() -> dict:
    x, highway = torch.randn(512, 256), Highway(nn.Sequential(nn.Linear(256, 256), nn.ReLU()), 256)

    def naive(x: Tensor) -> Tensor:
        gate = highway.gate(x).sigmoid()
        return gate * highway.branch(x) + (1 - gate) * x

    return {
        "maxout_naive": compared(lambda x: maxout(x, 4), lambda x: x.reshape(512, 64, 4).max(-1).values, x),
        "highway_naive": compared(highway, naive, x),
    }


def reversible() -> dict:
    def part() -> nn.Module:
        return nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128))

    x, model = torch.randn(256, 256), Reversible(ReversibleBlock(part(), part()) for _ in range(8))

    def kept(x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        for block in model.blocks:
            first, second = block(first, second)
        return torch.cat([first, second], 1)

    return {"reversible_kept": compared(model, kept, x)}


def transforming() -> dict:
    x = torch.randn(64, 1, 42, 42)
    layer = SpatialTransformer(nn.Sequential(nn.Flatten(), nn.Linear(42 * 42, 32), nn.ReLU()), 32, [28, 28])

    def naive(x: Tensor) -> Tensor:
        grid = affine_grid(layer.affine(x), [64, 1, 28, 28], align_corners=False)
        return grid_sample(x, grid, padding_mode="border", align_corners=False)

    return {"spatial_transformer_naive": compared(layer, naive, x)}


if __name__ == "__main__":
    print(json.dumps({
        "what": "forward and backward; over: how many times faster ours is; reversible_kept keeps every activation, ours none",
        **regions(), **dropping(), **gating(), **reversible(), **transforming(),
    }))  # fmt: skip
