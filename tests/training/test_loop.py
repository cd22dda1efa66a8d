"""The loop against its definition: what a step is, whose it is, and that looking at a run does not change it."""

import pytest
import torch
from jaxtyping import TypeCheckError
from scenes import Fit, Game, points, small_digits, stream
from torch import nn

from thalweg.data.streams import TensorStream
from thalweg.training import Experiment, Task, Training, evaluate
from thalweg.training.machine import native_bf16
from thalweg.training.optimisers import adamw, muon, sgd
from thalweg.training.schedules import cosine, linear


def train(task, stream, steps, *, precision="fp32", **options):
    """The run's steps after it ended; the weights are those of the task."""
    return list(Training(Experiment(task=task, train=stream, steps=steps, **options), precision=precision))


def weights(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def test_a_step_is_the_formula_of_gradient_descent_on_the_mean_of_the_terms():
    task, data = Fit().double(), points()
    w, b = task.model.weight.detach().clone()[0], task.model.bias.detach().clone()[0]
    losses = []
    for number in range(6):
        rows = slice(8 * (number % 3), 8 * (number % 3) + 8)
        x, y, m = (data[name][rows] for name in ("features", "target", "mask"))
        error = m * (x @ w + b - y)
        losses.append((error**2).sum() / 2 / m.sum())
        w, b = w - 0.3 * (error[:, None] * x).sum(0) / m.sum(), b - 0.3 * error.sum() / m.sum()
    steps = train(task, stream(8), 6, optimizer=sgd(0.3))
    torch.testing.assert_close(task.model.weight[0], w, rtol=0, atol=1e-12)
    torch.testing.assert_close(task.model.bias[0], b, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.stack([step.losses[""] for step in steps]), torch.stack(losses), rtol=0, atol=1e-12)
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("clip", [None, 0.01])
def test_accumulating_1_2_or_4_pieces_with_uneven_masks_ends_with_equal_weights(clip):
    def trained(pieces):
        torch.manual_seed(0)
        task = Fit(hidden=5).double()
        options = {"optimizer": adamw(0.01), "schedule": cosine(), "clip": clip}
        steps = train(task, stream(8 // pieces), 9, accumulate=pieces, **options)
        return weights(task), torch.stack([step.losses[""].double() for step in steps])

    whole, losses = trained(1)
    for pieces in (2, 4):
        torch.testing.assert_close(trained(pieces)[0], whole, rtol=0, atol=1e-10)
        torch.testing.assert_close(trained(pieces)[1], losses, rtol=0, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("integer", [False, True])
def test_a_batch_in_which_nothing_counts_changes_no_weight(accumulate, integer):
    class Counted(Fit):
        def loss(self, batch):
            total, count = super().loss(batch)
            return total, int(count) if integer else count

    task = Counted().double()
    before, data = weights(task), points()
    data["mask"].zero_()
    steps = train(task, TensorStream(data, 8), 2, accumulate=accumulate, optimizer=sgd(0.1), clip=1.0)
    assert torch.equal(weights(task), before)
    assert [step.losses[""].item() for step in steps] == [0, 0]


def test_an_epoch_of_10000_examples_in_batches_of_10_is_1000_updates():
    data = TensorStream({**points(10_000, dtype=torch.float32)}, 10, shuffle=True)
    seen = []
    data.augment = (lambda batch, random: seen.append(len(batch["target"])) or batch,)
    training = Training(Experiment(task=Fit(), train=data, epochs=1, optimizer=sgd(0.01)))
    assert sum(1 for _ in training) == 1000
    assert (len(seen), sum(seen)) == (1000, 10_000)


def test_an_epoch_is_as_many_steps_as_whole_accumulations_fit_into_a_pass():
    made = Experiment(task=Fit(), train=stream(8), epochs=3, accumulate=2, optimizer=sgd(0.1))
    assert (made.length, made.evaluate_every) == (3, 1)
    assert Experiment(task=Fit(), train=stream(8), epochs=0.5, optimizer=sgd(0.1)).length == 2


# Players


def game(steps=1, **options):
    task = Game().double()
    options = {"optimizer": {"critic": sgd(0.1), "maker": sgd(0.01, momentum=0.9)}, **options}
    return task, train(task, stream(8), steps, **options)


def test_each_player_steps_at_its_yield_and_what_follows_runs_after_it():
    torch.manual_seed(0)
    start = Game().double()
    torch.manual_seed(0)
    task, _ = game()
    names = [name for name, _ in task.seen]
    assert names == ["before critic", "after critic", "after maker"]
    before, after, maker = (weight for _, weight in task.seen)
    assert torch.equal(before, start.critic.weight)
    assert not torch.equal(after, before)
    assert torch.equal(after, task.critic.weight)
    assert torch.equal(maker, task.maker.weight)
    assert not torch.equal(maker, start.maker.weight)


def test_a_gradient_that_another_player_left_never_counts():
    torch.manual_seed(0)
    task = Game().double()
    critic, maker, momentum = (nn.Linear(3, n).double() for n in (1, 3, 3))
    critic.load_state_dict(task.critic.state_dict())
    maker.load_state_dict(task.maker.state_dict())
    for p in momentum.parameters():
        p.data.zero_()
    data = points()
    for number in range(3):  # by hand, with gradients asked for by name
        x = data["features"][8 * number : 8 * number + 8]
        loss = (critic(maker(x)).sum() + critic(x).pow(2).sum()) / 8
        for p, g in zip(critic.parameters(), torch.autograd.grad(loss, list(critic.parameters())), strict=True):
            p.data -= 0.1 * g
        loss = critic(maker(x)).pow(2).sum() / 8
        gradients = torch.autograd.grad(loss, list(maker.parameters()))
        for p, v, g in zip(maker.parameters(), momentum.parameters(), gradients, strict=True):
            v.data = 0.9 * v.data + g
            p.data -= 0.01 * v.data
    torch.manual_seed(0)
    task, steps = game(3)
    torch.testing.assert_close(weights(task), torch.cat([weights(critic), weights(maker)]), rtol=0, atol=1e-12)
    assert list(steps[0].losses) == ["critic", "maker"]


def test_a_player_without_an_optimiser_is_named():
    with pytest.raises(ValueError, match=r"optimizer: none for the player 'maker'; there are \['critic'\]"):
        game(optimizer={"critic": sgd(0.1)})


def test_a_player_must_be_part_of_its_task():
    class Elsewhere(Game):
        def losses(self, batch):
            yield nn.Linear(2, 2), torch.zeros((), requires_grad=True), 1

    with pytest.raises(ValueError, match=r"Elsewhere\.losses yielded a Linear that is not its submodule"):
        train(Elsewhere(), stream(8), 1, optimizer=sgd(0.1))


def test_a_frozen_parameter_stays_and_costs_no_other_its_step():
    task = Fit(hidden=4).double()
    task.model[0].requires_grad_(False)
    frozen, head = task.model[0].weight.clone(), task.model[2].weight.clone()
    train(task, stream(8), 2, optimizer=adamw(0.1))
    assert torch.equal(task.model[0].weight, frozen)
    assert not torch.equal(task.model[2].weight, head)


# What is done to gradients, rates and weights


def test_clipping_scales_a_gradient_to_the_largest_norm_and_leaves_a_smaller_one():
    def moved(clip):
        torch.manual_seed(0)
        task = Fit().double()
        before = weights(task)
        step = train(task, stream(8), 1, optimizer=sgd(1.0), clip=clip)[0]
        return before - weights(task), float(step.gradient_norms[""])

    gradient, norm = moved(None)
    assert norm == pytest.approx(float(gradient.norm()), abs=1e-12)
    clipped, reported = moved(norm / 3)
    torch.testing.assert_close(clipped, gradient / 3, rtol=1e-5, atol=0)  # torch adds 1e-6 to the norm
    assert reported == pytest.approx(norm)
    torch.testing.assert_close(moved(norm * 3)[0], gradient, rtol=0, atol=1e-12)


def test_the_rate_of_a_step_is_the_first_rate_times_the_schedule_at_the_progress_before_it():
    steps = train(Fit(), stream(8, dtype=torch.float32), 5, optimizer=sgd(0.5), schedule=linear())
    assert [step.lr for step in steps] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])


def test_the_average_of_the_weights_follows_its_formula():
    torch.manual_seed(0)
    task = Fit().double()
    training = Training(Experiment(task=task, train=stream(8), steps=40, optimizer=sgd(0.1), ema=0.7), precision="fp32")
    average = weights(task)
    for n, _ in enumerate(training):
        kept = min(0.7, (1 + n) / (10 + n))
        average = kept * average + (1 - kept) * weights(task)
    torch.testing.assert_close(weights(training.evaluated), average, rtol=0, atol=1e-12)
    assert not torch.allclose(average, weights(task))


def test_the_average_holds_running_statistics_too():
    training = Training(small_digits(steps=3))
    for _ in training:
        pass
    mean, average = (task.state_dict()["model.model.stages.0.1.running_mean"] for task in (training.task, training.evaluated))
    assert average.abs().sum() > 0
    assert not torch.equal(mean, average)
    assert training.evaluated.state_dict()["model.model.stages.0.1.num_batches_tracked"] == 3


# Looking


@pytest.mark.parametrize("ema", [None, 0.5])
def test_evaluating_changes_nothing_of_what_comes_after(ema):
    class Teacher(Fit):
        """Its teacher stays in evaluation, so that its dropout drops nothing."""

        def __init__(self):
            super().__init__(hidden=8)
            self.model.insert(1, nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5)))
            self.teacher = nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5)).eval()

        def loss(self, batch):
            return (self.model(batch["features"]) - self.teacher(batch["features"])).pow(2).sum(), len(batch["mask"])

    def trained(looks):
        torch.manual_seed(1)
        data = stream(8, dtype=torch.float32)
        experiment = Experiment(task=Teacher(), train=data, steps=8, optimizer=sgd(0.1, momentum=0.9), ema=ema)
        training = Training(experiment)
        for step in training:
            for _ in range(looks * step.number % 3):
                dict(evaluate(training, data))
        return training.state_dict()

    seen, unseen = trained(2), trained(0)
    for part in ("task", "average") if ema else ("task",):
        for name, value in unseen[part].items():
            if not name.startswith("metrics"):
                assert torch.equal(seen[part][name], value), name


def test_evaluating_leaves_the_random_state_and_the_gradient_mode_alone():
    training = Training(small_digits())
    before = torch.get_rng_state()
    for _ in evaluate(training, training.experiment.valid):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert training.task.training


def test_evaluation_is_in_evaluation_mode_and_over_one_pass():
    training = Training(small_digits())
    first, second = (dict(evaluate(training, training.experiment.valid)) for _ in range(2))
    assert first["loss"] == second["loss"]
    assert int(first["confusion"].sum()) == 60


# Going on


@pytest.mark.parametrize(
    "make",
    [
        sgd(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
        adamw(0.01),
        muon(0.02, weight_decay=0.1, other=adamw(0.01)),
    ],
    ids=["sgd", "adamw", "muon"],
)
def test_a_restored_run_goes_on_bit_for_bit(tmp_path, make):
    def training():
        torch.manual_seed(0)
        return Training(small_digits(optimizer=make, steps=9))

    straight, losses = training(), []
    for step in straight:
        losses.append(step.losses[""])
        if step.number == 5:
            straight.save(tmp_path, {"note": 1})
    again = training()
    torch.manual_seed(99)
    torch.rand(7)
    assert again.restore(tmp_path) == {"note": 1}
    assert torch.equal(torch.stack([step.losses[""] for step in again]), torch.stack(losses[5:]))
    for part in ("task", "average"):
        ours, theirs = again.state_dict()[part], straight.state_dict()[part]
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_game_goes_on_bit_for_bit_and_a_player_that_has_not_moved_yet_too(tmp_path):
    class Late(Game):
        """Its maker moves from the fifth step on."""

        def losses(self, batch):
            players = super().losses(batch)
            yield next(players)
            if len(self.seen) > 4:
                self.seen.append("both")
                yield from players

    def training():
        torch.manual_seed(0)
        optimizer = {"critic": adamw(0.1), "maker": sgd(0.01, momentum=0.9)}
        return Training(Experiment(task=Late().double(), train=stream(8), steps=12, optimizer=optimizer))

    for saved in (3, 8):
        straight, again = training(), training()
        for step in straight:
            if step.number == saved:
                straight.save(tmp_path / str(saved))
                again.task.seen = list(straight.task.seen)
        again.restore(tmp_path / str(saved))
        assert list(again.optimizers) == (["critic"] if saved == 3 else ["critic", "maker"])
        for _ in again:
            pass
        assert torch.equal(weights(again.task), weights(straight.task))


class Walk:
    """A stream whose batches depend on those before: a random walk of the features."""

    def __init__(self):
        self.place = torch.zeros(3)

    def batches(self, start=0):
        while True:
            self.place = self.place + torch.randn(3)
            features = self.place + torch.randn(8, 3)
            yield {"features": features, "target": features.sum(1), "mask": torch.ones(8)}

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def test_a_stream_that_remembers_goes_on_from_what_it_remembered(tmp_path):
    def training():
        torch.manual_seed(0)
        return Training(Experiment(task=Fit(), train=Walk(), steps=9, optimizer=sgd(0.01)))

    straight = training()
    for step in straight:
        if step.number == 4:
            straight.save(tmp_path)
    again = training()
    again.restore(tmp_path)
    assert again.number == 4
    for _ in again:
        pass
    assert torch.equal(weights(again.task), weights(straight.task))


def test_where_there_is_no_checkpoint_nothing_is_restored(tmp_path):
    training = Training(small_digits())
    assert training.restore(tmp_path) is None
    assert training.number == 0


# Precision and compilation


class Watched(Fit):
    """Remembers in which type its products came out."""

    def terms(self, batch):
        self.product = self.model(batch["features"])
        return (self.product.squeeze(1).float() - batch["target"]) ** 2


@pytest.mark.parametrize(("precision", "product"), [("bf16", torch.bfloat16), ("fp32", torch.float32), ("auto", None)])
def test_products_are_in_the_precision_asked_for_and_weights_in_float32(precision, product):
    product = product or (torch.bfloat16 if native_bf16(torch.device("cpu")) else torch.float32)
    task, data = Watched(), stream(8, dtype=torch.float32)
    training = Training(Experiment(task=task, train=data, steps=2, optimizer=adamw(0.1)), device="cpu", precision=precision)
    for _ in training:
        assert task.product.dtype == product
    dict(evaluate(training, data))
    assert task.product.dtype == product
    assert training.precision == {torch.bfloat16: "bf16", torch.float32: "fp32"}[product]
    held = [
        value for optimizer in training.optimizers.values() for state in optimizer.state.values() for value in state.values()
    ]
    assert {value.dtype for value in [*task.state_dict().values(), *held]} == {torch.float32}


def test_an_unknown_precision_is_named():
    with pytest.raises((ValueError, TypeCheckError), match=r"(?s)precision.*'fp16'"):
        train(Fit(), stream(8), 1, optimizer=sgd(0.1), precision="fp16")


@pytest.mark.slow
def test_compiling_in_place_keeps_names_and_results():
    def trained(compile):
        torch.manual_seed(0)
        experiment = small_digits(steps=3, ema=0.5, dropout=0.0)  # compiled, other units are dropped
        training = Training(experiment, precision="fp32", compile=compile)
        losses = [step.losses[""] for step in training]
        value = dict(evaluate(training, experiment.valid))["loss"]
        return list(training.task.state_dict()), torch.stack([*losses, value]), training

    names, eager, _ = trained(False)
    compiled_names, compiled, training = trained(True)
    assert compiled_names == names
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)
    assert training.task.model._compiled_call_impl is not None


def test_compiling_keeps_names_before_anything_ran():
    plain, made = Training(small_digits()), Training(small_digits(), compile=True)
    assert list(made.task.state_dict()) == list(plain.task.state_dict())
    assert made.task.model._compiled_call_impl is not None
    assert made.evaluated.model._compiled_call_impl is None  # a copy must not compute with the other's weights


def test_a_task_that_says_nothing_of_what_it_learns_is_named():
    class Idle(Task):
        pass

    with pytest.raises(NotImplementedError, match="Idle defines neither loss nor losses"):
        train(Idle(), stream(8), 1, optimizer=sgd(0.1))
