"""Copying from memory: the sequences, what is counted, and that a Turing machine copies more than it ever saw."""

import pytest
import torch

from thalweg.build import build, load, save
from thalweg.data.memory import Copies, copies
from thalweg.data.streams import TensorStream
from thalweg.models.sequence.turing import NeuralTuringMachine
from thalweg.tasks.copying import Copying
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adam


def test_what_was_shown_is_to_be_repeated_after_the_signal():
    batch = copies(50, 1, 4, 3, seed=0)
    assert batch["series"].shape == (50, 9, 4)
    lengths = set()
    for series, target, mask in zip(batch["series"], batch["target"], batch["mask"], strict=True):
        length = int(series[:, 3].argmax())
        lengths.add(length)
        assert series[:, 3].sum() == 1
        assert mask.nonzero().squeeze(1).tolist() == list(range(length + 1, 2 * length + 1))
        assert torch.equal(target[mask], series[:length, :3])
        assert not series[length:, :3].any()
        assert not target[~mask].any()
    assert lengths == {1, 2, 3, 4}
    with pytest.raises(ValueError, match="least=0, most=4"):
        copies(1, 0, 4, 3, 0)


def test_a_batch_of_copies_has_one_length_and_is_the_same_whenever_it_is_asked_for():
    torch.manual_seed(3)
    stream = Copies(40, 1, 6, 2, batch_size=8)
    batches = [stream.batch(number) for number in range(12)]
    assert all(batch["mask"].sum(1).unique().numel() == 1 for batch in batches)
    assert len({batch["series"].shape[1] for batch in batches}) > 2
    assert torch.equal(stream.batch(7)["series"], batches[7]["series"])


class Echo(torch.nn.Module):
    """Repeats all but the first vector, which it takes for zeros."""

    def forward(self, x):
        time = (x.shape[1] - 1) // 2
        logits = torch.full((*x.shape[:2], x.shape[2] - 1), -9.0)
        logits[:, time + 2 :] = 18 * x[:, 1:time, :-1] - 9
        return logits, torch.zeros(len(x), 2, x.shape[1], 5)


def test_wrong_bits_and_whole_sequences_are_counted():
    task, batch = Copying(Echo(), bits=3), copies(20, 5, 5, 3, seed=0)
    batch["series"][0, 0] = 0
    batch["target"][0, 6] = 0
    task.evaluate(batch)
    first = batch["target"][:, 6].sum(1)
    assert task.metrics["wrong_bits"].compute() == pytest.approx(float(first.mean()))
    assert task.metrics["whole"].compute() == pytest.approx(float((first == 0).float().mean()))
    assert task.predict({"bits": torch.tensor([[1.0, 1, 1, 0, 1, 0]])})["bits"].tolist() == [[0, 0, 0, 0, 1, 0]]
    with pytest.raises(ValueError, match="bits: 4 numbers, expected zeros and ones, 3 for each vector"):
        task.predict({"bits": torch.zeros(1, 4)})


@pytest.mark.slow
def test_a_turing_machine_copies_twice_as_much_as_it_ever_saw(tmp_path):
    torch.manual_seed(0)
    task = build(Copying, model=build(NeuralTuringMachine, in_features=5, out_features=4, places=40), bits=4)
    training = Training(Experiment(task=task, train=Copies(32_000, 1, 10, 4, 32), steps=700, optimizer=adam(3e-3), clip=10.0),
                        device="cpu")  # fmt: skip
    for _ in training:
        pass
    for length in (10, 20):
        assert dict(evaluate(training, TensorStream(copies(100, length, length, 4, 9), 100)))["wrong_bits"] < 1
    save(task, tmp_path / "model")
    shown = {"bits": torch.tensor([[1.0, 0, 0, 1, 1, 1, 0, 0]])}
    assert load(tmp_path / "model").eval().predict(shown)["bits"].tolist() == shown["bits"].int().tolist()
    assert set(task.eval().figures(copies(1, 3, 3, 4, 0))) == {"20 vectors", "40 vectors"}
