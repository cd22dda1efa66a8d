"""Restoration: the loss and the metrics against their formulas, what a person gets, and that it learns."""

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from thalweg.build import build, load, save
from thalweg.data.augmentation import flip
from thalweg.data.degradation import noise
from thalweg.data.photographs import patches
from thalweg.data.streams import TensorStream
from thalweg.models.vision.dncnn import DnCNN
from thalweg.models.vision.nafnet import NAFNet
from thalweg.tasks.restoration import Restoration
from thalweg.training import Experiment, Training
from thalweg.training.loop import evaluate
from thalweg.training.optimisers import adamw


class Darker(nn.Module):
    """Answers with a part of the brightness."""

    def __init__(self, factor=0.5):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, image):
        return image * self.factor


@pytest.fixture
def batch():
    image, target = torch.randint(0, 256, (2, 4, 3, 16, 18), dtype=torch.uint8)
    return {"image": image, "target": target}


def test_the_loss_is_the_sum_of_absolute_differences_on_the_scale_of_one(batch):
    task = Restoration(Darker())
    total, count = task.loss(batch)
    difference = batch["image"].double() / 255 / 2 - batch["target"].double() / 255
    assert count == difference.numel()
    total.backward()
    total = total.detach()
    assert float(total) == pytest.approx(float(difference.abs().sum()), rel=1e-5)
    slope = (difference.sign() * batch["image"].double() / 255).sum()
    assert float(task.model.factor.grad) == pytest.approx(float(slope), rel=1e-4)
    scaled = {name: value.float() / 255 for name, value in batch.items()}
    assert float(task.loss(scaled)[0].detach()) == pytest.approx(float(total), rel=1e-6)


def test_the_metrics_are_psnr_of_all_pixels_and_ssim_after_and_before(batch):
    task = Restoration(Darker(1.5))
    for part in (slice(0, 1), slice(1, 4)):
        task.evaluate({name: value[part] for name, value in batch.items()})
    found = {name: float(value) for name, value in task.metrics.compute().items()}
    image, target = (batch[name].double() / 255 for name in ("image", "target"))
    restored = (1.5 * image).clamp(max=1)  # an image has no more than white
    for name, answer in (("psnr", restored), ("psnr_before", image)):
        assert found[name] == pytest.approx(float(-10 * (answer - target).square().mean().log10()), abs=1e-4)
    assert set(found) == {"psnr", "psnr_before", "ssim", "ssim_before"}


def test_ssim_is_measured_in_full_precision_whatever_the_network_multiplies_in():
    target = 0.7 + 0.02 * torch.rand(2, 3, 32, 32)
    batch = {"image": target + 0.01 * torch.rand(2, 3, 32, 32), "target": target}
    exact, task = Restoration(nn.Identity()), Restoration(nn.Identity())
    exact.evaluate(batch)
    with torch.autocast("cpu", torch.bfloat16):
        task.evaluate(batch)
    assert float(task.metrics["ssim"].compute()) == float(exact.metrics["ssim"].compute())
    assert 0.5 < float(exact.metrics["ssim"].compute()) < 1


def test_a_large_image_is_restored_in_tiles_without_seams():
    model = DnCNN(num_layers=5, width=4).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    task = Restoration(model)
    image = torch.randint(0, 256, (1, 3, 300, 530), dtype=torch.uint8)
    answer = task.predict({"image": image})["image"]
    assert answer.dtype == torch.uint8
    assert answer.shape == image.shape
    with torch.no_grad():
        whole = (model(image / 255).clamp(0, 1) * 255).round()
    inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))  # the border is mirrored, not zeros
    assert (answer[inside] - whole[inside]).abs().max() <= 1
    assert task.predict({"image": image[..., :5, :3]})["image"].shape == (1, 3, 5, 3)


def test_an_image_is_enlarged_before_it_is_restored(tmp_path):
    task = build(Restoration, model=build(NAFNet, width=4, depths=[1], middle=1, rising=[1]), enlarge=3)
    save(task, tmp_path)
    image = torch.randint(0, 256, (1, 3, 20, 31), dtype=torch.uint8)
    answer = load(tmp_path).predict({"image": image})["image"]
    assert answer.shape == (1, 3, 60, 93)
    assert torch.equal(answer, task.eval().predict({"image": image})["image"])
    task.model = nn.Identity()
    larger = interpolate(image / 255, scale_factor=3, mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.equal(task.predict({"image": image})["image"], (larger * 255).round().to(torch.uint8))
    with pytest.raises(ValueError, match="enlarge=0: expected at least 1"):
        Restoration(nn.Identity(), enlarge=0)


def test_pictures_show_the_whole_range_from_loss_to_gain_and_a_drawing_is_the_image(tmp_path):
    target = torch.full((12, 3, 8, 8), 0.4)
    image = target + torch.linspace(-0.3, 0.5, 12)[:, None, None, None]
    with torch.no_grad():
        figure = Restoration(Darker(0.8)).figures({"image": image, "target": target})["before and after"]
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[2::3] == ["truth"] * 8
    gain = [float(after.split()[1]) - float(before.split()[1]) for before, after in zip(titles[::3], titles[1::3], strict=True)]
    assert gain == sorted(gain)
    assert gain[0] < 0 < gain[-1]
    from matplotlib.image import imread

    task = Restoration(nn.Identity())
    inputs = {"image": torch.randint(0, 256, (1, 3, 37, 53), dtype=torch.uint8)}
    task.draw(inputs, task.predict(inputs)).savefig(tmp_path / "drawn.png")
    drawn = torch.from_numpy(imread(tmp_path / "drawn.png")[..., :3] * 255).round().movedim(-1, 0)
    assert torch.equal(drawn, inputs["image"][0].float())


def test_it_learns_to_take_grain_out_of_photographs_it_has_not_seen():
    from sklearn.datasets import load_sample_images

    seen, unseen = (torch.from_numpy(image.copy()).movedim(-1, 0) for image in load_sample_images().images)
    torch.manual_seed(1)
    train = TensorStream({"image": patches(seen, 32, 200)}, 8, shuffle=True, augment=[flip(), noise()])
    test = TensorStream({"image": patches(unseen, 64, 12)}, 12, augment=[noise()])
    task = build(Restoration, model=build(NAFNet, width=8, depths=[1], middle=1, rising=[1]))
    training = Training(Experiment(task=task, train=train, steps=60, optimizer=adamw(6e-3)), device="cpu", precision="fp32")
    for _ in training:
        pass
    found = {name: float(value) for name, value in evaluate(training, test)}
    assert found["psnr_before"] < 21.5
    assert found["psnr"] > found["psnr_before"] + 3
    assert found["ssim"] > found["ssim_before"]
