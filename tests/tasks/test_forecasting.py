"""Forecasting: the models, what is read and foretold, and what can and cannot be known about what comes next."""

import pytest
import torch
from definitions import EXACT, equal_with_gradients
from torch.testing import assert_close

from thalweg.build import adapt, build, load, save
from thalweg.data.series import eeg, in_time, sine, windows
from thalweg.data.streams import TensorStream
from thalweg.decoding.rollout import foretell
from thalweg.layers.rescale import column_moments, rescale
from thalweg.models.sequence.forecaster import LatentForecaster, WindowForecaster
from thalweg.tasks.forecasting import Forecasting
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine

MODELS = {
    "window": lambda **more: WindowForecaster(2, window=3, hidden_dim=5, num_layers=1, **more),
    "linear": lambda **more: WindowForecaster(2, window=3, num_layers=0, **more),
    "latent": lambda **more: LatentForecaster(2, hidden_dim=5, **more),
}


@pytest.mark.parametrize("relative", [False, True])
def test_a_window_is_a_perceptron_of_the_last_values(relative):
    model, x = MODELS["window"](relative=relative).double(), torch.randn(2, 6, 2, dtype=torch.float64, requires_grad=True)
    (first, _), head, said = model.blocks[0], model.head, []
    for t in range(6):
        seen = [x[:, max(place, 0)] if relative else x[:, place] * (place >= 0) for place in range(t - 2, t + 1)]
        base = x[:, t] if relative else torch.zeros_like(x[:, t])
        read = torch.stack([value - base * relative for value in seen], 2).flatten(1)
        said.append(base + (read @ first.weight.T + first.bias).relu() @ head.weight.T + head.bias)
    equal_with_gradients(model(x), torch.stack(said, 1), [x, *model.parameters()])


@pytest.mark.parametrize("name", MODELS)
def test_none_sees_what_it_is_to_foretell(name):
    model, x = MODELS[name]().double(), torch.randn(1, 8, 2, dtype=torch.float64, requires_grad=True)
    model(x)[0, 4].sum().backward()
    assert [bool(row.any()) for row in x.grad[0]] == [name == "latent" or t >= 2 for t in range(5)] + [False] * 3


@pytest.mark.parametrize("name", MODELS)
def test_one_that_sees_changes_only_rises_with_the_series(name):
    model, x = MODELS[name](relative=True).double(), torch.randn(2, 8, 2, dtype=torch.float64)
    assert_close(model(x + 1000), model(x) + 1000, rtol=0, atol=1e-9)
    other = MODELS[name]().double()
    assert (other(x + 1000) - other(x) - 1000).abs().min() > 1


def test_forecasts_are_read_as_if_they_had_come_true():
    model, x = LatentForecaster(1, 4).double().eval(), torch.randn(3, 6, 1, dtype=torch.float64)
    series = x
    for _ in range(4):
        series = torch.cat([series, model(series[:, -5:])[:, -1:]], 1)
    assert_close(foretell(model, x, 4, 5), series[:, 6:], **EXACT)
    with pytest.raises(ValueError, match="steps=0"):
        foretell(model, x, 0, 5)


class Twice(torch.nn.Module):
    """Says that every value doubles."""

    def forward(self, x):
        return 2 * x


def test_errors_are_told_for_every_number_of_steps_and_beside_the_last_value():
    task = Forecasting(Twice(), context=2, horizons=(1, 2))
    batch = {"series": torch.tensor([[1.0, 2.0, 5.0, 6.0], [0.0, 1.0, 1.0, 1.0]])[..., None],
             "time": torch.arange(4).expand(2, 4)}  # fmt: skip
    total, count = task.loss(batch)
    assert (float(total), count) == (1 + 16 + 1 + 1 + 1, 6)
    assert float(Forecasting(Twice(), context=2, least=2, unit=[2.0]).loss(batch)[0]) == (1 + 16 + 1 + 1) / 4
    task.evaluate(batch)
    told = {name: metric.compute() for name, metric in task.metrics.items()}
    assert told["rmse"] == pytest.approx(((1 + 1) / 2) ** 0.5)  # 4 for 5, 2 for 1
    assert told["rmse_2"] == pytest.approx(((4 + 9) / 2) ** 0.5)  # 8 for 6, 4 for 1
    assert told["skill"] == pytest.approx(1 - 2 / 9)  # 2 for 5, 1 for 1
    assert_close(told["by_step"], torch.stack([told["rmse"], told["rmse_2"]]))
    assert_close(told["last_by_step"], torch.tensor([4.5, 8.0]).sqrt())
    assert set(task.figures(batch)) == {"forecasts", "error"}
    with pytest.raises(ValueError, match="context=2, least=3"):
        Forecasting(Twice(), context=2, least=3)


def trained(network, values, *, context=16, least=4, steps=300, horizons=(1,), lr=0.01, shares=(0.6, 0.4)):
    """A forecaster that has learned the first part of a series, and what is measured on the rest."""
    torch.manual_seed(0)
    parts = in_time(len(values), shares)
    moments = column_moments(*(2 * [values[: parts[0][1]]]))
    task = build(Forecasting, model=adapt(network, rescale, **moments), context=context, least=least, horizons=horizons,
                 unit=moments["deviation"], features=[str(n) for n in range(values.shape[1])])  # fmt: skip
    train = TensorStream(windows(values, context, 1, *parts[0]), 32, shuffle=True)
    test = TensorStream(windows(values, context, horizons[-1], *parts[1]), 500)
    training = Training(Experiment(task=task, train=train, steps=steps, optimizer=adamw(lr, weight_decay=0.0),
                                   schedule=cosine()), device="cpu")  # fmt: skip
    for _ in training:
        pass
    return task.eval(), dict(evaluate(training, test))


def test_the_next_value_of_a_noisy_sine_is_foretold_up_to_its_noise_and_later_ones_ever_worse():
    _, told = trained(build(WindowForecaster, window=16, num_layers=1), sine().values, least=16, horizons=(1, 4, 16, 64))
    assert told["rmse"] < 1.1 * 0.2  # the noise that nobody can foretell
    assert told["rmse_64"] > 1.5 * told["rmse"]
    assert told["skill"] > 0.3


def test_a_state_that_remembers_does_as_well_as_a_window_of_the_last_values():
    _, window = trained(build(WindowForecaster, window=4, num_layers=1), sine().values)
    _, latent = trained(build(LatentForecaster, hidden_dim=16), sine().values, steps=400)
    assert latent["rmse"] < window["rmse"]


def test_voltages_of_a_brain_are_foretold_better_than_by_the_last_one():
    _, told = trained(build(WindowForecaster, window=8, num_layers=0, relative=True), eeg().values, least=8)
    assert told["skill"] > 0.2


def test_an_arithmetic_series_goes_on_beyond_what_was_seen(tmp_path):
    """Inside what it has seen any model is right (interpolation), outside only one that sees changes (extrapolation)."""
    series = 2 * torch.arange(1.0, 41)[:, None]  # 2, 4, ..., 80
    made = {relative: build(WindowForecaster, window=4, num_layers=1, relative=relative) for relative in (False, True)}
    task, right = trained(made[True], series, context=4, lr=0.03)
    assert right["rmse"] < 0.1
    assert_close(task.predict({"series": torch.tensor([[2.0, 4, 6, 8, 10]])}, steps=3)["series"],
                 torch.tensor([[12.0, 14, 16]]), rtol=0, atol=0.2)  # fmt: skip
    far = task.predict({"series": torch.tensor([[1002.0, 1004, 1006, 1008]])}, steps=2)["series"]
    assert_close(far, torch.tensor([[1010.0, 1012]]), rtol=0, atol=0.5)
    save(task, tmp_path / "model")
    again = load(tmp_path / "model").eval()
    assert torch.equal(again.predict({"series": torch.tensor([[2.0, 4, 6, 8]])})["series"][:, :2],
                       task.predict({"series": torch.tensor([[2.0, 4, 6, 8]])}, steps=2)["series"])  # fmt: skip
    other, _ = trained(made[False], series, context=4, lr=0.03)
    inside, outside = (other.predict({"series": torch.tensor([[x - 8.0, x - 6, x - 4, x - 2]])}, steps=1)["series"].item() - x
                       for x in (31, 1001))  # fmt: skip
    assert abs(outside) > 10 * max(abs(inside), 0.5)
    with pytest.raises(ValueError, match="series: 3 values, expected at least 4"):
        task.predict({"series": torch.tensor([[1.0, 2, 3]])})


def test_forward_in_time_is_easier_than_backward_where_the_past_causes_the_future():
    """x_{t+1} = 3.8 x_t (1 - x_t) + noise: every value has one successor, and two values that it may have come from."""
    x, values = 0.3, []
    noise = torch.randn(800, generator=torch.Generator().manual_seed(0)).tolist()
    for random in noise:
        x = min(max(3.8 * x * (1 - x) + 0.005 * random, 0.0), 1.0)
        values.append(x)
    series, told = torch.tensor(values)[:, None], {}
    for name, seen in (("forward", series), ("backward", series.flip(0))):
        _, told[name] = trained(build(WindowForecaster, window=1, num_layers=2), seen, context=1, least=1, steps=500)
    assert told["forward"]["rmse"] < 0.05
    assert told["backward"]["rmse"] > 4 * told["forward"]["rmse"]
