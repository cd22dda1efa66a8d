"""Heads: what remains without one, and what a probe learns."""

import pytest
import torch
from torch import nn

from thalweg.adaptation.heads import probe, without_head
from thalweg.build import adapt, build, load, save
from thalweg.models.vision.lenet import lenet
from thalweg.models.vision.resnet import resnet9


def test_without_its_head_a_model_gives_the_features_that_the_head_saw():
    model = resnet9(in_channels=1, num_classes=10, width=4).eval()
    image = torch.randn(2, 1, 16, 16)
    head, logits = model.head, model(image)
    features = without_head(model)(image)
    assert features.shape == (2, 32)
    torch.testing.assert_close(head(features), logits)
    assert not any(name.startswith("head") for name, _ in model.named_parameters())


def test_a_model_without_a_head_is_refused():
    with pytest.raises(ValueError, match="Sequential has no head; it has"):
        without_head(nn.Sequential(nn.Linear(2, 2)))


def test_only_the_head_of_a_probe_learns_and_the_encoder_keeps_its_statistics(tmp_path):
    model = adapt(adapt(build(lenet), without_head), probe, feature_dim=256, num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    model.train()
    model(torch.randn(8, 1, 28, 28)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["head.weight", "head.bias"]
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, before[name])
    save(model, tmp_path)
    image = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(load(tmp_path)(image), model.eval()(image))


def test_a_probe_reads_features_of_any_scale_alike():
    features = torch.randn(50, 4)
    first, second = probe(nn.Identity(), feature_dim=4, num_classes=2), probe(nn.Identity(), feature_dim=4, num_classes=2)
    second.head.load_state_dict(first.head.state_dict())
    scaled = features * torch.tensor([1e2, 5.0, 1.0, 3.0]) + 7
    torch.testing.assert_close(first(features), second(scaled), rtol=1e-3, atol=1e-3)
