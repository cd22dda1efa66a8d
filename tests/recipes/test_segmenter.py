"""A person's own images and masks."""

import pytest
import torch
from PIL import Image

from thalweg.build import build
from thalweg.data.shapes import SCENE_CLASSES, shapes
from thalweg.models.vision.resnet import resnet18
from thalweg.public import export
from thalweg.recipes.segmentation import segmenter
from thalweg.training import Training


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty drawn scenes, one of whose masks is of another extent."""
    root = tmp_path_factory.mktemp("own")
    drawn = shapes(20, (40, 60), seed=5)
    for kind, arrays in (("images", drawn["image"].movedim(1, -1)), ("masks", drawn["segmentation"].byte())):
        (root / kind).mkdir()
        for number, array in enumerate(arrays):
            Image.fromarray(array.numpy()).save(root / kind / f"{number}.png")
    Image.new("L", (10, 10)).save(root / "masks" / "3.png")
    (root / "classes.txt").write_text("\n".join(SCENE_CLASSES))
    return root


def test_what_is_not_said_is_chosen_by_the_data_and_told(folder):
    made = segmenter(data=folder)
    assert made.task.classes == SCENE_CLASSES
    assert made.notes["images"] == "train 13, valid 3, test 3, about 60x40, seen at 60x40"
    assert "unet" in made.notes["model"]
    assert "3.png" in made.notes["what was wrong"]
    assert made.epochs == 100
    image = torch.randint(0, 256, (1, 3, 31, 47), dtype=torch.uint8)
    assert made.task.eval().predict({"image": image})["segmentation"].shape == (1, 31, 47)


def test_any_catalogued_segmenter_learns_it(folder):
    made = segmenter(data=folder, model="fcn", epochs=1, image_size=96)
    assert made.notes["images"].endswith("seen at 96x64")
    training = Training(made, device="cpu")
    losses = [float(loss) for step in training for loss in step.losses.values()]
    assert losses
    assert all(loss < 10 for loss in losses)


def test_a_backbone_starts_from_public_weights_and_sees_what_they_saw(folder, tmp_path):
    torch.manual_seed(0)
    classifier = build(resnet18, num_classes=5)
    export(classifier, tmp_path, "timm", mean=[0.1, 0.2, 0.3], deviation=[0.4, 0.5, 0.6], size=[64, 64])
    made = segmenter(data=folder, model="resnet18", pretrained=str(tmp_path), image_size=64)
    network = made.task.model.model
    taken, given = network.backbone.state_dict(), classifier.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in taken.items())
    assert {name for name in given if not name.startswith("head.")} == taken.keys()
    assert made.notes["model"].startswith(f"FCN on resnet18, from the weights of {tmp_path}; ")
    assert made.task.model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    predicted = made.task.eval().predict({"image": torch.zeros(1, 3, 40, 60, dtype=torch.uint8)})
    assert predicted["segmentation"].shape == (1, 40, 60)


def test_weights_of_a_backbone_need_to_be_told_which(folder):
    for model in ("auto", "unet"):
        with pytest.raises(ValueError, match=f"model='{model}', pretrained='x': expected the backbone of these weights"):
            segmenter(data=folder, model=model, pretrained="x")
