"""Gaps: what is known of them from one side and from both."""

import random

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

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


def hungry(count: int, seed: int) -> list[list[str]]:
    """ "i am happy", "i am not hungry", "i am very hungry , i can eat half a pig": what comes later tells the third word."""
    draw, said = random.Random(seed), []
    for _ in range(count):
        who, am = draw.choice([("i", "am"), ("you", "are"), ("we", "are"), ("they", "are")])
        lack = draw.choice(["hungry", "thirsty"])
        meal = {"hungry": ["eat half a pig", "eat ten eggs"], "thirsty": ["drink a lake", "drink ten cups"]}[lack]
        ends = [f"{draw.choice(['happy', 'glad'])} .", f"not {lack} .", f"very {lack} , {who} can {draw.choice(meal)} ."]
        said.append(f"{who} {am} {draw.choice(ends)}".split())
    return said


def test_what_comes_after_a_blank_decides_which_word_is_missing():
    text = hungry(300, 0)
    number = {word: place for place, word in enumerate(["<pad>", *sorted({word for words in text for word in words})])}
    tokens = pad_sequence([torch.tensor([number[word] for word in words]) for words in text], batch_first=True)
    asked = {
        "we are _ .": ("happy", "glad"),
        "we are _ hungry .": ("not",),
        "we are _ hungry , we can eat ten eggs .": ("very",),
    }
    right = {}
    for sides in ("both", "before"):
        torch.manual_seed(0)
        model = BothSides(len(number), 12, 24, sides)
        optimizer = torch.optim.AdamW(model.parameters(), 0.02)
        for _ in range(60):
            torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten(), ignore_index=0).backward()
            optimizer.step()
            optimizer.zero_grad()
        words, right[sides] = [*number], 0
        for sentence, answers in asked.items():
            gap = torch.tensor([[number.get(word, 0) for word in sentence.split()]])
            said = words[int(model(gap)[0, sentence.split().index("_")].argmax())]
            right[sides] += said in answers
    assert right["both"] == 3
    assert right["before"] == 1  # it sees the same each time
