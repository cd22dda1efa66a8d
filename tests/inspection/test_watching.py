"""A task on a video: the file holds every picture with what was predicted painted on it."""

import json
from fractions import Fraction

import pytest
import torch
from torch import nn

from thalweg import cli
from thalweg.build import adapt, build, save
from thalweg.data.video import read_video, write_video
from thalweg.figures import palette
from thalweg.inspection.predict import answer
from thalweg.inspection.video import painted
from thalweg.layers.standardize import standardize
from thalweg.models.vision.crnn import CRNN
from thalweg.tasks.classification import Classification
from thalweg.tasks.reading import Reading
from thalweg.training import Task


class Finder(Task):
    """Finds one thing, always at the same place."""

    classes = ("a", "b")

    def predict(self, inputs, *, least=0.5):
        image = inputs["image"]
        mask = torch.zeros(1, *image.shape[-2:], dtype=torch.bool)
        mask[0, 60:90, 30:70] = True
        told = {"label": [["b"]], "probability": [torch.tensor([0.9])], "boxes": [torch.tensor([[20.0, 50, 80, 100]])]}
        return {name: value * len(image) for name, value in {**told, "masks": [mask]}.items()}


def grey(count=1):
    return torch.full((count, 3, 120, 160), 100, dtype=torch.uint8)


def test_boxes_masks_and_names_are_painted_where_they_are():
    task = Finder()
    (image,) = painted(task, grey(), task.predict({"image": grey()}))
    colour = (palette(2)[1] * 255).byte()
    for y, x in ((50, 50), (99, 50), (70, 20), (70, 79)):  # sides of the box
        assert torch.equal(image[:, y, x], colour)
    assert torch.equal(image[:, 110, 50], torch.full((3,), 100, dtype=torch.uint8))
    mixed = (0.45 * 100 + 0.55 * colour.float()).round()
    assert (image[:, 75, 50].float() - mixed).abs().max() <= 1
    assert torch.equal(image[:, 55, 75], image[:, 110, 50])  # in the box, not in the mask
    assert (image[:, 36:50, 20:60] != 100).any()  # the name


def test_a_segmentation_tints_and_a_restored_picture_replaces():
    task = Finder()
    where = torch.zeros(1, 120, 160, dtype=torch.long)
    where[:, 60:] = 1
    (image,) = painted(task, grey(), {"segmentation": where, "share": [{"a": 0.5, "b": 0.5}]})
    for row, label in ((55, 0), (110, 1)):
        assert (image[:, row, 150].float() - (45 + 140.25 * palette(2)[label])).abs().max() <= 1
    made = torch.randint(256, (1, 3, 240, 320), dtype=torch.uint8)
    assert torch.equal(painted(task, grey(), {"image": made}), made)


@pytest.fixture
def clip(tmp_path, monkeypatch):
    pytest.importorskip("av", reason="av is not installed: pip install 'thalweg[video]'")
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", ((frame, number / 10) for number, frame in enumerate(grey(11))), Fraction(10))
    return tmp_path


def test_every_picture_of_a_video_is_painted(clip):
    assert list(answer(Finder(), ["clip.mp4"], least=0.3)) == ["clip.mp4: clip-predicted-0.3.mp4 (11 pictures)"]
    read = list(read_video(clip / "clip-predicted-0.3.mp4"))
    assert [seconds for _, seconds in read] == pytest.approx([number / 10 for number in range(11)], abs=1e-3)
    expected = painted(Finder(), grey(), Finder().predict({"image": grey()}))[0].float()
    assert all((image.float() - expected).abs().mean() < 3 for image, _ in read)
    assert (grey()[0].float() - expected).abs().mean() > 5


def test_json_is_an_object_a_picture(clip):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 120 * 160, 2))

    class Named(Classification):
        def predict(self, inputs, *, top_k=5):
            return super().predict({"image": inputs["image"].float() / 255}, top_k=top_k)

    rows = [json.loads(line) for line in answer(Named(model, ["a", "b"]), ["clip.mp4"], as_json=True)]
    assert [row["seconds"] for row in rows] == pytest.approx([number / 10 for number in range(11)], abs=1e-3)
    assert all(sorted(row["label"][0]) == ["a", "b"] and sum(row["probability"][0]) == pytest.approx(1) for row in rows)


def test_a_reader_has_nothing_to_paint_on_a_video_and_says_so_in_one_line(clip, capsys):
    model = build(CRNN, num_classes=3, in_channels=3, width=2, hidden_dim=4)
    seeing = adapt(model, standardize, mean=[0.5] * 3, deviation=[0.3] * 3, size=[32, 64])
    save(build(Reading, model=seeing, alphabet="ab"), clip / "reader")
    with pytest.raises(SystemExit):
        cli.main(["predict", "reader", "clip.mp4"])
    said = capsys.readouterr().err
    assert said.startswith("thalweg: clip.mp4: Reading says nothing that is painted on a video, expected one that names")
    assert said.count("\n") == 1
    assert not (clip / "clip-predicted.mp4").exists()
    cli.main(["predict", "reader", "clip.mp4", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 11
    assert all(set(text) <= set("ab") for row in rows for text in row["label"][0])
