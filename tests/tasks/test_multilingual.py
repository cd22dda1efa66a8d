"""Languages that are learned side by side: what is measured is what it says, and what says the same becomes alike."""

import random

import pytest
import torch
from torch.nn.functional import cross_entropy

from thalweg.build import build, load, save
from thalweg.data.languages import Multilingual
from thalweg.data.wordpieces import WordPieces, learn_wordpieces
from thalweg.models.language.bert import BERT
from thalweg.models.language.masked import MaskedEncoder
from thalweg.tasks.multilingual import MultilingualModelling
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup

DRAW = random.Random(3)
COUNT = 12  # numbers, each with a letter in both languages; the figures, which are Greek, are written in both


def counted(start, figures):
    """Five numbers that follow each other, in both languages; some are written in figures, others in each."""
    numbers = [(start + step) % COUNT for step in range(5)]
    return tuple(" ".join(chr(ord("α" if DRAW.random() < figures else first) + number) for number in numbers) + " ."
                 for first in "am")  # fmt: skip


MEANINGS = [counted(start, 0.35) for _ in range(40) for start in range(COUNT)]
WORDS = [counted(start, 0.0) for start in range(COUNT)]
TOKENIZER = learn_wordpieces([side for pair in MEANINGS for side in pair], 150)
PIECES = WordPieces(TOKENIZER, marks=True)


def task(layers=2, **arguments):
    backbone = build(BERT, vocab_size=len(PIECES), context=20, embed_dim=32, num_layers=layers, num_heads=2, dropout=0.0)
    arguments = {"languages": ["here", "there"]} | arguments
    return build(MultilingualModelling, model=build(MaskedEncoder, backbone=backbone), tokenizer=TOKENIZER,
                 frequent=PIECES.encode(["."])[0].ids[1], **arguments)  # fmt: skip


def test_the_loss_is_that_of_hidden_tokens_and_means_and_counts_are_of_each_language():
    modelling, batch = task(), Multilingual(MEANINGS, PIECES, 16).batch(0)
    modelling.eval()
    states = modelling.model.backbone.layers(batch["tokens"], batch["mask"], batch["segment"])
    logits = modelling.model.token_head(states[2][batch["hidden"]], modelling.model.backbone.embedding.weight)
    total, count = modelling.loss(batch)
    torch.testing.assert_close(total, cross_entropy(logits, batch["original"][batch["hidden"]], reduction="sum"))
    assert int(count) == int(batch["hidden"].sum())
    assert not modelling.mean.any()  # what is measured is not remembered
    modelling.train().loss(batch)
    for number in range(2):
        rows = [row for row, language in enumerate(batch["language"].tolist()) if language == number]
        real = torch.cat([states[1][row][batch["mask"][row]] for row in rows])
        torch.testing.assert_close(modelling.mean[number], real.mean(0))
        assert modelling.occurrences[number].sum() == len(real)
    before = modelling.mean.clone()
    modelling.loss(batch)
    torch.testing.assert_close(modelling.mean, before)  # a running mean of what stays the same


def test_a_token_belongs_to_a_language_by_its_rate_whatever_the_length_of_the_texts():
    modelling = task()
    modelling.occurrences[:, 5:9] = torch.tensor([[90.0, 90, 0, 20], [1, 2, 5, 2]])  # 200 tokens of one, 10 of the other
    assert modelling.belongs()[:, 5:9].tolist() == [[False, False, False, False], [False, False, True, False]]
    modelling.occurrences[1, 5] = 0
    assert modelling.belongs()[0, 5]


def test_the_vector_of_a_language_is_added_where_it_is_said_and_its_share_is_counted():
    modelling = task(layer=1).eval()
    batch = Multilingual(MEANINGS, PIECES, 8, together=True).batch(0)
    modelling.mean.copy_(torch.randn(2, 32))
    modelling.occurrences.copy_(torch.rand(2, len(PIECES)).pow(8))
    states = modelling.model.backbone.layers(batch["original"], batch["mask"])[1]
    moved = states + 2 * (modelling.mean[1] - modelling.mean[0])
    moved = modelling.model.backbone.blocks[1](moved, batch["mask"][:, None, None])
    expected = modelling.model.token_head(moved, modelling.model.backbone.embedding.weight).argmax(-1)
    assert torch.equal(modelling.moved(states, batch["mask"], 0, 1, 2.0), expected)
    modelling.evaluate(batch)
    real = batch["mask"] & (batch["original"] != PIECES.cls) & (batch["original"] != PIECES.sep)
    real[1::2] = False  # those of the other language are not moved
    share = modelling.belongs()[1][expected[real]].float().mean()
    torch.testing.assert_close(modelling.metrics["other_language_2"].compute(), share)
    vectors = torch.stack([row[mask].mean(0) for row, mask in zip(states, batch["mask"], strict=True)])
    for name, means in (("mrr", torch.zeros(2, 32)), ("centred_mrr", modelling.mean)):
        one, other = vectors[::2] - means[0], vectors[1::2] - means[1]
        near = torch.cosine_similarity(one[:, None], other[None], dim=-1)
        ranks = (near >= near.diagonal()[:, None] - 1e-7).sum(1)
        torch.testing.assert_close(modelling.metrics[f"{name}_there"].compute(), (1 / ranks).mean())


def test_a_translation_is_looked_for_among_the_sentences_of_its_language_alone():
    modelling = task(languages=["here", "there", "beyond"]).eval()
    batch = Multilingual([(one, other, other) for one, other in WORDS], PIECES, COUNT, together=True).batch(0)
    modelling.evaluate(batch)
    states = modelling.model.backbone.layers(batch["original"], batch["mask"])[1]
    vectors = torch.stack([row[mask].mean(0) for row, mask in zip(states, batch["mask"], strict=True)])
    near = torch.cosine_similarity(vectors[::3, None], vectors[None, 1::3], dim=-1)
    expected = (1 / (near >= near.diagonal()[:, None] - 1e-7).sum(1)).mean()
    for name in ("mrr_there", "mrr_beyond"):
        torch.testing.assert_close(modelling.metrics[name].compute(), expected)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="layer=3: expected 0 to 2"):
        task(layer=3)


@pytest.mark.slow
def test_what_says_the_same_becomes_alike_and_a_vector_turns_one_language_into_the_other(tmp_path):
    """In words that the languages do not share; that they share figures must do."""
    torch.manual_seed(0)
    modelling, held_out = task(layers=1), Multilingual(WORDS, PIECES, COUNT, together=True)
    train = Multilingual(MEANINGS, PIECES, 32, share=0.5, shuffle=True)
    experiment = Experiment(task=modelling, train=train, steps=1000, optimizer=adamw(5e-3), clip=1.0,
                            schedule=warmup(0.1, linear()))  # fmt: skip
    training = Training(experiment, precision="fp32")
    before = {name: float(value) for name, value in evaluate(training, held_out)}
    for _ in training:
        pass
    found = {name: float(value) for name, value in evaluate(training, held_out)}
    assert found["accuracy"] > 0.7 > 0.3 > found["unigram_accuracy"]
    assert found["centred_mrr_there"] > 0.6 > 0.45 > before["centred_mrr_there"]
    assert found["other_language_0"] < 0.03 < 0.1 < found["other_language_3"]
    save(modelling.eval(), tmp_path)
    said = load(tmp_path).predict({"text": [WORDS[2][0]]}, toward="there", strength=5.0)["text"]
    assert any("m" <= word <= "x" for word in said[0].split())
    with pytest.raises(ValueError, match="toward='nowhere': expected one of there"):
        modelling.predict({"text": ["a"]}, toward="nowhere")
    assert modelling.figures(held_out.batch(0)).keys() == {"language vector"}
