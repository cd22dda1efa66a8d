"""Temperature: what it gives and what it takes."""

import pytest
import torch

from thalweg.build import build
from thalweg.data.text import Windows
from thalweg.inspection.randomness import by_temperature, drawn, table
from thalweg.models.language.recurrent import RecurrentLanguageModel
from thalweg.tasks.language_modelling import LanguageModelling
from thalweg.training import Experiment
from thalweg.training.loop import Training
from thalweg.training.optimisers import adamw


def test_with_the_temperature_texts_differ_more_and_hold_fewer_words():
    torch.manual_seed(0)
    draw, names = torch.Generator().manual_seed(0), ("mary", "john", "runs", "sleeps", "and", "then", "often", "reads")
    text = " ".join(names[number] for number in torch.randint(8, (800,), generator=draw).tolist())
    alphabet = "".join(sorted(set(text)))
    task = build(LanguageModelling, model=build(RecurrentLanguageModel, vocab_size=len(alphabet), hidden_dim=48),
                 alphabet=alphabet, context=64)  # fmt: skip
    stream = Windows(task.characters.encode(text), 32, 16, shuffle=True)
    for _ in Training(Experiment(task=task, train=stream, steps=120, optimizer=adamw(0.01)), device="cpu"):
        pass
    rows = by_temperature(task.eval(), text, "mary ", temperatures=(0.0, 0.5, 1.0, 3.0), texts=6, length=80)
    diversity, quality = zip(*((row.diversity, row.quality) for row in rows), strict=True)
    assert diversity[0] < diversity[1] < diversity[3]
    assert diversity[0] <= 1 / 6  # all texts are one
    assert quality[0] > 0.9
    assert quality[1] > quality[2] > quality[3]
    assert quality[3] < 0.4
    assert len(table(rows).splitlines()) == 5
    assert drawn(rows) is not None
    with pytest.raises(ValueError, match="texts=0"):
        by_temperature(task, text, "mary", texts=0)
