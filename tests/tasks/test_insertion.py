"""Insertion: what a gap costs, in loops; log-many passes; drafts that are mended; one model that goes both ways."""

from itertools import pairwise
from math import ceil, exp, log2

import pytest
import torch
from phrases import KNOWN, VALID, learned, network, tokens

from thalweg.build import build, load, save
from thalweg.data.pairs import BOS, EOS, PAD, Pairs
from thalweg.decoding.parallel import edit, insert
from thalweg.models.sequence.parallel import InsertionTransformer, Kermit, LevenshteinTransformer
from thalweg.tasks.insertion import Editing, Insertion, JointInsertion, missing_words, some
from thalweg.tasks.non_autoregressive import unframed

SIZES = {"source_vocab_size": 12, "target_vocab_size": 20, "embed_dim": 32, "hidden_dim": 64, "num_layers": 2,
         "num_heads": 4, "dropout": 0.0}  # fmt: skip
MAKES = {
    Insertion: lambda: build(InsertionTransformer, network=network()),
    Editing: lambda: build(LevenshteinTransformer, network=network(), most=6),
    JointInsertion: lambda: build(Kermit, **SIZES),
}


def task_of(make):
    torch.manual_seed(0)
    return build(make, model=MAKES[make](), **KNOWN)


def test_a_gap_costs_its_words_the_middle_one_most_and_an_empty_gap_its_end():
    mask = torch.arange(7) < torch.tensor([[7], [4], [5]])
    words = torch.randint(3, 9, (3, 7)).masked_fill(~mask, PAD)
    kept = torch.tensor([[0, 0, 0, 1, 0, 1, 1], [1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]]).bool()
    logits = torch.randn(3, 4, 9, dtype=torch.float64)  # gaps of the row that holds least words are padding where it ends
    logits = torch.cat([logits, torch.randn(3, 1, 9, dtype=torch.float64)], 1)
    total, count, said = 0.0, 0, logits.log_softmax(-1)
    for row in range(3):
        length, gap, inside = int(mask[row].sum()), 0, []
        for t in range(length + 1):
            if t < length and not kept[row, t]:
                inside.append(t)
                continue
            weight = [exp(-abs(k - (inside[0] + inside[-1]) / 2) / 0.5) for k in inside]
            total -= sum(w / sum(weight) * said[row, gap, words[row, k]] for w, k in zip(weight, inside, strict=True))
            total -= 0 if inside else said[row, gap, EOS]
            gap, inside, count = gap + 1, [], count + 1
    found, gaps = missing_words(logits, words, mask, kept)
    assert gaps == count == 4 + 5 + 1
    torch.testing.assert_close(found, total.float(), rtol=1e-5, atol=1e-4)


def test_what_is_shown_is_any_part():
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    drawn = torch.stack([some(mask) for _ in range(400)])
    assert not drawn[:, ~mask].any()
    sizes = torch.bincount(drawn[:, 0].sum(1), minlength=5)
    assert (sizes > 50).all()
    assert (drawn[:, 0].float().mean(0) - 0.5).abs().max() < 0.1


class Knows:
    """Whoever knows the targets: says of every gap the middle of the words that are missing there."""

    def __init__(self, targets):
        self.targets = targets

    def __call__(self, tokens, mask):
        logits = torch.zeros(len(tokens), tokens.shape[1] + 1, 100)
        for row, target in enumerate(self.targets):
            there = [*tokens[row, mask[row]].tolist(), None]
            ends = [-1, *(target.index(word) for word in there[:-1]), len(target)]
            for gap, (start, end) in enumerate(pairwise(ends)):
                logits[row, gap, target[(start + end) // 2] if end - start > 1 else EOS] = 1
        return logits


def test_from_the_middle_of_every_gap_words_take_log_many_passes():
    targets = [list(range(3, 3 + length)) for length in (1, 2, 3, 4, 7, 8, 15, 16, 40)]
    written, passes = insert(Knows(targets), len(targets), 20, longest=50, eos=EOS, pad=PAD)
    for row, took, target in zip(written.tolist(), passes.tolist(), targets, strict=True):
        assert row == target + [PAD] * (40 - len(target))
        assert took == ceil(log2(len(target) + 1))
    written, _ = insert(Knows(targets), len(targets), 20, longest=7, eos=EOS, pad=PAD)
    assert (written != PAD).sum(1).tolist() == [1, 2, 3, 4, 7, 7, 7, 7, 7]


def test_a_wrong_draft_is_edited_to_the_target():
    """By whoever knows it: words go that are not in order there, as many as are missing come, and the right ones."""
    target = [5, 6, 7, 8, 9]

    def in_order(row):
        good, last = [], -1
        for word in row:
            place = target.index(word) if word in target else -1
            good.append(place > last)
            last = max(last, place)
        return good

    def wrong(tokens, mask):
        return torch.tensor([[-1.0 if good else 1.0 for good in in_order(row)] for row in tokens.tolist()])

    def missing(tokens, mask):
        counts = torch.zeros(len(tokens), tokens.shape[1] + 1, 6)
        for row in range(len(tokens)):
            ends = [-1, *(target.index(word) for word in tokens[row, mask[row]].tolist()), len(target)]
            for gap, (start, end) in enumerate(pairwise(ends)):
                counts[row, gap, end - start - 1] = 1
        return counts

    def words(tokens, mask):
        return torch.nn.functional.one_hot(torch.tensor(target).expand(len(tokens), -1), 12)

    drafts = torch.tensor([[4, 6, 4, 5, 9, 0], [11, 11, 11, 11, 11, 11], [5, 6, 7, 8, 9, 0], [0, 0, 0, 0, 0, 0]])
    written, rounds = edit(wrong, missing, words, drafts, 5, longest=9, unwritten=BOS, pad=PAD)
    assert written.tolist() == [target] * 4
    assert rounds.tolist() == [1, 1, 0, 1]
    written, _ = edit(wrong, missing, words, drafts, 5, longest=4, unwritten=BOS, pad=PAD)
    assert written[:2].tolist() == [[6, 9, 0, 0, 0], [0] * 5]  # no gap is opened where too much would come


def test_a_spoilt_draft_says_which_of_its_words_are_wrong():
    task, mask = task_of(Editing), torch.arange(6) < torch.tensor([[6], [3]])
    words = torch.tensor([[4, 5, 6, 7, 8, 9], [10, 11, 12, 0, 0, 0]])
    written = torch.where(torch.tensor([[0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0]]).bool(), 19, words)
    strewn = 0
    for _ in range(50):
        draft, wrong = task.spoilt(written, words, mask)
        for row in range(2):
            real = draft[row] != PAD
            right = [word for word, bad in zip(draft[row, real].tolist(), wrong[row, real].tolist(), strict=True) if not bad]
            kept = [
                word for word, true in zip(written[row].tolist(), words[row].tolist(), strict=True) if word == true and true
            ]
            assert right == kept
            strewn += int(real.sum()) - int(mask[row].sum())
    assert 50 * 11 * 0.1 < strewn < 50 * 11 * 0.3


def test_what_edits_cost_is_the_sum_of_three(monkeypatch):
    task = task_of(Editing).eval()
    batch = next(iter(Pairs(*tokens(task, VALID[:8]), 8)))
    words, mask = unframed(batch)
    kept = some(mask)
    draft, wrong = task.spoilt(words, words, mask)
    monkeypatch.setattr("thalweg.tasks.insertion.some", lambda mask: kept)
    monkeypatch.setattr(task, "spoilt", lambda *_: (draft, wrong))
    total, terms = 0.0, 0
    for row in range(8):
        memory = task.model.network.encode(batch["source_tokens"][row, None], batch["source_mask"][row, None])
        seen = words[row, kept[row]][None]
        ends = [-1, *kept[row].nonzero().squeeze(1).tolist(), int(mask[row].sum())]
        said = task.model.missing(seen, torch.ones_like(seen).bool(), memory)[0].log_softmax(-1)
        for gap, (start, end) in enumerate(pairwise(ends)):
            total, terms = total - said[gap, end - start - 1], terms + 1
        read = torch.where(kept[row], words[row], BOS)[mask[row]][None]
        said = task.model.words(read, torch.ones_like(read).bool(), memory)[0].log_softmax(-1)
        for t in (mask[row] & ~kept[row]).nonzero().squeeze(1).tolist():
            total, terms = total - said[t, words[row, t]], terms + 1
        real = draft[row] != PAD
        goes = task.model.wrong(draft[row, real][None], real[real][None], memory)[0]
        for t, bad in enumerate(wrong[row, real].tolist()):
            total, terms = total - torch.nn.functional.logsigmoid(goes[t] if bad else -goes[t]), terms + 1
    loss, count = task.loss(batch)
    assert count == terms
    torch.testing.assert_close(loss, total, rtol=1e-4, atol=1e-3)


def test_phrases_are_written_by_insertion():
    metrics, task = learned(task_of(Insertion), 300, lr=0.008)
    assert metrics["phrase_bleu"] > 0.7
    assert metrics["passes"] < 3.2  # of up to six words
    assert task.predict({"text": ["s1", "s2"]})["text"] == ["t1 u1", "t2"]


def right(task, pairs, **how):
    """The share of pairs that come out whole."""
    written = task.predict({"text": [source for source, _ in pairs]}, **how)["text"]
    return sum(text == target for text, (_, target) in zip(written, pairs, strict=True)) / len(pairs)


@pytest.mark.slow
def test_one_model_inserts_on_either_side():
    _, task = learned(task_of(JointInsertion), 1200, lr=0.008)
    assert right(task, VALID) > 0.7
    assert right(task, [(target, source) for source, target in VALID], back=True) > 0.7


@pytest.mark.slow
def test_drafts_are_mended_by_what_was_learned():
    _, task = learned(task_of(Editing), 1200, lr=0.008)
    for draft in ("", "t2 t4 u1", "u7 u7 t3 t5 t2"):
        assert right(task, VALID, draft=draft) > 0.6


@pytest.mark.parametrize("make", MAKES)
def test_a_saved_task_writes_the_same_and_each_text_as_if_it_were_alone(make, tmp_path):
    task = task_of(make).eval()
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    save(task, tmp_path)
    both = task.predict({"text": ["s1 s2 s3", "s4"]})
    assert load(tmp_path).predict({"text": ["s1 s2 s3", "s4"]}) == both
    assert task.predict({"text": ["s4"]})["text"] == both["text"][1:]
    task.evaluate(next(iter(Pairs(*tokens(task, VALID[:20]), 20))))
    assert all(metric.compute().isfinite() for metric in task.metrics.values())
