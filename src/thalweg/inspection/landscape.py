"""Losses as landscapes over the weights, and the ways down."""

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from thalweg.figures import new_figure


def logistic_surfaces() -> Figure:
    """Cross-entropy and squared error of the same logistic regression over its two weights, with 200 steps down from far off.

    Where all is answered wrongly squared error is as flat as where all is answered right.   LEE Logistic Regression
    """
    x = torch.tensor([[1.0, 0.2], [0.3, 1.0], [0.8, 0.8], [-1.0, -0.4], [-0.2, -1.0]])
    label = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])

    def losses(w: Tensor) -> tuple[Tensor, Tensor]:
        logits = w @ x.T
        surprise = functional.binary_cross_entropy_with_logits(logits, label.expand_as(logits), reduction="none")
        return surprise.mean(-1), (logits.sigmoid() - label).square().mean(-1)

    grid = torch.stack(torch.meshgrid(torch.linspace(-12, 12, 49), torch.linspace(-12, 12, 49), indexing="xy"), -1)
    figure = new_figure(9, 4.6)[0]
    figure.clf()
    for number, name in enumerate(("cross-entropy", "squared error")):
        w, way = torch.tensor([-9.0, -10.0], requires_grad=True), []
        for _ in range(200):
            height = losses(w)[number]
            way.append([*w.tolist(), height.item()])
            w = (w - torch.autograd.grad(height, w)[0]).detach().requires_grad_()
        axis = figure.add_subplot(1, 2, number + 1, projection="3d", computed_zorder=False)
        axis.plot_surface(grid[..., 0], grid[..., 1], losses(grid)[number], cmap="Blues_r")
        axis.plot(*zip(*way, strict=True), color="firebrick", linewidth=2.5)
        axis.plot(*way[-1], "o", color="black", markersize=5)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("first weight")
        axis.set_ylabel("second weight")
        axis.view_init(32, 20)
    return figure
