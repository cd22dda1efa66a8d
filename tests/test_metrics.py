"""Metrics: simple classifiers on features against their definitions, and what the random features notice."""

import math

import pytest
import torch
from crowds import crowd
from torch.nn.functional import avg_pool2d
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.text import BLEUScore

from thalweg.data.sources import digits
from thalweg.layers.boxes import iou
from thalweg.metrics import (
    AveragePrecision,
    BoundaryScore,
    ErrorByPlace,
    LabelF1,
    LabelPrecision,
    LabelsAboveFrequency,
    LinearProbe,
    MostWrong,
    NearestNeighbours,
    PhraseBLEU,
    RandomFeatures,
    SacreBLEU,
    Verification,
    gleu,
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


# pycocotools 2.0.11, COCOeval of the crowds of 25 images: average precision of a class a row, at 0.5, 0.55 .. 0.95
COCO = [
    [0.57130702, 0.5528926, 0.48978322, 0.45045088, 0.39574116, 0.34405084, 0.22040131, 0.19932255, 0.12898682, 0.05361029],
    [0.66222195, 0.65219826, 0.55325034, 0.46644369, 0.39673878, 0.36461855, 0.29492637, 0.22948504, 0.07521044, 0.02052346],
    [0.64810807, 0.59615897, 0.58265784, 0.5325361, 0.36043247, 0.25306978, 0.16672313, 0.11239022, 0.05282343, 0.01782178],
]
THREE = [0.42715416, 0.59385113, 0.52778547]  # at 0.5, three detections an image and class


def seen_by(metric, images):
    for image in images:
        held = crowd(image)
        metric.update(iou(held["found"], held["boxes"]), held["score"], held["found_label"], held["label"])
    return metric


def test_average_precision_is_that_of_coco():
    metric = seen_by(AveragePrecision(4), range(25))
    table = metric.table()
    torch.testing.assert_close(table[:3], torch.tensor(COCO, dtype=torch.float64), rtol=0, atol=1e-8)
    assert table[3].isnan().all()  # a class that is nowhere
    assert metric.compute().item() == pytest.approx(0.34816284, abs=1e-7)
    few = seen_by(AveragePrecision(3, [0.5], most=3), range(25)).table()
    torch.testing.assert_close(few[:, 0], torch.tensor(THREE, dtype=torch.float64), rtol=0, atol=1e-8)


def test_average_precision_of_images_apart_is_that_of_all():
    parts = [seen_by(AveragePrecision(3), images) for images in (range(10), range(10, 25))]
    whole = AveragePrecision(3)
    for part in parts:
        whole.score += part.score
        whole.label += part.label
        whole.right += part.right
        whole.present += part.present
    assert whole.compute() == seen_by(AveragePrecision(3), range(25)).compute()


def test_average_precision_by_hand():
    metric = AveragePrecision(1, [0.5])
    overlap, score, label = (
        torch.tensor([[0.9, 0.0], [0.6, 0.0], [0.0, 0.4]]),
        torch.tensor([0.9, 0.8, 0.7]),
        torch.zeros(3).long(),
    )
    metric.update(overlap, score, label, torch.zeros(2).long())  # found; found again; not well enough
    assert metric.compute().item() == pytest.approx(51 / 101)
    metric.update(torch.zeros(0, 0), torch.zeros(0), torch.zeros(0).long(), torch.zeros(0).long())  # an image of nothing
    assert metric.compute().item() == pytest.approx(51 / 101)


def naive_boundary_score(predicted, true, num_classes, tolerance):
    """The formula, pixel by pixel."""
    scores = []
    borders = [[_borders(x, true, label) for label in range(num_classes)] for x in (predicted, true)]
    for found, wanted in zip(*borders, strict=True):
        if not found and not wanted:
            continue
        share = [
            sum(any(i == k and (r - u) ** 2 + (c - v) ** 2 <= tolerance**2 for k, u, v in other) for i, r, c in some)
            / max(len(some), 1)
            for some, other in ((found, wanted), (wanted, found))
        ]
        scores.append(2 * share[0] * share[1] / max(sum(share), 1e-12))
    return sum(scores) / len(scores)


def _borders(x, true, label):
    """(image, row, column) of the pixels of a class with another beside them, and nothing beside them that is ignored."""
    found, (_, height, width) = [], x.shape
    for image, row, column in (x == label).nonzero().tolist():
        around = true[image, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        steps = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
        beside = [int(x[image, r, c]) for r, c in steps if 0 <= r < height and 0 <= c < width]
        if any(other != label for other in beside) and not (around == 255).any():
            found.append((image, row, column))
    return found


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2])
def test_the_boundary_score_is_that_of_its_definition(tolerance):
    true = torch.randint(0, 3, (4, 5, 6)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    predicted = torch.where(torch.rand(4, 10, 12) < 0.15, torch.randint(0, 4, (4, 10, 12)), true.roll(1, 2))
    true[:, :2, 5:7] = 255
    metric = BoundaryScore(5, tolerance)
    for part in (slice(0, 1), slice(1, 4)):
        metric.update(predicted[part], true[part])
    expected = naive_boundary_score(predicted, true, 5, tolerance)
    assert 0.1 < expected < 0.99
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)


def test_a_shifted_outline_costs_more_of_the_boundary_score_than_of_the_pixels():
    true = torch.zeros(1, 60, 60, dtype=torch.long)
    true[:, 10:50, 10:50] = 1
    predicted = true.roll(4, 2)
    metric = BoundaryScore(2, 2)
    metric.update(predicted, true)
    assert (predicted == true).float().mean() > 0.9
    assert float(metric.compute()) < 0.6
    metric.reset()
    metric.update(true.roll(1, 2), true)
    assert float(metric.compute()) == 1


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


def test_bleu_of_texts_as_they_are_is_what_the_program_sacrebleu_says():
    """sacrebleu 2.6.0, nrefs:1|case:mixed|eff:no|tok:13a|smooth:none."""
    translations = ["Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.", 'Zwei "junge" Männer (weiß) kosten 3,50 $ - '
                    "oder 4.5 %!", "A rock-climber's hand & feet: 10-15 m up...", "Fünf Leute in Winterjacken stehen im "
                    "Schnee."]  # fmt: skip
    references = ["Ein Mann mit orangefarbenem Hut, der etwas anstarrt.", 'Zwei „junge" Männer (weiß) kosten 3,50 $ - oder '
                  "4,5 %!", "A rock-climber's hands & feet: 10-15 m up...", "Fünf Leute in Winterjacken und mit Helmen stehen "
                  "im Schnee."]  # fmt: skip
    bleu = SacreBLEU()
    for translation, reference in zip(translations, references, strict=True):
        bleu.update([translation], [[reference]])
    assert bleu.compute().item() == pytest.approx(67.65127448861509, abs=1e-4)
    assert bleu.signature == "nrefs:1|case:mixed|eff:no|tok:13a|smooth:none"
    assert bleu.higher_is_better


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


@pytest.mark.parametrize(
    ("words", "reference", "score"),
    [
        ("a b c", "a b c", 1.0),
        ("a b", "a b c", 3 / 6),  # a, b and "a b" of what is to be said: a, b, c, two pairs and the whole
        ("a b c d e", "a b", 3 / 14),  # of what is said
        ("a a a", "a", 1 / 6),  # the reference has one a
        ("c b a", "a b c", 3 / 6),
        ("", "a", 0.0),
        ("a", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_gleu_is_the_lesser_of_what_is_right_and_what_is_said(words, reference, score):
    assert gleu(words.split(), reference.split()) == pytest.approx(score)


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


@pytest.fixture
def tagged():
    """Probabilities of five labels that tell something of some of those that are there; the last is nowhere."""
    label = (torch.rand(200, 5) < torch.tensor([0.5, 0.2, 0.1, 0.05, 0.0])).long()
    knows = torch.tensor([1, 2, 0, -2, 0])  # of the fourth the contrary
    return (knows * label + torch.randn(200, 5)).sigmoid().mul(20).round() / 20, label  # some equal


def test_f1_of_labels_is_scikit_learns_over_those_that_occur(tagged):
    from sklearn.metrics import f1_score

    probability, label = tagged
    said, none = (probability > 0.6).long(), torch.zeros_like(label)
    expected = f1_score(label, said, average=None, zero_division=0)
    metric = LabelF1(5)
    assert fed(metric, said, label) == pytest.approx(expected[:4].mean())
    assert metric.table()[:, 0].tolist() == pytest.approx(expected.tolist())
    always = f1_score(label, none + 1, average=None, zero_division=0)
    assert metric.table()[:, 1].tolist() == pytest.approx(always.tolist())
    above = fed(LabelsAboveFrequency(5), said, label)
    assert above == pytest.approx((expected > always)[:4].mean())
    assert 0 < above < 1
    assert fed(LabelsAboveFrequency(5), none + 1, label) == 0  # no better is not better


def test_the_precision_of_labels_is_scikit_learns_over_those_that_occur(tagged):
    from sklearn.metrics import average_precision_score

    probability, label = tagged
    expected = [average_precision_score(label[:, place], probability[:, place]) for place in range(4)]
    assert fed(LabelPrecision(), probability, label) == pytest.approx(sum(expected) / 4)
    assert fed(LabelPrecision(), torch.zeros(200, 5), label) == pytest.approx(float(label[:, :4].float().mean()))
    assert math.isnan(fed(LabelPrecision(), probability, torch.zeros_like(label)))
