"""Beam search: a beam of one is a chain of the most probable tokens, one wide enough is exhaustive."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from thalweg.decoding.search import beam_search
from thalweg.layers.cross_attention import BeamCache
from thalweg.models.sequence.seq2seq import AttentionSeq2Seq, Seq2Seq, States
from thalweg.models.sequence.transformer import Transformer

MARKS = {"bos": 1, "eos": 2, "pad": 0}
MODELS = {"plain": Seq2Seq, "attention": AttentionSeq2Seq,
          "transformer": partial(Transformer, num_layers=2, num_heads=2)}  # fmt: skip


@pytest.fixture(params=MODELS)
def model(request):
    model = MODELS[request.param](9, 5, embed_dim=8, hidden_dim=8).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.8)
    return model


@pytest.fixture
def sources():
    tokens, mask = torch.randint(9, (6, 4)), torch.ones(6, 4, dtype=torch.bool)
    mask[::2, 2:] = False
    return tokens, mask


@torch.no_grad()
def naive_scores(model, source, mask, targets, length_penalty):
    """sum log p / T^penalty of each target, read whole."""
    longest, scores = max(map(len, targets)), {}
    whole = torch.tensor([[1, *target, *[0] * (longest - len(target))] for target in targets])
    sides = (side[None].expand(len(targets), -1) for side in (source, mask))
    said = model(*sides, whole[:, :-1]).double().log_softmax(-1).gather(2, whole[:, 1:, None]).squeeze(2)
    for target, row in zip(targets, said, strict=True):
        scores[target] = sum(row[t].item() for t in range(len(target))) / len(target) ** length_penalty
    return scores


def targets(length):
    """All that end within the length, and all of the length that do not."""
    words = (0, 1, 3, 4)
    for size in range(length):
        yield from ((*begun, 2) for begun in itertools.product(words, repeat=size))
    yield from itertools.product(words, repeat=length)


def plain(row):
    """A row up to its end."""
    tokens = row.tolist()
    return tuple(tokens[: tokens.index(2) + 1] if 2 in tokens else tokens)


@pytest.mark.parametrize("length_penalty", [0.0, 0.75, 1.0])
def test_a_beam_as_wide_as_there_are_targets_is_exhaustive_search(model, sources, length_penalty):
    every = list(targets(3))
    how = {"length": 3, "length_penalty": length_penalty}
    found, score = beam_search(model, *sources, **MARKS, beam=len(every), **how)
    narrow, narrow_score = beam_search(model, *sources, **MARKS, beam=2, **how)
    for number, (source, mask) in enumerate(zip(*sources, strict=True)):
        scores = naive_scores(model, source, mask, every, length_penalty)
        ranked = sorted(every, key=scores.get, reverse=True)
        assert [plain(row) for row in found[number]] == ranked
        assert score[number].tolist() == pytest.approx([scores[target] for target in ranked], abs=1e-4)
        assert narrow_score[number, 0] <= score[number, 0] + 1e-5
        assert narrow_score[number].tolist() == pytest.approx([scores[plain(row)] for row in narrow[number]], abs=1e-4)


def test_what_is_forbidden_is_not_written_and_the_rest_is_as_good_as_it_can_be(model, sources):
    every = [target for target in targets(3) if 3 not in target]
    found, score = beam_search(model, *sources, **MARKS, beam=len(every), length=3, forbidden=[3])
    for number, (source, mask) in enumerate(zip(*sources, strict=True)):
        scores = naive_scores(model, source, mask, every, 0.75)
        ranked = sorted(every, key=scores.get, reverse=True)
        assert [plain(row) for row in found[number]] == ranked
        assert score[number].tolist() == pytest.approx([scores[target] for target in ranked], abs=1e-4)


def test_a_beam_of_one_is_the_chain_of_the_most_probable_tokens(model, sources):
    found, _ = beam_search(model, *sources, **MARKS, beam=1, length=7)
    for row, source, mask in zip(found[:, 0], *sources, strict=True):
        chain = [1]
        while chain[-1] != 2 and len(chain) <= 7:
            chain.append(int(model(source[None], mask[None], torch.tensor([chain]))[0, -1].argmax()))
        assert plain(row) == tuple(chain[1:])
        assert not row[len(chain) - 1 :].any()  # padding


def naive_search(model, source, mask, beam, length, length_penalty):
    """Beam search of one source, every beginning read anew at every step: the targets, their log p, and their score."""
    kept = [((1,), 0.0)]
    for _ in range(length):
        candidates = []
        for words, total in kept:
            if words[-1] == 2:
                candidates.append((words, total))
                continue
            said = model(source[None], mask[None], torch.tensor([words]))[0, -1].log_softmax(-1)
            candidates += [((*words, word), total + log_p) for word, log_p in enumerate(said.tolist())]
        kept = sorted(candidates, key=lambda one: one[1] / (len(one[0]) - 1) ** length_penalty, reverse=True)[:beam]
    return [(words[1:], total / (len(words) - 1) ** length_penalty) for words, total in kept]


@pytest.fixture
def moves(monkeypatch):
    """Writes down to which rows a search goes on each time: of all caches."""
    seen = []
    for cache in (BeamCache, States):

        def reorder(self, rows, before=cache.reorder):
            seen.append(rows.tolist())
            before(self, rows)

        monkeypatch.setattr(cache, "reorder", reorder)
    return seen


def test_beginnings_that_change_places_are_those_that_are_read_anew_each_time(model, sources, moves):
    found, score = beam_search(model, *sources, **MARKS, beam=4, length=9)
    assert sum(rows != sorted(rows) or len({*rows}) < len(rows) for rows in moves) > 4  # some cross, some end, some fork
    with torch.no_grad():
        for number, (source, mask) in enumerate(zip(*sources, strict=True)):
            naive = naive_search(model, source, mask, 4, 9, 0.75)
            assert [plain(row) for row in found[number]] == [words for words, _ in naive]
            assert score[number].tolist() == pytest.approx([of for _, of in naive], abs=1e-4)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_sentence_is_translated_as_if_it_were_alone_whatever_becomes_of_the_others(model, moves, beam, monkeypatch):
    sources = torch.randint(9, (24, 4)), torch.arange(4) < torch.randint(1, 5, (24, 1))
    decode, ending = model.decode, 9.0 * (torch.arange(5) == MARKS["eos"])
    monkeypatch.setattr(model, "decode", lambda tokens, *given: decode(tokens, *given) + (tokens > 3)[..., None] * ending)
    together, score = beam_search(model, *sources, **MARKS, beam=beam, length=12)
    assert min(map(len, moves)) < 24 * beam  # the first to end were put aside
    order = torch.randperm(24)
    shuffled, its_score = beam_search(model, *(side[order] for side in sources), **MARKS, beam=beam, length=12)
    assert torch.equal(shuffled, together[order])
    torch.testing.assert_close(its_score, score[order])
    for number in range(24):
        alone, own = beam_search(model, *(side[number : number + 1] for side in sources), **MARKS, beam=beam, length=12)
        assert [plain(row) for row in alone[0]] == [plain(row) for row in together[number]]
        torch.testing.assert_close(own[0], score[number])


class Tree(nn.Module):
    """Says the same of every source: the word that looks best at first, 3, leads to nothing better than 4 does."""

    after = {(): [0.0, 0.5, 0.4, 0.1], (3,): [0.4, 0.3, 0.2, 0.1], (4,): [0.0, 0.05, 0.05, 0.9]}  # p of the tokens 2 to 5

    def encode(self, tokens, mask):
        return tokens

    def new_cache(self, memory, copies, time):
        return States([torch.zeros(len(memory) * copies, 0, dtype=torch.long)])

    def decode(self, tokens, memory, cache):
        cache[0] = torch.cat([cache[0], tokens], 1)
        beginnings = [tuple(number for number in row if number > 2) for row in cache[0].tolist()]
        return torch.tensor([[0, 0, *self.after.get(words, [1.0, 0, 0, 0])] for words in beginnings]).log()[:, None]


def test_two_beginnings_find_what_greed_misses():
    source = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool)
    found = {beam: beam_search(Tree(), *source, **MARKS, beam=beam, length=4, length_penalty=0.0) for beam in (1, 2)}
    best = {beam: (plain(tokens[0, 0]), score[0, 0].exp().item()) for beam, (tokens, score) in found.items()}
    assert best[1] == ((3, 2), pytest.approx(0.5 * 0.4))
    assert best[2] == ((4, 5, 2), pytest.approx(0.4 * 0.9))


@pytest.mark.parametrize("wrong", [{"beam": 0}, {"length": 0}])
def test_no_beam_and_no_length_are_refused(model, sources, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) + "=0"):
        beam_search(model, *sources, **MARKS, **wrong)
