"""The losses that torch has, held to what the books say of them.   LBDL 3.1, D2L 3.1, 3.4, 11.2, 13.12"""

import importlib
import math
from itertools import product

import pytest
import torch
from scenes import small_digits
from torch import nn
from torch.autograd import grad, gradcheck
from torch.distributions import Normal, kl_divergence
from torch.nn import functional
from torch.testing import assert_close

from thalweg.build import build
from thalweg.catalogue import rows
from thalweg.inspection.report import write_report
from thalweg.training import Training
from thalweg.training.run import run

EXACT = {"rtol": 0, "atol": 1e-10}


def test_mean_squared_error_is_the_mean_of_the_squares():
    prediction = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    assert functional.mse_loss(prediction, target, reduction="sum").item() == 0 + 4 + 9
    loss = functional.mse_loss(prediction, target)
    assert loss.item() == pytest.approx(13 / 3, abs=1e-12)
    loss.backward()
    assert_close(prediction.grad, 2 * (prediction - target).detach() / 3, **EXACT)


def test_cross_entropy_is_minus_the_log_probability_of_the_label():
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0, 3, 1, 1, 2])
    expected = 0.0
    for row, y in zip(logits.tolist(), label.tolist(), strict=True):
        expected -= math.log(math.exp(row[y]) / sum(math.exp(value) for value in row)) / 5
    loss = functional.cross_entropy(logits, label)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    loss.backward()
    assert_close(logits.grad, (logits.softmax(1) - functional.one_hot(label, 4)).detach() / 5, **EXACT)


def test_cross_entropy_stays_finite_for_logits_of_a_thousand():
    logits = torch.tensor([[1000.0, -1000.0]])
    assert functional.cross_entropy(logits, torch.tensor([0])) == 0
    assert functional.cross_entropy(logits, torch.tensor([1])) == 2000


def test_softmax_sums_to_one_and_does_not_see_a_common_shift():
    logits = torch.randn(3, 7, dtype=torch.float64)
    probability = logits.softmax(-1)
    assert_close(probability, logits.exp() / logits.exp().sum(-1, keepdim=True), **EXACT)
    assert_close(probability.sum(-1), torch.ones(3).double(), **EXACT)
    assert_close((logits + 123).softmax(-1), probability, **EXACT)


def test_one_hot_vectors_are_labels_that_cross_entropy_takes_too():
    label, logits = torch.tensor([2, 0, 1]), torch.randn(3, 4, dtype=torch.float64)
    vectors = functional.one_hot(label, 4).double()
    assert vectors.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert torch.equal(vectors.argmax(1), label)
    assert_close(functional.cross_entropy(logits, vectors), functional.cross_entropy(logits, label), **EXACT)
    mixed = (vectors + vectors.roll(1, 0)) / 2
    halves = [functional.cross_entropy(logits, target) / 2 for target in (label, label.roll(1))]
    assert_close(functional.cross_entropy(logits, mixed), sum(halves), **EXACT)


def test_label_smoothing_spreads_a_share_of_the_target_over_all_classes():
    label, logits = torch.tensor([2, 0]), torch.randn(2, 4, dtype=torch.float64)
    spread = 0.9 * functional.one_hot(label, 4).double() + 0.1 / 4
    expected = -(spread * logits.log_softmax(1)).sum(1).mean()
    assert_close(functional.cross_entropy(logits, label, label_smoothing=0.1), expected, **EXACT)


def test_of_a_wholly_ignored_batch_the_mean_is_no_number_and_the_sum_is_zero():
    logits, label = torch.randn(3, 4, requires_grad=True), torch.full((3,), -100)
    assert functional.cross_entropy(logits, label).isnan()  # which is why a loss here is a sum and a count
    total = functional.cross_entropy(logits, label, reduction="sum")
    assert total == 0
    assert torch.equal(grad(total, logits)[0], torch.zeros(3, 4))


def test_absolute_error_fits_the_median_which_no_outlier_moves_and_squared_error_the_mean():
    y = torch.tensor([1.0, 2.0, 3.0, 4.0, 1000.0], dtype=torch.float64)
    prediction = torch.tensor([3.0, 2.5, 2.5, 4.5, 900.0], dtype=torch.float64, requires_grad=True)
    loss = functional.l1_loss(prediction, y)
    assert loss.item() == pytest.approx((2 + 0.5 + 0.5 + 0.5 + 100) / 5)
    assert torch.equal(grad(loss, prediction)[0], torch.tensor([1.0, 1, -1, 1, -1]).double() / 5)
    grid = torch.linspace(0, 300, 3001, dtype=torch.float64)
    errors = (functional.l1_loss, functional.mse_loss)
    fitted = [float(grid[torch.stack([error(c.expand(5), y) for c in grid]).argmin()]) for error in errors]
    assert fitted == pytest.approx([3, 202])  # the outlier costs the median nothing


@pytest.mark.parametrize("delta", [1.0, 0.4])
def test_huber_loss_is_squared_near_and_absolute_far(delta):
    error = torch.linspace(-3, 3, 25, dtype=torch.float64, requires_grad=True)
    terms = [e**2 / 2 if abs(e) <= delta else delta * (abs(e) - delta / 2) for e in error]
    zero = torch.zeros_like(error)
    loss = functional.huber_loss(error, zero, delta=delta, reduction="sum")
    assert_close(loss, sum(terms), **EXACT)
    assert_close(grad(loss, error)[0], error.detach().clamp(-delta, delta), **EXACT)
    assert_close(functional.smooth_l1_loss(error, zero, beta=delta, reduction="sum"), loss / delta, **EXACT)


def test_weighted_cross_entropy_is_the_weighted_mean_of_the_surprises():
    logits, label = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 2, 2, 1, 2])
    weight = torch.tensor([1.0, 2.0, 0.3], dtype=torch.float64)
    surprise = [weight[y] * -row.log_softmax(0)[y] for row, y in zip(logits, label, strict=True)]
    assert_close(functional.cross_entropy(logits, label, weight), sum(surprise) / weight[label].sum(), **EXACT)


def test_weights_of_the_classes_raise_the_recall_of_the_minority():
    label = (torch.arange(2000) % 20 == 0).long()  # one in twenty
    x = torch.randn(2000, 2) + 1.5 * label[:, None]

    def recall(weight):
        model = nn.Linear(2, 2)
        optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), label, weight)
            loss.backward()
            return loss

        for _ in range(5):
            optimizer.step(closure)
        return (model(x).argmax(1) == 1)[label == 1].float().mean().item()

    assert recall(torch.tensor([1.0, 20.0])) > recall(None) + 0.2
    assert recall(torch.tensor([1.0, 20.0])) > 0.8


def test_binary_cross_entropy_is_its_formula_from_logits_and_stays_finite():
    logits = torch.randn(7, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1.0, 0, 0, 1, 0, 0.3, 1], dtype=torch.float64)
    expected = 0.0
    for x, y in zip(logits, target, strict=True):
        p = 1 / (1 + (-x).exp())
        expected = expected - y * p.log() - (1 - y) * (1 - p).log()
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    assert_close(loss, expected, **EXACT)
    assert_close(grad(loss, logits)[0], logits.detach().sigmoid() - target, **EXACT)
    extreme, right = torch.tensor([1000.0, -1000.0, 1000.0, -1000.0]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    terms = functional.binary_cross_entropy_with_logits(extreme, right, reduction="none")
    assert terms.tolist() == [0, 0, 1000, 1000]


def test_masked_binary_cross_entropy_does_not_see_the_padding():
    """Of skip-gram with negative sampling: contexts and noise words of a word, as many as it has.   D2L 14.4"""
    logits, target = torch.randn(2, 4, requires_grad=True), torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0]])
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
    loss = functional.binary_cross_entropy_with_logits(logits, target, weight=mask, reduction="sum")
    whole = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    assert_close(loss, whole[0].sum() + whole[1, :2].sum())
    assert torch.equal(grad(loss, logits)[0][1, 2:], torch.zeros(2))
    other = torch.where(mask == 1, logits, 50.0)
    assert torch.equal(
        functional.binary_cross_entropy_with_logits(other, 1 - mask + target * mask, mask, reduction="sum"), loss
    )


def test_the_density_that_minimises_its_negative_log_likelihood_has_the_moments_of_the_data():
    x = 3 + 2 * torch.randn(200, dtype=torch.float64)
    loss = nn.GaussianNLLLoss(full=True, reduction="sum")(torch.zeros_like(x), x, torch.ones_like(x))
    expected = -sum(math.log(math.exp(-(v**2) / 2) / math.sqrt(2 * math.pi)) for v in x.tolist())
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = functional.gaussian_nll_loss(parameters[0].expand(200), x, parameters[1].exp().expand(200))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert_close(parameters[0], x.mean(), rtol=0, atol=1e-6)
    assert_close(parameters[1].exp(), x.var(correction=0), rtol=0, atol=1e-6)  # divided by n: the maximum of the likelihood


def test_the_divergence_of_two_gaussians_is_the_mean_log_ratio_of_samples():
    p, q = Normal(1.0, 2.0), Normal(-0.5, 3.0)
    exact = kl_divergence(p, q)
    assert exact.item() == pytest.approx(math.log(3 / 2) + (2**2 + 1.5**2) / (2 * 3**2) - 1 / 2)
    x = p.sample((200_000,))
    assert (p.log_prob(x) - q.log_prob(x)).mean().item() == pytest.approx(exact.item(), abs=0.01)
    log_q, target = torch.randn(3, 4).log_softmax(1), torch.rand(3, 4).softmax(1)
    expected = sum(t * (t.log() - lq) for t, lq in zip(target.flatten(), log_q.flatten(), strict=True))
    assert_close(functional.kl_div(log_q, target, reduction="sum"), expected)
    assert_close(expected, (functional.cross_entropy(log_q, target, reduction="sum") + (target * target.log()).sum()))


def test_the_multiclass_hinge_loss_wants_the_right_class_ahead_by_a_margin():
    logits, label = torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 4, (6,))
    expected = 0.0
    for row, y in zip(logits, label.tolist(), strict=True):
        expected += sum((0.7 - row[y] + row[i]).clamp(min=0) for i in range(4) if i != y) / 4 / 6
    assert_close(functional.multi_margin_loss(logits, label, margin=0.7), expected, **EXACT)


def collapsed(path) -> list[int]:
    """A path without repetitions, then without blanks (0)."""
    return [symbol for symbol, before in zip(path, (None, *path), strict=False) if symbol != before and symbol != 0]


def test_ctc_sums_over_every_path_that_collapses_to_the_target_and_does_not_see_the_padding():
    logits = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)  # [time batch symbol]
    targets, lengths, frames = torch.tensor([[1, 2, 0], [2, 2, 0]]), torch.tensor([2, 2]), torch.tensor([5, 4])
    log_p, expected = logits.log_softmax(2), 0.0
    for row in range(2):
        probability = 0.0
        for path in product(range(3), repeat=int(frames[row])):
            if collapsed(path) == targets[row, : lengths[row]].tolist():
                probability = probability + sum(log_p[t, row, symbol] for t, symbol in enumerate(path)).exp()
        expected = expected - probability.log()
    loss = functional.ctc_loss(log_p, targets, frames, lengths, reduction="sum")
    assert_close(loss, expected, **EXACT)
    found, wanted = (grad(value, logits, retain_graph=True)[0] for value in (loss, expected))
    assert_close(found, wanted, **EXACT)
    assert torch.equal(found[4, 1], torch.zeros(3).double())
    targets[:, 2] = 1  # padding of the targets
    assert functional.ctc_loss(log_p, targets, frames, lengths, reduction="sum") == loss


def test_ctc_of_a_target_that_is_too_long_is_infinite_and_can_be_left_out():
    log_p, too_long = torch.zeros(2, 1, 3).log_softmax(2), torch.tensor([[1, 1]])  # two of a kind need a blank between
    arguments = (log_p, too_long, torch.tensor([2]), torch.tensor([2]))
    assert functional.ctc_loss(*arguments, reduction="sum") == math.inf
    assert functional.ctc_loss(*arguments, reduction="sum", zero_infinity=True) == 0


def test_ctc_learns_where_symbols_are_from_their_order_alone():
    random = torch.Generator().manual_seed(1)
    shapes = torch.randn(4, 6, generator=random)  # of symbols 1 to 4

    def spoken(count):
        """Frames of 4 different symbols in some order, each for 2 to 5 frames, and noise; symbols; how many frames."""
        frames, symbols = torch.zeros(count, 20, 6), torch.stack([torch.randperm(4, generator=random) for _ in range(count)])
        lasting = torch.randint(2, 6, (count, 4), generator=random)
        for row in range(count):
            frames[row, : lasting[row].sum()] = shapes[symbols[row]].repeat_interleave(lasting[row], 0)
        return frames + 0.3 * torch.randn(frames.shape, generator=random), symbols + 1, lasting.sum(1)

    model = nn.Conv1d(6, 5, 3, padding=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    frames, symbols, lengths = spoken(64)
    for _ in range(150):
        log_p = model(frames.mT).permute(2, 0, 1).log_softmax(2)
        loss = functional.ctc_loss(log_p, symbols, lengths, torch.full((64,), 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    frames, symbols, lengths = spoken(50)
    best = model(frames.mT).argmax(1)
    heard = [collapsed(row[:length].tolist()) for row, length in zip(best, lengths, strict=True)]
    assert sum(one == other for one, other in zip(heard, symbols.tolist(), strict=True)) >= 45


def descended(loss, start: float, steps: int = 100, lr: float = 1.0) -> float:
    w = torch.tensor(start, requires_grad=True)
    for _ in range(steps):
        w = (w - lr * grad(loss(w), w)[0]).detach().requires_grad_()
    return w.sigmoid().item()


def test_squared_error_behind_a_sigmoid_is_stuck_at_a_bad_start_where_cross_entropy_is_not():
    def squared(w):
        return (w.sigmoid() - 1) ** 2

    def surprise(w):
        return functional.binary_cross_entropy_with_logits(w, torch.tensor(1.0))

    far, near = torch.tensor(-12.0, requires_grad=True), torch.tensor(12.0, requires_grad=True)
    for w in (far, near):
        assert abs(grad(squared(w), w)[0]) < 1e-4  # flat far from the target as well as near it
    assert grad(surprise(far), far)[0] < -0.99
    assert abs(grad(surprise(near), near)[0]) < 1e-4
    assert descended(squared, -12.0) < 0.01
    assert descended(surprise, -12.0) > 0.98


def test_error_rate_has_no_slope_to_follow_and_cross_entropy_which_stands_for_it_has():
    x, label = torch.randn(100, 3, dtype=torch.float64), torch.randint(0, 4, (100,))
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def error_rate(w):
        return ((x @ w).argmax(1) != label).double().mean()

    assert not error_rate(weight).requires_grad
    assert gradcheck(error_rate, weight)  # by finite differences: 0 wherever a little is changed
    assert all(error_rate(weight + 1e-6 * torch.randn_like(weight)) == error_rate(weight) for _ in range(10))
    assert grad(functional.cross_entropy(x @ weight, label), weight)[0].norm() > 0.01


def test_the_report_of_a_run_shows_the_error_rate_beside_the_loss_that_stands_for_it(tmp_path):
    run(Training(small_digits(steps=4)), tmp_path, {"recipe": "small-digits", "command": ""}, progress=False)
    page = write_report(tmp_path).read_text(encoding="utf8")
    for name in ("loss", "accuracy"):
        assert (tmp_path / "figures" / f"{name}.png").exists()
        assert f"<span>test {name}</span>" in page


def test_decay_of_the_weights_is_a_gaussian_prior_and_narrows_the_gap_to_unseen_data():
    truth, x, unseen = (torch.randn(30, *shape, dtype=torch.float64) for shape in ((15, 1), (20, 15), (100, 15)))  # 30 problems
    y, asked = (Normal(features @ truth / 2, 1.0).sample() for features in (x, unseen))
    gaps = []
    for decay in (0.5, 2.0, 8.0):
        w, prior = torch.zeros_like(truth, requires_grad=True), Normal(0.0, decay**-0.5)
        optimizer = torch.optim.SGD([w], 0.02, weight_decay=decay)
        for _ in range(1500):
            optimizer.zero_grad()
            (-Normal(x @ w, 1.0).log_prob(y).sum()).backward()
            optimizer.step()
        log_posterior = Normal(x @ w, 1.0).log_prob(y).sum() + prior.log_prob(w).sum()
        assert_close(grad(log_posterior, w)[0], torch.zeros_like(truth), rtol=0, atol=1e-5)  # its maximum
        with torch.no_grad():
            gaps.append(float((unseen @ w - asked).square().mean() - (x @ w - y).square().mean()))
    assert gaps == sorted(gaps, reverse=True)


def test_a_penalty_leads_to_the_constrained_optimum_and_a_multiplier_reaches_it():
    """The nearest point of the unit disc to (3, 4) is (0.6, 0.8): |w - (3, 4)|^2 / 2 with |w|^2 <= 1."""
    target, best = torch.tensor([3.0, 4.0], dtype=torch.float64), torch.tensor([0.6, 0.8], dtype=torch.float64)

    def solved(weight, multiplier=0.0):
        w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([w], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            excess = w.square().sum() - 1
            loss = (w - target).square().sum() / 2 + weight * excess.relu() ** 2 + multiplier * excess
            loss.backward()
            return loss

        optimizer.step(closure)
        return w.detach()

    distances = [float((solved(weight) - best).norm()) for weight in (0.0, 0.1, 1.0, 10.0, 100.0, 1000.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] == pytest.approx(4)
    assert distances[-1] < 0.002
    multiplier = 0.0
    for _ in range(200):  # it rises while the constraint is broken
        multiplier = max(0.0, multiplier + 0.5 * float(solved(0.0, multiplier).square().sum() - 1))
    assert multiplier == pytest.approx(2, abs=1e-4)  # w (1 + 2 multiplier) = target, |w| = 1
    assert_close(solved(0.0, multiplier), best, rtol=0, atol=1e-4)


def test_content_loss_brings_an_image_close_in_the_features_that_a_layer_sees():
    layer = nn.Conv2d(1, 8, 3, padding=1).requires_grad_(False)
    wanted, image = layer(torch.rand(1, 1, 8, 8)), torch.rand(1, 1, 8, 8, requires_grad=True)
    before = functional.mse_loss(layer(image), wanted).item()
    optimizer = torch.optim.Adam([image], 0.05)
    for _ in range(100):
        loss = functional.mse_loss(layer(image), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01 * before


CLASSIFIERS = [key for key, row in rows().items() if "example" in row and "classifier" in row["kind"].split()
               and key != "nin"]  # whose maps a class are the mean of what a relu gives  # fmt: skip


@pytest.mark.parametrize("key", CLASSIFIERS)
def test_a_classifier_returns_logits_and_no_probabilities(key):
    row = rows()[key]
    module, _, name = row["defined"].partition(":")
    model = build(getattr(importlib.import_module(module), name), **row["example"]["arguments"]).eval()
    image = torch.randn(2, *row["example"]["input"][1:])
    with torch.no_grad():
        before = model(image)
        model.head.register_forward_hook(lambda head, x, y: y - 5)
        assert_close(model(image), before - 5, rtol=0, atol=1e-5)  # nothing squashes what the head gives
