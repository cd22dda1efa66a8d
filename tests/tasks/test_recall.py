"""Recall over distances: what an LSTM and attention still know of a text; and sums over a hundred places."""

import pytest
import torch
from torch.nn.functional import mse_loss

from thalweg.build import build
from thalweg.data.memory import marked_sums, symbols
from thalweg.data.streams import TensorStream
from thalweg.models.sequence.reader import Reader
from thalweg.models.sequence.recall import AttentionRecall, LSTMRecall
from thalweg.tasks.recall import Recall
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adam


def test_an_lstm_answers_from_its_last_state_alone_and_attention_from_the_place_itself():
    tokens = torch.randint(4, (1, 6))
    for model, through_one in ((LSTMRecall(4, 6, 8), True), (AttentionRecall(4, 6, 8, 2), False)):
        logits = model(tokens)
        assert logits.shape == (1, 6, 4)
        other = tokens.clone()
        other[0, 2] = (other[0, 2] + 1) % 4
        assert (model(other) != logits).any(-1).all()
        if through_one:
            states, _ = model.rnn(model.embedding(tokens))
            torch.testing.assert_close(logits[0], model.head(states[0, -1]).view(6, 4))


def test_an_lstm_forgets_what_is_far_and_attention_does_not():
    torch.manual_seed(0)
    models = (
        build(LSTMRecall, vocab_size=4, time=48, hidden_dim=32),
        build(AttentionRecall, vocab_size=4, time=48, hidden_dim=32),
    )
    task = build(Recall, lstm=models[0], attention=models[1], longest=48)
    train, test = (TensorStream(symbols(count, 48, 4, seed), 64, shuffle=not seed) for seed, count in enumerate((4000, 400)))
    training = Training(Experiment(task=task, train=train, steps=150, clip=1.0,
                                   optimizer={"players.lstm": adam(5e-3), "players.attention": adam(5e-3)}),
                        device="cpu")  # fmt: skip
    for _ in training:
        pass
    told = dict(evaluate(training, test))
    assert told["attention"] > 0.99
    assert told["attention_by_lag"][-1] < 0.01
    assert told["lstm_by_lag"][0] < 0.1
    assert told["lstm_by_lag"][24:].min() > 0.6  # of guesses three quarters are wrong
    assert set(task.figures(next(iter(test)))) == {"recall", "seconds"}


def test_marked_numbers_are_summed():
    batch = marked_sums(100, 20, seed=0)
    assert torch.equal(batch["features"][..., 1].unflatten(1, (2, 10)).sum(2), torch.ones(100, 2))
    sums = [sum(number for number, mark in row if mark) for row in batch["features"].tolist()]
    torch.testing.assert_close(batch["target"][:, 0], torch.tensor(sums))
    with pytest.raises(ValueError, match="time=1"):
        marked_sums(1, 1, 0)


@pytest.mark.slow
def test_rectifiers_that_start_as_the_identity_learn_to_add_over_many_places_and_a_plain_network_does_not():
    found = {}
    for cell in ("irnn", "rnn"):
        torch.manual_seed(0)
        model = Reader(2, 1, 64, cell)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        data = marked_sums(50_000, 40, 0)
        for step in range(1600):
            places = torch.arange(32) + 32 * step % 49_000
            optimizer.zero_grad()
            mse_loss(model(data["features"][places]), data["target"][places]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
        test = marked_sums(500, 40, 1)
        found[cell] = mse_loss(model(test["features"]), test["target"]).item()
    assert found["irnn"] < 0.08
    assert found["rnn"] > 0.1  # 1 for everything has 1/6
