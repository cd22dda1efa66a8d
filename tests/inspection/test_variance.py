"""Variances before training: measured where they arise, and what explodes is seen."""

import pytest
import torch
from torch import nn

from thalweg import cli
from thalweg.build import build
from thalweg.data.streams import TensorStream
from thalweg.inspection.variance import draw_variances, variances
from thalweg.models.classical.mlp import mlp
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment
from thalweg.training.optimisers import sgd


def experiment(hidden_dims, deviation=None):
    model = build(mlp, in_features=64, out_features=3, hidden_dims=hidden_dims)
    if deviation:
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=deviation)
                nn.init.zeros_(layer.bias)
    examples = {"image": torch.rand(6, 1, 8, 8), "label": torch.arange(6) % 3}
    task = build(Classification, model=model, classes=tuple("abc"))
    return Experiment(task=task, train=TensorStream(examples, 6), steps=1, optimizer=sgd(0.1))


def test_the_variances_of_a_perceptron_are_those_of_its_formula():
    made = experiment([5])
    before = [parameter.clone() for parameter in made.task.parameters()]
    first, last = variances(made)
    assert (first.kind, last.kind) == ("Linear", "Linear")
    batch = next(iter(made.train))
    layers = [layer for layer in made.task.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        hidden = layers[0](batch["image"].flatten(1))
        logits = layers[1](hidden.relu())
        assert first.activation == pytest.approx(hidden.var().item(), rel=1e-5)
        assert last.activation == pytest.approx(logits.var().item(), rel=1e-5)
        back = logits.softmax(1) - torch.nn.functional.one_hot(batch["label"], 3)  # of an example's own loss
        assert last.gradient == pytest.approx(back.square().mean().item(), rel=1e-5)
        behind = (back @ layers[1].weight) * (hidden > 0)
        assert first.gradient == pytest.approx(behind.square().mean().item(), rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, made.task.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in made.task.parameters())


def test_what_vanishes_is_seen(tmp_path):
    layers = variances(experiment([32] * 20, deviation=0.02))
    assert layers[-2].activation < 1e-10 * layers[0].activation
    assert layers[0].gradient < 1e-10 * layers[-1].gradient
    text = draw_variances(experiment([32] * 20, deviation=0.02), tmp_path / "variance.png")
    assert len(text.splitlines()) == 21
    assert (tmp_path / "variance.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_shows_them(tmp_path, capsys):
    cli.main(["show", "--variance", "lenet-digits", "--out", str(tmp_path / "a.png")])
    lines = capsys.readouterr().out.splitlines()
    assert "head" in lines[-2]
    assert "gradients" in lines[0]
    assert (tmp_path / "a.png").exists()
