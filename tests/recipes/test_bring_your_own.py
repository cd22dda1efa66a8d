"""A person's own folder of images, whatever is in it, becomes an experiment that learns, with its choices told."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from thalweg import public
from thalweg.build import build, load, save
from thalweg.data.images import read_image
from thalweg.data.sources import digits
from thalweg.models import builder, builders
from thalweg.models.vision.resnet import resnet18
from thalweg.recipes.bring_your_own import image_classifier, image_verifier
from thalweg.training import Training, evaluate


def write(root: Path, counts: dict[str, int], size=(40, 30), mode: str = "RGB") -> Path:
    """Noise with a bright row in the place of its class."""
    torch.manual_seed(1)
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = torch.randint(0, 120, (size[1], size[0], 3), dtype=torch.uint8)
            pixels[(label + 1) * size[1] // (len(counts) + 1)] = 255
            Image.fromarray(pixels.numpy()).convert(mode).save(root / name / f"{number}.png")
    return root


def trained(experiment) -> Training:
    training = Training(experiment)
    for _ in training:
        pass
    return training


def size_of(experiment) -> tuple[int, ...]:
    return experiment.task.model.size


def test_digits_in_files_are_learned(tmp_path):
    examples = digits().train
    for index, label in enumerate(examples["label"][:700].tolist()):
        if label < 4:
            path = tmp_path / f"digit {label}" / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(examples["image"][index, 0].numpy()).save(path)
    experiment = image_classifier(data=tmp_path, model="lenet", epochs=12)
    assert size_of(experiment) == (8, 8)
    training = trained(experiment)
    assert dict(evaluate(training, experiment.test))["accuracy"] > 0.9
    task = training.evaluated.eval()
    named = [task.predict({"image": read_image(path)[None]})["label"][0][0] for path in (tmp_path / "digit 3").iterdir()]
    assert named.count("digit 3") > 0.9 * len(named)


def test_numbers_that_were_never_seen_are_told_apart_by_a_distance_that_others_taught(tmp_path):
    examples = digits().train
    by_digit = [examples["image"][examples["label"] == digit, 0] for digit in range(10)]
    for number in range(36):
        tens, ones = by_digit[number // 6], by_digit[number % 6]
        (tmp_path / f"number {number}").mkdir()
        for index in range(16):
            pixels = torch.cat([tens[index], ones[16 + number + index]], 1)
            Image.fromarray(pixels.numpy()).save(tmp_path / f"number {number}" / f"{index}.png")
    experiment = image_verifier(data=tmp_path, model="lenet", epochs=20, image_size=16)
    parts = [set(part.fetch(torch.arange(part.size))["label"].tolist()) for part in
             (experiment.train, experiment.valid, experiment.test)]  # fmt: skip
    assert [len(part) for part in parts] == [22, 7, 7]
    assert len(set.union(*parts)) == 36
    assert dict(evaluate(trained(experiment), experiment.test))["verification"] > 0.975  # 0.93 untrained


def test_a_verifier_needs_six_classes(tmp_path):
    with pytest.raises(ValueError, match="5 subfolders, expected at least 6"):
        image_verifier(data=write(tmp_path, dict.fromkeys("abcde", 5)))


def test_two_classes_of_ten_images_with_odd_names_are_enough(tmp_path):
    names = ["big $dog$ <b>", "小 猫"]
    experiment = image_classifier(data=write(tmp_path, dict.fromkeys(names, 10)), epochs=1)
    training = trained(experiment)
    assert experiment.task.classes == tuple(names)
    assert 0 <= float(dict(evaluate(training, experiment.test))["accuracy"]) <= 1
    save(training.evaluated, tmp_path / "model")
    task = load(tmp_path / "model")
    photo = torch.randint(0, 256, (1, 3, 2000, 3000), dtype=torch.uint8)  # of any size, as it comes from a camera
    assert sorted(task.predict({"image": photo})["label"][0]) == sorted(names)


def test_what_was_found_and_chosen_is_told(tmp_path):
    write(tmp_path, {"a": 30, "b": 3}, (28, 28), "L")
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    (tmp_path / "b" / "again.png").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    notes = image_classifier(data=tmp_path).notes
    assert notes["images"] == "34 in 2 classes of 4 to 30, grey, about 28x28; train 24, valid 5, test 5"
    assert notes["left out"] == "skipped 1 of 35 files: a/broken.png (not an image of a known format)"
    assert notes["repeated"].startswith("1 images are also in another part or class")
    assert "resnet9" in notes["model"]
    assert "28x28" in notes["model"]
    assert "epochs of 3 batches of 8" in notes["training"]
    assert "mirroring" not in notes["training"]  # what is small and grey may be a letter
    assert all("\n" not in text for text in notes.values())


@pytest.mark.parametrize(
    ("size", "mode", "expected", "model"),
    [((28, 28), "L", 28, "resnet9"), ((5, 6), "RGB", 5, "resnet9"), ((50, 45), "RGB", 32, "resnet9"),
     ((300, 200), "RGB", 128, "resnet18")],
)  # fmt: skip
def test_the_size_and_the_model_are_chosen_by_the_images(tmp_path, size, mode, expected, model):
    experiment = image_classifier(data=write(tmp_path, {"a": 5, "b": 5}, size, mode))
    assert size_of(experiment) == (expected, expected)
    assert model in experiment.notes["model"]
    assert next(iter(experiment.train))["image"].shape[1:] == (1 if mode == "L" else 3, expected, expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("model", ["lenet", "lenet5", "resnet-18", "ViT tiny 16", "mlp", "softmax_regression"])
def test_any_classifier_can_be_named(tmp_path, model, mode):
    experiment = image_classifier(data=write(tmp_path, {"a": 4, "b": 4, "c": 4}, (30, 34), mode), model=model)
    batch = next(iter(experiment.train))
    total, count = experiment.task.loss(batch)
    assert torch.isfinite(total)
    assert count == len(batch["label"])
    assert experiment.task.model(batch["image"]).shape == (count, 3)


def test_the_hyperparameters_given_are_taken(tmp_path):
    experiment = image_classifier(data=write(tmp_path, {"a": 20, "b": 20}), epochs=3, batch_size=5, lr=0.123, image_size=20)
    assert size_of(experiment) == (20, 20)
    assert experiment.train.batch_size == 5
    assert experiment.length == 3 * len(experiment.train)
    optimizer = experiment.optimizer_of("")(experiment.task)
    assert {group["lr"] for group in optimizer.param_groups} == {0.123}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "resnet19"}, "model='resnet19'.*such as.*resnet18"),
        ({"model": "gpt2"}, "model='gpt2': does not classify images of 28x28"),
        ({"model": "lenet5", "image_size": 50}, "model='lenet5': does not classify images of 50x50"),
        ({"model": "resnet18", "pretrained": "no such place"}, "no such place: neither a folder or file"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        image_classifier(data=write(tmp_path, {"a": 3, "b": 3}, (28, 28), "L"), **arguments)
    assert "\n" not in str(raised.value)


@pytest.fixture
def weights(tmp_path):
    """A folder as transformers writes it: a thin ResNet-18 for seven classes of 24x24 images."""
    model = build(resnet18, width=8, num_classes=7)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    public.export(model, tmp_path / "weights", "transformers", mean=[0.1, 0.2, 0.3], deviation=[0.4, 0.5, 0.6], size=[24, 24])
    return model, tmp_path / "weights"


@pytest.mark.filterwarnings("ignore:.*its head is not for 2 classes")
def test_public_weights_are_the_start_of_all_but_the_head_which_learns_faster(tmp_path, weights):
    model, folder = weights
    data = write(tmp_path / "data", {"a": 9, "b": 9}, mode="L")
    experiment = image_classifier(data=data, model="resnet18", pretrained=str(folder), lr=0.5)
    inner = experiment.task.model
    assert size_of(experiment) == (24, 24)
    assert inner.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert inner.deviation.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    held = inner.model.state_dict()
    assert held["head.weight"].shape == (2, 64)
    for name, tensor in model.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(held[name], tensor)
    rates = {id(p): group["lr"] for group in experiment.optimizer_of("")(experiment.task).param_groups for p in group["params"]}
    for name, parameter in inner.model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.5 if name.startswith("head.") else 0.05)
    batch = next(iter(experiment.train))
    assert torch.isfinite(experiment.task.loss(batch)[0])
    assert str(folder) in experiment.notes["model"]


def test_weights_that_do_not_name_their_architecture_need_a_model(tmp_path, weights):
    with pytest.raises(ValueError, match="does not name its architecture; say which"):
        image_classifier(data=write(tmp_path / "data", {"a": 3, "b": 3}), pretrained=str(weights[1]))


def test_builders_are_found_without_importing_what_is_not_asked_for():
    found = builders()
    assert found["resnet18"] == "thalweg.models.vision.resnet"
    assert "conv" not in found  # it makes a layer
    assert "resize" not in found  # it changes a model
    assert builder("ResNet_18") is builder("resnet-18")
