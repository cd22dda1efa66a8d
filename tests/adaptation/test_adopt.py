"""Public weights become a classifier that names, is saved and loaded."""

import pytest
import torch

from thalweg import public
from thalweg.adaptation.adopt import adopt
from thalweg.build import build, load, save
from thalweg.data.sources import imagenet_classes
from thalweg.models.language.gpt import GPT
from thalweg.models.vision.mobilenet import MobileNetV2


@pytest.fixture
def weights(tmp_path):
    model = build(MobileNetV2, width=0.35, num_classes=3)
    seen = {"mean": [0.1, 0.2, 0.3], "deviation": [0.4, 0.5, 0.6], "size": [64, 64]}
    public.export(model, tmp_path / "weights", "timm", classes=["cat", "dog", "鸟"], **seen)
    return model.eval(), tmp_path / "weights"


def test_public_weights_become_a_classifier_that_is_saved(tmp_path, monkeypatch, weights):
    model, folder = weights
    monkeypatch.setattr("thalweg.adaptation.adopt.builder", lambda name: {"MobileNetV2": MobileNetV2}[name])
    task = adopt("MobileNetV2", str(folder))
    assert task.classes == ("cat", "dog", "鸟")
    image = torch.randint(0, 256, (1, 3, 80, 120), dtype=torch.uint8)
    seen = torch.nn.functional.interpolate(image[..., 5:75, 25:95], (64, 64), mode="bilinear", antialias=True)  # 7/8 of 80
    seen = (seen / 255 - task.model.mean) / task.model.deviation
    torch.testing.assert_close(task.model(image), model(seen), rtol=1e-4, atol=1e-5)
    save(task, tmp_path / "ours")
    assert load(tmp_path / "ours").predict({"image": image})["label"] == task.predict({"image": image})["label"]


def test_weights_alone_are_of_the_images_that_their_family_saw(weights):
    _, folder = weights
    assert public.preprocessing(folder)["size"] == [64, 64]
    file = folder / "model.safetensors"
    with pytest.raises(ValueError, match="does not say what images"):
        public.preprocessing(file)
    assert public.preprocessing(file, MobileNetV2) == {
        "mean": [0.485, 0.456, 0.406],
        "deviation": [0.229, 0.224, 0.225],
        "size": [224, 224],
    }


def test_the_thousand_classes_have_a_name_each():
    names = imagenet_classes()
    assert len(set(names)) == len(names) == 1000
    assert (names[0], names[1], names[698], names[985]) == ("tench", "goldfish", "palace", "daisy")


def test_a_model_that_classifies_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("thalweg.adaptation.adopt.builder", lambda name: GPT)
    public.export(build(GPT, vocab_size=11, context=8, embed_dim=8, num_layers=1, num_heads=2), tmp_path, "transformers")
    with pytest.raises(ValueError, match="model=GPT: expected a classifier of images, or BERT"):
        adopt("GPT", str(tmp_path))
