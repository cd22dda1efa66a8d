"""How much do more data help, and whom? Two networks, each learning from ever more of the same images."""

import pytest
import torch
from torch.testing import assert_close

from thalweg.build import build
from thalweg.data.sources import digits
from thalweg.data.streams import FirstOf, TensorStream
from thalweg.models.vision.map_mixer import MapMixer
from thalweg.tasks.data_sizes import DataSizes
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw


def test_a_batch_holds_as_many_of_the_first_n_for_each_n():
    stream = FirstOf({"image": torch.arange(50), "label": 2 * torch.arange(50)}, [3, 10, 50], 200)
    batch = stream.batch(7)
    assert batch["image"].shape == batch["label"].shape == (3, 200)
    assert torch.equal(batch["label"], 2 * batch["image"])
    assert [len(row.unique()) for row in batch["image"][:2]] == [3, 10]
    assert [row.max() for row in batch["image"]] == [2, 9, pytest.approx(49, abs=3)]
    assert torch.equal(stream.batch(7)["image"], batch["image"])
    assert not torch.equal(stream.batch(8)["image"], batch["image"])
    with pytest.raises(ValueError, match=r"sizes=\[60\]: there are {'image': 50} examples"):
        FirstOf({"image": torch.arange(50)}, [60], 4)


def test_each_copy_learns_from_as_many_images_as_its_name_says():
    models = {mix: build(MapMixer, mix=mix, channels=8, num_layers=1) for mix in ("convolution", "attention")}
    task = build(DataSizes, **models, sizes=[1, 2], num_classes=10)
    image, label = torch.rand(2, 4, 1, 8, 8), torch.randint(10, (2, 4))
    other = image.clone()
    other[1] += 1
    terms, changed = ([(player, float(total.detach())) for player, total, _ in task.losses({"image": x, "label": label})]
                      for x in (image, other))  # fmt: skip
    assert [player for player, _ in terms] == [task.players[f"{mix}_{n}"] for mix in models for n in (1, 2)]
    assert [one[1] == two[1] for one, two in zip(terms, changed, strict=True)] == [True, False, True, False]
    logits = task.players["attention_2"](image[1]).log_softmax(-1)
    assert_close(torch.tensor(terms[3][1]), -logits[range(4), label[1]].sum())


@pytest.mark.slow
def test_more_images_make_both_better():
    torch.manual_seed(0)
    splits = digits()
    train, test = ({"image": part["image"].float() / 255, "label": part["label"]} for part in (splits.train, splits.test))
    models = {mix: build(MapMixer, mix=mix, channels=24) for mix in ("convolution", "attention")}
    task = build(DataSizes, **models, sizes=[20, 1000], num_classes=10)
    rates = {f"players.{name}": adamw(3e-3) for name in task.players}
    training = Training(Experiment(task=task, train=FirstOf(train, [20, 1000], 32), steps=150, optimizer=rates), device="cpu")
    for _ in training:
        pass
    found = {name: float(value) for name, value in evaluate(training, TensorStream(test, 360))}
    for mix in models:
        assert found[f"{mix}_1000"] > max(0.85, 0.1 + found[f"{mix}_20"]), found
