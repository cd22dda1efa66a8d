"""The computational graph: what ran, what it read, what came back."""

import pytest
import torch
from torch.nn.functional import one_hot

from thalweg.build import build
from thalweg.data.streams import TensorStream
from thalweg.inspection.graph import draw_graph, graph
from thalweg.models.classical.mlp import mlp
from thalweg.models.vision.resnet import resnet9
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment
from thalweg.training.optimisers import sgd


def experiment(model, channels: int = 1) -> Experiment:
    examples = {"image": torch.rand(6, channels, 8, 8), "label": torch.arange(6) % 3}
    task = build(Classification, model=model, classes=tuple("abc"))
    return Experiment(task=task, train=TensorStream(examples, 6), steps=1, optimizer=sgd(0.1))


def test_the_graph_of_a_perceptron_is_a_chain_with_shapes_and_gradients():
    made = experiment(build(mlp, in_features=64, out_features=3, hidden_dims=[5]))
    nodes = graph(made)
    assert [(node.kind, node.shape, node.reads) for node in nodes] == [
        ("Linear", (6, 5), []),
        ("ReLU", (6, 5), [0]),
        ("Dropout", (6, 5), [1]),
        ("Linear", (6, 3), [2]),
    ]
    batch = next(iter(made.train))
    with torch.no_grad():
        probability = made.task.model(batch["image"]).softmax(1)
    back = (probability - one_hot(batch["label"], 3)) / 6  # of the loss with respect to the logits
    assert nodes[-1].gradient == pytest.approx(back.norm().item(), rel=1e-5)
    assert all(node.gradient is not None for node in nodes)


def test_the_order_of_the_nodes_is_topological_and_a_sum_reads_both_of_its_terms():
    nodes = graph(experiment(build(resnet9, in_channels=3, num_classes=3, width=4), channels=3))
    assert all(read < index for index, node in enumerate(nodes) for read in node.reads)
    assert [index for index, node in enumerate(nodes) if not node.reads] == [0]  # the image goes in at one place
    read = {index for node in nodes for index in node.reads}
    assert read == set(range(len(nodes) - 1))  # nothing was computed in vain
    assert any(len(node.reads) == 2 for node in nodes)  # what follows a residual sum


def test_the_graph_is_printed_and_drawn(tmp_path):
    text = draw_graph(experiment(build(mlp, in_features=64, out_features=3, hidden_dims=[5])), tmp_path / "graph.png")
    first, *_, last = text.splitlines()
    assert "6x5" in first
    assert "<- input" in first
    assert "6x3" in last
    assert "<- 2" in last
    assert "gradient" in last
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")
