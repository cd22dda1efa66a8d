"""Metrics: simple classifiers on features against their definitions, and what the random features notice."""

import pytest
import torch
from torch.nn.functional import avg_pool2d
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.text import BLEUScore

from thalweg.data.sources import digits
from thalweg.metrics import (
    ErrorByPlace,
    LinearProbe,
    MostWrong,
    NearestNeighbours,
    PhraseBLEU,
    RandomFeatures,
    Verification,
)


@pytest.fixture
def seen():
    label = torch.randint(0, 4, (300,))
    return torch.randn(4, 6)[label] + 1.5 * torch.randn(300, 6), label


def fed(metric, features, label):
    for part in range(0, len(label), 77):  # of uneven size
        metric.update(features[part : part + 77], label[part : part + 77])
    return float(metric.compute())


def test_the_linear_probe_is_ridge_regression_on_the_even_places_measured_on_the_odd(seen):
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    features, label = (tensor.numpy() for tensor in seen)
    features[:, 0] *= 1000
    scale = StandardScaler().fit(features[::2])
    known = RidgeClassifier(alpha=0.01 * 150).fit(scale.transform(features[::2]), label[::2])
    expected = known.score(scale.transform(features[1::2]), label[1::2])
    assert fed(LinearProbe(), torch.from_numpy(features), seen[1]) == pytest.approx(expected, abs=1 / 150)
    assert expected > 0.5


def test_nearest_neighbours_vote(seen):
    features, label = seen
    right = 0
    for asked in range(1, 300, 2):
        cosine = [(float(torch.cosine_similarity(features[asked], features[k], dim=0)), k) for k in range(0, 300, 2)]
        votes = [int(label[k]) for _, k in sorted(cosine, reverse=True)[:10]]
        winner = min(set(votes), key=lambda name: (-votes.count(name), name))
        right += winner == int(label[asked])
    assert fed(NearestNeighbours(), features, label) == pytest.approx(right / 150)


def test_verification_is_the_chance_that_two_of_a_class_are_more_similar_than_two_of_different_ones(seen):
    features, label = (tensor[:60] for tensor in seen)
    same, different = [], []
    for asked in range(1, 60, 2):
        for known in range(0, 60, 2):
            pairs = same if label[asked] == label[known] else different
            pairs.append(torch.cosine_similarity(features[asked], features[known], dim=0))
    expected = torch.stack(same)[:, None] > torch.stack(different)
    assert fed(Verification(), features, label) == pytest.approx(float(expected.float().mean()), abs=1e-5)
    assert 0.6 < expected.float().mean() < 0.95


@pytest.mark.parametrize("metric", [LinearProbe, NearestNeighbours])
def test_labels_that_are_chance_are_not_foretold_though_the_features_could_learn_them_by_heart(metric):
    features, label = torch.randn(600, 400), torch.randint(0, 10, (600,))
    assert fed(metric(), features, label) < 0.18


def test_a_metric_forgets_when_reset(seen):
    metric = LinearProbe()
    fed(metric, *seen)
    metric.reset()
    features, label = seen[0][:40], seen[1].flip(0)[:40]
    assert fed(metric, features, label) == fed(LinearProbe(), features, label)


def distances(changed):
    """Of each changed set of digits from other digits."""
    real = digits().train["image"].repeat_interleave(3, 2).repeat_interleave(3, 3).float() / 255
    real, other = real[::2], real[1::2]
    found = {}
    for name, change in changed.items():
        metric = FrechetInceptionDistance(RandomFeatures())
        metric.update(real, real=True)
        metric.update(change(other), real=False)
        found[name] = float(metric.compute())
    return found


def test_the_random_features_notice_noise_blur_ghosts_and_what_is_left_out():
    def ghosts(image):
        flat = image.flatten(1)
        values, vectors = torch.linalg.eigh(torch.cov(flat.T))
        drawn = torch.randn_like(flat) * values.clamp(min=0).sqrt() @ vectors.T + flat.mean(0)
        return drawn.view_as(image).clamp(0, 1)

    label = digits().train["label"][1::2]
    found = distances({
        "as they are": lambda image: image,
        "a little noise": lambda image: (image + 0.05 * torch.randn_like(image)).clamp(0, 1),
        "noise": lambda image: (image + 0.2 * torch.randn_like(image)).clamp(0, 1),
        "blur": lambda image: avg_pool2d(image, 3, 1, 1),
        "ghosts": ghosts,
        "no eight and nine": lambda image: image[label < 8],
        "half of the digits": lambda image: image[label < 5],
    })  # fmt: skip
    assert found["a little noise"] > 1.5 * found["as they are"]
    assert found["noise"] > 5 * found["a little noise"]
    assert found["blur"] > 5 * found["as they are"]
    assert found["ghosts"] > 5 * found["as they are"]
    assert found["no eight and nine"] > 1.5 * found["as they are"]
    assert found["half of the digits"] > 2 * found["no eight and nine"]


def test_random_features_are_a_function_of_the_seed_for_grey_and_colour_and_both_scales():
    first, again, other = RandomFeatures(), RandomFeatures(), RandomFeatures(seed=1)
    image = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    assert first(image).shape == (2, RandomFeatures.num_features)
    torch.testing.assert_close(first(image), again(image.expand(-1, 3, -1, -1).float() / 255))
    assert (first(image) - other(image)).abs().max() > 0.1
    assert not first.state_dict()


def test_most_wrong_keeps_the_examples_of_the_largest_loss_however_they_come():
    logits, label, image = 3 * torch.randn(50, 4), torch.randint(0, 4, (50,)), torch.randint(0, 256, (50, 1, 2, 2)).byte()
    loss = -logits.log_softmax(-1)[torch.arange(50), label]
    worst = loss.argsort(descending=True)[:7]
    for size in (50, 9, 3):
        metric = MostWrong(kept=7)
        for _ in range(2):
            metric.reset()
            for part in range(0, 50, size):
                metric.update(*(tensor[part : part + size] for tensor in (logits, label, image)))
        kept = metric.compute()
        torch.testing.assert_close(kept["loss"], loss[worst])
        assert torch.equal(kept["image"], image[worst])
        assert torch.equal(kept["label"], label[worst])
        assert torch.equal(kept["predicted"], logits[worst].argmax(-1))
        torch.testing.assert_close(kept["probability"], logits[worst].softmax(-1).max(-1).values)


TRANSLATIONS = [
    "ils regardent la télé .",
    "je suis chez moi .",
    "va !",
    "il est calme et il dort bien cette nuit",
    "le chat est sur le tapis rouge de la maison",
]
REFERENCES = [
    "ils sont en train de regarder la télé .",
    "je suis à la maison .",
    "va !",
    "il est calme et il dort toute la nuit",
    "le chat dort sur le tapis rouge de la maison",
]


@pytest.mark.parametrize(("count", "expected"), [(5, 47.532559036523935), (3, 0.0)])
def test_bleu_is_that_of_sacrebleu(count, expected):
    """sacrebleu 2.6.0, nrefs:1|case:mixed|eff:no|tok:none|smooth:none."""
    bleu = BLEUScore()
    bleu.update(TRANSLATIONS[:count], [[reference] for reference in REFERENCES[:count]])
    assert 100 * bleu.compute().item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("translation", "reference", "score"),
    [
        ("va !", "va !", 1.0),
        ("va", "va", 1.0),  # a pair does not fit in
        ("il est mouillé .", "il est calme .", (3 / 4) ** 0.5 * (1 / 3) ** 0.25),
        ("va va va", "va !", (1 / 3) ** 0.5 * 0.0),  # one va counts once, and no pair is right
        ("je suis", "je suis chez moi", 2.718281828459045 ** (1 - 4 / 2)),  # too short
        ("il il est", "il est", (2 / 3) ** 0.5 * (1 / 2) ** 0.25),
        ("", "va !", 0.0),
    ],
)
def test_bleu_of_phrases_is_counted_by_hand(translation, reference, score):
    bleu = PhraseBLEU()
    bleu.update([translation], [reference])
    assert bleu.compute().item() == pytest.approx(score, abs=1e-6)


def test_bleu_of_phrases_is_the_mean_over_sentences():
    bleu = PhraseBLEU()
    for sentences in ((["va !", "oui"], ["va !", "non"]), (["va !"], ["va !"])):
        bleu.update(*sentences)
    assert bleu.compute().item() == pytest.approx(2 / 3)


def test_errors_are_counted_by_place_and_only_where_they_count():
    errors = ErrorByPlace(longest=3)
    wrong = torch.tensor([[True, False, True, True], [True, True, True, True]])
    errors.update(wrong, torch.tensor([[True, True, True, True], [True, True, False, False]]))
    errors.update(wrong[:, :1] & False, torch.tensor([[True], [False]]))
    assert errors.compute().tolist() == pytest.approx([2 / 3, 1 / 2, 1])
