"""Inference from pairs of sentences: what the hypothesis alone does not tell, and what is shown of a pair."""

import json
import random
import zipfile

import pytest
import torch

from thalweg.build import build, load, save
from thalweg.data.classified import Text
from thalweg.data.inference import RELATIONS, snli
from thalweg.data.streams import Padded
from thalweg.models.language.decomposable_attention import DecomposableAttention
from thalweg.models.language.word_counts import WordCounts
from thalweg.tasks.entailment import Entailment
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

THINGS = ("dog", "cat", "man", "child")
WORDS = " ".join((*THINGS, "red", "blue", "big", "a", "nobody"))


def captions(count: int, seed: int) -> list[Text]:
    """A thing of a colour; the same, another colour, or something of another kind: one must compare to know."""
    draw, made = random.Random(seed), []
    for _ in range(count):
        thing, colour, label = draw.choice(THINGS), draw.choice(("red", "blue")), draw.choice(RELATIONS)
        other = "blue" if colour == "red" else "red"
        another = draw.choice([one for one in THINGS if one != thing])
        said = {"entailment": f"a {colour} {thing}", "contradiction": f"a {other} {thing}",
                "neutral": f"a {draw.choice((colour, other))} {another}"}  # fmt: skip
        made.append(Text(f"a big {colour} {thing}", label, second=said[label]))
    return made


def task() -> Entailment:
    torch.manual_seed(0)
    size = {"vocab_size": 4 + len(WORDS.split()), "num_classes": 3}
    model = build(DecomposableAttention, **size, embed_dim=16, hidden_dim=32, dropout=0.0)
    return build(Entailment, model=model, baseline=build(WordCounts, **size), classes=RELATIONS, words=WORDS)


def stream(made: Entailment, part: list[Text], shuffle: bool = False) -> Padded:
    sides = {name: made.encode([getattr(one, side) for one in part])
             for side, name in (("text", "source_tokens"), ("second", "target_tokens"))}  # fmt: skip
    return Padded(sides, {"label": torch.tensor([RELATIONS.index(one.label) for one in part])}, 32, shuffle=shuffle)


def test_comparing_tells_what_the_hypothesis_alone_does_not(tmp_path):
    made = task()
    train, test = stream(made, captions(600, 1), shuffle=True), stream(made, captions(150, 2))
    training = Training(Experiment(task=made, train=train, steps=150, optimizer=adamw(3e-3)), device="cpu", precision="fp32")
    for _ in training:
        pass
    measured = dict(evaluate(training, test))
    assert measured["accuracy"] > 0.95
    assert measured["hypothesis_only"] < 0.55
    save(made, tmp_path / "model")
    predicted = load(tmp_path / "model").predict({"text": ["a big red dog || a blue dog", "a big red dog\ta red dog"]}, top_k=1)
    assert predicted["label"] == [["contradiction"], ["entailment"]]
    with pytest.raises(ValueError, match=r"text: 'a dog': expected a premise and a hypothesis"):
        made.predict({"text": ["a dog"]})


def test_a_pair_is_shown_with_its_alignment(monkeypatch):
    made = task()
    pairs = [Text("a red dog", "entailment", second="a dog"), Text("a cat", "contradiction", second="nobody")]
    batch = next(iter(stream(made, pairs)))
    made.evaluate(batch)
    rows = []
    monkeypatch.setattr(Entailment, "_told", lambda self, tokens, *rest: rows.append(list(map(self.told, tokens.tolist()))))
    looked = []
    monkeypatch.setattr("thalweg.figures.alignment", lambda weights, *sides: looked.append((weights, sides)))
    assert set(made.figures(batch)) == {"confusion", "read", "most wrong", "alignment"}
    assert rows[0] == ["a red dog || a dog", "a cat || nobody"]
    ((weights, (premise, hypothesis)),) = looked
    assert (premise, hypothesis) == (["a", "red", "dog", "<eos>"], ["a", "dog", "<eos>"])
    torch.testing.assert_close(weights, made.model.alignment(**{k: v for k, v in batch.items() if k != "label"})[0])


def test_pairs_are_read_in_the_official_form_and_no_premise_is_in_two_parts_of_the_other(tmp_path, monkeypatch, data_folder):
    found = snli()
    assert [len(part) for part in (found.train, found.valid, found.test)] == [8_855, 987, 9_824]
    assert not {one.text for one in found.train} & {one.text for one in found.valid}
    with zipfile.ZipFile(tmp_path / "snli_1.0.zip", "w") as archive:
        for part, labels in (("train", ("neutral", "-")), ("dev", ("entailment",)), ("test", ("contradiction",))):
            lines = [json.dumps({"sentence1": "A dog.", "sentence2": "It is.", "gold_label": label}) for label in labels]
            archive.writestr(f"snli_1.0/snli_1.0_{part}.jsonl", "\n".join(lines))
    (tmp_path / "snli").mkdir()
    (tmp_path / "snli_1.0.zip").rename(tmp_path / "snli" / "snli_1.0.zip")
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    official = snli()
    assert official.train == [Text("A dog.", "neutral", "train 1", "It is.")]
    assert official.faults == {"pairs without agreement, left out": ["train 2"]}
    assert official.test[0].label == "contradiction"
