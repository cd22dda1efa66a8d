"""The computational graph of a recipe: what depends on what, shapes forward, gradient norms backward.   D2L 4.7"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from thalweg.figures import new_figure
from thalweg.training import Experiment, Training

MOST = 60  # boxes in a drawing; the text has them all


@dataclass
class Node:
    """A module that ran: what it read (other nodes), the shape it gave, the norm of the gradient that came back."""

    name: str
    kind: str
    shape: tuple[int, ...]
    reads: list[int] = field(default_factory=list)
    gradient: float | None = None


def graph(experiment: Experiment) -> list[Node]:
    """The nodes of one training step, in the order in which they ran: a topological order of the graph.

    A node is a module without submodules. An edge is a tensor: which node read what which node gave, followed through
    the operations between them by autograd's own graph.
    """
    training = Training(experiment, precision="fp32")
    nodes: list[Node] = []
    outputs: dict[object, int] = {}  # autograd's node of an output -> our node
    hooks = []
    for name, module in experiment.task.named_modules():
        if next(module.children(), None) is None and not name.startswith("metrics"):

            def keep(module: nn.Module, inputs: tuple, output: Tensor, name: str = name) -> None:
                if not isinstance(output, Tensor):
                    return
                node = Node(name, type(module).__name__, tuple(output.shape))
                node.reads = sorted({found for x in inputs if isinstance(x, Tensor) for found in _sources(x.grad_fn, outputs)})
                nodes.append(node)
                if output.grad_fn is not None:
                    outputs[output.grad_fn] = len(nodes) - 1
                    output.register_hook(lambda gradient: setattr(node, "gradient", float(gradient.norm())))

            hooks.append(module.register_forward_hook(keep))
    batch = training.place(next(experiment.train.batches(0)))
    for _, total, count in experiment.task.losses(batch):
        (total / count).backward()
    for hook in hooks:
        hook.remove()
    return nodes


def _sources(start: object, outputs: dict[object, int]) -> set[int]:
    """The nearest nodes of ours behind a place in autograd's graph."""
    found, seen, waiting = set(), set(), [start]
    while waiting:
        place = waiting.pop()
        if place is None or place in seen:
            continue
        seen.add(place)
        if place in outputs:
            found.add(outputs[place])
        else:
            waiting.extend(following for following, _ in place.next_functions)  # type: ignore[attr-defined]
    return found


def draw_graph(experiment: Experiment, path: Path) -> str:
    """Draws the graph into a picture and returns it as text, a line a node."""
    torch.manual_seed(0)
    nodes = graph(experiment)
    lines = []
    for index, node in enumerate(nodes):
        came = "" if node.gradient is None else f"   gradient {node.gradient:.3g}"
        reads = ", ".join(str(i) for i in node.reads) or "input"
        lines.append(f"{index:3} {node.name:40} {node.kind:18} {'x'.join(map(str, node.shape)):20} <- {reads}{came}")
    _picture(nodes[:MOST], path)
    return "\n".join(lines)


def _picture(nodes: list[Node], path: Path) -> None:
    figure, axes = new_figure(9, 0.52 * len(nodes) + 0.6)
    axis = axes[0, 0]
    axis.axis("off")
    axis.set_xlim(0, 10)
    axis.set_ylim(-len(nodes), 0.6)
    norms = [node.gradient for node in nodes if node.gradient]
    largest = max(norms, default=1.0)
    for index, node in enumerate(nodes):
        axis.add_patch(
            FancyBboxPatch((2.2, -index - 0.32), 4.4, 0.64, "round,pad=0.03", facecolor="#eaf2fb", edgecolor="#34618f")
        )
        axis.text(2.35, -index, f"{node.name}  ({node.kind})", va="center", fontsize=7.5)
        axis.text(6.5, -index, " x ".join(map(str, node.shape)), va="center", ha="right", fontsize=7.5, color="#34618f")
        if node.gradient is not None:
            axis.barh(-index, 2.2 * node.gradient / largest, left=6.9, height=0.4, color="#c9603a")
            axis.text(9.2, -index, f"{node.gradient:.2g}", va="center", fontsize=7, color="#7a3418")
        for read in node.reads:
            span = index - read
            if span == 1:
                axis.annotate("", (4.4, -index + 0.36), (4.4, -read - 0.36), arrowprops={"arrowstyle": "->", "color": "#555"})
            else:
                bend = {
                    "arrowstyle": "->",
                    "color": "#888",
                    "connectionstyle": f"bar,angle=180,fraction={-min(0.5, 1.2 / span)}",
                }
                axis.annotate("", (2.15, -index), (2.15, -read), arrowprops=bend)
    axis.set_title("forward: shapes (blue)      backward: gradient norms (red)", fontsize=9)
    figure.savefig(path)
