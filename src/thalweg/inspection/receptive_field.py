"""The receptive field: the part of the image that a place of a map depends on, by arithmetic and by the gradient.   LBDL 4.2"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.figures import draw_boxes
from thalweg.layers.standardize import Standardized
from thalweg.training import Experiment

# Operations of autograd's graph that move nothing from place to place.
POINTWISE = (
    "Add", "Sub", "Mul", "Div", "Neg", "Exp", "Cat", "Clone", "ToCopy", "Alias", "Relu", "LeakyRelu", "Elu", "Gelu", "Silu",
    "Mish", "Softplus", "Tanh", "Sigmoid", "Hardsigmoid", "Hardswish", "Hardtanh", "NativeBatchNorm", "NativeDropout",
)  # fmt: skip


@dataclass(frozen=True)
class ReceptiveField:
    """Along one axis: place i sees the pixels start + i step, ..., start + i step + size - 1; those outside are padding."""

    size: int = 1
    step: int = 1
    start: int = 0

    def through(self, kernel: int, stride: int, padding: int, dilation: int) -> "ReceptiveField":
        """After a layer more.   size + dilation (kernel - 1) step,   step stride,   start - padding step"""
        size = self.size + dilation * (kernel - 1) * self.step
        return ReceptiveField(size, self.step * stride, self.start - padding * self.step)

    def beside(self, other: "ReceptiveField") -> "ReceptiveField":
        """Of a sum or a concatenation: from the earlier start to the later end. ValueError for maps of unequal steps."""
        if self.step != other.step:
            raise ValueError(f"maps at steps of {self.step} and {other.step} pixels come together: no place is in one field")
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return ReceptiveField(end - start, self.step, start)

    def pixels(self, place: int, extent: int) -> range:
        """The pixels of an image of that extent that a place sees."""
        first = self.start + place * self.step
        return range(max(first, 0), min(first + self.size, extent))


def receptive_field(function: Callable[[Tensor], Tensor], image: Tensor) -> tuple[ReceptiveField, ...]:
    """The field of the map function(image), an axis (height, width), from kernels, strides, paddings and dilations.

    They are read off the graph that autograd records, so any wiring of convolutions and poolings is understood, whatever
    way it is written; image: [batch channel height width], whose numbers do not matter.
    ValueError for an operation that is neither a convolution, nor a pooling, nor one of POINTWISE: it sees the whole map.
    """
    image = image.detach().requires_grad_()
    root = image.view_as(image)  # the place in the graph where the image goes in
    output = function(root)
    assert root.grad_fn is not None
    found: dict[Any, tuple[ReceptiveField, ...] | None] = {root.grad_fn: (ReceptiveField(),) * (image.ndim - 2)}
    waiting = [output.grad_fn]
    while waiting:
        node: Any = waiting[-1]
        before = [source for source, _ in node.next_functions if source is not None] if node is not None else []
        if node in found or not (missing := [source for source in before if source not in found]):
            waiting.pop()
            if node not in found:
                found[node] = _after(node, [field for source in before if (field := found[source]) is not None])
        else:
            waiting += missing
    field = found[output.grad_fn]
    if field is None:
        raise ValueError("function: what it gives does not depend on the image")
    return field


def _after(node: Any, fields: list[tuple[ReceptiveField, ...]]) -> tuple[ReceptiveField, ...] | None:
    """The field of what an operation gives, of the fields of what it reads (weights have none)."""
    if not fields:
        return None
    union = fields[0]
    for field in fields[1:]:
        union = tuple(one.beside(other) for one, other in zip(union, field, strict=True))
    name = type(node).__name__.removesuffix("0").removesuffix("Backward")
    if name == "Convolution" and not node._saved_transposed:
        kernel = node._saved_weight.shape[2:]
        layer = (kernel, node._saved_stride, node._saved_padding, node._saved_dilation)
    elif name in ("MaxPool2DWithIndices", "AvgPool2D"):
        kernel = node._saved_kernel_size
        dilation = node._saved_dilation if name[0] == "M" else (1,) * len(kernel)
        layer = (kernel, node._saved_stride or kernel, node._saved_padding, dilation)
    elif name in POINTWISE:
        return union
    else:
        raise ValueError(f"function: {name} is no convolution, pooling or pointwise operation, so its field is the whole map")
    return tuple(field.through(*numbers) for field, *numbers in zip(union, *layer, strict=True))


def measured_receptive_field(function: Callable[[Tensor], Tensor], image: Tensor, place: tuple[int, ...]) -> tuple[range, ...]:
    """The pixels, an axis, between the outermost whose change changes the map at a place: those with a gradient.

    image: [batch channel height width], the union over its examples, because a maximum sees one pixel of each at a time.
    ValueError if the place sees nothing.
    """
    image = image.detach().requires_grad_()
    at: tuple[Any, ...] = (..., *place)
    (gradient,) = torch.autograd.grad(function(image)[at].sum(), image)
    seen = (gradient != 0).flatten(0, 1).any(0)
    if not seen.any():
        raise ValueError(f"place={place}: no pixel of these images has a gradient there")
    places = seen.nonzero()
    return tuple(range(int(axis.min()), int(axis.max()) + 1) for axis in places.T)


def _map(backbone: Any, stage: int, image: Tensor) -> Tensor:
    return backbone.features(image)[stage]


def draw_receptive_fields(experiment: Experiment, path: Path) -> str:
    """Draws over an image what the middle place of each map of a backbone sees, and returns the fields, a line a map.

    A frame is the field by arithmetic; bright is what the place depends on by its gradient, which few of the pixels in the
    frame have much of (Luo et al. 2016, arXiv:1701.04128).   ValueError if the recipe's model gives no maps.
    """
    torch.manual_seed(0)
    task, batch = experiment.task.eval(), next(iter(experiment.train.batches(0)))
    eyes = next((module for module in task.modules() if isinstance(module, Standardized)), None)
    parts = [] if eyes is None else [*eyes.model.modules()]
    backbone: Any = next((module for module in parts if hasattr(module, "features")), None)
    if eyes is None or backbone is None or "image" not in batch:
        raise ValueError(f"{type(task).__name__}: expected a recipe whose model gives a map a stage, such as lenet-digits")
    for module in parts:
        if isinstance(module, nn.BatchNorm2d) and module.weight is not None and not module.weight.any():
            nn.init.ones_(module.weight)  # blocks that start as their shortcut would see through it alone
    seen = eyes.standardize(batch["image"][:8]).requires_grad_()
    shown, frames, lines = [], [], []
    for stage, feature in enumerate(backbone.features(seen)):
        place = tuple(side // 2 for side in feature.shape[-2:])
        rows, columns = receptive_field(partial(_map, backbone, stage), seen[:1])
        (gradient,) = torch.autograd.grad(feature[:, :, *place].square().sum(), seen, retain_graph=True)
        heat = gradient.abs().mean((0, 1)).sqrt()
        pixels = seen[:1].detach() * eyes.deviation + eyes.mean
        shown.append((0.35 * pixels.clamp(0, 1) + 0.65 * heat / heat.max()).expand(-1, 3, -1, -1))
        top, left = (field.start + at * field.step for field, at in zip((rows, columns), place, strict=True))
        frames.append(torch.tensor([[left, top, left + columns.size, top + rows.size]]).float())
        extent = f"of {seen.shape[2]}x{seen.shape[3]}"
        lines.append(f"stage {stage + 1}: {rows.size}x{columns.size} pixels, every {rows.step}, {extent}")
    figure = draw_boxes(torch.cat(shown), frames, columns=min(4, len(shown)))
    for axis, line in zip(figure.axes, lines, strict=False):
        axis.set_title(line, fontsize=7)
    figure.savefig(path)
    return "\n".join(lines)
