"""Style transfer: its terms by their formulas, who learns, and that the losses fall on two real photographs."""

import pytest
import torch
from torch import nn

from thalweg.build import build, load, save
from thalweg.data.streams import TensorStream
from thalweg.models.vision.vgg import VGG
from thalweg.recipes.style import _convolutions, style_transfer
from thalweg.tasks.style_transfer import Picture, StyleTransfer, wanted
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import adam


class Seen(nn.Module):
    """Two maps: the image, and two mixtures of its channels at half the extent."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 2, 2, 2)

    def features(self, image):
        return [image, self.mix(image)]


def test_the_loss_is_content_style_and_variation_each_relative_to_what_is_wanted():
    backbone = Seen().double()
    image, painting = torch.rand(2, 1, 3, 6, 8, dtype=torch.float64)
    task = StyleTransfer(Picture(6, 8).double(), backbone, 1, content_weight=2.0, style_weight=3.0, variation_weight=5.0)
    batch = wanted(backbone, image, painting, content=1)
    player, total, count = next(task.losses(batch))
    assert player is task.model
    assert count == 1

    def gram(x):
        channels, places = x.shape[1], x.shape[2] * x.shape[3]
        return [[float((x[0, i] * x[0, j]).sum()) / (channels * places) for j in range(channels)] for i in range(channels)]

    with torch.no_grad():
        ours, x = task.model(), task.model()[0]
        expected = 2 * float(((backbone.mix(ours) - backbone.mix(image)) ** 2).mean() / (backbone.mix(image) ** 2).mean())
        for map_of in (lambda y: y, backbone.mix):
            own, other = gram(map_of(ours)), gram(map_of(painting))
            cells = [(i, j) for i in range(len(own)) for j in range(len(own))]
            above = sum((own[i][j] - other[i][j]) ** 2 for i, j in cells)
            expected += 3 / 2 * above / sum(other[i][j] ** 2 for i, j in cells)
        pairs = [abs(float(x[c, i, j] - x[c, i + 1, j])) for c in range(3) for i in range(5) for j in range(8)]
        pairs += [abs(float(x[c, i, j] - x[c, i, j + 1])) for c in range(3) for i in range(6) for j in range(7)]
        expected += 5 * sum(pairs) / len(pairs)
    assert float(total.detach()) == pytest.approx(expected, rel=1e-10)


def test_only_the_picture_learns_and_the_backbone_sees_as_in_evaluation():
    backbone = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    backbone.features = lambda image: [backbone(image)]
    task = StyleTransfer(Picture(4, 4), backbone, 0)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    image = torch.rand(1, 3, 4, 4)
    stream = TensorStream(wanted(backbone.eval(), image, 1 - image, 0), 1)
    for _ in Training(Experiment(task=task, train=stream, steps=2, optimizer=adam(0.1)), device="cpu", precision="fp32"):
        pass
    changed = {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"model.image"}


def test_a_picture_comes_back_from_its_folder_and_is_the_answer(tmp_path):
    backbone = build(VGG, spec="4 M 8 M", num_classes=1, hidden_dims=[], image_size=8)
    task = build(StyleTransfer, model=build(Picture, height=8, width=12), backbone=backbone, content=1)
    save(task, tmp_path)
    answer = load(tmp_path).predict({})["image"]
    assert answer.dtype == torch.uint8
    assert torch.equal(answer, (task.model.image.detach().clamp(0, 1) * 255).round().to(torch.uint8))


def test_the_losses_fall_on_two_photographs_and_the_picture_is_drawn():
    experiment = style_transfer(height=32, updates=30)
    task, batch = experiment.task, next(iter(experiment.valid))
    assert batch["image"].shape == (1, 3, 32, 48)  # the aspect of the photograph
    with torch.no_grad():
        before = task.terms(batch)
    assert float(before["content"]) < 1e-3  # it starts as the photograph
    for _ in Training(experiment, device="cpu", precision="fp32"):
        pass
    with torch.no_grad():
        after = task.terms(batch)
    assert float(task.total(after)) < 0.5 * float(task.total(before))
    assert float(after["style"]) < 0.3 * float(before["style"])
    assert set(task.figures(batch)) == {"picture", "content, picture, style"}


def test_the_convolutions_of_public_weights_are_taken_over_and_others_refused(tmp_path):
    from safetensors.torch import save_file

    state = {name: torch.full_like(value, 0.5) for name, value in _convolutions(None).state_dict().items()}
    public = {name.replace("layers.", "features."): value for name, value in state.items() if name.startswith("layers.")}
    save_file({**public, "classifier.0.bias": torch.zeros(3)}, tmp_path / "vgg16.safetensors")
    taken = _convolutions(str(tmp_path / "vgg16.safetensors")).state_dict()
    assert all((value == 0.5).all() for name, value in taken.items() if name.startswith("layers."))
    del public["features.0.bias"]
    save_file(public, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors': expected the tensors features.\* of VGG-16, it holds 25 such"):
        _convolutions(str(tmp_path / "other.safetensors"))
