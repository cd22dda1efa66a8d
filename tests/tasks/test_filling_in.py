"""Gaps: what is known of them from one side and from both."""

import pytest
import torch

from thalweg.build import build, load, save
from thalweg.data.text import Windows
from thalweg.models.language.both_sides import BothSides
from thalweg.tasks.filling_in import FillingIn
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw

TEXT = "the cat sat on the mat and the rat ran at the hat . a bat and a cat met the fat rat on a mat . " * 12


@pytest.mark.parametrize("sides", ["both", "before"])
def test_a_gap_is_filled_by_everything_but_itself(sides):
    model, tokens = BothSides(6, 5, 4, sides).double(), torch.randint(6, (1, 7))
    embedded = model.embedding(tokens).detach().requires_grad_()
    model.embedding.forward = lambda _: embedded
    model(tokens)[0, 3].sum().backward()
    assert embedded.grad[0].any(1).tolist() == [True] * 3 + [False] + 3 * [sides == "both"]
    with pytest.raises(ValueError, match="sides='after'"):
        BothSides(6, sides="after")


def learned(sides: str) -> tuple[FillingIn, dict]:
    torch.manual_seed(0)
    alphabet = "".join(sorted(set(TEXT)))
    task = build(FillingIn, model=build(BothSides, vocab_size=len(alphabet), embed_dim=16, hidden_dim=32, sides=sides),
                 alphabet=alphabet)  # fmt: skip
    tokens = task.characters.encode(TEXT)
    train, test = Windows(tokens[:800], 31, 16, shuffle=True), Windows(tokens[800:], 31, 50)
    training = Training(Experiment(task=task, train=train, steps=80, optimizer=adamw(0.01)), device="cpu")
    for _ in training:
        pass
    return task.eval(), dict(evaluate(training, test))


def test_both_sides_fill_gaps_that_one_side_leaves_open(tmp_path):
    both, of_both = learned("both")
    _, of_one = learned("before")
    assert of_both["accuracy"] > of_one["accuracy"] + 0.1
    assert of_both["perplexity"] < 0.8 * of_one["perplexity"]
    filled = both.predict({"text": ["on the _at and", "th_ cat"]})["text"]
    assert [len(text) for text in filled] == [14, 7]
    assert filled[1] == "the cat"
    save(both, tmp_path / "model")
    assert load(tmp_path / "model").eval().predict({"text": ["th_ cat"]})["text"] == filled[1:]
    with pytest.raises(ValueError, match="has no gap _"):
        both.predict({"text": ["the cat"]})
