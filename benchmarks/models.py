"""Families against the public implementation of the same model: a training step, a look at images, and text token by token.

ours       Training at its defaults (native bf16 where there is, channels-last, fused AdamW)
default    the peer as its users get it: float32, torch's own layout and AdamW
best       the peer with all that ours uses: bf16 autocast, channels-last, fused AdamW
All have the same architecture, batch and loss, and start from weights of their own.
Needs timm and transformers.
"""

import json
import time

import compare
import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from thalweg.decoding.sampling import complete
from thalweg.models.language.gpt import GPT
from thalweg.models.vision.resnet import resnet18
from thalweg.models.vision.vit import ViT
from thalweg.tasks.language_modelling import LanguageModelling
from thalweg.training import Experiment, Task, Training
from thalweg.training.machine import keep_memory, native_bf16
from thalweg.training.optimisers import adamw

STEPS, TOKENS = 8, 128
BF16 = native_bf16(torch.device("cpu"))


class Naming(Task):
    """Classification without its metrics and pictures."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def loss(self, batch):
        return cross_entropy(self.model(batch["image"]), batch["label"], reduction="sum"), len(batch["label"])


class Same:
    """A stream of one batch again and again."""

    def __init__(self, batch):
        self.batch = batch

    def __len__(self) -> int:
        return STEPS

    def batches(self, start: int):
        while True:
            yield self.batch


def ours(task: Task, batch) -> float:
    training = Training(Experiment(task=task, train=Same(batch), steps=STEPS, optimizer=adamw(1e-3)), device="cpu")
    start = time.perf_counter()
    for _ in training:
        pass
    return time.perf_counter() - start


def by_hand(model: nn.Module, loss, inputs, *, best: bool) -> float:
    model.train()
    if best:
        model.to(memory_format=torch.channels_last)
        inputs = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=best or None)
    start = time.perf_counter()
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16, enabled=best and BF16):
            value = loss(model, *inputs)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return time.perf_counter() - start


def compared(runs, work: int) -> dict:
    """Work a second of each, and how much faster ours is."""
    seconds = compare.alternate(runs, repeats=3)
    return {
        "per_second": {name: round(work / taken, 1) for name, taken in seconds.items()},
        "over": {name: round(taken / seconds["ours"], 2) for name, taken in seconds.items() if name != "ours"},
    }


def images(make_ours, make_peer, size: int, batch_size: int) -> dict:
    image, label = torch.randn(batch_size, 3, size, size), torch.randint(0, 10, (batch_size,))

    def loss(model, image, label):
        return cross_entropy(model(image), label)

    return compared({
        "ours": lambda: ours(Naming(make_ours()), {"image": image, "label": label}),
        "default": lambda: by_hand(make_peer(), loss, [image, label], best=False),
        "best": lambda: by_hand(make_peer(), loss, [image, label], best=True),
    }, STEPS * batch_size)  # fmt: skip


def seeing(make_ours, make_peer, size: int, batch_size: int) -> dict:
    """What trained networks say of images: ours as `evaluate` asks it, the peer in evaluation mode."""
    image = torch.randn(batch_size, 3, size, size)
    training = Training(Experiment(task=Naming(make_ours()), train=Same({}), steps=STEPS, optimizer=adamw(1e-3)), device="cpu")
    task, peers = training.task.eval(), {name: make_peer().eval() for name in ("default", "best")}
    peers["best"].to(memory_format=torch.channels_last)

    def timed(see) -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            see()
        return time.perf_counter() - start

    def see_ours() -> None:
        with torch.no_grad(), training.autocast():
            task.model(training.place({"image": image})["image"])

    def see(name: str) -> None:
        best = name == "best"
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=best and BF16):
            peers[name](image.contiguous(memory_format=torch.channels_last) if best else image)

    return compared({
        "ours": lambda: timed(see_ours),
        "default": lambda: timed(lambda: see("default")),
        "best": lambda: timed(lambda: see("best")),
    }, STEPS * batch_size)  # fmt: skip


def small_stem() -> nn.Module:
    model = timm.create_model("resnet18", num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return model


SIZES = {"vocab_size": 65, "n_positions": 256, "n_embd": 384, "n_layer": 6, "n_head": 6, "resid_pdrop": 0.0,
         "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": None}  # fmt: skip


def peer_gpt() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(**SIZES))


def our_gpt() -> GPT:
    return GPT(vocab_size=65, context=256, embed_dim=384, num_layers=6, num_heads=6)


def texts() -> dict:
    tokens = torch.randint(0, 65, (32, 257))
    mask = torch.ones_like(tokens, dtype=torch.bool)

    def loss(model, tokens):
        return cross_entropy(model(input_ids=tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())

    alphabet = "".join(chr(65 + number) for number in range(65))
    return compared({
        "ours": lambda: ours(LanguageModelling(our_gpt(), alphabet, 256), {"tokens": tokens, "mask": mask}),
        "default": lambda: by_hand(peer_gpt(), loss, [tokens], best=False),
        "best": lambda: by_hand(peer_gpt(), loss, [tokens], best=True),
    }, STEPS * 32 * 256)  # fmt: skip


def writing() -> dict:
    prompt, model, peer = torch.randint(0, 65, (1, 16)), our_gpt().eval(), peer_gpt().eval()

    def timed(write) -> float:
        start = time.perf_counter()
        write()
        return time.perf_counter() - start

    return compared({
        "ours": lambda: timed(lambda: complete(model, list(prompt), TOKENS, context=256)),
        "default": lambda: timed(lambda: peer.generate(prompt, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)),
    }, TOKENS)  # fmt: skip


if __name__ == "__main__":
    keep_memory()
    print(json.dumps({
        "what": "images or tokens a second; over: how many times faster ours is than the peer",
        "resnet18_32_timm": images(lambda: resnet18(num_classes=10, stem="small"), small_stem, 32, 128),
        "resnet18_32_seeing_timm": seeing(lambda: resnet18(num_classes=10, stem="small"), small_stem, 32, 128),
        "vit_tiny_224_timm": images(lambda: ViT(192, 12, 3, num_classes=10),
                                    lambda: timm.create_model("vit_tiny_patch16_224", num_classes=10), 224, 16),
        "gpt2_6x384_transformers": texts(),
        "gpt2_6x384_greedy_fp32_transformers": writing(),
    }))  # fmt: skip
