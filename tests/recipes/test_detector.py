"""A person's own folder of images with boxes becomes a detector, and its choices are told."""

import json

import pytest
from PIL import Image

from thalweg.build import load, save
from thalweg.data.shapes import SHAPES, shapes
from thalweg.inspection.predict import answer
from thalweg.recipes.detection import detector
from thalweg.training import Training, evaluate


@pytest.fixture
def folder(tmp_path):
    """Twelve drawn images in the form of YOLO, one of whose lines is broken."""
    drawn = shapes(12, (48, 64), most=2)
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / "classes.txt").write_text("\n".join(SHAPES))
    for index, image in enumerate(drawn["image"]):
        Image.fromarray(image.movedim(0, -1).numpy()).save(tmp_path / "data" / "images" / f"{index}.png")
        lines = ["a broken line"] if index == 3 else []
        for label, (left, top, right, bottom) in zip(
            drawn["box_label"][index].tolist(), drawn["boxes"][index].tolist(), strict=True
        ):
            if label >= 0:
                lines.append(
                    f"{label} {(left + right) / 128} {(top + bottom) / 96} {(right - left) / 64} {(bottom - top) / 48}"
                )
        (tmp_path / "data" / "labels" / f"{index}.txt").write_text("\n".join(lines))
    return tmp_path / "data"


def test_a_folder_of_boxes_becomes_a_detector_that_answers(folder, tmp_path, monkeypatch):
    experiment = detector(data=folder, model="resnet9", image_size=64, epochs=1, batch_size=4)
    assert experiment.task.model.size == (48, 64)
    assert "12 in the form of YOLO" in experiment.notes["images"]
    assert "3.txt" in experiment.notes["wrong"]
    training = Training(experiment)
    for _ in training:
        pass
    assert 0 <= dict(evaluate(training, experiment.test))["mAP50"] <= 1
    save(training.task, tmp_path / "model")
    task, photo = load(tmp_path / "model"), str(folder / "images" / "3.png")
    monkeypatch.chdir(tmp_path)
    lines = list(answer(task, [photo], least=0.0))
    assert lines[-1].endswith("3-predicted-0.0.png")
    assert (tmp_path / "3-predicted-0.0.png").exists()
    assert lines[0].split()[1] in SHAPES
    (one,) = answer(task, [photo], as_json=True, least=0.0)
    said = json.loads(one)
    assert len(said["boxes"][0]) == len(said["label"][0]) == len(said["probability"][0]) == len(lines) - 1


def test_a_model_without_maps_is_refused_by_name(folder):
    with pytest.raises(ValueError, match="backbone: ViT has no features"):
        detector(data=folder, model="vit_tiny_16", image_size=64)
