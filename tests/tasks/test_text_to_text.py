"""Several tasks as one: what is read begins with the task, and each is measured by itself."""

import pytest
import torch

from thalweg.build import build, load, save
from thalweg.data.pairs import BOS, EOS, PAD
from thalweg.data.subwords import Subwords, learn_subwords
from thalweg.data.text_to_text import KINDS, Assignment, Assignments, assignments
from thalweg.models.sequence.t5 import T5
from thalweg.tasks.text_to_text import TextToText
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup

WORDS = ["ab", "cd", "ef", "gh"]
TEXTS = [(one, other) for one in WORDS for other in WORDS]
TASKS, ANSWERS = ["swap both", "same", "first"], [[], ["yes", "no"], WORDS]
ALL = [given for one, other in TEXTS for given in (
    Assignment(f"swap both: {one} {other}", f"{other} {one}", 0),
    Assignment(f"same: {one} {other}", "yes" if one == other else "no", 1),
    Assignment(f"first: {one} {other}", one, 2))]  # fmt: skip
TOKENIZER = learn_subwords([text for one in ALL for text in one[:2]], 300)
SUBWORDS = Subwords(TOKENIZER)


def task(**sizes):
    model = build(T5, **({"vocab_size": len(SUBWORDS), "embed_dim": 32, "num_layers": 1, "num_heads": 2, "head_dim": 16,
                          "hidden_dim": 64, "dropout": 0.0} | sizes))  # fmt: skip
    return build(TextToText, model=model, tokenizer=TOKENIZER, tasks=TASKS, answers=ANSWERS, longest=6)


def test_a_batch_names_the_task_of_each_pair_and_a_long_source_is_cut_before_its_end():
    stream = Assignments(ALL, SUBWORDS, 10, longest=5, shuffle=True)
    seen = []
    for batch in stream:
        assert batch["source_tokens"].shape[1] <= 5
        assert torch.equal((batch["source_tokens"] == EOS).sum(1), torch.ones(len(batch["task"]), dtype=torch.long))
        for row, number in zip(batch["target_tokens"], batch["task"].tolist(), strict=True):
            assert row[0] == BOS
            seen.append((SUBWORDS.decode(row.tolist()), number))
    assert sorted(seen) == sorted((one.target, one.task) for one in ALL)


def test_each_task_is_measured_by_its_own_texts(monkeypatch):
    modelling, (batch,) = task().eval(), Assignments(ALL, SUBWORDS, 60)
    right = batch["target_tokens"][:, 1:].clone()
    wrong = ((batch["task"] == 1) & (torch.arange(48) < 24)).nonzero().flatten()
    right[wrong] = torch.tensor([[EOS] + [PAD] * (right.shape[1] - 1)])
    swap = int((batch["task"] == 0).nonzero()[0])
    first = SUBWORDS.encode(SUBWORDS.decode(batch["target_tokens"][swap].tolist()).split()[0])  # one of two words
    right[swap] = torch.cat([first, torch.full([right.shape[1] - len(first)], PAD)])
    monkeypatch.setattr(modelling, "write", lambda *_: right)
    modelling.evaluate(batch)
    found = {name: float(value.compute()) for name, value in modelling.metrics.items()}
    assert found.keys() == {"loss", "score", "sacrebleu_swap", "accuracy_same", "accuracy_first"}
    assert found["accuracy_first"] == 1
    assert found["accuracy_same"] == pytest.approx(1 - len(wrong) / 16)
    assert found["score"] == pytest.approx(1 - (len(wrong) + 2 / 3) / 48)  # one of three runs of words
    logits = modelling.model(batch["source_tokens"], batch["source_mask"], batch["target_tokens"][:, :-1])
    total, count = (number.detach() for number in modelling.loss(batch))
    told = logits.log_softmax(-1).gather(2, batch["target_tokens"][:, 1:, None])[..., 0][batch["target_mask"][:, 1:]]
    torch.testing.assert_close(total, -told.sum())
    assert found["loss"] == pytest.approx(float(total) / int(count), rel=1e-5)


@pytest.mark.slow
def test_one_model_does_three_tasks_as_it_is_asked(tmp_path):
    torch.manual_seed(0)
    modelling, stream = task(), Assignments(ALL, SUBWORDS, 24, shuffle=True)
    training = Training(Experiment(task=modelling, train=stream, steps=400, optimizer=adamw(5e-3), clip=1.0,
                                   schedule=warmup(0.1, linear())), precision="fp32")  # fmt: skip
    for _ in training:
        pass
    found = {name: float(value) for name, value in evaluate(training, Assignments(ALL, SUBWORDS, 60))}
    assert min(found["accuracy_same"], found["accuracy_first"]) > 0.9
    save(modelling.eval(), tmp_path)
    asked = {"text": ["swap both: ab gh", "first: ab gh", "same: ab gh"]}
    assert load(tmp_path).predict(asked, beam=1)["text"] == ["gh ab", "ab", "no"]


@pytest.mark.slow
@pytest.mark.usefixtures("data_folder")
def test_real_tasks_are_named_and_their_answers_known():
    train, _, test = assignments(limit=50, measured=20)
    assert len(train) == 150
    assert len(test) == 60
    for one in train + test:
        kind = KINDS[one.task]
        assert one.source.startswith(f"{kind.name}: ")
        assert not kind.answers or one.target in kind.answers
    assert not {one.source for one in train} & {one.source for one in test}
    translated = [one.source.removeprefix(f"{KINDS[0].name}: ").split() for one in train if not one.task]
    assert {len(words) for words in translated} >= {2, 5, 8}  # the corpus lies in the order of length
