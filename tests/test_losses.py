"""Our losses against their formulas, written with loops; at their edges; and for what each is.   LBDL 3.1, D2L 13.12"""

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn import functional
from torch.testing import assert_close

from thalweg.losses import (
    binary_focal,
    contrastive,
    dice,
    focal,
    gram_matrix,
    guided_attention,
    jensen_shannon,
    multilabel_margin,
    policy_gradient,
    quality_focal,
    style,
    total_variation,
    triplet,
    wasserstein,
)

EXACT = {"rtol": 0, "atol": 1e-10}


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def is_its_definition(found: tuple, expected: Tensor, count: int, *inputs: Tensor) -> None:
    """Sum, count, and the gradient of the sum."""
    total, counted = found
    assert counted == count
    assert_close(total, expected, **EXACT)
    assert total > 0
    for one, other in zip(grad(total, inputs), grad(expected, inputs), strict=True):
        assert_close(one, other, **EXACT)


@pytest.mark.parametrize("margin", [1.0, 0.3])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_the_triplet_loss_ranks_over_all_triplets_of_a_batch(margin, shift):
    distance, label = numbers(9, 9), torch.tensor([0, 1, 0, 2, 1, 1, 0, 3, 0])
    expected, count = torch.zeros((), dtype=torch.float64), 0
    for a, b, c in product(range(9), repeat=3):
        if a != b and label[a] == label[b] != label[c]:
            expected = expected + (margin + distance[a, b] - distance[a, c]).clamp(min=0)
            count += 1
    is_its_definition(triplet(distance + shift, label, margin), expected, count, distance)


def test_the_hardest_triplets_are_the_farthest_of_a_kind_and_the_nearest_of_another():
    distance, label = numbers(9, 9), torch.tensor([0, 1, 0, 2, 1, 1, 0, 3, 0])
    expected, count = torch.zeros((), dtype=torch.float64), 0
    for a in range(9):
        together = [distance[a, b] for b in range(9) if b != a and label[b] == label[a]]
        apart = [distance[a, c] for c in range(9) if label[c] != label[a]]
        if together and apart:
            expected = expected + (1 + max(together) - min(apart)).clamp(min=0)
            count += 1
    assert count == 7  # 2 and 3 are alone of their kind
    is_its_definition(triplet(distance, label, mining="hard"), expected, count, distance)


@pytest.mark.parametrize("mining", ["all", "hard"])
def test_the_triplet_loss_is_zero_once_others_are_farther_by_the_margin(mining):
    label = torch.arange(6) % 2
    apart = (label[:, None] != label).double()
    assert triplet(3 + apart, label, 1.0, mining)[0] == 0
    assert triplet(3 + apart, label, 1.1, mining)[0] > 0


def test_a_kind_of_mining_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"mining='soft': expected all or hard"):
        triplet(torch.zeros(2, 2), torch.tensor([0, 1]), mining="soft")


def test_the_contrastive_loss_is_its_formula():
    distance, same = (5 * torch.rand(7, 3, dtype=torch.float64)).requires_grad_(), torch.rand(7, 3) < 0.5
    expected = torch.zeros((), dtype=torch.float64)
    for d, y in zip(distance.flatten(), same.flatten().tolist(), strict=True):
        expected = expected + (d**2 / 2 if y else (2 - d).clamp(min=0) ** 2 / 2)
    is_its_definition(contrastive(distance, same, margin=2.0), expected, 21, distance)


@pytest.mark.parametrize("margin", [1.0, 0.2])
def test_the_multilabel_margin_loss_compares_every_class_that_is_with_every_class_that_is_not(margin):
    logits, label = numbers(6, 5), torch.rand(6, 5) < 0.4
    label[0], label[1] = False, True
    expected = torch.zeros((), dtype=torch.float64)
    for row, has in zip(logits, label.tolist(), strict=True):
        for y, i in product(range(5), repeat=2):
            if has[y] and not has[i]:
                expected = expected + (margin - row[y] + row[i]).clamp(min=0) / 5
    is_its_definition(multilabel_margin(logits, label, margin), expected, 6, logits)
    assert_close(multilabel_margin(logits, label.double(), margin)[0], expected, **EXACT)


def test_at_margin_one_the_multilabel_margin_loss_is_that_of_torch():
    logits, label = numbers(50, 7), torch.rand(50, 7) < 0.4
    listed = torch.full((50, 7), -1)
    for row, has in zip(listed, label, strict=True):
        classes = has.nonzero().squeeze(1)
        row[: len(classes)] = classes
    expected = torch.nn.MultiLabelMarginLoss(reduction="sum")(logits, listed)
    is_its_definition(multilabel_margin(logits, label), expected, 50, logits)


def test_tags_are_learned_by_the_multilabel_margin_loss():
    x, rule = torch.randn(400, 8), torch.randn(8, 5)
    label = x @ rule > 0.5
    weight = torch.zeros(8, 5, requires_grad=True)
    optimizer = torch.optim.Adam([weight], 0.05)
    for _ in range(100):
        total, count = multilabel_margin(x[:300] @ weight, label[:300])
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    score, has = (x[300:] @ weight.detach()), label[300:]
    ordered = [(row[y] > row[i]).item() for row, h in zip(score, has, strict=True) for y in h.nonzero() for i in (~h).nonzero()]
    assert sum(ordered) / len(ordered) > 0.93


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_its_formula_over_the_places_that_count(gamma):
    logits, label = numbers(2, 4, 3, 5), torch.randint(0, 4, (2, 3, 5))
    label[0, 1] = 255
    expected, count = torch.zeros((), dtype=torch.float64), 0
    for b, i, j in product(range(2), range(3), range(5)):
        if label[b, i, j] != 255:
            p = logits[b, :, i, j].exp()[label[b, i, j]] / logits[b, :, i, j].exp().sum()
            expected, count = expected - (1 - p) ** gamma * p.log(), count + 1
    is_its_definition(focal(logits, label, gamma, ignore_index=255), expected, count, logits)
    if gamma == 0:
        assert_close(expected, functional.cross_entropy(logits, label, ignore_index=255, reduction="sum"), **EXACT)


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("masked", [True, False])
def test_binary_focal_loss_is_its_formula(alpha, masked):
    logits, target = numbers(4, 6), (torch.rand(4, 6) < 0.3).double()
    mask = torch.rand(4, 6) < 0.7 if masked else None
    expected = torch.zeros((), dtype=torch.float64)
    for i, j in product(range(4), range(6)):
        p = 1 / (1 + (-logits[i, j]).exp())
        p, a = (p, alpha) if target[i, j] else (1 - p, alpha and 1 - alpha)
        if mask is None or mask[i, j]:
            expected = expected - (1.0 if a is None else a) * (1 - p) ** 2 * p.log()
    count = 24 if mask is None else int(mask.sum())
    is_its_definition(binary_focal(logits, target, alpha=alpha, mask=mask), expected, count, logits)


def test_the_quality_focal_loss_is_its_formula_and_at_whole_targets_the_focal_loss():
    logits, target = numbers(4, 3), torch.rand(4, 3, dtype=torch.float64)
    p = logits.sigmoid()
    expected = -((target - p).abs() ** 1.5 * (target * p.log() + (1 - target) * (1 - p).log())).sum()
    is_its_definition(quality_focal(logits, target, 1.5), expected, target.sum(), logits)
    assert_close(quality_focal(logits, target.round())[0], binary_focal(logits, target.round())[0], **EXACT)


def test_focal_losses_of_two_classes_and_of_one_question_are_the_same():
    logit, target = torch.randn(20, dtype=torch.float64), torch.rand(20) < 0.5
    two = torch.stack([torch.zeros_like(logit), logit], 1)
    assert_close(binary_focal(logit, target)[0], focal(two, target.long())[0], **EXACT)


def test_focal_loss_leaves_less_to_what_is_easy():
    easy = torch.tensor([[3.0, 0.0]])
    share = focal(easy, torch.tensor([0]))[0] / functional.cross_entropy(easy, torch.tensor([0]))
    assert share == pytest.approx((1 - 1 / (1 + math.exp(-3))) ** 2, rel=1e-5)


def test_dice_loss_is_its_formula_over_the_places_that_count():
    logits, label = numbers(3, 4, 2, 5), torch.randint(0, 3, (3, 2, 5))  # class 3 is nowhere
    label[0, 1], label[2] = -100, -100  # of image 2 nothing counts
    expected = torch.zeros((), dtype=torch.float64)
    for b, c in product(range(2), range(4)):
        overlap = area = 0.0
        for i, j in product(range(2), range(5)):
            if label[b, i, j] != -100:
                p, g = logits[b, :, i, j].softmax(0)[c], float(label[b, i, j] == c)
                overlap, area = overlap + p * g, area + p + g
        expected = expected + 1 - (2 * overlap + 0.5) / (area + 0.5)
    is_its_definition(dice(logits, label, smooth=0.5), expected, 8, logits)


def test_dice_loss_without_smoothing_is_refused():
    with pytest.raises(ValueError, match=r"smooth=0: expected more than 0"):
        dice(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long), smooth=0)


def test_dice_loss_is_nothing_for_a_perfect_map_and_does_not_see_how_large_an_area_is():
    label = torch.zeros(1, 32, 32, dtype=torch.long)
    label[0, 3:5, 3:5] = 1
    perfect = 200 * functional.one_hot(label, 2).movedim(-1, 1).float()
    assert dice(perfect, label)[0] == pytest.approx(0, abs=1e-6)
    nothing_found = torch.tensor([100.0, -100.0])[None, :, None, None].expand(1, 2, 32, 32)
    assert functional.cross_entropy(nothing_found, label) == pytest.approx(200 * 4 / 1024)
    assert dice(nothing_found, label, smooth=1e-6)[0] == pytest.approx(1, abs=0.01)


def test_jensen_shannon_divergence_is_its_formula():
    logits, other = numbers(3, 2, 5), numbers(3, 2, 5)
    expected = torch.zeros((), dtype=torch.float64)
    for p, q in zip(logits.softmax(-1).view(6, 5), other.softmax(-1).view(6, 5), strict=True):
        m = (p + q) / 2
        expected = expected + (p * (p / m).log()).sum() / 2 + (q * (q / m).log()).sum() / 2
    is_its_definition(jensen_shannon(logits, other), expected, 6, logits, other)
    assert_close(jensen_shannon(other, logits)[0], expected, **EXACT)
    assert_close(jensen_shannon(logits, logits + 7)[0], torch.zeros(()).double(), **EXACT)


def heap(centre: float) -> Tensor:
    """Log-probabilities of a heap of five places at a centre, none elsewhere on a line of 100."""
    return torch.where((torch.arange(100.0) - centre).abs() <= 2, 0.0, -math.inf).requires_grad_()


@pytest.mark.parametrize("distance", [5, 20, 60])
def test_jensen_shannon_is_log_two_for_heaps_that_do_not_meet_however_far_and_draws_neither(distance):
    one, other = heap(10), heap(10 + distance)
    found = jensen_shannon(one, other)[0]
    assert found.item() == pytest.approx(math.log(2), abs=1e-6)
    assert_close(grad(found, (one, other)), (torch.zeros(100), torch.zeros(100)))
    overlapping = jensen_shannon(heap(10), heap(12))[0]
    assert 0 < overlapping < math.log(2)


def test_the_wasserstein_distance_of_equally_many_samples_is_that_of_the_sorted_ones():
    x, y = numbers(3, 8), numbers(3, 8)
    expected = torch.zeros((), dtype=torch.float64)
    for a, b in zip(x, y, strict=True):
        for i in range(8):
            expected = expected + (a[a.argsort()[i]] - b[b.argsort()[i]]).abs() / 8
    is_its_definition(wasserstein(x, y), expected, 3, x, y)


def test_the_wasserstein_distance_of_unequally_many_is_that_of_each_copied_until_they_are():
    x, y = numbers(6), numbers(4)
    copied = wasserstein(x.repeat(2), y.repeat(3))
    is_its_definition(wasserstein(x, y), copied[0], 1, x, y)
    from scipy.stats import wasserstein_distance

    assert wasserstein(x, y)[0].item() == pytest.approx(wasserstein_distance(x.tolist(), y.tolist()), abs=1e-10)
    with pytest.raises(ValueError, match="6 and 0 samples, expected at least one of each"):
        wasserstein(x, torch.zeros(0))


def test_the_wasserstein_distance_falls_as_heaps_come_nearer_and_draws_them():
    x = torch.randn(50)
    found = [wasserstein(x, x + distance)[0].item() for distance in (60.0, 20.0, 5.0)]
    assert found == pytest.approx([60, 20, 5], rel=1e-5)
    start = (x + 60).requires_grad_()
    assert_close(grad(wasserstein(x, start)[0], start)[0], torch.full((50,), 1 / 50))


def test_a_gram_matrix_and_the_style_loss_are_their_formulas():
    features, wanted = numbers(2, 3, 4, 5), numbers(2, 3, 3)
    expected = torch.zeros((), dtype=torch.float64)
    for b, c, d in product(range(2), range(3), range(3)):
        g = sum(features[b, c, i, j] * features[b, d, i, j] for i, j in product(range(4), range(5))) / 60
        assert_close(gram_matrix(features)[b, c, d], g, **EXACT)
        expected = expected + (g - wanted[b, c, d]) ** 2
    is_its_definition(style(features, wanted), expected, 18, features, wanted)
    assert_close(style(features, wanted[0])[0], style(features, wanted[:1].expand(2, 3, 3))[0], **EXACT)


def test_the_style_does_not_depend_on_where_things_are():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    moved = features.flatten(2)[..., torch.randperm(20)].view_as(features)
    assert_close(gram_matrix(moved), gram_matrix(features), **EXACT)
    assert not torch.allclose(gram_matrix(features.roll(1, dims=1)), gram_matrix(features))  # but on which channels
    elsewhere = features.clone()
    elsewhere[:, 0] = features[:, 0].roll(1, dims=-1)  # and on what comes together
    assert not torch.allclose(gram_matrix(elsewhere), gram_matrix(features))


def test_total_variation_is_its_formula_and_zero_for_a_constant_image():
    image = numbers(2, 3, 4, 5)
    expected, count = torch.zeros((), dtype=torch.float64), 0
    for b, c, i, j in product(range(2), range(3), range(4), range(5)):
        for row, column in ((i + 1, j), (i, j + 1)):
            if row < 4 and column < 5:
                expected, count = expected + (image[b, c, row, column] - image[b, c, i, j]).abs(), count + 1
    is_its_definition(total_variation(image), expected, count, image)
    assert total_variation(torch.full((1, 3, 4, 5), 0.3))[0] == 0


def test_total_variation_takes_high_frequencies_out_of_a_noisy_image():
    def energy(image):
        """Of the frequencies above and below an eighth."""
        spectrum, far = torch.fft.rfft2(image).abs().square(), torch.fft.fftfreq(32).abs()[:, None] > 1 / 8
        return spectrum[far.expand_as(spectrum)].sum().item(), spectrum[~far.expand_as(spectrum)].sum().item()

    plain = torch.zeros(32, 32)
    plain[:, 16:] = 1.0
    noisy = plain + 0.2 * torch.randn(32, 32)
    image = noisy.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], 0.02)
    for _ in range(60):
        loss = (image - noisy).square().sum() + 0.4 * total_variation(image)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (high, low), (high_before, low_before) = energy(image.detach()), energy(noisy)
    assert high < 0.2 * high_before
    assert low > 0.8 * low_before
    assert functional.mse_loss(image, plain) < 0.3 * functional.mse_loss(noisy, plain)


NOTHING = torch.zeros(2, 3, dtype=torch.bool)
EDGES = {
    "no examples": (lambda x: triplet(x[:0, :0], torch.zeros(0, dtype=torch.long)), (4, 4)),
    "all of a kind": (lambda x: triplet(x, torch.zeros(4, dtype=torch.long)), (4, 4)),
    "each of its own kind": (lambda x: triplet(x, torch.arange(4)), (4, 4)),
    "all of a kind, hardest": (lambda x: triplet(x, torch.zeros(4, dtype=torch.long), mining="hard"), (4, 4)),
    "each of its own kind, hardest": (lambda x: triplet(x, torch.arange(4), mining="hard"), (4, 4)),
    "no pairs": (lambda x: contrastive(x[:0], NOTHING[0, :0]), (3,)),
    "no rows": (lambda x: multilabel_margin(x[:0], NOTHING[:0]), (2, 3)),
    "all ignored, focal": (lambda x: focal(x, torch.full((2,), -100)), (2, 3)),
    "all masked, binary focal": (lambda x: binary_focal(x, NOTHING, mask=NOTHING), (2, 3)),
    "all ignored, dice": (lambda x: dice(x, torch.full((2, 4), -100)), (2, 3, 4)),
    "no distributions": (lambda x: jensen_shannon(x[:0], x[:0]), (2, 3)),
    "no heaps": (lambda x: wasserstein(x[:0], x[:0]), (2, 3)),
    "no images": (lambda x: style(x[:0], x[0, :, 0, 0].outer(x[0, :, 0, 0])), (2, 3, 4, 5)),
    "one pixel": (lambda x: total_variation(x), (2, 1, 1)),
}


@pytest.mark.parametrize("edge", EDGES)
def test_where_there_is_nothing_to_count_sum_count_and_gradient_are_zero(edge):
    loss, shape = EDGES[edge]
    x = numbers(*shape)
    total, count = loss(x)
    assert total.item() == 0
    assert count == 0
    assert torch.equal(grad(total, x)[0], torch.zeros_like(x))


LABEL = torch.tensor([0, 1, 0, 2, 1, 2])
ANY = {
    "triplet": lambda x: triplet(x @ x.mT, LABEL),
    "triplet, hardest": lambda x: triplet(x @ x.mT, LABEL, mining="hard"),
    "contrastive": lambda x: contrastive(x, LABEL[:, None] == torch.arange(3)),
    "multilabel_margin": lambda x: multilabel_margin(x, LABEL[:, None] == torch.arange(3)),
    "focal": lambda x: focal(x, LABEL),
    "focal, gamma a half": lambda x: focal(x, LABEL, gamma=0.5),
    "binary_focal": lambda x: binary_focal(x, LABEL[:, None] == torch.arange(3)),
    "binary_focal, gamma a half": lambda x: binary_focal(x, LABEL[:, None] == torch.arange(3), gamma=0.5),
    "dice": lambda x: dice(x[None], LABEL[None, :3]),
    "jensen_shannon": lambda x: jensen_shannon(x, x.flip(0)),
    "wasserstein": lambda x: wasserstein(x, x.flip(0)),
    "style": lambda x: style(x[None, :, :, None], torch.zeros(6, 6, dtype=x.dtype)),
    "total_variation": total_variation,
}


@pytest.mark.parametrize("name", ANY)
def test_values_of_a_thousand_give_finite_losses_and_gradients(name):
    for sign in (1, -1):
        x = (
            1000 * sign * torch.tensor([[1.0, -1, 0], [-1, 1, 1], [0, 0, 0], [1, 1, -1], [-1, 1, -1], [0, -1, 1]])
        ).requires_grad_()
        total = ANY[name](x)[0]
        assert total.isfinite()
        assert grad(total, x)[0].isfinite().all()


@pytest.mark.parametrize("name", ANY)
def test_bf16_is_calculated_with_in_float32_also_under_autocast(name):
    x = torch.randn(6, 3).bfloat16()
    loss = ANY[name]
    if name.startswith("triplet"):  # of distances, whose own type is the caller's
        x, loss = (x @ x.mT), lambda d: triplet(d, LABEL, mining="hard" if "hard" in name else "all")
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(x)[0]
    assert found.dtype == torch.float32
    assert_close(found, loss(x.float())[0], rtol=0, atol=0)


@pytest.mark.parametrize("width", [0.2, 1.0])
def test_the_guided_loss_is_small_near_the_diagonal_of_what_is_real(width):
    weights = numbers(2, 4, 5).detach().softmax(-1).requires_grad_()
    times, reads = (4, 3), (5, 2)
    expected = torch.zeros((), dtype=torch.float64)
    for example, (time, read) in enumerate(zip(times, reads, strict=True)):
        for t, s in product(range(time), range(read)):
            away = 1 - math.exp(-((t / time - s / read) ** 2) / (2 * width**2))
            expected = expected + weights[example, t, s] * away
    masks = [torch.arange(size) < torch.tensor(lengths)[:, None] for size, lengths in ((4, times), (5, reads))]
    is_its_definition(guided_attention(weights, *masks, width), expected, 7, weights)
    assert guided_attention(torch.eye(4)[None], *[torch.ones(1, 4, dtype=torch.bool)] * 2)[0] == 0
    with pytest.raises(ValueError, match="width=0: expected more than 0"):
        guided_attention(weights, *masks, 0)


def test_a_policy_gradient_is_on_average_that_of_the_expected_reward():
    """Of all sequences of two tokens: sum_y p(y) grad(- (r(y) - b) log p(y)) = - grad sum_y p(y) r(y), for any b."""
    logits = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)  # [time vocab], whatever came before
    tokens = torch.tensor(list(product(range(4), repeat=2)))
    reward, chance = torch.rand(16, dtype=torch.float64), logits.log_softmax(-1)
    log_p = torch.stack([chance[0, first] + chance[1, second] for first, second in tokens.tolist()])
    (expected,) = grad(-(log_p.exp() * reward).sum(), logits, retain_graph=True)
    for baseline in (0.0, 0.7):
        advantage = log_p.exp().detach() * (reward - baseline)  # each as often as it is drawn
        total, count = policy_gradient(logits.expand(16, 2, 4), tokens, advantage)
        assert count == 16
        assert_close(grad(total, logits, retain_graph=True)[0], expected, rtol=1e-10, atol=1e-12)


def test_padding_is_neither_praised_nor_blamed():
    logits, tokens = torch.randn(1, 4, 5), torch.tensor([[3, 2, 0, 0]])
    by_hand = -0.5 * logits[0].log_softmax(-1)[[0, 1], [3, 2]].sum()
    assert_close(policy_gradient(logits, tokens, torch.tensor([0.5]), ignore_index=0)[0], by_hand)
