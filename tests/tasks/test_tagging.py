"""Any number of labels an example: the loss and what is given by their definitions, and digits that lie together named."""

from itertools import combinations

import pytest
import torch
from definitions import EXACT
from torch import nn
from torch.autograd import grad
from torch.testing import assert_close

from thalweg.adaptation.heads import probe, without_head
from thalweg.build import adapt, build, load, save
from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.tagging import Tagging, TaggingFeatures, most_frequent
from thalweg.tasks.transfer import Encoded
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

FREQUENCY = [0.5, 0.9, 0.1, 0.02]
NAMES = ["half", "most", "few", "rare"]


def straight() -> Tagging:
    """Takes numbers in place of images: by how much each changes the logarithm of the odds."""
    return build(Tagging, model=build(nn.Identity), classes=NAMES, frequency=FREQUENCY)


def test_the_loss_is_the_sum_of_binary_cross_entropies_of_odds_that_the_model_changes():
    task = straight().double()
    said, label = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randint(2, (3, 4)).double()
    naive = torch.zeros((), dtype=torch.float64)
    for row in range(3):
        for place, prior in enumerate(task.prior.tolist()):
            odds = torch.exp(said[row, place] + prior)
            chance = odds / (1 + odds)
            naive = naive - (chance if label[row, place] else 1 - chance).log()
    total, count = task.loss({"image": said, "label": label})
    assert count == 12
    assert task.prior.exp().tolist() == pytest.approx([share / (1 - share) for share in FREQUENCY])
    assert_close(total, naive, **EXACT)
    assert_close(grad(total, said)[0], grad(naive, said)[0], **EXACT)


def test_a_label_is_given_from_halfway_between_its_frequency_and_an_even_chance_on():
    task = straight()
    # odds of 1/9 and 1/49 are halfway to even ones at 1/3 and 1/7; what is frequent is given at even ones
    assert task.threshold.tolist() == pytest.approx([0.5, 0.5, 1 / 4, 1 / 8])
    logit = task.threshold.logit() - task.prior  # the change that gives exactly the threshold
    above, below = (task.predict({"image": (logit + shift)[None]})["label"][0] for shift in (1e-3, -1e-3))
    assert set(above) == set(NAMES)
    assert below == []


def test_what_is_given_comes_with_its_probability_the_most_probable_first():
    task = straight()
    image = torch.tensor([0.2, 0.9, 0.6, 0.1]).logit() - task.prior
    told = task.predict({"image": torch.stack([image, -9 + 0 * image])})
    assert told["label"] == [["most", "few"], []]
    assert told["probability"][0].tolist() == pytest.approx([0.9, 0.6])
    assert len(told["probability"][1]) == 0
    told = task.predict({"image": image[None]}, least=0.15)
    assert told["label"] == [["most", "few", "half"]]
    assert task.predict({"image": image[None]}, least=0.0)["label"] == [["most", "few", "half", "rare"]]
    with pytest.raises(ValueError, match=r"least=1\.5"):
        task.predict({"image": image[None]}, least=1.5)


@pytest.mark.parametrize("frequency", [[0.5, 0.5, 0.5], [0.0, 0.1, 0.1, 0.1], [1.0, 0.1, 0.1, 0.1]])
def test_frequencies_that_are_none_are_refused(frequency):
    with pytest.raises(ValueError, match=r"frequency=\[.*expected a number above 0 and below 1 for each of 4 classes"):
        Tagging(nn.Identity(), NAMES, frequency)


def test_the_frequent_labels_are_the_set_that_makes_f1_highest():
    for _ in range(20):
        label = (torch.rand(50, 5) < torch.rand(5)).double()

        def f1(chosen, label=label):
            return 2 * label[:, list(chosen)].sum() / (50 * len(chosen) + label.sum())

        sets = [chosen for size in range(1, 6) for chosen in combinations(range(5), size)]
        found = most_frequent(label.mean(0)).nonzero().flatten().tolist()
        assert f1(found) == pytest.approx(float(max(map(f1, sets))))


def test_the_metrics_stand_beside_what_is_attained_without_looking():
    task, label = straight(), torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    right = 20 * (label - 0.5) - task.prior
    assert task.frequent.tolist() == [True, True, False, False]
    task.evaluate({"image": right, "label": label})
    found = {name: float(metric.compute()) for name, metric in task.metrics.items() if name != "worst"}
    assert found["macro_f1"] == found["micro_f1"] == found["mAP"] == found["labels_above_baseline"] == 1
    assert found["baseline_macro_f1"] == pytest.approx((2 * 2 / 6 + 2 * 3 / 7 + 2 * 1 / 5) / 3)
    assert found["baseline_micro_f1"] == pytest.approx(2 * 5 / (8 + 6))
    assert found["baseline_mAP"] == pytest.approx((2 / 4 + 3 / 4 + 1 / 4) / 3)
    assert found["loss"] < 1e-4


def test_wrong_labels_are_drawn_in_red():
    task, label = straight(), torch.tensor([[1.0, 0, 1, 0], [1, 0, 0, 0]])
    task.model = nn.Flatten()
    image = (torch.tensor([[0.9, 0.8, 0.1, 0.01], [0.7, 0.1, 0.1, 0.01]]).logit() - task.prior).view(2, 1, 2, 2)
    task.evaluate({"image": image, "label": label})
    drawn = task.figures({"image": image, "label": label})
    assert set(drawn) == {"f1", "most wrong"}
    words = [[(text.get_text(), text.get_color()) for text in axis.texts] for axis in drawn["most wrong"].axes]
    assert words == [[("half 0.90", "seagreen"), ("most 0.80", "firebrick"), ("missed: few 0.10", "firebrick")],
                     [("half 0.70", "seagreen")]]  # fmt: skip


def quartets(count: int, seed: int):
    """Images of 16x16, a digit below five or nothing in each quarter; which digits are there."""
    random = torch.Generator().manual_seed(seed)
    held = digits().train
    kept = (held["label"] < 5).nonzero().flatten()
    chosen = kept[torch.randint(len(kept), (count, 4), generator=random)]
    there = torch.rand(count, 4, generator=random) < 0.5
    parts = held["image"][chosen] * there[..., None, None, None]
    image = torch.cat([torch.cat([parts[:, 0], parts[:, 1]], -1), torch.cat([parts[:, 2], parts[:, 3]], -1)], -2)
    label = torch.zeros(count, 5).scatter_reduce(1, held["label"][chosen], there.float(), "amax")
    return {"image": image / 255, "label": label}


def test_digits_that_lie_together_are_all_named_far_above_the_frequency_baseline(tmp_path):
    train, test = quartets(1500, 0), quartets(300, 1)
    names = [str(number) for number in range(5)]
    frequency = train["label"].mean(0).tolist()
    task = build(Tagging, model=build(lenet, image_size=16, num_classes=5), classes=names, frequency=frequency)
    training = Training(Experiment(task=task, train=TensorStream(train, 30, shuffle=True), epochs=3, optimizer=adamw(4e-3)))
    for _ in training:
        pass
    found = dict(evaluate(training, TensorStream(test, 100)))
    assert found["macro_f1"] > 0.95
    assert found["mAP"] > 0.97
    assert found["baseline_macro_f1"] < 0.6
    assert found["labels_above_baseline"] == 1
    save(training.evaluated, tmp_path)
    back = load(tmp_path).eval()
    told = back.predict({"image": test["image"]})["label"]
    right = sum(set(said) == {names[place] for place in row.nonzero().flatten().tolist()}
                for said, row in zip(told, test["label"], strict=True))  # fmt: skip
    assert right > 0.85 * len(told)  # every label of the image, and no other


def test_a_linear_layer_learns_from_features_that_were_seen_once_and_answers_for_images():
    held = quartets(200, 2)
    model = adapt(adapt(build(lenet, image_size=16), without_head), probe, feature_dim=256, num_classes=5)
    stream = Encoded(TensorStream(held, 40, shuffle=True), model.encoder)
    task = build(TaggingFeatures, model=model, classes=list("01234"), frequency=held["label"].mean(0).tolist())
    training = Training(Experiment(task=task, train=stream, epochs=20, optimizer=adamw(1e-2)))
    for _ in training:
        pass
    assert dict(evaluate(training, stream))["labels_above_baseline"] == 1
    task = training.evaluated.eval()
    batch = stream.fetch(torch.arange(200))
    assert_close(task.chances(held), task.logits(batch).sigmoid())
