"""A small network learns from what a frozen encoder saw once."""

import pytest
import torch

from thalweg.adaptation.heads import probe, without_head
from thalweg.build import adapt, build, load, save
from thalweg.data.augmentation import flip
from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.transfer import Encoded, OnFeatures
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw


@pytest.fixture
def model():
    encoder = adapt(build(lenet, image_size=8), without_head)
    return adapt(encoder, probe, feature_dim=256, num_classes=10, hidden_dim=32)


def examples():
    train = digits().train
    return {"image": train["image"][:300] / 255, "label": train["label"][:300]}


def test_every_image_is_encoded_once(model, monkeypatch):
    seen = []
    before = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda x: seen.append(len(x)) or before(x))
    stream = Encoded(TensorStream(examples(), 64, shuffle=True), model.encoder)
    for number in range(3 * len(stream)):
        batch = stream.batch(number)
        torch.testing.assert_close(batch["features"], before(batch["image"]))
    assert sum(seen) == 300


def test_images_that_change_have_no_features_to_keep(model):
    with pytest.raises(ValueError, match="the stream augments its images"):
        Encoded(TensorStream(examples(), 64, augment=[flip()]), model.encoder)


def test_a_small_network_on_features_answers_for_images(model, tmp_path):
    stream = Encoded(TensorStream(examples(), 50, shuffle=True), model.encoder)
    task = build(OnFeatures, model=model, classes=list("0123456789"))
    frozen = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    training = Training(Experiment(task=task, train=stream, epochs=25, optimizer=adamw(3e-3)))
    for _ in training:
        pass
    assert dict(evaluate(training, stream))["accuracy"] > 0.9
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model.encoder.state_dict().items())
    save(training.evaluated, tmp_path)
    found = load(tmp_path).predict({"image": examples()["image"]}, top_k=1)
    named = torch.tensor([int(label) for (label,) in found["label"]])
    assert (named == examples()["label"]).float().mean() > 0.9
