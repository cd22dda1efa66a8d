"""Fast style transfer: the terms of the slow one for every image, who learns, and that a style is learned."""

import pytest
import torch

from thalweg.build import adapt, build, load, save
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import standardize
from thalweg.models.vision.painter import Painter
from thalweg.models.vision.vgg import VGG
from thalweg.tasks.fast_style import FastStyle
from thalweg.tasks.style_transfer import Picture, StyleTransfer, wanted
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import adam


def trunk():
    plain = build(VGG, spec="8 M 12 M 16 M", num_classes=1, hidden_dims=[], image_size=16)
    return adapt(plain, standardize, mean=[0.5] * 3, deviation=[0.25] * 3, size=[32, 32])


def task(width=4, **weights):
    return build(FastStyle, model=build(Painter, width=width, num_blocks=1), backbone=trunk(), **weights)


def stripes(count=1, side=32):
    """Red and white ones, four pixels each."""
    image = torch.ones(count, 3, side, side)
    image[:, 1:, torch.arange(side) // 4 % 2 == 0] = 0
    return image


def test_the_loss_is_that_of_style_transfer_for_each_image():
    torch.manual_seed(0)
    weights = {"content_weight": 2.0, "style_weight": 3.0, "variation_weight": 5.0}
    fast = task(**weights).double()
    image = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    fast.study(stripes().double())
    player, total, count = next(fast.losses({"image": image}))
    assert player is fast.model
    assert count == 3
    expected = 0.0
    for one in image:
        slow = StyleTransfer(Picture(32, 32).double(), fast.backbone, **weights)
        with torch.no_grad():
            slow.model.image.copy_(fast.model(one[None]))
            expected += float(slow.total(slow.terms(wanted(fast.backbone, one[None], stripes().double()))))
    assert float(total.detach()) == pytest.approx(expected, rel=1e-10)


def test_only_the_painter_learns():
    fast = task()
    fast.study(stripes())
    before = {name: value.clone() for name, value in fast.state_dict().items()}
    stream = TensorStream({"image": torch.rand(4, 3, 32, 32)}, 2)
    for _ in Training(Experiment(task=fast, train=stream, steps=2, optimizer=adam(0.1)), device="cpu", precision="fp32"):
        pass
    changed = {name for name, value in fast.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("model.")}


def test_it_comes_back_from_its_folder_and_paints_photographs_of_any_extent(tmp_path):
    fast = task().eval()
    fast.study(stripes())
    save(fast, tmp_path)
    image = torch.randint(256, (1, 3, 21, 50), dtype=torch.uint8)
    painted = load(tmp_path).eval().predict({"image": image})["image"]
    assert painted.dtype == torch.uint8
    assert painted.shape == image.shape
    assert torch.equal(painted, fast.predict({"image": image})["image"])
    assert fast.predict({"image": image}, longer=25)["image"].shape == (1, 3, 10, 25)
    assert set(fast.figures({"image": image})) == {"painted"}


def test_a_small_painter_learns_the_style_of_stripes():
    torch.manual_seed(0)
    fast = task(width=8, content_weight=0.1)
    fast.study(stripes())
    photographs = torch.nn.functional.interpolate(torch.rand(16, 3, 4, 4), (32, 32), mode="bilinear")
    seen = {"image": photographs[12:]}  # not to learn on

    def told():
        with torch.no_grad():
            return {name: float(term) / 4 for name, term in fast.terms(seen).items()}

    before = told()
    stream = TensorStream({"image": photographs[:12]}, 4, shuffle=True)
    for _ in Training(Experiment(task=fast, train=stream, steps=60, optimizer=adam(0.01)), device="cpu", precision="fp32"):
        pass
    assert told()["style"] < 0.3 * before["style"]
    painted = fast.model(photographs[12:]).detach()
    assert painted[:, 0].mean() > painted[:, 1].mean() + 0.1  # red, on the whole
