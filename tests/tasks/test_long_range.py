"""Every way to attend side by side: what is measured of each, and that each learns."""

import pytest
import torch
from torch.testing import assert_close

from thalweg.build import build, load, save
from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream
from thalweg.models.sequence.long_reader import WAYS, Readers
from thalweg.tasks.long_range import LongRange
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.machine import peak_memory
from thalweg.training.optimisers import adamw


def pixels(images):
    return {"tokens": (images["image"] // 16).flatten(1).long(), "label": images["label"]}


def trained(ways, steps):
    torch.manual_seed(0)
    splits = digits()
    players = build(Readers, ways=ways, vocab_size=16, context=64, num_classes=10, embed_dim=32, window=8)
    task = build(LongRange, players=players)
    train, test = TensorStream(pixels(splits.train), 32, shuffle=True), TensorStream(pixels(splits.test), 360)
    training = Training(Experiment(task=task, train=train, steps=steps,
                                   optimizer={f"players.{way}": adamw(4e-3) for way in ways}), device="cpu")  # fmt: skip
    for _ in training:
        pass
    return task, dict(evaluate(training, test)), next(iter(test))


def test_of_each_way_it_is_told_how_good_how_fast_and_how_large_it_is(tmp_path):
    task, told, batch = trained(WAYS, 5)
    assert set(told) == {way + cost for way in WAYS for cost in ("", "_seconds", "_megabytes")}
    assert all(0 < float(told[f"{way}_seconds"]) < 10 for way in WAYS)
    assert float(told["full_megabytes"]) > float(told["fourier_megabytes"]) > 0.1
    save(task, tmp_path / "model")
    kept = load(tmp_path / "model")
    kept.evaluate(batch)
    assert_close(kept.metrics["full_seconds"].compute(), told["full_seconds"])
    assert set(kept.figures(batch)) == {"ways"}


def test_without_classes_the_loss_is_that_of_every_next_token():
    task = LongRange(Readers(["full"], vocab_size=5, context=8, embed_dim=8, window=4), names_classes=False)
    batch = {"tokens": torch.randint(5, (3, 9))}
    loss, count = task.loss_of("full", batch)
    logits = task.players["full"](batch["tokens"][:, :-1]).log_softmax(-1)
    said = [logits[row, t, batch["tokens"][row, t + 1]] for row in range(3) for t in range(8)]
    assert_close(loss, -torch.stack(said).sum())
    assert count == 24
    task.evaluate(batch)
    assert_close(task.metrics["full"].compute(), loss / 24)


def test_the_peak_is_what_was_held_at_once():
    def two_after_one():
        for count in (1, 2, 1):
            torch.stack([torch.zeros(250_000) for _ in range(count)])

    assert peak_memory(two_after_one) == pytest.approx(4e6, rel=0.01)


@pytest.mark.slow
def test_every_way_learns_digits_pixel_by_pixel():
    _, told, _ = trained(WAYS, 250)
    found = {way: float(told[way]) for way in WAYS}
    assert min(found.values()) > 0.5, found
    assert found["full"] > 0.85, found
