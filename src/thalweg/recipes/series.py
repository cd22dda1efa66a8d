"""Recipes for series of numbers."""

from pathlib import Path
from typing import Any, Literal

from thalweg.build import adapt, build
from thalweg.data.series import eeg, in_time, leaks, read_series, sine, windows
from thalweg.data.streams import TensorStream
from thalweg.layers.rescale import column_moments, rescale
from thalweg.models.sequence.forecaster import LatentForecaster, WindowForecaster
from thalweg.tasks.forecasting import Forecasting
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup


def series_forecast(
    *,
    data: Path | None = None,
    column: str | None = None,
    series: Literal["sine", "eeg"] = "sine",
    model: Literal["window", "latent"] = "window",
    window: int = 4,
    context: int = 32,
    hidden_dim: int = 32,
    num_layers: int = 1,
    relative: bool = False,
    reverse: bool = False,
    epochs: float = 30,
    batch_size: int = 32,
    lr: float = 3e-3,
) -> Experiment:
    """A network foretells a series: 1, 4, 16 and 64 steps ahead, from what it foretold itself.   LBDL 3.2, D2L 8.1

    The first 60 % of the time is learned, the next 15 % choose the weights, the rest is foretold; see the skill: how much
    less the squared error is than that of saying the last value again.
    data: a CSV file of your own, a row a time
    column: its column, by name; if not given, the last one of numbers
    series: a sine wave with noise, or the voltages of a brain, if there are no data
    model: sees the last values, or remembers all in a state
    window: values that it sees, or must have read
    context: values that it reads at most
    num_layers: hidden layers; a window without any is linear autoregression
    relative: sees changes only, for what rises beyond what it has been
    reverse: foretells the past from the future
    """
    held = read_series(data, column) if data else {"sine": sine, "eeg": eeg}[series]()
    values = held.values.flip(0) if reverse else held.values
    train, valid, test = in_time(len(values), (0.6, 0.15, 0.25))
    room = valid[1] - valid[0]
    horizons = [k for k in (1, 4, 16, 64) if 2 * k <= room] or [1]
    context = max(window, min(context, train[1] // 2))
    moments = column_moments(*(2 * [values[: train[1]]]))
    sizes: dict[str, Any] = {"num_features": values.shape[1], "hidden_dim": hidden_dim, "num_layers": num_layers,
                             "relative": relative}  # fmt: skip
    network: Any = build(WindowForecaster, window=window, **sizes) if model == "window" else build(LatentForecaster, **sizes)
    task: Any = build(Forecasting, model=adapt(network, rescale, **moments), context=context, least=window,
                      unit=moments["deviation"], features=held.names, horizons=horizons)  # fmt: skip
    learned = windows(values, context, 1, *train)
    chosen, foretold = (windows(values, context, horizons[-1], *part) for part in (valid, test))
    notes = {
        "series": f"{len(values):,} values of {', '.join(held.names)}; the first {train[1]:,} are learned",
        "leakage": f"{leaks(learned, chosen, context)} training examples know of what is foretold",
        **({"left out": held.left_out} if held.left_out else {}),
    }
    return Experiment(task=task, train=TensorStream(learned, batch_size, shuffle=True), valid=TensorStream(chosen, 500),
                      test=TensorStream(foretold, 500), epochs=epochs, optimizer=adamw(lr, weight_decay=1e-3),
                      schedule=warmup(0.1, cosine()), clip=1.0, monitor="rmse", notes=notes)  # fmt: skip
