"""The anchors of a detector: those that it has, counted and drawn."""

import pytest
import torch

from thalweg import cli
from thalweg.build import adapt, build
from thalweg.data.shapes import SHAPES, shapes
from thalweg.data.streams import TensorStream
from thalweg.inspection.anchors import draw_anchors, scales
from thalweg.layers.boxes import to_centres
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.fcos import fcos
from thalweg.models.vision.ssd import tiny_ssd
from thalweg.tasks.detection import MultiBox, TaskAligned
from thalweg.training import Experiment
from thalweg.training.optimisers import sgd


def experiment(kind, model, size):
    examples = shapes(4, 64)
    seen = adapt(model, standardize, **moments(examples["image"]), size=size)
    task = build(kind, model=seen, classes=SHAPES)
    return Experiment(task=task, train=TensorStream(examples, 4), steps=1, optimizer=sgd(0.1))


def test_the_anchors_of_each_scale_are_those_of_the_detector_in_pixels_of_the_image():
    image, found = scales(experiment(MultiBox, build(tiny_ssd, num_classes=3), [128, 128]))
    assert image.shape == (1, 3, 64, 64)
    assert [(rows, columns, len(boxes)) for rows, columns, boxes in found] == [
        (16, 16, 1024), (8, 8, 256), (4, 4, 64), (2, 2, 16), (1, 1, 4)]  # fmt: skip
    *_, around = tiny_ssd(num_classes=3).eval()(torch.rand(1, 3, 128, 128))
    torch.testing.assert_close(torch.cat([boxes for *_, boxes in found]), 64 * around)
    torch.testing.assert_close(to_centres(found[-1][2])[:, :2], torch.full((4, 2), 32.0))


def test_anchors_are_drawn_and_counted(tmp_path):
    path = tmp_path / "anchors.png"
    text = draw_anchors(experiment(MultiBox, build(tiny_ssd, num_classes=3), [64, 64]), path)
    assert "map 8x8: 4 anchors a pixel, 256 in all" in text
    assert "344 anchors; 64x64, five around every pixel: 20,480; of 561x728: 2,042,040" in text
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_detector_without_anchors_is_named():
    plain = build(fcos, backbone="resnet9", num_classes=3, channels=8, depth=1, width=4, stem="medium")
    with pytest.raises(ValueError, match="TaskAligned: expected a recipe whose detector has anchors"):
        scales(experiment(TaskAligned, plain, [64, 64]))


def test_the_command_draws_two_stage_detectors_too(tmp_path, capsys):
    cli.main(["show", "--anchors", "mask-rcnn-shapes", "--out", str(tmp_path / "a.png")])
    assert "map 8x8: 3 anchors a pixel, 192 in all" in capsys.readouterr().out
    assert (tmp_path / "a.png").exists()
